"""How trees are fitted while random effects move: boosting in blocks of rounds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.families import BINOMIAL, GAUSSIAN, POISSON
from spr.glmix.fixed import FittedTrees, Trees
from spr.glmix.holdout import unit_interval
from spr.glmix.row_kernels import mixed
from spr.glmix.shrinkage import fit_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spr.glmix.encoding import Encoding
    from spr.glmix.families import Family

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]
    Positions = NDArray[np.int64]

_CHUNK = 1 << 18  # rows gathered at a time on their way into XGBoost's bins: no second matrix is ever whole
_BLOCK = 1 << 13  # rows whose derivatives are taken at a time: they stay in the processor's cache
_FOLD_SALT = 0xF01D
_LARGEST_LOG_MEAN = np.float32(30.0)
_LEAST_CURVATURE = np.float32(1e-16)  # as in XGBoost


class TreesDescent:
    """Boosting in blocks of rounds, stopped by the loss on rows of groups that teach nothing.

    The gradients are our own, at offset + random effects + trees, handed to `Booster.boost`: a base margin that is
    set on a matrix already in training is ignored by XGBoost without a word. Rows that neither teach nor are watched
    stay out of the training matrix, and are asked about at the end of a block only.

    Parameters
    ----------
    spec : Trees
    encoding : Encoding
    rows : float32 array of (n, d)
    rows_hash : uint64 array of n
        Draws the rows of each round, where `spec.subsample` < 1.
    watch : float64 array of n
        The weight of the rows of held-out groups, 0 elsewhere.
    intercept : float
        Not used where `start` is given: that one has its own.
    family : Family
    n_blocks : int
        Blocks that share the boosting budget.
    groups : uint64 array of n, optional
        The hash of each row's entity: the folds of `spec.out_of_fold` keep entities whole. Each row is its own by
        default.
    start : FittedTrees, optional
        Trees to go on from: they are kept, and the boosting budget is spent on top. Without a call of `advance` they
        are the answer, no training matrix having been made.

    Attributes
    ----------
    margin : float64 array of n
        Of the trees that will be served. A new array whenever it changes.
    margin_for_effects : float64 array of n
        What random effects are to be fitted at: `margin`, but with `spec.out_of_fold` the rows that teach have the
        margin of trees that saw no row of their group (on top of `start`, which saw what it saw).
    intercept : float

    Raises
    ------
    InvalidModelInput
        Constraints on unknown columns, or a `start` that reads other columns.
    """

    def __init__(
        self,
        spec: Trees,
        encoding: Encoding,
        rows: Rows,
        rows_hash: NDArray[np.uint64],
        watch: Floats,
        intercept: float,
        family: Family,
        n_blocks: int,
        *,
        groups: NDArray[np.uint64] | None = None,
        start: FittedTrees | None = None,
    ) -> None:
        if start is not None and start.features != encoding.names:
            raise InvalidModelInput(
                f"Trees: the trees to start from read {list(start.features)}, these rows hold {list(encoding.names)}; "
                "fit anew, or give the same features."
            )
        self.intercept = intercept if start is None else start.intercept
        self._given = np.zeros(len(rows)) if start is None else start.margin(rows) - start.intercept
        self.margin = self._given + self.intercept
        self.margin_for_effects = self.margin
        self._spec, self._names, self._family = spec, encoding.names, family
        self._rows, self._hash, self._groups = rows, rows_hash, rows_hash if groups is None else groups
        self._watched = np.flatnonzero(watch)
        self._watched_weights = watch[self._watched]
        self._block, self._budget = -(-spec.n_rounds // n_blocks), spec.n_rounds
        self._parameters = _parameters(spec, encoding, family)
        self._start = start
        self._main: _Boosting | None = None
        self._folds: list[_Boosting] = []
        self._rounds = self._best_rounds = self._start_rounds = 0 if start is None else start.n_rounds
        self._best_margin = self.margin[self._watched]
        self._best_trees: Rows | None = None
        self._line = (0.0, 1.0)
        self._over = False

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:
        """Boost one block at `rest` (offset and random effects); return what was decided.

        A block that stops early goes back to its best round. The next one may go on from there, the random effects
        having taken up some of the noise; boosting is over when a block finds no better round at all.

        Parameters
        ----------
        labels, weights, rest : float64 arrays of n
            The rows that teach are those with a weight. The first call settles which: a later one may leave some of
            them out, and add none.

        Raises
        ------
        InvalidModelInput
            A row has a weight that had none when boosting began.
        """
        if self._over or not self._budget:
            return ""
        note = self._begin(weights)
        main = self._main
        assert main is not None  # noqa: S101 - for mypy: _begin has made it
        watched, places = self._watched, np.searchsorted(main.inside, self._watched)
        watched_labels, watched_rest = labels[watched], rest[watched]
        floor = self._given[watched] + self.intercept - main.origin[places]
        boost = main.block(self._family, labels, weights, rest + self._given + self.intercept, self._drawn)
        # the random effects have moved since: the best round's loss is measured anew
        best = np.inf
        if watched.size and self._rounds:
            best = self._watched_loss(self._best_margin, watched_labels, watched_rest)
        before, decision = self._best_rounds, ""
        for spent in range(1, min(self._block, self._budget) + 1):
            boost(self._rounds)
            self._rounds += 1
            self._budget -= 1
            if not watched.size:
                self._best_rounds = self._rounds
                continue
            margin = main.trees[places] + floor
            loss = self._watched_loss(margin, watched_labels, watched_rest)
            if loss < best:
                best, self._best_rounds = loss, self._rounds
                self._best_margin, self._best_trees = margin, main.trees
            elif self._rounds - self._best_rounds >= self._spec.early_stopping_rounds:
                self._over = self._best_rounds == before
                self._go_back()
                decision = f"stopped after {spent} rounds, kept {self._rounds}"
                break
        self._settle()
        for fold in self._folds:
            # a fold's margin lacks what `start` gave: its own trees are all it has, on top of that
            boost = fold.block(self._family, labels, weights, rest + self._given + self.intercept, self._drawn)
            while fold.rounds < self._rounds - self._start_rounds:
                boost(self._start_rounds + fold.rounds)
        self._settle_folds()
        decision = decision or f"{self._rounds} rounds"
        return f"{decision}; {note}" if note else decision

    def finish(self) -> str:
        """Go back to the best round and boost no more; return what was decided."""
        self._over = True
        if self._go_back():
            self._settle()
            self._settle_folds()
        return f"kept {self._rounds} rounds"

    def shift_intercept(self, delta: float) -> None:
        """Add `delta` to the intercept, hence to every margin."""
        same = self.margin_for_effects is self.margin
        self.intercept += delta
        self.margin = self.margin + delta
        self.margin_for_effects = self.margin if same else self.margin_for_effects + delta
        self._best_margin = self._best_margin + delta

    def fitted(self) -> FittedTrees:
        """Return the trees up to the last round that was kept."""
        if self._main is not None:
            booster = self._main.copy(self._rounds)  # a copy: the trained one holds on to the training matrix
        elif self._start is not None:
            booster = self._start.booster.copy()
        else:
            empty = _Boosting(self._parameters, self._rows, np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
            booster = empty.copy(0)
        booster.set_param({"nthread": self._spec.n_threads})
        return FittedTrees(self._names, self.intercept, booster)

    def _begin(self, weights: Floats) -> str:
        """Make the training matrices at the first call; return what is worth a note."""
        teaching = weights > 0
        if self._main is not None:
            added = teaching.copy()
            added[self._main.inside] = False
            if added.any():
                raise InvalidModelInput(
                    f"Trees: {int(added.sum())} rows have a weight that had none when boosting began; "
                    "begin again with start=fitted()."
                )
            return ""
        inside = teaching.copy()
        inside[self._watched] = True
        start = None if self._start is None else self._start.booster
        self._main = _Boosting(
            self._parameters, self._rows, np.flatnonzero(inside), np.flatnonzero(~inside), start, self._hash
        )
        if not self._spec.out_of_fold:
            return ""
        draws = unit_interval(mixed(self._groups + mixed(np.uint64(self._spec.seed + _FOLD_SALT))))
        fold_of = np.floor(draws * self._spec.out_of_fold).astype(np.int64)
        if np.unique(fold_of[teaching]).size < 2:
            return "no out-of-fold margins: the rows that teach are in one fold"
        for fold in np.unique(fold_of[teaching]):
            inside, asked = teaching & (fold_of != fold), teaching & (fold_of == fold)
            self._folds.append(
                _Boosting(self._parameters, self._rows, np.flatnonzero(inside), np.flatnonzero(asked), None, self._hash)
            )
        return f"out-of-fold margins of {len(self._folds)} folds"

    def _go_back(self) -> bool:
        if self._main is None or self._best_rounds >= self._rounds:
            return False
        self._rounds = self._best_rounds
        self._main.cut(self._rounds, self._best_trees)
        return True

    def _settle(self) -> None:
        assert self._main is not None  # noqa: S101 - for mypy: boosting has begun
        self.margin = self._given + self.intercept
        self._main.add_to(self.margin)
        self.margin_for_effects = self.margin

    def _settle_folds(self) -> None:
        if not self._folds:
            return
        self.margin_for_effects = self.margin.copy()
        for fold in self._folds:
            fold.cut(self._rounds - self._start_rounds, None)
            self.margin_for_effects[fold.asked] = self._given[fold.asked] + self.intercept + fold.answers()

    def _watched_loss(self, margin: Floats, labels: Floats, rest: Floats) -> float:
        weights = self._watched_weights
        self._line = fit_line(self._family, labels, weights, margin, rest, self._line)
        return self._family.mean_loss(labels, rest + self._line[0] + self._line[1] * margin, weights)

    def _drawn(self, weights: Rows, hashes: NDArray[np.uint64], number: int) -> Rows:
        if self._spec.subsample == 1.0:
            return weights
        salt = mixed(np.uint64(self._spec.seed * 1_000_003 + number + 1))
        return weights * (unit_interval(mixed(hashes + salt)) < self._spec.subsample)


class _Boosting:
    """A booster in training, the rows of its matrix, and other rows that it is asked about now and then.

    Trees that it starts from need not split where the matrix's bins do: what XGBoost makes of them on the matrix
    (`origin`) is taken off, and their true margin is the caller's to add.
    """

    def __init__(
        self,
        parameters: dict[str, Any],
        rows: Rows,
        inside: Positions,
        asked: Positions,
        start: Any = None,
        hashes: NDArray[np.uint64] | None = None,
    ) -> None:
        import xgboost

        threads = parameters["nthread"]
        self.inside, self.asked, self.rounds = inside, asked, 0
        self._parameters = parameters
        self._hashes = np.zeros(0, dtype=np.uint64) if hashes is None else hashes[inside]
        self._data = _quantised(rows, inside, None, threads)
        self._asked_data = _quantised(rows, asked, self._data, threads) if asked.size else None
        matrices = [self._data] if self._asked_data is None else [self._data, self._asked_data]
        self._booster = xgboost.Booster(parameters, matrices, model_file=start)
        self.origin: Rows = np.zeros(inside.size, dtype=np.float32)
        self._asked_origin: Rows = np.zeros(asked.size, dtype=np.float32)
        if start is not None:
            self.rounds = int(start.num_boosted_rounds())
            self.origin = self._booster.predict(self._data, output_margin=True)
            if self._asked_data is not None:
                self._asked_origin = self._booster.predict(self._asked_data, output_margin=True)
        self.trees: Rows = self.origin

    def block(
        self,
        family: Family,
        labels: Floats,
        weights: Floats,
        base: Floats,
        drawn: Callable[[Rows, NDArray[np.uint64], int], Rows],
    ) -> Callable[[int], None]:
        """Return what boosts one round (its number given) of a block, through which labels, weights, base stand."""
        inside, everything = self.inside, self.inside.size == labels.size
        outcomes, all_weights, constant = (
            (values if everything else values[inside]).astype(np.float32) for values in (labels, weights, base)
        )
        constant -= self.origin
        margins, gradient, hessian = (np.empty(inside.size, dtype=np.float32) for _ in range(3))

        def boost(number: int) -> None:
            np.add(constant, self.trees, out=margins)
            derivatives_into(family, outcomes, margins, drawn(all_weights, self._hashes, number), gradient, hessian)
            self._booster.boost(self._data, number, grad=gradient, hess=hessian)
            self.trees = self._booster.predict(self._data, output_margin=True)  # from XGBoost's own cache
            self.rounds += 1

        return boost

    def cut(self, rounds: int, trees: Rows | None) -> None:
        """Go back to the first `rounds` rounds, whose margins on the matrix are `trees` (None: compute them)."""
        if rounds >= self.rounds:
            return
        self._booster, self.rounds = self.copy(rounds), rounds
        self._booster.set_param(self._parameters)
        self.trees = self._booster.predict(self._data, output_margin=True) if trees is None else trees

    def copy(self, rounds: int) -> Any:
        """Return a booster of the first `rounds` rounds that knows of no matrix."""
        import xgboost

        if rounds:
            return self._booster[:rounds]
        empty = xgboost.Booster(self._parameters, [self._data])  # a slice of none would be one of all
        return empty.copy()

    def add_to(self, margin: Floats) -> None:
        """Add the new trees to the margins of all rows that it knows."""
        margin[self.inside] += self.trees - self.origin
        if self.asked.size:
            margin[self.asked] += self.answers()

    def answers(self) -> Rows:
        """Return the new trees' margins of the rows that it is asked about."""
        if self._asked_data is None or not self.rounds:
            return np.zeros(self.asked.size, dtype=np.float32)
        answers: Rows = self._booster.predict(self._asked_data, output_margin=True)
        return answers - self._asked_origin


