"""Rankers of one's own in a made network: what changes with them, and what must not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from first_pass import FunctionRanker
from simulations import World
from simulations.policies import Shuffled
from spr.errors import UnknownEntityType

KEY = ["request_id", "cohort_id", "entity_id"]


@pytest.fixture(scope="module")
def world() -> World:
    return World(150, seed=2)


def logged(world: World, *rankers: FunctionRanker) -> pd.DataFrame:
    chunks: list[pd.DataFrame] = []
    world.run(300, policy=Shuffled(), rankers=rankers, log=chunks.append)
    return pd.concat(chunks)


def by_popularity(entity_type: str = "group") -> FunctionRanker:
    return FunctionRanker(
        lambda pairs: pairs["popularity"], entity_type=entity_type, version="mine-1", features=["popularity"]
    )


def test_a_ranker_changes_its_own_scores_and_slots_only(world: World) -> None:
    before, after = logged(world), logged(world, by_popularity())
    other = before["entity_type"] != "group"
    pd.testing.assert_frame_equal(before[other], after[after["entity_type"] != "group"])
    mine = after[after["entity_type"] == "group"]
    assert set(mine["ranker_version"]) == {"mine-1"}
    popularity = world.entities[world.entities["entity_type"] == "group"].set_index("entity_id")["popularity"]
    scorable = mine[mine["raw_score"].notna()]
    np.testing.assert_allclose(scorable["raw_score"], np.log(popularity[scorable["entity_id"]].to_numpy()))
    falls = scorable.groupby(["request_id", "cohort_id"])["raw_score"].diff().dropna() <= 0
    assert falls.all()  # rows come in order of the slots
    assert (mine.groupby(["request_id", "cohort_id"])["slot"].nunique() == 6).all()


def test_the_same_entities_meet_the_same_people_in_the_same_mood(world: World) -> None:
    before = logged(world).query("entity_type == 'group'").set_index(KEY).sort_index()
    after = logged(world, by_popularity()).query("entity_type == 'group'").set_index(KEY).sort_index()
    assert before.index.equals(after.index)
    np.testing.assert_array_equal(before["raw_score"].isna(), after["raw_score"].isna())
    np.testing.assert_array_equal(before["position"], after["position"])
    stayed = (before["slot"] == after["slot"]).to_numpy()
    assert 0.05 < stayed.mean() < 0.8
    np.testing.assert_array_equal(before["response"][stayed], after["response"][stayed])
    rose = (after["slot"] < before["slot"]).to_numpy()
    assert (after["response"][rose].to_numpy() >= before["response"][rose].to_numpy()).all()


def test_a_ranker_of_an_unknown_type_is_named(world: World) -> None:
    with pytest.raises(UnknownEntityType, match=r"'grop' in the ranker 'mine-1'.*Did you mean 'group'"):
        logged(world, by_popularity("grop"))
