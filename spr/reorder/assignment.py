"""The best page for one discount, where no page is best for all: an assignment, or an integer program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]


def best_page(
    value: Floats,
    member: NDArray[np.bool_],
    minima: Integers,
    maxima: Integers,
    discount: Floats,
    *,
    settled: bool,
) -> Integers:
    """Return the rank at each position of the page with the greatest ``sum(discount * value)``.

    Parameters
    ----------
    value : float array, shape (n,)
        Of the ranks, best first.
    member : bool array, shape (G, n)
        Whether a rank counts for a guarantee.
    minima, maxima : int array, shape (G, W + 1)
        Bounds on the members within each prefix, W <= n.
    discount : float array, shape (n,)
        Non-increasing.
    settled : bool
        Whether some page keeps the bounds. Else they are broken by as little as possible, summed over the guarantees at
        the prefix that misses most.

    Returns
    -------
    int array, shape (n,)
    """
    asking = minima.any(axis=1) | (maxima < np.arange(maxima.shape[1])).any(axis=1)
    member, minima, maxima = member[asking], minima[asking], maxima[asking]
    solve = _assign if settled and (member.sum(axis=0) <= 1).all() else _solve
    return _settle_ties(solve(value, member, minima, maxima, discount), value, member, minima, maxima, discount)


def _settle_ties(
    order: Integers, value: Floats, member: NDArray[np.bool_], minima: Integers, maxima: Integers, discount: Floats
) -> Integers:
    """Let the better rank stand first wherever that costs nothing and breaks no bound that is kept."""
    order, last = order.copy(), minima.shape[1] - 1
    tied = [(p, q) for p in range(len(order)) for q in range(p + 1, len(order)) if order[p] > order[q]]
    while tied:
        p, q = tied.pop(0)
        above, below = order[p], order[q]
        if above < below or (value[above] != value[below] and discount[p] != discount[q]):
            continue
        change = member[:, below].astype(np.int64) - member[:, above]
        inside = slice(p + 1, min(q, last) + 1)
        count = np.cumsum(member[:, order], axis=1)[:, p : min(q, last)]
        after, low, high = count + change[:, None], minima[:, inside], maxima[:, inside]
        if (after >= np.minimum(count, low)).all() and (after <= np.maximum(count, high)).all():
            order[p], order[q] = below, above
            tied = [(i, j) for i in range(len(order)) for j in range(i + 1, len(order)) if order[i] > order[j]]
    return order


def _assign(value: Floats, member: NDArray[np.bool_], minima: Integers, maxima: Integers, discount: Floats) -> Integers:
    """Assign ranks to positions; the j-th best of a label stands where j of them are let in and not yet asked for.

    Some best page has the cohorts of each label in order of value (swap two that are not: the counts stay the same),
    and such a page keeps the bounds if and only if each rank stands within its own window.
    """
    from scipy.optimize import linear_sum_assignment

    n = len(value)
    gain = np.outer(value, discount)
    position = np.arange(1, n + 1)
    for row, low, high in zip(member, minima, maxima, strict=True):
        for j, rank in enumerate(np.flatnonzero(row), start=1):
            let_in = np.flatnonzero(high >= j)
            first = let_in[0] if len(let_in) else len(high)
            asked = np.flatnonzero(low >= j)
            last = asked[0] if len(asked) else n
            gain[rank, (position < first) | (position > last)] = -np.inf
    rows, columns = linear_sum_assignment(gain, maximize=True)
    order = np.empty(n, dtype=np.int64)
    order[columns] = rows
    return order


def _solve(value: Floats, member: NDArray[np.bool_], minima: Integers, maxima: Integers, discount: Floats) -> Integers:
    """Solve with a 0/1 variable for each rank at each position, and one for what each guarantee misses."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    n, n_guarantees = len(value), len(member)
    minima = np.minimum(minima, member.sum(axis=1)[:, None])  # what there is too little of would excuse the rest
    size = n * n + n_guarantees  # x[rank, position], then what is missing
    of_rank, of_position = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    once = csr_array(np.hstack([np.vstack([of_rank, of_position]), np.zeros((2 * n, n_guarantees))]))
    rows, low, high = [], [], []
    for g in range(n_guarantees):
        for q in range(1, minima.shape[1]):
            if minima[g, q] == minima[g, q - 1] and maxima[g, q] >= q:
                continue
            row = np.outer(member[g], np.arange(n) < q).ravel()
            for bound, sign in ((minima[g, q], 1.0), (maxima[g, q], -1.0)):
                missing = np.zeros(n_guarantees)
                missing[g] = sign
                rows.append(np.concatenate([row, missing]))
                low.append(bound if sign > 0 else -np.inf)
                high.append(np.inf if sign > 0 else bound)
    spread = float(np.ptp(value) * discount.sum())
    loss = np.concatenate([-np.outer(value, discount).ravel(), np.full(n_guarantees, 2.0 * spread + 1.0)])
    found = milp(
        loss,
        integrality=np.concatenate([np.ones(n * n), np.zeros(n_guarantees)]),
        bounds=Bounds(np.zeros(size), np.concatenate([np.ones(n * n), np.full(n_guarantees, np.inf)])),
        constraints=[LinearConstraint(once, 1.0, 1.0), LinearConstraint(csr_array(np.array(rows)), low, high)],
        options={"mip_rel_gap": 0.0},
    )
    placed = np.asarray(found.x, dtype=np.float64)  # some page always exists: what is missing has no bound
    return np.asarray(placed[: n * n].reshape(n, n).argmax(axis=0), dtype=np.int64)
