"""Who judges a fit: hashes of rows and groups, which say nothing of labels, and the hold-out that they draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput
from spr.glmix.encoding import check_columns, read_keys
from spr.glmix.holdout import HoldOut, salted_hashes, split, split_by_validation
from spr.glmix.row_kernels import fold_rows
from spr.glmix.sparse import fold_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csc_matrix

    from spr.glmix.effect_descent import EffectDescent

    Floats = NDArray[np.float64]


def hash_rows(
    rows: NDArray[np.float32] | csc_matrix, effects: Sequence[EffectDescent], offset: Floats, seed: int
) -> NDArray[np.uint64]:
    """Hash what is known of each row: its keys, features and offset; never label, weight or place."""
    hashes = np.full(len(offset), seed, dtype=np.uint64)
    for effect in effects:
        known = salted_hashes(effect.keys, seed)
        position = np.flatnonzero(effect.codes >= 0)
        hashes[position] ^= known[effect.codes[position]]
        fold_rows(hashes, effect.rows.view(np.uint32), effect.order)
    fold_features(hashes, rows)
    fold_features(hashes, offset.astype(np.float32)[:, None])
    return hashes


def hash_groups(
    groups: ArrayLike | None,
    effects: Sequence[EffectDescent],
    rows_hash: NDArray[np.uint64],
    n_taught: int,
    seed: int,
) -> NDArray[np.uint64]:
    """Hash each row's group; a row without one is a group of its own."""
    out = rows_hash.copy()
    if groups is not None:
        column = pd.Series(np.asarray(groups), name="groups")
        if len(column) != n_taught:
            raise InvalidModelInput(f"groups: {len(column)} values for {n_taught} rows of X.")
        known = column.notna().to_numpy()
        place = np.flatnonzero(known)
        out[place] = salted_hashes(read_keys(column[known], "groups"), seed)
        if not effects:
            return out
    if effects:
        first = effects[0]
        place = np.flatnonzero(first.codes >= 0)
        if groups is not None:  # validation rows have no group but their key
            place = place[place >= n_taught]
        out[place] = salted_hashes(first.keys, seed)[first.codes[place]]
    return out


def hold_out_rows(
    frame: pd.DataFrame,
    group_hash: NDArray[np.uint64],
    rows_hash: NDArray[np.uint64],
    weighted: NDArray[np.bool_],
    taught: NDArray[np.bool_],
    time: str | None,
    *,
    chooses: bool,
) -> HoldOut:
    """Return which rows judge, by group and by time or hash, or a validation set; none where nothing is chosen."""
    nothing = np.zeros(len(frame), dtype=bool)
    if not chooses:
        chosen = HoldOut(taught, nothing, nothing, "no hold-out: there is nothing to choose")
        return chosen if taught.all() else split_by_validation(group_hash, ~taught, chosen)
    order: NDArray[np.generic] = rows_hash
    if time is not None:
        check_columns(frame, [time], "time column", "the estimator")
        column = frame[time]
        if column.isna().any():
            raise InvalidModelInput(f"time column {time!r}: {int(column.isna().sum())} rows are null.")
        order = pd.factorize(column, sort=True)[0]
    chosen = split(group_hash, order, weighted & taught)
    return chosen if taught.all() else split_by_validation(group_hash, ~taught, chosen)
