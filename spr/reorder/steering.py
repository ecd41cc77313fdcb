"""Prices of one page: what its cohorts of a label are worth beyond their value, so that floors are met by good ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.reorder.bounds import Flags, Floats

# Chosen on made viewers like those of tests/benchmarks/bench_shares_over_sessions.py; the utility is flat around them.
WEIGHT_OF_PAGE = 0.8
PULL = 1.4  # standard deviations of the page's values per page of lag: a lag of `end` impressions
LEAD = 0.5  # impressions


@numba.njit(cache=True, nogil=True)
def steer(
    value: Floats,
    member: Flags,
    kind: NDArray[np.int64],
    share: Floats,
    slack: Floats,
    most: Floats,
    price: Floats,
    delivered: Floats,
    delivered_total: float,
    end: int,
) -> Floats:
    """Return the price of each guarantee on this page.

    Parameters
    ----------
    value, member : float64[n], bool[G, n]
        Of the ranks, best first.
    kind : int64[G]
        Of the label.
    share, slack, most, price, delivered : float64[G]
        ``share`` is 0 for what is not steered: its price stays. ``most`` is the lag that one page answers to.
    delivered_total : float
    end : int
        The top in which impressions count.

    Returns
    -------
    float64[G]
        ``max(0, 0.2 * price + 0.8 * here + 1.4 * sd * (lag + lead + 0.5) / end)`` of what is steered.

    Notes
    -----
    Over all pages of one viewer the best sets above ``end`` are those of greatest value plus a constant per label, the
    dual price of its floor. Three things stand in for that constant, which nobody knows in advance. ``price`` is that
    of the population. ``here`` is the one under which this page alone would hold the floors: the value at the margin of
    the places that no floor claims, less the value of the label's cohort at the margin of its own; it knows how this
    viewer's values differ from the population's, and, having the noise of one page, does not get all the weight. The
    last term is a controller: it grows with ``lag = share * D - D_t``, counted in pages, so that what the first two
    miss is made up for, in the manner of virtual queues (Neely 2010, "Stochastic Network Optimization with Application
    to Communication and Queueing Systems", ch. 4). Its aim is to be ahead by ``lead = max(0, share * end - slack)`` and
    half an impression more, since from there on the promise at each prefix leaves the order inside the page free.
    """
    n, n_guarantees = len(value), len(share)
    places = min(end, n)
    claimed = np.zeros(kind.max() + 1)
    forced = np.zeros(n, dtype=np.bool_)
    margin = np.full(n_guarantees, np.nan)
    for g in range(n_guarantees):
        if share[g] == 0.0:
            continue
        wanted = share[g] * places
        claimed[kind[g]] += wanted
        margin[g] = _at(value, member[g], wanted)
        left = int(np.floor(wanted + 0.5))
        for rank in range(n):
            if left > 0 and member[g, rank]:
                forced[rank] = True
                left -= 1
    free = _at(value, ~forced, max(places - claimed.max(), 0.0))
    spread = value.std()
    steered = price.copy()
    for g in range(n_guarantees):
        if share[g] > 0.0:
            here = 0.0 if np.isnan(margin[g]) or np.isnan(free) else max(0.0, free - margin[g])
            lag = min(share[g] * delivered_total - delivered[g], most[g])
            pull = PULL * spread * (lag + max(0.0, share[g] * end - slack[g]) + LEAD) / end
            steered[g] = max(0.0, (1.0 - WEIGHT_OF_PAGE) * price[g] + WEIGHT_OF_PAGE * here + pull)
    return steered


@numba.njit(cache=True, nogil=True)
def _at(value: Floats, among: NDArray[np.bool_], count: float) -> float:
    """Return the value between the last of ``count`` ranks and the next one, interpolated; NaN where there is none."""
    place, before, seen = count - 0.5, np.nan, -1
    for rank in range(len(value)):
        if among[rank]:
            seen += 1
            if seen >= place:
                part = seen - place
                alone = np.isnan(before) or part >= 1.0
                return float(value[rank] if alone else part * before + (1.0 - part) * value[rank])
            before = value[rank]
    return float(before)
