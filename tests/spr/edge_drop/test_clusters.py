"""Ego clusters as defined; the spillover check finds a known spillover and is silent without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spr.edge_drop.clusters import ego_clusters, spillover_check
from spr.edge_drop.experiment import EdgeDropExperiment
from spr.errors import ConfigError, TableError


def graph_of(n: int, n_edges: int, seed: int) -> pd.DataFrame:
    """Make a graph in which some people have many neighbours."""
    rng = np.random.default_rng(seed)
    weight = rng.pareto(2.5, n) + 0.3
    ends = rng.choice(n, (n_edges, 2), p=weight / weight.sum())
    names = np.array([f"v{i}" for i in range(n)], dtype=object)
    return pd.DataFrame({"viewer_id": names[ends[:, 0]], "entity_id": names[ends[:, 1]], "entity_type": "people"})


def observed(n: int, edges: pd.DataFrame, spillover: float, seed: int, **columns: Any) -> pd.DataFrame:
    """Make a table in which likes fall by 3 per own dose and by the spillover per mean dose of the neighbours."""
    rng = np.random.default_rng(seed)
    viewers = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(n)], **columns})
    experiment = EdgeDropExperiment(("connection", "follow"), f"s{seed}")
    table = experiment.assign(viewers, cluster="group" if "group" in columns else None)
    dose = dict(zip(table["viewer_id"], table["dropped_connection"], strict=True))
    ends = edges[["viewer_id", "entity_id"]]
    both = pd.concat([ends, ends.rename(columns={"viewer_id": "entity_id", "entity_id": "viewer_id"})])
    both = both[both["viewer_id"] != both["entity_id"]].drop_duplicates()
    mean = both["entity_id"].map(dose).groupby(both["viewer_id"]).mean()
    degree = both.groupby("viewer_id").size()
    exposure = table["viewer_id"].map(mean).fillna(0.0).to_numpy()
    # The connected are more active: a naive comparison of sums of doses would be biased by it.
    active = 10 + 3 * np.log1p(table["viewer_id"].map(degree).fillna(0.0).to_numpy())
    table["pre_likes"] = active + rng.normal(0, 2, n)
    table["likes"] = active + rng.normal(0, 2, n) - 3 * table["dropped_connection"] - spillover * exposure
    return table


def test_egos_take_their_free_neighbours_in_hashed_order() -> None:
    edges = graph_of(400, 900, 0)
    clusters = ego_clusters(edges, salt="s").set_index("viewer_id")["cluster"]
    pairs = set(zip(edges["viewer_id"], edges["entity_id"], strict=True))
    assert sorted(clusters.index) == sorted({*edges["viewer_id"], *edges["entity_id"]})
    for viewer, ego in clusters.items():
        assert viewer == ego or (viewer, ego) in pairs or (ego, viewer) in pairs
        assert clusters[ego] == ego
    # An ego takes every free neighbour, so that a neighbour of an ego is never an ego itself.
    assert not any(clusters[a] == a and clusters[b] == b for a, b in pairs if a != b)
    smaller = ego_clusters(edges, salt="s", max_size=2).set_index("viewer_id")["cluster"]
    assert any(smaller[a] == a and smaller[b] == b for a, b in pairs if a != b)


def test_clusters_keep_edges_inside_and_their_size_at_most_the_limit() -> None:
    edges = graph_of(500, 1500, 1)
    edges = edges[edges["viewer_id"] != edges["entity_id"]]

    def inside(cluster: pd.Series) -> float:
        return float((edges["viewer_id"].map(cluster) == edges["entity_id"].map(cluster)).mean())

    found = ego_clusters(edges, salt="s").set_index("viewer_id")["cluster"]
    dealt = pd.Series(np.random.default_rng(0).permutation(found.to_numpy()), index=found.index)
    assert inside(found) > 3 * inside(dealt)
    small = ego_clusters(edges, salt="s", max_size=4)["cluster"].value_counts()
    assert small.max() == 4
    assert ego_clusters(edges, salt="s", max_size=1)["cluster"].is_unique


def test_clusters_depend_on_the_salt_and_not_on_rows_directions_or_repeated_edges() -> None:
    edges = graph_of(300, 700, 2)
    turned = edges.rename(columns={"viewer_id": "entity_id", "entity_id": "viewer_id"})
    other = pd.concat([turned.sample(frac=1, random_state=0), edges.head(50)])
    pd.testing.assert_frame_equal(ego_clusters(edges, salt="s"), ego_clusters(other, salt="s"))
    assert not ego_clusters(edges, salt="t").equals(ego_clusters(edges, salt="s"))


def test_only_edges_to_people_count() -> None:
    edges = pd.DataFrame(
        {"viewer_id": ["a", "a", "b"], "entity_id": ["b", "c", "h"], "entity_type": ["people", "hashtag", "hashtag"]}
    )
    assert ego_clusters(edges, salt="s")["viewer_id"].to_list() == ["a", "b"]


def test_clusters_are_assigned_together() -> None:
    edges = graph_of(2000, 3000, 3)
    viewers = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(2000)]}).merge(
        ego_clusters(edges, salt="s"), how="left"
    )
    viewers["cluster"] = viewers["cluster"].fillna(viewers["viewer_id"])
    assigned = EdgeDropExperiment(("connection",), "s").assign(viewers, cluster="cluster")
    assert (assigned.groupby("cluster")["dropped_connection"].nunique() == 1).all()


def test_a_known_spillover_is_found_with_honest_intervals() -> None:
    n, edges = 3000, graph_of(3000, 6000, 4)
    covered, own = 0, 0
    estimates = []
    for seed in range(60):
        check = spillover_check(observed(n, edges, 2.0, seed), edges, "likes", "connection")
        row = check.loc["neighbours' dose"]
        estimates.append(row["coefficient"])
        covered += row["low"] <= -2.0 <= row["high"]
        own += check.loc["own dose", "low"] <= -3.0 <= check.loc["own dose", "high"]
    assert np.mean(estimates) == pytest.approx(-2.0, abs=4 * np.std(estimates) / np.sqrt(60))
    assert covered >= 52
    assert own >= 52


def test_without_spillover_the_check_alarms_at_its_level() -> None:
    edges = graph_of(1500, 3000, 5)
    p_values = [
        spillover_check(observed(1500, edges, 0.0, seed), edges, "likes", "connection").loc[
            "neighbours' dose", "p_value"
        ]
        for seed in range(100, 200)
    ]
    assert (np.array(p_values) < 0.05).sum() <= 12


def test_viewers_without_neighbours_in_the_experiment_are_counted_and_left_out() -> None:
    edges = graph_of(1000, 1500, 6)
    table = observed(1000, edges, 1.0, 6)
    table.loc[:9, "likes"] = np.nan
    check = spillover_check(table, edges, "likes", "connection")
    taking_part = edges[edges["viewer_id"] != edges["entity_id"]]
    connected = {*taking_part["viewer_id"], *taking_part["entity_id"]}
    assert (check["n_without_neighbours"] == 1000 - len(connected)).all()
    incomplete = sum(viewer in connected for viewer in table["viewer_id"][:10])
    assert (check["n_viewers"] == len(connected) - incomplete).all()


def test_neighbours_who_are_alike_do_not_make_the_check_alarm() -> None:
    # Each viewer's noise is shared with its neighbours: errors for independent viewers alarm in a tenth of these.
    n, edges = 1000, graph_of(1000, 2000, 7)
    ends = (
        edges[edges["viewer_id"] != edges["entity_id"]][["viewer_id", "entity_id"]].map(lambda v: int(v[1:])).to_numpy()
    )
    p_values = []
    for seed in range(200, 400):
        table = observed(n, edges, 0.0, seed)
        own = np.random.default_rng(seed + 9999).normal(0, 1, n)
        shared = own.copy()
        np.add.at(shared, ends[:, 0], own[ends[:, 1]])
        np.add.at(shared, ends[:, 1], own[ends[:, 0]])
        table["likes"] += shared
        p_values.append(spillover_check(table, edges, "likes", "connection").loc["neighbours' dose", "p_value"])
    assert (np.array(p_values) < 0.05).sum() <= 19


def test_with_clusters_assigned_together_the_intervals_are_honest() -> None:
    edges = graph_of(2000, 4000, 7)
    group = ego_clusters(edges, salt="s", max_size=5).set_index("viewer_id")["cluster"]
    names = pd.Series([f"v{i}" for i in range(2000)])
    together = names.map(group).fillna(names).to_list()
    covered = np.zeros(2)
    for seed in range(100):
        table = observed(2000, edges, 2.0, seed, group=together)
        table["likes"] += np.random.default_rng(seed).normal(0, 2, 2000)[pd.factorize(table["cluster"])[0]]
        check = spillover_check(table, edges, "likes", "connection")
        assert (check["n_units"] < 2000).all()
        covered += (check["low"] <= [-3.0, -2.0]) & (check["high"] >= [-3.0, -2.0])
    assert (covered >= 88).all()


def test_an_exposure_that_follows_from_the_own_dose_is_refused() -> None:
    names = np.array([f"v{i}" for i in range(200)])
    edges = pd.DataFrame({"viewer_id": names[::2], "entity_id": names[1::2]})
    table = pd.DataFrame({"viewer_id": names, "likes": np.arange(200.0)})
    table["dropped_connection"] = np.repeat(np.random.default_rng(0).choice([0, 0.5], 100), 2)
    with pytest.raises(ConfigError, match="cannot be told apart from the own doses among 200"):
        spillover_check(table, edges, "likes", "connection")
    with pytest.raises(ConfigError, match="cannot be told apart"):
        spillover_check(table.assign(dropped_connection=0.0), edges, "likes", "connection")
    with pytest.raises(ConfigError, match="10 viewers in 10 units"):
        spillover_check(table.head(10), edges, "likes", "connection")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropped_connection": np.nan}, "dropped_connection is null or infinite in 50 of 50"),
        ({"pre_likes": np.inf}, "pre_likes is null or infinite in 50"),
        ({"viewer_id": "v"}, "viewer_id is not unique in 49"),
        ({"cluster": None}, "cluster is null in 50"),
    ],
)
def test_tables_that_break_a_rule_are_refused(change: dict[str, Any], message: str) -> None:
    edges = graph_of(50, 200, 8)
    with pytest.raises(TableError) as error:
        spillover_check(observed(50, edges, 0.0, 8).assign(**change), edges, "likes", "connection")
    assert message in str(error.value)


def test_edges_and_arguments_that_cannot_be_are_refused() -> None:
    edges = graph_of(50, 200, 8)
    table = observed(50, edges, 0.0, 8)
    with pytest.raises(TableError, match="edges: entity_id is not text in 200 of 200"):
        ego_clusters(edges.assign(entity_id=1), salt="s")
    with pytest.raises(TableError, match="edges: unknown column 'entity_id'"):
        ego_clusters(edges.drop(columns="entity_id"), salt="s")
    with pytest.raises(ConfigError, match="max_size is 0"):
        ego_clusters(edges, salt="s", max_size=0)
    with pytest.raises(TableError, match="unknown edge type 'conection'"):
        spillover_check(table, edges, "likes", "conection")
    with pytest.raises(TableError, match="unknown column 'like'"):
        spillover_check(table, edges, "like", "connection")
    with pytest.raises(ConfigError, match=r"alpha is 1\.5"):
        spillover_check(table, edges, "likes", "connection", alpha=1.5)
