"""Raw scores of any first-pass ranker, on any scale, to comparable expected responses.

>>> from calibration import CalibratorSet, QuantileResponseCalibrator
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibration.calibrator_set import CalibratorSet
from calibration.curve import ResponseCurve
from calibration.diagnostics import (
    calibration_in_the_large,
    calibration_line,
    calibration_summary,
    calibration_test,
    debiased_calibration_error,
    expected_calibration_error,
    reliability_table,
    smooth_calibration_error,
)
from calibration.errors import CalibrationError, UnknownCalibrator
from calibration.examination import PositionExamination
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from calibration.calibrator import QuantileResponseCalibrator

__all__ = [
    "CalibrationError",
    "CalibratorSet",
    "PositionExamination",
    "QuantileResponseCalibrator",
    "QuantileTable",
    "ResponseCurve",
    "UnknownCalibrator",
    "calibration_in_the_large",
    "calibration_line",
    "calibration_summary",
    "calibration_test",
    "debiased_calibration_error",
    "expected_calibration_error",
    "reliability_table",
    "smooth_calibration_error",
]


def __getattr__(name: str) -> Any:
    # scikit-learn takes a second to import; a ranking service that only loads a CalibratorSet never pays it.
    if name == "QuantileResponseCalibrator":
        from calibration.calibrator import QuantileResponseCalibrator

        return QuantileResponseCalibrator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
