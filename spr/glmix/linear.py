"""How a linear fixed effect is fitted while random effects move: glum, warm-started at each new offset."""

from __future__ import annotations

import functools
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.design import Design
from spr.glmix.families import BINOMIAL, GAUSSIAN
from spr.glmix.fixed import FittedLinear, Linear
from spr.glmix.quasi_newton import Penalty, minimise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    from spr.glmix.design import ColumnStatistics
    from spr.glmix.families import Family

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]

_TOLERANCE = 1e-7  # of the gradient per row, as a share of the labels' spread: far below a standard error
_LEAST_RIDGE = 1e-6  # as a share of the curvature: keeps collinear columns and separable labels finite
_MOST_COLUMNS = 2048  # glum holds a Hessian of all pairs of columns
_MOST_ITERATIONS = 50
_MOST_RESTARTS = 10
_QUIET = threading.Lock()


class LinearDescent:
    """A linear fixed effect, refitted at each new offset from where the last fit ended.

    Up to 2,048 columns by glum's iteratively reweighted least squares, beyond by L-BFGS-B.

    Parameters
    ----------
    spec : Linear
    names : sequence of str
        The columns of `rows`.
    rows : float32 array or sparse matrix of (n, d)
        Null counts as 0.
    family : Family
    intercept : float
        Where to start from, without `start`.
    start : FittedLinear, optional
        A fitted model to start at: its intercept and its coefficients, found by name.

    Attributes
    ----------
    margin : float64 array of n
        Of all rows, also of those that do not teach; never changed in place.
    iterations : int
        What the last `advance` took.

    Raises
    ------
    InvalidModelInput
        Bounds of a column that there is not, or a start whose names are others than `names`.

    Examples
    --------
    >>> from spr.glmix.families import Family
    >>> rows = np.arange(6, dtype=np.float32)[:, None]
    >>> descent = LinearDescent(Linear(["x"], l2=0.0), ["x"], rows, Family.named("gaussian"), 0.0)
    >>> descent.advance(2.0 * rows[:, 0] + 1.0, np.ones(6), np.zeros(6))
    ''
    >>> descent.shift_intercept(0.5)
    >>> fitted = descent.fitted()
    >>> round(fitted.intercept, 4), fitted.coefficients.round(4).tolist()
    (1.5, [2.0])
    """

    def __init__(
        self,
        spec: Linear,
        names: Sequence[str],
        rows: Rows | csc_matrix,
        family: Family,
        intercept: float,
        start: FittedLinear | None = None,
    ) -> None:
        self._spec, self._names, self._family = spec, tuple(names), family
        self._lower, self._upper = _limits(spec.bounds, spec.features, self._names)
        self._bounded = bool(np.isfinite(self._lower).any() or np.isfinite(self._upper).any())
        self._design = Design(rows)
        self._line = np.concatenate([[intercept], np.zeros(len(self._names))])
        if start is not None:
            self._line = np.concatenate([[start.intercept], _matched(start, self._names)])
        self._line[1:] = np.clip(self._line[1:], self._lower, self._upper)
        self._taught: Design | None = None
        self._weights = self._positive = np.zeros(0)
        self._used = np.zeros(0, dtype=bool)
        self._matrix: Any = None
        self._unit = np.ones(len(self._names))  # of the columns of the matrix
        self.margin: Floats = self._design.dot(self._line[1:]) + self._line[0]
        self.iterations = 0

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:
        """Refit at `rest` (offset and random effects); return what was decided."""
        self._choose_rows(weights)
        labels, rest, weights = labels[self._used], rest[self._used], self._positive
        with _one_thread():  # BLAS and OpenMP loops spin far longer than they work on thousands of rows
            if self._has_no_slope(labels):
                self._keep_to_intercept(labels, weights, rest)
            else:
                self._refit(labels, weights, rest)
            self.margin = self._design.dot(self._line[1:]) + self._line[0]
        return ""

    def finish(self) -> str:
        """Do nothing: a linear effect has no budget."""
        return ""

    def shift_intercept(self, delta: float) -> None:
        """Add `delta` to the intercept, and to the margin of every row."""
        self._line[0] += delta
        self.margin = self.margin + delta

    @property
    def margin_for_effects(self) -> Floats:
        """What random effects are fitted at: the margin."""
        margin: Floats = self.margin
        return margin

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return self._names

    @property
    def coefficients(self) -> Floats:
        """The coefficients as they stand, in the units of the features."""
        return np.asarray(self._line[1:])

    @property
    def shifts(self) -> bool:
        """Whether coefficients may take something over from random effects: not under an L1 penalty or bounds."""
        return not self._spec.l1 and not self._bounded

    def ridge(self) -> Floats:
        """Return the L2 penalty of each coefficient in the units of the features."""
        if self._taught is None:
            return np.full(len(self._names), self._spec.l2)
        scale = _scale(self._spec.normalization, self._statistics)
        return np.asarray(self._spec.l2 * scale**2)

    def shift(self, deltas: Floats, intercept: float) -> None:
        """Add to the coefficients and to the intercept."""
        self._line = self._line + np.concatenate([[intercept], deltas])
        self.margin = self._design.dot(self._line[1:]) + self._line[0]

    def fitted(self) -> FittedLinear:
        """Return the coefficients as they stand, in the units of the features."""
        return FittedLinear(self._names, float(self._line[0]), self._line[1:].copy())

    def _choose_rows(self, weights: Floats) -> None:
        """Take the rows that teach and their statistics, unless they are those of the last call."""
        if self._taught is not None and np.array_equal(weights, self._weights):
            return
        self._weights, used = weights.copy(), weights > 0
        moved = self._taught is None or not np.array_equal(used, self._used)
        if self._taught is None or moved:
            self._used, self._taught = used, self._design.take(used)
        self._positive = weights[used]
        self._statistics = self._taught.statistics(self._positive)
        if len(self._names) > _MOST_COLUMNS:
            return
        if self._bounded:
            # glum 3.4 holds the start, in standard deviations, against the bounds, in raw units: make these the same
            self._unit = np.where(self._statistics.sd > 0, self._statistics.sd, 1.0)
            self._matrix = self._taught.divided(self._unit).for_glum()
        elif moved:
            self._matrix = self._taught.for_glum()

    def _has_no_slope(self, labels: Floats) -> bool:
        """Tell whether only the intercept can be learnt: constant columns, or labels without a finite optimum."""
        if not self._statistics.sd.any():
            return True
        low, high = float(labels.min()), float(labels.max())
        return low == high and (self._family.code == BINOMIAL or (self._family.code != GAUSSIAN and high == 0.0))

    def _keep_to_intercept(self, labels: Floats, weights: Floats, rest: Floats) -> None:
        assert self._taught is not None  # noqa: S101 - for mypy: set by _choose_rows
        self._line[1:] = np.clip(0.0, self._lower, self._upper)
        self._line[0] = self._family.intercept(labels, weights, rest + self._taught.dot(self._line[1:]))
        self.iterations = 0

    def _refit(self, labels: Floats, weights: Floats, rest: Floats) -> None:
        assert self._taught is not None  # noqa: S101 - for mypy: set by _choose_rows
        total = float(weights.sum())
        mean = float(labels @ weights) / total
        spread = curvature = mean * (1.0 - mean) if self._family.code == BINOMIAL else mean
        if self._family.code == GAUSSIAN:
            residual = labels - rest
            curvature, spread = 1.0, float(weights @ (residual - weights @ residual / total) ** 2) / total
        tolerance = _TOLERANCE * max(float(np.sqrt(spread)), 1e-12)
        penalty = self._penalty(total * curvature)
        if self._matrix is not None:
            line = self._fit_glum(labels, weights, rest, penalty, tolerance)
            if line is not None:
                self._line = line
                return
        self._line, self.iterations = minimise(
            self._family,
            self._taught,
            self._statistics,
            labels,
            weights,
            rest,
            penalty,
            self._line,
            curvature,
            10 * tolerance / float(np.sqrt(curvature)),
        )

    def _penalty(self, curvature: float) -> Penalty:
        """Return the penalty on coefficients in raw units.

        The coefficient of x / scale is scale times that of x, and with an intercept that is free it makes no
        difference whether x is centred: a normalisation is a penalty of its own for each column.
        """
        scale = _scale(self._spec.normalization, self._statistics)
        ridge = _LEAST_RIDGE * curvature * np.where(self._statistics.sd > 0, self._statistics.sd, 1.0) ** 2
        l2 = np.maximum(self._spec.l2 * scale**2, ridge)
        return Penalty(self._spec.l1 * scale, l2, self._lower, self._upper)

    def _fit_glum(
        self, labels: Floats, weights: Floats, rest: Floats, penalty: Penalty, tolerance: float
    ) -> Floats | None:
        """Return the line that glum finds; None where its Hessian or its numbers fail."""
        from glum import GeneralizedLinearRegressor

        total, width, unit = float(weights.sum()), len(self._names), self._unit
        filler = np.zeros(self._matrix.shape[1] - width)  # see Design.for_glum
        ratio = 0.5 if self._spec.l1 > 0 else 0.0
        line = np.concatenate([self._line[:1], self._line[1:] * unit, filler])
        self.iterations = 0
        glum = GeneralizedLinearRegressor(
            family="normal" if self._family.code == GAUSSIAN else self._family.name,
            alpha=1.0,  # glum averages the loss over rows, we sum it
            l1_ratio=ratio,
            P1=np.concatenate([penalty.l1 / unit, filler]) / (total * ratio) if ratio else None,
            P2=np.concatenate([penalty.l2 / unit**2, filler + total]) / (total * (1.0 - ratio)),
            lower_bounds=np.concatenate([self._lower * unit, filler - np.inf]) if self._bounded else None,
            upper_bounds=np.concatenate([self._upper * unit, filler + np.inf]) if self._bounded else None,
            gradient_tol=tolerance,
            max_iter=_MOST_ITERATIONS,
            check_input=False,
            force_all_finite=False,
        )
        # the filters of warnings are one for all threads, which would undo each other's
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at most "not converged": the next sweep goes on from there
            for _ in range(_MOST_RESTARTS):
                try:
                    glum.set_params(start_params=line).fit(self._matrix, labels, sample_weight=weights, offset=rest)
                except (np.linalg.LinAlgError, ValueError):
                    return None
                before, line = line, np.concatenate([[glum.intercept_], glum.coef_])
                self.iterations += int(glum.n_iter_)
                # glum gives a gaussian family one pass, over the columns that looked active at its start
                if self._family.code != GAUSSIAN or not (ratio or self._bounded) or glum.n_iter_ == 0:
                    break
                if np.allclose(line[1:], before[1:], rtol=1e-9, atol=0.0):
                    break
        line = np.concatenate([line[:1], line[1 : 1 + width] / unit])
        for edge in (self._lower, self._upper):  # undoing glum's scaling leaves a bound by a rounding
            line[1:] = np.where(np.isclose(line[1:], edge, rtol=1e-12, atol=0.0), edge, line[1:])
        line[1:] = np.clip(line[1:], self._lower, self._upper)
        return line if np.isfinite(line).all() else None


