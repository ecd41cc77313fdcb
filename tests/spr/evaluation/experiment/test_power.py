"""Plans against statsmodels, and against the experiments that they are of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestIndPower

from spr.errors import ConfigError, InvalidExperiment
from spr.evaluation import ArmPlan, compare_arms, plan_arms


def period(n: int, rng: np.random.Generator, *, past: bool = True, effect: float = 0.0) -> pd.DataFrame:
    activity, new = rng.gamma(2.0, 1.0, n), rng.integers(2, size=n)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(n)], "arm": np.where(new, "new", "control")})
    table["likes"] = rng.poisson(4 * activity * (1 + effect * new))
    table["shown"] = 5 + rng.poisson(10 * activity)
    if past:
        table["pre_likes"], table["pre_shown"] = rng.poisson(4 * activity), 5 + rng.poisson(10 * activity)
    return table


@pytest.mark.parametrize(("control_share", "arm_share"), [(0.5, 0.5), (0.7, 0.3), (0.2, 0.1)])
def test_it_is_the_plan_of_a_t_test(control_share: float, arm_share: float) -> None:
    table = period(5000, np.random.default_rng(0), past=False)
    plan = plan_arms(table, "likes", control_share=control_share, arm_share=arm_share)
    effect = 0.05 * table["likes"].mean() / table["likes"].std()
    control = TTestIndPower().solve_power(effect, alpha=0.05, power=0.8, ratio=arm_share / control_share)
    assert plan.members_for(0.05) == pytest.approx(control / control_share, rel=0.001)
    assert plan.variance_ratio == plan.design_effect == 1.0
    assert plan.power_for(0.05, plan.members_for(0.05)) == pytest.approx(0.8, abs=0.001)


def test_the_detectable_effect_is_the_inverse_of_the_size() -> None:
    plan = plan_arms(period(3000, np.random.default_rng(1)), "likes/shown")
    for effect in (0.01, -0.03, 0.2):
        n = plan.members_for(effect)
        assert plan.detectable_effect(n) <= abs(effect) < plan.detectable_effect(n - 1)
    shrinking = plan.at([1000, 10_000, 100_000])["detectable_effect"]
    assert shrinking.is_monotonic_decreasing
    more = plan_arms(period(3000, np.random.default_rng(1)), "likes/shown", any_looks=True)
    assert more.members_for(0.03) > 1.4 * plan.members_for(0.03)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["likes", "likes/shown"])
def test_experiments_have_the_power_that_was_planned(metric: str) -> None:
    rng = np.random.default_rng(2)
    plan = plan_arms(period(40_000, rng), metric)
    assert plan.variance_ratio < 0.95
    n, n_times = plan.members_for(0.05), 250
    found = 0
    for _ in range(n_times):
        row = compare_arms(period(n, rng, effect=0.05), [metric]).to_pandas().iloc[0]
        found += row["p_value"] < 0.05 and row["difference"] > 0
    assert abs(found / n_times - 0.8) < 3 * np.sqrt(0.8 * 0.2 / n_times)


def test_clusters_cost_their_design_effect() -> None:
    rng = np.random.default_rng(3)
    size, correlation = 10, 0.2
    cluster = np.repeat(np.arange(4000), size)
    y = 10 + np.sqrt(correlation) * rng.normal(size=4000)[cluster] + np.sqrt(1 - correlation) * rng.normal(size=40_000)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(40_000)], "cluster": cluster, "y": y})
    plan = plan_arms(table, "y")
    expected = 1 + (size - 1) * correlation
    assert plan.design_effect == pytest.approx(expected, rel=4 * np.sqrt(2 / 4000))
    alone = plan_arms(table.drop(columns="cluster"), "y")
    assert plan.members_for(0.01) == pytest.approx(expected * alone.members_for(0.01), rel=0.1)
    assert plan.members_per_unit == pytest.approx(size, rel=0.01)


def test_what_cannot_be_planned_is_refused() -> None:
    table = period(100, np.random.default_rng(4))
    for wrong in ({"alpha": 0.0}, {"power": 1.0}, {"control_share": 1.2}, {"arm_share": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            plan_arms(table, "likes", **wrong)
    with pytest.raises(ConfigError, match="control_share and arm_share sum"):
        plan_arms(table, "likes", control_share=0.7)
    for column in (table["likes"] * 0.0, -table["likes"], table["likes"] * 0.0 + 3):
        with pytest.raises(InvalidExperiment, match="a plan needs a metric above 0 that varies"):
            plan_arms(table.assign(likes=column), "likes")
    plan = plan_arms(table, "likes")
    assert isinstance(plan, ArmPlan)
    for effect in (0.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="relative_effect is"):
            plan.members_for(effect)
    with pytest.raises(ConfigError, match="members is 3"):
        plan.detectable_effect(3)
    with pytest.raises(ConfigError, match="needs more than"):
        plan.members_for(1e-9)
