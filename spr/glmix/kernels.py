"""The compiled loops: one penalised Newton step per entity, margins by entity, hashes of rows.

Each loop has one signature (float32 rows, float64 everything else), so that each compiles once. A call takes
a range of entities and writes only to those entities' own places: threads share the ranges out between them, and
the result does not depend on how many there are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

from spr.glmix.families import GAUSSIAN, derivatives_at, third_derivative_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]
    Positions = NDArray[np.int64]

# A full Newton step cannot raise a logistic or Poisson loss while no row's margin moves by more than this:
# the root of exp(c) - c - 1 = c^2 (generalised self-concordance; Bach 2010, Proposition 1).
_SAFE_MOVE = 1.79
_COLLINEAR = 1e-10


@numba.njit(cache=True, nogil=True)
def _accumulate(
    family: int, rows: Rows, labels: Floats, weights: Floats, margins: Floats, gradient: Floats, hessian: Floats
) -> int:
    """Sum gradient and lower triangle of the Hessian over one entity's rows; count the rows that have weight."""
    d = rows.shape[1]
    gradient[:] = 0.0
    hessian[:] = 0.0
    used = 0
    for row in range(rows.shape[0]):
        weight = weights[row]
        if weight == 0.0:
            continue
        used += 1
        first, second = derivatives_at(family, labels[row], margins[row])
        first *= weight
        second *= weight
        for i in range(d):
            x = np.float64(rows[row, i])
            gradient[i] += first * x
            curvature = second * x
            for j in range(i + 1):
                hessian[i, j] += curvature * rows[row, j]
    return used


@numba.njit(cache=True, nogil=True)
def _factorise(matrix: Floats) -> None:
    """Cholesky factor in place (lower); a column that the earlier ones explain gets an infinite pivot."""
    d = matrix.shape[0]
    for i in range(d):
        diagonal = matrix[i, i]
        for j in range(i):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            value /= matrix[j, j]
            matrix[i, j] = value
        pivot = diagonal
        for k in range(i):
            pivot -= matrix[i, k] * matrix[i, k]
        # infinite: no step in that direction, the basic solution of a collinear problem
        matrix[i, i] = math.sqrt(pivot) if pivot > _COLLINEAR * diagonal else np.inf


@numba.njit(cache=True, nogil=True)
def _solve(factor: Floats, vector: Floats) -> None:
    d = vector.size
    for i in range(d):
        value = vector[i]
        for k in range(i):
            value -= factor[i, k] * vector[k]
        vector[i] = value / factor[i, i]
    for i in range(d - 1, -1, -1):
        value = vector[i]
        for k in range(i + 1, d):
            value -= factor[k, i] * vector[k]
        vector[i] = value / factor[i, i]


@numba.njit(cache=True, nogil=True)
def _invert(factor: Floats, inverse: Floats) -> None:
    """Lower triangle of the inverse of (factor factor^T), by way of the inverse of the factor."""
    d = factor.shape[0]
    for j in range(d):
        for i in range(j):
            factor[i, j] = 0.0
        factor[j, j] = 1.0 / factor[j, j]
        for i in range(j + 1, d):
            value = 0.0
            for k in range(j, i):
                value -= factor[i, k] * factor[k, j]
            factor[i, j] = value / factor[i, i]
    for i in range(d):
        for j in range(i + 1):
            value = 0.0
            for k in range(i, d):
                value += factor[k, i] * factor[k, j]
            inverse[i, j] = value


@numba.njit(cache=True, nogil=True)
def _skew(
    family: int, rows: Rows, weights: Floats, margins: Floats, inverse: Floats, gradient: Floats, shift: Floats
) -> None:
    """Fill `shift` with posterior mean minus mode, to first order: -V sum(third derivative * x (x' V x)) / 2."""
    d = rows.shape[1]
    gradient[:] = 0.0
    for row in range(rows.shape[0]):
        if weights[row] == 0.0:
            continue
        spread = 0.0
        for i in range(d):
            inner = 0.5 * inverse[i, i] * rows[row, i]
            for j in range(i):
                inner += inverse[i, j] * rows[row, j]
            spread += 2.0 * rows[row, i] * inner
        third = -0.5 * weights[row] * third_derivative_at(family, margins[row]) * spread
        for i in range(d):
            gradient[i] += third * rows[row, i]
    for i in range(d):
        shift[i] = 0.0
        for j in range(d):
            shift[i] += (inverse[i, j] if j <= i else inverse[j, i]) * gradient[j]


