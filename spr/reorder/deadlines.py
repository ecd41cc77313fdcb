"""Order a page by value under deadlines: the one engine behind every impression guarantee.

Everything here speaks of *ranks*: the cohorts sorted by value, 0 = highest (ties by index). A demanded cohort
has a *deadline*: the smallest prefix of the page, counted from 1, that must hold it. The path is `fill_page`:

1. `_set_deadlines`: the j-th best cohort of a label is due by the smallest prefix whose minimum is >= j;
2. `_relax_deadlines`: where more is due than there are places, the demands of lowest value wait;
3. `_pull_forward`: what the *next* page could not hold, if the viewer left now, is due on this one;
4. `_take_backwards`: from the last position up, take the lowest value whose deadline allows.

Steps 2 and 4 schedule unit-time jobs with deadlines. The sets of jobs that can be on time are a transversal
matroid, so the greedy choices are exact (Lawler 1976, "Combinatorial Optimization: Networks and Matroids",
ch. 7; Moore 1968, "An n job, one machine sequencing algorithm for minimizing the number of late jobs",
Management Science 15).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Demand:
    """What one guarantee asks of one page.

    Parameters
    ----------
    members : list of int
        Ranks of the cohorts that bear the guarantee's label, best first.
    minima : list of int
        ``minima[p - 1]`` members are due within the first p positions; non-decreasing, no longer than the
        page.
    ahead : int array or None
        What is due in all if impressions go on: ``ahead[0]`` by the end of this page's window, ``ahead[k]``
        by the k-th position of the next page. None: it asks nothing of later pages.
    """

    members: list[int]
    minima: list[int]
    ahead: NDArray[np.int64] | None = None

    def shortfall(self, position: Sequence[int]) -> int:
        """Members missing at the prefix that misses most, given each rank's final position (0 = top)."""
        placed = sorted([position[rank] for rank in self.members])
        missing, found = 0, 0
        for prefix, minimum in enumerate(self.minima, start=1):
            while found < len(placed) and placed[found] < prefix:
                found += 1
            if minimum - found > missing:
                missing = minimum - found
        return missing


@dataclass(slots=True)
class Deadlines:
    """The demanded ranks of a page.

    Parameters
    ----------
    due : dict of int to int
        By rank, the smallest prefix that must hold it.
    claimed_by : dict of int to int
        By rank, the index of the demand that set its deadline.
    """

    due: dict[int, int]
    claimed_by: dict[int, int]

    def claim(self, rank: int, prefix: int, demand: int) -> None:
        """Make a rank due by a prefix, for a demand."""
        self.due[rank] = prefix
        self.claimed_by[rank] = demand


def fill_page(n: int, demands: Sequence[Demand]) -> tuple[list[int], dict[int, int]]:
    """Order n ranks so that every demand is met in time where places allow, and value is greatest.

    Parameters
    ----------
    n : int
        Cohorts on the page.
    demands : sequence of Demand
        Narrowest label first: a wide label counts what the labels inside it have already claimed.

    Returns
    -------
    position : list of int
        By rank, where it stands, 0 = top.
    lifted : dict of int to int
        By rank that stands higher than its value alone would place it, the index of the demand that did it.

    Examples
    --------
    The fourth best is due within the first two positions:

    >>> fill_page(4, [Demand(members=[3], minima=[0, 1])])
    ([0, 2, 3, 1], {3: 0})
    """
    deadlines = _set_deadlines(demands)
    _relax_deadlines(deadlines, demands)
    _pull_forward(deadlines, demands, n)
    due = deadlines.due
    if all(rank < prefix for rank, prefix in due.items()):  # by value alone everything is in time
        return list(range(n)), {}
    upwards, _ = _take_backwards([rank for rank in range(n) if rank not in due], due, range(n, 0, -1))
    position = [0] * n
    for place, rank in enumerate(reversed(upwards)):
        position[rank] = place
    # Only a deadline lifts a cohort: among those without one, the worse is always taken first.
    return position, {rank: demand for rank, demand in deadlines.claimed_by.items() if position[rank] < rank}


def _set_deadlines(demands: Sequence[Demand]) -> Deadlines:
    deadlines = Deadlines({}, {})
    for index, demand in enumerate(demands):
        _claim_best(deadlines, index, iter(demand.members), demand.members, demand.minima)
    return deadlines


