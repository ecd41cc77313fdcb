"""Centred isotonic regression of the bins' response rates: no shape assumed but monotone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.families import shifted_to_total
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.binned import BinnedResponses
    from calibration.families import ResponseFamily


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


def fit_isotonic(binned: BinnedResponses, family: ResponseFamily, *, is_centred: bool = True) -> NDArray[np.float64]:
    """Fit isotonic regression to the response rates of quantile bins.

    Parameters
    ----------
    binned : BinnedResponses
        m bins.
    family : ResponseFamily
    is_centred : bool
        Blocks that pool-adjacent-violators makes are collapsed to their centre and joined by straight lines in
        the quantile, which removes most of isotonic regression's plateaus (Oron and Flournoy 2017, "Centered
        isotonic regression"). False: blocks stay as they are, which is right for curves that jump.

    Returns
    -------
    float64[m]
        Expected responses, non-decreasing, inside the family's range. They depend on ranks alone.

    Notes
    -----
    Where the family is bounded, a block without a response gets (1/2) / (n + 1), n its own exposure, and never
    more than the next block; a block of clicks only gets the mirror image. Straight lines between the centres
    of unequal blocks would not keep the mean response (one click on the best of a thousand rows would be spread
    over half of them), so the centred curve is shifted on the link scale until it does.

    Examples
    --------
    >>> from calibration.binned import BinnedResponses
    >>> from calibration.families import BINARY
    >>> from calibration.rows import CalibrationRows
    >>> binned = BinnedResponses.of(CalibrationRows.checked([0.0] * 9 + [1.0] * 9, [0] * 9 + [1] * 3 + [0] * 6))
    >>> fit_isotonic(binned, BINARY, is_centred=False)
    array([0.05      , 0.33333333])
    """
    exposure, seen = binned.exposure, binned.exposure > 0
    quantile = binned.table.quantile
    rate = pool_adjacent_violators(binned.responses[seen] / exposure[seen], exposure[seen])
    rate = np.clip(rate, family.lowest, family.highest)  # more responses than expected examinations is chance
    block_rate, block = np.unique(rate, return_inverse=True)
    block_exposure = sum_by_group(block, exposure[seen])

    margin = 0.5 / (block_exposure + 1.0)
    if block_rate[-1] >= family.highest:
        block_rate[-1] = max(family.highest - margin[-1], block_rate[-2] if block_rate.size > 1 else family.lowest)
    if block_rate[0] <= family.lowest:
        block_rate[0] = min(margin[0], block_rate[1] if block_rate.size > 1 else 1.0)
    if not is_centred:
        return np.interp(quantile, quantile[seen], block_rate[block])
    centre = sum_by_group(block, exposure[seen] * quantile[seen]) / block_exposure
    joined = np.maximum.accumulate(np.interp(quantile, centre, block_rate))
    return shifted_to_total(joined, exposure, float(binned.responses.sum()), family)
