"""Policies of a made network: guarantees counted over sessions, arms, fitted rankers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from simulations.policies import ExpectedGain, PartlyShuffled, Production, Ranked, Shuffled, Split
from spr.errors import InvalidModelInput
from spr.reorder import ImportanceFactors, ImpressionGuarantee

if TYPE_CHECKING:
    import spr
    from simulations import World
    from simulations.policies import Policy

FLOOR = ImpressionGuarantee("floor", "edge_type", "connection", share=0.3, within_top=4)


def log_of(world: World, policy: Policy, n: int = 400, **options: object) -> pd.DataFrame:
    chunks: list[pd.DataFrame] = []
    world.run(n, policy=policy, log=chunks.append, **options)
    return pd.concat(chunks, ignore_index=True)


def cohorts(log: pd.DataFrame) -> pd.DataFrame:
    return log.drop_duplicates(["request_id", "cohort_id"])


@pytest.mark.parametrize(
    "policy",
    [Shuffled(), Production(), PartlyShuffled(Production(), 0.3), ExpectedGain(), ExpectedGain(None, (FLOOR,))],
)
def test_every_page_is_whole_and_a_policy_serves_two_runs_alike(small_world: World, policy: Policy) -> None:
    one, other = log_of(small_world, policy), log_of(small_world, policy)
    pd.testing.assert_frame_equal(one, other)
    for positions in cohorts(one).groupby("request_id")["position"].apply(sorted):
        assert positions == list(range(len(positions)))
    nothing = one.groupby(["request_id", "position"])["raw_score"].apply(lambda s: s.isna().all())
    random = set(one.loc[one["policy"] == "random", "request_id"])
    for request_id, page in nothing.groupby(level=0):
        if request_id not in random:
            assert page.is_monotonic_increasing  # what cannot be scored stands last


def test_a_guarantee_is_kept_over_the_sessions_of_each_viewer(small_world: World) -> None:
    log = cohorts(log_of(small_world, ExpectedGain(ImportanceFactors.of({"connection": 0.01}), (FLOOR,)), 3000))
    top = log[log["position"] < 4].sort_values(["at", "request_id"])
    supply = log.assign(people=log["entity_type"] == "people").groupby("request_id")["people"].sum()
    for _, seen in top.groupby("viewer_id"):
        pages = seen.groupby("request_id", sort=False)["entity_type"].agg(["size", lambda t: (t == "people").sum()])
        owed = 0.3 * pages["size"].cumsum() - pages.iloc[:, 1].cumsum()
        if (supply[pages.index] >= 2).all():
            assert owed.max() <= 1 + 1e-9


def test_counters_go_on_in_a_run_that_comes_after(small_world: World) -> None:
    policy = ExpectedGain(ImportanceFactors.of({"connection": 0.01}), (FLOOR,))
    first = small_world.run(300, policy=policy, days=5)
    second = small_world.run(300, policy=policy, days=5, after=first)
    viewer = int(first.sessions.argmax())
    assert second.counters[viewer]["total"] == first.counters[viewer]["total"] + 4 * second.sessions[viewer]


def test_arms_have_their_own_viewers_and_random_pages_stay_random(small_world: World) -> None:
    split = Split({"old": PartlyShuffled(Production(), 0.2), "new": ExpectedGain()}, salt="s")
    arm = dict(zip(small_world.viewer_ids, split.arm_of(small_world.viewer_ids), strict=True))
    assert 0.3 < np.mean([name == "new" for name in arm.values()]) < 0.7
    log = log_of(small_world, split)
    served = log[log["policy"] != "random"]
    assert (served["policy"] == served["viewer_id"].map(arm)).all()
    assert set(log.loc[log["policy"] == "random", "viewer_id"].map(arm)) == {"old"}
    alone = {name: log_of(small_world, policy) for name, policy in split.arms.items()}
    for name, of_arm in alone.items():
        mine = log["viewer_id"].map(arm) == name
        pd.testing.assert_series_equal(log.loc[mine, "position"], of_arm.loc[mine, "position"])
    with pytest.raises(InvalidModelInput, match="at least two"):
        Split({"one": Production()}, salt="s")


def test_a_ranker_s_pages_are_those_it_gives_a_service(small_world: World, ranker: spr.SecondPassRanker) -> None:
    log = log_of(small_world, Ranked(ranker), 60)
    first = log[
        ~log["viewer_id"].duplicated(keep="first")
        | log["request_id"].isin(log.groupby("viewer_id")["request_id"].first())
    ]
    pages = ranker.rank_table(first, small_world.viewers, small_world.entities)
    placed = cohorts(first).set_index(["request_id", "cohort_id"])["position"]
    said = pages.set_index(["request_id", "cohort_id"])["position"]
    pd.testing.assert_series_equal(placed.reindex(said.index), said, check_dtype=False)
    random = set(pages.loc[pages["policy"] == "random", "request_id"])
    assert set(first.loc[first["policy"] == "random", "request_id"]) == random
    assert first.loc[first["policy"] == "random", "propensity"].notna().all()
