"""Moves between coordinates that leave every margin as it is and lower the penalty.

Where a fixed coefficient is confounded with the mean of random ones (an intercept and random intercepts, the age of a
viewer and the viewers' intercepts), descent by coordinates creeps along the valley that they share: of the way left, a
sweep goes the share that the penalty has in the entity's Hessian. Here the whole way is gone at once, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spr.glmix.coefficients import INTERCEPT
from spr.glmix.row_kernels import values_within

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    from spr.glmix.effect_descent import EffectDescent
    from spr.glmix.linear import LinearDescent

    Floats = NDArray[np.float64]


class Centring:
    """Moves a random effect's means into a linear fixed effect.

    Two kinds of fixed columns can take something over: one that is also a column of the random effect takes the mean
    of its coefficients, and one that is constant within each entity takes its part of the intercepts.

    Parameters
    ----------
    fixed : LinearDescent
    rows : float32 array or sparse matrix of (n, p)
        The fixed effect's matrix, NaN where null. Of sparse rows only shared columns are moved.
    effect : EffectDescent
    """

    def __init__(self, fixed: LinearDescent, rows: NDArray[np.float32] | csc_matrix, effect: EffectDescent) -> None:
        self._fixed, self._effect = fixed, effect
        self._shared = [
            (fixed.names.index(column), effect.columns.index(column))
            for column in effect.encoding.names
            if column in fixed.names
        ]
        within: list[tuple[int, Floats]] = []
        if effect.spec.intercept and isinstance(rows, np.ndarray):
            taken = {place for place, _ in self._shared}
            for place in range(len(fixed.names)):
                constant, values = values_within(rows, place, effect.order, effect.starts)
                if constant and place not in taken and len(values) and np.ptp(values) > 0:
                    within.append((place, values))
        self._places = [place for place, _ in within]
        self._values = np.column_stack([values for _, values in within]) if within else np.zeros((len(effect.keys), 0))

    def move(self, total: Floats, dispersion: float) -> None:
        """Minimise the penalties of both over what can be moved between them; `total` stays as it is."""
        fixed, effect = self._fixed, self._effect
        if effect.dropped or effect.remembers or not effect.seen.any():
            return
        penalty = np.maximum(effect.precision(dispersion), 1e-12)  # without penalties the mean is as good as any
        ridge = fixed.ridge()
        deltas, intercept = np.zeros(len(fixed.names)), 0.0
        moves: list[tuple[int, Floats]] = []
        for place, column in self._shared:
            own = effect.coefficients[effect.seen, column]
            count = penalty[column] * own.size + ridge[place]
            deltas[place] = (penalty[column] * own.sum() - ridge[place] * fixed.coefficients[place]) / count
            moves.append((column, np.where(effect.seen, -deltas[place], 0.0)))
        if effect.spec.intercept:
            column = effect.columns.index(INTERCEPT)
            design = np.column_stack([np.ones(len(effect.keys)), self._values])
            seen = design[effect.seen]
            free = np.diag([0.0, *ridge[self._places]]) + 1e-9 * len(seen) * np.eye(design.shape[1])
            pull = penalty[column] * seen.T @ effect.coefficients[effect.seen, column]
            pull[1:] -= ridge[self._places] * fixed.coefficients[self._places]
            found = np.linalg.solve(penalty[column] * seen.T @ seen + free, pull)
            intercept = float(found[0])
            deltas[self._places] += found[1:]
            moves.append((column, np.where(effect.seen, -(design @ found), 0.0)))
        before = fixed.margin
        fixed.shift(deltas, intercept)
        total += fixed.margin - before
        for column, shift in moves:
            effect.move(column, shift, total)
