"""A limit on what an experiment may cost, watched while it runs: an interval that holds at all looks together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from calibration.drift.sums import MINIMUM_VIEWERS, PLANNED_RESPONSES, boundary
from spr.edge_drop.columns import numbers, refuse_where, require_columns, require_dosed
from spr.errors import ConfigError, TableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_NAME: Final = "edge_drop"


@dataclass(frozen=True)
class GuardRail:
    r"""Stops an experiment whose dosed viewers certainly lose more than a share of a metric.

    Parameters
    ----------
    metric : str
        A column of the edge_drop table whose mean is above 0, such as sessions.
    most_loss : float, default 0.05
        Share of the metric that dosed viewers may lose, in [0, 1). 0 stops as soon as any harm is certain.
    alpha : float, default 0.05
        P(the interval misses the true change at any look, ever), asymptotically at most this.
    edge_type : str, optional
        Compare viewers dosed in this type with those who are not, whatever their other doses: in a factorial of many
        types few viewers are dosed in none. Default: dosed in any type against natural in all. A guard-rail for each
        of several types, or metrics, divides alpha by their number.
    planned_viewers : int, default 10_000
        The interval is narrowest when about so many viewers are in; it must not be chosen from the data.

    Raises
    ------
    ConfigError
        When ``most_loss`` or ``alpha`` is outside its range, or ``planned_viewers`` is below 1.

    Notes
    -----
    *What accrues.* Each look gets every viewer whose outcome is complete, and looks are nested: a viewer enters once,
    when its own window (such as 14 days from its first day in the experiment) has passed, whether or not anything
    happened, with the metric of the whole window, and is not changed later. Viewers who enter in the order of their
    activity are compared fairly all the same, since dosed and natural ones enter alike, but the change is then that of
    those who have entered. A cluster enters as a whole, when its last viewer is complete: then its sum is one term.
    Looks may be at any times and any number of them, also chosen after the last look.

    *Estimate.* :math:`\delta = \mu_1 / \mu_0 - 1` of dosed and natural viewers. With ``pre_<metric>`` each mean is that
    of the arm's own regression on it, at the mean of all viewers (Lin, 2013, Annals of Applied Statistics 7). The
    estimate's error is a mean of one term per viewer (or, summed, per cluster), whose sum of squares V goes
    into the two-sided normal-mixture boundary of an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha,
    Kennedy and Ramdas, 2024, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
    Statistics 52), :math:`\delta \pm B(V) / n`. Until both arms are worth 50 equal terms (Kish: (sum of squares)² /
    sum of fourth powers) there are no bounds, since V is not known by then.

    *Stop rule.* ``stop`` is true where the whole interval lies below ``-most_loss``. If the true loss is ``most_loss``
    or less, that ever happens with probability at most alpha, about half of it since the other half is on the
    other side. A loss that is not certain yet does not stop; no look clears an experiment for good either.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> n = 6000
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(n)],
    ...     "dropped_follow": rng.choice([0.0, 0.5], n), "pre_sessions": rng.poisson(20, n)})
    >>> table["sessions"] = rng.poisson(table["pre_sessions"] * (1 - 0.3 * table["dropped_follow"]))
    >>> verdict = GuardRail("sessions").look(table)
    >>> verdict.stop
    True
    >>> print(verdict)
    sessions: -15.5 % in 3,007 dosed against 2,993 natural viewers, always-valid 95 % interval -17.0 % to -13.9 %:
    stop, the loss is more than 5 %
    """

    metric: str
    most_loss: float = 0.05
    alpha: float = 0.05
    edge_type: str | None = None
    planned_viewers: int = 10_000

    def __post_init__(self) -> None:
        if not 0 <= self.most_loss < 1:
            raise ConfigError(f"most_loss is {self.most_loss}; allowed: a share of the metric, 0 to below 1")
        if not 0 < self.alpha < 1:
            raise ConfigError(f"alpha is {self.alpha}; allowed: above 0 and below 1")
        if self.planned_viewers < 1:
            raise ConfigError(f"planned_viewers is {self.planned_viewers}; allowed: 1 or more")

    def look(self, table: pd.DataFrame) -> GuardRailVerdict:
        """Compare the viewers who are in so far.

        Parameters
        ----------
        table : DataFrame
            The edge_drop table up to now: ``dropped_<t>``, ``<metric>`` (null: not complete yet, left out), optional
            ``pre_<metric>`` and ``cluster``. One row per viewer.

        Returns
        -------
        GuardRailVerdict

        Raises
        ------
        TableError
            When a column is missing, a viewer stands twice, a dose is null, a number is infinite, ``pre_<metric>`` or
            ``cluster`` is null where the metric is known, or the natural viewers' mean is not above 0.

        Examples
        --------
        >>> table = pd.DataFrame({"viewer_id": ["a", "b", "c"], "dropped_follow": [0, 0.5, 0.5],
        ...     "sessions": [2.0, 1.0, None]})
        >>> verdict = GuardRail("sessions").look(table)
        >>> verdict.stop, verdict.low, verdict.n_incomplete
        (False, -1.0, 1)
        """
        dosed = self._dosed(table)
        outcome = _finite_or_null(table, self.metric)
        complete = ~np.isnan(outcome)
        cluster = None
        if "cluster" in table:
            cluster = pd.factorize(table["cluster"])[0]
            refuse_where(table, _NAME, (cluster < 0) & complete, "cluster is null")
            cluster = cluster[complete]
        pre = None
        if f"pre_{self.metric}" in table:
            pre = _finite_or_null(table, f"pre_{self.metric}")
            refuse_where(table, _NAME, np.isnan(pre) & complete, f"pre_{self.metric} is null")
            pre = pre[complete]
        dosed, outcome = dosed[complete], outcome[complete]
        n_dosed = int(dosed.sum())
        n_natural = len(dosed) - n_dosed
        change, low, high = float("nan"), -1.0, float("inf")
        means = (float("nan"), float("nan"))
        if n_dosed and n_natural:
            means, influence = _adjusted_means(dosed, outcome, pre)
            if means[1] <= 0:
                raise TableError(
                    f"edge_drop: the mean {self.metric} of {n_natural:,} natural viewers is {means[1]:g}; a relative "
                    "change needs a metric whose mean is above 0"
                )
            change = means[0] / means[1] - 1.0
            low, high = self._interval(change, influence / means[1] @ [1.0, -(1.0 + change)], dosed, cluster)
        raw = [float(outcome[arm].mean()) if arm.any() else float("nan") for arm in (dosed, ~dosed)]
        arms = pd.DataFrame(
            {"viewers": [n_dosed, n_natural], "mean": raw, "adjusted_mean": means},
            index=pd.Index(["dosed", "natural"], name="arm"),
        )
        return GuardRailVerdict(self, change, low, high, high < -self.most_loss, int((~complete).sum()), arms)

    def _dosed(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        found = require_dosed(table, _NAME, () if self.edge_type is None else (self.edge_type,))
        require_columns(table, _NAME, ["viewer_id", self.metric])
        again = table["viewer_id"].duplicated().to_numpy()
        refuse_where(table, _NAME, again, "viewer_id is not unique: a viewer enters once")
        columns = [f"dropped_{t}" for t in (found if self.edge_type is None else [self.edge_type])]
        doses = np.column_stack([_finite_or_null(table, name) for name in columns])
        refuse_where(table, _NAME, np.asarray(np.isnan(doses).any(axis=1)), f"{' or '.join(columns)} is null")
        return np.asarray((doses > 0).any(axis=1))

    def _interval(
        self, change: float, term: Floats, dosed: NDArray[np.bool_], cluster: NDArray[np.intp] | None
    ) -> tuple[float, float]:
        n = len(term)
        for arm in (dosed, ~dosed):
            own = np.where(arm, term, 0.0)
            square = (own if cluster is None else np.bincount(cluster, own)) ** 2
            if (square**2).sum() * MINIMUM_VIEWERS > square.sum() ** 2 or not square.any():
                return -1.0, float("inf")
        total = term if cluster is None else np.bincount(cluster, term)
        variance = np.asarray((total**2).sum())
        half = float(boundary(variance, self.alpha, variance / n * self.planned_viewers / PLANNED_RESPONSES))
        # A metric of people cannot fall by more than all of it.
        return max(change - half / n, -1.0), change + half / n


@dataclass(frozen=True, eq=False)
class GuardRailVerdict:
    """What one look of a guard-rail says.

    Parameters
    ----------
    guard_rail : GuardRail
        Whose look it is.
    relative_change : float
        Of the metric's mean, dosed against natural; -0.03 is a loss of 3 %. NaN while an arm is empty.
    low, high : float
        Always-valid interval of it; -1 and infinity while too few viewers are in.
    stop : bool
        The whole interval lies below ``-most_loss``.
    n_incomplete : int
        Viewers left out since their metric is null.
    table : DataFrame
        By ``arm`` (dosed, natural): viewers, mean, adjusted_mean (equal to the mean without a pre-period).
    """

    guard_rail: GuardRail
    relative_change: float
    low: float
    high: float
    stop: bool
    n_incomplete: int
    table: pd.DataFrame

    def __str__(self) -> str:
        guard, viewers = self.guard_rail, self.table["viewers"]
        natural = "natural" if guard.edge_type is None else f"natural (in {guard.edge_type})"
        arms = f"{viewers['dosed']:,} dosed against {viewers['natural']:,} {natural} viewers"
        left = f" ({self.n_incomplete:,} not complete yet)" if self.n_incomplete else ""
        if not np.isfinite(self.high):
            return f"{guard.metric}: {arms}{left}: too few for an interval, go on"
        interval = (
            f"always-valid {100 * (1 - guard.alpha):g} % interval {100 * self.low:.1f} % to {100 * self.high:.1f} %"
        )
        limit = f"{100 * guard.most_loss:g} %"
        end = (
            f"stop, the loss is more than {limit}"
            if self.stop
            else f"go on, a loss of more than {limit} is not certain"
        )
        return f"{guard.metric}: {100 * self.relative_change:+.1f} % in {arms}{left}, {interval}: {end}"


def _adjusted_means(
    dosed: NDArray[np.bool_], outcome: Floats, pre: Floats | None
) -> tuple[tuple[float, float], Floats]:
    """Return the means of dosed and natural viewers, and float64[n, 2]: n times each viewer's share of their errors."""
    n = len(outcome)
    means = []
    influence = np.zeros((n, 2))
    deviation = np.zeros(n) if pre is None else pre - pre.mean()
    for place, arm in enumerate((dosed, ~dosed)):
        y, x = outcome[arm], deviation[arm]
        centred = x - x.mean()
        spread = centred @ centred
        slope = float(centred @ y / spread) if spread > 0 else 0.0
        mean = float(y.mean() - slope * x.mean())
        means.append(mean)
        influence[:, place] = slope * deviation
        influence[arm, place] += n / len(y) * (y - mean - slope * x)
    return (means[0], means[1]), influence


def _finite_or_null(table: pd.DataFrame, column: str) -> Floats:
    values = numbers(table, _NAME, column)
    refuse_where(table, _NAME, np.isinf(values), f"{column} is infinite")
    return values
