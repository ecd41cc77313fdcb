"""Curves per segment: the same names in training and serving, and the ranker's own curve where there is none."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import spr
from simulations import World
from spr import tables
from spr.assembly import assemble
from spr.errors import ConfigError
from spr.segments import with_segments

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables

AT = datetime(2026, 1, 5, tzinfo=UTC)
SMALL = {"n_rounds": 5, "max_depth": 2}


@pytest.fixture(scope="module")
def world() -> WorldTables:
    """A network in which frequent viewers respond three times as often."""
    made = World(n_viewers=80, seed=2, n_entities=40).tables(900)
    rng = np.random.default_rng(0)
    activity = np.where(np.arange(len(made.viewers)) % 2 == 0, "frequent", "rare")
    viewers = made.viewers.assign(activity=activity, is_new=activity == "rare")
    frequent = made.impressions["viewer_id"].map(viewers.set_index("viewer_id")["activity"]) == "frequent"
    kept = frequent | (rng.random(len(frequent)) < 1 / 3)
    rows = made.impressions.assign(
        response=made.impressions["response"].where(kept | made.impressions["response"].isna(), 0.0),
        context_device=np.where(frequent, "phone", "desk"),
    )
    return dataclasses.replace(made, impressions=rows, viewers=viewers)


def _config(segment: str) -> spr.Config:
    config = spr.Config.named("network")
    return config.model_copy(
        update={
            "calibration": config.calibration.model_copy(update={"segment": segment}),
            "trees": config.trees.model_copy(update=SMALL),
            "features": config.features.model_copy(update={"viewer_in_trees": "no"}),
            "random_effects": (),
        }
    )


@pytest.fixture(scope="module")
def split(world: WorldTables) -> spr.SecondPassRanker:
    return spr.fit(world.impressions, world.viewers, config=_config("activity"))


def _page(ranker: spr.SecondPassRanker, features: dict[str, object], context: dict[str, object] | None = None):
    cohort = spr.Cohort("c", "people", ["a", "b"], [0.0, -1.0], "people-1")
    viewer = spr.Viewer("nobody", features=features)
    return ranker.rank(spr.RankingRequest("r", AT, viewer, [cohort], context=context or {})).placements[0]


def test_segment_has_a_curve_and_the_request_takes_it(split: spr.SecondPassRanker) -> None:
    assert {key[2] for key in split.calibrators.segments} == {"frequent", "rare"}
    found = {name: _page(split, {"activity": name}).expected_response for name in ("frequent", "rare")}
    for name, answer in found.items():
        curve = split.calibrators["people", "people-1", name]
        assert answer == tuple(curve.predict(np.array([0.0, -1.0])))
    assert found["frequent"][0] > 1.5 * found["rare"][0]


@pytest.mark.parametrize("features", [{}, {"activity": None}, {"activity": "never seen"}, {"activity": 3.0}])
def test_segment_unknown_or_null_takes_the_rankers_own_curve(
    split: spr.SecondPassRanker, features: dict[str, object]
) -> None:
    from spr.batch import CohortBatch
    from spr.expected import expected_responses

    cohort = spr.Cohort("c", "people", ["a", "b"], [0.0, -1.0], "people-1")
    request = spr.RankingRequest("r", AT, spr.Viewer("nobody", features=features), [cohort])
    batch = CohortBatch.of_request(request, split.config.entity_types)
    own = split.calibrators["people", "people-1"].predict(np.array([0.0, -1.0]))
    np.testing.assert_array_equal(expected_responses(batch, split.calibrators, "error")[0], own)


def test_segment_table_and_request_agree(split: spr.SecondPassRanker, world: WorldTables) -> None:
    some = world.impressions[world.impressions["request_id"].isin(world.impressions["request_id"].unique()[:40])]
    pages = split.rank_table(some, world.viewers)
    activity = world.viewers.set_index("viewer_id")["activity"]
    people = pages[pages["entity_type"] == "people"]
    assert set(people["viewer_id"].map(activity)) == {"frequent", "rare"}
    for row in people.itertuples():
        curve = split.calibrators["people", "people-1", activity[row.viewer_id]]
        np.testing.assert_array_equal(row.expected_response, curve.predict(np.asarray(row.raw_score, dtype=float)))


def test_segment_survives_the_bundle(split: spr.SecondPassRanker, tmp_path: Path) -> None:
    split.save(tmp_path / "bundle")
    again = spr.load(tmp_path / "bundle")
    asked = {"activity": "frequent"}
    assert _page(again, asked).expected_response == _page(split, asked).expected_response
    assert again.config == split.config


@pytest.mark.parametrize(
    ("segment", "names", "features", "context"),
    [
        ("is_new", {"True", "False"}, {"is_new": True}, {}),
        ("context_device", {"phone", "desk"}, {}, {"device": "desk"}),
    ],
)
def test_segment_may_be_boolean_or_of_the_request(
    world: WorldTables, segment: str, names: set[str], features: dict[str, object], context: dict[str, object]
) -> None:
    ranker = spr.fit(world.impressions, world.viewers, config=_config(segment))
    assert {key[2] for key in ranker.calibrators.segments} == names
    low = ranker.calibrators["people", "people-1", "True" if segment == "is_new" else "desk"]
    assert _page(ranker, features, context).expected_response == tuple(low.predict(np.array([0.0, -1.0])))


def test_segment_is_what_was_known_at_the_request(world: WorldTables) -> None:
    rows = tables.read_impressions(world.impressions.head(200), _config("activity"))
    viewer, middle = rows["viewer_id"].iloc[0], rows["at"].iloc[0]
    history = pd.DataFrame(
        {
            "viewer_id": viewer,
            "at": [middle - pd.Timedelta("30D"), middle + pd.Timedelta("1s")],
            "activity": ["rare", "frequent"],
        }
    )
    joined = with_segments(rows, assemble(rows, tables.read_viewers(history)), "activity")
    assert joined["activity"].iloc[0] == "rare"
    assert joined.loc[rows["viewer_id"] != viewer, "activity"].isna().all()
    assert "activity" not in rows


def test_segment_unknown_or_of_numbers_is_refused_at_fit(world: WorldTables) -> None:
    with pytest.raises(ConfigError, match=r"unknown segment 'activty'.*Did you mean 'activity'"):
        spr.fit(world.impressions, world.viewers, config=_config("activty"))
    viewers = world.viewers.assign(activity=np.arange(len(world.viewers)) / 7)
    with pytest.raises(ConfigError, match="must be a column of strings or booleans"):
        spr.fit(world.impressions, viewers, config=_config("activity"))
