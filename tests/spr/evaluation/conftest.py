"""Small logs whose truth is known and can be made to drift, for replays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import spr

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeLog = Callable[..., pd.DataFrame]

TYPES = ("event", "group", "hashtag", "people")
START = pd.Timestamp("2026-03-01", tz="UTC")


CONFIG = """
[labels]
response_window = "6h"
downstream_window = "18h"
[entity_types]
event = { edge_type = "event", top_k = 2 }
group = { edge_type = "group", top_k = 2 }
hashtag = { edge_type = "hashtag", top_k = 2 }
people = { edge_type = "people", top_k = 2 }
[trees]
n_rounds = 12
max_depth = 3
learning_rate = 0.3
[[random_effects]]
name = "member"
features = ["entity_type"]
"""
"""Four entity types, labels that take a day, few and shallow trees."""


@pytest.fixture(scope="session")
def labels_toml() -> str:
    return CONFIG


@pytest.fixture(scope="session")
def small_labels() -> spr.Config:
    return spr.Config.parse(CONFIG)


@pytest.fixture(scope="session", name="make_log")
def log_maker() -> MakeLog:
    return make_log


def make_log(
    n_pages: int,
    *,
    n_viewers: int = 60,
    days: int = 20,
    seed: int = 0,
    random_share: float = 0.7,
    shift_from: int | None = None,
    tastes_from: int | None = None,
) -> pd.DataFrame:
    """Return pages of four cohorts of two entities; a response follows the score, a downstream interaction the taste.

    From day ``shift_from`` on each raw score is 3 higher and means what it meant; from day ``tastes_from`` on each
    viewer has another one's taste. Everything else, chance included, stays as it is.
    """
    rng = np.random.default_rng(seed)
    taste = rng.normal(0.0, 2.0, (n_viewers, len(TYPES)))
    day = np.sort(rng.random(n_pages) * days)
    viewer = rng.integers(n_viewers, size=n_pages)
    is_random = rng.random(n_pages) < random_share
    score = -np.sort(-rng.normal(size=(n_pages, 4, 2)), axis=2)
    shuffled = rng.random((n_pages, 4))
    served = -(score.mean(axis=2) + np.array([0.5, -0.5, 0.2, 0.0]))
    position = np.where(is_random[:, None], shuffled, served).argsort(axis=1).argsort(axis=1)
    examined = (1.0 / np.sqrt(1.0 + position))[:, :, None]
    response = rng.random(score.shape) < examined * expit(score)
    own = viewer if tastes_from is None else np.where(day >= tastes_from, (viewer + 1) % n_viewers, viewer)
    downstream = response & (rng.random(score.shape) < expit(taste[own])[:, :, None])
    if shift_from is not None:
        score = score + 3.0 * (day >= shift_from)[:, None, None]
    page, cohort, slot = (place.ravel() for place in np.indices(score.shape))
    types = np.array(TYPES, dtype=object)[cohort]
    return pd.DataFrame(
        {
            "request_id": [f"r{number:05d}" for number in page],
            "at": (START + pd.to_timedelta(day, unit="D"))[page],
            "viewer_id": [f"v{number:03d}" for number in viewer[page]],
            "policy": np.where(is_random, "random", "production").astype(object)[page],
            "cohort_id": types,
            "entity_type": types,
            "position": position.ravel()[page * 4 + cohort],
            "slot": slot,
            "entity_id": [f"e{number}" for number in rng.integers(50, size=len(page))],
            "ranker_version": [f"{name}-1" for name in types],
            "raw_score": score.ravel(),
            "response": response.ravel().astype(float),
            "downstream": downstream.ravel().astype(float),
        }
    )


@pytest.fixture(scope="session")
def plain_viewers() -> pd.DataFrame:
    """Viewers without a feature that tells anything."""
    return pd.DataFrame({"viewer_id": [f"v{number:03d}" for number in range(60)]})
