"""Let the data correct a smooth curve where, and only as far as, it disagrees beyond noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.isotonic import pool_adjacent_violators
from calibration.loglinear import expit, logit
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.quantiles import QuantileTable

MOST_BLOCKS = 30
INFORMATION_PER_BLOCK = 5.0


def shrink_to_curve(
    smooth: NDArray[np.float64],
    table: QuantileTable,
    positives: NDArray[np.float64],
    exposure: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Shrink the bins' response rates towards a smooth curve by empirical Bayes, then make them monotone.

    Parameters
    ----------
    smooth : float64[m]
        The curve's expected response of each bin, inside (0, 1).
    table : QuantileTable
        The bins, m of them.
    positives, exposure : float64[m]
        Weighted sums of response and of examination. A bin without exposure is only predicted.

    Returns
    -------
    float64[m]
        Expected responses, non-decreasing, inside (0, 1).

    Notes
    -----
    Neighbouring bins are joined to at most 30 blocks of equal information sum(exposure * p * (1 - p)),
    so that the blocks are narrow where the responses are. Block b's log-odds are the curve's plus d_b,
    d_b ~ N(0, tau2). tau2 is the moment estimate of DerSimonian and Laird (1986, eq. 8) on the blocks'
    score residuals; d_b is its posterior mode, joined by straight lines between block centres in the
    log-odds of the quantile. tau2 = 0, the usual answer for a curve that fits, leaves the curve alone.

    Examples
    --------
    >>> from calibration.quantiles import QuantileTable, sum_by_group
    >>> table, smooth = QuantileTable.fit(np.arange(4.0)), np.full(4, 0.5)
    >>> n = np.full(4, 1000.0)
    >>> shrink_to_curve(smooth, table, np.array([100.0, 500, 500, 900]), n).round(2)
    array([0.1, 0.5, 0.5, 0.9])
    """
    seen = exposure > 0
    trials, responses = exposure[seen], positives[seen]
    log_odds = logit(smooth)
    information = trials * smooth[seen] * (1.0 - smooth[seen])
    n_blocks = int(min(MOST_BLOCKS, information.sum() // INFORMATION_PER_BLOCK))
    if n_blocks < 3:
        return smooth
    below = np.cumsum(information) - information / 2
    _, block = np.unique((below / information.sum() * n_blocks).astype(np.intp), return_inverse=True)

    precision = sum_by_group(block, information)
    residual = sum_by_group(block, responses - trials * smooth[seen]) / precision
    variance = _between_block_variance(residual, precision)
    if variance == 0.0:
        return smooth
    shift = _posterior_mode(log_odds[seen], responses, trials, block, variance)
    place = logit(table.quantile)
    centre = sum_by_group(block, information * place[seen]) / precision
    corrected = expit(log_odds + np.interp(place, centre, shift))
    return pool_adjacent_violators(corrected, table.weight)


def _between_block_variance(residual: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    # The curve's own intercept has taken one degree of freedom, as the common mean does in a meta-analysis.
    excess = float(precision @ residual**2) - (residual.size - 1)
    spread = precision.sum() - (precision @ precision) / precision.sum()
    return max(0.0, excess / spread) if spread > 0 else 0.0


def _posterior_mode(
    log_odds: NDArray[np.float64],
    responses: NDArray[np.float64],
    trials: NDArray[np.float64],
    block: NDArray[np.intp],
    variance: float,
) -> NDArray[np.float64]:
    # The gradient increases in the shift, so bisection cannot fail where Newton's first step overshoots.
    observed = sum_by_group(block, responses)
    low, high = np.full(observed.size, -40.0), np.full(observed.size, 40.0)
    for _ in range(60):
        shift = (low + high) / 2
        gradient = sum_by_group(block, trials * expit(log_odds + shift[block])) - observed + shift / variance
        low, high = np.where(gradient < 0, shift, low), np.where(gradient < 0, high, shift)
    return np.asarray((low + high) / 2)
