"""How the coordinates of a fit begin: the fixed effect, the leaves that random effects read, the random effects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spr.errors import InvalidModelInput
from spr.glmix.boosting import TreesDescent
from spr.glmix.effect_descent import EffectDescent
from spr.glmix.encoding import Encoding
from spr.glmix.fixed import FittedLinear, FittedTrees, Linear
from spr.glmix.leaves import LeafEncoding
from spr.glmix.linear import LinearDescent
from spr.glmix.locked import LockedFixed
from spr.glmix.model import FIXED
from spr.glmix.parameters import fixed_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    from spr.glmix.descent import FixedDescent
    from spr.glmix.estimator import _GLMix as Estimator
    from spr.glmix.families import Family
    from spr.glmix.holdout import HoldOut
    from spr.glmix.model import MixedModel

    Floats = NDArray[np.float64]


def encode_fixed(
    model: Estimator, frame: pd.DataFrame, n_taught: int, origin: MixedModel | None, locked: Sequence[str]
) -> tuple[Encoding | None, NDArray[np.float32] | csc_matrix]:
    """Return how the fixed effect reads columns, and its matrix; the encoding of `origin` where there is one."""
    encoding = None if origin is None else origin.encoding
    if encoding is None and model.fixed is not None:
        encoding = Encoding.learn(frame.iloc[:n_taught], fixed_columns(model, frame), "the fixed effect")
    if encoding is None or (model.fixed is None and FIXED not in locked):
        return None, np.zeros((len(frame), 0), dtype=np.float32)
    linear = isinstance(model.fixed, Linear) or isinstance(origin.fixed if origin else None, FittedLinear)
    return encoding, encoding.fixed_rows(frame, linear=linear)


def grow_leaves(
    frame: pd.DataFrame,
    encoding: Encoding | None,
    labels: Floats,
    weights: Floats,
    offsets: Floats,
    family: Family,
    seed: int,
) -> LeafEncoding:
    """Grow the trees of ``features="leaves"`` over the fixed effect's columns."""
    if encoding is None:
        raise InvalidModelInput("features='leaves' needs a fixed effect: the trees are grown over its columns.")
    rows = encoding.matrix(frame, "the trees of features='leaves'")
    return LeafEncoding.learn(rows, labels, weights, encoding.names, family, offset=offsets, seed=seed)


def start_fixed(
    model: Estimator,
    family: Family,
    encoding: Encoding | None,
    rows: NDArray[np.float32] | csc_matrix,
    rows_hash: NDArray[np.uint64],
    group_hash: NDArray[np.uint64],
    labels: Floats,
    weights: Floats,
    offsets: Floats,
    hold_out: HoldOut,
    origin: MixedModel | None,
    locked: Sequence[str],
) -> FixedDescent | None:
    """Return the fixed effect as it begins: locked, linear, trees, or none."""
    if FIXED in locked and origin is not None and origin.fixed is not None:
        return LockedFixed(origin.fixed, rows)
    if model.fixed is None or encoding is None:
        return None
    learning = np.where(hold_out.training, weights, 0.0)
    intercept = family.intercept(labels, learning, offsets)
    begun = None if origin is None else origin.fixed
    if isinstance(model.fixed, Linear):
        started = begun if isinstance(begun, FittedLinear) else None
        return LinearDescent(model.fixed, encoding.names, rows, family, intercept, started)
    watch = np.where(hold_out.groups, weights, 0.0)
    return TreesDescent(
        model.fixed,
        encoding,
        np.asarray(rows),
        rows_hash,
        watch,
        intercept,
        family,
        model.sweeps,
        groups=group_hash,
        start=begun if isinstance(begun, FittedTrees) else None,
    )


def start_effects(
    model: Estimator, frame: pd.DataFrame, n_taught: int, leaves: LeafEncoding | None, origin: MixedModel | None
) -> list[EffectDescent]:
    """Return the random effects as they begin; those that `origin` has too start from its coefficients."""
    effects = []
    for spec in model.random_effects:
        if leaves is not None and spec.features == "leaves":
            spec = replace(spec, features=tuple(f"tree{tree}" for tree in range(leaves.n_trees)))
        begun = None if origin is None else origin.effects.get(spec.name)
        encoding = None if origin is None else origin.encodings.get(spec.name)
        effects.append(EffectDescent(spec, frame, n_taught, model.n_threads, begun, encoding))
    return effects


def remember(effects: Sequence[EffectDescent], origin: MixedModel, forgetting: float) -> None:
    """Make the posteriors of `origin` the priors of the effects that it has."""
    for effect in effects:
        if effect.spec.name in origin.effects:
            prior = origin.prior_variance[effect.spec.name]
            effect.remember(forgetting, np.array([prior[column] for column in effect.columns]))