def derivatives_into(family: Family, labels: Rows, margins: Rows, weights: Rows, gradient: Rows, hessian: Rows) -> None:
    """Write weight times the first and second derivative of each row's loss, in float32.

    As `Family.derivatives`, but in numpy's vectorised single precision, and with XGBoost's floor under the curvature
    of a logistic loss.

    Examples
    --------
    >>> from spr.glmix.families import Family
    >>> one = np.ones(1, dtype=np.float32)
    >>> gradient, hessian = np.empty_like(one), np.empty_like(one)
    >>> derivatives_into(Family.named("binomial"), one, 0 * one, 2 * one, gradient, hessian)
    >>> gradient.tolist(), hessian.tolist()
    ([-1.0], [0.5])
    """
    for first in range(0, labels.size, _BLOCK):
        part = slice(first, first + _BLOCK)
        out, curvature, margin, weight = gradient[part], hessian[part], margins[part], weights[part]
        if family.code == GAUSSIAN:
            np.subtract(margin, labels[part], out=out)
            curvature[:] = weight
        elif family.code == POISSON:
            np.exp(np.minimum(margin, _LARGEST_LOG_MEAN), out=out)
            np.multiply(out, weight, out=curvature)
            out -= labels[part]
        else:
            assert family.code == BINOMIAL  # noqa: S101 - a fourth family would need derivatives of its own
            np.negative(margin, out=out)
            np.minimum(out, np.float32(88.0), out=out)  # exp of more overflows
            np.exp(out, out=out)
            out += np.float32(1.0)
            np.reciprocal(out, out=out)
            np.subtract(np.float32(1.0), out, out=curvature)
            curvature *= out
            np.maximum(curvature, _LEAST_CURVATURE, out=curvature)
            curvature *= weight
            out -= labels[part]
        out *= weight


