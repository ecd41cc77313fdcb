"""Runs of adjacent raw scores with exact sums: what a sketch is made of.

A table of cells is float64[7, c], one row for each ``Column``, with strictly increasing ``SCORE``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Column(IntEnum):
    """The rows of a table of cells.

    All of a cell counts at ``SCORE``, one of its raw scores. ``EXCESS`` and ``SHORTAGE`` say how wrong that can
    be there: of the weight counted up to and with ``SCORE``, at most ``EXCESS`` lies above it; of the weight
    counted above and at it, at most ``SHORTAGE`` lies below it. Both are 0 for a distinct score of the rows.
    The others are exact sums.
    """

    SCORE = 0
    EXCESS = 1
    SHORTAGE = 2
    WEIGHT = 3
    EXPOSURE = 4
    RESPONSE_SUM = 5
    RESPONSE_SQUARES = 6


C = Column
_SUMS = slice(C.WEIGHT, C.RESPONSE_SQUARES + 1)
_LIMIT_STEP = 1.2


def no_cells() -> NDArray[np.float64]:
    """Return a table without cells.

    Returns
    -------
    float64[7, 0]
    """
    return np.empty((len(Column), 0))


def cells_of_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one cell for each distinct raw score.

    Parameters
    ----------
    rows : float64[4, n]
        raw_score, response, weight > 0, examination; finite.

    Returns
    -------
    float64[7, c]

    Examples
    --------
    >>> cells_of_rows(np.array([[2.0, 1.0, 2.0], [1.0, 0.0, 0.0], [1.0, 1.0, 3.0], [1.0, 1.0, 0.5]]))[C.EXPOSURE]
    array([1. , 2.5])
    """
    order = np.argsort(rows[0])
    score, response, weight, examination = (column[order] for column in rows)
    weighted_response = weight * response
    start = _starts(score)
    cells = np.zeros((len(Column), start.size))
    cells[C.SCORE] = score[start]
    for column, amount in (
        (C.WEIGHT, weight),
        (C.EXPOSURE, weight * examination),
        (C.RESPONSE_SUM, weighted_response),
        (C.RESPONSE_SQUARES, weighted_response * response),
    ):
        cells[column] = amount if start.size == score.size else np.add.reduceat(amount, start)
    return cells


def unite(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put two tables into one; cells at the same score become one cell.

    Parameters
    ----------
    one, other : float64[7, ...]

    Returns
    -------
    float64[7, c]
        The same, bit for bit, in either order.
    """
    if one.shape[1] == 0 or other.shape[1] == 0:
        return one if other.shape[1] == 0 else other
    score = np.concatenate([one[C.SCORE], other[C.SCORE]])
    order = np.argsort(score, kind="stable")  # merges two sorted runs in linear time
    score = score[order]
    start = _starts(score)
    united = np.empty((len(Column), start.size))
    united[C.SCORE] = score[start]
    both = np.concatenate([one[_SUMS], other[_SUMS]], axis=1)[:, order]
    united[_SUMS] = both if start.size == order.size else np.add.reduceat(both, start, axis=1)
    # What a table counts at x only changes at its own scores, so the nearest of them bounds its error at x.
    united[C.EXCESS] = united[C.SHORTAGE] = 0.0
    for table in (one, other):
        if table[C.EXCESS].any() or table[C.SHORTAGE].any():
            n_up_to = np.searchsorted(table[C.SCORE], united[C.SCORE], side="right")
            united[C.EXCESS] += np.append(0.0, table[C.EXCESS])[n_up_to]
            n_below = np.searchsorted(table[C.SCORE], united[C.SCORE], side="left")
            united[C.SHORTAGE] += np.append(table[C.SHORTAGE], 0.0)[n_below]
    return united


def compact(cells: NDArray[np.float64], resolution: int) -> NDArray[np.float64]:
    """Join runs of neighbours, as evenly in error as the number of cells allows.

    Parameters
    ----------
    cells : float64[7, c]
    resolution : int
        >= 1.

    Returns
    -------
    float64[7, d]
        The table itself while c <= resolution; otherwise d <= 3/4 resolution (but at least 1).

    Notes
    -----
    After Greenwald and Khanna (2001), "Space-efficient online computation of quantile summaries": a run may grow
    only while the rank of the score that stands for it stays known to within a limit. The errors of two tables
    add up when they are united and so do their limits, so joining never adds to an error that is at the limit.
    The limit here is the lowest of a geometric series that leaves few enough cells.
    """
    if cells.shape[1] <= resolution:
        return cells
    most = max(1, resolution * 3 // 4)
    through = np.cumsum(cells[C.WEIGHT])
    limit = float(through[-1]) / (2 * most)
    while (start := _starts_of_runs(cells, through, limit)).size > most:
        limit *= _LIMIT_STEP
    return _join(cells, through, start)


def _starts_of_runs(cells: NDArray[np.float64], through: NDArray[np.float64], limit: float) -> NDArray[np.intp]:
    # From each possible start: the last score that can stand for what precedes it in the run, and from there
    # the end. At least and at most these weights lie up to, and below, each score; both increase.
    n = through.size
    before = np.append(0.0, through[:-1])
    at_least = through - cells[C.EXCESS]
    at_most = before + cells[C.SHORTAGE]
    index = np.arange(n)
    chosen = np.maximum(np.searchsorted(at_most, before + limit, side="right") - 1, index)
    ties = np.append(np.flatnonzero(cells[C.WEIGHT] > 2.0 * limit), n)
    next_tie = ties[np.searchsorted(ties, index, side="left")]
    chosen = np.minimum(chosen, np.maximum(next_tie - 1, index))
    end = np.maximum(np.searchsorted(through, at_least + limit, side="right"), index + 1)[chosen]
    after = np.maximum(np.minimum(end, next_tie), index + 1).tolist()
    start = [0]
    while (following := after[start[-1]]) < n:
        start.append(following)
    return np.array(start, dtype=np.intp)


def _join(cells: NDArray[np.float64], through: NDArray[np.float64], start: NDArray[np.intp]) -> NDArray[np.float64]:
    before = np.append(0.0, through[:-1])
    end = np.append(start[1:], through.size)
    length = end - start
    excess = np.repeat(through[end - 1], length) - through + cells[C.EXCESS]
    shortage = before - np.repeat(before[start], length) + cells[C.SHORTAGE]
    wrong = np.maximum(excess, shortage)
    candidates = np.flatnonzero(wrong == np.repeat(np.minimum.reduceat(wrong, start), length))
    chosen = candidates[np.searchsorted(candidates, start)]

    joined = np.empty((len(Column), start.size))
    joined[C.SCORE] = cells[C.SCORE, chosen]
    joined[C.EXCESS] = excess[chosen]
    joined[C.SHORTAGE] = shortage[chosen]
    joined[_SUMS] = np.add.reduceat(cells[_SUMS], start, axis=1)
    return joined


def _starts(ordered: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.flatnonzero(np.append(True, ordered[1:] > ordered[:-1]))
