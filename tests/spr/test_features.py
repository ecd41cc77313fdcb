from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from simulations import World
from spr import Cohort, Config, RankingRequest, Viewer, tables
from spr.assembly import assemble
from spr.batch import CohortBatch
from spr.errors import InvalidRequest, UnknownEntityType
from spr.features import CohortFeatures

if TYPE_CHECKING:
    import pandas as pd

AT = datetime(2026, 1, 2, tzinfo=UTC)


def batch_of(config: Config, *cohorts: Cohort, viewer: Viewer | None = None, **context: object) -> CohortBatch:
    request = RankingRequest("r", AT, viewer or Viewer("ann"), list(cohorts), context=context)
    return CohortBatch.of_request(request, config.entity_types)


def column(features: CohortFeatures, matrix: np.ndarray, name: str) -> list[float]:
    return matrix[:, features.columns.index(name)].tolist()


def test_build_takes_first_k_scorable_slots(config: Config) -> None:
    batch = batch_of(config, Cohort("c", "people", ["a", "b", "c", "d"], [None, 0.4, 0.2, 0.9], "v1"))
    features = CohortFeatures.fit(batch, config)
    matrix = features.build(batch, batch.raw_score)
    assert column(features, matrix, "response_slot_0") == pytest.approx([0.4])
    assert column(features, matrix, "response_slot_1") == pytest.approx([0.2])
    assert np.isnan(column(features, matrix, "response_slot_2")).all()  # top_k of people is 2
    assert column(features, matrix, "response") == pytest.approx([1 - 0.6 * 0.8])
    assert column(features, matrix, "scorable") == [2.0]


def test_build_aggregates_each_type_by_its_own_function(config: Config) -> None:
    batch = batch_of(
        config,
        Cohort("c1", "people", ["a", "b"], [0.5, 0.5], "v1"),
        Cohort("c2", "hashtag", ["x", "y"], [0.5, 0.5], "v1"),
    )
    features = CohortFeatures.fit(batch, config)
    matrix = features.build(batch, batch.raw_score)
    assert column(features, matrix, "response") == pytest.approx([0.75, 0.5])  # noisy-or, max
    assert column(features, matrix, "entity_type=people") == [1.0, 0.0]
    assert column(features, matrix, "edge_type=follow") == [0.0, 1.0]


def test_build_entity_features_are_of_the_top_k(config: Config) -> None:
    cohort = Cohort(
        "c",
        "people",
        ["a", "b", "c"],
        [0.5, 0.5, 0.5],
        "v1",
        entity_features={
            "followers": [1.0, 3.0, 100.0],
            "language": ["en", None, "de"],
            "embedding": [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]],
            "created_at": [datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC), AT],
        },
    )
    batch = batch_of(config, cohort, viewer=Viewer("ann", {"embedding": [1.0, 0.0]}))
    features = CohortFeatures.fit(batch, config)
    matrix = features.build(batch, batch.raw_score)
    assert column(features, matrix, "entity.followers") == [2.0]
    assert column(features, matrix, "entity.language=en") == [1.0]
    assert column(features, matrix, "entity.embedding_similarity_mean") == [0.5]
    assert column(features, matrix, "entity.embedding_similarity_max") == [1.0]
    assert column(features, matrix, "entity.created_at_age_days") == [1.5]


def test_build_missing_feature_is_null_and_unseen_level_is_zero(config: Config) -> None:
    cohort = Cohort("c", "people", ["a"], [0.5], "v1")
    fitted = batch_of(config, cohort, viewer=Viewer("ann", {"town": "Ghent", "age": 40.0}), hour=9)
    features = CohortFeatures.fit(fitted, config)
    absent = batch_of(config, cohort)
    matrix = features.build(absent, absent.raw_score)
    for name in ("viewer.town=Ghent", "viewer.age", "context.hour"):
        assert np.isnan(column(features, matrix, name)).all()
    other = batch_of(config, cohort, viewer=Viewer("ann", {"town": "Bruges"}))
    assert column(features, features.build(other, other.raw_score), "viewer.town=Ghent") == [0.0]


