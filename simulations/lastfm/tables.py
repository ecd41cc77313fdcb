"""The public tables of the real network, made in one pass: files in, train and test page views out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from first_pass import EdgeGraph
from simulations.lastfm.behaviour import interacts_downstream
from simulations.lastfm.cohorts import propose
from simulations.lastfm.hold_out import KEY, HoldOut, hold_out, list_edges
from simulations.lastfm.page_views import LOG_START, TRAINING_DAYS, draw_page_views, show_pages
from simulations.lastfm.rankers import pair_features, train_rankers
from simulations.lastfm.reading import find_data, read_network
from simulations.splitting import split_pages

if TYPE_CHECKING:
    from pathlib import Path

    from first_pass import EmbeddingTable
    from simulations.lastfm.reading import Network

HELD_OUT_SHARE = 0.3
CANDIDATES = 36
EMBEDDING_SIZE = 16


@dataclass(frozen=True)
class LastFMTables:
    """Last.fm as the public tables of SPR.

    Parameters
    ----------
    train, test : DataFrame
        Impressions. Train: the page views of the first 45 days of viewers who are not unseen. Test: their page
        views of the last 15 days, and all page views of unseen viewers.
    viewers, entities : DataFrame
        Features made of kept edges only.
    edges : DataFrame
        The kept edges: viewer_id, edge_type, entity_type, entity_id, weight.
    names : DataFrame
        entity_type, entity_id, name, of artists and tags: for people to read, not for models.
    frequency : mapping
        viewer_id -> "frequent" (the third with most training page views), "infrequent" or "unseen".
    """

    train: pd.DataFrame
    test: pd.DataFrame
    viewers: pd.DataFrame
    entities: pd.DataFrame
    edges: pd.DataFrame
    names: pd.DataFrame
    frequency: dict[str, str]

    @property
    def unseen(self) -> set[str]:
        """The viewers of whom no page view is in train."""
        return {viewer_id for viewer_id, how_often in self.frequency.items() if how_often == "unseen"}


def build_tables(path: str | Path | None = None, *, seed: int = 7, random_share: float = 0.5) -> LastFMTables:
    """Read the network, hold out edges, train the first pass, and serve page views.

    Parameters
    ----------
    path : path, optional
        Where the data is; by default the environment variable ``SPR_DATA``, or a download (see `find_data`).
    seed : int, default 7
        Same data and seed, same tables.
    random_share : float, default 0.5
        Share of requests whose cohorts are shuffled completely (policy "random"). A live service would afford
        some 5 %; a log this small needs more to learn from. The others are ordered by popularity.

    Returns
    -------
    LastFMTables
        All labels are mature.

    Raises
    ------
    DataNotFound
        When the data is nowhere and cannot be downloaded.

    Notes
    -----
    The edges, the plays and the tags are real, and so is what people did downstream; whether an entity was
    looked at is a declared simulation (``simulations.lastfm.page_views``). No viewer effect is added: viewers
    differ as much as they do.
    """
    network = read_network(find_data(path))
    split = hold_out(network, HELD_OUT_SHARE, seed=seed)
    edges = list_edges(split.kept)
    graph = EdgeGraph.from_edges(edges)
    viewer_ids = graph.viewer_ids.tolist()
    candidates = _label(network, split, score_candidates(split.kept, graph, seed=seed))
    views = draw_page_views(viewer_ids, random_share=random_share, rng=np.random.default_rng([seed, 1]))
    impressions = show_pages(views, candidates, rng=np.random.default_rng([seed, 2]))

    embedding = graph.embedding(n_components=EMBEDDING_SIZE)
    pages = split_pages(impressions, until=LOG_START + pd.Timedelta(days=TRAINING_DAYS), seed=seed)
    return LastFMTables(
        train=pages.train,
        test=pages.test,
        viewers=describe_viewers(split.kept, embedding),
        entities=describe_entities(split.kept, embedding),
        edges=edges,
        names=network.names,
        frequency=pages.frequency,
    )


def score_candidates(kept: Network, graph: EdgeGraph, *, seed: int) -> pd.DataFrame:
    """Propose entities to every viewer and give each its first-pass raw score.

    Parameters
    ----------
    kept : Network
        What the first pass may see, and learns from.
    graph : EdgeGraph
        Of its edges.
    seed : int
        Of the training.

    Returns
    -------
    DataFrame
        viewer_id, cohort_kind, entity_type, entity_id, strength, the first-pass features, ranker_version,
        raw_score.
    """
    rankers = train_rankers(kept, seed=seed + 1)  # another seed: the inner hold-out hides other edges
    candidates = propose(graph, graph.viewer_ids, n=CANDIDATES)
    pairs = candidates[KEY].drop_duplicates(ignore_index=True)
    features = pair_features(graph, pairs)
    scored = pairs.join(features).assign(ranker_version="", raw_score=np.nan)
    for ranker in rankers:
        rows = pairs["entity_type"] == ranker.entity_type
        scored.loc[rows, "ranker_version"] = ranker.version
        scored.loc[rows, "raw_score"] = ranker.raw_scores_batch(pairs.loc[rows, ["viewer_id"]], features.loc[rows])
    return candidates.merge(scored, on=KEY, how="left")


def describe_viewers(kept: Network, embedding: EmbeddingTable) -> pd.DataFrame:
    """Return the **viewers** table: counts, plays, tagging dates and an embedding, of kept edges only.

    Parameters
    ----------
    kept : Network
        What features may be made of.
    embedding : EmbeddingTable
        Of its edges.

    Returns
    -------
    DataFrame
        One row per viewer; dates are null for a viewer who has no kept tag assignment.
    """
    plays = kept.plays.groupby("viewer_id")["plays"].agg(["size", "sum", "max"])
    tagging = kept.assignments.groupby("viewer_id").agg(
        uses=("tag_id", "size"), tags=("tag_id", "nunique"), first=("day", "min"), last=("day", "max")
    )
    viewers = embedding.viewer_frame().set_index("viewer_id")
    plays, tagging = plays.reindex(viewers.index), tagging.reindex(viewers.index)
    n_friends = kept.friends["viewer_id"].value_counts().reindex(viewers.index, fill_value=0)
    return viewers.assign(
        n_friends=n_friends,
        n_artists=plays["size"].fillna(0.0),
        n_tags=tagging["tags"].fillna(0.0),
        n_assignments=tagging["uses"].fillna(0.0),
        log_plays=np.log1p(plays["sum"].fillna(0.0)),
        favourite_share=plays["max"] / plays["sum"],
        days_since_first_tag=(LOG_START - tagging["first"]).dt.days,
        days_since_last_tag=(LOG_START - tagging["last"]).dt.days,
    ).reset_index()


def describe_entities(kept: Network, embedding: EmbeddingTable) -> pd.DataFrame:
    """Return the **entities** table: popularity, plays and an embedding, of kept edges only.

    Parameters
    ----------
    kept : Network
        What features may be made of.
    embedding : EmbeddingTable
        Of its edges.

    Returns
    -------
    DataFrame
        One row per person, artist and tag at the end of a kept edge; log_plays, the log of 1 + the mean plays
        of an artist's listeners, is null for the others.
    """
    entities = embedding.entity_frame()
    popularity = list_edges(kept).groupby(["entity_type", "entity_id"], as_index=False).size()
    mean_plays = kept.plays.groupby("artist_id", as_index=False)["plays"].mean()
    artists = pd.DataFrame(
        {
            "entity_type": "artist",
            "entity_id": mean_plays["artist_id"],
            "log_plays": np.log1p(mean_plays["plays"]),
        }
    )
    key = ["entity_type", "entity_id"]
    described = popularity.rename(columns={"size": "popularity"}).merge(artists, on=key, how="left")
    return described.merge(entities, on=key, how="left")


def _label(network: Network, split: HoldOut, candidates: pd.DataFrame) -> pd.DataFrame:
    candidates = split.with_response(candidates)
    downstream = split.held_out.loc[interacts_downstream(network, split.held_out), KEY]
    would_interact = pd.MultiIndex.from_frame(candidates[KEY]).isin(pd.MultiIndex.from_frame(downstream))
    return candidates.assign(would_interact=would_interact)
