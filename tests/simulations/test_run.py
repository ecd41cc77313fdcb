"""Runs of a made network: paired draws, known truth of edges and pages, interventions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson as exact_poisson

from simulations import Behaviour, World
from simulations import run as run_module
from simulations.behaviour import ENTITY_TYPES
from simulations.policies import ExpectedGain, OptimalPage, Placed, Production, Shuffled
from simulations.run import poisson
from spr.config import Config
from spr.errors import InvalidModelInput, TableError, UnknownEntityType
from spr.tables import read_impressions

if TYPE_CHECKING:
    from simulations.page_views import PageViews


@pytest.fixture(scope="module")
def world() -> World:
    return World(n_viewers=800, seed=4)


def digest(frame: pd.DataFrame) -> str:
    return hashlib.sha256(pd.util.hash_pandas_object(frame, index=True).to_numpy().tobytes()).hexdigest()[:16]


def test_the_log_is_the_same_in_every_version() -> None:
    log = World(n_viewers=200, seed=1).impressions(4000)
    # exponentials differ between processors in their last digit
    assert digest(log.assign(raw_score=log["raw_score"].round(6))) == "d5a90322ffe9a382"


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.3, 4.0, 250.0])
def test_poisson_draws_are_the_inverse_of_the_distribution(rate: float) -> None:
    uniform = np.linspace(0, 1, 4001, endpoint=False)
    expected = np.maximum(exact_poisson.ppf(uniform, rate), 0) if rate else np.zeros(4001)
    np.testing.assert_array_equal(poisson(uniform, np.full(4001, rate)), expected)


def test_a_run_repeats_itself_and_its_log_meets_the_contract(world: World) -> None:
    chunks: list[pd.DataFrame] = []
    one, other = world.run(600, log=chunks.append), world.run(600)
    pd.testing.assert_frame_equal(one.viewers, other.viewers)
    rows = read_impressions(chunks[0], Config.named("network"))
    assert rows["request_id"].nunique() == 600
    assert one.viewers["sessions"].sum() == 600
    assert set(rows["policy"]) == {"production", "random"}
    assert rows["response"].sum() == one.totals["formed"]
    assert rows["downstream"].sum() == one.totals["downstream"]
    assert len(one.formed_edges) == one.totals["formed"]


@dataclass(frozen=True)
class OnePageTurned:
    """Production, but one request's page upside down."""

    number: int

    def place(self, views: PageViews) -> Placed:
        placed = Production().place(views)
        mine = views.request == self.number
        position = placed.position.copy()
        position[mine] = position[mine].max() - position[mine]
        return Placed(position, placed.propensity, placed.policy)


def test_another_page_changes_that_page_only(world: World) -> None:
    logs: list[pd.DataFrame] = []
    for policy in (Production(), OnePageTurned(17)):
        world.run(400, policy=policy, log=logs.append)
    one, other = logs
    changed = ~(one["position"] == other["position"])
    assert one.loc[changed, "request_id"].nunique() == 1
    pd.testing.assert_frame_equal(
        one.loc[one["request_id"] != "r0000017"], other.loc[other["request_id"] != "r0000017"]
    )


def test_policies_are_paired(world: World) -> None:
    """The difference of two policies varies far less between worlds' moods than either does."""
    better = [world.run(1500, policy=p).totals["downstream"] for p in (ExpectedGain(), Production())]
    assert better[0] > 1.1 * better[1]
    lone = World(n_viewers=800, seed=4)
    first = lone.run(1500, policy=ExpectedGain())
    np.testing.assert_array_equal(first.sessions, world.run(1500, policy=Production()).sessions)


def test_chunks_change_neither_law_nor_edges_carried_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world.run(6000).totals
    monkeypatch.setattr(run_module, "CHUNK", 1000)
    parts = world.run(6000).totals
    assert parts["sessions"] == 6000
    for name in ("formed", "downstream", "engagement"):
        assert parts[name] == pytest.approx(whole[name], rel=0.12)


