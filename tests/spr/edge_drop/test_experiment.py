"""Assignments: exact quotas in every stratum, the planned probability for every viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spr.edge_drop.experiment import EdgeDropExperiment
from spr.errors import ConfigError, TableError

TYPES = ("connection", "follow", "subscribe")


def viewers_of(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "viewer_id": [f"v{i}" for i in range(n)],
            "sessions": rng.negative_binomial(1, 0.1, n),
            "country": rng.choice(["de", "fr", "jp"], n, p=[0.7, 0.25, 0.05]),
        }
    )


@pytest.mark.parametrize("design", ["factorial", "one_arm_per_type"])
@pytest.mark.parametrize("stratum", [None, "sessions", "country"])
def test_assign_meets_the_quota_of_every_dose_in_every_stratum(design: Any, stratum: str | None) -> None:
    experiment = EdgeDropExperiment(TYPES, "s", design=design, natural_share=0.6)
    assigned = experiment.assign(viewers_of(997), stratum=stratum)
    groups = [assigned] if stratum is None else [group for _, group in assigned.groupby("stratum")]
    assert len(groups) == {None: 1, "sessions": 5, "country": 3}[stratum]
    for group in groups:
        for t in TYPES:
            planned = experiment.dose_distribution[t] * len(group)
            counts = group[f"dropped_{t}"].value_counts().reindex(planned.index, fill_value=0)
            assert counts.sum() == len(group)
            assert (abs(counts - planned) < 1).all()


def test_one_arm_per_type_doses_at_most_one_type() -> None:
    experiment = EdgeDropExperiment(TYPES, "s", design="one_arm_per_type")
    doses = experiment.assign(viewers_of(1000)).filter(like="dropped_").to_numpy()
    assert np.bincount((doses > 0).sum(axis=1)).tolist() == [500, 500]
    assert abs((doses > 0).sum(axis=0) - 500 / 3).max() < 3


@pytest.mark.parametrize("design", ["factorial", "one_arm_per_type"])
def test_over_salts_every_viewer_has_the_planned_probability_of_every_dose(design: Any) -> None:
    # Strata of 7, 2 and 1 viewers: rounding would be biased without a random start.
    viewers = pd.DataFrame({"viewer_id": list("abcdefghij"), "kind": ["x"] * 7 + ["y"] * 2 + ["z"]})
    n, doses = 1500, (0.25, 0.5)
    drawn = np.stack(
        [
            EdgeDropExperiment(("a", "b"), f"s{i}", doses, 0.55, design)
            .assign(viewers, stratum="kind")
            .filter(like="dropped_")
            for i in range(n)
        ]
    )
    planned = EdgeDropExperiment(("a", "b"), "s", doses, 0.55, design).dose_distribution
    for place, t in enumerate(("a", "b")):
        for dose, probability in planned[t].items():
            share = (drawn[:, :, place] == dose).mean(axis=0)
            assert abs(share - probability).max() < 4.5 * np.sqrt(probability * (1 - probability) / n)


def test_factorial_types_are_independent() -> None:
    assigned = EdgeDropExperiment(TYPES, "s").assign(viewers_of(20_000), stratum="sessions")
    dosed = assigned.filter(like="dropped_")
    assert abs(np.corrcoef(dosed.to_numpy().T) - np.eye(3)).max() < 4 / np.sqrt(20_000)
    pattern = (dosed > 0).sum(axis=1)
    assert np.bincount(pattern) / 20_000 == pytest.approx([1 / 8, 3 / 8, 3 / 8, 1 / 8], abs=0.012)


def test_assignment_is_unrelated_to_what_was_before() -> None:
    viewers = viewers_of(5000)
    assigned = EdgeDropExperiment(("follow",), "s").assign(viewers)
    assert abs(np.corrcoef(assigned["dropped_follow"], viewers["sessions"])[0, 1]) < 4 / np.sqrt(5000)


def test_assign_does_not_depend_on_the_order_of_rows_and_does_on_the_salt() -> None:
    viewers, experiment = viewers_of(500), EdgeDropExperiment(TYPES, "s")
    viewers["cluster_of"] = [f"c{i % 130}" for i in range(500)]
    shuffled = viewers.sample(frac=1, random_state=1)
    for arguments in ({}, {"stratum": "sessions"}, {"stratum": "sessions", "cluster": "cluster_of"}):
        one, other = experiment.assign(viewers, **arguments), experiment.assign(shuffled, **arguments)
        assert one["viewer_id"].to_list() == viewers["viewer_id"].to_list()
        assert other["viewer_id"].to_list() == shuffled["viewer_id"].to_list()
        pd.testing.assert_frame_equal(
            one.sort_values("viewer_id", ignore_index=True), other.sort_values("viewer_id", ignore_index=True)
        )
    salted = EdgeDropExperiment(TYPES, "t").assign(viewers)
    assert (salted["dropped_follow"] != experiment.assign(viewers)["dropped_follow"]).mean() > 0.5


def test_clusters_are_assigned_whole_and_segments_carried_over() -> None:
    viewers = viewers_of(900)
    viewers["group"] = [f"g{i // 3}" for i in range(900)]
    experiment = EdgeDropExperiment(TYPES, "s")
    assigned = experiment.assign(viewers, stratum="sessions", cluster="group", segment="country")
    assert (assigned.groupby("cluster")[[*assigned.filter(like="dropped_"), "stratum"]].nunique() == 1).all(axis=None)
    assert assigned["segment"].to_list() == viewers["country"].to_list()
    units = assigned.drop_duplicates("cluster")
    for _, group in units.groupby("stratum"):
        counts = group["dropped_follow"].value_counts()
        assert (abs(counts - experiment.dose_distribution["follow"] * len(group)) < 1).all()


def test_equal_numbers_share_a_stratum() -> None:
    viewers = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(100)], "sessions": [0] * 70 + list(range(1, 31))})
    assigned = EdgeDropExperiment(("a",), "s").assign(viewers, stratum="sessions", stratum_bins=4)
    assert assigned["stratum"][:70].nunique() == 1
    assert assigned["stratum"].nunique() == 2


def test_distributions_add_up_to_one() -> None:
    for design in ("factorial", "one_arm_per_type"):
        experiment = EdgeDropExperiment(TYPES, "s", design=design)
        assert experiment.dose_distribution.sum().to_list() == pytest.approx([1, 1, 1])
        assert experiment.pattern_distribution.sum() == pytest.approx(1)
        dosed = experiment.pattern_distribution.filter(like="follow").sum()
        assert dosed == pytest.approx(1 - experiment.dose_distribution.loc[0.0, "follow"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"natural_share": 0.4}, "natural_share is 0.4; allowed: 0.5 to below 1"),
        ({"natural_share": 1.0}, "natural_share is 1.0"),
        ({"natural_share": float("nan")}, "natural_share is nan"),
        ({"doses": (0.0, 0.5)}, "doses lists 0; leave it out"),
        ({"doses": (0.5, 1.2)}, "doses holds 1.2; allowed"),
        ({"doses": (-0.5,)}, "doses holds -0.5; allowed"),
        ({"doses": (0.5, 0.5)}, "doses holds 0.5 twice"),
        ({"doses": ()}, "doses is ()"),
        ({"edge_types": ("a", "a")}, "edge_types holds 'a' twice"),
        ({"edge_types": "connection"}, "edge_types is 'connection'; allowed: a tuple"),
        ({"edge_types": ("a", "")}, "edge_types holds ''"),
        ({"design": "factorail"}, "Did you mean 'factorial'"),
    ],
)
def test_a_design_that_cannot_be_run_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        EdgeDropExperiment(**{"edge_types": ("a", "b"), "salt": "s"} | arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"stratum": "session"}, "Did you mean 'sessions'"),
        ({}, {"segment": "nothing"}, "unknown column 'nothing'"),
        ({"viewer_id": ["v0", "v0", *(f"v{i}" for i in range(2, 40))]}, {}, "not unique in 1 of 40 rows; first: 'v0'"),
        ({"viewer_id": [None, *(f"v{i}" for i in range(1, 40))]}, {}, "viewer_id is null in 1 of 40"),
        ({"viewer_id": range(40)}, {}, "Ids are never numbers"),
        (
            {"sessions": [np.nan, *range(39)]},
            {"stratum": "sessions"},
            "sessions is null in 1 of 40 rows; first: viewer",
        ),
        ({"sessions": [np.inf, *range(39)]}, {"stratum": "sessions"}, "infinite in 1 rows"),
        ({"group": [None] * 40}, {"cluster": "group"}, "group is null in 40 of 40"),
        ({"group": ["x"] * 40}, {"cluster": "group"}, "1 clusters for 4 doses"),
        ({"group": ["a", "b", "c", "d"] * 10}, {"cluster": "group", "stratum": "country"}, "not constant in 4 of 4"),
    ],
)
def test_viewers_that_cannot_be_assigned_are_refused(
    change: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    viewers = viewers_of(40).assign(country=["de"] * 5 + ["fr"] * 35).assign(**change)
    with pytest.raises(TableError) as error:
        EdgeDropExperiment(("a",), "s").assign(viewers, **arguments)
    assert message in str(error.value)


def test_fewer_viewers_than_doses_and_one_bin_are_refused() -> None:
    with pytest.raises(TableError, match="3 viewers for 4 doses"):
        EdgeDropExperiment(("a",), "s").assign(viewers_of(3))
    with pytest.raises(TableError, match="6 viewers for 7 doses"):
        EdgeDropExperiment(("a", "b"), "s", design="one_arm_per_type").assign(viewers_of(6))
    with pytest.raises(ConfigError, match="stratum_bins is 1"):
        EdgeDropExperiment(("a",), "s").assign(viewers_of(30), stratum="sessions", stratum_bins=1)
