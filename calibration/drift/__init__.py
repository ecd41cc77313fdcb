"""Whether a ranker, or what viewers make of it, has moved away from its calibrator since the fit.

>>> from calibration.drift import drift_table, needs_recalibration
"""

from __future__ import annotations

from calibration.drift.responses import response_drift
from calibration.drift.scores import (
    KolmogorovSmirnov,
    StabilityIndex,
    kolmogorov_smirnov,
    population_stability_index,
)
from calibration.drift.verdict import DriftReport, DriftVerdict, needs_recalibration
from calibration.drift.windows import drift_table

__all__ = [
    "DriftReport",
    "DriftVerdict",
    "KolmogorovSmirnov",
    "StabilityIndex",
    "drift_table",
    "kolmogorov_smirnov",
    "needs_recalibration",
    "population_stability_index",
    "response_drift",
]
