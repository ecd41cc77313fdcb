from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, skew

from simulations import World
from simulations.response_curves import CURVES
from spr.config import Config
from spr.errors import InvalidModelInput, UnknownEntityType
from spr.tables import read_entities, read_impressions, read_viewers


@pytest.fixture(scope="module")
def world() -> World:
    return World(n_viewers=500, seed=3)


@pytest.fixture(scope="module")
def impressions(world: World) -> pd.DataFrame:
    return world.impressions(12_000)


@pytest.fixture(scope="module")
def cohorts(impressions: pd.DataFrame) -> pd.DataFrame:
    per_cohort = impressions.groupby(["request_id", "cohort_id"], sort=False)
    first = per_cohort.first()
    scorable = impressions["downstream"].where(impressions["raw_score"].notna(), 0.0)
    keys = [impressions["request_id"], impressions["cohort_id"]]
    first["label"] = scorable.groupby(keys, sort=False).max()
    return first.reset_index()


def test_world_tables_meet_the_contract(world: World) -> None:
    config = Config.named("network")
    tables = world.tables(300)
    rows = read_impressions(tables.impressions, config)
    assert len(rows) == len(tables.impressions)
    assert set(rows["entity_type"]) == set(config.entity_types)
    assert len(read_viewers(tables.viewers)) == 500
    entities = read_entities(tables.entities)
    shown = pd.MultiIndex.from_frame(rows[["entity_type", "entity_id"]])
    assert shown.isin(pd.MultiIndex.from_frame(entities[["entity_type", "entity_id"]])).all()
    assert not tables.edges.duplicated().any()
    people = tables.edges.loc[tables.edges["entity_type"] == "people"]
    assert set(zip(people["viewer_id"], people["entity_id"], strict=True)) == set(
        zip(people["entity_id"], people["viewer_id"], strict=True)
    )


def test_world_edges_have_the_edge_type_of_the_config(world: World) -> None:
    config = Config.named("network")
    found = world.edges.groupby("entity_type")["edge_type"].unique().map(list).to_dict()
    assert found == {name: [kind.edge_type] for name, kind in config.entity_types.items()}


@settings(deadline=None, max_examples=8)
@given(n_viewers=st.integers(20, 60), n_requests=st.integers(1, 40), seed=st.integers(0, 999))
def test_world_pages_are_well_formed(n_viewers: int, n_requests: int, seed: int) -> None:
    rows = World(n_viewers=n_viewers, seed=seed, n_entities=20).impressions(n_requests)
    assert not rows.duplicated(["request_id", "cohort_id", "slot"]).any()
    assert not rows.duplicated(["request_id", "cohort_id", "entity_id"]).any()
    assert not (rows["viewer_id"] == rows["entity_id"]).any()
    for _, page in rows.groupby("request_id"):
        positions = page.groupby("cohort_id")["position"].unique()
        assert sorted(np.concatenate(positions.to_list())) == list(range(len(positions)))
        assert 8 <= len(positions) <= 12
    for _, cohort in rows.groupby(["request_id", "cohort_id"]):
        assert cohort["slot"].tolist() == list(range(6))
        assert cohort["raw_score"].dropna().is_monotonic_decreasing
        assert cohort["raw_score"].isna().is_monotonic_increasing
    assert (rows["downstream"] <= rows["response"]).all()


def test_world_is_deterministic_by_seed() -> None:
    first, second, other = (World(n_viewers=60, seed=seed).tables(40) for seed in (1, 1, 2))
    for name in ("impressions", "viewers", "entities", "edges"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))
    assert not first.impressions["raw_score"].equals(other.impressions["raw_score"])


def test_world_viewers_are_heavy_tailed(impressions: pd.DataFrame) -> None:
    views = impressions.groupby("viewer_id")["request_id"].nunique()
    assert skew(views) > 1.5
    assert views.max() > 8 * views.median()


def test_world_entities_stand_in_several_cohorts_of_some_pages(impressions: pd.DataFrame) -> None:
    assert impressions.duplicated(["request_id", "entity_type", "entity_id"]).any()
    assert (impressions["cohort_id"] != impressions["cohort_kind"]).all()
    kinds = impressions.groupby(["request_id", "entity_type"])["cohort_kind"].nunique()
    assert (kinds >= 2).mean() > 0.3


def test_world_unscorable_entities_are_about_one_percent(impressions: pd.DataFrame) -> None:
    assert impressions["raw_score"].isna().mean() == pytest.approx(0.01, abs=0.001)


def test_world_response_rate_matches_the_true_curve(world: World, impressions: pd.DataFrame) -> None:
    rows = impressions.loc[(impressions["position"] == 0) & (impressions["slot"] == 0)]
    rows = rows.loc[rows["raw_score"].notna()]  # examined for sure: both curves start at 1
    for entity_type, of_type in rows.groupby("entity_type"):
        truth = world.truth.response_probability(str(entity_type), of_type["raw_score"].to_numpy())
        bins = pd.qcut(of_type["raw_score"].rank(method="first"), 4, labels=False)
        for places in of_type.groupby(bins.to_numpy()).indices.values():
            error = of_type["response"].to_numpy()[places].mean() - truth[places].mean()
            assert abs(error) < 4 * np.sqrt(truth[places].mean() / len(places)), entity_type


