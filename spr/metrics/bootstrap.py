"""Intervals by bootstrap over viewers: weights, replicates of sums, bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spr.metrics.sums import Sums

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_CHUNK: Final = 64  # replicates whose weights are floats at one time


def draw_weights(n_viewers: int, n_replicates: int, seed: int) -> NDArray[np.uint8]:
    """Draw a Poisson(1) weight of each viewer in each replicate, uint8[n_replicates, n_viewers]."""
    rng = np.random.default_rng(seed)
    weights = np.empty((n_replicates, n_viewers), dtype=np.uint8)
    for replicate in weights:
        replicate[:] = rng.poisson(1.0, n_viewers)
    return weights


def replicate(sums: Mapping[str, Sums], viewer: Ints, weights: NDArray[np.uint8]) -> dict[str, Floats]:
    """Compute each metric of each replicate, where ``viewer`` says whose each row is: float64[n_replicates] by name."""
    present, owner = np.unique(viewer, return_inverse=True)
    by_viewer = np.hstack([metric.by_owner(owner, len(present)) for metric in sums.values()])
    totals = np.vstack(
        [weights[i : i + _CHUNK, present].astype(np.float64) @ by_viewer for i in range(0, len(weights), _CHUNK)]
    )
    ends = np.cumsum([metric.n_columns for metric in sums.values()])
    return {
        name: metric.combine(totals[:, end - metric.n_columns : end])
        for (name, metric), end in zip(sums.items(), ends, strict=True)
    }


def bound_replicates(estimate: Floats, replicates: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the bounds of bias-corrected percentile intervals; see :func:`spr.metrics.evaluate_predictions`.

    Parameters
    ----------
    estimate : float64[...]
    replicates : float64[..., n_replicates]
        NaN where the metric is not defined, which is passed over.
    level : float

    Returns
    -------
    low, high : float64[...]
        NaN where there is no estimate or no replicate.
    """
    low, high = np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    for cell in zip(*np.nonzero(np.isfinite(estimate)), strict=True):
        drawn = replicates[cell]
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn):
            bias = drawn.mean() - estimate[cell]
            low[cell], high[cell] = np.quantile(drawn, [(1.0 - level) / 2, (1.0 + level) / 2]) - 2 * bias
    return low, high
