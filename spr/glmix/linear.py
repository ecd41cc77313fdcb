"""How a linear fixed effect is fitted while random effects move: glum, refitted at each new offset."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from spr.glmix.families import GAUSSIAN
from spr.glmix.fixed import FittedLinear, Linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spr.glmix.families import Family

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]


class LinearDescent:
    """A linear fixed effect, refitted by glum at each new offset.

    Parameters
    ----------
    spec : Linear
    names : sequence of str
        The columns of `rows`.
    rows : float32 array of (n, d)
    family : Family
    intercept : float
    """

    def __init__(self, spec: Linear, names: Sequence[str], rows: Rows, family: Family, intercept: float) -> None:
        self._spec, self._names, self._family = spec, tuple(names), family
        self._rows = np.nan_to_num(rows).astype(np.float64, order="F")
        self._line = np.concatenate([[intercept], np.zeros(rows.shape[1])])
        self.margin = np.full(len(rows), intercept)

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:
        """Refit at `rest` (offset and random effects); return what was decided."""
        from glum import GeneralizedLinearRegressor

        used = weights > 0
        total = float(weights[used].sum())
        penalty = self._spec.l1 + self._spec.l2
        if not self._names or not np.ptp(self._rows[used], axis=0).any():
            # glum needs a column that varies; without one the penalised optimum is the intercept alone
            self._line[0] = self._family.intercept(labels[used], weights[used], rest[used])
            self.margin = np.full(len(rest), self._line[0])
            return ""
        glum = GeneralizedLinearRegressor(
            family="normal" if self._family.code == GAUSSIAN else self._family.name,
            # glum averages the loss over rows, we sum it; the trace of a ridge keeps collinear columns finite
            alpha=max(penalty, 1e-8 * total) / total,
            l1_ratio=self._spec.l1 / penalty if penalty > 0 else 0.0,
            gradient_tol=1e-8,
            max_iter=200,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at most "not converged" to 1e-8: the next sweep goes on from there
            glum.fit(self._rows[used], labels[used], sample_weight=weights[used], offset=rest[used])
        self._line = np.concatenate([[glum.intercept_], glum.coef_])
        self.margin = self._rows @ self._line[1:] + self._line[0]
        return ""

    def finish(self) -> str:
        """Do nothing: a linear effect has no budget."""
        return ""

    def fitted(self) -> FittedLinear:
        """Return the coefficients as they stand."""
        return FittedLinear(self._names, float(self._line[0]), self._line[1:].copy())
