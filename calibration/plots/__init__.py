"""Pictures of calibration for a report; matplotlib's object interface, so that nothing global is touched.

>>> from calibration.plots import comparison_plot, curves_plot, drift_plot, reliability_plot
"""

from __future__ import annotations

from calibration.plots.comparison import comparison_plot
from calibration.plots.curves import curves_plot
from calibration.plots.drift import drift_plot
from calibration.plots.reliability import reliability_plot

__all__ = ["comparison_plot", "curves_plot", "drift_plot", "reliability_plot"]
