"""Raw scores of any first-pass ranker, on any scale, to comparable expected responses.

>>> from calibration import CalibratorSet, QuantileResponseCalibrator
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from calibration.base_rate import estimate_base_rate
from calibration.calibrator_set import CalibratorSet
from calibration.curve import ResponseCurve
from calibration.errors import CalibrationError, CalibrationWarning, SlotExaminationNotIdentified, UnknownCalibrator
from calibration.examination import Examination, PositionExamination, SlotExamination, noisy_or
from calibration.quantiles import QuantileTable
from calibration.settings import CalibrationSettings
from calibration.shadow import with_shadow_scores
from calibration.sketch import QuantileSketch, ScoreCells

if TYPE_CHECKING:
    from calibration.calibrator import QuantileResponseCalibrator
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
    from calibration.drift import (
        DriftReport,
        DriftVerdict,
        drift_table,
        kolmogorov_smirnov,
        needs_recalibration,
        population_stability_index,
        response_drift,
    )

__all__ = [
    "CalibrationError",
    "CalibrationSettings",
    "CalibrationWarning",
    "CalibratorSet",
    "DriftReport",
    "DriftVerdict",
    "Examination",
    "PositionExamination",
    "QuantileResponseCalibrator",
    "QuantileSketch",
    "QuantileTable",
    "ResponseCurve",
    "ScoreCells",
    "SlotExamination",
    "SlotExaminationNotIdentified",
    "UnknownCalibrator",
    "calibration_in_the_large",
    "calibration_line",
    "calibration_summary",
    "calibration_test",
    "debiased_calibration_error",
    "drift_table",
    "estimate_base_rate",
    "expected_calibration_error",
    "kolmogorov_smirnov",
    "needs_recalibration",
    "noisy_or",
    "population_stability_index",
    "reliability_table",
    "response_drift",
    "smooth_calibration_error",
    "with_shadow_scores",
]


_MODULES = {
    "calibration.calibrator": ("QuantileResponseCalibrator",),
    "calibration.diagnostics": (
        "calibration_in_the_large",
        "calibration_line",
        "calibration_summary",
        "calibration_test",
        "debiased_calibration_error",
        "expected_calibration_error",
        "reliability_table",
        "smooth_calibration_error",
    ),
    "calibration.drift": (
        "DriftReport",
        "DriftVerdict",
        "drift_table",
        "kolmogorov_smirnov",
        "needs_recalibration",
        "population_stability_index",
        "response_drift",
    ),
}
_LATER = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    # scikit-learn and scipy take a second to import; a ranking service that only loads a CalibratorSet never pays it.
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
