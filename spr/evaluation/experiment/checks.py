"""What must hold before an experiment is believed: arms as planned, nobody missing by arm, the same past."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from spr.edge_drop.sample_ratio import SUSPECT_BELOW, counts_p_value
from spr.errors import ConfigError, name_unknown
from spr.evaluation.experiment.adjustment import estimate_arms
from spr.evaluation.experiment.effects import compare_with_control
from spr.evaluation.experiment.metrics import Metric
from spr.evaluation.experiment.sequential import OneLook
from spr.evaluation.experiment.table import ArmRows, read_arms
from spr.progress import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from spr.tables import Table

    Floats = NDArray[np.float64]

_ONE_LOOK = OneLook()
_CHECKS = ["check", "what", "arm", "p_value", "suspect"]


def count_arms(rows: ArmRows, shares: Mapping[str, float] | None) -> pd.DataFrame:
    """Compare the units of each arm with the plan.

    Parameters
    ----------
    rows : ArmRows
    shares : mapping of str to float, optional
        Planned share of each arm, which are scaled to sum to 1. None: equal.

    Returns
    -------
    DataFrame
        By ``arm``: planned, observed (members, or clusters where they were assigned as a whole), p_value of
        Pearson's chi-square (the same in all rows), suspect (below 0.001).

    Raises
    ------
    ConfigError
        When a share is not above 0, or an arm of the table has none.

    Examples
    --------
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(1000)], "arm": ["a"] * 570 + ["b"] * 430, "y": 1.0})
    >>> count_arms(read_arms(table, [Metric("y")], control="a"), None)[["planned", "observed", "suspect"]]
         planned  observed  suspect
    arm
    a      500.0       570     True
    b      500.0       430     True
    """
    shares = dict.fromkeys(rows.arms, 1.0) if shares is None else shares
    for name, share in shares.items():
        if not 0 < share < np.inf:
            raise ConfigError(f"the share of {name!r} is {share}; allowed: above 0")
    for name in rows.arms:
        if name not in shares:
            raise ConfigError(name_unknown("arm", name, shares, "the planned shares"))
    first = np.unique(rows.unit, return_index=True)[1] if rows.assigned_clusters else np.arange(rows.n)
    counted = np.bincount(rows.arm[first], minlength=len(rows.arms))
    names = [*rows.arms, *(name for name in shares if name not in rows.arms)]
    observed = np.append(counted, np.zeros(len(names) - len(counted), dtype=np.int64))
    planned = np.array([shares[name] for name in names]) / sum(shares.values()) * observed.sum()
    p_value = counts_p_value(observed, planned)
    table = pd.DataFrame({"planned": planned, "observed": observed, "p_value": p_value}, index=names)
    return table.assign(suspect=p_value < SUSPECT_BELOW).rename_axis("arm")


def check_arms(rows: ArmRows, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Test whether members lack a metric, or differed in the past, by arm.

    Parameters
    ----------
    rows : ArmRows
    metrics : sequence of Metric

    Returns
    -------
    DataFrame
        One row per check and arm: ``check`` (``"missing"``: the share of members without the metric, among those whose
        window has closed; ``"past"``: the pre-period, unadjusted, of all members), ``what`` (the metric, or the
        column), ``arm`` (beside the control), ``p_value`` by the same errors as the comparison's, ``suspect`` (below
        0.001). None where nobody is missing and there is no past.

    Examples
    --------
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(400)], "arm": ["a", "b"] * 200, "y": 1.0})
    >>> table.loc[(table["arm"] == "b") & (table.index < 80), "y"] = np.nan
    >>> check_arms(read_arms(table, [Metric("y")], control="a"), [Metric("y")])[["check", "arm", "suspect"]]
         check arm  suspect
    0  missing   b     True
    """
    found = []
    for check, what, values, members in _checked(rows, metrics):
        n = int(members.sum())
        made = estimate_arms(
            values[members],
            np.ones(n),
            rows.arm[members],
            len(rows.arms),
            np.empty((n, 0)),
            rows.unit[members],
            rows.n_units,
        )
        for k in range(1, len(rows.arms)):
            p_value = compare_with_control(made, k, _ONE_LOOK, 0.05).p_value
            found.append((check, what, rows.arms[k], p_value, p_value < SUSPECT_BELOW))
    return pd.DataFrame(found, columns=_CHECKS)


