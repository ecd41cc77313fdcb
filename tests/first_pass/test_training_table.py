"""What first-pass teams are given of the shuffled pages: which rows, which propensities, and that it is unbiased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from first_pass import FirstPassError, training_table
from simulations import World
from simulations.policies import PartlyShuffled, Placed

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.page_views import PageViews


@pytest.fixture(scope="module")
def world() -> World:
    return World(300, seed=4)


@pytest.fixture(scope="module")
def log(world: World) -> pd.DataFrame:
    table = world.impressions(400)
    table["seen"] = 1.0
    table["context_surface"] = "home"
    table["cohort_size"] = 6.0
    table["dismissed"] = 0.0
    return table


def test_rows_are_those_of_the_random_policy_and_mature(log: pd.DataFrame) -> None:
    log = log.copy()
    log.loc[log["at"] > log["at"].quantile(0.7), "response"] = np.nan
    table = training_table(log, "group")
    kept = log[(log["policy"] == "random") & (log["entity_type"] == "group") & log["response"].notna()]
    assert list(table.columns) == [
        *("request_id", "cohort_id", "at", "viewer_id", "entity_id", "slot", "position", "propensity"),
        *("ranker_version", "raw_score", "response", "seen", "cohort_kind", "context_surface", "cohort_size"),
    ]
    assert 0 < len(table) < (log["entity_type"] == "group").sum() / 2
    for column in table.columns.difference(["at"]):
        np.testing.assert_array_equal(table[column].to_numpy(), kept[column].to_numpy(), err_msg=column)
    assert table["raw_score"].isna().any()  # not scorable, and still something that was shown
    assert table.index.equals(pd.RangeIndex(len(table)))


def test_propensity_counts_the_cohorts_of_all_types(log: pd.DataFrame) -> None:
    n_cohorts = log.groupby("request_id")["cohort_id"].nunique()
    for given in (log.drop(columns="propensity"), log.assign(propensity=np.nan), log):
        table = training_table(given, "newsletter")
        np.testing.assert_allclose(table["propensity"], 1.0 / n_cohorts[table["request_id"]].to_numpy())


def test_propensity_of_a_page_with_cohorts_below_the_shuffle_is_accepted() -> None:
    log = page(3).assign(propensity=[0.5, 0.5, np.nan], raw_score=[1.0, 1.0, np.nan])
    assert training_table(log, "t0")["propensity"].tolist() == [0.5]


def test_a_propensity_that_is_not_of_a_shuffle_is_refused(log: pd.DataFrame) -> None:
    log = log.copy()
    random = log.index[log["policy"] == "random"]
    log.loc[random[:12], "propensity"] = 0.5
    first = log.loc[random[0]]
    with pytest.raises(FirstPassError, match=r"not 1 / its number of cohorts in 12 of .* random rows") as refused:
        training_table(log, "group")
    assert f"request_id={first['request_id']!r}" in str(refused.value)
    assert "propensity=0.5 with" in str(refused.value)
    fewer = log.drop(columns="propensity").assign(propensity=1 / 13)
    with pytest.raises(FirstPassError, match="cohorts are missing from the log"):
        training_table(fewer, "group")


def test_files_give_the_same_table(log: pd.DataFrame, tmp_path: Path) -> None:
    expected = training_table(log, "event")
    log.to_parquet(tmp_path / "log.parquet")
    log.to_csv(tmp_path / "log.csv", index=False)
    for name in ("log.parquet", "log.csv"):
        table = training_table(tmp_path / name, "event")
        pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    (tmp_path / "log.txt").write_text("x")
    for name, message in (("log.txt", "neither .parquet nor .csv"), ("no.csv", "no file at")):
        with pytest.raises(FirstPassError, match=message):
            training_table(tmp_path / name, "event")


def page(n_cohorts: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **{"request_id": "r1", "at": "2026-01-01", "viewer_id": "v1", "policy": "random"},
            "cohort_id": [f"c{i}" for i in range(n_cohorts)],
            "entity_type": [f"t{i}" for i in range(n_cohorts)],
            "position": range(n_cohorts),
            **{"slot": 0, "entity_id": "e", "ranker_version": "1", "raw_score": 0.1, "response": 0.0},
        }
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response": -1.0}, "response is negative or infinite in 3 of 3 random rows; first: request_id='r1'"),
        ({"raw_score": np.inf}, "raw_score is infinite"),
        ({"position": 0.5}, "position is not a whole number"),
        ({"slot": np.nan}, "slot is not a whole number"),
        ({"cohort_id": "c0"}, r"\(request_id, cohort_id, slot\) is there twice in 2 of 3"),
        ({"cohort_id": "c0", "slot": [0, 1, 2]}, "a cohort has two positions in 2 of 3"),
        ({"viewer_id": None}, "viewer_id must be a string and never null"),
        ({"response": "yes"}, "does not hold what it should"),
        ({"response": None}, "all 1 random rows of 't0' is null: their windows are still open"),
        ({"policy": "spr"}, "none of the 1 rows of 't0' is of policy 'random'; found: spr"),
    ],
)
def test_what_breaks_the_contract_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(FirstPassError, match=message):
        training_table(page(3).assign(**change), "t0")


def test_what_is_not_there_is_named(log: pd.DataFrame) -> None:
    with pytest.raises(FirstPassError, match=r"unknown entity type 'grop' in impressions; known: .*Did you mean 'grou"):
        training_table(log, "grop")
    with pytest.raises(LookupError, match=r"column 'position' is missing"):
        training_table(log.drop(columns="position"), "group")


@dataclass(frozen=True)
class PopularOnTop:
    """A policy that people might well have: what is popular goes up."""

    def place(self, views: PageViews) -> Placed:
        popularity = np.log(views.world.entities["popularity"].to_numpy())
        mean = popularity[views.entity].mean(axis=1)
        nobody = np.full(views.n_cohorts, np.nan)
        return Placed(views.position_of(-mean), nobody, np.full(views.n_requests, "popular", dtype=object))


def pair_features(world: World, table: pd.DataFrame, entity_type: str) -> np.ndarray:
    viewers = world.viewers.set_index("viewer_id").loc[table["viewer_id"]]
    entities = world.entities[world.entities["entity_type"] == entity_type].set_index("entity_id")
    entities = entities.loc[table["entity_id"]]
    taste, matter = (np.array(side["embedding"].tolist()) for side in (viewers, entities))
    return np.column_stack([(taste * matter).sum(axis=1), np.log(entities["popularity"])])


def test_random_rows_teach_the_true_order_where_other_rows_teach_the_policy(world: World) -> None:
    chunks: list[pd.DataFrame] = []
    world.run(20_000, policy=PartlyShuffled(PopularOnTop(), 0.5), log=chunks.append)
    log = pd.concat(chunks)
    served = log[(log["policy"] == "popular") & (log["entity_type"] == "group")]
    fresh = world.impressions(1500)
    fresh = fresh[(fresh["entity_type"] == "group") & fresh["raw_score"].notna()]
    truth = world.truth.response_probability("group", fresh["raw_score"].to_numpy())
    agreement, ratio = {}, {}
    for name, rows in (("random", training_table(log, "group")), ("served", served)):
        model = LogisticRegression(C=100.0).fit(pair_features(world, rows, "group"), rows["response"])
        agreement[name] = spearmanr(model.decision_function(pair_features(world, fresh, "group")), truth).statistic
        ratio[name] = float(model.coef_[0, 1] / model.coef_[0, 0])
    assert agreement["random"] > agreement["served"] + 0.01
    assert ratio["served"] > 1.3 * ratio["random"]  # popularity gets what the position did


def test_position_is_independent_of_the_raw_score_on_random_rows_only(world: World) -> None:
    log = world.impressions(4000)
    table = training_table(log, "people")
    served = log[(log["policy"] != "random") & (log["entity_type"] == "people")]
    p_value = {}
    for name, rows in (("random", table), ("served", served)):
        cohorts = rows.groupby(["request_id", "cohort_id"])
        p_value[name] = spearmanr(cohorts["position"].first(), cohorts["raw_score"].mean()).pvalue
    assert p_value["served"] < 1e-6
    assert p_value["random"] > 0.01


@pytest.mark.parametrize(
    ("position", "message"),
    [((0, 5, 1), "cohorts are missing from the log in 3 of 3"), ((0, 1, 1), "two cohorts of a page have one position")],
)
def test_positions_that_are_no_order_of_the_page_are_refused(position: tuple[int, ...], message: str) -> None:
    with pytest.raises(FirstPassError, match=message):
        training_table(page(3).assign(position=position), "t0")
