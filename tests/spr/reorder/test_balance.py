"""The check of the random bucket finds what it is for, and says what; the level is tested in tests/slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from simulations import World
from spr.errors import ConfigError, TableError
from spr.reorder import is_random
from spr.reorder.balance import BucketCheck, check_random_bucket

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def world() -> World:
    return World(400, seed=6)


@pytest.fixture(scope="module")
def shuffled(world: World) -> pd.DataFrame:
    """A log whose pages are all shuffled, so that any of them may be called random."""
    return world.impressions(8000, random_share=1.0)


@pytest.fixture(scope="module")
def ordered(world: World) -> pd.DataFrame:
    return world.impressions(3000, random_share=0.0)


def called_random(log: pd.DataFrame, column: str, share: float = 0.05) -> pd.DataFrame:
    chosen = {name: is_random(name, share, "salt") for name in log[column].unique()}
    return log.assign(policy=np.where(log[column].map(chosen), "random", "spr"))


def findings(check: BucketCheck) -> set[str]:
    table = check.to_pandas()
    return set(table[table["suspect"]].index.get_level_values("question"))


def test_a_bucket_by_hash_of_the_request_passes(world: World, shuffled: pd.DataFrame) -> None:
    log = called_random(shuffled, "request_id")
    check = check_random_bucket(log, viewers=world.viewers)
    assert check.passed
    assert findings(check) == set()
    (sentence,) = check.sentences
    assert f"{check.n_random:,} of 8,000 requests are random" in sentence
    tests = check.tests
    assert list(tests.columns) == ["observed", "expected", "difference", "z", "p_value", "adjusted"]
    assert set(tests.index.get_level_values("question")) == {"share", "viewers", "covariate", "position"}
    for name in ("viewer's tenure_days", "viewer's is_creator", "share of event", "cohorts of the page", "hour 6-11"):
        assert ("covariate", name) in tests.index
    assert ("position", "cohorts of people") in tests.index
    n_random = log.loc[log["policy"] == "random", "request_id"].nunique()
    assert check.n_random == n_random
    share = tests.loc[("share", "all requests")]
    assert share["observed"] == n_random / 8000
    assert share["p_value"] == pytest.approx(binomtest(n_random, 8000, 0.05).pvalue)
    assert (tests["adjusted"] >= tests["p_value"]).all()


def test_a_bucket_by_viewer_is_found(world: World, shuffled: pd.DataFrame) -> None:
    check = check_random_bucket(called_random(shuffled, "viewer_id"), viewers=world.viewers)
    assert not check.passed
    assert "viewers" in findings(check)
    assert "position" not in findings(check)
    assert any("never of the viewer" in sentence for sentence in check.sentences)
    pairs = check.tests.loc[("viewers", "random requests of one viewer")]
    assert pairs["observed"] > 5 * pairs["expected"]
    assert pairs["p_value"] < 1e-3


def test_a_bucket_of_three_percent_is_not_one_of_five(shuffled: pd.DataFrame) -> None:
    log = called_random(shuffled, "request_id", 0.03)
    check = check_random_bucket(log)
    assert findings(check) == {"share"}
    (sentence,) = check.sentences
    assert "not 5.000%" in sentence
    assert "random_share" in sentence
    assert check_random_bucket(log, share=0.03).passed


def test_pages_that_are_sorted_are_not_shuffled(ordered: pd.DataFrame) -> None:
    check = check_random_bucket(called_random(ordered, "request_id"))
    assert findings(check) == {"position"}
    assert any("not shuffled uniformly" in sentence for sentence in check.sentences)


def test_pages_sorted_inside_a_type_show_by_their_raw_scores(shuffled: pd.DataFrame) -> None:
    # The positions that a type has stay; inside it the better cohorts move up.
    log = called_random(shuffled, "request_id")
    cohorts = log.groupby(["request_id", "cohort_id", "entity_type", "policy"], as_index=False).agg(
        position=("position", "first"), score=("raw_score", "mean")
    )
    groups = ["request_id", "entity_type"]
    by_place = cohorts.sort_values([*groups, "position"]).reset_index(drop=True)
    by_score = cohorts.sort_values([*groups, "score"], ascending=[True, True, False]).reset_index(drop=True)
    by_score["position"] = by_place["position"]
    keys = ["request_id", "cohort_id"]
    moved = log.drop(columns="position").merge(by_score[[*keys, "position"]], on=keys)
    check = check_random_bucket(moved)
    table = check.to_pandas()
    (found,) = table.index[table["suspect"]]
    assert found == ("position", "cohorts of a raw score a standard deviation higher")
    assert table.loc[found, "difference"] < 0
    assert "too high" in check.sentences[0]


def test_a_surface_without_random_pages_shows_in_the_covariates(shuffled: pd.DataFrame) -> None:
    log = called_random(shuffled, "request_id", 0.2)
    log = log.assign(policy=log["policy"].where(log["at"].dt.hour >= 6, "spr"))
    check = check_random_bucket(log, share=0.15)
    found = check.to_pandas().query("suspect")
    assert ("covariate", "hour 0-5") in found.index
    assert found.loc[("covariate", "hour 0-5"), "observed"] == 0.0


def test_cohorts_that_cannot_be_scored_may_stand_below_the_shuffle(shuffled: pd.DataFrame) -> None:
    log = called_random(shuffled, "request_id")
    event = log["entity_type"] == "event"
    log = log.assign(raw_score=log["raw_score"].where(~event), position=log["position"] + 100 * event)
    check = check_random_bucket(log)
    assert check.passed
    assert ("position", "cohorts of event") not in check.tests.index
    assert not check_random_bucket(log.assign(raw_score=1.0)).passed


def test_variance_of_positions_is_that_of_a_permutation() -> None:
    # Two of four cohorts, at the two top positions: the rank sum 1 has mean 3 and variance 2 * 2 * 5 / 12.
    log = pd.DataFrame(
        {
            **{"request_id": "r", "at": "2026-01-01", "viewer_id": "v", "policy": "random", "raw_score": 1.0},
            "cohort_id": list("abcd"),
            "entity_type": ["x", "x", "y", "y"],
            "position": range(4),
        }
    )
    found = check_random_bucket(log).tests.loc[("position", "cohorts of x")]
    assert found["z"] == pytest.approx(-2 / np.sqrt(5 / 3))
    assert found["difference"] == pytest.approx(-2.0)


def test_viewers_are_taken_as_they_were(world: World, shuffled: pd.DataFrame, tmp_path: Path) -> None:
    log = called_random(shuffled, "request_id")
    plain = world.viewers[["viewer_id", "tenure_days"]]
    early = plain.assign(at=pd.Timestamp("2025-01-01", tz="UTC"))
    late = plain.assign(at=pd.Timestamp("2030-01-01", tz="UTC"), tenure_days=np.arange(400.0))
    one, two = (check_random_bucket(log, viewers=table).tests for table in (plain, pd.concat([late, early])))
    pd.testing.assert_frame_equal(one, two)
    log.to_parquet(tmp_path / "log.parquet")
    plain.to_parquet(tmp_path / "viewers.parquet")
    read = check_random_bucket(tmp_path / "log.parquet", viewers=tmp_path / "viewers.parquet").tests
    pd.testing.assert_frame_equal(one, read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": None}, "policy is null"),
        ({"viewer_id": ["a", "b", "a", "a"]}, "viewer_id is not constant within a request in 1 of 4 rows"),
        ({"policy": ["random", "spr", "random", "random"]}, "policy is not constant within a request"),
    ],
)
def test_a_broken_log_is_refused(change: dict[str, object], message: str) -> None:
    log = pd.DataFrame({"request_id": ["r"] * 4, "at": "2026-01-01", "viewer_id": "v", "policy": "random"})
    log = log.assign(cohort_id=list("abcd"), entity_type="x", position=range(4), raw_score=1.0)
    with pytest.raises(TableError, match=message):
        check_random_bucket(log.assign(**change))
    with pytest.raises(TableError, match="column 'position' is missing"):
        check_random_bucket(log.drop(columns="position"))
    with pytest.raises(TableError, match="no rows"):
        check_random_bucket(log.iloc[:0])
    with pytest.raises(ConfigError, match="share is 1"):
        check_random_bucket(log, share=1.0)


def test_one_viewer_who_comes_twice_is_no_error() -> None:
    # Nearly every draw has no pair at all: there is no tail to go by, and nothing warns.
    names = [f"r{number}" for number in range(40_000)]
    viewer = ["v1", "v1", *(f"w{number}" for number in range(len(names) - 2))]
    log = pd.DataFrame({"request_id": names, "at": "2026-01-01", "viewer_id": viewer, "policy": "spr"})
    log.loc[:1, "policy"] = "random"
    log = log.assign(cohort_id="c", entity_type="x", position=0, raw_score=1.0)
    pairs = check_random_bucket(log, share=0.0001).tests.loc[("viewers", "random requests of one viewer")]
    assert pairs["observed"] == 1
    assert pairs["p_value"] == 1e-4