@numba.njit(cache=True, nogil=True)
def newton_step(
    family: int,
    rows: Rows,
    labels: Floats,
    weights: Floats,
    offset: Floats,
    starts: Positions,
    first: int,
    last: int,
    precision: Floats,
    learn: bool,
    coefficients: Floats,
    margins: Floats,
    evidence: Floats,
    coupling: Floats,
) -> None:
    """Take one damped Newton step for each entity in [first, last), in place.

    The objective of an entity is its weighted loss at `offset + rows @ b` plus precision/2 * b^2. An entity without
    a weighted row stays as it is, at 0. `learn` gathers what `shrinkage.updated_variance` needs. With
    S = I - sqrt(precision) H^-1 sqrt(precision), how far the data outweigh the prior:

    * `evidence[0]` gains b^2 + 2 b * (posterior mean - b), from entities with two weighted rows or more. The learnt
      variances are then those of the full Laplace approximation; b^2 alone would be penalised quasi-likelihood,
      which is biased low for 0/1 labels (Breslow and Lin 1995).
    * `evidence[1]` gains the diagonal of S, `coupling` the squares of its elements, from the same entities.
    * `evidence[2]` gains the diagonal of S from every entity: the effective number of parameters.
    """
    d = rows.shape[1]
    gradient = np.empty(d)
    hessian = np.empty((d, d))
    inverse = np.empty((d, d))
    shift = np.zeros(d)
    for key in range(first, last):
        start, end = starts[key], starts[key + 1]
        used = _accumulate(
            family,
            rows[start:end],
            labels[start:end],
            weights[start:end],
            offset[start:end] + margins[start:end],
            gradient,
            hessian,
        )
        if used == 0:
            continue
        for i in range(d):
            gradient[i] = -gradient[i] - precision[i] * coefficients[key, i]
            hessian[i, i] += precision[i]
        _factorise(hessian)
        _solve(hessian, gradient)
        largest = 0.0
        if family != GAUSSIAN:
            for row in range(start, end):
                if weights[row] > 0.0:
                    move = 0.0
                    for i in range(d):
                        move += rows[row, i] * gradient[i]
                    largest = max(largest, abs(move))
        damping = math.log1p(largest) / largest if largest > _SAFE_MOVE else 1.0
        for i in range(d):
            coefficients[key, i] += damping * gradient[i]
        for row in range(start, end):
            margin = 0.0
            for i in range(d):
                margin += rows[row, i] * coefficients[key, i]
            margins[row] = margin
        if not learn:
            continue
        _invert(hessian, inverse)
        if used > 1 and family != GAUSSIAN:
            _skew(
                family,
                rows[start:end],
                weights[start:end],
                offset[start:end] + margins[start:end],
                inverse,
                gradient,
                shift,
            )
        for i in range(d):
            share = 1.0 - precision[i] * inverse[i, i]
            evidence[2, i] += share
            if used > 1:
                evidence[0, i] += coefficients[key, i] * (coefficients[key, i] + 2.0 * shift[i])
                evidence[1, i] += share
                coupling[i, i] += share * share
                for j in range(i):
                    square = precision[i] * precision[j] * inverse[i, j] ** 2
                    coupling[i, j] += square
                    coupling[j, i] += square


@numba.njit(cache=True, nogil=True)
def posterior_variance(
    family: int,
    rows: Rows,
    labels: Floats,
    weights: Floats,
    margins: Floats,
    starts: Positions,
    first: int,
    last: int,
    precision: Floats,
    full: bool,
    variance: Floats,
) -> None:
    """Fill each entity's variances: the diagonal of H^-1 (`full`), or 1 / the diagonal of H."""
    d = rows.shape[1]
    gradient = np.empty(d)
    hessian = np.empty((d, d))
    inverse = np.empty((d, d))
    for key in range(first, last):
        start, end = starts[key], starts[key + 1]
        _accumulate(
            family,
            rows[start:end],
            labels[start:end],
            weights[start:end],
            margins[start:end],
            gradient,
            hessian,
        )
        for i in range(d):
            hessian[i, i] += precision[i]
            variance[key, i] = 1.0 / hessian[i, i] if hessian[i, i] > 0.0 else np.inf
        if full:
            _factorise(hessian)
            for i in range(d):
                gradient[i] = hessian[i, i]
            _invert(hessian, inverse)
            for i in range(d):
                variance[key, i] = inverse[i, i] if gradient[i] < np.inf else np.inf


@numba.njit(cache=True, nogil=True)
def line_sums(
    family: int, labels: Floats, weights: Floats, fixed: Floats, rest: Floats, intercept: float, slope: float
) -> Floats:
    """Sum the derivatives of the loss at rest + intercept + slope * fixed: two first, three second."""
    sums = np.zeros(5)
    for row in range(labels.size):
        x = fixed[row]
        first, second = derivatives_at(family, labels[row], rest[row] + intercept + slope * x)
        first *= weights[row]
        second *= weights[row]
        sums[0] += first
        sums[1] += first * x
        sums[2] += second
        sums[3] += second * x
        sums[4] += second * x * x
    return sums


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
        for i in range(bits.shape[1]):
            value = mixed(value + np.uint64(0x9E3779B97F4A7C15) + np.uint64(bits[row, i]))
        hashes[order[row]] = value
