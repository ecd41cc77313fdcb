"""One small ranker on a made network, fitted once per session, and what is logged there as requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import spr
from simulations import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from simulations.world import WorldTables


@pytest.fixture(scope="session")
def small_world() -> World:
    return World(n_viewers=150, seed=0, n_entities=60)


@pytest.fixture(scope="session")
def small_tables(small_world: World) -> WorldTables:
    return small_world.tables(1500)


@pytest.fixture(scope="session")
def small_config() -> spr.Config:
    """The shipped network with smaller trees."""
    config = spr.Config.named("network")
    trees = config.trees.model_copy(update={"n_rounds": 60, "max_depth": 4, "early_stopping_rounds": 10})
    return config.model_copy(update={"trees": trees})


@pytest.fixture(scope="session")
def ranker(small_tables: WorldTables, small_config: spr.Config) -> spr.SecondPassRanker:
    tables = small_tables
    fitted = spr.fit(tables.impressions, tables.viewers, tables.entities, config=small_config)
    assert [effect.name for effect in fitted.effects] == ["member"], "the tests need a ranker that kept its effect"
    return fitted


@pytest.fixture(scope="session")
def bundle(ranker: spr.SecondPassRanker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved bundle; tests that alter it copy it first."""
    path = tmp_path_factory.mktemp("saved") / "bundle"
    ranker.save(path)
    return path


@pytest.fixture(scope="session")
def logged_request(small_tables: WorldTables) -> Callable[[str], spr.RankingRequest]:
    """Read one logged page view as the service would have sent it, features included."""
    pages = dict(iter(small_tables.impressions.groupby("request_id", sort=False)))
    viewers = small_tables.viewers.set_index("viewer_id")
    entities = small_tables.entities.set_index(["entity_type", "entity_id"])

    def read(request_id: str) -> spr.RankingRequest:
        rows = pages[request_id]
        viewer_id = str(rows["viewer_id"].iloc[0])
        cohorts = [_read_cohort(cohort, entities) for _, cohort in rows.groupby("cohort_id", sort=False)]
        features = _plain(viewers.loc[viewer_id].to_dict())
        return spr.RankingRequest(request_id, rows["at"].iloc[0], spr.Viewer(viewer_id, features), cohorts)

    return read


def _read_cohort(rows: pd.DataFrame, entities: pd.DataFrame) -> spr.Cohort:
    rows = rows.sort_values("slot")
    first = rows.iloc[0]
    known = entities.loc[list(zip(rows["entity_type"], rows["entity_id"], strict=True))]
    return spr.Cohort(
        first["cohort_id"],
        first["entity_type"],
        rows["entity_id"].tolist(),
        rows["raw_score"].tolist(),
        rows["ranker_version"].tolist(),
        cohort_kind=first["cohort_kind"],
        entity_features={str(name): known[name].tolist() for name in known},
    )


def _plain(features: dict[Any, Any]) -> dict[str, Any]:
    return {str(name): value.item() if hasattr(value, "item") else value for name, value in features.items()}
