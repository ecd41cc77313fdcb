"""The descent of one random effect over rows sorted once by key."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput
from spr.glmix.coefficients import INTERCEPT, Coefficients, inverse
from spr.glmix.encoding import Encoding, check_columns, read_keys
from spr.glmix.kernels import newton_step, posterior_covariance
from spr.glmix.row_kernels import (
    active_shares,
    cap_features,
    count_active,
    gather,
    mean_squares,
    scatter,
    sort_by_code,
    zero_nulls,
)
from spr.glmix.shrinkage import updated_variance, variance_bounds
from spr.glmix.threads import N_CHUNKS, over_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spr.glmix.families import Family
    from spr.glmix.random_effects import RandomEffect

    Floats = NDArray[np.float64]

# prior variances start far from where they end; two steps in the first sweep bring them near
_FIRST_STEPS = 2
_START_SHARE = 0.25
HELD_AT_ZERO = 1e30  # a penalty: infinity times 0 would be NaN


class EffectDescent:
    """The state of one random effect while it is fitted: its rows sorted by key, coefficients, prior variances.

    Parameters
    ----------
    spec : RandomEffect
    frame : DataFrame of n rows
        All rows, those that only judge among them.
    taught : int
        Levels of string features are learnt on the first `taught` rows.
    n_threads : int
    start : Coefficients, optional
        A fitted effect to start from: columns and levels are those of the fit that it came from.
    encoding : Encoding, optional
        That fit's encoding.
    """

    def __init__(
        self,
        spec: RandomEffect,
        frame: pd.DataFrame,
        taught: int,
        n_threads: int,
        start: Coefficients | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        where = f"random effect {spec.name!r}"
        check_columns(frame, [spec.key], "key column", where)
        self.spec = spec
        self.encoding = encoding or Encoding.learn(frame.iloc[:taught], list(spec.features), where)
        self.columns = (*self.encoding.names, INTERCEPT) if spec.intercept else self.encoding.names
        codes, keys = pd.factorize(read_keys(frame[spec.key], where), sort=True)
        self.codes = codes.astype(np.int64, copy=False)
        whole = len(keys) > 0 and not isinstance(keys[0], str)  # integers beside a null come as objects
        self.keys = np.asarray(keys, dtype=np.int64 if whole else object)
        self.order, self.starts = sort_by_code(self.codes, len(keys))
        self.rows = self.encoding.matrix(frame, where, order=self.order, ones=spec.intercept)
        zero_nulls(self.rows)
        self.l2 = spec.penalties(self.columns)
        self.scale = 1.0
        d = len(self.columns)
        self.coefficients = np.zeros((len(keys), d))
        self.margins = np.zeros(len(self.order))
        self.variance, self.information, self.variance_moved = np.zeros(d), np.zeros(d), np.inf
        self._own_mean, self._own_precision = np.zeros((0, d)), np.zeros((0, d, 1))
        self._own_spreads = np.zeros(0)
        self._share = np.zeros(0)
        self._bounds = (self.variance, self.variance)
        self._taken = 0
        self._n_threads = n_threads
        cost = np.cumsum(np.diff(self.starts) * d + d * d) if len(keys) else np.zeros(0)
        cuts = np.searchsorted(cost, np.linspace(0, cost[-1] if len(cost) else 0, N_CHUNKS + 1)[1:-1])
        bounds = np.unique(np.concatenate([[0], cuts, [len(keys)]]))
        self._chunks = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        self._start = start
        if start is not None:
            self._start_from(start)

    def _start_from(self, start: Coefficients) -> None:
        if (start.columns, start.key, self.encoding.columns) != (self.columns, self.spec.key, self.spec.features):
            raise InvalidModelInput(
                f"random effect {self.spec.name!r}: the model to start from has key {start.key!r} and columns "
                f"{start.columns}; here: key {self.spec.key!r} and features {self.spec.features}."
            )
        place = start.positions(self.keys)
        self.coefficients[place >= 0] = start.matrix[place[place >= 0]]
        code = self.codes[self.order]
        self.margins = np.einsum("ij,ij->i", self.rows, self.coefficients[code], dtype=np.float64)

    def remember(self, forgetting: float, variance: Floats) -> None:
        """Make the posterior that the effect started from its prior: for each entity a mean and a precision.

        Parameters
        ----------
        forgetting : float in (0, 1]
            Share of the old precision that is kept; the rest falls back to the precision of a new entity, so that
            forgetting does not make a prior flat (stabilised forgetting; Kulhavy and Zarrop 1993).
        variance : float64 array of d
            The prior variances, for entities that are new.
        """
        start = self._start
        assert start is not None  # noqa: S101 - for mypy: the estimator has looked
        if start.variance is None:
            raise InvalidModelInput(
                f"random effect {self.spec.name!r}: the model to start from has no posterior; "
                "fit it with variance='diagonal' or 'full'."
            )
        d, fresh = len(self.columns), np.minimum(1.0 / np.maximum(variance, 1e-30), HELD_AT_ZERO)
        place = start.positions(self.keys)
        known = np.flatnonzero(place >= 0)
        self._own_mean = np.zeros((len(self.keys), d))
        self._own_mean[known] = start.matrix[place[known]]
        if start.covariance is None:
            self._own_precision = np.tile(fresh[:, None], (len(self.keys), 1, 1))
            old = inverse(start.variance[place[known], :, None])
            self._own_precision[known] = forgetting * old + (1.0 - forgetting) * fresh[:, None]
        else:
            self._own_precision = np.tile(np.diag(fresh), (len(self.keys), 1, 1))
            old = inverse(start.covariance[place[known]])
            self._own_precision[known] = forgetting * old + (1.0 - forgetting) * np.diag(fresh)
        self.variance = variance

    @property
    def learns(self) -> bool:
        """Whether prior variances and their scale are learnt: no fixed `l2`, no remembered posterior."""
        return self.l2 is None and not self.remembers

    @property
    def remembers(self) -> bool:
        """Whether an earlier posterior is the prior."""
        return self._own_mean.size > 0

    @property
    def dropped(self) -> bool:
        """Whether the effect adds nothing: its scale is 0."""
        return self.scale == 0.0

    def bound(self, weights: Floats, row_hash: NDArray[np.uint64]) -> None:
        """Apply the bounds per entity that the spec asks for; `weights` > 0 are the rows that may teach."""
        weights, spec = weights[self.order], self.spec
        if spec.max_rows is not None or spec.min_rows > 1:
            largest = spec.max_rows if spec.max_rows is not None else len(weights)
            self._share = active_shares(weights, row_hash[self.order], self.starts, spec.min_rows, largest)
        if spec.max_features is not None:
            cap_features(self.rows, weights, self.starts, len(self.encoding.names), spec.max_features)

    def begin(self, labels: Floats, weights: Floats, spread: float) -> str:
        """Take the rows' labels and weights; weight 0 = the row teaches nothing, its margin is kept all the same.

        Returns what was decided, e.g. that the effect is shrunk away; empty where nothing was.
        """
        self.labels, self.weights = labels[self.order], weights[self.order]
        if self._share.size:
            self.weights *= self._share
        counts = count_active(self.weights, self.starts)
        self.seen = counts > 0
        if self._taken or not self.learns:
            return ""
        self._bounds = variance_bounds(mean_squares(self.rows, self.weights), spread)
        if (counts > 1).any():
            self.variance = self._bounds[1] / 25.0 * _START_SHARE / len(self.columns)
            return ""
        self.variance = self._bounds[0].copy()
        return "shrunk away: no entity has two rows, which alone tell an effect from noise"

    def precision(self, dispersion: float) -> Floats:
        """Return the penalty of each coefficient on the scale of the loss."""
        if self.l2 is not None:
            return np.minimum(self.l2, HELD_AT_ZERO)
        return np.minimum(dispersion / np.maximum(self.scale * self.variance, 1e-300), HELD_AT_ZERO)

    def step(self, family: Family, total: Floats, spreads: Floats, dispersion: float, *, learn: bool) -> float:
        """Take a Newton step for every entity and move `total`, the margin of all rows, in place.

        Parameters
        ----------
        family : Family
        total : float64 array of n
            Offset, fixed margin and all random effects.
        spreads : float64 array of n or 0
            Posterior variance of each row's margin, moved in place; empty: effects are taken as if they were known.
        dispersion : float
            The residual variance for gaussian, else 1.
        learn : bool
            Whether the prior variances take a step too.

        Returns
        -------
        float
            The effective number of parameters: the trace of the shrinkage.
        """
        if self.dropped or not len(self.keys):
            return 0.0
        if spreads.size and not self._own_spreads.size:
            self._own_spreads = np.zeros(len(self.order))
        rest, spread = np.empty(len(self.order)), np.empty(len(self.order) if spreads.size else 0)

        def collect(chunk: int) -> None:
            gather(total, self.order, self.margins, *self._row_range(chunk), rest)
            if spread.size:
                gather(spreads, self.order, nothing, *self._row_range(chunk), spread)

        def distribute(chunk: int) -> None:
            scatter(rest, self.margins, self.order, *self._row_range(chunk), total)
            if spread.size:
                scatter(spread, nothing, self.order, *self._row_range(chunk), spreads)

        nothing = np.broadcast_to(0.0, len(self.order))
        parameters = 0.0
        over_chunks(collect, len(self._chunks), self._n_threads)
        for _ in range(_FIRST_STEPS if not self._taken and learn and self.learns else 1):
            evidence, coupling = self._newton(family, rest, spread, dispersion, learn=learn)
            if learn and self.learns:
                self.learn(evidence, coupling)
            parameters = float(evidence[2].sum())
            self._taken += 1
        over_chunks(distribute, len(self._chunks), self._n_threads)
        return parameters

    def _row_range(self, chunk: int) -> tuple[int, int]:
        first, last = self._chunks[chunk]
        return int(self.starts[first]), int(self.starts[last])

    def _newton(
        self, family: Family, rest: Floats, spread: Floats, dispersion: float, *, learn: bool
    ) -> tuple[Floats, Floats]:
        d = len(self.columns)
        evidence, coupling = np.zeros((len(self._chunks), 3, d)), np.zeros((len(self._chunks), d, d))
        penalty, own_precision = self.precision(dispersion), self._own_precision * dispersion

        def run(chunk: int) -> None:
            newton_step(
                family.code,
                self.rows,
                self.labels,
                self.weights,
                rest,
                self.starts,
                *self._chunks[chunk],
                penalty,
                self._own_mean,
                own_precision,
                learn,
                self.coefficients,
                self.margins,
                spread,
                self._own_spreads if spread.size else spread,
                evidence[chunk],
                coupling[chunk],
            )

        over_chunks(run, len(self._chunks), self._n_threads)
        return evidence.sum(axis=0), coupling.sum(axis=0)

    def learn(self, evidence: Floats, coupling: Floats) -> None:
        """Move the prior variances by what `newton_step` has gathered."""
        before, self.information = self.variance, np.diag(coupling)
        self.variance = np.clip(updated_variance(before, evidence[0], evidence[1], coupling), *self._bounds)
        told = self.variance > 100 * self.smallest_variance
        self.variance_moved = float(np.abs(np.log(self.variance / before))[told].max(initial=0.0))

    @property
    def known(self) -> bool:
        """Whether a variance is two standard errors from 0, or the data of few entities have any weight.

        The variance of a log variance is 2 / information. Information is at most the number of entities: of few of
        them a twentieth of that is asked, a root mean square shrinkage of about 0.2.
        """
        return bool(self.information.max(initial=0.0) >= min(8.0, 0.05 * self.seen.sum()))

    def correct(self, log_bias: Floats) -> None:
        """Take a bias off the learnt variances."""
        self.variance = np.clip(self.variance * np.exp(-log_bias), *self._bounds)

    @property
    def smallest_variance(self) -> Floats:
        """The least that a variance may be learnt to be."""
        return self._bounds[0]

    def draw(self, rng: np.random.Generator) -> None:
        """Put coefficients drawn from the prior in place of the fitted ones."""
        self.coefficients = rng.standard_normal(self.coefficients.shape) * np.sqrt(self.scale * self.variance)
        entity = np.repeat(np.arange(len(self.keys)), np.diff(self.starts))
        self.margins = np.einsum("ij,ij->i", self.rows, self.coefficients[entity], dtype=np.float64)

    def learning_state(self) -> tuple[Floats, ...]:
        """Return copies of all that learning moves, for `restore_learning`."""
        parts = (self.coefficients, self.margins, self.variance, self._own_spreads)
        return (*(part.copy() for part in parts), self.labels, self.information)

    def restore_learning(self, state: tuple[Floats, ...]) -> None:
        """Go back to a state."""
        self.coefficients, self.margins, self.variance, self._own_spreads, self.labels, self.information = state

    def centre(self, total: Floats) -> float:
        """Take the mean intercept out of the seen entities and out of `total`; return it."""
        if not self.spec.intercept or self.dropped or self.remembers or not self.seen.any():
            return 0.0
        shift = float(self.coefficients[self.seen, -1].mean())
        self.move(len(self.columns) - 1, np.where(self.seen, -shift, 0.0), total)
        return shift

    def centre_within(self, parent: EffectDescent, total: Floats) -> None:
        """Move the mean of each parent entity's children to the parent, for the columns that both have.

        With penalties p of the parent and q of a child and n children, the penalised loss falls most for a shift of
        (q * sum of the children - p * parent) / (n * q + p).
        """
        if self.dropped or parent.dropped:
            return
        parent_of = self.parent_entities(parent)
        nested = self.seen & (parent_of >= 0)
        p, q = parent.precision(1.0), self.precision(1.0)
        for place, column in enumerate(self.columns):
            if column not in parent.columns:
                continue
            there = parent.columns.index(column)
            count = np.bincount(parent_of[nested], minlength=len(parent.keys))
            sums = np.bincount(parent_of[nested], self.coefficients[nested, place], minlength=len(parent.keys))
            own = parent.coefficients[:, there]
            shift = np.where(count > 0, (q[place] * sums - p[there] * own) / (count * q[place] + p[there]), 0.0)
            parent.move(there, shift, total)
            self.move(place, np.where(nested, -shift[np.maximum(parent_of, 0)], 0.0), total)

    def parent_entities(self, parent: EffectDescent) -> NDArray[np.int64]:
        """Return the place of each entity's parent, -1 where it has none.

        Raises
        ------
        InvalidModelInput
            An entity stands under two parents.
        """
        known = (self.codes >= 0) & (parent.codes >= 0)
        out = np.full(len(self.keys), -1, dtype=np.int64)
        out[self.codes[known]] = parent.codes[known]
        wrong = np.flatnonzero(out[self.codes[known]] != parent.codes[known])
        if wrong.size:
            raise InvalidModelInput(
                f"random effect {self.spec.name!r} is not nested in {parent.spec.name!r}: "
                f"{self.keys.tolist()[self.codes[known][wrong[0]]]!r} stands under two values of {parent.spec.key!r}. "
                "Leave parent out: effects whose keys cross simply add up."
            )
        return out

    def move(self, column: int, shift: Floats, total: Floats) -> None:
        """Add `shift`, one number per entity, to the coefficients of a column, and to the margins and `total`."""
        self.coefficients[:, column] += shift
        moved = np.repeat(shift, np.diff(self.starts)) * self.rows[:, column]
        self.margins += moved
        total[self.order] += moved

    def margin(self) -> Floats:
        """Return the effect's margin of each row, in the rows' own order."""
        out = np.zeros(len(self.codes))
        out[self.order] = self.margins
        return out

    @contextmanager
    def intercept_only(self) -> Iterator[None]:
        """Hold every coefficient but the intercept where it is, within the block."""
        l2 = self.l2
        self.l2 = self.precision(1.0).copy()
        self.l2[: len(self.columns) - self.spec.intercept] = HELD_AT_ZERO
        yield
        self.l2 = l2

    def clear(self, total: Floats) -> None:
        """Put all coefficients to 0."""
        total[self.order] -= self.margins
        self.coefficients[:] = 0.0
        self.margins[:] = 0.0

    def drop(self, total: Floats, spreads: Floats) -> None:
        """Take the effect out of the model, out of `total` and `spreads`."""
        self.clear(total)
        self.scale = 0.0
        if self._own_spreads.size:
            spreads[self.order] -= self._own_spreads

    def state(self) -> tuple[Floats, Floats]:
        """Return copies of coefficients and margins, for `restore`."""
        return self.coefficients.copy(), self.margins.copy()

    def restore(self, state: tuple[Floats, Floats], total: Floats) -> None:
        """Go back to a state, moving `total` along."""
        total[self.order] += state[1] - self.margins
        self.coefficients, self.margins = state[0].copy(), state[1].copy()

    def fitted(self, family: Family, total: Floats, dispersion: float, variance: str | None) -> Coefficients:
        """Return the coefficients of the entities that had a weighted row, with their posterior where asked for."""
        kept, d = self.seen, len(self.columns)
        covariance = None
        if variance is not None and not self.dropped:
            whole = np.zeros((len(self.keys), d, d if variance == "full" else 1))
            posterior_covariance(
                family.code,
                self.rows,
                self.labels,
                self.weights,
                total[self.order],
                self.starts,
                0,
                len(self.keys),
                self.precision(dispersion),
                self._own_mean,
                self._own_precision * dispersion,
                self.coefficients,
                whole,
            )
            covariance = (whole[kept] * dispersion).astype(np.float32)
        if self.l2 is not None:
            self.coefficients[:, np.isinf(self.l2)] = 0.0
        diagonal = np.zeros((int(kept.sum()), d), dtype=np.float32) if variance is not None else None
        if covariance is not None:
            diagonal = np.diagonal(covariance, axis1=1, axis2=2) if variance == "full" else covariance[:, :, 0]
            diagonal = np.ascontiguousarray(diagonal)
        fitted = Coefficients(
            name=self.spec.name,
            key=self.spec.key,
            features=self.encoding.names,
            intercept=self.spec.intercept,
            keys=self.keys[kept],
            matrix=self.coefficients[kept].astype(np.float32),
            variance=diagonal,
            covariance=covariance if variance == "full" else None,
        )
        return fitted if self._start is None else fitted.over(self._start)

    def learnt_l2(self, dispersion: float) -> dict[str, float]:
        """Return the penalty of each column as it stands."""
        if self.dropped:
            return dict.fromkeys(self.columns, math.inf)
        penalties = self.l2 if self.l2 is not None else self.precision(dispersion)
        return dict(zip(self.columns, penalties.tolist(), strict=True))
