"""Monotone splines in the log-odds of the quantile, as straight as the data allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.families import logit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.quantiles import QuantileTable

    Floats = NDArray[np.float64]

N_RAMPS = 24

CURVATURES = (1.0, 10.0, 100.0, 1000.0)
"""Weights of the curvature penalty that cross-validation chooses from, in units of rows."""

RIDGE = 0.01


def spline_design(table: QuantileTable) -> Floats:
    """Return smooth ramps in the log-odds of the quantile, each rising from 0 to 1.

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them.

    Returns
    -------
    float64[m, 24]
        Integrals of the hat functions on equally spaced knots (I-splines of order 2, Ramsay 1988): once
        differentiable, and their sum is a straight line.

    Examples
    --------
    >>> from calibration.quantiles import QuantileTable
    >>> design = spline_design(QuantileTable.fit(np.arange(100.0)))
    >>> bool(np.all(np.diff(design, axis=0) >= 0))
    True
    """
    place = logit(table.quantile)
    # Knots from half a row to half a row, and not from bin to bin: a summary of the same rows has the same ones.
    widest = np.log(2.0 * max(table.weight.sum(), 2.0))
    spacing = 2.0 * widest / (N_RAMPS - 1)
    knots = -widest + spacing * np.arange(-1, N_RAMPS - 1)
    u = np.clip((place[:, None] - knots) / spacing, 0.0, 2.0)
    return np.asarray(np.where(u < 1.0, u**2 / 2, 1.0 - (2.0 - u) ** 2 / 2))


def spline_penalty(curvature: float) -> Floats:
    """Return the penalty that draws neighbouring ramps to equal heights, and so the curve to a straight line.

    Parameters
    ----------
    curvature : float
        > 0, in units of rows.

    Returns
    -------
    float64[24, 24]
        curvature * D'D + a little ridge, D the first differences (P-splines, Eilers and Marx 1996, on the
        increments of a monotone curve, Pya and Wood 2015).
    """
    differences = np.diff(np.eye(N_RAMPS), axis=0)
    return np.asarray(curvature * differences.T @ differences + RIDGE * np.eye(N_RAMPS))