def _quantised(rows: Rows, places: Positions, reference: Any, n_threads: int) -> Any:
    """Return the bins of some rows (those of `reference`, where given) without a copy of the rows."""
    import xgboost

    if places.size == len(rows):
        return xgboost.QuantileDMatrix(rows, ref=reference, nthread=n_threads)

    class Chunks(xgboost.DataIter):  # type: ignore[misc]  # xgboost has no types
        def __init__(self) -> None:
            self.first = 0
            super().__init__()

        def next(self, input_data: Callable[..., None]) -> bool:
            if self.first >= places.size:
                return False
            input_data(data=rows[places[self.first : self.first + _CHUNK]])
            self.first += _CHUNK
            return True

        def reset(self) -> None:
            self.first = 0

    return xgboost.QuantileDMatrix(Chunks(), ref=reference, nthread=n_threads)


def _parameters(spec: Trees, encoding: Encoding, family: Family) -> dict[str, Any]:
    unknown = set(spec.monotone) - set(encoding.columns)
    for group in spec.interaction_constraints or ():
        unknown |= set(group) - set(encoding.columns)
    for name in sorted(unknown):
        raise InvalidModelInput(name_unknown("feature", name, encoding.columns, where="the constraints of Trees"))
    for name in spec.monotone:
        if name in encoding.levels:
            raise InvalidModelInput(f"Trees: monotone[{name!r}]: the column holds strings, which have no order.")
    place = {name: position for position, name in enumerate(encoding.names)}
    parameters: dict[str, Any] = {
        "tree_method": "hist",
        "base_score": 0.0,
        "nthread": spec.n_threads,
        "seed": spec.seed,
        "max_depth": spec.max_depth,
        "learning_rate": spec.learning_rate,
        "min_child_weight": spec.min_child_weight,
        "colsample_bytree": spec.colsample,
        "reg_lambda": spec.l2,
    }
    if family.code == POISSON:
        parameters["max_delta_step"] = 0.7  # XGBoost's own default for counts: a Newton leaf can overshoot
    if spec.monotone:
        directions = [str(spec.monotone.get(name, 0)) for name in encoding.names]
        parameters["monotone_constraints"] = f"({','.join(directions)})"
    if spec.interaction_constraints is not None:
        groups = [
            [name for column in group for name in encoding.names_of(column)] for group in spec.interaction_constraints
        ]
        parameters["interaction_constraints"] = json.dumps([[place[name] for name in group] for group in groups])
    return parameters
