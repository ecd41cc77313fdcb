"""One look is Student's t; any looks are the boundary of the drift alarms and of guard-rails, in standard errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.drift.sums import boundary
from spr.edge_drop import GuardRail
from spr.errors import ConfigError
from spr.evaluation import compare_arms
from spr.evaluation.experiment.adjustment import estimate_arms
from spr.evaluation.experiment.effects import compare_with_control
from spr.evaluation.experiment.sequential import AnyLooks, OneLook


@given(st.integers(100, 10**7), st.integers(100, 10**7), st.floats(0.001, 0.2), st.floats(0.0, 8.0), st.booleans())
def test_the_p_value_is_below_alpha_where_the_interval_excludes_it(
    members: int, planned: int, alpha: float, distance: float, once: bool
) -> None:
    looks = OneLook() if once else AnyLooks(planned)
    critical, p_value = looks.critical(alpha, members, 50.0), looks.p_value(distance, alpha, members, 50.0)
    assert 0 <= p_value <= 1
    if abs(distance - critical) > 1e-6:
        assert (p_value < alpha) == (distance > critical)


@given(st.integers(100, 10**7), st.integers(100, 10**7), st.floats(0.001, 0.2), st.booleans())
def test_the_p_value_at_the_end_of_the_interval_is_alpha(members: int, planned: int, alpha: float, once: bool) -> None:
    looks = OneLook() if once else AnyLooks(planned)
    end = looks.critical(alpha, members, 50.0)
    assert looks.p_value(end, alpha, members, 50.0) == pytest.approx(alpha, rel=1e-6)
    assert looks.p_value(-end, alpha, members, 50.0) == pytest.approx(alpha, rel=1e-6)


def test_any_looks_are_wider_than_one_and_narrowest_as_planned() -> None:
    looks = AnyLooks(10_000)
    at = [looks.critical(0.05, n, np.inf) for n in (100, 1000, 10_000, 100_000, 10**6)]
    assert min(at) == at[2]
    assert at[2] > OneLook().critical(0.05, 10_000, np.inf)


def test_it_is_the_boundary_of_the_sum() -> None:
    variance_of_one, n, planned = 7.3, 4000, 9000
    half = boundary(np.array(n * variance_of_one), 0.05, variance_of_one * planned / 1000)
    expected = half / np.sqrt(n * variance_of_one)
    assert AnyLooks(planned).critical(0.05, n, np.inf) == pytest.approx(float(expected))


def test_it_is_the_guard_rails_interval_for_many_members() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    dosed = rng.integers(2, size=n)
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str).astype(object), "dropped_follow": dosed / 2})
    table["sessions"] = rng.poisson(20 * (1 - 0.05 * dosed))
    rail = GuardRail("sessions", planned_viewers=15_000).look(table)
    table["arm"] = np.where(dosed, "dosed", "natural")
    made = compare_arms(table, ["sessions"], control="natural", planned_members=15_000).to_pandas().iloc[0]
    assert made["relative"] == pytest.approx(rail.relative_change)
    # Fieller's interval is shifted against the delta method's by a second-order term.
    assert made["relative_low"] == pytest.approx(rail.low, abs=2e-4)
    assert made["relative_high"] == pytest.approx(rail.high, abs=2e-4)


def test_there_is_nothing_before_both_arms_are_worth_fifty_terms() -> None:
    rng = np.random.default_rng(1)
    arm, y = np.repeat([0, 1], [1000, 40]), rng.normal(100, 1, 1040)
    made = estimate_arms(y + 50 * arm, np.ones(1040), arm, 2, np.empty((1040, 0)), np.arange(1040), 1040)
    early = compare_with_control(made, 1, AnyLooks(5000), 0.05)
    assert (early.low, early.high) == (-np.inf, np.inf)
    assert np.isnan(early.p_value)
    assert compare_with_control(made, 1, OneLook(), 0.05).p_value < 1e-6


def test_a_few_members_who_are_all_of_the_variance_are_not_believed() -> None:
    rng = np.random.default_rng(2)
    arm = np.arange(2000) % 2
    y = rng.normal(1, 0.01, 2000)
    y[:10] += 1000 * np.arange(10)
    made = estimate_arms(y, np.ones(2000), arm, 2, np.empty((2000, 0)), np.arange(2000), 2000)
    assert np.isnan(compare_with_control(made, 1, AnyLooks(2000), 0.05).p_value)


@pytest.mark.slow
def test_over_twenty_looks_any_looks_err_rarely_and_one_look_often() -> None:
    rng = np.random.default_rng(3)
    n_times, ends = 300, np.linspace(75, 1500, 20).astype(int)
    ever = {"any": 0, "one": 0}
    for _ in range(n_times):
        x, arm = rng.gamma(1.0, 1.0, 1500), rng.integers(2, size=1500)
        y = rng.poisson(3 * x).astype(float)
        made = [
            estimate_arms(y[:n], np.ones(n), arm[:n], 2, (x[:n] - x[:n].mean())[:, None], np.arange(n), n) for n in ends
        ]
        for name, looks in (("any", AnyLooks(300)), ("one", OneLook())):
            p_values = [compare_with_control(each, 1, looks, 0.05).p_value for each in made]
            ever[name] += bool(np.nanmin([*p_values, 1.0]) < 0.05)
    assert ever["any"] <= n_times * 0.05 + 2 * np.sqrt(n_times * 0.05 * 0.95)
    assert ever["one"] > n_times * 0.12


def test_members_that_cannot_be_planned_are_refused() -> None:
    with pytest.raises(ConfigError, match="planned_members is 0"):
        AnyLooks(0)
