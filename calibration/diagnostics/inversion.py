"""A sum of absolute values without its noise: inversion of a test over the noise's bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.diagnostics.clusters import Estimate
from calibration.diagnostics.intervals import Z_95

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_HALVINGS = 40
TOLERANCE = 1e-5  # relative; the draws leave far more


def invert_norm(observed: NDArray[np.float64], noise: NDArray[np.float64]) -> Estimate:
    """Estimate the sum of absolute values of amounts that were observed with noise.

    Parameters
    ----------
    observed : float64[m]
        Truth plus noise.
    noise : float64[draws, m]
        Draws of the noise alone.

    Returns
    -------
    Estimate
        Median-unbiased in the family below, >= 0, with a 95 % interval around it.

    Notes
    -----
    The truth is taken to be c * observed, c >= 0 unknown: its direction as observed, its size not. A size is in the
    interval where the observed norm lies between the 2.5 % and 97.5 % quantiles of the norms of c * observed +
    noise; the estimate is the size where it is the median. So at truth 0 the interval contains 0 with 97.5 %
    probability. Far from 0 the norm is a sum with known signs, whose noise the observed direction can understate:
    the interval also takes in the estimate +- 1.96 standard deviations of the noise with the observed signs. And a
    sum of absolute values is at least the absolute sum, so that its upper end is at least that of the sum.

    References
    ----------
    Efron and Tibshirani (1993), "An introduction to the bootstrap", sections 12 and 13, for inversion over a
    one-parameter family.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(1000, 2))
    >>> far = invert_norm(np.array([30.0, -30.0]), noise)
    >>> round(far.estimate), round(far.low), round(far.high)
    (60, 57, 63)
    >>> invert_norm(np.array([0.1, -0.1]), noise).estimate
    0.0
    """
    norm = float(np.abs(observed).sum())
    # Without a direction of its own the truth takes that of the noise.
    direction = observed / norm if norm > 0 else np.sqrt(np.mean(noise**2, axis=0))
    estimate, low, high = (_size_at(norm, level, direction, noise) for level in (0.5, 0.975, 0.025))
    spread = Z_95 * float(np.std(noise @ np.sign(direction)))
    highest_total = abs(float(observed.sum())) + Z_95 * float(np.std(noise.sum(axis=1)))
    return Estimate(
        estimate=estimate,
        low=max(min(low, estimate - spread), 0.0),
        high=max(high, estimate + spread, highest_total),
    )


def _size_at(norm: float, level: float, direction: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    unit = float(np.abs(direction).sum())
    if unit == 0.0:
        return 0.0

    def is_above(size: float) -> bool:
        norms = np.abs(size / unit * direction + noise).sum(axis=1)
        return float(np.mean(norms < norm)) <= level

    if is_above(0.0):
        return 0.0
    low, high = 0.0, norm
    while not is_above(high):
        low, high = high, 2.0 * high
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2.0
        if is_above(middle):
            high = middle
        else:
            low = middle
        if high - low <= TOLERANCE * high:
            break
    return high
