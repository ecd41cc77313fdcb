"""The estimators: `GLMixClassifier` and `GLMixRegressor`, scikit-learn's conventions over a DataFrame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from spr.errors import InvalidModelInput, NotFitted, name_unknown
from spr.glmix.boosting import TreesDescent
from spr.glmix.descent import Descent
from spr.glmix.encoding import Encoding, check_columns, read_keys
from spr.glmix.families import GAUSSIAN, Family
from spr.glmix.fixed import FittedLinear, Linear, Trees
from spr.glmix.holdout import HoldOut, salted_hashes, split, split_by_validation
from spr.glmix.kernels import fold_rows
from spr.glmix.linear import LinearDescent
from spr.glmix.random_effects import EffectDescent
from spr.glmix.rows import check_frame, finite_vector, gather_rows
from spr.glmix.sparse import fold_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csc_matrix

    from spr.glmix.coefficients import Coefficients
    from spr.glmix.descent import SweepRecord
    from spr.glmix.fixed import FittedTrees
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
        seed: int = 0,
        n_threads: int = 1,
    ) -> None:
        self.fixed = fixed
        self.random_effects = random_effects
        self.sweeps = sweeps
        self.variance = variance
        self.time = time
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
        progress: Callable[[SweepRecord], None] | None = None,
    ) -> Any:
        """Fit by block coordinate descent.

        Parameters
        ----------
        X : DataFrame of n rows
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
            some of its groups are not in X.
        progress : callable, optional
            Called with each `SweepRecord` as it is made.

        Returns
        -------
        self

        Raises
        ------
        InvalidModelInput
            Rows, labels, weights or columns that cannot be used; the message names them.
        """
        family = self._family()
        self._check_parameters()
        frame, labels, weights, offsets, taught = gather_rows(X, y, sample_weight, offset, validation)
        family.check_labels(labels)
        n_taught = int(taught.sum())
        if not (weights[taught] > 0).any():
            raise InvalidModelInput("sample_weight: no row has a positive weight; there is nothing to learn from.")

        effects = [EffectDescent(spec, frame, n_taught, self.n_threads) for spec in self.random_effects]
        rows: NDArray[np.float32] | csc_matrix = np.zeros((len(frame), 0), dtype=np.float32)
        encoding = None
        if self.fixed is not None:
            encoding = Encoding.learn(frame.iloc[:n_taught], self._fixed_columns(frame), "the fixed effect")
            if isinstance(self.fixed, Linear):
                rows = encoding.linear_rows(frame, "the fixed effect")
            else:
                rows = encoding.matrix(frame, "the fixed effect")
        rows_hash = self._hash_rows(rows, effects, offsets)
        group_hash = self._hash_groups(groups, effects, rows_hash, n_taught)
        hold_out = self._hold_out(frame, group_hash, rows_hash, weights > 0, taught)

        fixed: TreesDescent | LinearDescent | None = None
        if self.fixed is not None and encoding is not None:
            learning = np.where(hold_out.training, weights, 0.0)
            intercept = family.intercept(labels, learning, offsets)
            if isinstance(self.fixed, Linear):
                fixed = LinearDescent(self.fixed, encoding.names, rows, family, intercept)
            else:
                assert isinstance(rows, np.ndarray)  # noqa: S101 - for mypy: only Linear has sparse rows
                watch = np.where(hold_out.groups, weights, 0.0)
                fixed = TreesDescent(self.fixed, encoding, rows, rows_hash, watch, intercept, family, self.sweeps)
        descent = Descent(
            family,
            labels,
            weights,
            offsets,
            fixed,
            effects,
            hold_out,
            taught,
            np.unique(group_hash, return_inverse=True)[1].astype(np.int64),
            self.sweeps,
            progress,
        )
        descent.run()

        self.fixed_: FittedTrees | FittedLinear | None = None if fixed is None else fixed.fitted()
        self.fixed_encoding_ = encoding
        self.random_effects_: dict[str, Coefficients] = {}
        self.encodings_: dict[str, Encoding] = {}
        self.prior_variance_: dict[str, dict[str, float]] = {}
        self.prediction_scale_: dict[str, float] = {}
        self._learnt_l2: dict[str, dict[str, float]] = {}
        for effect in effects:
            name = effect.spec.name
            self.random_effects_[name] = effect.fitted(family, descent.total, descent.dispersion, self.variance)
            self.encodings_[name] = effect.encoding
            self._learnt_l2[name] = effect.learnt_l2(descent.dispersion)
            if effect.learns:
                self.prior_variance_[name] = dict(zip(effect.columns, effect.variance.tolist(), strict=True))
                self.prediction_scale_[name] = effect.scale
        self.unseen_correction_ = descent.unseen_correction
        self.held_out_groups_ = hold_out.groups[:n_taught]
        self.history_ = pd.DataFrame([vars(record) for record in descent.history])
        if family.code == GAUSSIAN:
            self.residual_variance_ = descent.dispersion
        self.n_features_in_ = X.shape[1]
        return self

    def margins(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the margin's parts, which sum to it.

        Parameters
        ----------
        X : DataFrame of n rows

        Returns
        -------
        DataFrame of n rows, indexed as X
            ``fixed``, one column per random effect (exactly 0 at an unseen or null key), and ``unseen``: the
            correction of the fixed margin where the first random effect's key is unseen or null, else 0.
        """
        self._check_fitted()
        check_frame(X)
        parts: dict[str, Floats] = {"fixed": np.zeros(len(X))}
        if self.fixed_ is not None and self.fixed_encoding_ is not None:
            if isinstance(self.fixed_, FittedLinear):
                parts["fixed"] = self.fixed_.margin(self.fixed_encoding_.linear_rows(X, "the fixed effect"))
            else:
                parts["fixed"] = self.fixed_.margin(self.fixed_encoding_.matrix(X, "the fixed effect"))
        unseen = np.zeros(len(X), dtype=bool)
        for number, (name, coefficients) in enumerate(self.random_effects_.items()):
            where = f"random effect {name!r}"
            check_columns(X, [coefficients.key], "key column", where)
            keys = read_keys(X[coefficients.key], where)
            parts[name] = coefficients.margin(self.encodings_[name].matrix(X, where), keys)
            if number == 0:
                unseen = coefficients.positions(keys) < 0
        intercept, slope = self.unseen_correction_
        parts["unseen"] = np.where(unseen, intercept + (slope - 1.0) * parts["fixed"], 0.0)
        return pd.DataFrame(parts, index=X.index)

    def decision_function(self, X: pd.DataFrame, offset: ArrayLike | None = None) -> Floats:
        """Return the margin of each row: the sum of `margins`, plus `offset` where one is given."""
        total = self.margins(X).sum(axis=1).to_numpy(dtype=np.float64)
        return total if offset is None else total + finite_vector(offset, len(X), "offset")

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
        self._check_fitted()
        if name not in self.random_effects_:
            raise InvalidModelInput(name_unknown("random effect", name, self.random_effects_))
        fitted = self.random_effects_[name]
        index = pd.Index(fitted.keys, name=fitted.key)
        table = pd.DataFrame(fitted.matrix, index=index, columns=list(fitted.columns))
        if not variance:
            return table
        if fitted.variance is None:
            raise InvalidModelInput("variances were not fitted; fit with variance='diagonal' or 'full'.")
        names = [f"{column}_variance" for column in fitted.columns]
        return table.join(pd.DataFrame(fitted.variance, index=index, columns=names))

    def learnt_l2(self, name: str) -> dict[str, float]:
        """Return the penalty in force on each column of a random effect, as `RandomEffect.l2` takes it.

        It is dispersion / (prediction scale * prior variance), `inf` for a dropped effect. To fit the same effect on
        other rows at a given fixed margin: ``GLMixClassifier(fixed=None, random_effects=[RandomEffect(name, key,
        features, l2=model.learnt_l2(name))]).fit(X, y, offset=margin)``.
        """
        self._check_fitted()
        if name not in self._learnt_l2:
            raise InvalidModelInput(name_unknown("random effect", name, self._learnt_l2))
        return dict(self._learnt_l2[name])

    @abstractmethod
    def _family(self) -> Family: ...

    def _check_fitted(self) -> None:
        if not hasattr(self, "random_effects_"):
            raise NotFitted(f"{type(self).__name__}: call fit first.")

    def _check_parameters(self) -> None:
        for name in ("sweeps", "n_threads"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InvalidModelInput(f"{name} is {getattr(self, name)!r}; allowed: integers >= 1.")
        if self.variance not in (None, "diagonal", "full"):
            raise InvalidModelInput(name_unknown("variance", str(self.variance), ["diagonal", "full"]))
        if not isinstance(self.fixed, Trees | Linear | None):
            raise InvalidModelInput(f"fixed is a {type(self.fixed).__name__}; allowed: Trees, Linear or None.")
        if self.fixed is None and not self.random_effects:
            raise InvalidModelInput("neither a fixed effect nor a random effect is asked for; give one.")
        names = [effect.name for effect in self.random_effects]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise InvalidModelInput(f"two random effects are called {name!r}; margins need a name each.")

    def _fixed_columns(self, frame: pd.DataFrame) -> list[str]:
        assert self.fixed is not None  # noqa: S101 - for mypy: the caller has looked
        if self.fixed.features is not None:
            return list(self.fixed.features)
        taken = {effect.key for effect in self.random_effects} | {self.time}
        found = [
            str(column)
            for column in frame.columns
            if column not in taken
            and (pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_bool_dtype(frame[column]))
        ]
        if not found:
            raise InvalidModelInput("Trees(features=None) found no numeric column that is neither key nor time.")
        return found

    def _hash_rows(
        self, rows: NDArray[np.float32] | csc_matrix, effects: Sequence[EffectDescent], offset: Floats
    ) -> NDArray[np.uint64]:
        """Hash what is known of each row: its keys, features and offset; never label, weight or place."""
        hashes = np.full(len(offset), self.seed, dtype=np.uint64)
        for effect in effects:
            known = salted_hashes(effect.keys, self.seed)
            position = np.flatnonzero(effect.codes >= 0)
            hashes[position] ^= known[effect.codes[position]]
            fold_rows(hashes, effect.rows.view(np.uint32), effect.order)
        fold_features(hashes, rows)
        fold_features(hashes, offset.astype(np.float32)[:, None])
        return hashes

    def _hash_groups(
        self,
        groups: ArrayLike | None,
        effects: Sequence[EffectDescent],
        rows_hash: NDArray[np.uint64],
        n_taught: int,
    ) -> NDArray[np.uint64]:
        """Hash each row's group; a row without one is a group of its own."""
        out = rows_hash.copy()
        if groups is not None:
            column = pd.Series(np.asarray(groups), name="groups")
            if len(column) != n_taught:
                raise InvalidModelInput(f"groups: {len(column)} values for {n_taught} rows of X.")
            known = column.notna().to_numpy()
            place = np.flatnonzero(known)
            out[place] = salted_hashes(read_keys(column[known], "groups"), self.seed)
            if not effects:
                return out
        if effects:
            first = effects[0]
            place = np.flatnonzero(first.codes >= 0)
            if groups is not None:  # validation rows have no group but their key
                place = place[place >= n_taught]
            out[place] = salted_hashes(first.keys, self.seed)[first.codes[place]]
        return out

    def _hold_out(
        self,
        frame: pd.DataFrame,
        group_hash: NDArray[np.uint64],
        rows_hash: NDArray[np.uint64],
        weighted: NDArray[np.bool_],
        taught: NDArray[np.bool_],
    ) -> HoldOut:
        order: NDArray[np.generic] = rows_hash
        if self.time is not None:
            check_columns(frame, [self.time], "time column", "the estimator")
            column = frame[self.time]
            if column.isna().any():
                raise InvalidModelInput(f"time column {self.time!r}: {int(column.isna().sum())} rows are null.")
            order = pd.factorize(column, sort=True)[0]
        chosen = split(group_hash, order, weighted & taught)
        return chosen if taught.all() else split_by_validation(group_hash, ~taught, chosen)


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
    fixed, random_effects, sweeps, variance, time, seed, n_threads
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
        seed: int = 0,
        n_threads: int = 1,
    ) -> None:
        super().__init__(fixed, random_effects, sweeps, variance, time, seed, n_threads)
        self.family = family

    def _family(self) -> Family:
        if self.family not in ("gaussian", "poisson"):
            raise InvalidModelInput(name_unknown("family", str(self.family), ["gaussian", "poisson"]))
        return Family.named(self.family)

    def predict(self, X: pd.DataFrame, offset: ArrayLike | None = None) -> Floats:
        """Return the expected response of each row."""
        return self._family().response(self.decision_function(X, offset))
