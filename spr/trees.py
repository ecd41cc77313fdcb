"""The fixed effect of the second pass: boosted trees over cohort features, with position as a margin of its own."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from spr.config import TreeSettings
    from spr.features import CohortFeatures
    from spr.glmix import GLMixClassifier, Trees
    from spr.glmix.fixed import FittedTrees


@dataclass(frozen=True)
class CohortTrees:
    """Fitted trees that read the matrix of :class:`spr.features.CohortFeatures`.

    Position stands in trees of its own (interaction constraints) in which the margin never rises with it, so that
    the fixed margin is f(cohort) + g(position) and g(0) = 0 when ranking.

    Parameters
    ----------
    fitted : FittedTrees
        Reads some of the matrix's columns.
    matrix_columns : tuple of str
        All of the matrix's columns.
    """

    fitted: FittedTrees
    matrix_columns: tuple[str, ...]

    def margin(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return ``margin_fixed``, float64[C], at the positions that stand in the matrix."""
        return self.fitted.margin(matrix if self._reads_all else matrix[:, self._index])

    def position_margin(self, n_positions: int) -> NDArray[np.float64]:
        """Return g(position): float64[n_positions], 0 at the reference and never rising.

        The trees are additive in position, so any row gives the same differences.
        """
        rows = np.full((n_positions, len(self.fitted.features)), np.nan, dtype=np.float32)
        rows[:, list(self.fitted.features).index("position")] = np.arange(n_positions)
        margin = self.fitted.margin(rows)
        return np.asarray(margin - margin[0])

    @cached_property
    def version(self) -> str:
        """First 12 hex digits of a hash of the trees."""
        content = bytes(self.fitted.booster.save_raw("ubj"))
        content += repr((self.fitted.features, self.fitted.intercept)).encode()
        return hashlib.sha256(content).hexdigest()[:12]

    @cached_property
    def _index(self) -> list[int]:
        column = {name: i for i, name in enumerate(self.matrix_columns)}
        return [column[name] for name in self.fitted.features]

    @cached_property
    def _reads_all(self) -> bool:
        return self._index == list(range(len(self.matrix_columns)))


def specify_trees(features: CohortFeatures, settings: TreeSettings, *, viewer_columns: bool, seed: int) -> Trees:
    """Return the trees to fit: monotone in expected responses, non-increasing and additive in position.

    Parameters
    ----------
    features : CohortFeatures
        Names the columns.
    settings : TreeSettings
        The boosting budget.
    viewer_columns : bool
        Whether the trees see columns that are constant within a viewer.
    seed : int
        Of the fit.
    """
    from spr.glmix import Trees

    columns = [c for c in features.columns if viewer_columns or not c.startswith("viewer.")]
    return Trees(
        features=columns,
        n_rounds=settings.n_rounds,
        max_depth=settings.max_depth,
        learning_rate=settings.learning_rate,
        min_child_weight=settings.min_child_weight,
        early_stopping_rounds=settings.early_stopping_rounds,
        monotone={**dict.fromkeys(features.response_columns, 1), "position": -1},
        interaction_constraints=[[c for c in columns if c != "position"], ["position"]],
        n_threads=settings.n_threads,
        seed=seed,
    )


def refit_on_all(model: GLMixClassifier, frame: pd.DataFrame, label: NDArray[np.float64]) -> GLMixClassifier:
    """Fit a model again without hold-outs, with the rounds and the shrinkage that its held-out rows chose.

    Parameters
    ----------
    model : GLMixClassifier
        Fitted with trees.
    frame : DataFrame of n rows
        The rows that it learnt from and those that were held out.
    label : float64[n]
        0 or 1.

    Returns
    -------
    GLMixClassifier
        With the correction for unseen viewers of the first fit: only held-out viewers could teach it.
    """
    from spr.glmix import FittedTrees, GLMixClassifier, Trees

    if not (isinstance(model.fixed, Trees) and isinstance(model.fixed_, FittedTrees)):
        raise TypeError("the model's fixed effect is not of trees")
    effects = [dataclasses.replace(effect, l2=model.learnt_l2(effect.name)) for effect in model.random_effects]
    rounds = max(1, model.fixed_.n_rounds)
    # As many rounds between the passes over the random effects as in the first fit: shorter blocks would make the
    # trees conditional on the effects earlier, and a worse answer for viewers who have none.
    sweeps = max(1, round(rounds * model.sweeps / model.fixed.n_rounds))
    final = GLMixClassifier(dataclasses.replace(model.fixed, n_rounds=rounds), effects, sweeps, seed=model.seed)
    final.fit(frame, label, groups=np.zeros(len(frame), dtype=np.int64))  # one group: nothing is held out
    final.model_ = dataclasses.replace(final.model_, unseen_correction=model.unseen_correction_)
    return final
