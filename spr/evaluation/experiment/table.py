"""The table of an experiment: one row per member, read as a contract; and the members that one metric counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.edge_drop.columns import codes, numbers, refuse_where, require_ids
from spr.edge_drop.table import centred_covariates
from spr.errors import ConfigError, InvalidExperiment, TableError, name_unknown
from spr.evaluation.experiment.adjustment import estimate_arms
from spr.evaluation.experiment.metrics import PRE, RESERVED
from spr.tables import load_table, require_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spr.evaluation.experiment.adjustment import ArmEstimates
    from spr.evaluation.experiment.metrics import Metric
    from spr.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

NAME = "arms"
ALL = "all"


@dataclass(frozen=True, eq=False)
class ArmRows:
    """n members of an experiment in K arms.

    Parameters
    ----------
    arms : tuple of str
        Names, the control first.
    arm : int64[n]
        Index into ``arms``.
    unit : int64[n]
        Code of the cluster, or of the member where there are no clusters.
    unit_name : str
        ``"clusters"`` or ``"members"``.
    assigned_clusters : bool
        Whether each cluster is in one arm, and so was assigned as a whole.
    segment : int64[n] or None
        Index into ``segments``.
    segments : tuple of str
    closed : bool[n]
        Whether the member's outcome window has closed.
    columns : mapping of str to float64[n]
        Columns of the metrics and covariates, and the pre-periods that the table has; NaN where null.
    covariates : tuple of str
        Columns that adjust every metric.
    """

    arms: tuple[str, ...]
    arm: Ints
    unit: Ints
    unit_name: str
    assigned_clusters: bool
    segment: Ints | None
    segments: tuple[str, ...]
    closed: Bools
    columns: Mapping[str, Floats]
    covariates: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many members there are."""
        return len(self.arm)

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return int(self.unit.max()) + 1

    def known(self, metric: Metric) -> Bools:
        """Tell which members have the metric, bool[n]: their window has closed and none of its columns is null."""
        return self.closed & ~np.isnan([self.columns[column] for column in metric.columns]).any(axis=0)

    def pre_columns(self, metric: Metric) -> list[str]:
        """Return the columns of the metric's own pre-period that the table has."""
        return [PRE + column for column in metric.columns if PRE + column in self.columns]

    def in_segment(self, segment: int | None) -> Bools:
        """Tell who is in a segment; None is everybody."""
        if segment is None or self.segment is None:
            return np.ones(self.n, dtype=bool)
        return np.asarray(self.segment == segment)

    def with_arms(self, arms: tuple[str, ...], arm: Ints) -> ArmRows:
        """Return the same members, dealt out anew."""
        return replace(self, arms=arms, arm=arm)

    def each_alone(self) -> ArmRows:
        """Return the same members as if none depended on another."""
        return replace(self, unit=np.arange(self.n), unit_name="members", assigned_clusters=False)

    def estimate(self, metric: Metric, members: Bools, *, adjusted: bool = True) -> ArmEstimates:
        """Estimate a metric in each arm.

        Parameters
        ----------
        metric : Metric
        members : bool[n]
            Who counts; those without the metric do not.
        adjusted : bool, default True
            For its pre-period and the covariates.

        Returns
        -------
        ArmEstimates
        """
        members = members & self.known(metric)
        names = [*self.pre_columns(metric), *self.covariates] if adjusted and members.any() else []
        pre = [self.columns[name][members] for name in names]
        numerator = self.columns[metric.numerator][members]
        per = np.ones(self.n) if metric.denominator is None else self.columns[metric.denominator]
        return estimate_arms(
            numerator,
            per[members],
            self.arm[members],
            len(self.arms),
            centred_covariates(pre, len(numerator)),
            self.unit[members],
            self.n_units,
        )


