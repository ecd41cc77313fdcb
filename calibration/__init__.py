"""Raw scores of any first-pass ranker, on any scale, to comparable expected responses.

>>> from calibration import CalibratorSet, QuantileResponseCalibrator
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibration.calibrator_set import CalibratorSet
from calibration.curve import ResponseCurve
from calibration.diagnostics import expected_calibration_error, reliability_table
from calibration.errors import CalibrationError, SlotExaminationNotIdentified, UnknownCalibrator
from calibration.examination import Examination, PositionExamination
from calibration.noisy_or import noisy_or
from calibration.quantiles import QuantileTable
from calibration.shadow import with_shadow_scores
from calibration.slot_examination import SlotExamination

if TYPE_CHECKING:
    from calibration.calibrator import QuantileResponseCalibrator

__all__ = [
    "CalibrationError",
    "CalibratorSet",
    "Examination",
    "PositionExamination",
    "QuantileResponseCalibrator",
    "QuantileTable",
    "ResponseCurve",
    "SlotExamination",
    "SlotExaminationNotIdentified",
    "UnknownCalibrator",
    "expected_calibration_error",
    "noisy_or",
    "reliability_table",
    "with_shadow_scores",
]


def __getattr__(name: str) -> Any:
    # scikit-learn takes a second to import; a ranking service that only loads a CalibratorSet never pays it.
    if name == "QuantileResponseCalibrator":
        from calibration.calibrator import QuantileResponseCalibrator

        return QuantileResponseCalibrator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
