"""Prices of shares learnt from the population: what each floor costs on the average page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spr.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from spr.reorder.bounded import Labels
    from spr.reorder.guarantees import ImpressionGuarantee, LabelKind

    Floats = NDArray[np.float64]

_ROUNDS = 50
_FINE = 1e-6  # of the range of the values: where a bisection ends
_ENOUGH = 1e-3  # of a share: where the rounds end


@dataclass(frozen=True, slots=True)
class LearntPrices:
    """What `learn_prices` found.

    Parameters
    ----------
    price : dict of str to float
        By guarantee, in units of value.
    delivered : dict of str to float
        By guarantee, its part of all impressions when each page shows the cohorts of greatest value plus price.
    short : tuple of str
        Guarantees whose share the pages cannot meet: there are too few cohorts, and the price is as if they asked for
        all but a thousandth of what there is; or the floors cannot hold together on these pages.
    """

    price: dict[str, float]
    delivered: dict[str, float]
    short: tuple[str, ...]

    def on(self, guarantees: Iterable[ImpressionGuarantee]) -> tuple[ImpressionGuarantee, ...]:
        """Return the guarantees with these prices; those that have one of their own, or none here, as they are."""
        return tuple(
            replace(g, price=self.price[g.name]) if g.price is None and g.name in self.price else g for g in guarantees
        )


def learn_prices(
    value: ArrayLike,
    page: ArrayLike,
    labels: Mapping[LabelKind, Labels],
    guarantees: Iterable[ImpressionGuarantee],
) -> LearntPrices:
    """Learn the price of each share from many pages.

    Parameters
    ----------
    value : float array, shape (n_cohorts,)
        Of the cohorts of all pages; finite.
    page : int array, shape (n_cohorts,)
        Which page each cohort is on.
    labels : mapping of label kind to sequence of str, each of length n_cohorts
        At least of the kinds that the guarantees name.
    guarantees : iterable of ImpressionGuarantee
        Only shares get a price.

    Returns
    -------
    LearntPrices

    Raises
    ------
    InvalidRequest
        Lengths that differ, a missing label kind, or values that are not finite.

    Notes
    -----
    The greatest total value of the cohorts above ``within_top`` of all pages, with at least ``share`` of them of each
    label on average, is a linear program. Its optimum shows on each page the cohorts of greatest value plus price, with
    the dual prices of the floors: each price is 0 or its floor holds with equality. Each price in turn becomes the
    least one that holds its floor beside the others (by bisection), until none moves: a descent of the dual by
    coordinates. Of disjoint labels a higher price of one only takes places from the others, so that the prices only
    rise, to the least that hold all floors; of nested ones the outer price falls again as the inner one rises. Floors
    hold to a thousandth of each share, or the places for which labels tie.

    A guarantee that has a price keeps it, and the others are learnt beside it.

    Examples
    --------
    >>> from spr.reorder import ImpressionGuarantee
    >>> floor = ImpressionGuarantee("floor", "edge_type", "b", share=0.5, within_top=1)
    >>> learnt = learn_prices([0.9, 0.8, 0.9, 0.2], [0, 0, 1, 1], {"edge_type": ["a", "b", "a", "b"]}, [floor])
    >>> round(learnt.price["floor"], 3), learnt.delivered["floor"]
    (0.1, 0.5)
    """
    values, pages = np.asarray(value, dtype=np.float64), np.asarray(page)
    shares = [guarantee for guarantee in guarantees if guarantee.share is not None]
    if values.ndim != 1 or pages.shape != values.shape or not np.isfinite(values).all():
        raise InvalidRequest(
            f"prices need a finite value and a page for each cohort; found values of shape {values.shape}, "
            f"{int((~np.isfinite(values)).sum())} of them not finite, and pages of shape {pages.shape}"
        )
    for guarantee in shares:
        label = labels.get(guarantee.label_kind)
        if label is None or len(label) != len(values):
            found = "none" if label is None else f"{len(label)} of them"
            raise InvalidRequest(
                f"guarantee {guarantee.name!r} needs the {guarantee.label_kind} of each of {len(values)} cohorts; "
                f"found {found}"
            )
    if not shares or not len(values):
        return LearntPrices({}, {}, ())
    grid, member = _pad(values, pages, [np.asarray(labels[g.label_kind]) == g.label for g in shares])
    return _find(grid, member, shares)


def _pad(value: Floats, page: NDArray[np.generic], marks: list[NDArray[np.bool_]]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the values as [pages, most cohorts], -inf where there is none, and who counts as [G, pages, most]."""
    _, number, size = np.unique(page, return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    place = np.empty(len(value), dtype=np.int64)
    place[order] = np.arange(len(value)) - np.repeat(np.cumsum(size) - size, size)
    grid = np.full((len(size), int(size.max())), -np.inf)
    grid[number, place] = value
    member = np.zeros((len(marks), *grid.shape), dtype=bool)
    for row, mark in enumerate(marks):
        member[row, number[mark], place[mark]] = True
    return grid, member


def _find(grid: Floats, member: NDArray[np.bool_], shares: list[ImpressionGuarantee]) -> LearntPrices:
    top = min(shares[0].within_top, grid.shape[1])
    there = np.isfinite(grid)
    impressions = int(np.minimum(there.sum(axis=1), top).sum())
    asked = np.array([g.share or 0.0 for g in shares]) * impressions
    supply = np.minimum(member.sum(axis=2), top).sum(axis=1)
    wanted = np.minimum(asked, (1.0 - _ENOUGH) * supply)  # the last of a label may cost any price
    given = np.array([g.price is not None for g in shares])
    price = np.array([g.price or 0.0 for g in shares])
    spread = float(np.ptp(grid[there]))
    unit = spread if spread > 0.0 else 1.0
    fine, most = _FINE * unit, unit * len(shares) + price.sum() + 1.0

    def counts() -> NDArray[np.int64]:
        priced = grid + np.tensordot(price, member, axes=1)
        shown = np.argpartition(-priced, top - 1, axis=1)[:, :top] if top < grid.shape[1] else None
        chosen = member if shown is None else np.take_along_axis(member, shown[None], axis=2)
        return np.asarray(chosen.sum(axis=(1, 2)))

    def holds(g: int, at: float) -> bool:
        price[g] = at
        return bool(counts()[g] >= wanted[g])

    def find_least(g: int) -> float:
        high, step = float(price[g]), 0.01 * unit
        while not holds(g, high) and high < most:
            high, step = min(high + step, most), 2.0 * step
        low, step = high, 0.01 * unit
        while low > 0.0 and holds(g, low):
            low, step = max(0.0, low - step), 2.0 * step
        if holds(g, low):
            return low
        while high - low > fine:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if holds(g, middle) else (middle, high)
        return high

    for _ in range(_ROUNDS):
        before = price.copy()
        for g in np.flatnonzero(~given).tolist():
            price[g] = find_least(g)
        if np.abs(price - before).max() <= 4.0 * fine:
            break  # also where two labels would go on outbidding each other for one place
    shown_of = counts()
    short = (supply < asked) | (shown_of < wanted * (1.0 - 10.0 * _ENOUGH) - len(shares))
    return LearntPrices(
        {g.name: float(p) for g, p in zip(shares, price, strict=True)},
        {g.name: float(n) / max(impressions, 1) for g, n in zip(shares, shown_of, strict=True)},
        tuple(g.name for g, is_short in zip(shares, short, strict=True) if is_short),
    )
