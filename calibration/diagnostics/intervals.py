"""Confidence intervals of a mean: of a rate by Wilson or Clopper and Pearson, of anything else by Student's t."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betaincinv, stdtrit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Z_95 = 1.959963984540054


def wilson_interval(rate: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's 95 % score interval of a binomial rate.

    Parameters
    ----------
    rate : float64[m]
        Observed, in [0, 1].
    n : float64[m]
        Trials, > 0; any number where the trials are effective ones.

    Returns
    -------
    low, high : float64[m]
        In [0, 1]. The coverage is 95 % on average over rates.

    References
    ----------
    Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.

    Examples
    --------
    >>> low, high = wilson_interval(np.array([0.0]), np.array([10.0]))
    >>> low.round(3), high.round(3)
    (array([0.]), array([0.278]))
    """
    shrinkage = 1.0 / (1.0 + Z_95**2 / n)
    centre = shrinkage * (rate + Z_95**2 / (2 * n))
    half_width = shrinkage * Z_95 * np.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2))
    return np.maximum(centre - half_width, 0.0), np.minimum(centre + half_width, 1.0)


def clopper_pearson_interval(rate: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return the exact 95 % interval of a binomial rate.

    Parameters
    ----------
    rate, n : float64[m]
        As in ``wilson_interval``.

    Returns
    -------
    low, high : float64[m]
        In [0, 1]. The coverage is at least 95 % for every rate, hence wider than Wilson's.

    References
    ----------
    Clopper and Pearson (1934), "The use of confidence or fiducial limits", Biometrika 26.

    Examples
    --------
    >>> low, high = clopper_pearson_interval(np.array([0.0]), np.array([10.0]))
    >>> low.round(3), high.round(3)
    (array([0.]), array([0.308]))
    """
    positives = rate * n
    negatives = np.maximum(n - positives, 0.0)
    low = np.where(positives > 0, betaincinv(np.maximum(positives, 1e-300), negatives + 1.0, 0.025), 0.0)
    high = np.where(negatives > 0, betaincinv(positives + 1.0, np.maximum(negatives, 1e-300), 0.975), 1.0)
    return np.asarray(low), np.asarray(high)


def t_interval(mean: Floats, variance: Floats, n_independent: Floats) -> tuple[Floats, Floats]:
    """Return Student's 95 % interval of a mean.

    Parameters
    ----------
    mean : float64[m]
    variance : float64[m]
        Of the mean.
    n_independent : float64[m]
        How many independent amounts the variance was estimated from.

    Returns
    -------
    low, high : float64[m]
        NaN where there are fewer than two amounts.

    Examples
    --------
    >>> low, high = t_interval(np.array([1.0, 1.0]), np.array([0.04, 0.0]), np.array([5.0, 1.0]))
    >>> low.round(3), high.round(3)
    (array([0.445,   nan]), array([1.555,   nan]))
    """
    enough = n_independent > 1
    quantile = stdtrit(np.where(enough, n_independent - 1.0, 1.0), 0.975)
    half_width = np.where(enough, quantile * np.sqrt(variance), np.nan)
    return mean - half_width, mean + half_width
