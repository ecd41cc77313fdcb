from __future__ import annotations

import pandas as pd
import pytest

from spr import Config


@pytest.fixture
def config() -> Config:
    return Config.parse(
        '[entity_types]\npeople = { edge_type = "connection", top_k = 2 }\n'
        'hashtag = { edge_type = "follow", top_k = 3, aggregation = "max" }\n'
    )


@pytest.fixture
def impressions() -> pd.DataFrame:
    """Two requests of two cohorts with two entities each."""
    rows = [
        {
            "request_id": request,
            "at": pd.Timestamp(at, tz="UTC"),
            "viewer_id": viewer,
            "policy": "random",
            "cohort_id": cohort,
            "entity_type": entity_type,
            "position": position,
            "slot": slot,
            "entity_id": f"{entity_type}-{slot}",
            "ranker_version": "v1",
            "raw_score": 2.0 - slot,
            "response": float(slot),
            "downstream": float(slot),
            "context_hour": 9.0,
            "cohort_age": float(position),
        }
        for request, at, viewer in (("r1", "2026-01-02", "ann"), ("r2", "2026-01-05", "bob"))
        for position, (cohort, entity_type) in enumerate((("c-people", "people"), ("c-tags", "hashtag")))
        for slot in (0, 1)
    ]
    return pd.DataFrame(rows)