def test_expected_edges_are_the_mean_of_what_is_drawn() -> None:
    for behaviour in (
        Behaviour(),
        Behaviour(examination="cascade"),
        Behaviour(examination="row_column"),
        Behaviour(cannibalization={"people": {"hashtag": 0.7}, "event": {"group": -0.4}}),
    ):
        run = World(n_viewers=400, seed=4, behaviour=behaviour).run(12_000)
        drawn, expected = run.totals["downstream"], run.expected_edges.sum()
        assert abs(drawn - expected) < 4 * np.sqrt(expected), behaviour
        assert run.expected_gain.sum() > 0


def test_cannibalization_and_synergy_have_the_given_strength() -> None:
    logs: dict[str, pd.DataFrame] = {}
    for name, kappa in (("none", {}), ("some", {"people": {"hashtag": 0.7}, "event": {"hashtag": -0.5}})):
        chunks: list[pd.DataFrame] = []
        network = World(n_viewers=400, seed=4, behaviour=Behaviour(cannibalization=kappa))
        network.run(20_000, policy=Shuffled(), log=chunks.append)
        logs[name] = chunks[0]
    cohorts = logs["none"].drop_duplicates(["request_id", "cohort_id"])
    hashtags = cohorts.loc[cohorts["entity_type"] == "hashtag", ["request_id", "position"]]
    pairs = cohorts.merge(hashtags, on="request_id", suffixes=("", "_h"))
    above = pairs.loc[pairs["position_h"] < pairs["position"]].groupby(["request_id", "cohort_id"]).size()
    keys = pd.MultiIndex.from_frame(logs["none"][["request_id", "cohort_id"]])
    n_above = above.reindex(keys, fill_value=0).to_numpy()
    for entity_type, strength in (("people", 0.7), ("event", -0.5), ("group", 0.0)):
        for n in (0, 1, 2):
            rows = (logs["none"]["entity_type"] == entity_type).to_numpy() & (n_above == n)
            without, with_it = (logs[name]["response"].to_numpy()[rows].sum() for name in ("none", "some"))
            # the draws are paired, so that the error is of the responses that differ
            expected = without * np.exp(-strength * n)
            assert abs(with_it - expected) <= 4 * np.sqrt(abs(expected - without)) + 1e-9


def test_a_cascade_stops_and_a_table_is_read_by_row_and_column() -> None:
    chunks: list[pd.DataFrame] = []
    cascade = World(n_viewers=400, seed=4, behaviour=Behaviour(examination="cascade"), cohorts_per_page=(12, 12))
    cascade.run(20_000, policy=Shuffled(), log=chunks.append)
    rate = chunks[0].groupby("position")["response"].mean()
    fall = (rate / rate[0]).to_numpy()
    assert 0.9**11 * 0.35 < fall[11] < 0.9**11  # 0.9 after a cohort without a response, 0.7 after one with
    read = World(n_viewers=400, seed=4, behaviour=Behaviour(examination="row_column"), cohorts_per_page=(12, 12))
    read.run(30_000, policy=Shuffled(), log=chunks.append)
    scorable = chunks[1][chunks[1]["raw_score"].notna()]
    wants = np.empty(len(scorable))
    for name in ENTITY_TYPES:
        rows = (scorable["entity_type"] == name).to_numpy()
        wants[rows] = read.truth.response_probability(name, scorable["raw_score"].to_numpy()[rows])
    sums = scorable.assign(wants=wants).groupby(["position", "slot"])[["response", "wants"]].sum()
    found = (sums["response"] / sums["wants"]).unstack().to_numpy()
    error = read.truth.examination_table / np.sqrt(sums["response"].unstack().to_numpy())
    assert (np.abs(found - read.truth.examination_table) < 4.5 * error).all()


