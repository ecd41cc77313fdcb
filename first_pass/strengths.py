"""How strongly a graph ties viewers to entities: each strength for some viewers and every entity of a type.

`rows` are rows of the links' matrices, -1 for an unknown viewer. Every strength is a dense
(viewers, n_entities + 1) array, whose last column, for an unknown entity, is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from first_pass.embedding import embed_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from first_pass.edges import Links
    from first_pass.embedding import Vectors

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Strengths:
    """The strengths of one graph; see ``EdgeGraph.features`` for what each means.

    Parameters
    ----------
    links : mapping of str to Links
        By entity type.
    people : str
        The entity type whose entities are viewers.
    """

    links: Mapping[str, Links]
    people: str

    def friends_with_edge(self, rows: Rows, target: Links) -> Floats:
        """Count each viewer's friends who have an edge to each entity; of people: the common friends."""
        return _dense(self.links[self.people].present[rows] @ target.present)

    def adamic_adar(self, rows: Rows) -> Floats:
        """Sum 1 / log(degree) over the common friends; a friend of two people has a degree of at least 2."""
        friends = self.links[self.people]
        degree = friends.entity_degree
        rarity = np.divide(1.0, np.log(np.maximum(degree, 1.0)), out=np.zeros_like(degree), where=degree > 1)
        return _dense(friends.present[rows] @ sparse.diags_array(rarity) @ friends.present)

    def taste_similarity(self, rows: Rows) -> Floats:
        """Cosine between viewers' weights on all entities that are not people."""
        return _dense(self._tastes[rows] @ self._tastes.T)

    def co_occurrence_sums(self, rows: Rows, source: Links, target: Links) -> Floats:
        """Sum, over the viewer's entities i, (viewers with both i and the entity) / sqrt(degree of i)."""
        own = source.present[rows] @ sparse.diags_array(inverse_root(source.entity_degree))
        sharing = _dense(source.present @ own.T)  # every viewer's share in the chunk's entities
        return np.asarray(target.present.T @ sharing).T

    def co_occurrence(self, rows: Rows, source: Links, target: Links) -> Floats:
        """Mean cosine between an entity's viewers and those of each of the viewer's `source` entities."""
        mean = 1.0 / np.maximum(source.viewer_degree[rows], 1.0)
        cosine_sums = self.co_occurrence_sums(rows, source, target) * inverse_root(target.entity_degree)
        return np.asarray(cosine_sums * mean[:, None])

    def popularity(self, rows: Rows, target: Links) -> Floats:
        """Return log(1 + number of viewers), the same for every viewer."""
        return np.tile(np.log1p(target.entity_degree), (len(rows), 1))

    def affinity(self, rows: Rows, entity_type: str) -> Floats:
        """Dot product of viewer and entity in the embedding."""
        viewers, entities = self._vectors
        return viewers[rows] @ entities[entity_type].T

    def embed(self, n_components: int, seed: int) -> tuple[Vectors, dict[str, Vectors]]:
        """Embed viewers and entities, without the rows for nobody; see ``embed_blocks``."""
        blocks = {name: links.weight[:-1, :-1] for name, links in self.links.items()}
        return embed_blocks(blocks, n_components=n_components, seed=seed)

    @cached_property
    def _vectors(self) -> tuple[Floats, dict[str, Floats]]:
        viewers, entities = self.embed(n_components=32, seed=0)
        return _with_nobody(viewers), {name: _with_nobody(vectors) for name, vectors in entities.items()}

    @cached_property
    def _tastes(self) -> sparse.csr_array:
        n_rows = self.links[self.people].weight.shape[0]
        others = [links.weight for name, links in self.links.items() if name != self.people]
        weight = sparse.hstack([sparse.csr_array((n_rows, 0)), *others], format="csr")
        return sparse.csr_array(sparse.diags_array(inverse_root((weight * weight).sum(axis=1))) @ weight)


def inverse_root(degree: Floats) -> Floats:
    """Return 1 / sqrt(degree), and 0 where the degree is 0.

    Parameters
    ----------
    degree : float64 array

    Returns
    -------
    float64 array

    Examples
    --------
    >>> inverse_root(np.array([0.0, 4.0]))
    array([0. , 0.5])
    """
    return np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)


def _dense(matrix: sparse.csr_array) -> Floats:
    return np.asarray(matrix.toarray(), dtype=np.float64)


def _with_nobody(vectors: Vectors) -> Floats:
    return np.pad(vectors.astype(np.float64), ((0, 1), (0, 0)))
