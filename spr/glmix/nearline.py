"""Near-line updates: a mini-batch of new rows moves the members that it touches, and no others, in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.coefficients import Coefficients, inverse
from spr.glmix.encoding import read_keys
from spr.glmix.kernels import newton_step, posterior_covariance
from spr.glmix.row_kernels import sort_by_code, zero_nulls
from spr.glmix.rows import gather_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
    from spr.glmix.model import MixedModel

    Floats = NDArray[np.float64]

_MOST_STEPS = 12
_STILL = 1e-6


class NearlineUpdater:
    """Keep one random effect of a fitted model up to date, row by row or batch by batch.

    The posterior of a member after the last batch is the prior of the next (Laplace's approximation kept recursively;
    LinkedIn's lambda-learner does the same with a diagonal). Other coordinates stand still: refit them nightly, and
    start a new updater from what came out.

    Parameters
    ----------
    model : MixedModel, GLMixClassifier or GLMixRegressor
        Fitted with ``variance="full"`` or ``"diagonal"``; `full` follows the batch fit closely, a diagonal only where
        the features of a member are hardly correlated.
    effect : str
        The random effect that moves.
    forgetting : float in (0, 1], default 1.0
        Share of a member's precision that each batch keeps of what came before; the rest falls back to the prior.

    Raises
    ------
    InvalidModelInput
        An unknown effect, or a model without posterior variances.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from spr.glmix import GLMixClassifier, RandomEffect
    >>> X = pd.DataFrame({"viewer_id": np.repeat(["a", "b"], 10)})
    >>> y = np.tile([0.0, 1.0], 10)
    >>> member = RandomEffect("member", "viewer_id", l2=1.0)
    >>> model = GLMixClassifier(random_effects=[member], variance="full").fit(X, y)
    >>> updater = NearlineUpdater(model, "member")
    >>> moved = updater.update(pd.DataFrame({"viewer_id": ["b", "b", "new"]}), [1.0, 1.0, 0.0])
    >>> moved.keys.tolist()
    ['b', 'new']
    >>> bool(moved.lookup("b")[0] > 0 > moved.lookup("new")[0])
    True
    """

    def __init__(
        self, model: MixedModel | GLMixClassifier | GLMixRegressor, effect: str, *, forgetting: float = 1.0
    ) -> None:
        self._model: MixedModel = getattr(model, "model_", model)
        if effect not in self._model.effects:
            raise InvalidModelInput(name_unknown("random effect", effect, self._model.effects))
        if not 0.0 < forgetting <= 1.0:
            raise InvalidModelInput(f"forgetting is {forgetting!r}; allowed: above 0, at most 1.")
        self._base = self._model.effects[effect]
        if self._base.variance is None:
            raise InvalidModelInput(
                f"random effect {effect!r} has no posterior; fit the model with variance='full' (or 'diagonal')."
            )
        self._effect, self._forgetting = effect, forgetting
        self._full = self._base.covariance is not None
        if not any(self._model.prior_variance[effect].values()):
            raise InvalidModelInput(
                f"random effect {effect!r} was dropped in fit, or its l2 leaves no prior: there is nothing to update "
                "from; fit it with an l2 of its own to keep it."
            )
        prior = np.array([self._model.prior_variance[effect][column] for column in self._base.columns])
        self._fresh = 1.0 / np.maximum(prior, 1e-12)
        self._moved: dict[str | int, tuple[Floats, Floats]] = {}

    def update(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, offset: ArrayLike | None = None
    ) -> Coefficients:
        """Move the members of these rows.

        Parameters
        ----------
        X : DataFrame or Arrow table of n rows
            New rows only; each row is counted once, so deliver each once.
        y, sample_weight, offset : array-like of n
            As in ``fit``.

        Returns
        -------
        Coefficients
            Of the touched members alone, with their posterior: what is to be written to the store. Rows with a null
            key or no weight touch nobody.

        Raises
        ------
        InvalidModelInput
            As in ``fit``.
        """
        model, effect = self._model, self._base
        frame, labels, weights, offsets, _ = gather_rows(X, y, sample_weight, offset, None)
        model.family.check_labels(labels)
        others = model.margins(frame).drop(columns=[self._effect, "unseen"]).sum(axis=1).to_numpy(dtype=np.float64)
        joined = model.with_leaves(frame)
        keys = read_keys(frame[effect.key], f"random effect {self._effect!r}")
        effect.positions(keys)  # strings where fit saw integers are refused before anything moves
        codes, touched = pd.factorize(keys, sort=True)
        codes = np.where(weights > 0, codes, -1)
        order, starts = sort_by_code(codes.astype(np.int64), len(touched))
        rows = self._encoded(joined, order)
        means, precisions = self._posteriors(touched.tolist())
        coefficients, covariances = self._solve(
            rows, labels[order], weights[order], (others + offsets)[order], starts, means, precisions
        )
        met = np.flatnonzero(np.diff(starts) > 0)
        for place in met:
            self._moved[touched[place]] = coefficients[place], covariances[place]
        return self._tabulated(touched[met], coefficients[met], covariances[met])

    def updated_model(self) -> MixedModel:
        """Return the model with all that has moved in it, to score with or to save."""
        if not self._moved:
            return self._model
        keys = sorted(self._moved)
        moved = self._tabulated(keys, *(np.stack([self._moved[key][part] for key in keys]) for part in (0, 1)))
        return replace(self._model, effects={**self._model.effects, self._effect: moved.over(self._base)})

    def _tabulated(self, keys: Any, matrix: Floats, covariance: Floats) -> Coefficients:
        """Return coefficients as the effect has them; `covariance` is whole (T, d, d) or a diagonal (T, d, 1)."""
        spread = covariance.astype(np.float32)
        diagonal = np.diagonal(spread, axis1=1, axis2=2) if self._full else spread[:, :, 0]
        return replace(
            self._base,
            keys=np.asarray(keys, dtype=self._base.keys.dtype),
            matrix=matrix.astype(np.float32),
            variance=np.ascontiguousarray(diagonal),
            covariance=spread if self._full else None,
        )

    def _encoded(self, frame: pd.DataFrame, order: NDArray[np.int64]) -> NDArray[np.float32]:
        where = f"random effect {self._effect!r}"
        rows = self._model.encodings[self._effect].matrix(frame, where, order=order, ones=self._base.intercept)
        zero_nulls(rows)
        return rows

    def _posteriors(self, keys: list[str | int]) -> tuple[Floats, Floats]:
        """Return means (T, d) and precisions, (T, d, d) or (T, d, 1), after forgetting."""
        d = len(self._fresh)
        fresh = np.diag(self._fresh) if self._full else self._fresh[:, None]
        means, precisions = np.zeros((len(keys), d)), np.tile(fresh, (len(keys), 1, 1))
        for place, key in enumerate(keys):
            known = self._moved.get(key) or self._stored(key)
            if known is not None:
                means[place] = known[0]
                precisions[place] = self._forgetting * inverse(known[1]) + (1.0 - self._forgetting) * fresh
        return means, precisions

    def _stored(self, key: str | int) -> tuple[Floats, Floats] | None:
        row = self._base.position(key)
        if row is None:
            return None
        whole, diagonal = self._base.covariance, self._base.variance
        assert diagonal is not None  # noqa: S101 - for mypy: __init__ has looked
        spread = diagonal[row, :, None] if whole is None else whole[row]
        return self._base.matrix[row].astype(np.float64), spread.astype(np.float64)

    def _solve(
        self,
        rows: NDArray[np.float32],
        labels: Floats,
        weights: Floats,
        rest: Floats,
        starts: NDArray[np.int64],
        means: Floats,
        precisions: Floats,
    ) -> tuple[Floats, Floats]:
        family, dispersion = self._model.family.code, self._model.dispersion
        n_keys, d = means.shape
        coefficients, nothing = means.copy(), np.zeros(0)
        code = np.repeat(np.arange(n_keys), np.diff(starts))
        margins = np.einsum("ij,ij->i", rows, coefficients[code], dtype=np.float64)
        prior = (np.zeros(d), means, precisions * dispersion)
        for _ in range(_MOST_STEPS):
            before = margins.copy()
            newton_step(
                family,
                rows,
                labels,
                weights,
                rest,
                starts,
                0,
                n_keys,
                *prior,
                False,
                coefficients,
                margins,
                nothing,
                nothing,
                np.zeros((3, d)),
                np.zeros((d, d)),
            )
            if not margins.size or np.abs(margins - before).max() < _STILL:
                break
        covariances = np.zeros_like(precisions)
        posterior_covariance(
            family, rows, labels, weights, rest + margins, starts, 0, n_keys, *prior, coefficients, covariances
        )
        return coefficients, covariances * dispersion