def test_formed_edges_bring_engagement_to_later_sessions(world: World) -> None:
    """Content grows with the edges: checked session by session in a loop that knows nothing of the run's arrays."""
    run = world.run(2500, policy=Shuffled())
    behaviour, part = world.behaviour, run.formed[0]
    chunks: list[pd.DataFrame] = []
    world.run(2500, policy=Shuffled(), log=chunks.append)
    pages = chunks[0].drop_duplicates("request_id")
    engaged_at = pd.DatetimeIndex(part.engaged_at, tz="UTC")
    for viewer in run.sessions.argsort()[-5:]:
        total = np.zeros(4)
        for at in pages.loc[pages["viewer_id"] == world.viewer_ids[viewer], "at"]:
            engaged = world.engaged_counts[viewer].copy()
            for code in part.entity_type[(part.viewer == viewer) & (engaged_at <= at)]:
                engaged[behaviour.edge_code[code]] += 1
            total[:3] += behaviour.first_edge_engagement * behaviour.content(engaged)
            total[3] += behaviour.base_engagement
        np.testing.assert_allclose(run.engagement_by_type[viewer], total * world.sociability[viewer])


def test_actions_follow_responses_after_a_delay(world: World) -> None:
    run = world.run(2000)
    actions = run.actions
    assert actions["event_id"].is_unique
    assert actions["at"].is_monotonic_increasing
    counts = actions["action"].value_counts()
    assert counts["response"] == run.totals["formed"]
    assert counts.drop("response").sum() == run.totals["downstream"]
    assert set(counts.index) == {"response", "like", "comment", "reshare"}
    first = actions[actions["action"] == "response"].groupby(["request_id", "entity_type", "entity_id"])["at"].first()
    later = actions[actions["action"] != "response"].set_index(["request_id", "entity_type", "entity_id"])["at"]
    delay = (later - first.reindex(later.index)).dt.total_seconds() / 86_400
    assert 0 <= delay.min() < delay.max() <= 7
    assert delay.mean() == pytest.approx(2.0, rel=0.15)


def test_dropped_edges_lose_what_the_truth_says(world: World) -> None:
    drop = world.viewers[["viewer_id"]].assign(dropped_connection=0.3)
    full, less = world.run(1500, policy=Shuffled()), world.run(1500, policy=Shuffled(), drop=drop)
    np.testing.assert_array_equal(full.engagement_by_type[:, 1:], less.engagement_by_type[:, 1:])
    behaviour = world.behaviour
    still = (full.engaged[:, 0] == world.engaged_counts[:, 0]) & (full.engagement_by_type[:, 0] > 0)
    engaged = world.engaged_counts[still, 0]
    kept = behaviour.content(0.7 * engaged) / behaviour.content(engaged)
    assert still.sum() > 50
    np.testing.assert_allclose(less.engagement_by_type[still, 0] / full.engagement_by_type[still, 0], kept)
    assert (less.engagement <= full.engagement).all()  # paired, so never more


def test_a_type_that_is_not_there_leaves_the_others_as_they_were(world: World) -> None:
    logs: list[pd.DataFrame] = []
    world.run(300, policy=Production(), log=logs.append)
    world.run(300, policy=Production(), without=["newsletter", "event"], log=logs.append)
    there = logs[0].loc[~logs[0]["entity_type"].isin(["newsletter", "event"])]
    columns = ["request_id", "cohort_id", "entity_id", "raw_score"]
    pd.testing.assert_frame_equal(there[columns].reset_index(drop=True), logs[1][columns])
    assert (logs[1].groupby("request_id")["position"].min() == 0).all()


def test_a_later_run_goes_on_from_the_edges_and_the_time(world: World) -> None:
    logs: list[pd.DataFrame] = []
    first = world.run(800, days=7)
    second = world.run(800, days=7, after=first, log=logs.append)
    assert logs[0]["at"].min() >= first.end
    assert not set(logs[0]["request_id"]) & {f"r{n:07d}" for n in range(800)}
    assert second.edges.sum() == first.edges.sum() + second.totals["formed"]
    assert second.engaged.sum() == first.engaged.sum() + second.totals["downstream"]
    assert not np.array_equal(second.sessions, first.sessions)
    with pytest.raises(InvalidModelInput, match="another world"):
        World(50).run(10, after=first)