def read_arms(
    table: Table,
    metrics: Sequence[Metric],
    *,
    control: str | None,
    covariates: Sequence[str] = (),
    outcome_window: str | pd.Timedelta | None = None,
    snapshot: str | pd.Timestamp | None = None,
) -> ArmRows:
    """Read one row per member.

    Parameters
    ----------
    table : DataFrame or path
        ``viewer_id``, ``arm``, the metrics' columns (null: the window is open, or not measured); optional
        ``pre_<column>`` (null: without a past), ``cluster``, ``segment``, ``entered_at``.
    metrics : sequence of Metric
    control : str or None
        The arm that the others are compared with; None: the table has no arms, as before an experiment.
    covariates : sequence of str, default ()
        Further numeric columns from before the assignment.
    outcome_window : str or Timedelta, optional
        How long each member is measured, such as ``"14D"``; with ``snapshot``.
    snapshot : str or Timestamp, optional
        When the table was made; with ``entered_at``. Members whose window is open then are not counted, whatever
        happened.

    Returns
    -------
    ArmRows

    Raises
    ------
    TableError
        When a column is missing or a value is not allowed: the rule, the count and the first row.
    ConfigError
        When a covariate is an outcome, or only one of ``outcome_window`` and ``snapshot`` is given.
    InvalidExperiment
        When there is no arm besides the control.

    Examples
    --------
    >>> table = pd.DataFrame({"viewer_id": ["a", "b", "c"], "arm": ["new", "old", "new"], "likes": [1, 2, None]})
    >>> from spr.evaluation.experiment.metrics import Metric
    >>> rows = read_arms(table, [Metric("likes")], control="old")
    >>> rows.arms, rows.arm, rows.known(Metric("likes"))
    (('old', 'new'), array([1, 0, 1]), array([ True,  True, False]))
    """
    frame = load_table(table, NAME).reset_index(drop=True)
    outcomes = list(dict.fromkeys(column for metric in metrics for column in metric.columns))
    for name in covariates:
        if name in outcomes or name in RESERVED:
            raise ConfigError(f"the covariate {name!r} is no column from before the assignment")
    require_columns(frame, NAME, ["viewer_id", *([] if control is None else ["arm"]), *outcomes, *covariates])
    if frame.empty:
        raise TableError(f"{NAME}: no rows; one per member is needed")
    require_ids(frame, NAME, "viewer_id", unique=True)
    arms, arm = _read_arm(frame, control)
    pre = [PRE + column for column in outcomes if PRE + column in frame]
    columns = {name: _finite_or_null(frame, name) for name in dict.fromkeys([*outcomes, *pre, *covariates])}
    for metric in metrics:
        if metric.denominator is not None:
            negative = columns[metric.denominator] < 0
            refuse_where(frame, NAME, negative, f"{metric.denominator} is negative, and the denominator of a ratio")
    unit, unit_name, whole = np.arange(len(frame)), "members", False
    if "cluster" in frame:
        unit, unit_name = codes(frame, NAME, "cluster")[0], "clusters"
        whole = len(np.unique(unit * len(arms) + arm)) == unit.max() + 1
    segment, segments = codes(frame, NAME, "segment") if "segment" in frame else (None, ())
    if ALL in segments:
        raise TableError(f"{NAME}: a segment is called {ALL!r}, which stands for all members; call it something else")
    closed = _closed(frame, outcome_window, snapshot)
    return ArmRows(arms, arm, unit, unit_name, whole, segment, segments, closed, columns, tuple(covariates))


def _read_arm(frame: pd.DataFrame, control: str | None) -> tuple[tuple[str, ...], Ints]:
    if control is None:
        return (ALL,), np.zeros(len(frame), dtype=np.int64)
    code, found = codes(frame, NAME, "arm")
    if control not in found:
        raise TableError(f"{NAME}: {name_unknown('arm', control, found, 'control')}")
    if len(found) < 2:
        raise InvalidExperiment(f"{NAME}: all {len(frame):,} members are in {control!r}; another arm is needed")
    order = [found.index(control), *(place for place, name in enumerate(found) if name != control)]
    return tuple(found[place] for place in order), np.argsort(order)[code]


def _finite_or_null(frame: pd.DataFrame, column: str) -> Floats:
    values = numbers(frame, NAME, column)
    refuse_where(frame, NAME, np.isinf(values), f"{column} is infinite")
    return values


def _closed(frame: pd.DataFrame, window: str | pd.Timedelta | None, snapshot: str | pd.Timestamp | None) -> Bools:
    if (window is None) != (snapshot is None):
        raise ConfigError("of outcome_window and snapshot one is given; allowed: both, or neither")
    if window is None or snapshot is None:
        return np.ones(len(frame), dtype=bool)
    require_columns(frame, NAME, ["entered_at"])
    try:
        length, now = pd.Timedelta(window), pd.to_datetime(snapshot, utc=True)
        entered = pd.to_datetime(frame["entered_at"], utc=True)
    except (ValueError, TypeError) as error:
        raise TableError(f"{NAME}: entered_at, outcome_window or snapshot is no time: {error}") from error
    refuse_where(frame, NAME, entered.isna().to_numpy(), "entered_at is null")
    return np.asarray(entered + length <= now)
