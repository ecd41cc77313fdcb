"""Taking off the bias of learnt prior variances, by learning them once more from data made with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from spr.glmix.families import POISSON
from spr.glmix.holdout import unit_interval
from spr.glmix.row_kernels import mixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spr.glmix.effect_descent import EffectDescent
    from spr.glmix.families import Family

    Floats = NDArray[np.float64]

_SALT = 0x51A7  # apart from the hold-outs
_LARGEST_LOG_MEAN = 15.0
_SWEEPS = 3
_MOST = np.log(4.0)  # a correction beyond it rests on too few data to be believed


def learn_from_simulation(
    family: Family,
    effects: Sequence[EffectDescent],
    margin: Floats,
    spreads: Floats,
    sweeps: int,
    row_hash: NDArray[np.uint64],
) -> list[Floats]:
    """Return for each effect log(learnt variance / true variance) on labels made with the variances as they stand.

    Approximations to the posterior of 0/1 labels bias learnt variances, mostly low, and the more the fewer rows an
    entity has. The bias is the same function of the truth on made data, where the truth is known: one parametric
    bootstrap takes it off (Kuk 1995, "Asymptotically unbiased estimation in generalized linear models with random
    effects"). Each log ratio is shrunk by ratio^2 / (ratio^2 + its sampling variance).

    Parameters
    ----------
    family : Family
        binomial or poisson.
    effects : sequence of EffectDescent
        Those that learn; left as they were found.
    margin : float64 array of n
        Everything else: offset, fixed margin, effects that do not learn.
    spreads : float64 array of n
        As in `EffectDescent.step`; left as they were found.
    sweeps : int
    row_hash : uint64 array of n
        Draws the labels, so that the order of rows does not matter.

    Returns
    -------
    list of float64 arrays, one number per column
        0 where nothing can be said.
    """
    rng = np.random.default_rng(0)
    total = margin.copy()
    states = [effect.learning_state() for effect in effects]
    for effect in effects:
        effect.draw(rng)
        total[effect.order] += effect.margins
    labels = _draw_labels(family, total, row_hash)
    total, found = margin.copy(), spreads.copy()
    truth = [effect.variance.copy() for effect in effects]
    for effect in effects:
        effect.coefficients[:] = 0.0
        effect.margins[:] = 0.0
        effect.labels = labels[effect.order]
    for _ in range(min(sweeps, _SWEEPS)):  # they begin at the truth
        for effect in effects:
            effect.step(family, total, found, 1.0, learn=True)
    out = []
    for effect, state, variance in zip(effects, states, truth, strict=True):
        ratio = np.log(effect.variance / variance)
        noise = 2.0 / np.maximum(effect.information, 1e-9)
        kept = ratio**2 / (ratio**2 + noise)
        inside = variance > 100 * effect.smallest_variance
        out.append(np.where(inside, np.clip(kept * ratio, -_MOST, _MOST), 0.0))
        effect.restore_learning(state)
    return out


def _draw_labels(family: Family, margin: Floats, row_hash: NDArray[np.uint64]) -> Floats:
    # rows that are alike in all that is hashed are told apart by counting them
    copies = pd.Series(row_hash).groupby(row_hash, sort=False).cumcount().to_numpy().astype(np.uint64)
    uniform = unit_interval(mixed(row_hash + mixed(copies + np.uint64(_SALT))))
    if family.code == POISSON:
        from scipy.stats import poisson

        return cast("Floats", poisson.ppf(uniform, family.response(np.minimum(margin, _LARGEST_LOG_MEAN))))
    return (uniform < family.response(margin)).astype(np.float64)
