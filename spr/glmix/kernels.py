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

from spr.glmix.families import GAUSSIAN, derivatives_at, expected_derivatives_at

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
    family: int,
    rows: Rows,
    labels: Floats,
    weights: Floats,
    margins: Floats,
    spreads: Floats,
    gradient: Floats,
    hessian: Floats,
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
        first, second = expected_derivatives_at(
            family, labels[row], margins[row], spreads[row] if spreads.size else 0.0
        )
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
def factorise(matrix: Floats) -> None:
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
def invert(factor: Floats, inverse: Floats) -> None:
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
def _add_prior(
    precision: Floats,
    own_mean: Floats,
    own_precision: Floats,
    coefficients: Floats,
    key: int,
    gradient: Floats,
    hessian: Floats,
) -> None:
    """Turn the gradient of the loss into minus the gradient of the objective, and add the prior to the Hessian."""
    d = precision.size
    if not own_mean.size:
        for i in range(d):
            gradient[i] = -gradient[i] - precision[i] * coefficients[key, i]
            hessian[i, i] += precision[i]
        return
    full = own_precision.shape[2] == d
    for i in range(d):
        pull = 0.0
        if full:
            for j in range(d):
                pull += own_precision[key, i, j] * (coefficients[key, j] - own_mean[key, j])
            for j in range(i + 1):
                hessian[i, j] += own_precision[key, i, j]
        else:
            pull = own_precision[key, i, 0] * (coefficients[key, i] - own_mean[key, i])
            hessian[i, i] += own_precision[key, i, 0]
        gradient[i] = -gradient[i] - pull


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
    own_mean: Floats,
    own_precision: Floats,
    learn: bool,
    coefficients: Floats,
    margins: Floats,
    spreads: Floats,
    own_spreads: Floats,
    evidence: Floats,
    coupling: Floats,
) -> None:
    """Take one damped Newton step for each entity in [first, last), in place.

    The objective of an entity is its weighted loss at `offset + rows @ b` plus precision/2 * b^2, or, where
    `own_mean` is not empty, plus (b - own mean)' own precision (b - own mean) / 2, own precision being a diagonal
    (K, d, 1) or whole (K, d, d). An entity without a weighted row stays as it is.

    With `spreads`, the variance of each row's margin that the posteriors of all effects leave, the loss is its
    expectation: a Gaussian variational approximation (Ormerod and Wand 2012) in which effects are independent given
    the data. The effect's own share of `spreads` is renewed, in `spreads` and in `own_spreads`.

    `learn` gathers what `shrinkage.updated_variance` needs. With S = I - sqrt(precision) V sqrt(precision), V the
    posterior covariance, how far the data outweigh the prior:

    * `evidence[0]` gains b^2, from entities with two weighted rows or more.
    * `evidence[1]` gains the diagonal of S, `coupling` the squares of its elements, from the same entities.
    * `evidence[2]` gains the diagonal of S from every entity: the effective number of parameters.
    """
    d = rows.shape[1]
    gradient = np.empty(d)
    hessian = np.empty((d, d))
    inverse = np.empty((d, d))
    longest = 0
    for key in range(first, last):
        longest = max(longest, starts[key + 1] - starts[key])
    moves = np.empty(longest)
    no_spread = spreads[:0]
    for key in range(first, last):
        start, end = starts[key], starts[key + 1]
        used = _accumulate(
            family,
            rows[start:end],
            labels[start:end],
            weights[start:end],
            offset[start:end] + margins[start:end],
            spreads[start:end] if spreads.size else no_spread,
            gradient,
            hessian,
        )
        if used == 0:
            continue
        _add_prior(precision, own_mean, own_precision, coefficients, key, gradient, hessian)
        factorise(hessian)
        _solve(hessian, gradient)
        largest = 0.0
        for row in range(start, end):
            move = 0.0
            for i in range(d):
                move += rows[row, i] * gradient[i]
            moves[row - start] = move
            if weights[row] > 0.0:
                largest = max(largest, abs(move))
        damped = family != GAUSSIAN and largest > _SAFE_MOVE
        damping = math.log1p(largest) / largest if damped else 1.0
        for i in range(d):
            coefficients[key, i] += damping * gradient[i]
        for row in range(start, end):
            margins[row] += damping * moves[row - start]
        if not learn:
            continue
        invert(hessian, inverse)
        if spreads.size:
            for row in range(start, end):
                spread = 0.0
                for i in range(d):
                    inner = 0.5 * inverse[i, i] * rows[row, i]
                    for j in range(i):
                        inner += inverse[i, j] * rows[row, j]
                    spread += 2.0 * rows[row, i] * inner
                spreads[row] += spread - own_spreads[row]
                own_spreads[row] = spread
        for i in range(d):
            share = 1.0 - precision[i] * inverse[i, i]
            evidence[2, i] += share
            if used > 1:
                evidence[0, i] += coefficients[key, i] ** 2
                evidence[1, i] += share
                coupling[i, i] += share * share
                for j in range(i):
                    square = precision[i] * precision[j] * inverse[i, j] ** 2
                    coupling[i, j] += square
                    coupling[j, i] += square


@numba.njit(cache=True, nogil=True)
def posterior_covariance(
    family: int,
    rows: Rows,
    labels: Floats,
    weights: Floats,
    margins: Floats,
    starts: Positions,
    first: int,
    last: int,
    precision: Floats,
    own_mean: Floats,
    own_precision: Floats,
    coefficients: Floats,
    covariance: Floats,
) -> None:
    """Fill each entity's covariance: the inverse of the Hessian (K, d, d), or of its diagonal alone (K, d, 1)."""
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
            margins[:0],
            gradient,
            hessian,
        )
        _add_prior(precision, own_mean, own_precision, coefficients, key, gradient, hessian)
        if covariance.shape[2] == 1:
            for i in range(d):
                covariance[key, i, 0] = 1.0 / hessian[i, i] if hessian[i, i] > 0.0 else np.inf
            continue
        factorise(hessian)
        for i in range(d):
            gradient[i] = hessian[i, i]
        invert(hessian, inverse)
        for i in range(d):
            for j in range(i + 1):
                covariance[key, i, j] = covariance[key, j, i] = inverse[i, j]
            if not gradient[i] < np.inf:
                covariance[key, i, i] = np.inf


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
