"""Compiled loops over rows: sorting by entity, margins, bounds per entity, hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]
    Positions = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def sort_by_code(codes: Positions, n_codes: int) -> tuple[Positions, Positions]:
    """Return the rows in order of their code, those of code -1 left out, and where each code's rows start."""
    starts = np.zeros(n_codes + 1, dtype=np.int64)
    for row in range(codes.size):
        if codes[row] >= 0:
            starts[codes[row] + 1] += 1
    for code in range(n_codes):
        starts[code + 1] += starts[code]
    place = starts[:-1].copy()
    order = np.empty(starts[n_codes], dtype=np.int64)
    for row in range(codes.size):
        code = codes[row]
        if code >= 0:
            order[place[code]] = row
            place[code] += 1
    return order, starts


@numba.njit(cache=True, nogil=True)
def zero_nulls(rows: Rows) -> None:
    """Put 0 in place of NaN."""
    for row in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            if rows[row, i] != rows[row, i]:
                rows[row, i] = 0.0


@numba.njit(cache=True, nogil=True)
def count_active(weights: Floats, starts: Positions) -> Positions:
    """Return how many rows of each entity have a positive weight."""
    counts = np.zeros(starts.size - 1, dtype=np.int64)
    for key in range(starts.size - 1):
        for row in range(starts[key], starts[key + 1]):
            counts[key] += weights[row] > 0.0
    return counts


@numba.njit(cache=True, nogil=True)
def mean_squares(rows: Rows, weights: Floats) -> Floats:
    """Return the mean square of each column over its non-zero values in rows with a positive weight."""
    d = rows.shape[1]
    sums, counts = np.zeros(d), np.zeros(d)
    for row in range(rows.shape[0]):
        if weights[row] > 0.0:
            for i in range(d):
                x = np.float64(rows[row, i])
                sums[i] += x * x
                counts[i] += x != 0.0
    return sums / np.maximum(counts, 1.0)


@numba.njit(cache=True, nogil=True)
def values_within(rows: Rows, column: int, order: Positions, starts: Positions) -> tuple[bool, Floats]:
    """Return whether a column (null = 0) is constant within each entity, and its value in each."""
    values = np.zeros(starts.size - 1)
    for key in range(starts.size - 1):
        for row in range(starts[key], starts[key + 1]):
            found = np.float64(rows[order[row], column])
            value = found if found == found else 0.0
            if row == starts[key]:
                values[key] = value
            elif value != values[key]:
                return False, values
    return True, values


@numba.njit(cache=True, nogil=True)
def active_shares(
    weights: Floats, hashes: NDArray[np.uint64], starts: Positions, smallest: int, largest: int
) -> Floats:
    """Return what each row's weight is multiplied by so that an entity has at most `largest` active rows.

    The kept rows are those with the smallest hashes (a reservoir that no order of rows changes); their weights grow
    by n / kept. Entities with fewer than `smallest` rows keep none.
    """
    shares = np.zeros(weights.size)
    for key in range(starts.size - 1):
        start, end = starts[key], starts[key + 1]
        active = start + np.flatnonzero(weights[start:end] > 0.0)
        if active.size < smallest:
            continue
        if active.size <= largest:
            shares[start:end] = 1.0
            continue
        kept = active[np.argsort(hashes[active])[:largest]]
        shares[kept] = active.size / largest
    return shares


@numba.njit(cache=True, nogil=True)
def cap_features(rows: Rows, weights: Floats, starts: Positions, n_features: int, most: int) -> None:
    """Keep each entity's `most` features with the most non-zero rows of positive weight; put 0 in the others."""
    for key in range(starts.size - 1):
        start, end = starts[key], starts[key + 1]
        support = np.zeros(n_features, dtype=np.int64)
        for row in range(start, end):
            if weights[row] > 0.0:
                for i in range(n_features):
                    support[i] += rows[row, i] != 0.0
        # the earlier column first where supports tie
        ranked = np.argsort(-support * n_features + np.arange(n_features))
        for i in ranked[most:]:
            for row in range(start, end):
                rows[row, i] = 0.0


@numba.njit(cache=True, nogil=True)
def entity_margins(rows: Rows, coefficients: Rows, positions: Positions, intercept: bool) -> Floats:
    """Return rows[i] . coefficients[positions[i]] (+ its last column where `intercept`); 0 at position -1."""
    out = np.zeros(rows.shape[0])
    d = rows.shape[1]
    for row in range(rows.shape[0]):
        key = positions[row]
        if key < 0:
            continue
        total = np.float64(coefficients[key, d]) if intercept else 0.0
        for i in range(d):
            value = rows[row, i]
            if value == value:  # NaN counts as 0
                total += value * np.float64(coefficients[key, i])
        out[row] = total
    return out


@numba.vectorize(["uint64(uint64)"], cache=True)
def mixed(value: np.uint64) -> np.uint64:
    """Return well-spread hashes of 64-bit integers: the finaliser of splitmix64 (Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def fold_rows(hashes: NDArray[np.uint64], bits: NDArray[np.uint32], order: Positions) -> None:
    """Fold the values `bits[i]` of a row into `hashes[order[i]]`, in place."""
    for row in range(bits.shape[0]):
        value = hashes[order[row]]
        for i in range(bits.shape[1]):  # one multiplication a value; the whole row is mixed well at its end
            value = (value ^ np.uint64(bits[row, i])) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(29)
        hashes[order[row]] = mixed(value + np.uint64(bits.shape[1]))


@numba.njit(cache=True, nogil=True)
def gather(values: Floats, order: Positions, less: Floats, first: int, last: int, out: Floats) -> None:
    """Put values[order] - less into out, from row `first` to `last`."""
    for row in range(first, last):
        out[row] = values[order[row]] - less[row]


@numba.njit(cache=True, nogil=True)
def scatter(values: Floats, more: Floats, order: Positions, first: int, last: int, out: Floats) -> None:
    """Put values + more into out[order], from row `first` to `last`."""
    for row in range(first, last):
        out[order[row]] = values[row] + more[row]
