"""Compiled loops over the cohorts of pages: what stands above, the conditional likelihood, means over all orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def sum_above(offset: Integers, order: Integers, relevance: Floats, group: Integers, n_groups: int) -> Floats:
    """Sum what stands above each cohort.

    Parameters
    ----------
    offset : int64[P + 1]
    order : int64[C]
        Rows of each page, top first.
    relevance : float64[C]
    group : int64[C]
    n_groups : int
        G.

    Returns
    -------
    float64[C, 2 + 2 G]
        Relevance above; cohorts of its own group above; cohorts of each group above; log(1 + position), by its own
        group.
    """
    above = np.zeros((order.size, 2 + 2 * n_groups))
    counts = np.zeros(n_groups)
    for page in range(offset.size - 1):
        counts[:] = 0.0
        total = 0.0
        for at in range(offset[page], offset[page + 1]):
            row = order[at]
            above[row, 0] = total
            above[row, 1] = counts[group[row]]
            for g in range(n_groups):
                above[row, 2 + g] = counts[g]
            above[row, 2 + n_groups + group[row]] = np.log1p(at - offset[page])
            total += relevance[row]
            counts[group[row]] += 1.0
    return above


@numba.njit(cache=True, nogil=True)
def predict_shares(
    offset: Integers, total: Floats, place: Integers, columns: Floats, log_place: Floats, slope: Floats
) -> Floats:
    """Return each cohort's share of its page's interactions, float64[C]; 0 on pages without any."""
    share = np.zeros(place.size)
    for page in range(offset.size - 1):
        if total[page] == 0.0:
            continue
        low, high = offset[page], offset[page + 1]
        largest = -np.inf
        for row in range(low, high):
            margin = log_place[place[row]]
            for j in range(slope.size):
                margin += slope[j] * columns[row, j]
            share[row] = margin
            largest = max(largest, margin)
        summed = 0.0
        for row in range(low, high):
            share[row] = np.exp(share[row] - largest)
            summed += share[row]
        for row in range(low, high):
            share[row] /= summed
    return share


@numba.njit(cache=True, nogil=True)
def sum_derivatives(
    offset: Integers,
    total: Floats,
    place: Integers,
    columns: Floats,
    label: Floats,
    share: Floats,
    fold: Integers,
    n_folds: int,
    k: int,
) -> tuple[Floats, Floats]:
    """Sum score and information of the conditional likelihood by fold.

    The score is that of (place dummies, columns); the information is the pages' totals times the covariance of these
    over the page, with the shares as probabilities.

    Parameters
    ----------
    offset : int64[P + 1]
    total : float64[P]
        Interactions of each page; pages of 0 are passed over.
    place : int64[C]
        0, ..., k - 1.
    columns : float64[C, d]
    label, share : float64[C]
    fold : int64[P]
    n_folds, k : int

    Returns
    -------
    score : float64[n_folds, k + d]
    information : float64[n_folds, k + d, k + d]
    """
    d = columns.shape[1]
    score = np.zeros((n_folds, k + d))
    information = np.zeros((n_folds, k + d, k + d))
    mean = np.zeros(k + d)
    for page in range(offset.size - 1):
        if total[page] == 0.0:
            continue
        own, slope = information[fold[page]], score[fold[page]]
        mean[:] = 0.0
        for row in range(offset[page], offset[page + 1]):
            weight, at = share[row] * total[page], place[row]
            residual = label[row] - weight
            slope[at] += residual
            mean[at] += share[row]
            own[at, at] += weight
            for i in range(d):
                x = columns[row, i]
                slope[k + i] += residual * x
                mean[k + i] += share[row] * x
                own[k + i, at] += weight * x
                for j in range(i + 1):
                    own[k + i, k + j] += weight * x * columns[row, j]
        for i in range(k + d):
            scaled = mean[i] * total[page]
            if scaled != 0.0:
                for j in range(i + 1):
                    own[i, j] -= scaled * mean[j]
    for own in information:
        for i in range(k + d):
            for j in range(i):
                own[j, i] = own[i, j]
    return score, information


@numba.njit(cache=True, nogil=True)
def average_over_orders(
    offset: Integers,
    rows: Integers,
    page: Integers,
    relevance: Floats,
    group: Integers,
    n_groups: int,
    examination: Floats,
    place: Integers,
    terms: Integers,
    slope: Floats,
    k: int,
) -> tuple[Floats, Floats]:
    """Average each row's examination over all orders of its page, exactly.

    The examination of cohort c at position i is ``examination[i]``, times a power of 1 + i of its group's own, times
    the product over the cohorts j above of v_j = exp(slope . t_j), with t_j as in :func:`sum_above`. The mean of that
    product over the i-subsets of the first m others obeys E(m, i) = (1 - i / m) E(m - 1, i) + (i / m) v_m E(m - 1,
    i - 1), since the m-th is among them with probability i / m.

    Parameters
    ----------
    offset : int64[P + 1]
    rows : int64[m]
        Of these cohorts.
    page : int64[C]
    relevance : float64[C]
    group : int64[C]
    n_groups : int
        G.
    examination : float64[positions]
    place : int64[positions]
        The place (0, ..., k - 1) of each position.
    terms : int64[d]
        Which columns of :func:`sum_above`.
    slope : float64[d]
    k : int

    Returns
    -------
    mean : float64[m]
    gradient : float64[m, k + d]
        Of log mean, by log examination of the places and by the slopes.
    """
    d = slope.size
    mean = np.empty(rows.size)
    gradient = np.zeros((rows.size, k + d))
    longest = examination.size
    product = np.empty(longest)
    change = np.empty((longest, d))
    t = np.empty(d)
    for number in range(rows.size):
        row = rows[number]
        low, high = offset[page[row]], offset[page[row] + 1]
        n = high - low
        product[0] = 1.0
        change[0, :] = 0.0
        m = 0
        if d > 0:
            for other in range(low, high):
                if other == row:
                    continue
                m += 1
                margin = 0.0
                for i in range(d):
                    term = terms[i]
                    if term == 0:
                        t[i] = relevance[other]
                    elif term == 1:
                        t[i] = 1.0 if group[other] == group[row] else 0.0
                    else:
                        t[i] = 1.0 if group[other] == term - 2 else 0.0
                    margin += slope[i] * t[i]
                v = np.exp(margin)
                product[m] = 0.0
                change[m, :] = 0.0
                for size in range(m, 0, -1):
                    taken = size / m
                    for i in range(d):
                        gained = change[size - 1, i] + t[i] * product[size - 1]
                        change[size, i] = (1.0 - taken) * change[size, i] + taken * v * gained
                    product[size] = (1.0 - taken) * product[size] + taken * v * product[size - 1]
        else:
            product[:n] = 1.0
        total = 0.0
        for at in range(n):
            seen = examination[at]
            for i in range(d):
                if terms[i] == 2 + n_groups + group[row]:
                    seen *= np.exp(slope[i] * np.log1p(at))
            total += seen * product[at]
            gradient[number, place[at]] += seen * product[at]
            for i in range(d):
                if terms[i] == 2 + n_groups + group[row]:
                    gradient[number, k + i] += seen * product[at] * np.log1p(at)
                else:
                    gradient[number, k + i] += seen * change[at, i]
        mean[number] = total / n
        gradient[number] /= total
    return mean, gradient