def _scale(normalization: str | None, statistics: ColumnStatistics) -> Floats:
    """Return what each column is divided by; 1 where that would be 0."""
    if normalization is None:
        return np.ones(statistics.sd.size)
    found = statistics.magnitude if normalization == "max_magnitude" else statistics.sd
    return np.where(found > 0, found, 1.0)


def _limits(
    bounds: Mapping[str, tuple[float, float]], features: Sequence[str], names: tuple[str, ...]
) -> tuple[Floats, Floats]:
    """Return the lower and upper bound of each matrix column; a level's own come before its column's."""
    lower, upper = np.full(len(names), -np.inf), np.full(len(names), np.inf)
    place = {name: position for position, name in enumerate(names)}
    known = set(features)
    for exact in (False, True):
        for name, (low, high) in bounds.items():
            if exact and name in place:
                lower[place[name]], upper[place[name]] = low, high
            elif not exact and name not in place:
                levels = [position for position, column in enumerate(names) if column.startswith(f"{name}=")]
                if not levels and name not in known:
                    raise InvalidModelInput(name_unknown("feature", name, names, where="the bounds of Linear"))
                lower[levels], upper[levels] = low, high
    return lower, upper


def _matched(start: FittedLinear, names: tuple[str, ...]) -> Floats:
    """Return the coefficients of `start` in the order of `names`."""
    given = dict(zip(start.features, start.coefficients.tolist(), strict=True))
    for name in names:
        if name not in given:
            raise InvalidModelInput(name_unknown("feature", name, given, where="the model to start from"))
    for name in given.keys() - set(names):
        raise InvalidModelInput(
            f"the model to start from has a coefficient of {name!r}, which is no feature of this one; "
            "start from a model of the same features."
        )
    return np.array([given[name] for name in names], dtype=np.float64)


@functools.cache
def _pools() -> Any:
    import glum  # noqa: F401 - loads the libraries whose threads are meant
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _one_thread() -> Any:
    return _pools().limit(limits=1)
