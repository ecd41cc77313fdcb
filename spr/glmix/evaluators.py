"""Evaluators by name: how good a mixed model is on rows, over all of them or entity by entity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.encoding import check_columns
from spr.glmix.families import Family
from spr.glmix.rows import finite_vector, numeric_vector, read_frame
from spr.metrics import GroupMean, auc, grouped_auc, log_loss, normalized_cross_entropy, precision_at_k
from spr.metrics.sums import check_finite, check_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from spr.glmix.estimator import GLMixClassifier, GLMixRegressor

    Floats = NDArray[np.float64]

ANY_FAMILY: Final = ("binomial", "gaussian", "poisson")
FAMILIES: Final = {
    "log_loss": ("binomial",),
    "normalized_cross_entropy": ("binomial",),
    "auc": ANY_FAMILY,
    "rmse": ANY_FAMILY,
    "poisson_loss": ("poisson",),
}
GROUPED: Final = re.compile(r"(?P<weighted>weighted_)?(?P<metric>auc|precision@(?P<k>[1-9]\d*)):(?P<group>.+)")
KNOWN: Final = (
    *FAMILIES,
    "auc:<column>",
    "weighted_auc:<column>",
    "precision@<k>:<column>",
    "weighted_precision@<k>:<column>",
)


@dataclass(frozen=True)
class Evaluator:
    """A metric of a mixed model's margins, as its name asks for it; see `named`.

    Parameters
    ----------
    name : str
        What it is called.
    larger_is_better : bool
    metric : str
        ``"log_loss"``, ``"normalized_cross_entropy"``, ``"auc"``, ``"rmse"``, ``"poisson_loss"`` or ``"precision"``.
    k : int, optional
        Places, for precision.
    group : str, optional
        The column of X that names each row's group; not given: over all rows.
    average : {"groups", "rows"}
        Mean over groups: all alike, or each by the weight of its rows.

    References
    ----------
    Photon-ML's GAME evaluators (AUC, RMSE, LOGISTIC_LOSS, POISSON_LOSS, ``AUC:<id>``, ``PRECISION@k:<id>``), whose
    means over groups are those of ``average="groups"``.
    """

    name: str
    larger_is_better: bool
    metric: str
    k: int | None = None
    group: str | None = None
    average: Literal["groups", "rows"] = "groups"

    @classmethod
    def named(cls, name: str) -> Evaluator:
        """Return the evaluator called `name`.

        ==============================  ==========================================================================
        ``log_loss``                    mean negative log-likelihood of 0/1 labels
        ``normalized_cross_entropy``    log loss over that of the rows' own base rate
        ``auc``                         a positive's chance to stand above a negative, over all rows
        ``rmse``                        root of the mean squared error of the expected response, in any family
        ``poisson_loss``                mean of exp(margin) - label * margin
        ``auc:<column>``                AUC within each value of the column, averaged; groups count alike
        ``precision@<k>:<column>``      share of positives in each group's top k, averaged; groups count alike
        ``weighted_<either>``           the same, each group weighted by its rows
        ==============================  ==========================================================================

        Raises
        ------
        InvalidModelInput
            An unknown name; the message lists those that are known.

        Examples
        --------
        >>> Evaluator.named("precision@5:user_id").k
        5
        >>> Evaluator.named("weighted_auc:user_id").average
        'rows'
        """
        if name in FAMILIES:
            return cls(name, larger_is_better=name == "auc", metric=name)
        found = GROUPED.fullmatch(name)
        if found is None:
            raise InvalidModelInput(name_unknown("evaluator", str(name), KNOWN))
        return cls(
            name,
            larger_is_better=True,
            metric=found["metric"].partition("@")[0],
            k=int(found["k"]) if found["k"] else None,
            group=found["group"],
            average="rows" if found["weighted"] else "groups",
        )

    def evaluate(
        self,
        label: ArrayLike,
        margin: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        family: str = "binomial",
    ) -> float:
        """Return the metric.

        Parameters
        ----------
        label, margin : array of n
        weight : array of n, optional
            Finite, >= 0; rows of weight 0 change nothing.
        groups : array of n, optional
            Each row's group, for evaluators that have one; see `group_mean`.
        family : {"binomial", "gaussian", "poisson"}
            What makes an expected response of the margin. Orders (AUC, precision) need none, but labels of 0 and 1.

        Returns
        -------
        float
            NaN where it is not defined: AUC and normalized cross entropy of rows with one label, or no group that
            has both.

        Raises
        ------
        InvalidModelInput
            A family that the metric is not of, groups that are asked for and not given, labels or weights that
            cannot be read.

        Examples
        --------
        >>> Evaluator.named("rmse").evaluate([1.0, 3.0], [1.0, 1.0], family="gaussian")
        1.4142135623730951
        """
        if self.group is not None:
            if groups is None:
                raise InvalidModelInput(f"evaluator {self.name!r} needs groups: the column {self.group!r}.")
            return self.group_mean(label, margin, groups, weight=weight).mean
        allowed = FAMILIES[self.metric]
        if family not in allowed:
            raise InvalidModelInput(
                f"evaluator {self.name!r} is of {' and '.join(allowed)} models, and this one is {family}; "
                f"of {family}: {', '.join(name for name, of in FAMILIES.items() if family in of) or 'none'}."
            )
        y = check_finite("label", label)
        margins, weights = check_finite("margin", margin, y), check_weights(weight, y)
        response = Family.named(family).response
        if self.metric == "auc":
            return auc(y, margins, weight=weights)
        if self.metric == "log_loss":
            return log_loss(y, response(margins), weight=weights)
        if self.metric == "normalized_cross_entropy":
            return normalized_cross_entropy(y, response(margins), weight=weights)
        if self.metric == "poisson_loss":
            Family.named(family).check_labels(y)
            return Family.named(family).mean_loss(y, margins, weights)
        return float(np.sqrt(np.average((y - response(margins)) ** 2, weights=weights)))

    def group_mean(
        self, label: ArrayLike, margin: ArrayLike, groups: ArrayLike, *, weight: ArrayLike | None = None
    ) -> GroupMean:
        """Return the mean over groups, with how many count and how many are left out.

        Parameters
        ----------
        label, margin, weight
            As in `evaluate`.
        groups : array of n
            Each row's group; a row without one (null) is left out, as a null key teaches an effect nothing.

        Returns
        -------
        GroupMean
            AUC leaves out groups with one label among the rows that weigh something. Precision leaves out only
            groups without weight. Tied margins count half in the AUC; in precision, by their chance of a place.

        Raises
        ------
        InvalidModelInput
            As in `evaluate`; no row has a group, or the evaluator has none.

        Examples
        --------
        >>> Evaluator.named("auc:user_id").group_mean([0, 1, 1], [0.1, 0.2, 0.3], ["a", "a", "b"])
        GroupMean(mean=1.0, groups=1, left_out=1)
        """
        if self.group is None:
            raise InvalidModelInput(f"evaluator {self.name!r} is over all rows; call evaluate.")
        y = check_finite("label", label)
        margins, weights = check_finite("margin", margin, y), check_weights(weight, y)
        names = pd.Series(np.asarray(groups), name="groups")
        if len(names) != len(y):
            raise InvalidModelInput(f"groups has {len(names)} entries for {len(y)} labels; allowed: one per row")
        known = names.notna().to_numpy()
        if not weights[known].any():
            raise InvalidModelInput(f"evaluator {self.name!r}: no row with a weight has a {self.group!r}.")
        y, margins, weights, group = y[known], margins[known], weights[known], names[known].to_numpy()
        if self.k is None:
            return grouped_auc(y, margins, group, weight=weights, average=self.average)
        return precision_at_k(y, margins, group, self.k, weight=weights, average=self.average)


def evaluate(
    model: GLMixClassifier | GLMixRegressor,
    X: pd.DataFrame,
    y: ArrayLike,
    metrics: str | Evaluator | Sequence[str | Evaluator],
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> pd.Series:
    """Evaluate a fitted model on rows.

    Parameters
    ----------
    model : GLMixClassifier or GLMixRegressor
        Fitted, best on other rows.
    X : DataFrame of n rows
        What the model reads, and the columns that the evaluators group by.
    y : array-like of n
    metrics : sequence of str or Evaluator
        See `Evaluator.named`.
    sample_weight, offset : array-like of n, optional
        As in fit.

    Returns
    -------
    Series of float
        Indexed by the evaluators' names; NaN where one is not defined. How many groups a mean leaves out says
        `Evaluator.group_mean`.

    Raises
    ------
    InvalidModelInput
        An unknown metric or column, or one that is not of the model's family; rows that cannot be read.
    NotFitted
        A model that is not fitted.

    Examples
    --------
    >>> from spr.glmix import GLMixClassifier, RandomEffect
    >>> X = pd.DataFrame({"user_id": np.repeat(np.arange(100), 4), "item_id": np.tile(np.arange(4), 100)})
    >>> y = (X["item_id"] == 3).to_numpy(dtype=float)
    >>> model = GLMixClassifier(random_effects=[RandomEffect("item", key="item_id")]).fit(X, y)
    >>> evaluate(model, X, y, ["auc", "precision@2:user_id"]).round(3).to_dict()
    {'auc': 1.0, 'precision@2:user_id': 0.5}
    """
    asked = [metrics] if isinstance(metrics, str | Evaluator) else metrics
    evaluators = [Evaluator.named(metric) if isinstance(metric, str) else metric for metric in asked]
    read_frame(X)
    groups = [groups_of(evaluator, X) for evaluator in evaluators]
    labels = numeric_vector(y, len(X), "y")
    weights = None if sample_weight is None else finite_vector(sample_weight, len(X), "sample_weight")
    margin = model.decision_function(X, offset)
    family = model._family().name
    found = {
        evaluator.name: evaluator.evaluate(labels, margin, weight=weights, groups=group, family=family)
        for evaluator, group in zip(evaluators, groups, strict=True)
    }
    return pd.Series(found, dtype=np.float64)


def groups_of(evaluator: Evaluator, X: pd.DataFrame) -> NDArray[np.generic] | None:
    """Return the column that an evaluator groups by, or None where it is over all rows."""
    if evaluator.group is None:
        return None
    check_columns(X, [evaluator.group], "column", f"evaluator {evaluator.name!r}")
    return np.asarray(X[evaluator.group])
