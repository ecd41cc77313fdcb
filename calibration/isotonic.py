"""Centred isotonic regression of the bins' response rates: no shape assumed but monotone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pool_adjacent_violators(values: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the non-decreasing sequence nearest to the values in weighted squares.

    Parameters
    ----------
    values : float64[m]
    weight : float64[m]
        > 0.

    Returns
    -------
    float64[m]

    Notes
    -----
    The minimiser is also the maximum-likelihood answer for binomial and Poisson rates (Robertson, Wright
    and Dykstra 1988, section 1.5).

    Examples
    --------
    >>> pool_adjacent_violators(np.array([0.1, 0.4, 0.2]), np.ones(3))
    array([0.1, 0.3, 0.3])
    """
    from scipy.optimize import isotonic_regression  # here, so that serving does not import scipy.optimize

    pooled = np.asarray(isotonic_regression(values, weights=weight).x, dtype=np.float64)
    return np.maximum.accumulate(pooled)


def fit_isotonic(
    quantile: NDArray[np.float64],
    positives: NDArray[np.float64],
    exposure: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Fit centred isotonic regression to the response rates of quantile bins.

    Parameters
    ----------
    quantile : float64[m]
        Mid-rank quantile of each bin, strictly increasing.
    positives : float64[m]
        Weighted sum of responses.
    exposure : float64[m]
        Weighted sum of examinations (of rows, where there is no correction). A bin with 0 is only predicted.

    Returns
    -------
    float64[m]
        Expected responses, non-decreasing, inside (0, 1). They depend on ranks alone.

    Notes
    -----
    Blocks that pool-adjacent-violators makes are collapsed to their centre and joined by straight lines
    in the quantile, which removes most of isotonic regression's plateaus (Oron and Flournoy 2017, "Centered
    isotonic regression"). A block without a response gets (1/2) / (n + 1), n its own exposure, and never
    more than the next block; a block of responses only gets the mirror image.

    Examples
    --------
    >>> fit_isotonic(np.array([0.25, 0.75]), np.array([0.0, 3.0]), np.array([9.0, 9.0]))
    array([0.05      , 0.33333333])
    """
    seen = exposure > 0
    rate = pool_adjacent_violators(positives[seen] / exposure[seen], exposure[seen])
    rate = np.minimum(rate, 1.0)  # more responses than expected examinations is chance, not a rate
    block_rate, block = np.unique(rate, return_inverse=True)
    block_exposure = sum_by_group(block, exposure[seen])
    centre = sum_by_group(block, exposure[seen] * quantile[seen]) / block_exposure

    margin = 0.5 / (block_exposure + 1.0)
    if block_rate[-1] >= 1.0:
        block_rate[-1] = max(1.0 - margin[-1], block_rate[-2] if block_rate.size > 1 else 0.0)
    if block_rate[0] <= 0.0:
        block_rate[0] = min(margin[0], block_rate[1] if block_rate.size > 1 else 1.0)
    return np.maximum.accumulate(np.interp(quantile, centre, block_rate))
