"""The estimators: `GLMixClassifier` and `GLMixRegressor`, scikit-learn's conventions over a DataFrame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from spr.errors import InvalidModelInput, NotFitted, name_unknown
from spr.glmix.centring import Centring
from spr.glmix.coordinates import encode_fixed, grow_leaves, remember, start_effects, start_fixed
from spr.glmix.descent import Descent
from spr.glmix.families import GAUSSIAN, Family
from spr.glmix.judges import hash_groups, hash_rows, hold_out_rows
from spr.glmix.linear import LinearDescent
from spr.glmix.model import FIXED, MixedModel, join_leaves
from spr.glmix.parameters import check_coordinates, check_parameters
from spr.glmix.random_effects import LEAVES
from spr.glmix.rows import downsample, finite_vector, gather_rows
from spr.glmix.summary import ablation_table, describe
from spr.glmix.warm import note_cold_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from spr.glmix.coefficients import Coefficients
    from spr.glmix.descent import SweepRecord
    from spr.glmix.encoding import Encoding
    from spr.glmix.fixed import FittedLinear, FittedTrees, Linear, Trees
    from spr.glmix.leaves import LeafEncoding
    from spr.glmix.random_effects import RandomEffect

    Floats = NDArray[np.float64]


class _GLMix(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor share."""

    def __init__(
        self,
        fixed: Trees | Linear | None = None,
        random_effects: Sequence[RandomEffect] = (),
        sweeps: int = 4,
        variance: Literal["diagonal", "full"] | None = None,
        time: str | None = None,
        negative_share: float = 1.0,
        update_order: Sequence[str] | None = None,
        tolerance: float = 1e-6,
        seed: int = 0,
        n_threads: int = 1,
    ) -> None:
        self.fixed = fixed
        self.random_effects = random_effects
        self.sweeps = sweeps
        self.variance = variance
        self.time = time
        self.negative_share = negative_share
        self.update_order = update_order
        self.tolerance = tolerance
        self.seed = seed
        self.n_threads = n_threads

    def fit(
        self,
        X: pd.DataFrame,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        offset: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        validation: tuple[Any, ...] | None = None,
        *,
        start: _GLMix | MixedModel | None = None,
        locked: Sequence[str] = (),
        forgetting: float | None = None,
        progress: Callable[[SweepRecord], None] | None = None,
    ) -> Any:
        """Fit by block coordinate descent.

        Parameters
        ----------
        X : DataFrame or Arrow table of n rows
            The features, key columns and time that the specs name; other columns are left alone. The order of
            its rows does not matter.
        y : array-like of n
            Labels within the family's support.
        sample_weight : array-like of n, optional
            Finite, >= 0; a weight of 2 is the row twice, of 0 not at all.
        offset : array-like of n, optional
            A margin that is given, in the units of `decision_function`.
        groups : array-like of n, optional
            What is held out whole to stop the boosting: strings or integers. Default: the first random effect's key.
        validation : tuple (X, y[, sample_weight[, offset]]), optional
            Rows that judge and never teach: in place of the held-out rows, and of the held-out groups where
            some of its groups are not in X. The last sweeps go back to the one that they like best.
        start : fitted estimator or MixedModel, optional
            Warm start: coordinates of the same names start from its coefficients and keep its columns and levels;
            entities that have no row here keep theirs.
        locked : sequence of str, default ()
            Coordinates of `start` ("fixed", names of random effects) that stay as they are: partial retraining.
        forgetting : float in (0, 1], optional
            Incremental training: the posterior of each of `start`'s random effects (fitted with `variance`) is the
            prior of its entities, with this share of its precision kept; 1 forgets nothing.
        progress : callable, optional
            Called with each `SweepRecord` as it is made.

        Returns
        -------
        self

        Raises
        ------
        InvalidModelInput
            Rows, labels, weights, columns or coordinates that cannot be used; the message names them.
        """
        note_cold_cache()
        family = self._family()
        check_parameters(self)
        origin = start.model_ if isinstance(start, _GLMix) else start
        order = check_coordinates(self, origin, locked, forgetting)
        frame, labels, weights, offsets, taught = gather_rows(X, y, sample_weight, offset, validation)
        family.check_labels(labels)
        n_given = int(taught.sum())
        if not (weights[taught] > 0).any():
            raise InvalidModelInput("sample_weight: no row has a positive weight; there is nothing to learn from.")
        kept = np.ones(len(frame), dtype=bool)
        if self.negative_share < 1.0:
            kept, weights = downsample(frame, labels, weights, taught, self.negative_share, family, self.seed)
            frame, labels, weights = frame[kept], labels[kept], weights[kept]
            offsets, taught = offsets[kept], taught[kept]
            groups = None if groups is None else np.asarray(groups)[kept[:n_given]]
        n_taught = int(taught.sum())

        encoding, rows = encode_fixed(self, frame, n_taught, origin, locked)
        leaves = None if origin is None else origin.leaves
        if any(spec.features == LEAVES for spec in self.random_effects):
            teaching = np.where(taught, weights, 0.0)
            leaves = leaves or grow_leaves(frame, encoding, labels, teaching, offsets, family, self.seed)
            frame = join_leaves(frame, leaves, encoding)  # type: ignore[arg-type]  # the leaves were grown over it
        effects = start_effects(self, frame, n_taught, leaves, origin)
        chooses = (self.fixed is not None and FIXED not in locked) or any(
            effect.spec.l2 is None and effect.spec.name not in locked for effect in effects
        )
        rows_hash = group_hash = np.zeros(len(frame), dtype=np.uint64)
        if chooses or validation is not None or any(effect.spec.max_rows is not None for effect in effects):
            rows_hash = hash_rows(rows, effects, offsets, self.seed)
            group_hash = hash_groups(groups, effects, rows_hash, n_taught, self.seed)
        for effect in effects:
            effect.bound(np.where(taught, weights, 0.0), rows_hash)
        if forgetting is not None and origin is not None:
            remember(effects, origin, forgetting)
        hold_out = hold_out_rows(frame, group_hash, rows_hash, weights > 0, taught, self.time, chooses=chooses)
        fixed = start_fixed(
            self, family, encoding, rows, rows_hash, group_hash, labels, weights, offsets, hold_out, origin, locked
        )
        descent = Descent(
            family,
            labels,
            weights,
            offsets,
            fixed,
            effects,
            hold_out,
            taught,
            group_hash,
            self.sweeps,
            self.tolerance,
            order,
            frozenset(locked),
            rows_hash,
            self.n_threads,
            origin.dispersion if origin is not None and forgetting is not None else None,
            progress,
            {
                effect.spec.name: Centring(fixed, rows, effect)
                for effect in effects
                if isinstance(fixed, LinearDescent) and fixed.shifts and effect.spec.parent is None
            },
        )
        descent.run(chooses=chooses)
        self._keep(descent, encoding, leaves, origin, locked)
        self.held_out_groups_ = np.zeros(n_given, dtype=bool)
        self.held_out_groups_[kept[:n_given]] = hold_out.groups[:n_taught]
        self.n_features_in_ = X.shape[1]
        return self

    def _keep(
        self,
        descent: Descent,
        encoding: Encoding | None,
        leaves: LeafEncoding | None,
        origin: MixedModel | None,
        locked: Sequence[str],
    ) -> None:
        """Set the attributes of a finished fit."""
        self.prior_variance_: dict[str, dict[str, float]] = {}
        self.prediction_scale_: dict[str, float] = {}
        self._learnt_l2: dict[str, dict[str, float]] = {}
        fitted: dict[str, Coefficients] = {}
        in_force: dict[str, dict[str, float]] = {}
        for effect in descent.effects:
            name = effect.spec.name
            if name in locked and origin is not None:
                fitted[name], in_force[name] = origin.effects[name], dict(origin.prior_variance[name])
                self._learnt_l2[name] = {
                    column: descent.dispersion / value if value > 0 else np.inf
                    for column, value in in_force[name].items()
                }
                continue
            fitted[name] = effect.fitted(descent.family, descent.total, descent.dispersion, self.variance)
            self._learnt_l2[name] = effect.learnt_l2(descent.dispersion)
            in_force[name] = {
                column: descent.dispersion / penalty if 0 < penalty < np.inf else 0.0
                for column, penalty in self._learnt_l2[name].items()
            }
            if effect.learns:
                self.prior_variance_[name] = dict(zip(effect.columns, effect.variance.tolist(), strict=True))
                self.prediction_scale_[name] = effect.scale
        corrected = origin is not None and descent.unseen_correction == (0.0, 1.0)
        self.model_ = MixedModel(
            family=descent.family,
            fixed=None if descent.fixed is None else descent.fixed.fitted(),
            encoding=encoding if descent.fixed is not None else None,
            effects=fitted,
            encodings={effect.spec.name: effect.encoding for effect in descent.effects},
            prior_variance=in_force,
            unseen_correction=origin.unseen_correction if corrected and origin else descent.unseen_correction,
            dispersion=descent.dispersion,
            leaves=leaves,
        )
        self.history_ = pd.DataFrame([vars(record) for record in descent.history])
        self.ablation_ = ablation_table(descent.ablation)
        if descent.family.code == GAUSSIAN:
            self.residual_variance_ = descent.dispersion

    @property
    def fixed_(self) -> FittedTrees | FittedLinear | None:
        """The fitted fixed effect."""
        return self._fitted().fixed

    @property
    def random_effects_(self) -> dict[str, Coefficients]:
        """The fitted coefficients by random effect."""
        return dict(self._fitted().effects)

    @property
    def unseen_correction_(self) -> tuple[float, float]:
        """Intercept and slope of the fixed margin where the first key is unseen."""
        return self._fitted().unseen_correction

    def margins(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the margin's parts, which sum to it.

        Parameters
        ----------
        X : DataFrame or Arrow table of n rows

        Returns
        -------
        DataFrame of n rows, indexed as X
            ``fixed``, one column per random effect (exactly 0 at an unseen or null key), and ``unseen``: the
            correction of the fixed margin where the first random effect's key is unseen or null, else 0.
        """
        return self._fitted().margins(X)

    def decision_function(self, X: pd.DataFrame, offset: ArrayLike | None = None) -> Floats:
        """Return the margin of each row: the sum of `margins`, plus `offset` where one is given."""
        total = self.margins(X).sum(axis=1).to_numpy(dtype=np.float64)
        return total if offset is None else total + finite_vector(offset, len(total), "offset")

    def sample_margins(self, X: pd.DataFrame, *, rng: np.random.Generator) -> Floats:
        """Return the margin of each row under one draw of all coefficients, see `MixedModel.sample_margins`."""
        return self._fitted().sample_margins(X, rng=rng)

    def explain(self, row: pd.DataFrame | pd.Series) -> pd.DataFrame:
        """Return what each feature of each coordinate contributes to one row's margin, see `MixedModel.explain`."""
        return self._fitted().explain(row)

    def summary(self) -> str:
        """Return the fit in words: coordinates, learnt shrinkage, and where the lift on held-out rows comes from."""
        return describe(self._fitted(), self.prior_variance_, self.prediction_scale_, self.ablation_)

    def coefficients(self, name: str, *, variance: bool = False) -> pd.DataFrame:
        """Return a random effect's coefficients, an entity a row.

        Parameters
        ----------
        name : str
            The random effect.
        variance : bool, default False
            Append ``<column>_variance``, the posterior variances (fitted with ``variance="diagonal"``: the inverse
            of the Hessian's diagonal; ``"full"``: the diagonal of the Hessian's inverse).

        Returns
        -------
        DataFrame indexed by key
            One column per feature (a level of a string column each) and ``intercept``; zeros where the effect
            was dropped.

        Raises
        ------
        InvalidModelInput
            An unknown effect, or variances of a model that was fitted without.
        """
        effects = self._fitted().effects
        if name not in effects:
            raise InvalidModelInput(name_unknown("random effect", name, effects))
        return effects[name].table(variance=variance)

    def learnt_l2(self, name: str) -> dict[str, float]:
        """Return the penalty in force on each column of a random effect, as `RandomEffect.l2` takes it.

        It is dispersion / (prediction scale * prior variance), `inf` for a dropped effect. To fit the same effect on
        other rows at a given fixed margin: ``GLMixClassifier(fixed=None, random_effects=[RandomEffect(name, key,
        features, l2=model.learnt_l2(name))]).fit(X, y, offset=margin)``.
        """
        self._fitted()
        if name not in self._learnt_l2:
            raise InvalidModelInput(name_unknown("random effect", name, self._learnt_l2))
        return dict(self._learnt_l2[name])

    @abstractmethod
    def _family(self) -> Family: ...

    def _fitted(self) -> MixedModel:
        if not hasattr(self, "model_"):
            raise NotFitted(f"{type(self).__name__}: call fit first.")
        return self.model_


class GLMixClassifier(ClassifierMixin, _GLMix):  # type: ignore[misc]  # scikit-learn has no types
    """Probability of a 0/1 response: sigmoid(fixed effect + random effects + offset).

    Parameters
    ----------
    fixed : Trees, Linear or None
        None: the `offset` of fit stands in its place, and there is no intercept but the random effects'.
    random_effects : sequence of RandomEffect
    sweeps : int, default 4
        Passes over all coordinates; the trees' boosting budget is spread over them.
    variance : {None, "diagonal", "full"}
        Which posterior variances to keep, see `coefficients`.
    time : str, optional
        The column of X (timestamps or numbers) by which the latest rows of each group are held out.
    negative_share : float in (0, 1], default 1.0
        Share of the rows with label 0 that is kept, by a hash of the row, with weights divided by it: the same model
        in expectation, at less cost. For gaussian, where 0 is no rare answer, it must be 1. A log whose negatives
        were sampled before, without weights, needs ``offset=-log(share)`` in fit and none in scoring.
    update_order : sequence of str, optional
        The coordinates of a sweep in order; by default "fixed", then the random effects as given.
    tolerance : float, default 1e-6
        The last sweeps of a stage end when one changes the loss by less than this share of it.
    seed : int, default 0
        Salts the hashes that hold out.
    n_threads : int, default 1
        Threads for the random effects; the result does not depend on it. `Trees` has its own.

    Attributes
    ----------
    fixed_ : FittedTrees, FittedLinear or None
    random_effects_ : dict of str to Coefficients
    prior_variance_ : dict of str to dict of str to float
        The empirical-Bayes estimate per effect and column.
    prediction_scale_ : dict of str to float
        What held-out rows make of it: the variance in force is the product; 0 = the effect is dropped.
    unseen_correction_ : tuple (intercept, slope)
        The fixed margin of a row whose first key is unseen becomes intercept + slope * margin.
    model_ : MixedModel
        What is served and saved.
    ablation_ : DataFrame
        Held-out loss of the fixed effect alone, with random intercepts only, and of all; empty without held-out rows.
    held_out_groups_ : bool array of n
        The rows of X whose groups were held out whole.
    history_ : DataFrame
        One row per `SweepRecord`.

    References
    ----------
    Zhang et al. (2016), "GLMix: Generalized linear mixed models for large-scale response prediction", KDD.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"viewer_id": np.repeat(np.arange(100), 20), "age": rng.normal(size=2000)})
    >>> effect = np.repeat(rng.normal(size=100), 20)
    >>> y = rng.random(2000) < 1 / (1 + np.exp(-X["age"] - effect))
    >>> from spr.glmix import Linear, RandomEffect
    >>> model = GLMixClassifier(Linear(["age"]), [RandomEffect("viewer", key="viewer_id")]).fit(X, y)
    >>> list(model.margins(X).columns)
    ['fixed', 'viewer', 'unseen']
    >>> model.predict_proba(X).shape
    (2000, 2)
    >>> 0.5 < model.prior_variance_["viewer"]["intercept"] < 2.0
    True
    """

    def _family(self) -> Family:
        return Family.named("binomial")

    @property
    def classes_(self) -> NDArray[np.int64]:
        """The labels, [0, 1]."""
        return np.array([0, 1])

    def predict_proba(self, X: pd.DataFrame, offset: ArrayLike | None = None) -> Floats:
        """Return the probability of 0 and of 1, shape (n, 2)."""
        probability = self._family().response(self.decision_function(X, offset))
        return np.column_stack([1.0 - probability, probability])

    def predict(self, X: pd.DataFrame, offset: ArrayLike | None = None) -> NDArray[np.int64]:
        """Return the likelier label of each row."""
        return (self.decision_function(X, offset) > 0).astype(np.int64)


class GLMixRegressor(RegressorMixin, _GLMix):  # type: ignore[misc]  # scikit-learn has no types
    """Expected response of a number (gaussian) or a count (poisson, log link).

    Parameters
    ----------
    fixed, random_effects, sweeps, variance, time, negative_share, update_order, tolerance, seed, n_threads
        As in `GLMixClassifier`.
    family : {"gaussian", "poisson"}

    Attributes
    ----------
    residual_variance_ : float
        gaussian only. A learnt prior variance v stands against it as the penalty residual variance / v.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"shop": np.repeat(np.arange(60), 10)})
    >>> y = np.repeat(rng.normal(size=60), 10) + rng.normal(size=600)
    >>> from spr.glmix import RandomEffect
    >>> model = GLMixRegressor(random_effects=[RandomEffect("shop", key="shop")]).fit(X, y)
    >>> 0.8 < model.residual_variance_ < 1.2
    True
    """

    def __init__(
        self,
        fixed: Trees | Linear | None = None,
        random_effects: Sequence[RandomEffect] = (),
        family: Literal["gaussian", "poisson"] = "gaussian",
        sweeps: int = 4,
        variance: Literal["diagonal", "full"] | None = None,
        time: str | None = None,
        negative_share: float = 1.0,
        update_order: Sequence[str] | None = None,
        tolerance: float = 1e-6,
        seed: int = 0,
        n_threads: int = 1,
    ) -> None:
        super().__init__(
            fixed,
            random_effects,
            sweeps,
            variance,
            time,
            negative_share,
            update_order,
            tolerance,
            seed,
            n_threads,
        )
        self.family = family

    def _family(self) -> Family:
        if self.family not in ("gaussian", "poisson"):
            raise InvalidModelInput(name_unknown("family", str(self.family), ["gaussian", "poisson"]))
        return Family.named(self.family)

    def predict(self, X: pd.DataFrame, offset: ArrayLike | None = None) -> Floats:
        """Return the expected response of each row."""
        return self._family().response(self.decision_function(X, offset))