def test_world_examination_matches_the_truth(world: World, impressions: pd.DataFrame) -> None:
    truth = world.truth
    expected = np.empty(len(impressions))
    raw_score = impressions["raw_score"].to_numpy()
    for entity_type in CURVES:
        of_type = (impressions["entity_type"] == entity_type).to_numpy()
        expected[of_type] = truth.response_probability(entity_type, raw_score[of_type])
    rows = impressions.assign(expected=expected).dropna(subset="expected")
    for column, curve in (
        ("position", truth.position_examination),
        ("slot", truth.slot_examination),
    ):
        examined = {
            "position": truth.slot_examination[rows["slot"]],
            "slot": truth.position_examination[rows["position"]],
        }
        sums = rows.assign(other=rows["expected"] * examined[column]).groupby(column)[["response", "other"]].sum()
        error = (sums["response"] / sums["other"]).to_numpy() / curve - 1
        assert (np.abs(error) < 4 / np.sqrt(sums["response"])).all(), column
        assert len(error) == len(curve)


def test_world_random_pages_place_every_kind_anywhere(cohorts: pd.DataFrame) -> None:
    shuffled = cohorts.loc[(cohorts["policy"] == "random") & (cohorts["propensity"] == 1 / 12)]
    for _, places in shuffled.groupby("entity_type")["position"]:
        assert chisquare(np.bincount(places, minlength=12)).pvalue > 1e-4
    n_cohorts = cohorts.groupby("request_id")["cohort_id"].transform("size")
    is_random = cohorts["policy"] == "random"
    assert (cohorts["propensity"] == 1 / n_cohorts)[is_random].all()
    assert cohorts["propensity"][~is_random].isna().all()


def test_world_production_pages_follow_the_mean_raw_score(impressions: pd.DataFrame) -> None:
    rows = impressions.loc[impressions["policy"] == "production"]
    means = rows.groupby(["request_id", "position"])["raw_score"].mean()
    assert means.groupby("request_id").is_monotonic_decreasing.all()


def test_truth_cohort_probability_matches_the_labels(
    world: World, cohorts: pd.DataFrame, impressions: pd.DataFrame
) -> None:
    truth = world.truth.cohort_probability(impressions)
    assert truth[["request_id", "cohort_id"]].equals(cohorts[["request_id", "cohort_id"]])
    bins = pd.qcut(truth["probability"], 6, labels=False).to_numpy()
    for place in range(6):
        expected = truth["probability"][bins == place].to_numpy()
        error = cohorts["label"][bins == place].mean() - expected.mean()
        assert abs(error) < 4 * np.sqrt((expected * (1 - expected)).sum()) / len(expected)
    by_type = truth["probability"].groupby(cohorts["entity_type"]).mean()
    labels = cohorts.groupby("entity_type")["label"].mean()
    assert by_type.to_numpy() == pytest.approx(labels.to_numpy(), rel=0.12)


def test_truth_cohort_probability_by_hand(world: World) -> None:
    truth = world.truth
    page = pd.DataFrame(
        {
            "request_id": "r",
            "cohort_id": ["a", "a", "a", "b"],
            "viewer_id": "v000007",
            "entity_type": "people",
            "position": [3, 3, 3, 0],
            "slot": [2, 0, 1, 0],
            "raw_score": [-2.0, 1.0, np.nan, np.nan],
        }
    )
    downstream = truth.downstream_probability.loc["v000007", "people"]
    first, last = (truth.response_probability("people", np.array([s]))[0] * downstream for s in (1.0, -2.0))
    some = 1 - (1 - first) * (1 - 0.81 * last)
    assert truth.cohort_probability(page)["probability"].tolist() == pytest.approx([some / 2, 0.0])
    assert truth.cohort_probability(page, position=0)["probability"].tolist() == pytest.approx([some, 0.0])
    assert truth.cohort_probability(page, position=0, top_k=1)["probability"].iloc[0] == pytest.approx(first)


def test_world_labels_are_null_until_they_are_mature(world: World) -> None:
    snapshot = pd.Timestamp("2026-01-21", tz="UTC")
    rows = world.impressions(200, snapshot=snapshot)
    mature = rows["at"] + pd.Timedelta(days=10) <= snapshot
    assert 0 < mature.sum() < len(rows)
    assert rows.loc[mature, ["response", "downstream"]].notna().all(axis=None)
    assert rows.loc[~mature, ["response", "downstream"]].isna().all(axis=None)


def test_world_refuses_what_it_cannot_make(world: World) -> None:
    with pytest.raises(InvalidModelInput, match="n_viewers is 5"):
        World(n_viewers=5)
    with pytest.raises(InvalidModelInput, match="n_entities is 3"):
        World(n_entities=3)
    with pytest.raises(InvalidModelInput, match="n_requests is 0"):
        world.impressions(0)
    with pytest.raises(InvalidModelInput, match=r"random_share 1\.5"):
        world.impressions(10, random_share=1.5)
    with pytest.raises(UnknownEntityType, match="Did you mean 'people'"):
        world.truth.response_probability("peple", np.zeros(1))


@pytest.mark.parametrize("entity_type", list(CURVES))
def test_response_curve_increases_and_keeps_null(entity_type: str) -> None:
    curve = CURVES[entity_type]
    raw_score = curve.raw_score(np.linspace(-6.0, 6.0, 200))
    assert np.isfinite(raw_score).all()
    assert (np.diff(raw_score) >= 0).all()
    probability = curve.response_probability(raw_score)
    assert (np.diff(probability) >= 0).all()
    assert probability[0] < 0.02
    assert 0.5 * curve.ceiling < probability[-1] < curve.ceiling
    assert np.isnan(curve.response_probability(np.array([np.nan]))).all()


def test_response_curves_are_on_seven_scales() -> None:
    middle = {
        name: (curve.raw_score(np.array([-1.0]))[0], curve.raw_score(np.array([1.0]))[0])
        for name, curve in CURVES.items()
    }
    assert len(middle) == len(set(middle.values())) == 7
