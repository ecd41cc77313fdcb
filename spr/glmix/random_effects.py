"""Random effects: what the user asks for, and the descent of one over rows sorted once by key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput
from spr.glmix.coefficients import INTERCEPT, Coefficients
from spr.glmix.encoding import Encoding, check_columns, read_keys
from spr.glmix.families import GAUSSIAN
from spr.glmix.kernels import newton_step, posterior_variance
from spr.glmix.shrinkage import updated_variance, variance_bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.glmix.families import Family

    Floats = NDArray[np.float64]

# a fixed number, not one per thread: the order of summation must not depend on the threads
_CHUNKS = 64
# prior variances start far from where they end; three steps in the first sweep bring them near
_FIRST_STEPS = 3
_START_SHARE = 0.25


@dataclass(frozen=True)
class RandomEffect:
    """One coefficient vector per entity: per viewer, per item, per hour, ...

    Parameters
    ----------
    name : str
        What the effect is called in margins, coefficients and history.
    key : str
        The column of X that names the entity: strings or integers. A null key is treated as unseen: the effect
        adds exactly 0 to such a row, and the row teaches it nothing.
    features : sequence of str, default ()
        Columns of X that the coefficients multiply: numeric, boolean or string (one column per level). Null
        counts as 0. Features are not rescaled.
    intercept : bool, default True
        Whether each entity has an intercept of its own.
    l2 : float or mapping of str to float, optional
        The penalty l2/2 * b^2, fixed, for all coefficients or by column (encoded names and ``"intercept"``);
        `inf` holds a coefficient at 0. By default it is learnt: empirical-Bayes prior variances, then their scale
        on held-out rows. A fitted model's `learnt_l2` gives the mapping that fits the same effect on other rows.

    Raises
    ------
    InvalidModelInput
        No features and no intercept, a feature named twice, a reserved name, a negative penalty.

    Examples
    --------
    >>> RandomEffect("member", key="viewer_id", features=["age"]).features
    ('age',)
    """

    name: str
    key: str
    features: Sequence[str] = field(default=())
    intercept: bool = True
    l2: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        where = f"random effect {self.name!r}"
        if isinstance(self.features, str):
            raise InvalidModelInput(f"{where}: features is the string {self.features!r}; give a list of columns.")
        object.__setattr__(self, "features", tuple(self.features))
        if self.name in ("fixed", "unseen", ""):
            raise InvalidModelInput(f"{where}: the name is reserved; choose another.")
        if not self.features and not self.intercept:
            raise InvalidModelInput(f"{where} has neither features nor an intercept; give it one of them.")
        if INTERCEPT in self.features:
            raise InvalidModelInput(f"{where}: a feature may not be called 'intercept'; rename the column.")
        for position, feature in enumerate(self.features):
            if feature in self.features[:position]:
                raise InvalidModelInput(f"{where}: feature {feature!r} is named twice; name each once.")
        penalties = self.l2.values() if isinstance(self.l2, Mapping) else [self.l2]
        for penalty in penalties:
            if penalty is not None and not penalty >= 0:
                raise InvalidModelInput(f"{where}: l2 holds {penalty!r}; allowed: numbers >= 0.")

    def penalties(self, columns: Sequence[str]) -> Floats | None:
        """Return the fixed penalty of each column, or None where it is to be learnt."""
        if self.l2 is None:
            return None
        if not isinstance(self.l2, Mapping):
            return np.full(len(columns), float(self.l2))
        missing = [column for column in columns if column not in self.l2]
        if missing:
            raise InvalidModelInput(
                f"random effect {self.name!r}: l2 has no penalty for {missing[0]!r} "
                f"({len(missing)} of {len(columns)} columns are missing); it has: {', '.join(sorted(self.l2))}."
            )
        return np.array([float(self.l2[column]) for column in columns])


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
    """

    def __init__(self, spec: RandomEffect, frame: pd.DataFrame, taught: int, n_threads: int) -> None:
        where = f"random effect {spec.name!r}"
        check_columns(frame, [spec.key], "key column", where)
        self.spec = spec
        self.encoding = Encoding.learn(frame.iloc[:taught], list(spec.features), where)
        self.columns = (*self.encoding.names, INTERCEPT) if spec.intercept else self.encoding.names
        codes, keys = pd.factorize(read_keys(frame[spec.key], where), sort=True)
        self.codes = codes.astype(np.int64)
        whole = len(keys) > 0 and not isinstance(keys[0], str)  # integers beside a null come as objects
        self.keys = np.asarray(keys, dtype=np.int64 if whole else object)
        self.order = np.argsort(self.codes, kind="stable").astype(np.int64)
        self.order = self.order[int((self.codes < 0).sum()) :]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(self.codes[self.order], minlength=len(keys)))])
        self.starts = self.starts.astype(np.int64)
        self.rows = self.encoding.matrix(frame, where, order=self.order, ones=spec.intercept)
        np.nan_to_num(self.rows, copy=False)
        self.l2 = spec.penalties(self.columns)
        self.scale = 1.0
        self.coefficients = np.zeros((len(keys), len(self.columns)))
        self.margins = np.zeros(len(self.order))
        self.variance = np.zeros(len(self.columns))
        self._bounds = (self.variance, self.variance)
        self._taken = 0
        self._n_threads = n_threads
        d = len(self.columns)
        cost = np.cumsum(np.diff(self.starts) * d + d * d) if len(keys) else np.zeros(0)
        cuts = np.searchsorted(cost, np.linspace(0, cost[-1] if len(cost) else 0, _CHUNKS + 1)[1:-1])
        bounds = np.unique(np.concatenate([[0], cuts, [len(keys)]]))
        self._chunks = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))

    @property
    def learns(self) -> bool:
        """Whether prior variances and their scale are learnt (no fixed `l2`)."""
        return self.l2 is None

    @property
    def dropped(self) -> bool:
        """Whether the effect adds nothing: its scale is 0."""
        return self.scale == 0.0

    def begin(self, labels: Floats, weights: Floats, spread: float) -> None:
        """Take the rows' labels and weights; weight 0 = the row teaches nothing, its margin is kept all the same."""
        self._labels, self._weights = labels[self.order], weights[self.order]
        counts = np.bincount(self.codes[self.order][self._weights > 0], minlength=len(self.keys))
        self.seen = counts > 0
        self.coefficients[~self.seen] = 0.0
        if self._taken or not self.learns:
            return
        used = self.rows[self._weights > 0]
        squares = np.einsum("ij,ij->j", used, used, dtype=np.float64)
        mean_square = squares / np.maximum((used != 0).sum(axis=0), 1)
        self._bounds = variance_bounds(mean_square, spread)
        if (counts > 1).any():
            self.variance = self._bounds[1] / 25.0 * _START_SHARE / len(self.columns)
        else:  # one row an entity cannot tell an effect from noise
            self.variance = self._bounds[0].copy()

    def precision(self, dispersion: float) -> Floats:
        """Return the penalty of each coefficient on the scale of the loss."""
        return self.l2 if self.l2 is not None else dispersion / (self.scale * self.variance)

    def step(self, family: Family, total: Floats, dispersion: float, *, learn: bool) -> float:
        """Take a Newton step for every entity and move `total`, the margin of all rows, in place.

        Parameters
        ----------
        family : Family
        total : float64 array of n
            Offset, fixed margin and all random effects.
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
        gaussian = family.code == GAUSSIAN
        rest = total[self.order] - self.margins
        for _ in range(_FIRST_STEPS if not self._taken and learn and self.learns else 1):
            evidence, coupling = self._newton(family, rest, dispersion, learn and (self.learns or gaussian))
            if learn and self.learns and evidence[1].any():
                updated = updated_variance(self.variance, evidence[0], evidence[1], coupling)
                self.variance = np.clip(updated, *self._bounds)
            self._taken += 1
        total[self.order] = rest + self.margins
        return float(evidence[2].sum())

    def _newton(self, family: Family, rest: Floats, dispersion: float, learn: bool) -> tuple[Floats, Floats]:
        d = len(self.columns)
        evidence, coupling = np.zeros((len(self._chunks), 3, d)), np.zeros((len(self._chunks), d, d))
        penalty = np.minimum(self.precision(dispersion), 1e30)  # inf * 0 would be NaN

        def run(chunk: int) -> None:
            newton_step(
                family.code,
                self.rows,
                self._labels,
                self._weights,
                rest,
                self.starts,
                *self._chunks[chunk],
                penalty,
                learn,
                self.coefficients,
                self.margins,
                evidence[chunk],
                coupling[chunk],
            )

        if self._n_threads == 1:
            for chunk in range(len(self._chunks)):
                run(chunk)
        else:
            with ThreadPoolExecutor(self._n_threads) as pool:
                list(pool.map(run, range(len(self._chunks))))
        return evidence.sum(axis=0), coupling.sum(axis=0)

    def margin(self) -> Floats:
        """Return the effect's margin of each row, in the rows' own order."""
        out = np.zeros(len(self.codes))
        out[self.order] = self.margins
        return out

    def drop(self, total: Floats) -> None:
        """Take the effect out of the model and out of `total`."""
        total[self.order] -= self.margins
        self.scale = 0.0
        self.coefficients[:] = 0.0
        self.margins[:] = 0.0

    def state(self) -> tuple[Floats, Floats]:
        """Return copies of coefficients and margins, for `restore`."""
        return self.coefficients.copy(), self.margins.copy()

    def restore(self, state: tuple[Floats, Floats], total: Floats) -> None:
        """Go back to a state, moving `total` along."""
        total[self.order] += state[1] - self.margins
        self.coefficients, self.margins = state[0].copy(), state[1].copy()

    def fitted(self, family: Family, total: Floats, dispersion: float, variance: str | None) -> Coefficients:
        """Return the coefficients of the entities that had a weighted row, with variances where asked for."""
        posterior = None
        if variance is not None:
            posterior = np.zeros_like(self.coefficients)
            if not self.dropped:
                penalty = np.minimum(self.precision(dispersion), 1e30)
                posterior_variance(
                    family.code,
                    self.rows,
                    self._labels,
                    self._weights,
                    total[self.order],
                    self.starts,
                    0,
                    len(self.keys),
                    penalty,
                    variance == "full",
                    posterior,
                )
                posterior *= dispersion
        if self.l2 is not None:
            self.coefficients[:, np.isinf(self.l2)] = 0.0
        return Coefficients(
            name=self.spec.name,
            key=self.spec.key,
            features=self.encoding.names,
            intercept=self.spec.intercept,
            keys=self.keys[self.seen],
            matrix=self.coefficients[self.seen].astype(np.float32),
            variance=None if posterior is None else posterior[self.seen].astype(np.float32),
        )

    def learnt_l2(self, dispersion: float) -> dict[str, float]:
        """Return the penalty of each column as it stands."""
        if self.dropped:
            return dict.fromkeys(self.columns, math.inf)
        return dict(zip(self.columns, self.precision(dispersion).tolist(), strict=True))
