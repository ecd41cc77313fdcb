"""Are predictions right? Tables, errors, lines and a test, with intervals that know of viewers."""

from calibration.diagnostics.clusters import Estimate
from calibration.diagnostics.ece import debiased_calibration_error, expected_calibration_error
from calibration.diagnostics.intervals import clopper_pearson_interval, wilson_interval
from calibration.diagnostics.moments import CalibrationTest, calibration_test
from calibration.diagnostics.regression import CalibrationLine, calibration_in_the_large, calibration_line
from calibration.diagnostics.reliability import reliability_table
from calibration.diagnostics.smooth_ece import smooth_calibration_error
from calibration.diagnostics.summary import calibration_summary

__all__ = [
    "CalibrationLine",
    "CalibrationTest",
    "Estimate",
    "calibration_in_the_large",
    "calibration_line",
    "calibration_summary",
    "calibration_test",
    "clopper_pearson_interval",
    "debiased_calibration_error",
    "expected_calibration_error",
    "reliability_table",
    "smooth_calibration_error",
    "wilson_interval",
]
