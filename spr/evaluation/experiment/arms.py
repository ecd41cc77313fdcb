"""An A/B test from its table: every metric, arm and segment against the control, and what casts doubt on it first."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import ConfigError, name_unknown
from spr.evaluation.experiment.checks import check_arms, count_arms
from spr.evaluation.experiment.comparison import ArmComparison
from spr.evaluation.experiment.effects import compare_with_control
from spr.evaluation.experiment.metrics import Metric
from spr.evaluation.experiment.multiplicity import EXPLORATORY, GUARD_RAIL, PRIMARY, adjust_p_values
from spr.evaluation.experiment.segments import interaction_p_value
from spr.evaluation.experiment.sequential import AnyLooks, Looks, OneLook
from spr.evaluation.experiment.table import ALL, read_arms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spr.evaluation.experiment.effects import Effect
    from spr.evaluation.experiment.table import ArmRows
    from spr.tables import Table

_FEW_UNITS = 40.0
_COLUMNS = [
    *("segment", "metric", "arm", "family", "control_members", "members", "effective_units"),
    *("raw_control_value", "raw_value", "control_value", "value", "difference", "low", "high"),
    *("relative", "relative_low", "relative_high", "standard_error", "df"),
    *("p_value", "p_adjusted", "variance_ratio", "verdict"),
]


def compare_arms(
    table: Table,
    metrics: Sequence[str],
    *,
    control: str = "control",
    shares: Mapping[str, float] | None = None,
    primary: Sequence[str] = (),
    most_loss: Mapping[str, float] | None = None,
    most_rise: Mapping[str, float] | None = None,
    covariates: Sequence[str] = (),
    planned_members: int | None = None,
    outcome_window: str | pd.Timedelta | None = None,
    snapshot: str | pd.Timestamp | None = None,
    alpha: float = 0.05,
) -> ArmComparison:
    r"""Compare the arms of an A/B test with its control.

    Parameters
    ----------
    table : DataFrame or path
        One row per member who was assigned: ``viewer_id``, ``arm``, the metrics' columns (null: the member's window is
        open, or nothing was measured; left out of that metric). Optional: ``pre_<column>``, the same column before the
        member's assignment (null: no past then), which adjusts; ``cluster``, members who were assigned together or
        depend on each other; ``segment``, known before the assignment, such as frequent and infrequent;
        ``entered_at``.
    metrics : sequence of str
        ``"column"``, its mean over members, or ``"numerator/denominator"``, a ratio of sums.
    control : str, default "control"
        The arm that every other is compared with.
    shares : mapping of str to float, optional
        Planned share of each arm. None: equal.
    primary : sequence of str, default ()
        Metrics, of ``metrics``, that decide; declared before the experiment. The others explore.
    most_loss, most_rise : mapping of str to float, optional
        Guard-rails: by metric, of ``metrics``, the share of the control's value, in [0, 1), that an arm may lose, or
        (for what should not grow, such as dismissals) gain.
    covariates : sequence of str, default ()
        Further numeric columns from before the assignment that adjust every metric.
    planned_members : int, optional
        None: this is the one look that was planned. Given: intervals and p-values hold at all looks together, and are
        tightest when about so many members are in, all arms together. It must not be chosen from the data.
    outcome_window, snapshot : optional
        Length such as ``"14D"`` and moment: members whose ``entered_at`` + window is after the snapshot do not count,
        whatever happened. Always for more than one look, unless open windows are null already: otherwise active
        members would enter first and be changed later.
    alpha : float, default 0.05
        1 - level of each interval.

    Returns
    -------
    ArmComparison

    Raises
    ------
    TableError
        When the table breaks its contract: the rule, the count and the first row.
    ConfigError
        When a metric, arm or share is not known or not allowed.
    InvalidExperiment
        When there is no arm besides the control.

    Notes
    -----
    *Estimates.* Values are adjusted by each arm's own regression on the pre-periods and covariates (Lin 2013; to first
    order CUPED for ratios, Deng et al. 2013), intervals by the delta method over members or clusters, the relative one
    by Fieller; see :func:`spr.evaluation.experiment.adjustment.estimate_arms` and
    :func:`spr.evaluation.experiment.effects.compare_with_control`. At a look only members who are in by then are used,
    for the slopes as well.

    *Looks.* See :class:`spr.evaluation.experiment.sequential.AnyLooks`.

    *Many comparisons.* ``p_adjusted`` is Holm's over the primary metrics and arms, for all members, and Benjamini and
    Hochberg's over all that explores, with every segment's comparisons. Intervals are each at 1 - alpha. Guard-rails
    that are not primary are not adjusted: an experiment passes when *every* one passes, which errs with probability
    alpha / 2 at most (Berger, 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24).

    *Supposed.* Assignment at random by member or cluster, as ``shares`` says; no effect of one unit's arm on another;
    pasts and segments that the arms could not change; enough units for normal estimates (a note says where fewer than
    40 effective ones are in an arm).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(8000)], "pre_likes": rng.gamma(2.0, 5.0, 8000)})
    >>> table["arm"] = rng.choice(["control", "new"], 8000)
    >>> table["likes"] = rng.poisson(table["pre_likes"] * np.where(table["arm"] == "new", 1.03, 1.0))
    >>> table["shown"] = 50 + rng.poisson(10, 8000)
    >>> print(compare_arms(table, ["likes", "likes/shown"], primary=["likes"]))
    8,000 members, control 'control', one look, 95 % intervals
    likes [primary]
      new: +3.0 % (+1.6 % to +4.4 %), p 2.3e-05, adjusted 2.3e-05, variance 0.17 of unadjusted
    likes/shown [exploratory]
      new: +2.8 % (+1.4 % to +4.3 %), p 8.9e-05, adjusted 8.9e-05, variance 0.17 of unadjusted
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha}; allowed: above 0 and below 1")
    limits = {name: (float(share), "loss") for name, share in (most_loss or {}).items()}
    for name, share in (most_rise or {}).items():
        if name in limits:
            raise ConfigError(f"the metric {name!r} has a most_loss and a most_rise; allowed: one of them")
        limits[name] = (float(share), "rise")
    parsed = _parse(metrics, primary, limits)
    rows = read_arms(
        table,
        list(parsed.values()),
        control=control,
        covariates=covariates,
        outcome_window=outcome_window,
        snapshot=snapshot,
    )
    looks: Looks = OneLook() if planned_members is None else AnyLooks(planned_members)
    sample_ratio, checks = count_arms(rows, shares), check_arms(rows, list(parsed.values()))
    family = {name: PRIMARY if name in primary else GUARD_RAIL if name in limits else EXPLORATORY for name in parsed}
    comparisons, interactions = _compare(rows, parsed, looks, alpha)
    of_metric = comparisons["metric"].map(family)
    # A segment of what decides explores: it was not declared.
    in_segment = (comparisons["segment"] != ALL) & (of_metric == PRIMARY)
    comparisons["family"] = of_metric.mask(in_segment, EXPLORATORY)
    comparisons["p_adjusted"] = adjust_p_values(
        comparisons["p_value"].to_numpy(dtype=np.float64), comparisons["family"].to_numpy(dtype=object)
    )
    comparisons["verdict"] = [
        _verdict(*limits[metric], low, high) if metric in limits else None
        for metric, low, high in comparisons[["metric", "relative_low", "relative_high"]].itertuples(index=False)
    ]
    if isinstance(looks, AnyLooks):
        interactions = interactions.iloc[:0]
    exploring = np.full(len(interactions), EXPLORATORY, dtype=object)
    interactions["p_adjusted"] = adjust_p_values(interactions["p_value"].to_numpy(dtype=np.float64), exploring)
    return ArmComparison(
        control=control,
        alpha=alpha,
        planned_members=planned_members,
        comparisons=comparisons[_COLUMNS],
        sample_ratio=sample_ratio,
        checks=checks,
        interactions=interactions,
        warnings=_warnings(rows, sample_ratio, checks),
        notes=_notes(rows, parsed, comparisons, looks),
    )