def a_a_check(
    table: Table,
    metrics: Sequence[str],
    *,
    covariates: Sequence[str] = (),
    alpha: float = 0.05,
    n_splits: int = 1000,
    rng: np.random.Generator,
    progress: Progress = ignore,
) -> pd.DataFrame:
    """Split members who were treated alike into two arms, many times, and count the differences that seem certain.

    Parameters
    ----------
    table : DataFrame or path
        One row per member of a period without an experiment, as of :func:`compare_arms` without ``arm``.
    metrics : sequence of str
        As of :func:`compare_arms`.
    covariates : sequence of str, default ()
        Further columns from before the period.
    alpha : float, default 0.05
        Level of the tests.
    n_splits : int, default 1000
        Halves drawn at random, of members, or of clusters where there are any.
    rng : Generator
    progress : callable, optional
        ``progress(stage, done, total)``.

    Returns
    -------
    DataFrame
        By ``metric``: ``false_positives`` (share of the splits), ``low``, ``high`` (its 95 % interval, Clopper and
        Pearson), ``p_value`` (of a true share of alpha), ``suspect`` (below 0.001: the errors of this metric are
        wrong, as when its members depend on each other and have no ``cluster``, or a few of them are most of it).

    Raises
    ------
    TableError
        When the table breaks its contract.
    ConfigError
        When ``alpha`` is outside (0, 1), or ``n_splits`` is below 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(500)], "likes": rng.gamma(0.5, 10, 500)})
    >>> a_a_check(table, ["likes"], n_splits=200, rng=rng)[["false_positives", "suspect"]]
            false_positives  suspect
    metric
    likes              0.06    False
    """
    if not 0 < alpha < 1 or n_splits < 1:
        raise ConfigError(f"alpha is {alpha}, n_splits {n_splits}; allowed: above 0 and below 1, and 1 or more")
    parsed = [Metric.parse(text) for text in metrics]
    rows = read_arms(table, parsed, control=None, covariates=covariates)
    everybody = np.ones(rows.n, dtype=bool)
    halves = np.arange(rows.n_units) % 2
    rejected = np.zeros(len(parsed), dtype=np.int64)
    for split in range(n_splits):
        half = rng.permutation(halves)[rows.unit]
        dealt = rows.with_arms(("a", "b"), half)
        for place, metric in enumerate(parsed):
            made = dealt.estimate(metric, everybody)
            rejected[place] += compare_with_control(made, 1, _ONE_LOOK, alpha).p_value < alpha
        progress("splits", split + 1, n_splits)
    tests = [binomtest(int(count), n_splits, alpha) for count in rejected]
    intervals = [test.proportion_ci() for test in tests]
    return pd.DataFrame(
        {
            "false_positives": rejected / n_splits,
            "low": [one.low for one in intervals],
            "high": [one.high for one in intervals],
            "p_value": [test.pvalue for test in tests],
            "suspect": [test.pvalue < SUSPECT_BELOW for test in tests],
        },
        index=pd.Index([metric.name for metric in parsed], name="metric"),
    )


def _checked(rows: ArmRows, metrics: Sequence[Metric]) -> Iterator[tuple[str, str, Floats, NDArray[np.bool_]]]:
    """Yield check, what it is of, its values and whose."""
    for metric in metrics:
        missing = rows.closed & ~rows.known(metric)
        if missing.any():
            yield "missing", metric.name, missing.astype(np.float64), rows.closed
    for column in dict.fromkeys(column for metric in metrics for column in rows.pre_columns(metric)):
        values = rows.columns[column]
        yield "past", column, values, ~np.isnan(values)
