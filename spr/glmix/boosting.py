"""How trees are fitted while random effects move: boosting in blocks of rounds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.families import POISSON
from spr.glmix.fixed import FittedTrees, Trees
from spr.glmix.holdout import unit_interval
from spr.glmix.row_kernels import mixed
from spr.glmix.shrinkage import fit_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.glmix.encoding import Encoding
    from spr.glmix.families import Family

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]


class TreesDescent:
    """Boosting in blocks of rounds, stopped by the loss on rows of groups that teach nothing.

    The gradients are our own, at offset + random effects + trees, handed to `Booster.boost`: a base margin that is
    set on a matrix already in training is ignored by XGBoost without a word.

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
    n_blocks : int
        Blocks that share the boosting budget.
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
    ) -> None:
        import xgboost

        self.margin = np.full(len(rows), intercept)
        self._spec, self._names, self._hash = spec, encoding.names, rows_hash
        self._intercept, self._family = intercept, family
        self._watched = np.flatnonzero(watch)
        self._watched_weights = watch[self._watched]
        self._block, self._budget = -(-spec.n_rounds // n_blocks), spec.n_rounds
        # the base margin is 0 and the intercept ours: nothing then depends on whether a base score is added
        self._data = xgboost.QuantileDMatrix(
            rows, base_margin=np.zeros(len(rows), dtype=np.float32), nthread=spec.n_threads
        )
        self._parameters = _parameters(spec, encoding, family)
        self._booster = xgboost.Booster(self._parameters, [self._data])
        self._rounds = self._best_rounds = 0
        self._best_margin = self.margin[self._watched]
        self._line = (0.0, 1.0)
        self._over = False

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:
        """Boost one block at `rest` (offset and random effects); return what was decided.

        A block that stops early goes back to its best round. The next one may go on from there, the random effects
        having taken up some of the noise; boosting is over when a block finds no better round at all.
        """
        if self._over or not self._budget:
            return ""
        watched = self._watched
        # the random effects have moved since: the best round's loss is measured anew
        best = self._watched_loss(self._best_margin, labels, rest) if watched.size and self._rounds else np.inf
        before = self._best_rounds
        for spent in range(1, min(self._block, self._budget) + 1):
            gradient, hessian = self._family.derivatives(labels, rest + self.margin, self._drawn(weights))
            self._booster.boost(self._data, self._rounds, grad=gradient, hess=hessian)
            self._rounds += 1
            self._budget -= 1
            trees = self._booster.predict(self._data, output_margin=True)  # from XGBoost's own cache
            self.margin = trees.astype(np.float64) + self._intercept
            loss = self._watched_loss(self.margin[watched], labels, rest) if watched.size else -np.inf
            if loss < best or not watched.size:
                best, self._best_rounds, self._best_margin = loss, self._rounds, self.margin[watched]
            elif self._rounds - self._best_rounds >= self._spec.early_stopping_rounds:
                self._over = self._best_rounds == before
                self._go_back()
                return f"stopped after {spent} rounds, kept {self._rounds}"
        return f"{self._rounds} rounds"

    def _go_back(self) -> None:
        if self._best_rounds < self._rounds:
            self._booster = self._booster[: self._best_rounds]
            self._booster.set_param(self._parameters)
            self._rounds = self._best_rounds
            trees = self._booster.predict(self._data, output_margin=True)
            self.margin = trees.astype(np.float64) + self._intercept

    def shift_intercept(self, delta: float) -> None:
        """Add `delta` to the intercept and to the margin."""
        self._intercept += delta
        self.margin = self.margin + delta
        self._best_margin = self._best_margin + delta

    def finish(self) -> str:
        """Go back to the best round and boost no more; return what was decided."""
        self._over = True
        self._go_back()
        return f"kept {self._rounds} rounds"

    def fitted(self) -> FittedTrees:
        """Return the trees up to the best round."""
        booster = self._booster[: self._rounds]  # a copy: the trained one holds on to the training matrix
        booster.set_param({"nthread": self._spec.n_threads})
        return FittedTrees(self._names, self._intercept, booster)

    def _watched_loss(self, margin: Floats, labels: Floats, rest: Floats) -> float:
        watched, weights = self._watched, self._watched_weights
        labels, rest = labels[watched], rest[watched]
        self._line = fit_line(self._family, labels, weights, margin, rest, self._line)
        return self._family.mean_loss(labels, rest + self._line[0] + self._line[1] * margin, weights)

    def _drawn(self, weights: Floats) -> Floats:
        if self._spec.subsample == 1.0:
            return weights
        salt = mixed(np.uint64(self._spec.seed * 1_000_003 + self._rounds + 1))
        return weights * (unit_interval(mixed(self._hash + salt)) < self._spec.subsample)


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
