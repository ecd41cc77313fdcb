"""Filling a page from the top, compiled: by value, or by a draw whose probability is known.

Ranks, tables and the forest of guarantees are those of :mod:`spr.reorder.bounds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from spr.reorder.bounds import (
    NONE,
    count_owed,
    extras_grow,
    is_bounded,
    look_ahead,
    nest,
    one_prefix,
    settle,
    share_bounds,
    sum_due,
)

if TYPE_CHECKING:
    from spr.reorder.bounds import Flags, Floats, Integers

EVERY_DISCOUNT, ONE_DISCOUNT, FEASIBLE, PRICED = 0, 1, 2, 3  # what a page is best for


@numba.njit(cache=True, nogil=True)
def arrange_page(
    value: Floats,
    member: Flags,
    minima: Integers,
    maxima: Integers,
    window: Integers,
    rate: Floats,
    slack: Floats,
    catch_up: Floats,
    price: Floats,
    delivered: Floats,
    delivered_total: float,
    end: int,
    horizon: int,
) -> tuple[Integers, Integers, Integers, int, bool, Integers, Integers, Integers, Integers, Integers, Integers]:
    """Bound a page and fill it by value.

    Parameters
    ----------
    value, member : float64[n], bool[G, n]
        Of the ranks, best first.
    minima, maxima : int64[G, W + 1]
        As configured; what shares owe is added here, and both are settled in place.
    window : int64[G]
        The prefix past which a guarantee asks nothing, at most W.
    rate, slack, catch_up, price, delivered : float64[G]
        Of shares; the rate is 0 where none is promised to the viewer.
    end : int
        The prefix in which impressions count for shares; 0 where there are none.
    horizon : int
        Impressions of the next page to look ahead.

    Returns
    -------
    order, lifted : int64[n]
        Rank at each position, and the guarantee that lifted it or -1.
    shortfall : int64[G]
    optimal_for : int
        ``EVERY_DISCOUNT``; ``ONE_DISCOUNT``: the page must be found anew for a discount; ``FEASIBLE``: it keeps the
        guarantees, and no page is best for every discount; ``PRICED``: the best for every discount of those that have
        the labels which the prices chose.
    unsettled : bool
        Whether labels cross, or bounds of nested ones contradict each other on this page: the bounds are as they were
        asked, and the page must be found by an integer program.
    asked : int64[G, W + 1]
        The minima before they were settled.
    minima, maxima, parent, outwards, innermost
        The settled bounds, for `fill`.
    """
    n_guarantees, n_prefixes = minima.shape
    parent, outwards, innermost, unsettled = nest(member)
    n_shares, fixed = 0, minima.copy()
    for g in range(n_guarantees):
        if rate[g] > 0.0:
            n_shares += 1
            fixed[g] = 0
            for q in range(1, n_prefixes):
                minima[g, q] = count_owed(
                    rate[g], slack[g], catch_up[g], delivered[g], delivered_total, min(q, window[g])
                )
    asked, allowed = minima.copy(), maxima.copy()
    nothing, nobody = np.empty(0), np.empty(0, dtype=np.int64)
    if unsettled:
        order = np.arange(len(value))
        lifted = np.full(len(value), NONE, dtype=np.int64)
        shortfall = missing(order, asked, allowed, member)
        optimal = EVERY_DISCOUNT if not shortfall.any() else ONE_DISCOUNT
        return order, lifted, shortfall, optimal, unsettled, asked, minima, maxima, parent, outwards, innermost
    share_bounds(minima, maxima, member, parent, outwards)
    settle(minima, maxima, window, parent, outwards, innermost)
    if end > 0 and (n_shares > 1 or (n_shares == 1 and fixed.any())):
        look_ahead(
            minima,
            fixed,
            parent,
            outwards,
            innermost,
            rate,
            slack,
            catch_up,
            delivered,
            delivered_total,
            end,
            horizon,
        )
    priced = False
    if price.any() and end > 0:
        priced = _follow_prices(value, price, minima, maxima, parent, outwards, innermost, end)
    nested = False
    for g in range(n_guarantees):
        nested = nested or (parent[g] != NONE and member[g].sum() < member[parent[g]].sum())
    simple = not nested or extras_grow(minima, parent, outwards)
    unbounded = np.full_like(maxima, len(value)) if is_bounded(maxima) else maxima
    order, lifted, _ = fill(minima, unbounded, parent, outwards, innermost, 0, 0.0, nothing, nothing, nobody)
    optimal = EVERY_DISCOUNT if simple else (FEASIBLE if n_shares else ONE_DISCOUNT)
    if is_bounded(maxima) and not keeps(order, minima, maxima, parent, innermost)[1]:
        capped, _, _ = fill(
            np.zeros_like(minima), maxima, parent, outwards, innermost, 0, 0.0, nothing, nothing, nobody
        )
        if not nested and keeps(capped, minima, maxima, parent, innermost)[0]:
            order, lifted, optimal = capped, np.full(len(value), NONE, dtype=np.int64), EVERY_DISCOUNT
        else:
            order, lifted, _ = fill(minima, maxima, parent, outwards, innermost, 0, 0.0, nothing, nothing, nobody)
            low, high = keeps(order, minima, maxima, parent, innermost)
            unsettled = not (low and high)
            if unsettled:
                minima, maxima = asked.copy(), allowed.copy()
            optimal = EVERY_DISCOUNT if not unsettled and one_prefix(minima, maxima) else ONE_DISCOUNT
    if priced and optimal == EVERY_DISCOUNT:
        optimal = PRICED
    shortfall = missing(order, asked, allowed, member)
    return order, lifted, shortfall, optimal, unsettled, asked, minima, maxima, parent, outwards, innermost


@numba.njit(cache=True, nogil=True)
def fill(
    minima: Integers,
    maxima: Integers,
    parent: Integers,
    outwards: Integers,
    innermost: Integers,
    depth: int,
    mixture: float,
    log_weight: Floats,
    uniform: Floats,
    given: Integers,
) -> tuple[Integers, Integers, Floats]:
    """Fill a page from the top; return the rank at each position, the guarantee that lifted it, and its probability.

    Of the ranks that may stand next, the first ``depth`` positions take the best one with probability 1 - mixture,
    else one in proportion to ``exp(log_weight)`` (all alike where each of these is 0); the positions below take the
    best one.
    ``given`` is a page to follow instead of drawing one, or empty; a rank that may not stand there has probability 0.
    Tables must have been settled.
    """
    n_guarantees, n_prefixes = minima.shape
    n = len(innermost)
    last = n_prefixes - 1  # no bound past it
    count = np.zeros(n_guarantees, dtype=np.int64)
    due = np.zeros((n_guarantees, n_prefixes), dtype=np.int64)
    inside = np.zeros((n_guarantees, n_prefixes), dtype=np.int64)
    total = np.zeros(n_prefixes, dtype=np.int64)
    for q in range(1, n_prefixes):
        total[q] = sum_due(minima, parent, outwards, q, due[:, q], inside[:, q])
    # ranks with the same innermost guarantee, or none (the last queue), are one queue, best first
    successor = np.full(n, n, dtype=np.int64)
    head = np.full(n_guarantees + 1, n, dtype=np.int64)
    for rank in range(n - 1, -1, -1):
        queue = innermost[rank] if innermost[rank] != NONE else n_guarantees
        successor[rank] = head[queue]
        head[queue] = rank
    placed = np.zeros(n, dtype=np.bool_)
    order = np.empty(n, dtype=np.int64)
    lifted = np.full(n, NONE, dtype=np.int64)
    probability, weight = np.ones(n), np.empty(n)
    may = np.ones(n_guarantees + 1, dtype=np.bool_)
    bounded = is_bounded(maxima)
    best_left = 0
    for p in range(n):
        while best_left < n and placed[best_left]:
            best_left += 1
        tight = 0
        for q in range(p + 1, n_prefixes):
            if total[q] >= q - p:
                tight = q
                break
        best = best_left
        choosing = p < last and (tight > 0 or bounded)
        drawing = p < depth and mixture > 0.0
        if choosing or drawing:
            for queue in range(n_guarantees + 1):
                while head[queue] < n and placed[head[queue]]:
                    head[queue] = successor[head[queue]]
                may[queue] = head[queue] < n
        if choosing:
            best = n
            for queue in range(n_guarantees + 1):
                if may[queue] and bounded and queue < n_guarantees:
                    may[queue] = _has_room(minima, maxima, count, due, inside, parent, queue, p)
                if may[queue] and tight:
                    may[queue] = queue < n_guarantees and _lowers(
                        minima, count, due, inside, total, parent, queue, p, tight
                    )
                if may[queue] and head[queue] < best:
                    best = head[queue]
        rank = best
        if best == n:  # only where tables were not settled, or a given page has left them
            rank = best_left
        if drawing:
            heaviest, n_open = -np.inf, 0
            for other in range(best_left, n):
                if not placed[other] and may[innermost[other]]:
                    heaviest = max(heaviest, log_weight[other])
                    n_open += 1
            sum_of_weights = 0.0
            for other in range(best_left, n):
                if not placed[other] and may[innermost[other]]:
                    weight[other] = np.exp(log_weight[other] - heaviest) if heaviest > -np.inf else 1.0
                    sum_of_weights += weight[other]
            if len(given):
                rank = given[p]
            elif n_open and uniform[p] < mixture:
                mark, rank = uniform[p] / mixture * sum_of_weights, n
                for other in range(best_left, n):
                    if not placed[other] and may[innermost[other]] and weight[other] > 0.0:
                        rank = other
                        mark -= weight[other]
                        if mark < 0.0:
                            break
            chance = 0.0
            if n_open and may[innermost[rank]]:
                chance = mixture * weight[rank] / sum_of_weights + (1.0 - mixture if rank == best else 0.0)
            probability[p] = chance
        elif len(given):
            rank = given[p]
            probability[p] = 1.0 if rank == best else 0.0
        order[p] = rank
        placed[rank] = True
        if rank > best_left and p < rank and tight:
            g = innermost[rank]
            while g != NONE and lifted[p] == NONE:
                if due[g, tight] > inside[g, tight]:
                    lifted[p] = g
                g = parent[g]
        g, first = innermost[rank], innermost[rank]
        while g != NONE:
            count[g] += 1
            g = parent[g]
        for q in range(p + 1, n_prefixes):
            g, fewer = first, 0
            while g != NONE:
                inside[g, q] -= fewer
                now = max(minima[g, q] - count[g], inside[g, q])
                fewer = due[g, q] - now
                due[g, q] = now
                g = parent[g]
            total[q] -= fewer
    return order, lifted, probability


@numba.njit(cache=True, nogil=True)
def _has_room(
    minima: Integers,
    maxima: Integers,
    count: Integers,
    due: Integers,
    inside: Integers,
    parent: Integers,
    first: int,
    p: int,
) -> bool:
    """Say whether a rank whose innermost guarantee is ``first`` leaves room for what is due inside its guarantees."""
    for q in range(p + 1, minima.shape[1]):
        g, fewer = first, 0
        while g != NONE:
            now_inside = inside[g, q] - fewer
            if count[g] + 1 + now_inside > maxima[g, q]:
                return False
            fewer = due[g, q] - max(minima[g, q] - count[g] - 1, now_inside)
            g = parent[g]
    return True


@numba.njit(cache=True, nogil=True)
def _lowers(
    minima: Integers,
    count: Integers,
    due: Integers,
    inside: Integers,
    total: Integers,
    parent: Integers,
    first: int,
    p: int,
    tight: int,
) -> bool:
    """Say whether a rank whose innermost guarantee is ``first`` lowers what is due at every tight prefix."""
    for q in range(tight, minima.shape[1]):
        if total[q] < q - p:
            continue
        g, fewer = first, 0
        while g != NONE:
            fewer = due[g, q] - max(minima[g, q] - count[g] - 1, inside[g, q] - fewer)
            g = parent[g]
        if fewer == 0:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _follow_prices(
    value: Floats,
    price: Floats,
    minima: Integers,
    maxima: Integers,
    parent: Integers,
    outwards: Integers,
    innermost: Integers,
    end: int,
) -> bool:
    """Make due by ``end`` what the best page has there whose values include the prices; say whether that is more."""
    n, n_guarantees = len(innermost), len(parent)
    priced = value.copy()
    for rank in range(n):
        g = innermost[rank]
        while g != NONE:
            priced[rank] += price[g]
            g = parent[g]
    by_price = np.argsort(-priced, kind="mergesort")
    nothing = np.empty(0)
    order, _, _ = fill(
        minima, maxima, parent, outwards, innermost[by_price], 0, 0.0, nothing, nothing, np.empty(0, dtype=np.int64)
    )
    count = np.zeros(n_guarantees, dtype=np.int64)
    for p in range(end):
        g = innermost[by_price[order[p]]]
        while g != NONE:
            count[g] += 1
            g = parent[g]
    raised = False
    for g in range(n_guarantees):
        raised = raised or count[g] > minima[g, end]
        minima[g, end:] = np.maximum(minima[g, end:], count[g])
    return raised


@numba.njit(cache=True, nogil=True)
def keeps(
    order: Integers, minima: Integers, maxima: Integers, parent: Integers, innermost: Integers
) -> tuple[bool, bool]:
    """Say whether a page keeps all minima, and whether it keeps all maxima."""
    count = np.zeros(len(parent), dtype=np.int64)
    low, high = True, True
    for q in range(1, minima.shape[1]):
        g = innermost[order[q - 1]]
        while g != NONE:
            count[g] += 1
            g = parent[g]
        for g in range(len(parent)):
            low = low and count[g] >= minima[g, q]
            high = high and count[g] <= maxima[g, q]
    return low, high


@numba.njit(cache=True, nogil=True)
def missing(order: Integers, minima: Integers, maxima: Integers, member: Flags) -> Integers:
    """Count what each guarantee misses, or has too much, at the prefix where that is most."""
    worst = np.zeros(len(minima), dtype=np.int64)
    for g in range(len(minima)):
        count = 0
        for q in range(1, minima.shape[1]):
            count += member[g, order[q - 1]]
            worst[g] = max(worst[g], minima[g, q] - count, count - maxima[g, q])
    return worst
