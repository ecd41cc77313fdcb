"""Sample-ratio checks: silent on the plan, loud on loss that depends on the dose, exact about who is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, chisquare

from spr.edge_drop.experiment import EdgeDropExperiment
from spr.edge_drop.sample_ratio import sample_ratio_check
from spr.errors import TableError

EXPERIMENT = EdgeDropExperiment(("connection", "follow", "subscribe"), "s")


def assigned(n: int = 3000, experiment: EdgeDropExperiment = EXPERIMENT, **arguments: Any) -> pd.DataFrame:
    viewers = pd.DataFrame(
        {
            "viewer_id": [f"v{i}" for i in range(n)],
            "sessions": np.random.default_rng(1).negative_binomial(1, 0.1, n),
            "group": [f"g{i // 4}" for i in range(n)],
        }
    )
    return experiment.assign(viewers, **arguments)


def of_type(check: pd.DataFrame, edge_type: str, stratum: str = "all") -> pd.DataFrame:
    return check[(check["edge_type"] == edge_type) & (check["stratum"] == stratum)]


@pytest.mark.parametrize("design", ["factorial", "one_arm_per_type"])
def test_an_assignment_meets_its_own_plan(design: Any) -> None:
    experiment = EdgeDropExperiment(EXPERIMENT.edge_types, "s", design=design)
    assignment = assigned(experiment=experiment, stratum="sessions")
    check = sample_ratio_check(assignment, experiment, assignment=assignment)
    assert not check["suspect"].any()
    assert (check["missing"] == 0).all()
    assert (check["missing_p_value"] == 1).all()
    one = check.drop_duplicates(["edge_type", "stratum"])
    assert one.groupby("edge_type").size().to_dict() == {"connection": 6, "follow": 6, "subscribe": 6, "joint": 1}
    assert len(of_type(check, "joint")) == {"factorial": 8, "one_arm_per_type": 4}[design]
    totals = check.groupby(["edge_type", "stratum"])[["planned", "observed"]].sum()
    assert totals["planned"].to_numpy() == pytest.approx(totals["observed"].to_numpy())


def test_counts_are_tested_by_chi_square_against_the_plan() -> None:
    rng = np.random.default_rng(0)
    doses = rng.choice([0.0, 0.1, 0.25, 0.5], (1000, 3), p=[0.5, 1 / 6, 1 / 6, 1 / 6])
    table = pd.DataFrame(doses, columns=[f"dropped_{t}" for t in EXPERIMENT.edge_types])
    table["viewer_id"] = [f"v{i}" for i in range(1000)]
    found = of_type(sample_ratio_check(table, EXPERIMENT), "follow")
    observed = [(table["dropped_follow"] == dose).sum() for dose in (0, 0.1, 0.25, 0.5)]
    assert found["observed"].to_list() == observed
    assert found["p_value"].to_numpy() == pytest.approx(chisquare(observed, [500, *[1000 / 6] * 3]).pvalue)


def test_loss_that_depends_on_the_dose_of_one_type_is_found_in_that_type() -> None:
    assignment = assigned(20_000)
    chance = 0.02 + 0.06 * (assignment["dropped_follow"] == 0.5)
    lost = np.random.default_rng(2).random(20_000) < chance
    check = sample_ratio_check(assignment[~lost], EXPERIMENT, assignment=assignment)
    suspect = check.groupby("edge_type")["suspect"].any()
    assert suspect.to_dict() == {"connection": False, "follow": True, "subscribe": False, "joint": True}
    found = of_type(check, "follow").set_index("dose")
    by_dose = assignment[lost]["dropped_follow"].value_counts()
    assert found["missing"].to_dict() == {f"{dose:g}": count for dose, count in by_dose.items()}
    contingency = np.stack([found["missing"], found["assigned"] - found["missing"]])
    assert found["missing_p_value"].iloc[0] == pytest.approx(chi2_contingency(contingency).pvalue, rel=0.01)


@pytest.mark.parametrize("cluster", [None, "group"])
def test_missing_viewers_who_do_not_depend_on_the_dose_alarm_at_the_level(cluster: str | None) -> None:
    experiment = EdgeDropExperiment(("follow",), "s")
    assignment = assigned(1200, experiment, stratum="sessions", cluster=cluster)
    rng = np.random.default_rng(3)
    # Whole clusters are lost, as a data centre loses them: without a cluster's own variance this would alarm too often.
    groups = np.arange(1200) // 4
    p_values = []
    for _ in range(150):
        lost = rng.random(300)[groups] < 0.1
        check = sample_ratio_check(assignment[~lost], experiment, assignment=assignment)
        p_values.append(of_type(check, "follow")["missing_p_value"].iloc[0])
    below = (np.array(p_values) < 0.1).mean()
    assert 0.03 < below < 0.17


def test_clusters_are_counted_as_units() -> None:
    assignment = assigned(2000, cluster="group")
    check = sample_ratio_check(assignment, EXPERIMENT)
    assert of_type(check, "follow")["observed"].sum() == 500
    assert "missing" not in check


def test_types_dosed_together_against_the_plan_are_suspect() -> None:
    experiment = EdgeDropExperiment(("a", "b"), "s", doses=(0.5,), design="one_arm_per_type")
    table = assigned(400, experiment)
    table.loc[table["dropped_a"].gt(0).idxmax(), "dropped_b"] = 0.5
    joint = of_type(sample_ratio_check(table, experiment), "joint")
    assert joint["dose"].to_list() == ["none", "a", "b", "a + b"]
    assert joint["observed"].to_list() == [200, 99, 100, 1]
    assert joint["suspect"].all()


def test_few_units_give_no_p_value() -> None:
    check = sample_ratio_check(assigned(6), EXPERIMENT)
    assert check["p_value"].isna().all()
    assert not check["suspect"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropped_follow": 0.3}, "dropped_follow is not a dose of the plan in 30 of 30 rows; first: viewer_id='v0'"),
        ({"dropped_follow": np.nan}, "is not a dose of the plan in 30"),
        ({"viewer_id": "v0"}, "viewer_id is not unique in 29 of 30"),
        ({"viewer_id": [f"w{i}" for i in range(30)]}, "30 of 30 viewers were never assigned; first: viewer_id='w0'"),
        ({"dropped_follow": [0.5, 0.1] * 15}, "dropped_follow is not the assigned dose in"),
    ],
)
def test_a_table_against_its_record_is_refused(change: dict[str, Any], message: str) -> None:
    assignment = assigned(30)
    with pytest.raises(TableError) as error:
        sample_ratio_check(assignment.assign(**change), EXPERIMENT, assignment=assignment)
    assert message in str(error.value)


def test_missing_columns_empty_tables_and_torn_clusters_are_refused() -> None:
    with pytest.raises(TableError, match="unknown column 'dropped_follow'"):
        sample_ratio_check(assigned(30).drop(columns="dropped_follow"), EXPERIMENT)
    with pytest.raises(TableError, match="no rows"):
        sample_ratio_check(assigned(30).head(0), EXPERIMENT)
    with pytest.raises(TableError, match=r"dropped_\w+ is not constant in cluster 'one'"):
        sample_ratio_check(assigned(30).assign(cluster="one"), EXPERIMENT)
