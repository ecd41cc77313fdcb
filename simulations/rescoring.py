"""A first-pass ranker of one's own in a made network: what it sees of viewers and entities, and what it changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from simulations.behaviour import COHORT_SIZE, ENTITY_TYPES
from simulations.page_views import LOG_START
from spr.errors import UnknownEntityType, name_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from first_pass import FirstPassRanker
    from simulations.page_views import PageViews
    from simulations.world import World

    Integers = npt.NDArray[np.int64]

_OF_ENTITIES = (
    *("entity", "true_score", "raw_score", "slot_uniform", "response_uniform", "downstream_uniform"),
    *("delay_uniform", "action_uniform"),
)


def pair_features(world: World, viewer: Integers, entity: Integers) -> pd.DataFrame:
    """Return what a first-pass ranker of a made network may know of (viewer, entity) pairs.

    Parameters
    ----------
    world : World
    viewer : int64[n]
        Numbers of viewers.
    entity : int64[n]
        Numbers among the entities of all types.

    Returns
    -------
    DataFrame, n rows
        ``similarity`` (of the public embeddings, which are noisy), ``popularity`` (its logarithm), ``age_days`` of the
        entity when the log starts, ``tenure_days`` and ``sessions_per_week`` of the viewer.

    Examples
    --------
    >>> from simulations.world import World
    >>> pair_features(World(50), np.array([0, 1]), np.array([3, 3])).shape
    (2, 5)
    """
    viewers, entities = world.viewers, world.entities
    taste, matter = (np.array(table["embedding"].tolist()) for table in (viewers, entities))
    age = (LOG_START - entities["created_at"]).dt.total_seconds().to_numpy() / 86_400
    return pd.DataFrame(
        {
            "similarity": np.einsum("ni,ni->n", taste[viewer], matter[entity]) / np.sqrt(taste.shape[1]),
            "popularity": np.log(entities["popularity"].to_numpy())[entity],
            "age_days": age[entity],
            "tenure_days": viewers["tenure_days"].to_numpy()[viewer],
            "sessions_per_week": viewers["sessions_per_week"].to_numpy()[viewer],
        }
    )


def rescored(views: PageViews, rankers: Sequence[FirstPassRanker]) -> PageViews:
    """Return page views as other first-pass rankers score them: raw scores, versions and the order inside cohorts.

    Who comes, which cohorts there are, which entities stand in them and what people would do stays; chance moves with
    its entity. An entity that could not be scored still cannot.

    Parameters
    ----------
    views : PageViews
    rankers : sequence of FirstPassRanker
        Of rows of `pair_features`, each for its own entity type.

    Returns
    -------
    PageViews

    Raises
    ------
    UnknownEntityType
        When a ranker's entity type is not of the world.
    """
    for ranker in rankers:
        if ranker.entity_type not in ENTITY_TYPES:
            where = f"the ranker {ranker.version!r}"
            raise UnknownEntityType(name_unknown("entity type", ranker.entity_type, ENTITY_TYPES, where))
        code = ENTITY_TYPES.index(ranker.entity_type)
        mine = np.flatnonzero(views.entity_type == code)
        entity = views.entity[mine]
        pairs = pair_features(views.world, np.repeat(views.cohort_viewer[mine], COHORT_SIZE), entity.ravel())
        raw_score = ranker.raw_scores_batch(pd.DataFrame(index=pairs.index), pairs).reshape(entity.shape)
        raw_score = np.where(np.isnan(views.raw_score[mine]), np.nan, raw_score)
        order = np.argsort(-raw_score, axis=1, kind="stable")  # NaN sorts last
        changed: dict[str, Any] = {}
        for column in _OF_ENTITIES:
            values = getattr(views, column).copy()
            values[mine] = np.take_along_axis(raw_score if column == "raw_score" else values[mine], order, axis=1)
            changed[column] = values
        versions = views.ranker_version.copy()
        versions[code] = ranker.version
        views = replace(views, ranker_version=versions, **changed)
    return views
