"""Features and candidates for edge recommendation, from an edge table and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from first_pass.edges import Links, places_of, read_ids, read_links
from first_pass.embedding import EmbeddingTable
from first_pass.errors import FirstPassError, UnknownName, name_unknown
from first_pass.strengths import Strengths, inverse_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

FEATURES = (
    "friends_of_friends",
    "adamic_adar",
    "friends_with_edge",
    "co_occurrence",
    "taste_similarity",
    "popularity",
    "affinity",
    "viewer_degree",
)
_OF_PEOPLE = ("friends_of_friends", "taste")
_WAYS = (*_OF_PEOPLE, "friends_with_edge", "co_occurrence", "popularity", "affinity", "path")
_CHUNK_CELLS = 2**23  # dense cells (viewers x entities) held at once: 64 MB of float64


@dataclass(frozen=True, eq=False)
class EdgeGraph:
    """Who has an edge to what.

    Make one with :meth:`from_edges`. Every number it gives comes from those edges and no others: to learn
    from edges formed after a date, build the graph from the edges before it.

    A viewer or an entity without edges is not an error; it has no friends, no taste and no popularity, and
    all its features are 0.

    Parameters
    ----------
    viewer_ids : Index of str
        Every viewer, sorted: those who have an edge, and the people who are at the end of one.
    links : mapping of str to Links
        The edges of each entity type.
    people : str, default "people"
        The entity type whose entities are viewers; its edges have no direction.

    Examples
    --------
    >>> edges = pd.DataFrame(
    ...     [("ann", "people", "bob"), ("bob", "people", "cy"), ("bob", "artist", "abba"),
    ...      ("cy", "artist", "abba"), ("cy", "artist", "cher")],
    ...     columns=["viewer_id", "entity_type", "entity_id"])
    >>> graph = EdgeGraph.from_edges(edges)
    >>> pairs = pd.DataFrame(
    ...     {"viewer_id": "ann", "entity_type": ["people", "artist"], "entity_id": ["cy", "abba"]})
    >>> graph.features(pairs)[["friends_of_friends", "friends_with_edge", "popularity"]].round(2)
       friends_of_friends  friends_with_edge  popularity
    0                 1.0                1.0        0.69
    1                 NaN                1.0        1.10
    >>> graph.candidates(["ann"], "friends_with_edge", 5, entity_type="artist")
      viewer_id entity_type entity_id  strength
    0       ann      artist      abba       1.0
    """

    viewer_ids: pd.Index[Any]
    links: Mapping[str, Links]
    people: str = "people"

    @classmethod
    def from_edges(cls, edges: pd.DataFrame, *, people: str = "people") -> EdgeGraph:
        """Read an edge table.

        Parameters
        ----------
        edges : DataFrame
            Columns viewer_id, entity_type, entity_id (strings, never null) and optionally weight (> 0,
            default 1); other columns, such as edge_type and at, are not read. The weights of repeated
            rows are added. Counting features ignore weights; `taste_similarity` and the embedding use
            them as they are, so pass e.g. ``log1p`` of listening counts.
        people : str, default "people"
            The entity type whose entity_id is a viewer_id. Its edges are read as undirected, whether they
            are given once or in both directions (the larger weight counts).

        Returns
        -------
        EdgeGraph

        Raises
        ------
        MissingColumn
            When a required column is absent.
        InvalidTable
            When an id is null or not a string, a weight is not a positive number, or a person has an edge
            to himself.

        Examples
        --------
        >>> edges = pd.DataFrame({"viewer_id": ["ann"], "entity_type": ["people"], "entity_id": ["bob"]})
        >>> EdgeGraph.from_edges(edges).viewer_ids.tolist()
        ['ann', 'bob']
        """
        viewer_ids, links = read_links(edges, people=people)
        return cls(viewer_ids, links, people)

    def features(self, pairs: pd.DataFrame, *, exclude_own: bool = False) -> pd.DataFrame:
        """Compute the features of (viewer, entity) pairs.

        Parameters
        ----------
        pairs : DataFrame, n rows
            Columns viewer_id, entity_type, entity_id (strings, never null).
        exclude_own : bool, default False
            Compute each row as if the graph lacked the edge between its own viewer and entity, where it
            has one. Use it for training rows: a pair that is an edge of the graph otherwise sees itself
            in `popularity`, `viewer_degree` and `co_occurrence`. The removal is exact there; the other
            features never count the pair's own edge, except `affinity`: the embedding is not recomputed,
            so a positive that is in the graph leaks through it. To train on `affinity`, take positives
            from edges that the graph was not given.

        Returns
        -------
        DataFrame, n rows
            The index of `pairs`; float columns, of which the first three of people are null for other
            entity types:

            friends_of_friends
                Common friends of viewer and person (people only).
            adamic_adar
                Sum over the common friends of 1 / log(their number of friends) (people only) [1]_.
            taste_similarity
                Cosine, in [0, 1], of the weights of the two viewers' other edges (people only).
            friends_with_edge
                How many of the viewer's friends have an edge to the entity; for people this is
                `friends_of_friends`.
            co_occurrence
                Mean, over the viewer's entities of this type, of the cosine between the sets of viewers
                who have an edge to them and to this entity, in [0, 1] [2]_.
            popularity
                log(1 + viewers with an edge to the entity).
            affinity
                Dot product of viewer and entity in ``embedding()``.
            viewer_degree
                log(1 + the viewer's entities of this type).

        Raises
        ------
        MissingColumn, InvalidTable
            When a column is absent, or an id is null or not a string.

        References
        ----------
        .. [1] Adamic and Adar, "Friends and neighbors on the Web", Social Networks 25 (2003), section 3.
        .. [2] Sarwar et al., "Item-based collaborative filtering", WWW 2001, section 3.1.1.

        Examples
        --------
        >>> edges = pd.DataFrame({"viewer_id": ["ann", "bob"], "entity_type": "artist", "entity_id": "abba"})
        >>> graph = EdgeGraph.from_edges(edges)
        >>> np.expm1(graph.features(edges)["popularity"]).round(6).tolist()
        [2.0, 2.0]
        >>> np.expm1(graph.features(edges, exclude_own=True)["popularity"]).round(6).tolist()
        [1.0, 1.0]
        """
        viewer_rows = places_of(read_ids(pairs, "viewer_id", "pairs"), self.viewer_ids)
        entity_types = read_ids(pairs, "entity_type", "pairs")
        entity_ids = read_ids(pairs, "entity_id", "pairs")
        values = np.full((len(pairs), len(FEATURES)), np.nan)
        for entity_type in pd.unique(entity_types):
            at = np.flatnonzero(entity_types == entity_type)
            entity_columns = places_of(entity_ids[at], self._links(entity_type).entity_ids)
            viewers, viewer_of_pair = np.unique(viewer_rows[at], return_inverse=True)
            for start, rows in self._chunks(viewers, entity_type):
                mine = np.flatnonzero((viewer_of_pair >= start) & (viewer_of_pair < start + len(rows)))
                cells = (viewer_of_pair[mine] - start, entity_columns[mine])
                for name, column in self._pair_features(entity_type, rows, cells, exclude_own).items():
                    values[at[mine], FEATURES.index(name)] = column
        return pd.DataFrame(values, index=pairs.index, columns=list(FEATURES))

    def candidates(
        self,
        viewer_ids: Iterable[str],
        how: str,
        n: int,
        *,
        entity_type: str | None = None,
        path: tuple[str, str] | None = None,
    ) -> pd.DataFrame:
        """List the strongest entities that each viewer has no edge to yet.

        Parameters
        ----------
        viewer_ids : iterable of str
            Repetitions count once; viewers who are not in the graph only get "popularity" candidates.
        how : str
            The strength that orders the candidates, a feature of :meth:`features`: "friends_of_friends",
            "taste" (`taste_similarity`), "friends_with_edge", "co_occurrence", "popularity", "affinity";
            or "path": `co_occurrence` with the viewer's entities of *another* type.
        n : int
            At most so many per viewer; fewer where fewer have a strength above 0.
        entity_type : str, optional
            Of the candidates. "friends_of_friends" and "taste" are for people only, and "path" ends in
            its own type.
        path : (str, str), optional
            For how="path": from the viewer's entities of the first type to entities of the second, through
            the viewers who have both, e.g. ``("artist", "tag")``.

        Returns
        -------
        DataFrame
            Columns viewer_id, entity_type, entity_id, strength; sorted by viewer_id, then strength
            descending, then entity_id. Never the viewer himself, nor an entity he has an edge to.

        Raises
        ------
        UnknownName
            When `how` or the entity type is unknown.
        FirstPassError
            When the arguments do not go together, or `n` is below 1.

        Examples
        --------
        >>> edges = pd.DataFrame(
        ...     [("ann", "artist", "abba"), ("bob", "artist", "abba"), ("bob", "tag", "disco")],
        ...     columns=["viewer_id", "entity_type", "entity_id"])
        >>> EdgeGraph.from_edges(edges).candidates(["ann"], "path", 3, path=("artist", "tag")).round(3)
          viewer_id entity_type entity_id  strength
        0       ann         tag     disco     0.707
        """
        source, target = self._ends(how, entity_type, path)
        if n < 1:
            raise FirstPassError(f"candidates: n is {n}; it must be at least 1")
        viewers = np.array(sorted(set(viewer_ids)), dtype=object)
        links = self._links(target)
        viewer_places: list[int] = []
        entity_columns: list[int] = []
        strengths: list[float] = []
        for start, rows in self._chunks(places_of(viewers, self.viewer_ids), target):
            strength = self._strength(how, rows, source, target)
            strength[links.present[rows].toarray() > 0] = 0.0
            if target == self.people:
                known = np.flatnonzero(rows >= 0)
                strength[known, rows[known]] = 0.0
            # Rounded, so that strengths that are equal but for the order of a sum are a tie.
            for place, row in enumerate(np.round(strength, 12), start):
                best = _largest_positive(row, n)
                viewer_places += [place] * len(best)
                entity_columns += best.tolist()
                strengths += row[best].tolist()
        return pd.DataFrame(
            {
                "viewer_id": _texts(viewers[np.array(viewer_places, dtype=np.intp)]),
                "entity_type": _texts(np.full(len(strengths), target, dtype=object)),
                "entity_id": _texts(links.entity_ids.to_numpy()[np.array(entity_columns, dtype=np.intp)]),
                "strength": np.array(strengths, dtype=np.float64),
            }
        )

    def embedding(self, *, n_components: int = 32, seed: int = 0) -> EmbeddingTable:
        """Embed viewers and entities in one space, by a truncated singular value decomposition.

        Parameters
        ----------
        n_components : int, default 32
            Length of a vector; components past the rank of the graph are 0.
        seed : int, default 0
            Of the start vector of the iteration; it changes the vectors by rounding only, unless singular
            values tie.

        Returns
        -------
        EmbeddingTable

        Raises
        ------
        FirstPassError
            When `n_components` is below 1.

        Notes
        -----
        The matrix and its normalisation are described at ``first_pass.embedding.embed_blocks``.

        Examples
        --------
        >>> edges = pd.DataFrame({"viewer_id": ["ann"], "entity_type": ["artist"], "entity_id": ["abba"]})
        >>> EdgeGraph.from_edges(edges).embedding(n_components=2).viewer("ann").round(3)
        array([0.707, 0.   ], dtype=float32)
        """
        viewers, entities = self._strengths.embed(n_components, seed)
        keys = [(name, entity_id) for name in entities for entity_id in self.links[name].entity_ids]
        entity_ids = pd.MultiIndex.from_frame(pd.DataFrame(keys, columns=["entity_type", "entity_id"], dtype=object))
        return EmbeddingTable(self.viewer_ids, viewers, entity_ids, np.concatenate(list(entities.values())))

    @cached_property
    def _strengths(self) -> Strengths:
        return Strengths(self.links, self.people)

    def _links(self, entity_type: str) -> Links:
        if entity_type in self.links:
            return self.links[entity_type]
        nothing = sparse.csr_array((len(self.viewer_ids) + 1, 1))
        return Links(pd.Index([], dtype=object), nothing, nothing)

    def _chunks(self, viewer_rows: Rows, entity_type: str) -> Iterator[tuple[int, Rows]]:
        """Split viewers so that no dense array, by entities or by viewers, outgrows _CHUNK_CELLS."""
        width = max(len(self._links(entity_type).entity_ids), len(self.viewer_ids), 1)
        size = max(1, _CHUNK_CELLS // width)
        for start in range(0, len(viewer_rows), size):
            yield start, viewer_rows[start : start + size]

    def _pair_features(
        self, entity_type: str, rows: Rows, cells: tuple[Rows, Rows], exclude_own: bool
    ) -> dict[str, Floats]:
        """Compute the features of pairs; `cells` are their places in `rows` and their entities' columns."""
        links, strengths = self._links(entity_type), self._strengths
        places, columns = cells
        friends_with_edge = strengths.friends_with_edge(rows, links)[cells]
        own = links.present[rows].toarray()[cells] if exclude_own else np.zeros(len(columns))
        entity_degree, viewer_degree = links.entity_degree[columns], links.viewer_degree[rows][places]
        found = {
            "friends_with_edge": friends_with_edge,
            "popularity": np.log1p(entity_degree - own),
            "viewer_degree": np.log1p(viewer_degree - own),
            "affinity": np.zeros(len(columns)),
        }
        if entity_type in self.links:
            found["affinity"] = strengths.affinity(rows, entity_type)[cells]
        # Without the pair's own edge, the entity is no longer one of the viewer's (it added all its viewers
        # to the sum), and the viewer no longer one of those who have both it and another (one each).
        root = inverse_root(links.entity_degree)
        others = (links.present[rows] @ root)[places] - root[columns]
        sums = strengths.co_occurrence_sums(rows, links, links)[cells]
        sums = np.maximum(sums - own * (np.sqrt(entity_degree) + others), 0.0)
        found["co_occurrence"] = sums * inverse_root(entity_degree - own) / np.maximum(viewer_degree - own, 1.0)
        if entity_type == self.people:
            found["friends_of_friends"] = friends_with_edge
            found["adamic_adar"] = strengths.adamic_adar(rows)[cells]
            found["taste_similarity"] = strengths.taste_similarity(rows)[cells]
        return found

    def _ends(self, how: str, entity_type: str | None, path: tuple[str, str] | None) -> tuple[str, str]:
        """Return the entity type that candidates come from, and the one that they are of."""
        if how not in _WAYS:
            raise UnknownName(name_unknown("way", how, _WAYS, where="candidates(how=...)"))
        if (how == "path") != (path is not None):
            raise FirstPassError(f"candidates: path is {path!r} with how={how!r}; give it with how='path', only then")
        if path is not None:
            if len(path) != 2:
                raise FirstPassError(f"candidates: path is {path!r}; it must be two entity types")
            source, target = path
        else:
            source = target = entity_type or (self.people if how in _OF_PEOPLE else "")
        if not target:
            raise FirstPassError(f"candidates: how={how!r} needs entity_type; known: {', '.join(self.links)}")
        if entity_type not in (None, target) or (how in _OF_PEOPLE and target != self.people):
            allowed = self.people if how in _OF_PEOPLE else target
            raise FirstPassError(f"candidates: how={how!r} gives {allowed!r}, not entity_type={entity_type!r}")
        for name in (source, target):
            if name not in self.links:
                raise UnknownName(name_unknown("entity type", name, self.links, where="candidates"))
        return source, target

    def _strength(self, how: str, rows: Rows, source: str, target: str) -> Floats:
        strengths, links = self._strengths, self.links[target]
        match how:
            case "friends_of_friends" | "friends_with_edge":
                return strengths.friends_with_edge(rows, links)
            case "taste":
                return strengths.taste_similarity(rows)
            case "popularity":
                return strengths.popularity(rows, links)
            case "affinity":
                return strengths.affinity(rows, target)
            case _:  # "co_occurrence" is the path from a type to itself
                return strengths.co_occurrence(rows, self.links[source], links)


def _largest_positive(row: Floats, n: int) -> Rows:
    """Return the places of the n largest positive values, largest first, the first of equals first."""
    places = np.flatnonzero(row > 0)
    if len(places) > n:
        places = places[row[places] >= np.partition(row[places], -n)[-n]]  # the n-th largest and its equals
    return places[np.argsort(-row[places], kind="stable")[:n]]


def _texts(ids: NDArray[np.object_]) -> pd.Series[str]:
    return pd.Series(ids, dtype="str")  # said, since pandas 3 would take no rows for objects
