"""How a linear fixed effect is fitted while random effects move: glum, refitted at each new offset."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from spr.glmix.families import BINOMIAL, GAUSSIAN
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
        if len(self._names) < 2:  # glum 3.4 cannot start from a given coefficient of a single column
            self._rows = np.column_stack([self._rows, np.zeros((len(rows), 2 - len(self._names)))])
        self._line = np.concatenate([[intercept], np.zeros(self._rows.shape[1])])
        self.margin = np.full(len(rows), intercept)

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:
        """Refit at `rest` (offset and random effects); return what was decided."""
        from glum import GeneralizedLinearRegressor
        from threadpoolctl import threadpool_limits

        used = weights > 0
        total = float(weights[used].sum())
        penalty = self._spec.l1 + self._spec.l2
        labels, rest = labels[used], rest[used]
        if (self._family.code == BINOMIAL and np.ptp(labels) == 0) or not np.ptp(self._rows[used], axis=0).any():
            # one label has no finite optimum, and constant columns none but the intercept: keep to that
            self._line[:] = 0.0
            self._line[0] = self._family.intercept(labels, weights[used], rest)
            self.margin = np.full(len(weights), self._line[0])
            return ""
        glum = GeneralizedLinearRegressor(
            family="normal" if self._family.code == GAUSSIAN else self._family.name,
            # glum averages the loss over rows, we sum it; the trace of a ridge keeps collinear columns finite
            alpha=max(penalty, 1e-6 * total) / total,
            l1_ratio=self._spec.l1 / penalty if penalty > 0 else 0.0,
            start_params=self._line,
            gradient_tol=1e-7,
            max_iter=25,
        )
        # one thread: glum's OpenMP loops spin 20 x longer than they work on thousands of rows
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # at most "not converged": the next sweep goes on from there
            glum.fit(self._rows[used], labels, sample_weight=weights[used], offset=rest)
        self._line = np.concatenate([[glum.intercept_], glum.coef_])
        self.margin = self._rows @ self._line[1:] + self._line[0]
        return ""

    def shift_intercept(self, delta: float) -> None:
        """Add `delta` to the intercept and to the margin."""
        self._line[0] += delta
        self.margin = self.margin + delta

    @property
    def shifts(self):
        return not self._spec.l1
    @property
    def names(self):
        return self._names
    @property
    def l2(self):
        return self._spec.l2
    @property
    def coefficients(self):
        return self._line[1:1+len(self._names)]
    def shift(self, deltas, intercept):
        self._line[0] += intercept
        self._line[1:1+len(self._names)] += deltas
        self.margin = self._rows @ self._line[1:] + self._line[0]

    def finish(self) -> str:
        """Do nothing: a linear effect has no budget."""
        return ""

    def fitted(self) -> FittedLinear:
        """Return the coefficients as they stand."""
        return FittedLinear(self._names, float(self._line[0]), self._line[1 : 1 + len(self._names)].copy())