def _parse(
    metrics: Sequence[str], primary: Sequence[str], limits: Mapping[str, tuple[float, str]]
) -> dict[str, Metric]:
    if isinstance(metrics, str):
        raise ConfigError(f"metrics is the text {metrics!r}; allowed: a list of metrics, [{metrics!r}]")
    parsed = {metric.name: metric for metric in map(Metric.parse, metrics)}
    if not parsed:
        raise ConfigError("no metric is named; at least one is needed")
    for where, names in (("primary", primary), ("most_loss or most_rise", limits)):
        for name in names:
            if name not in parsed:
                raise ConfigError(name_unknown("metric", name, parsed, where))
    for name, (share, what) in limits.items():
        if not 0 <= share < 1:
            raise ConfigError(f"most_{what} of {name!r} is {share}; allowed: a share of the metric, 0 to below 1")
    return parsed


def _compare(
    rows: ArmRows, metrics: Mapping[str, Metric], looks: Looks, alpha: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row per segment (all first), metric and arm; and the interactions, by metric and arm."""
    splits = [None, *range(len(rows.segments))]
    found, interactions = [], []
    for name, metric in metrics.items():
        estimates = [rows.estimate(metric, rows.in_segment(split)) for split in splits]
        raw = [rows.estimate(metric, rows.in_segment(split), adjusted=False) for split in splits]
        for k in range(1, len(rows.arms)):
            effects = [compare_with_control(made, k, looks, alpha) for made in estimates]
            for split, effect, made, plain in zip(splits, effects, estimates, raw, strict=True):
                found.append(
                    {
                        "segment": ALL if split is None else rows.segments[split],
                        "metric": name,
                        "arm": rows.arms[k],
                        "control_members": int(made.members[0]),
                        "members": int(made.members[k]),
                        "effective_units": float(min(made.effective_units[[0, k]])),
                        "raw_control_value": float(plain.value[0]),
                        "raw_value": float(plain.value[k]),
                        **asdict(effect),
                        "variance_ratio": _variance_ratio(effect, compare_with_control(plain, k, looks, alpha)),
                    }
                )
            if rows.segments:
                p_value = interaction_p_value(estimates[1:], effects[1:], k)
                interactions.append({"metric": name, "arm": rows.arms[k], "p_value": p_value})
    table = pd.DataFrame(found).rename_axis(None)
    order = table["segment"].map({name: place for place, name in enumerate([ALL, *rows.segments])})
    table = table.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)
    return table, pd.DataFrame(interactions, columns=["metric", "arm", "p_value"])


def _variance_ratio(adjusted: Effect, raw: Effect) -> float:
    return float((adjusted.standard_error / raw.standard_error) ** 2)


def _verdict(share: float, what: str, low: float, high: float) -> str:
    best, worst = (high, low) if what == "loss" else (-low, -high)
    return "passed" if worst > -share else "failed" if best < -share else "not certain"


def _warnings(rows: ArmRows, sample_ratio: pd.DataFrame, checks: pd.DataFrame) -> tuple[str, ...]:
    said = []
    if sample_ratio["suspect"].any():
        what = "clusters" if rows.assigned_clusters else "members"
        counts = ", ".join(
            f"{name} {found:,} of {planned:,.0f} planned"
            for name, found, planned in sample_ratio[["observed", "planned"]].itertuples()
        )
        p_value = float(sample_ratio["p_value"].iloc[0])
        said.append(
            f"sample ratio: {what} are not split as planned (p = {p_value:.1g}): {counts}. Find out who is missing or "
            "assigned in some other way before reading on"
        )
    for check, what, arm, p_value, suspect in checks.itertuples(index=False):
        if suspect and check == "missing":
            said.append(
                f"missing: members of {arm!r} lack {what} more or less often than the control's (p = {p_value:.1g})"
            )
        elif suspect:
            said.append(
                f"past: {what} differs between {arm!r} and the control before the experiment (p = {p_value:.1g})"
            )
    return tuple(said)


def _notes(rows: ArmRows, metrics: Mapping[str, Metric], comparisons: pd.DataFrame, looks: Looks) -> tuple[str, ...]:
    said = []
    still_open = int((~rows.closed).sum())
    if still_open:
        said.append(f"{still_open:,} of {rows.n:,} members have an open window and do not count yet")
    for name, metric in metrics.items():
        missing = int((rows.closed & ~rows.known(metric)).sum())
        if missing:
            said.append(f"{name} is null for {missing:,} members, who are left out of it")
    for segment, metric, arm, units, p_value, df in comparisons[
        ["segment", "metric", "arm", "effective_units", "p_value", "df"]
    ].itertuples(index=False):
        where = f"{metric}, {arm}" if segment == ALL else f"{metric}, {arm}, {segment}"
        if np.isnan(p_value) and units < looks.least_units:
            said.append(f"{where}: worth {units:.0f} units in an arm; an interval needs {looks.least_units:.0f}")
        elif np.isnan(p_value):
            said.append(f"{where}: no error can be stated: too few {rows.unit_name}, or all values alike")
        elif min(units, df) < _FEW_UNITS:
            said.append(f"{where}: worth {units:.0f} units in an arm; intervals suppose estimates about normal")
    if rows.segments and isinstance(looks, AnyLooks):
        said.append("interaction tests hold for one look only and are left out")
    return tuple(said)
