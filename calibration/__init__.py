"""Raw scores of any first-pass ranker, on any scale, to comparable expected responses.

>>> from calibration import CalibratorSet, QuantileResponseCalibrator
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibration.calibrator_set import CalibratorSet
from calibration.curve import ResponseCurve
from calibration.diagnostics import expected_calibration_error, reliability_table
from calibration.drift import (
    DriftReport,
    DriftVerdict,
    drift_table,
    kolmogorov_smirnov,
    needs_recalibration,
    population_stability_index,
    response_drift,
)
from calibration.errors import CalibrationError, UnknownCalibrator
from calibration.examination import PositionExamination
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from calibration.calibrator import QuantileResponseCalibrator

__all__ = [
    "CalibrationError",
    "CalibratorSet",
    "DriftReport",
    "DriftVerdict",
    "PositionExamination",
    "QuantileResponseCalibrator",
    "QuantileTable",
    "ResponseCurve",
    "UnknownCalibrator",
    "drift_table",
    "expected_calibration_error",
    "kolmogorov_smirnov",
    "needs_recalibration",
    "population_stability_index",
    "reliability_table",
    "response_drift",
]


def __getattr__(name: str) -> Any:
    # scikit-learn takes a second to import; a ranking service that only loads a CalibratorSet never pays it.
    if name == "QuantileResponseCalibrator":
        from calibration.calibrator import QuantileResponseCalibrator

        return QuantileResponseCalibrator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
