"""Which rows judge instead of teach: whole groups stop the boosting, later rows of seen groups choose the scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from spr.glmix.row_kernels import mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Hashes = NDArray[np.uint64]

FEWEST_GROUPS = 50
GROUP_SHARE = 0.10
ROW_SHARE = 0.15


@dataclass(frozen=True)
class HoldOut:
    """A split of the rows by what they are for.

    Parameters
    ----------
    training : bool array of n
        Rows that teach while the choices are made.
    groups : bool array of n
        Rows of groups held out whole: they stop the boosting and fit the correction for unseen entities.
    rows : bool array of n
        Held-out rows of groups that training rows know: they choose the random effects' scale.
    reason : str
        Why something was not held out, for the history; empty where nothing is missing.
    """

    training: Mask
    groups: Mask
    rows: Mask
    reason: str


def salted_hashes(values: NDArray[np.generic], salt: int) -> Hashes:
    """Return a 64-bit hash of each value; the same on every machine, another one for another salt.

    Parameters
    ----------
    values : array of n, integers or strings (None = null, which hashes too)
    salt : int

    Returns
    -------
    uint64 array of n

    Examples
    --------
    >>> first, second = salted_hashes(np.array([3, 4]), 0), salted_hashes(np.array([3, 4]), 1)
    >>> bool((first == second).any())
    False
    """
    plain = pd.util.hash_array(values, categorize=True)
    return cast("Hashes", mixed(plain + mixed(np.uint64(salt + 1))))


def unit_interval(hashes: Hashes) -> NDArray[np.float64]:
    """Return hashes as numbers in [0, 1)."""
    return cast("NDArray[np.float64]", (hashes >> np.uint64(11)) * 2.0**-53)


def split(groups: Hashes, order: NDArray[np.generic], active: Mask) -> HoldOut:
    """Hold out a tenth of the groups, and of each other group about its latest 15 % of rows.

    Nothing here looks at a label, at a weight (but that it is positive) or at a row's number.

    Parameters
    ----------
    groups : uint64 array of n
        The salted hash of each row's group.
    order : array of n
        The time of each row, or a hash of what is known about it; rows that tie stay together.
    active : bool array of n
        Rows with a positive weight; only they count, but rows without a weight are assigned too.

    Returns
    -------
    HoldOut
        With everything in training where there are fewer than 50 groups.
    """
    nothing = np.zeros(groups.size, dtype=bool)
    distinct, codes = np.unique(groups, return_inverse=True)
    codes = codes.astype(np.int64)
    sizes = np.bincount(codes[active], minlength=distinct.size)
    present = np.flatnonzero(sizes)
    if present.size < FEWEST_GROUPS:
        reason = f"no hold-out: {present.size} groups < {FEWEST_GROUPS}"
        return HoldOut(~nothing, nothing, nothing.copy(), reason)
    # `distinct` is sorted by hash: its first tenth is a random tenth of the groups
    held_groups = codes <= present[int(np.ceil(GROUP_SHARE * present.size)) - 1]

    # fractions of a row are rounded by the group's own hash, so that small groups give rows too
    lottery = unit_interval(distinct * np.uint64(0x9E3779B97F4A7C15))
    wanted = np.floor(sizes * ROW_SHARE + lottery).astype(np.int64)
    wanted = np.minimum(wanted, np.maximum(sizes - 1, 0))
    rank = np.unique(order, return_inverse=True)[1].astype(np.int64)
    kept = np.flatnonzero(active & ~held_groups)
    kept = kept[np.lexsort((rank[kept], codes[kept]))]
    ends = np.cumsum(np.where(np.isin(np.arange(distinct.size), codes[kept]), sizes, 0))
    cutoff = np.full(distinct.size, rank.max() + 1)
    teaching = np.unique(codes[kept])
    cutoff[teaching] = rank[kept[ends[teaching] - 1 - wanted[teaching]]]
    held_rows = ~held_groups & (rank > cutoff[codes])
    reason = "" if held_rows.any() else "no rows of seen groups held out: their rows cannot be told apart"
    return HoldOut(~held_groups & ~held_rows, held_groups, held_rows, reason)


def split_by_validation(groups: Hashes, validation: Mask, chosen: HoldOut) -> HoldOut:
    """Put the validation rows in place of `chosen`'s held-out rows, and of its groups where they bring unseen ones.

    Parameters
    ----------
    groups : uint64 array of n
        The salted hash of each row's group.
    validation : bool array of n
        The rows of the validation set.
    chosen : HoldOut
        The split of the other rows.

    Returns
    -------
    HoldOut
    """
    seen = np.isin(groups, groups[~validation])
    unseen = validation & ~seen
    held_groups = unseen if unseen.any() else chosen.groups & ~validation
    training = ~validation & ~held_groups
    held_rows = validation & seen & ~np.isin(groups, groups[held_groups])
    reason = "" if held_groups.any() else chosen.reason
    return HoldOut(training, held_groups, held_rows, reason)