def _claim_best(
    deadlines: Deadlines, index: int, candidates: Iterator[int], members: Sequence[int], minima: Sequence[int]
) -> None:
    """Make candidates due, best first, until each prefix has its minimum of members, other demands' included."""
    due = deadlines.due
    others = {rank: due[rank] for rank in members if rank in due}
    claimed, reached = 0, 0
    for prefix, minimum in enumerate(minima, start=1):
        if minimum == reached:
            continue
        reached = minimum
        missing = minimum - claimed - sum([deadline <= prefix for deadline in others.values()])
        while missing > 0 and (rank := next(candidates, None)) is not None:
            if rank not in others or others.pop(rank) > prefix:
                deadlines.claim(rank, prefix, index)
                claimed += 1
                missing -= 1


def _relax_deadlines(deadlines: Deadlines, demands: Sequence[Demand]) -> None:
    """Put off the demands of lowest value until each prefix holds what is due; past its window one is given up."""
    due = deadlines.due
    upcoming = sorted(due, key=due.__getitem__, reverse=True)
    on_time: list[int] = []
    postponed: list[int] = []
    prefix = 0
    while upcoming or postponed:
        prefix = prefix + 1 if postponed else due[upcoming[-1]]
        arriving, postponed = postponed, []
        while upcoming and due[upcoming[-1]] == prefix:
            arriving.append(upcoming.pop())
        for rank in arriving:
            insort(on_time, rank)
        while len(on_time) > prefix:
            rank = on_time.pop()
            if prefix < len(demands[deadlines.claimed_by[rank]].minima):
                due[rank] = prefix + 1
                postponed.append(rank)
            else:
                del due[rank], deadlines.claimed_by[rank]


def _pull_forward(deadlines: Deadlines, demands: Sequence[Demand], n: int) -> None:
    """Make due on this page what the next page would owe beyond its places.

    Shares of several labels can fall due at one impression. Had the viewer left just before, no order of the
    next page could serve them all, so some must be served early. The positions after this page's window are
    filled backwards by the same rule as the page; what finds no place there is due by the end of the window.
    """
    lasting = {index: demand.ahead for index, demand in enumerate(demands) if demand.ahead is not None}
    last = _last_crowded_position(list(lasting.values()))
    if last == 0:
        return
    end = len(demands[next(iter(lasting))].minima)
    later = Deadlines({}, {})
    members = {i: [rank for rank in demands[i].members if deadlines.due.get(rank, end + 1) > end] for i in lasting}
    absent = count(n)  # ranks that stand for cohorts this page lacks: only the next page can serve them
    for index, ahead in lasting.items():
        settled = max(int(ahead[0]), len(demands[index].members) - len(members[index]))
        minima = np.maximum(ahead[1 : last + 1] - settled, 0).tolist()
        _claim_best(later, index, chain(members[index], absent), members[index], minima)
        lacking = [rank for rank, demand in later.claimed_by.items() if rank >= n and demand == index]
        for outer in lasting:
            if outer > index and _is_inside(demands[index], demands[outer]):
                members[outer] += lacking
    _, homeless = _take_backwards([], later.due, range(last, 0, -1))
    for rank in [rank for rank in homeless if rank < n][: _count_free_places(deadlines.due.values(), end)]:
        deadlines.claim(rank, end, later.claimed_by[rank])


def _last_crowded_position(ahead: Sequence[NDArray[np.int64]]) -> int:
    """Find the last position of the next page by which more may fall due than there are places; 0 where none is.

    Labels inside others are counted twice here, which costs time and never a page.
    """
    if len(ahead) < 2:  # a single share is at most 1, so it never asks for two cohorts at one impression
        return 0
    owed = np.sum(ahead, axis=0)
    crowded = np.flatnonzero(owed - owed[0] > np.arange(len(owed)))
    return int(crowded[-1]) if len(crowded) else 0


def _is_inside(inner: Demand, outer: Demand) -> bool:
    return bool(inner.members) and set(inner.members) <= set(outer.members)


def _count_free_places(due: Iterable[int], end: int) -> int:
    """Count the cohorts that can still be made due by ``end`` with every deadline kept."""
    free = end
    for place, prefix in enumerate(sorted(due), start=1):
        free = min(free, max(prefix, end) - place)
    return max(free, 0)


def _take_backwards(free: Sequence[int], due: Mapping[int, int], prefixes: range) -> tuple[list[int], list[int]]:
    """Give each prefix, last first, the lowest value whose deadline allows; return those taken and those left."""
    pool = list(free)  # best first
    upcoming = sorted(due, key=due.__getitem__)
    taken = []
    for prefix in prefixes:
        while upcoming and due[upcoming[-1]] >= prefix:
            insort(pool, upcoming.pop())
        if pool:
            taken.append(pool.pop())
    return taken, pool
