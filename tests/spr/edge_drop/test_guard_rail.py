"""Guard-rails: false stops over many looks, true ones, the estimate against statsmodels, clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from spr.edge_drop.guard_rail import GuardRail
from spr.errors import ConfigError, TableError


def simulated(n: int, loss: float, rng: np.random.Generator, *, sd: float = 8.0) -> pd.DataFrame:
    """Make viewers in the order of entering: half of them dosed, who lose a share of the metric."""
    pre = rng.gamma(2.0, 10.0, n)
    dose = rng.choice([0.0, 0.5], n)
    return pd.DataFrame(
        {
            "viewer_id": np.arange(n).astype(str),
            "dropped_follow": dose,
            "pre_sessions": pre,
            "sessions": (pre + rng.normal(0, sd, n)) * np.where(dose > 0, 1 - loss, 1),
        }
    )


@pytest.mark.parametrize(("adjusted", "n"), [(True, 500), (False, 150)])
def test_over_thirty_looks_a_loss_at_the_limit_stops_as_rarely_as_stated(adjusted: bool, n: int) -> None:
    rng = np.random.default_rng(0)
    guard = GuardRail("sessions", most_loss=0.05, alpha=0.05, planned_viewers=1000)
    stops = misses = 0
    for _ in range(n):
        table = simulated(1500, 0.05, rng)
        if not adjusted:
            table = table.drop(columns="pre_sessions")
        looks = [guard.look(table.iloc[: 50 * day]) for day in range(1, 31)]
        stops += any(look.stop for look in looks)
        misses += any(not look.low <= -0.05 <= look.high for look in looks)
    assert stops <= misses <= n * 0.05 + 3 * np.sqrt(n * 0.05 * 0.95)


def test_a_fixed_time_interval_would_stop_far_too_often() -> None:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(200):
        table = simulated(1500, 0.0, rng)
        for n in range(50, 1501, 50):
            part = table[:n]
            dosed = part["dropped_follow"] > 0
            a, b = part["sessions"][dosed], part["sessions"][~dosed]
            if abs(a.mean() - b.mean()) > 1.96 * np.sqrt(a.var() / len(a) + b.var() / len(b)):
                missed += 1
                break
    assert missed > 200 * 0.2


def test_a_loss_beyond_the_limit_stops_and_the_adjustment_stops_it_earlier() -> None:
    rng = np.random.default_rng(2)
    first = {"adjusted": [], "raw": []}
    for _ in range(20):
        table = simulated(8000, 0.15, rng)
        for name, part in (("adjusted", table), ("raw", table.drop(columns="pre_sessions"))):
            looks = (
                n for n in range(250, 8001, 250) if GuardRail("sessions", planned_viewers=2000).look(part[:n]).stop
            )
            first[name].append(next(looks, 8250))
    assert np.mean(first["adjusted"]) < 0.5 * np.mean(first["raw"])
    assert max(first["adjusted"]) <= 8000


def test_a_limit_of_zero_stops_where_any_harm_is_certain() -> None:
    table = simulated(8000, 0.03, np.random.default_rng(3), sd=4.0)
    assert GuardRail("sessions", most_loss=0.0).look(table).stop
    assert not GuardRail("sessions", most_loss=0.05).look(table).stop
    gain = simulated(8000, -0.1, np.random.default_rng(3), sd=4.0)
    assert not GuardRail("sessions", most_loss=0.0).look(gain).stop


@pytest.mark.parametrize("clustered", [False, True])
def test_estimate_and_variance_agree_with_statsmodels(clustered: bool) -> None:
    rng = np.random.default_rng(4)
    n = 4000
    table = simulated(n, 0.1, rng)
    group = np.arange(n) // 5
    if clustered:
        table["dropped_follow"] = rng.choice([0.0, 0.5], n // 5)[group]
        table["sessions"] += rng.normal(0, 8, n // 5)[group]
        table["cluster"] = group.astype(str)
    verdict = GuardRail("sessions").look(table)
    dosed = (table["dropped_follow"] > 0).to_numpy(dtype=float)
    x = (table["pre_sessions"] - table["pre_sessions"].mean()).to_numpy()
    design = np.column_stack([dosed, 1 - dosed, dosed * x, (1 - dosed) * x])
    robust: dict[str, Any] = {"cov_type": "HC0"}
    if clustered:
        robust = {"cov_type": "cluster", "cov_kwds": {"groups": group, "use_correction": False}}
    fit = sm.OLS(table["sessions"].to_numpy(), design).fit(**robust)
    mean = fit.params[:2]
    change = mean[0] / mean[1] - 1
    assert verdict.relative_change == pytest.approx(change)
    gradient = np.array([1 / mean[1], -mean[0] / mean[1] ** 2, 0, 0])
    se = np.sqrt(gradient @ fit.cov_params() @ gradient)
    # At 4,000 of 10,000 planned viewers: the width over the standard error that the boundary has there.
    tuning = 10_000 / 9.3
    width = np.sqrt((4000 + tuning) * np.log((4000 + tuning) / (tuning * 0.05**2)) / 4000)
    assert (verdict.high - verdict.low) / 2 == pytest.approx(width * se, rel=0.05)


def test_one_type_of_several_is_compared_whatever_the_other_doses() -> None:
    rng = np.random.default_rng(5)
    table = simulated(6000, 0.2, rng)
    table["dropped_connection"] = rng.choice([0.0, 0.1], 6000)
    of_follow = GuardRail("sessions", edge_type="follow").look(table)
    of_connection = GuardRail("sessions", edge_type="connection").look(table)
    assert of_follow.relative_change == pytest.approx(-0.2, abs=0.03)
    assert of_connection.relative_change == pytest.approx(0, abs=0.03)
    assert of_follow.table["viewers"].to_dict() == {
        "dosed": (table["dropped_follow"] > 0).sum(),
        "natural": (table["dropped_follow"] == 0).sum(),
    }
    in_any = GuardRail("sessions").look(table)
    assert in_any.table.loc["natural", "viewers"] == (table.filter(like="dropped_") == 0).all(axis=1).sum()


def test_a_look_with_few_viewers_has_no_bounds_and_says_so() -> None:
    table = simulated(40, 0.9, np.random.default_rng(6))
    verdict = GuardRail("sessions").look(table)
    assert (verdict.low, verdict.high, verdict.stop) == (-1.0, float("inf"), False)
    assert "too few for an interval, go on" in str(verdict)
    empty = GuardRail("sessions").look(table.head(0))
    assert not empty.stop
    assert np.isnan(empty.relative_change)


def test_viewers_who_are_not_complete_are_left_out_with_their_count() -> None:
    table = simulated(3000, 0.02, np.random.default_rng(7))
    table.loc[2000:, "sessions"] = np.nan
    verdict, part = GuardRail("sessions").look(table), GuardRail("sessions").look(table[:2000])
    assert verdict.n_incomplete == 1000
    assert (verdict.low, verdict.high) == (part.low, part.high)
    assert "(1,000 not complete yet)" in str(verdict)
    assert "go on, a loss of more than 5 % is not certain" in str(verdict)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"viewer_id": "v"}, "viewer_id is not unique: a viewer enters once in 99 of 100"),
        ({"dropped_follow": np.nan}, "dropped_follow is null in 100 of 100"),
        ({"sessions": np.inf}, "sessions is infinite in 100 of 100"),
        ({"sessions": "many"}, "sessions is not a number"),
        ({"pre_sessions": np.nan}, "pre_sessions is null in 100"),
        ({"cluster": None}, "cluster is null in 100"),
        ({"sessions": 0.0}, "a metric whose mean is above 0"),
    ],
)
def test_a_table_that_cannot_be_looked_at_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError) as error:
        GuardRail("sessions").look(simulated(100, 0.0, np.random.default_rng(0)).assign(**change))
    assert message in str(error.value)


def test_missing_columns_and_limits_out_of_range_are_refused() -> None:
    table = simulated(100, 0.0, np.random.default_rng(0))
    with pytest.raises(TableError, match="unknown column 'likes'"):
        GuardRail("likes").look(table)
    with pytest.raises(TableError, match="no column dropped_<edge type>"):
        GuardRail("sessions").look(table.drop(columns="dropped_follow"))
    with pytest.raises(TableError, match="unknown edge type 'folow'"):
        GuardRail("sessions", edge_type="folow").look(table)
    for arguments in ({"most_loss": 1.0}, {"most_loss": -0.1}, {"alpha": 0.0}, {"planned_viewers": 0}):
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            GuardRail("sessions", **arguments)