def test_the_optimal_page_gains_most(world: World) -> None:
    gains = {
        name: world.run(4000, policy=policy).totals["expected_gain"]
        for name, policy in (
            ("optimal", OptimalPage()),
            ("factors", ExpectedGain()),
            ("production", Production()),
            ("random", Shuffled()),
        )
    }
    assert gains["optimal"] == max(gains.values())
    assert gains["factors"] > 1.1 * gains["random"]


def test_truth_s_optimal_page_is_the_policy_s(world: World) -> None:
    logs: list[pd.DataFrame] = []
    run_policy = OptimalPage()
    world.run(60, policy=run_policy, log=logs.append)
    rows = logs[0]
    complete = rows.groupby(["request_id", "cohort_id"])["raw_score"].transform(lambda s: s.notna().all())
    pages = rows[complete.groupby(rows["request_id"]).transform("all")]
    placed = world.truth.optimal_page(pages).set_index(["request_id", "cohort_id"])["position"]
    shown = pages.drop_duplicates(["request_id", "cohort_id"]).set_index(["request_id", "cohort_id"])["position"]
    pd.testing.assert_series_equal(placed, shown.astype(np.int64))


def test_bad_runs_are_refused(world: World) -> None:
    viewers = world.viewers[["viewer_id"]]
    with pytest.raises(InvalidModelInput, match="0 requests"):
        world.run(0)
    with pytest.raises(UnknownEntityType, match="Did you mean 'people'"):
        world.run(10, without=["peple"])
    with pytest.raises(TableError, match="Did you mean 'follow'"):
        world.run(10, drop=viewers.assign(dropped_folow=0.5))
    with pytest.raises(TableError, match=r"dropped_follow is outside \[0, 1\] or null in 800 rows"):
        world.run(10, drop=viewers.assign(dropped_follow=1.5))
    with pytest.raises(TableError, match="1 viewers are not of this world; first: 'nobody'"):
        world.edge_drop(pd.DataFrame({"viewer_id": ["nobody"]}), rng=1)
    with pytest.raises(InvalidModelInput, match="cohorts_per_page"):
        World(50, cohorts_per_page=(5, 40))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concavity": 0.0}, "concavity is 0.0; allowed: above 0"),
        ({"saturation": 0.0}, "saturation"),
        ({"spillover": 1.0}, "spillover"),
        ({"examination": "eye"}, "unknown examination 'eye'"),
        ({"edge_type_of": {"people": "connection"}}, "does not name 'hashtag'"),
        ({"engagement_per_edge": {"connection": 1.0}}, "engagement_per_edge of 'follow' is None"),
        ({"cannibalization": {"peple": {}}}, "Did you mean 'people'"),
    ],
)
def test_behaviour_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        Behaviour(**settings)


def test_what_follows_a_response_is_the_same_when_a_type_is_not_there(world: World) -> None:
    full, less = (world.run(1500, policy=Shuffled(), without=without).actions for without in ([], ["newsletter"]))
    keys = ["request_id", "entity_type", "entity_id", "action"]
    both = full.drop_duplicates(keys).merge(less.drop_duplicates(keys), on=keys)
    later = both[both["action"] != "response"]
    assert len(later) > 100
    assert (later["at_x"] == later["at_y"]).all()


def test_truth_below_the_top_is_refused_where_there_is_none() -> None:
    page = World(n_viewers=60, seed=1).impressions(3)
    cascade = World(n_viewers=60, seed=1, behaviour=Behaviour(examination="cascade"))
    with pytest.raises(InvalidModelInput, match="no probability by itself"):
        cascade.truth.cohort_probability(page)
    assert (cascade.truth.cohort_probability(page, position=0)["probability"] < 1).all()