@pytest.mark.parametrize("value", ["old", [1.0, 2.0]])
def test_build_feature_of_another_kind_is_refused(config: Config, value: object) -> None:
    cohort = Cohort("c", "people", ["a"], [0.5], "v1")
    features = CohortFeatures.fit(batch_of(config, cohort, viewer=Viewer("ann", {"age": 40.0})), config)
    batch = batch_of(config, cohort, viewer=Viewer("ann", {"age": value}))
    with pytest.raises(InvalidRequest, match=r"viewer feature 'age' is a .*fitted with a number"):
        features.build(batch, batch.raw_score)


def test_features_round_trip_through_plain_values(config: Config) -> None:
    batch = batch_of(config, Cohort("c", "people", ["a"], [0.5], "v1"), viewer=Viewer("ann", {"town": "Ghent"}))
    features = CohortFeatures.fit(batch, config)
    again = CohortFeatures.from_dict(features.to_dict())
    assert again.columns == features.columns
    assert again.version == features.version


def test_expand_unknown_feature_is_named(config: Config) -> None:
    features = CohortFeatures.fit(batch_of(config, Cohort("c", "people", ["a"], [0.5], "v1")), config)
    assert features.expand(["entity_type"]) == ["entity_type=people", "entity_type=hashtag"]
    with pytest.raises(LookupError, match="Did you mean 'entity_type'"):
        features.expand(["entity_typ"])


def request_from_rows(rows: pd.DataFrame, viewers: pd.DataFrame, entities: pd.DataFrame) -> RankingRequest:
    """Make the request that a service would have sent for the rows of one logged page."""
    viewer_id = rows["viewer_id"].iloc[0]
    own = viewers[viewers["viewer_id"] == viewer_id].iloc[0].drop("viewer_id").to_dict()
    by_entity = entities.set_index(["entity_type", "entity_id"])
    cohorts = []
    for cohort_id, part in rows.groupby("cohort_id", sort=False):
        found = by_entity.loc[list(zip(part["entity_type"], part["entity_id"], strict=True))]
        cohorts.append(
            Cohort(
                str(cohort_id),
                part["entity_type"].iloc[0],
                part["entity_id"].tolist(),
                part["raw_score"].tolist(),
                part["ranker_version"].tolist(),
                cohort_kind=part["cohort_kind"].iloc[0],
                entity_features={name: found[name].tolist() for name in found.columns},
            )
        )
    return RankingRequest(rows["request_id"].iloc[0], rows["at"].iloc[0], Viewer(viewer_id, own), cohorts)


def test_training_and_serving_build_the_same_matrix() -> None:
    config = Config.named("network")
    network = World(n_viewers=60, seed=3).tables(40)
    rows = tables.read_impressions(network.impressions, config)
    viewers, entities = tables.read_viewers(network.viewers), tables.read_entities(network.entities)
    batch = assemble(rows, viewers, entities)
    features = CohortFeatures.fit(batch, config)
    response = 1.0 / (1.0 + np.exp(-np.clip(batch.raw_score, -5, 5)))
    trained = features.build(batch, response)
    for r, (_, part) in enumerate(rows.groupby("request_id", sort=False)):
        served = CohortBatch.of_request(request_from_rows(part, viewers, entities), config.entity_types)
        low, high = batch.cohort_offset[r], batch.cohort_offset[r + 1]
        first, last = batch.entity_offset[low], batch.entity_offset[high]
        np.testing.assert_array_equal(features.build(served, response[first:last]), trained[low:high])


@pytest.mark.parametrize(
    ("cohorts", "error", "sentence"),
    [
        ([], InvalidRequest, "has no cohorts"),
        ([Cohort("c", "people", [], [], "v")], InvalidRequest, "cohort 'c' is empty"),
        ([Cohort("c", "people", ["a"], [1.0], "v")] * 2, InvalidRequest, "cohort 'c' is there twice"),
        ([Cohort("c", "peple", ["a"], [1.0], "v")], UnknownEntityType, "'peple' in request 'r'.*mean 'people'"),
        (
            [Cohort("c", "people", ["a"], [np.inf], "v")],
            InvalidRequest,
            "cohort 'c' has an infinite raw score in slot 0",
        ),
        ([Cohort("c", "people", ["a"], [1.0, 2.0], "v")], InvalidRequest, "1 entities and 2 values of raw_score"),
        ([Cohort("c", "people", ["a"], [1.0], ["v", "w"])], InvalidRequest, "2 values of ranker_version"),
    ],
)
def test_request_that_cannot_be_read_is_refused(
    config: Config, cohorts: list[Cohort], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        batch_of(config, *cohorts)
