"""Let the data correct a smooth curve where, and only as far as, it disagrees beyond noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.families import logit
from calibration.forms.isotonic import pool_adjacent_violators
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.binned import BinnedResponses
    from calibration.families import ResponseFamily

    Floats = NDArray[np.float64]

MOST_BLOCKS = 60
INFORMATION_PER_BLOCK = 10.0
SMALLEST_DISPERSION = 1e-9


def shrink_to_curve(
    smooth: Floats, binned: BinnedResponses, family: ResponseFamily, scale: float | None = None
) -> Floats:
    """Shrink the bins' response rates towards a smooth curve by empirical Bayes, then make them monotone.

    Parameters
    ----------
    smooth : float64[m]
        The curve's expected response of each bin, inside the family's range.
    binned : BinnedResponses
        The m bins.
    family : ResponseFamily
    scale : float, optional
        The dispersion, where more rows than these tell it; default: estimated on these rows.

    Returns
    -------
    float64[m]
        Expected responses, non-decreasing, inside the family's range.

    Notes
    -----
    Neighbouring bins are joined to at most 60 blocks of equal information sum(exposure * V(mean)) / dispersion,
    so that the blocks are narrow where the responses are. Block b's eta (log-odds, logarithm or mean) is the
    curve's plus d_b, d_b ~ N(0, tau2). tau2 is the moment estimate of DerSimonian and Laird (1986, eq. 8) on the
    blocks' score residuals; d_b is its posterior mode, joined by straight lines between block centres in the
    log-odds of the quantile. tau2 = 0, about every second time for a curve that fits, leaves it alone. The
    ``dispersion`` about the smooth curve is taken into account, so that
    over-dispersed counts and noisy numbers are trusted less.

    Examples
    --------
    >>> from calibration.binned import BinnedResponses
    >>> from calibration.families import BINARY
    >>> from calibration.quantiles import QuantileTable
    >>> n = np.full(4, 1000.0)
    >>> y = np.array([100.0, 500, 500, 900])
    >>> binned = BinnedResponses(QuantileTable.fit(np.arange(4.0)), y, n, y, n)
    >>> shrink_to_curve(np.full(4, 0.5), binned, BINARY).round(2)
    array([0.1, 0.5, 0.5, 0.9])
    """
    if scale is None:
        scale = dispersion(smooth, binned, family)
    seen = binned.exposure > 0
    trials, responses = binned.exposure[seen] / scale, binned.responses[seen] / scale
    eta = family.link(smooth)
    information = trials * family.variance(smooth[seen])
    # a number's information has its units; its rows have none
    countable = binned.exposure[seen].sum() if family.name == "continuous" else information.sum()
    n_blocks = int(min(MOST_BLOCKS, countable // INFORMATION_PER_BLOCK))
    if n_blocks < 3:
        return smooth
    below = np.cumsum(information) - information / 2
    _, block = np.unique((below / information.sum() * n_blocks).astype(np.intp), return_inverse=True)

    precision = sum_by_group(block, information)
    residual = sum_by_group(block, responses - trials * smooth[seen]) / precision
    variance = _between_block_variance(residual, precision)
    if variance == 0.0:
        return smooth
    shift = _posterior_mode(eta[seen], responses, trials, block, variance, family)
    place = logit(binned.table.quantile)
    centre = sum_by_group(block, information * place[seen]) / precision
    corrected = family.mean(eta + np.interp(place, centre, shift))
    # bins without rows of their own follow their neighbours
    return pool_adjacent_violators(corrected, binned.exposure + 1e-9 * binned.table.weight)


def dispersion(smooth: Floats, binned: BinnedResponses, family: ResponseFamily) -> float:
    """Return how much responses vary about a curve, in units of the family's variance function.

    Parameters
    ----------
    smooth : float64[m]
        Expected response of each bin.
    binned : BinnedResponses
        The m bins.
    family : ResponseFamily

    Returns
    -------
    float
        > 0, such that the variance of sum(responses) is dispersion * sum(exposure * V(mean)). Binary responses of
        rows that are examined with probability e have the variance e m (1 - e m): 1 where all are examined. Else
        Pearson's X2 / (rows - 1) (McCullagh and Nelder 1989, section 9.2).

    Examples
    --------
    >>> from calibration.binned import BinnedResponses
    >>> from calibration.families import CONTINUOUS
    >>> from calibration.rows import CalibrationRows
    >>> rows = CalibrationRows.checked([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], family=CONTINUOUS)
    >>> dispersion(np.array([2.0]), BinnedResponses.of(rows), CONTINUOUS)
    1.0
    """
    seen = binned.exposure > 0
    if not seen.any():
        return 1.0
    mean, weight, exposure = smooth[seen], binned.weight[seen], binned.exposure[seen]
    examined = exposure / weight
    if family.name == "binary":
        return float((exposure * mean) @ (1.0 - examined * mean) / ((exposure * mean) @ (1.0 - mean)))
    shown_mean = mean * examined
    squared_residuals = binned.squares[seen] - 2.0 * shown_mean * binned.responses[seen] + weight * shown_mean**2
    pearson = float((squared_residuals / (examined * family.variance(mean))).sum())
    n = float(weight.sum())
    smallest = SMALLEST_DISPERSION
    if family.name == "continuous":  # it has units: no smaller than the rounding of the squares
        smallest = 1e-14 * float(binned.squares[seen].sum()) / max(n, 1.0) or SMALLEST_DISPERSION
    return max(pearson / max(n - 1.0, 1.0), smallest)


def _between_block_variance(residual: Floats, precision: Floats) -> float:
    # The curve's own intercept has taken one degree of freedom, as the common mean does in a meta-analysis.
    excess = float(precision @ residual**2) - (residual.size - 1)
    spread = precision.sum() - (precision @ precision) / precision.sum()
    return max(0.0, excess / spread) if spread > 0 else 0.0


def _posterior_mode(
    eta: Floats, responses: Floats, trials: Floats, block: NDArray[np.intp], variance: float, family: ResponseFamily
) -> Floats:
    # The gradient increases in the shift, so bisection cannot fail where Newton's first step overshoots.
    observed = sum_by_group(block, responses)
    if family.name == "continuous":  # the mode is linear in the residual
        n = sum_by_group(block, trials)
        return np.asarray((observed - sum_by_group(block, trials * eta)) / (n + 1.0 / variance))
    low, high = np.full(observed.size, -40.0), np.full(observed.size, 40.0)
    for _ in range(60):
        shift = (low + high) / 2
        gradient = sum_by_group(block, trials * family.mean(eta + shift[block])) - observed + shift / variance
        low, high = np.where(gradient < 0, shift, low), np.where(gradient < 0, high, shift)
    return np.asarray((low + high) / 2)
