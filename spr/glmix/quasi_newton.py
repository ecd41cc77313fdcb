"""A penalised, bounded linear fit by L-BFGS-B: for more columns than a Hessian of all their pairs can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.glmix.design import ColumnStatistics, Design
    from spr.glmix.families import Family

    Floats = NDArray[np.float64]

_MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class Penalty:
    """What holds each coefficient: l1 |b| + l2/2 b^2 against the loss summed over rows, lower <= b <= upper.

    Parameters
    ----------
    l1, l2, lower, upper : float64 arrays of d
    """

    l1: Floats
    l2: Floats
    lower: Floats
    upper: Floats


def minimise(
    family: Family,
    design: Design,
    statistics: ColumnStatistics,
    labels: Floats,
    weights: Floats,
    rest: Floats,
    penalty: Penalty,
    line: Floats,
    curvature: float,
    tolerance: float,
) -> tuple[Floats, int]:
    """Minimise the penalised loss from `line`, the intercept before the coefficients.

    The search is over centred columns (none is made: the rows stay sparse) in units of their curvature, a
    coefficient under l1 as the difference of two that are not negative.

    Parameters
    ----------
    family, design, statistics, labels, weights, rest
        The rows that teach, `rest` their offset.
    penalty : Penalty
        Its l2 > 0 wherever a column is constant.
    line : float64 array of d + 1
    curvature : float
        The loss's second derivative, a mean over the rows; gives the units of the search.
    tolerance : float
        Of the gradient per unit of weight, in these units.

    Returns
    -------
    float64 array of d + 1, and the number of iterations
    """
    from scipy.optimize import minimize

    total, width = float(weights.sum()), design.shape[1]
    root, unit = np.sqrt(curvature), np.sqrt(curvature * statistics.sd**2 + penalty.l2 / total)
    mean, split = statistics.mean, bool(penalty.l1.any())
    l1, l2 = penalty.l1 / unit, penalty.l2 / unit**2
    lower, upper = penalty.lower * unit, penalty.upper * unit
    start = np.clip(line[1:] * unit, lower, upper)
    parts, limits = [start], [(lower, upper)]
    if split:
        parts = [np.maximum(start, 0.0), np.maximum(-start, 0.0)]
        limits = [
            (np.maximum(lower, 0.0), np.maximum(upper, 0.0)),
            (np.maximum(-upper, 0.0), np.maximum(-lower, 0.0)),
        ]

    def joined(point: Floats) -> Floats:
        return point[1 : 1 + width] - point[1 + width :] if split else point[1:]

    def objective(point: Floats) -> tuple[float, Floats]:
        scaled = joined(point)
        coefficients = scaled / unit
        margins = rest + design.dot(coefficients) + (point[0] / root - mean @ coefficients)
        slope, _ = family.derivatives(labels, margins, weights)
        value = family.mean_loss(labels, margins, weights) + 0.5 * float(l2 @ scaled**2) / total
        inner = ((design.transposed_dot(slope) - slope.sum() * mean) / unit + l2 * scaled) / total
        gradient = [inner]
        if split:
            value += float(l1 @ (point[1 : 1 + width] + point[1 + width :])) / total
            gradient = [inner + l1 / total, l1 / total - inner]
        return value, np.concatenate([[slope.sum() / (root * total)], *gradient])

    found: Any = cast("Any", minimize)(
        objective,
        np.concatenate([[root * (line[0] + mean @ line[1:])], *parts]),
        jac=True,
        method="L-BFGS-B",
        bounds=np.concatenate([[(-np.inf, np.inf)], *(np.column_stack(limit) for limit in limits)]),
        options={"maxiter": _MOST_ITERATIONS, "maxfun": 2 * _MOST_ITERATIONS, "gtol": tolerance, "ftol": 1e-15},
    )
    # a division may leave the box by a rounding
    coefficients = np.clip(joined(found.x) / unit, penalty.lower, penalty.upper)
    return np.concatenate([[found.x[0] / root - mean @ coefficients], coefficients]), int(found.nit)
