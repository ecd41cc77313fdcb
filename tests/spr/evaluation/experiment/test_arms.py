"""compare_arms from end to end: known truths, what casts doubt, guard-rails, segments, looks, and bad questions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import ConfigError
from spr.evaluation import ArmComparison, compare_arms


def simulated(
    n: int, rng: np.random.Generator, effects: dict[str, float] | None = None, *, past: bool = True
) -> pd.DataFrame:
    """Make members whose likes an arm multiplies by 1 + its effect, and impressions by nothing."""
    effects = {"control": 0.0, "new": 0.0} if effects is None else effects
    activity = rng.gamma(2.0, 1.0, n)
    arm = rng.choice(list(effects), n)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(n)], "arm": arm})
    table["shown"] = 5 + rng.poisson(10 * activity)
    table["likes"] = rng.poisson(4 * activity * (1 + np.vectorize(effects.get)(arm).astype(float)))
    if past:
        table["pre_likes"] = rng.poisson(4 * activity)
        table["pre_shown"] = 5 + rng.poisson(10 * activity)
    return table


def one(comparison: ArmComparison, metric: str, arm: str = "new", segment: str = "all") -> dict[str, float]:
    rows = comparison.to_pandas().set_index(["metric", "arm", "segment"])
    return rows.loc[(metric, arm, segment)].to_dict()


def test_it_finds_the_truth_of_every_arm_and_metric() -> None:
    table = simulated(30_000, np.random.default_rng(0), {"control": 0.0, "b": 0.1, "c": -0.05})
    made = compare_arms(table, ["likes", "likes/shown", "shown"], primary=["likes"])
    for arm, effect in (("b", 0.1), ("c", -0.05)):
        for metric, true in (("likes", effect), ("likes/shown", effect), ("shown", 0.0)):
            found = one(made, metric, arm)
            error = found["standard_error"] / found["control_value"]
            assert abs(found["relative"] - true) < 3 * error
            assert found["relative_low"] < true < found["relative_high"]
            assert found["difference"] == pytest.approx(found["value"] - found["control_value"])
            assert found["variance_ratio"] < (0.95 if "/" in metric else 0.8)
    assert made.warnings == ()
    primary = made.to_pandas().query("metric == 'likes'")
    assert (primary["p_adjusted"] >= primary["p_value"]).all()
    assert primary["p_adjusted"].max() < 0.05


def test_the_past_takes_away_what_theory_says() -> None:
    rng = np.random.default_rng(1)
    n, rho = 20_000, 0.8
    past = rng.normal(10, 2, n)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(n)], "arm": rng.choice(["control", "new"], n)})
    table["y"] = 10 + rho * (past - 10) + np.sqrt(1 - rho**2) * rng.normal(0, 2, n)
    raw = one(compare_arms(table, ["y"]), "y")
    table["pre_y"] = past
    found = one(compare_arms(table, ["y"]), "y")
    # A correlation of n pairs has the standard error (1 - rho^2) / sqrt(n), its square 2 rho times that.
    assert abs(found["variance_ratio"] - (1 - rho**2)) < 4 * 2 * rho * (1 - rho**2) / np.sqrt(n)
    assert found["variance_ratio"] == pytest.approx((found["standard_error"] / raw["standard_error"]) ** 2)
    assert raw["variance_ratio"] == 1.0
    assert found["raw_value"] == raw["value"]


def test_members_without_a_past_are_kept() -> None:
    rng = np.random.default_rng(2)
    table = simulated(6000, rng, {"control": 0.0, "new": 0.1})
    new_members = rng.random(6000) < 0.3
    table[["pre_likes", "pre_shown"]] = table[["pre_likes", "pre_shown"]].astype(float)
    table.loc[new_members, ["pre_likes", "pre_shown"]] = np.nan
    found = one(compare_arms(table, ["likes"]), "likes")
    assert found["members"] + found["control_members"] == 6000
    assert found["relative_low"] < 0.1 < found["relative_high"]
    assert found["variance_ratio"] < 0.85


def test_a_split_that_is_not_as_planned_is_the_first_thing_said() -> None:
    table = simulated(8000, np.random.default_rng(3))
    lost = (table["arm"] == "new") & (np.arange(8000) % 6 == 0)
    made = compare_arms(table[~lost], ["likes"])
    assert str(made).startswith("WARNING: sample ratio")
    assert made.sample_ratio["suspect"].all()
    assert compare_arms(table[~lost], ["likes"], shares={"control": 6, "new": 5}).warnings == ()
    gone = compare_arms(table, ["likes"], shares={"control": 0.4, "new": 0.4, "never": 0.2})
    assert gone.sample_ratio.loc["never", "observed"] == 0
    assert gone.sample_ratio["suspect"].all()


def test_metrics_that_are_missing_by_arm_and_pasts_that_differ_are_warned_of() -> None:
    table = simulated(8000, np.random.default_rng(4))
    table["likes"] = table["likes"].where((table["arm"] == "control") | (np.arange(8000) % 10 > 0))
    made = compare_arms(table, ["likes", "shown"])
    assert [said.split(":")[0] for said in made.warnings] == ["missing"]
    assert any("likes is null for" in said for said in made.notes)
    table = simulated(8000, np.random.default_rng(5))
    table["pre_likes"] += 1.0 * (table["arm"] == "new")
    assert [said.split(":")[0] for said in compare_arms(table, ["likes"]).warnings] == ["past"]


def test_guard_rails_pass_fail_or_do_not_know() -> None:
    table = simulated(40_000, np.random.default_rng(6), {"control": 0.0, "same": 0.0, "worse": -0.1})
    table["dismissals"], table["few"] = 40.0 - table["likes"], table["likes"].where(np.arange(40_000) < 300)
    made = compare_arms(
        table,
        ["likes", "dismissals", "few", "shown"],
        most_loss={"likes": 0.05, "few": 0.05},
        most_rise={"dismissals": 0.01},
    )
    assert one(made, "likes", "same")["verdict"] == "passed"
    assert one(made, "likes", "worse")["verdict"] == "failed"
    assert one(made, "dismissals", "same")["verdict"] == "passed"
    assert one(made, "dismissals", "worse")["verdict"] == "failed"
    assert one(made, "few", "same")["verdict"] == "not certain"
    assert pd.isna(one(made, "shown", "same")["verdict"])
    assert "guard-rail failed" in str(made)
    assert one(made, "likes", "same")["family"] == "guard-rail"
    assert np.isnan(one(made, "likes", "same")["p_adjusted"])


def test_segments_that_differ_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(7)
    table = simulated(20_000, rng, {"control": 0.0, "new": 0.1})
    table["segment"] = np.where(table["pre_shown"] > 25, "frequent", "infrequent")
    same = compare_arms(table, ["likes"], primary=["likes"])
    assert same.interactions["p_value"].item() > 0.01
    assert {"frequent", "infrequent"} < set(same.to_pandas()["segment"])
    assert one(same, "likes", segment="frequent")["family"] == "exploratory"
    only = (table["segment"] == "frequent") & (table["arm"] == "new")
    table["likes"] += rng.poisson(0.3 * table["likes"] * only)
    made = compare_arms(table, ["likes"])
    assert made.interactions["p_adjusted"].item() < 1e-6
    assert compare_arms(table, ["likes"], planned_members=20_000).interactions.empty


def test_the_interaction_test_errs_as_often_as_stated() -> None:
    rng = np.random.default_rng(8)
    p_values = []
    for _ in range(120):
        table = simulated(400, rng, {"control": 0.0, "new": 0.2}, past=False)
        table["segment"] = rng.choice(["a", "b", "c"], 400)
        p_values.append(compare_arms(table, ["likes"]).interactions["p_value"].item())
    assert abs(np.mean(np.array(p_values) < 0.2) - 0.2) < 3 * np.sqrt(0.2 * 0.8 / 120)


def test_clusters_make_honest_errors_and_are_counted_as_assigned() -> None:
    rng = np.random.default_rng(9)
    rejected = {"clusters": 0, "members": 0}
    for _ in range(100):
        cluster = np.repeat(np.arange(40), 15)
        table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(600)], "cluster": cluster})
        table["arm"] = np.where(rng.permutation(40) % 2, "new", "control")[cluster]
        table["likes"] = rng.poisson(rng.gamma(5.0, 1.0, 40)[cluster])
        made = compare_arms(table, ["likes"])
        rejected["clusters"] += one(made, "likes")["p_value"] < 0.05
        rejected["members"] += one(compare_arms(table.drop(columns="cluster"), ["likes"]), "likes")["p_value"] < 0.05
        assert made.sample_ratio["observed"].tolist() == [20, 20]
    assert rejected["clusters"] <= 100 * 0.05 + 3 * np.sqrt(100 * 0.05 * 0.95)
    assert rejected["members"] > 100 * 0.3


def test_windows_that_are_open_do_not_count_and_are_noted() -> None:
    table = simulated(4000, np.random.default_rng(10))
    table["entered_at"] = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(np.arange(4000) % 20, unit="D")
    table.loc[table["entered_at"] > "2026-03-11", "likes"] = 10_000  # what must not be seen
    made = compare_arms(table, ["likes"], outcome_window="7D", snapshot="2026-03-18", planned_members=4000)
    found = one(made, "likes")
    assert found["members"] + found["control_members"] == 11 * 200
    assert found["value"] < 100
    assert made.notes[0] == "1,800 of 4,000 members have an open window and do not count yet"
    assert "any looks, 4,000 members planned" in str(made)


def test_always_valid_intervals_hold_those_of_one_look() -> None:
    table = simulated(5000, np.random.default_rng(11))
    once, any_time = (one(compare_arms(table, ["likes"], planned_members=m), "likes") for m in (None, 5000))
    assert any_time["low"] < once["low"] < once["high"] < any_time["high"]
    assert any_time["relative_low"] < once["relative_low"]
    assert any_time["p_value"] > once["p_value"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1000.0))
def test_relative_changes_do_not_depend_on_order_or_on_the_metrics_unit(seed: int, scale: float) -> None:
    table = simulated(60, np.random.default_rng(seed), {"control": 0.0, "new": 0.5})
    table.loc[:1, "arm"] = ["control", "new"]
    other = table.sample(frac=1, random_state=seed).assign(likes=lambda t: scale * t["likes"])
    a, b = (one(compare_arms(each, ["likes"]), "likes") for each in (table, other))
    for name in ("relative", "relative_low", "relative_high", "p_value", "df", "variance_ratio"):
        assert b[name] == pytest.approx(a[name], rel=1e-6, nan_ok=True)
    assert b["difference"] == pytest.approx(scale * a["difference"], rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1.0, 3.0))
def test_both_intervals_and_the_p_value_agree_on_no_difference(seed: int, mean: float) -> None:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(50)], "arm": ["control", "new"] * 25})
    table["y"] = rng.normal(mean, 1.0, 50)
    found = one(compare_arms(table, ["y"]), "y")
    certain = found["p_value"] < 0.05
    assert certain == (not found["low"] <= 0 <= found["high"])
    if found["control_value"] <= 0:
        assert np.isnan(found["relative_low"])
    elif np.isfinite(found["relative_low"]):
        assert certain == (not found["relative_low"] <= 0 <= found["relative_high"])


def test_nothing_is_certain_where_no_error_can_be_stated() -> None:
    table = pd.DataFrame({"viewer_id": list("abcd"), "arm": ["control", "new"] * 2, "y": [1.0, 2.0, 1.0, 2.0]})
    table["alike"], table["unknown"] = 3.0, np.nan
    made = compare_arms(table, ["y", "alike", "unknown"])
    for metric in ("y", "alike", "unknown"):
        found = one(made, metric)
        assert np.isnan(found["p_value"])
        assert (found["low"], found["high"]) == (-np.inf, np.inf)
    assert one(made, "y")["difference"] == 1.0
    assert "no error can be stated" in str(made)
    alone = compare_arms(table.iloc[:2], ["y"])
    assert np.isnan(one(alone, "y")["p_value"])


def test_the_same_table_gives_a_copy_and_stays_as_it_was() -> None:
    table = simulated(500, np.random.default_rng(12))
    before = table.copy()
    made = compare_arms(table, ["likes"])
    copy = made.to_pandas()
    copy["value"] = 0.0
    assert (made.to_pandas()["value"] != 0).all()
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metrics": "likes"}, "metrics is the text 'likes'"),
        ({"metrics": []}, "no metric is named"),
        ({"primary": ["like"]}, "unknown metric 'like' in primary; known: likes. Did you mean 'likes'"),
        ({"most_loss": {"sessions": 0.1}}, "unknown metric 'sessions' in most_loss or most_rise"),
        ({"most_loss": {"likes": 1.0}}, "most_loss of 'likes' is 1.0; allowed: a share"),
        ({"most_rise": {"likes": -0.1}}, "most_rise of 'likes' is -0.1"),
        ({"most_loss": {"likes": 0.1}, "most_rise": {"likes": 0.1}}, "has a most_loss and a most_rise"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"planned_members": 0}, "planned_members is 0"),
        ({"shares": {"control": 0.5}}, "unknown arm 'new' in the planned shares; known: control"),
        ({"shares": {"control": 0.5, "new": 0.0}}, "the share of 'new' is 0.0"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(asked: dict, message: str) -> None:
    table = simulated(50, np.random.default_rng(13))
    with pytest.raises(ConfigError, match=message):
        compare_arms(table, **({"metrics": ["likes"]} | asked))
