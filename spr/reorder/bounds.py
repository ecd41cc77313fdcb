"""The bounds of a page, compiled: which guarantees lie inside which, what is due at each prefix, and what can be kept.

Cohorts are *ranks*: sorted by value, 0 = highest. Guarantees are rows of two integer tables: ``minima[g, q]`` and
``maxima[g, q]``, the bounds on the members of g within the first q positions. The members of guarantees are disjoint or
nested (laminar), so each rank has one innermost guarantee and its guarantees are a path to the root of a forest.

With ``count[g]`` members of g on the first p positions, what is still *due* by prefix q is

    due(g, q) = max(minima[g, q] - count[g], sum of due(h, q) over the guarantees h right inside g)

and the page can be completed if and only if the sum over the roots is at most q - p at every q > p. (Necessary: a
place serves one of the disjoint demands. Sufficient: where the sum is q - p the prefix is tight; ``due`` grows with q,
so that what is due at the first tight prefix is due at the later ones, and one rank lowers the sum at all of them.)
Maxima add two conditions that no choice which keeps them can change, so that they are settled before a page is filled:
what may not stand before p and is due by q fits between them, and no prefix is left without a cohort that may stand
there (Hall's conditions for demands and for places; where each has a matching, one matching serves both: Mendelsohn and
Dulmage 1958, "Some generalizations of the problem of distinct representatives", Canadian Journal of Mathematics 10).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

NONE = -1
# 0.1 * 30 is 3.0000000000000004 and must not become 4; shares are written with fewer digits than this.
ROUNDING = 1e-6


@numba.njit(cache=True, nogil=True)
def nest(member: Flags) -> tuple[Integers, Integers, Integers, bool]:
    """Find the forest of guarantees: parents, the order from the inside out, each rank's innermost one, crossings.

    Of guarantees with the same members the first is inside the others.
    """
    n_guarantees, n = member.shape
    shared = np.zeros((n_guarantees, n_guarantees), dtype=np.int64)
    mine = np.empty(n_guarantees, dtype=np.int64)
    for rank in range(n):
        n_mine = 0
        for g in range(n_guarantees):
            if member[g, rank]:
                mine[n_mine] = g
                n_mine += 1
        for i in range(n_mine):
            for j in range(n_mine):
                shared[mine[i], mine[j]] += 1
    size = np.array([shared[g, g] for g in range(n_guarantees)], dtype=np.int64)
    parent = np.full(n_guarantees, NONE, dtype=np.int64)
    crossing = False
    for g in range(n_guarantees):
        for h in range(n_guarantees):
            if h == g or shared[g, h] == 0:
                continue
            if shared[g, h] < size[g] and shared[g, h] < size[h]:
                crossing = True
            elif size[h] > size[g] or (size[h] == size[g] and h > g):
                best = parent[g]
                if best == NONE or size[h] < size[best] or (size[h] == size[best] and h < best):
                    parent[g] = h
    outwards = np.argsort(size, kind="mergesort")
    innermost = np.full(n, NONE, dtype=np.int64)
    for rank in range(n):
        for g in outwards:
            if member[g, rank]:
                innermost[rank] = g
                break
    return parent, outwards, innermost, crossing


@numba.njit(cache=True, nogil=True)
def share_bounds(minima: Integers, maxima: Integers, member: Flags, parent: Integers, outwards: Integers) -> None:
    """Give guarantees of the same members the same bounds, in place: the larger minimum, the smaller maximum."""
    size = member.sum(axis=1)
    for g in outwards:
        outer = parent[g]
        if outer != NONE and size[outer] == size[g]:
            minima[outer] = np.maximum(minima[outer], minima[g])
            maxima[outer] = np.minimum(maxima[outer], maxima[g])
    for g in outwards[::-1]:
        outer = parent[g]
        if outer != NONE and size[outer] == size[g]:
            minima[g] = minima[outer]
            maxima[g] = maxima[outer]


@numba.njit(cache=True, nogil=True)
def sum_due(minima: Integers, parent: Integers, outwards: Integers, q: int, due: Integers, inside: Integers) -> int:
    """Write what each guarantee is due by prefix q of an empty page; return the sum over the roots."""
    total = 0
    inside[:] = 0
    for g in outwards:
        due[g] = max(minima[g, q], inside[g])
        if parent[g] == NONE:
            total += due[g]
        else:
            inside[parent[g]] += due[g]
    return total


@numba.njit(cache=True, nogil=True)
def settle(
    minima: Integers, maxima: Integers, window: Integers, parent: Integers, outwards: Integers, innermost: Integers
) -> bool:
    """Lower minima and raise maxima, in place, until some page keeps them all; say whether that was necessary.

    What the page has too few cohorts for is not due. Where more is due than there are places, the demands of lowest
    value wait for the next prefix, and past their window they are given up. Where maxima leave positions empty, those
    of the highest value are exceeded.
    """
    n_guarantees, n_prefixes = minima.shape
    n = len(innermost)
    supply = np.zeros(n_guarantees, dtype=np.int64)
    ranks = np.empty((n_guarantees, n), dtype=np.int64)  # of the members, best first
    free = 0
    for rank in range(n):
        g = innermost[rank]
        free += g == NONE
        while g != NONE:
            ranks[g, supply[g]] = rank
            supply[g] += 1
            g = parent[g]
    changed = False
    for g in range(n_guarantees):
        for q in range(n_prefixes):
            if minima[g, q] > supply[g]:
                minima[g, q] = supply[g]
                changed = True
    due, inside = np.empty(n_guarantees, dtype=np.int64), np.empty(n_guarantees, dtype=np.int64)
    for q in range(1, n_prefixes):
        while sum_due(minima, parent, outwards, q, due, inside) > q:
            last, worst = NONE, NONE
            for g in range(n_guarantees):
                own = minima[g, q]
                if own == 0 or own == minima[g, q - 1] or inside[g] > own or ranks[g, own - 1] <= worst:
                    continue
                h, lowers = parent[g], True
                while h != NONE:
                    lowers = lowers and (inside[h] > minima[h, q] or minima[h, q] > minima[h, q - 1])
                    lowers = lowers and inside[h] >= minima[h, q]
                    h = parent[h]
                if lowers:
                    last, worst = g, ranks[g, own - 1]
            if last == NONE:
                break
            changed = True
            g = last
            while g != NONE:
                if g == last or inside[g] == minima[g, q]:
                    minima[g, q] -= 1
                    if q == window[g]:
                        for later in range(q + 1, n_prefixes):
                            minima[g, later] = minima[g, q]
                g = parent[g]
    return _loosen(minima, maxima, parent, outwards, supply, free, ranks) or changed


@numba.njit(cache=True, nogil=True)
def is_bounded(maxima: Integers) -> bool:
    """Say whether any maximum is below the length of its prefix."""
    for g in range(maxima.shape[0]):
        for q in range(maxima.shape[1]):
            if maxima[g, q] < q:
                return True
    return False


@numba.njit(cache=True, nogil=True)
def _loosen(
    minima: Integers,
    maxima: Integers,
    parent: Integers,
    outwards: Integers,
    supply: Integers,
    free: int,
    ranks: Integers,
) -> bool:
    """Raise maxima that minima exceed or that leave positions empty, and lower minima that become due too late."""
    n_guarantees, n_prefixes = minima.shape
    changed = False
    if not is_bounded(maxima):
        return False
    room, inside = np.empty(n_guarantees, dtype=np.int64), np.empty(n_guarantees, dtype=np.int64)
    own = supply.copy()  # members that no guarantee inside has
    for g in range(n_guarantees):
        if parent[g] != NONE:
            own[parent[g]] -= supply[g]
    for q in range(1, n_prefixes):
        for g in range(n_guarantees):
            if maxima[g, q] < maxima[g, q - 1]:
                maxima[g, q] = maxima[g, q - 1]
        while True:
            total = free
            inside[:] = 0
            for g in outwards:
                room[g] = min(maxima[g, q], inside[g] + own[g])
                if parent[g] == NONE:
                    total += room[g]
                else:
                    inside[parent[g]] += room[g]
            if total >= q:
                break
            best, first = NONE, len(ranks[0]) if n_guarantees else 0
            for g in range(n_guarantees):
                if room[g] < supply[g] and maxima[g, q] == room[g] and ranks[g, room[g]] < first:
                    best, first = g, ranks[g, room[g]]
            if best == NONE:
                break
            changed = True
            while best != NONE:  # the maxima around it would bind next
                if maxima[best, q] == room[best]:
                    maxima[best, q] += 1
                best = parent[best]
    for q in range(1, n_prefixes):  # what is due within (p, q] and may not stand before p must fit between them
        for g in range(n_guarantees):
            if minima[g, q] > maxima[g, q]:
                minima[g, q] = maxima[g, q]
                changed = True
        for p in range(q):
            for _ in range(q):
                excess, last = p - q, NONE
                for g in range(n_guarantees):
                    late = minima[g, q] - maxima[g, p]
                    if parent[g] == NONE and late > 0:
                        excess += late
                        if last == NONE or ranks[g, minima[g, q] - 1] > ranks[last, minima[last, q] - 1]:
                            last = g
                if excess <= 0:
                    break
                for g in range(n_guarantees):
                    if g == last:
                        for earlier in range(q + 1):
                            minima[g, earlier] = min(minima[g, earlier], minima[g, q] - 1)
                changed = True
    return changed


@numba.njit(cache=True, nogil=True)
def count_owed(rate: float, slack: float, catch_up: float, delivered: float, delivered_total: float, p: int) -> int:
    """Return what a share is owed of the next p impressions: max(0, ceil(rate (D + p) - D_t - slack)), debt capped."""
    debt = min(rate * delivered_total - delivered, slack + catch_up)
    return max(0, math.ceil(debt + rate * p - slack - ROUNDING))


@numba.njit(cache=True, nogil=True)
def look_ahead(
    minima: Integers,
    fixed: Integers,
    parent: Integers,
    outwards: Integers,
    innermost: Integers,
    rate: Floats,
    slack: Floats,
    catch_up: Floats,
    delivered: Floats,
    delivered_total: float,
    end: int,
    horizon: int,
) -> None:
    """Make due on this page what the next page would owe beyond its places.

    Shares of several labels, and the ``fixed`` minima of the next page, can fall due at one impression. Had the viewer
    left just before, no order of the next page could serve them all, so some are served early: each time the label that
    takes most off the excess of all positions of the next page together, and of these the one of highest value.
    """
    n_guarantees, n_prefixes = minima.shape
    ranks = np.full((n_guarantees, len(innermost)), len(innermost), dtype=np.int64)
    supply = np.zeros(n_guarantees, dtype=np.int64)
    for rank in range(len(innermost)):
        g = innermost[rank]
        while g != NONE:
            ranks[g, supply[g]] = rank
            supply[g] += 1
            g = parent[g]
    settled, inside = np.empty(n_guarantees, dtype=np.int64), np.empty(n_guarantees, dtype=np.int64)
    trial = np.empty(n_guarantees, dtype=np.int64)
    owed = np.zeros((n_guarantees, horizon + 1), dtype=np.int64)
    for g in range(n_guarantees):
        for k in range(1, horizon + 1):
            if rate[g] > 0.0:
                owed[g, k] = count_owed(rate[g], slack[g], catch_up[g], delivered[g], delivered_total, end + k)
            else:
                owed[g, k] = fixed[g, min(k, n_prefixes - 1)]
    crowded = np.arange(1, horizon + 1)
    while True:
        sum_due(minima, parent, outwards, end, settled, inside)
        excess = np.empty(len(crowded), dtype=np.int64)
        for i in range(len(crowded)):
            excess[i] = _sum_owed(owed[:, crowded[i]], settled, rate, parent, outwards, inside) - crowded[i]
        crowded = crowded[excess > 0]
        before = excess[excess > 0].sum()
        if before == 0:
            return
        best, least = NONE, before
        for g in range(n_guarantees):
            if rate[g] == 0.0 or settled[g] >= supply[g]:
                continue
            kept = minima[g].copy()
            minima[g, end:] = np.maximum(kept[end:], settled[g] + 1)
            fits = True
            for q in range(end, n_prefixes):
                fits = fits and sum_due(minima, parent, outwards, q, trial, inside) <= q
            sum_due(minima, parent, outwards, end, trial, inside)
            left = 0
            for i in range(len(crowded)):
                left += max(0, _sum_owed(owed[:, crowded[i]], trial, rate, parent, outwards, inside) - crowded[i])
            minima[g] = kept
            better = left < least
            if left == least and best != NONE:
                better = ranks[g, settled[g]] < ranks[best, settled[best]]
            if fits and better:
                best, least = g, left
        if best == NONE:
            return
        minima[best, end:] = np.maximum(minima[best, end:], settled[best] + 1)


@numba.njit(cache=True, nogil=True)
def _sum_owed(
    owed: Integers, settled: Integers, rate: Floats, parent: Integers, outwards: Integers, inside: Integers
) -> int:
    """Return what the roots of the next page owe together, once this page has served what is settled."""
    total = 0
    inside[:] = 0
    for g in outwards:
        later = max(0, owed[g] - settled[g]) if rate[g] > 0.0 else owed[g]
        if parent[g] == NONE:
            total += max(later, inside[g])
        else:
            inside[parent[g]] += max(later, inside[g])
    return total


@numba.njit(cache=True, nogil=True)
def extras_grow(minima: Integers, parent: Integers, outwards: Integers) -> bool:
    """Say whether what each guarantee asks beyond those inside it never falls from one prefix to the next."""
    n_guarantees, n_prefixes = minima.shape
    due, inside = np.empty(n_guarantees, dtype=np.int64), np.empty(n_guarantees, dtype=np.int64)
    extra = np.zeros(n_guarantees, dtype=np.int64)
    for q in range(1, n_prefixes):
        sum_due(minima, parent, outwards, q, due, inside)
        for g in range(n_guarantees):
            now = due[g] - inside[g]
            if now < extra[g]:
                return False
            extra[g] = now
    return True


@numba.njit(cache=True, nogil=True)
def one_prefix(minima: Integers, maxima: Integers) -> bool:
    """Say whether all bounds that can bind are on one and the same prefix."""
    where = 0
    for g in range(len(minima)):
        for q in range(1, minima.shape[1]):
            # a bound is its own where its neighbours do not already imply it
            binds = minima[g, q] > minima[g, q - 1]
            if q + 1 < minima.shape[1]:
                binds = binds or maxima[g, q] < min(q, maxima[g, q + 1])
            else:
                binds = binds or maxima[g, q] < q
            if binds and where not in (0, q):
                return False
            if binds:
                where = q
    return True
