from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spr import Config, tables
from spr.assembly import assemble
from spr.errors import TableError


def test_assemble_has_one_entity_per_row(impressions: pd.DataFrame, config: Config) -> None:
    batch = assemble(tables.read_impressions(impressions, config))
    assert (batch.n_requests, batch.n_cohorts, len(batch.raw_score)) == (2, 4, 8)
    assert batch.cohort_offset.tolist() == [0, 2, 4]
    assert batch.entity_offset.tolist() == [0, 2, 4, 6, 8]
    assert batch.rankers == (("people", "v1"), ("hashtag", "v1"))
    assert batch.ranker.tolist() == [0, 0, 1, 1] * 2
    assert batch.context["hour"].tolist() == [9.0, 9.0]
    assert batch.cohort_features["age"].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_assemble_joins_viewers_with_null_where_there_is_no_row(impressions: pd.DataFrame, config: Config) -> None:
    viewers = tables.read_viewers(
        pd.DataFrame({"viewer_id": ["bob"], "age": [40], "creator": [True], "town": ["Ghent"], "vector": [[1.0, 2.0]]})
    )
    features = assemble(tables.read_impressions(impressions, config), viewers).viewer_features
    assert np.isnan(features["age"][0])
    assert features["age"][1] == 40.0
    assert features["creator"][1] == 1.0
    assert features["town"].tolist() == [None, "Ghent"]
    assert np.isnan(features["vector"][0]).all()
    assert features["vector"][1].tolist() == [1.0, 2.0]


def test_assemble_point_in_time_never_takes_a_later_row(impressions: pd.DataFrame, config: Config) -> None:
    viewers = tables.read_viewers(
        pd.DataFrame(
            {
                "viewer_id": ["ann", "ann", "bob", "bob"],
                "at": ["2026-01-01", "2026-01-03", "2026-01-05", "2026-01-06"],
                "age": [1.0, 2.0, 3.0, 4.0],
            }
        )
    )
    batch = assemble(tables.read_impressions(impressions, config), viewers)  # ann on 2 January, bob on the 5th
    assert batch.viewer_features["age"].tolist() == [1.0, 3.0]


def test_assemble_entities_join_on_type_and_id(impressions: pd.DataFrame, config: Config) -> None:
    entities = tables.read_entities(
        pd.DataFrame(
            {
                "entity_type": ["people", "hashtag"],
                "entity_id": ["people-0", "people-0"],
                "followers": [10, 99],
                "created_at": ["2025-12-31", "2025-12-31"],
            }
        )
    )
    batch = assemble(tables.read_impressions(impressions, config), entities=entities)
    followers = batch.entity_features["followers"]
    assert followers[0] == 10.0
    assert np.isnan(followers[1:4]).all()
    assert np.isnat(batch.entity_features["created_at"][1])


def test_assemble_ragged_embedding_is_refused(impressions: pd.DataFrame, config: Config) -> None:
    viewers = tables.read_viewers(pd.DataFrame({"viewer_id": ["ann", "bob"], "vector": [[1.0], [1.0, 2.0]]}))
    with pytest.raises(TableError, match="vector holds lists of 1 to 2 numbers"):
        assemble(tables.read_impressions(impressions, config), viewers)
