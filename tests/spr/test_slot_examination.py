"""A given slot examination reaches noisy-or, by the same path in training and serving."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

import spr
from calibration import SlotExamination
from spr import Cohort, Config, RankingRequest, Viewer, tables
from spr.assembly import assemble
from spr.batch import CohortBatch
from spr.errors import ConfigError
from spr.features import CohortFeatures

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from simulations.world import WorldTables

AT = datetime(2026, 1, 2, tzinfo=UTC)
TYPES = """
[entity_types]
people = { edge_type = "connection", top_k = 2 }
hashtag = { edge_type = "follow", top_k = 3, aggregation = "max" }
"""


def configured(curve: str) -> Config:
    return Config.parse(f"[calibration]\nslot_examination = {curve}\n{TYPES}")


def responses(config: Config, *cohorts: Cohort) -> dict[str, list[float]]:
    request = RankingRequest("r", AT, Viewer("ann"), list(cohorts))
    batch = CohortBatch.of_request(request, config.entity_types)
    features = CohortFeatures.fit(batch, config)
    matrix = features.build(batch, batch.raw_score)
    return {name: matrix[:, features.columns.index(name)].tolist() for name in features.response_columns}


def test_noisy_or_takes_the_slot_as_displayed_and_other_columns_do_not() -> None:
    cohorts = (
        Cohort("c1", "people", ["a", "b", "c"], [0.5, None, 0.4], "v1"),  # c is displayed at slot 2
        Cohort("c2", "hashtag", ["x", "y"], [0.2, 0.5], "v1"),
    )
    found = responses(configured("[1.0, 0.8, 0.5]"), *cohorts)
    plain = responses(Config.parse(TYPES), *cohorts)
    assert found["response_noisy_or"] == pytest.approx([1 - 0.5 * (1 - 0.5 * 0.4), 1 - 0.8 * (1 - 0.8 * 0.5)])
    assert found["response"] == pytest.approx([found["response_noisy_or"][0], 0.5])  # people: noisy-or, hashtag: max
    assert plain["response_noisy_or"] == pytest.approx([1 - 0.5 * 0.6, 1 - 0.8 * 0.5])
    for name in ("response_mean", "response_max", "response_slot_0", "response_slot_1"):
        np.testing.assert_array_equal(found[name], plain[name])


def test_curve_of_ones_is_no_correction() -> None:
    cohort = Cohort("c", "people", ["a", "b"], [0.5, 0.4], "v1")
    np.testing.assert_array_equal(
        list(responses(configured("[1.0]"), cohort).values()), list(responses(Config.parse(TYPES), cohort).values())
    )


def test_training_and_serving_give_slots_the_same_examination(impressions: pd.DataFrame) -> None:
    config = configured("[1.0, 0.6]")
    logged = impressions.assign(raw_score=0.5 - 0.1 * impressions["slot"])
    batch = assemble(tables.read_impressions(logged, config), None, None)
    features = CohortFeatures.fit(batch, config)
    column = features.columns.index("response_noisy_or")
    trained = features.build(batch, batch.raw_score)[:2, column]
    request = RankingRequest(
        "r1",
        AT,
        Viewer("ann"),
        [Cohort(name, kind, ["a", "b"], [0.5, 0.4], "v1") for name, kind in (("c1", "people"), ("c2", "hashtag"))],
    )
    asked = CohortBatch.of_request(request, config.entity_types)
    served = features.build(asked, asked.raw_score)[:, column]
    np.testing.assert_array_equal(trained, served)
    assert served.tolist() == pytest.approx([1 - 0.5 * (1 - 0.6 * 0.4)] * 2)


def test_features_keep_the_curve_as_plain_values(impressions: pd.DataFrame) -> None:
    batch = assemble(tables.read_impressions(impressions, Config.parse(TYPES)), None, None)
    plain = CohortFeatures.fit(batch, Config.parse(TYPES))
    given = CohortFeatures.fit(batch, configured("[1.0, 0.6]"))
    again = CohortFeatures.from_dict(given.to_dict())
    assert again.slot_examination is not None
    assert again.slot_examination.relative.tolist() == [1.0, 0.6]
    assert again.version == given.version != plain.version
    assert CohortFeatures.from_dict(plain.to_dict()).slot_examination is None


def test_config_round_trips_and_leaves_the_hash_of_others_alone() -> None:
    config = configured("[1.0, 0.6]")
    assert Config.from_dict(config.to_dict()) == config
    assert "slot_examination" not in Config.parse(TYPES).to_dict()["calibration"]


@pytest.mark.parametrize("curve", ["[]", "[0.9, 0.8]", "[1.0, 0.5, 0.6]", "[1.0, 0.0]", '"all"', "[1.0, nan]"])
def test_config_refuses_what_is_not_a_curve(curve: str) -> None:
    with pytest.raises(ConfigError, match=r"calibration\.slot_examination"):
        configured(curve)


def test_bundle_serves_with_the_curve(ranker: spr.SecondPassRanker, small_tables: WorldTables, tmp_path: Path) -> None:
    curve = SlotExamination(np.array([1.0, 0.9, 0.81]))
    given = dataclasses.replace(ranker, features=dataclasses.replace(ranker.features, slot_examination=curve))
    given.save(tmp_path / "bundle")
    loaded = spr.load(tmp_path / "bundle")
    assert loaded.features.slot_examination is not None
    assert loaded.features.slot_examination.at(2) == 0.81
    rows = small_tables.impressions
    some = rows[rows["request_id"].isin(rows["request_id"].unique()[:20])]
    before, after, plain = (
        each.rank_table(some, small_tables.viewers, small_tables.entities) for each in (given, loaded, ranker)
    )
    np.testing.assert_array_equal(before["value"], after["value"])
    assert not np.array_equal(before["value"], plain["value"])
