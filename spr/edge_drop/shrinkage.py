"""Noisy values of edge types, drawn on the log scale towards what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SPREADS = np.asarray(np.geomspace(0.01, 3.0, 24), dtype=np.float64)
_SPREAD_MODE = 0.7  # edge types whose values differ by a factor of 2 are ordinary, by a factor of 10 rare
_LEVEL_PRECISION = 0.01
_STEPS = 60


@dataclass(frozen=True)
class ShrunkValues:
    """Log values of T edge types in each of G groups, shrunk.

    Parameters
    ----------
    log_value : float64[G, T]
        Posterior mean of the logarithm; only differences within a group mean something to factors.
    spread : float
        Posterior mean of the standard deviation of log values about their common level.
    """

    log_value: Floats
    spread: float


def shrink_log_values(estimates: Sequence[tuple[Floats, Floats]], *, centre: Floats | None = None) -> ShrunkValues:
    r"""Shrink the logarithms of noisy values to their common mean, with the full covariance of the noise.

    Parameters
    ----------
    estimates : sequence of (float64[T], float64[T, T])
        Of each group: values, which may be 0 or negative by noise though none of their types should be as a whole, and
        their covariance.
    centre : float64[T], optional
        Log values that each group's are drawn to, up to a common level of its own; default 0: all types alike.

    Returns
    -------
    ShrunkValues

    Notes
    -----
    :math:`w \sim N(e^{l}, C)` and :math:`l_t \sim N(c_t + \mu, s^2)` with a flat :math:`\mu` for each group and one
    :math:`s`, whose prior is Rayleigh's with mode 0.7: near 0 it falls to 0, since a few types say little of their
    spread and a spread of 0 would shrink all of it away (Chung et al., 2013, Psychometrika 78). The noise is on the
    scale of the values, where it is normal, so that a value below 0 is no obstacle and a noisy one is pulled up or
    down, not cut. For each :math:`s` of a grid the mode of :math:`l` is found by Gauss-Newton and its Laplace
    approximation weighs it; the answer is the average over the grid.
    Multiplying all values by a constant adds its logarithm to all :math:`l`: their differences, and so the ratios,
    depend on no reference type.

    Examples
    --------
    >>> values, covariance = np.array([4.0, 2.0, -0.5]), np.diag([0.01, 0.01, 4.0])
    >>> shrunk = shrink_log_values([(values, covariance)])
    >>> np.exp(shrunk.log_value[0]).round(1)
    array([4. , 2. , 1.4])
    """
    size = len(estimates[0][0])
    middle = np.zeros(size) if centre is None else centre
    modes = np.empty((len(estimates), len(_SPREADS), size))
    weight = 2.0 * np.log(_SPREADS) - 0.5 * (_SPREADS / _SPREAD_MODE) ** 2  # the grid is even in the logarithm
    for group, (value, covariance) in enumerate(estimates):
        modes[group], evidence = _modes(value, covariance, middle)
        weight = weight + evidence
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    return ShrunkValues(np.einsum("gst,s->gt", modes, weight), float(weight @ _SPREADS))


def _modes(value: Floats, covariance: Floats, centre: Floats) -> tuple[Floats, Floats]:
    """Return the mode for each spread [S, T] and the log evidence [S], of one group."""
    size, spreads = len(value), _SPREADS
    # In units of the largest value every number is about 1.
    unit = max(float(value.max()), float(np.sqrt(np.diag(covariance).min())))
    y = np.asarray(value / unit)
    # Noise of a millionth keeps values that are exact, as of made data, from dividing by 0.
    precision = np.asarray(np.linalg.inv(covariance / unit**2 + 1e-12 * np.eye(size)), dtype=np.float64)
    centring = np.eye(size) - 1.0 / size
    middle = centre + _common_level(y, precision, centre)
    # The level's own prior is so weak that it only keeps values of pure noise from running off to -infinity.
    prior = centring / spreads[:, None, None] ** 2 + _LEVEL_PRECISION / size
    log = np.tile(middle, (len(spreads), 1))

    def objective(log: Floats) -> Floats:
        miss, off = y - np.exp(log), log - middle
        return np.asarray(
            0.5 * np.einsum("st,tu,su->s", miss, precision, miss) + 0.5 * np.einsum("st,stu,su->s", off, prior, off)
        )

    now = objective(log)
    for _ in range(_STEPS):
        gain = np.exp(log)
        slope = gain * ((y - gain) @ precision) - np.einsum("stu,su->st", prior, log - middle)
        hessian = gain[:, :, None] * precision * gain[:, None, :] + prior
        step = np.clip(np.linalg.solve(hessian, slope[..., None])[..., 0], -1.0, 1.0)
        scale = np.ones(len(spreads))
        for _ in range(12):
            after = objective(log + scale[:, None] * step)
            worse = after > now + 1e-12
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        moved = np.where((after <= now + 1e-12)[:, None], scale[:, None] * step, 0.0)
        log = log + moved
        now = objective(log)
        if np.abs(moved).max() < 1e-8:
            break
    gain = np.exp(log)
    hessian = gain[:, :, None] * precision * gain[:, None, :] + prior
    evidence = -now - (size - 1) * np.log(spreads) - 0.5 * np.linalg.slogdet(hessian)[1]
    return log + np.log(unit), np.asarray(evidence)


def _common_level(y: Floats, precision: Floats, centre: Floats) -> float:
    """Return the logarithm of the multiple of e^centre that fits best; tiny where the best is not above 0."""
    shape = np.exp(centre)
    best = float(shape @ precision @ y) / float(shape @ precision @ shape)
    return float(np.log(max(best, 1e-3)))
