"""Ratios of estimates: Fieller's intervals, one at a time and for all ratios at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_DRAWS = 2**13


def fieller_intervals(estimate: Floats, covariance: Floats, reference: int, critical: float) -> Floats:
    r"""Return the interval of each estimate over the reference's.

    Parameters
    ----------
    estimate : float64[T]
        About jointly normal.
    covariance : float64[T, T]
    reference : int
        Index of the denominator.
    critical : float
        Quantile of the absolute standard normal: 1.96 for one interval at 95 %.

    Returns
    -------
    float64[T, 2]
        Lower and upper bound; ``-inf, inf`` where the denominator is not told apart from 0, since then no bound can be
        stated (a confidence set that is two rays is reported so as well). 1, 1 of the reference.

    Notes
    -----
    The set of :math:`\rho` with :math:`(a - \rho b)^2 \le c^2 (v_{aa} - 2 \rho v_{ab} + \rho^2 v_{bb})` (Fieller, 1954,
    "Some problems in interval estimation", JRSS B 16). It covers at the stated level however small the denominator
    is, which no bounded interval of a ratio can (Gleser and Hwang, 1987).

    Examples
    --------
    >>> fieller_intervals(np.array([4.0, 2.0, 0.1]), 0.04 * np.eye(3), 1, 1.96).round(2)
    array([[ 1.63,  2.53],
           [ 1.  ,  1.  ],
           [-0.15,  0.25]])
    >>> fieller_intervals(np.array([4.0, 0.1]), 0.04 * np.eye(2), 1, 1.96)[0]
    array([-inf,  inf])
    """
    c2 = critical**2
    a, b = estimate, estimate[reference]
    square = b**2 - c2 * covariance[reference, reference]
    middle = a * b - c2 * covariance[:, reference]
    constant = a**2 - c2 * np.diag(covariance)
    bounds = np.full((len(a), 2), (-np.inf, np.inf))
    if square > 0:
        half = np.sqrt(np.maximum(middle**2 - square * constant, 0.0))
        bounds = np.column_stack([(middle - half) / square, (middle + half) / square])
    bounds[reference] = 1.0
    return np.asarray(bounds)


def simultaneous_critical(estimate: Floats, covariance: Floats, reference: int, alpha: float) -> float:
    """Return the critical value with which the Fieller intervals of all ratios hold at once.

    Parameters
    ----------
    estimate, covariance, reference
        As in :func:`fieller_intervals`.
    alpha : float
        P(any interval misses), about.

    Returns
    -------
    float
        Quantile of the largest of the T - 1 absolute standardised contrasts ``a_t - ratio_t * b``, jointly normal, with
        the correlation that they have at the estimated ratios (Dilba, Bretz and Guiard, 2006, "Simultaneous confidence
        sets and confidence intervals for multiple ratios", J. Statistical Planning and Inference 136). By fixed
        quasi-random draws; never more than Bonferroni's.

    Examples
    --------
    >>> round(simultaneous_critical(np.array([4.0, 2.0, 0.1]), 0.04 * np.eye(3), 1, 0.05), 2)
    2.23
    """
    others = np.delete(np.arange(len(estimate)), reference)
    if not len(others):
        return float(ndtri(1 - alpha / 2))
    bonferroni = float(ndtri(1 - alpha / 2 / len(others)))
    if len(others) == 1 or estimate[reference] == 0:
        return bonferroni
    contrast = np.eye(len(estimate))[others]
    contrast[:, reference] -= estimate[others] / estimate[reference]
    spread = contrast @ covariance @ contrast.T
    sd = np.sqrt(np.diag(spread))
    values, vectors = np.linalg.eigh(spread / np.outer(sd, sd))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    uniform = qmc.Sobol(len(others), scramble=True, rng=0).random(_DRAWS)
    largest = np.abs(ndtri(uniform) @ root.T).max(axis=1)
    return min(float(np.quantile(largest, 1 - alpha)), bonferroni)
