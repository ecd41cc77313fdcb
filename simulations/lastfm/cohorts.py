"""The kinds of cohort a page may hold, and whom each of them proposes to a viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from first_pass import EdgeGraph


@dataclass(frozen=True)
class CohortKind:
    """A template of cohorts: entities of one type, and what ties them to the viewer (`EdgeGraph.candidates`)."""

    name: str
    entity_type: str
    how: str
    path: tuple[str, str] | None = None


KINDS = (
    CohortKind("friends-of-friends", "people", "friends_of_friends"),
    CohortKind("people-of-your-taste", "people", "taste"),
    CohortKind("people-near-you", "people", "affinity"),
    CohortKind("artists-your-friends-hear", "artist", "friends_with_edge"),
    CohortKind("artists-like-your-favourites", "artist", "co_occurrence"),
    CohortKind("artists-near-you", "artist", "affinity"),
    CohortKind("popular-artists", "artist", "popularity"),
    CohortKind("tags-of-your-artists", "tag", "path", ("artist", "tag")),
    CohortKind("tags-your-friends-use", "tag", "friends_with_edge"),
    CohortKind("tags-like-yours", "tag", "co_occurrence"),
    CohortKind("tags-near-you", "tag", "affinity"),
    CohortKind("popular-tags", "tag", "popularity"),
)


def propose(graph: EdgeGraph, viewer_ids: Iterable[str], *, n: int) -> pd.DataFrame:
    """List the candidates of each viewer in each kind of cohort.

    Parameters
    ----------
    graph : EdgeGraph
        Of kept edges.
    viewer_ids : iterable of str
        For whom.
    n : int
        At most so many candidates in a kind.

    Returns
    -------
    DataFrame
        viewer_id, cohort_kind, entity_type, entity_id, strength; the strongest first within viewer and kind.
        Strengths of different kinds are on different scales.
    """
    viewers = list(viewer_ids)
    lists = [
        graph.candidates(viewers, kind.how, n, entity_type=kind.entity_type, path=kind.path).assign(
            cohort_kind=kind.name
        )
        for kind in KINDS
    ]
    return pd.concat(lists, ignore_index=True)
