"""Page views over sixty days: which cohorts each page shows, in what order, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from simulations.lastfm.cohorts import KINDS

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]

COHORT_SIZE = 6
LOG_START = pd.Timestamp("2011-06-01", tz="UTC")
LOG_DAYS = 60
TRAINING_DAYS = 45
POSITION_EXAMINATION = 1.0 / np.sqrt(1.0 + np.arange(len(KINDS)))
"""The declared simulation of attention: chance that the cohort at each position is looked at ..."""
SLOT_EXAMINATION = np.power(0.9, np.arange(COHORT_SIZE))
"""... and, in a cohort that is looked at, each slot."""
_RANK_DECAY = 12.0  # a candidate this much further down its list is drawn e times less readily


def draw_page_views(viewer_ids: list[str], *, random_share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Draw who opens a page when: heavy-tailed activity, 3 to 60 page views a viewer.

    Parameters
    ----------
    viewer_ids : list of str
        Everyone.
    random_share : float
        Chance that a request falls into the random bucket.
    rng : Generator
        Source of chance.

    Returns
    -------
    DataFrame
        request_id, at, viewer_id, policy; by time. A viewer's page views are spread over all sixty days.

    Examples
    --------
    >>> views = draw_page_views(["u1", "u2"], random_share=1.0, rng=np.random.default_rng(0))
    >>> views["viewer_id"].value_counts().to_dict(), views["policy"].unique().tolist()
    ({'u1': 10, 'u2': 8}, ['random'])
    """
    views = np.clip(rng.lognormal(2.2, 0.8, len(viewer_ids)).round(), 3, 60).astype(np.int64)
    viewer = np.repeat(np.arange(len(viewer_ids)), views)
    number = np.arange(len(viewer)) - np.repeat(views.cumsum() - views, views)
    elapsed = (number + rng.random(len(viewer))) / views[viewer] * LOG_DAYS * 86_400
    order = np.argsort(elapsed, kind="stable")
    is_random = rng.random(len(viewer)) < random_share
    return pd.DataFrame(
        {
            "request_id": [f"r{count:06d}" for count in range(len(viewer))],
            "at": LOG_START + pd.to_timedelta(elapsed[order].astype(np.int64), unit="s"),
            "viewer_id": np.array(viewer_ids, dtype=object)[viewer[order]],
            "policy": np.where(is_random, "random", "popularity").astype(object),
        }
    )


def show_pages(views: pd.DataFrame, candidates: pd.DataFrame, *, rng: np.random.Generator) -> pd.DataFrame:
    """Fill each page view with cohorts, place them, and let the viewer respond.

    Parameters
    ----------
    views : DataFrame
        As drawn by `draw_page_views`.
    candidates : DataFrame
        viewer_id, cohort_kind, entity_type, entity_id, strength, popularity, ranker_version, raw_score,
        would_respond, would_interact; the strongest first within viewer and kind.
    rng : Generator
        Source of chance.

    Returns
    -------
    DataFrame
        The impressions table. A page has one cohort of each kind for which the viewer has six candidates; six
        of them are drawn, the stronger the likelier, and stand in the order of their raw scores. Page views
        are independent: an edge that was formed can be recommended again.
    """
    cohorts = _match(views, candidates)
    cohort_view = cohorts["view"].to_numpy()
    drawn = _draw(cohorts, rng)
    raw_score = candidates["raw_score"].to_numpy()[drawn]
    drawn = np.take_along_axis(drawn, np.argsort(-raw_score, axis=1, kind="stable"), axis=1)

    is_random = (views["policy"] == "random").to_numpy()[cohort_view]
    popularity = candidates["popularity"].to_numpy()[drawn].mean(axis=1)
    position = _place(cohort_view, np.where(is_random, rng.random(len(cohort_view)), -popularity))
    cohort_examined = rng.random(len(cohort_view)) < POSITION_EXAMINATION[position]
    examined = cohort_examined[:, None] & (rng.random(drawn.shape) < SLOT_EXAMINATION)
    response = examined & candidates["would_respond"].to_numpy()[drawn]
    downstream = response & candidates["would_interact"].to_numpy()[drawn]

    n_cohorts = np.bincount(cohort_view, minlength=len(views))[cohort_view]
    propensity = np.where(is_random, 1.0 / n_cohorts, np.nan)
    strength = np.log1p(candidates["strength"].to_numpy()[drawn]).mean(axis=1)
    shown = views.iloc[np.repeat(cohort_view, COHORT_SIZE)].reset_index(drop=True)
    entity = candidates.iloc[drawn.ravel()].reset_index(drop=True)
    return shown.assign(
        cohort_id=entity["cohort_kind"],
        cohort_kind=entity["cohort_kind"],
        entity_type=entity["entity_type"],
        position=np.repeat(position, COHORT_SIZE),
        slot=np.tile(np.arange(COHORT_SIZE), len(drawn)),
        entity_id=entity["entity_id"],
        ranker_version=entity["ranker_version"],
        raw_score=entity["raw_score"],
        response=response.ravel().astype(np.float64),
        downstream=downstream.ravel().astype(np.float64),
        propensity=np.repeat(propensity, COHORT_SIZE),
        cohort_strength=np.repeat(strength, COHORT_SIZE),
    )


def _match(views: pd.DataFrame, candidates: pd.DataFrame) -> pd.DataFrame:
    """List the cohorts of each page: its view, and where its candidates start and how many they are."""
    lists = candidates.groupby(["viewer_id", "cohort_kind"], sort=False)
    spans = lists.size().rename("length").reset_index()
    spans["start"] = spans["length"].cumsum() - spans["length"]
    spans = spans.loc[spans["length"] >= COHORT_SIZE]
    cohorts = views[["viewer_id"]].assign(view=np.arange(len(views))).merge(spans, on="viewer_id")
    return cohorts.sort_values(["view", "start"], ignore_index=True)


def _draw(cohorts: pd.DataFrame, rng: np.random.Generator) -> Integers:
    """Draw six rows of each cohort's candidates without replacement: Gumbel keys give Plackett-Luce draws."""
    longest = int(cohorts["length"].max())
    rank = np.arange(longest)
    keys = rng.gumbel(size=(len(cohorts), longest)) - rank / _RANK_DECAY
    keys[rank >= cohorts["length"].to_numpy()[:, None]] = -np.inf
    chosen = np.argpartition(-keys, COHORT_SIZE - 1, axis=1)[:, :COHORT_SIZE]
    return cohorts["start"].to_numpy()[:, None] + np.sort(chosen, axis=1)


def _place(page: Integers, key: npt.NDArray[np.float64]) -> Integers:
    order = np.lexsort((key, page))
    position = np.empty_like(page)
    position[order] = np.arange(len(page)) - np.searchsorted(page, page)
    return position
