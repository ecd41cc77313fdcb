"""The network embedding: viewers and entities as vectors whose dot product says how near they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from first_pass.errors import FirstPassError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Vectors of viewers and of entities in one space; a dot product near 0 or below means no affinity.

    Parameters
    ----------
    viewer_ids : Index of str, n_viewers
        Row i of `viewer_vectors` belongs to viewer i.
    viewer_vectors : float32 (n_viewers, n_components)
    entity_ids : MultiIndex (entity_type, entity_id), n_entities
        Row i of `entity_vectors` belongs to entity i. A person is both a viewer and an entity, with a
        vector in each role.
    entity_vectors : float32 (n_entities, n_components)

    Examples
    --------
    >>> from first_pass import EdgeGraph
    >>> edges = pd.DataFrame({"viewer_id": ["ann", "bob", "bob"], "entity_type": "artist",
    ...                       "entity_id": ["abba", "abba", "cher"]})
    >>> table = EdgeGraph.from_edges(edges).embedding(n_components=2)
    >>> bool(table.viewer("bob") @ table.entity("artist", "cher") > 0)
    True
    >>> table.viewer("nobody")
    array([0., 0.], dtype=float32)
    """

    viewer_ids: pd.Index[Any]
    viewer_vectors: Vectors
    entity_ids: pd.MultiIndex
    entity_vectors: Vectors

    def viewer(self, viewer_id: str) -> Vectors:
        """Return one viewer's vector; zeros for a viewer without edges.

        Parameters
        ----------
        viewer_id : str

        Returns
        -------
        float32 (n_components,)
        """
        return self._vector(self.viewer_vectors, self.viewer_ids.get_indexer(pd.Index([viewer_id]))[0])

    def entity(self, entity_type: str, entity_id: str) -> Vectors:
        """Return one entity's vector; zeros for an entity without edges.

        Parameters
        ----------
        entity_type, entity_id : str

        Returns
        -------
        float32 (n_components,)
        """
        return self._vector(
            self.entity_vectors,
            self.entity_ids.get_indexer(pd.MultiIndex.from_tuples([(entity_type, entity_id)]))[0],
        )

    def viewer_frame(self) -> pd.DataFrame:
        """Return the viewers' vectors as a table.

        Returns
        -------
        DataFrame
            Columns viewer_id and embedding (a list of n_components floats), ready to join to **viewers**.
        """
        return pd.DataFrame({"viewer_id": self.viewer_ids, "embedding": self.viewer_vectors.tolist()})

    def entity_frame(self) -> pd.DataFrame:
        """Return the entities' vectors as a table.

        Returns
        -------
        DataFrame
            Columns entity_type, entity_id and embedding (a list of n_components floats), ready to join to
            **entities**.
        """
        keys = self.entity_ids.to_frame(index=False)
        return keys.assign(embedding=pd.Series(self.entity_vectors.tolist(), dtype=object))

    @staticmethod
    def _vector(vectors: Vectors, row: int) -> Vectors:
        return vectors[row] if row >= 0 else np.zeros(vectors.shape[1], np.float32)


def embed_blocks(
    blocks: Mapping[str, sparse.csr_array], *, n_components: int, seed: int
) -> tuple[Vectors, dict[str, Vectors]]:
    """Embed the rows and the columns of several matrices that share their rows.

    Parameters
    ----------
    blocks : mapping of str to csr_array (n_rows, n_columns_of_this_block)
        Non-negative; one block per entity type.
    n_components : int
        Length of a vector; components past the rank are 0.
    seed : int
        Of the start vector of the iteration.

    Returns
    -------
    rows : float32 (n_rows, n_components)
    columns : dict of str to float32 (n_columns_of_this_block, n_components)

    Raises
    ------
    FirstPassError
        When `n_components` is below 1.

    Notes
    -----
    Each block A becomes ``(D_r + tau_r)^-1/2 A (D_c + tau_c)^-1/2``, with D its degrees and tau their mean,
    so that every entity type weighs alike and hubs do not drown the rest; without tau each small
    disconnected component would take a singular value of 1 and a dimension of its own [1]_. Of the blocks
    side by side, U S V', rows are U S^1/2 and columns V S^1/2. In each component the largest entry of U is
    made positive, since a singular vector's sign is arbitrary.

    References
    ----------
    .. [1] Qin and Rohe, "Regularized spectral clustering under the degree-corrected stochastic blockmodel",
       NIPS 2013, section 2.

    Examples
    --------
    >>> links = sparse.csr_array([[1.0, 0.0], [0.0, 1.0]])
    >>> rows, columns = embed_blocks({"artist": links}, n_components=2, seed=0)
    >>> np.round(rows @ columns["artist"].T, 3)
    array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """
    if n_components < 1:
        raise FirstPassError(f"n_components is {n_components}; it must be at least 1")
    if not any(block.nnz for block in blocks.values()):
        n_rows = max((block.shape[0] for block in blocks.values()), default=0)
        columns = {name: np.zeros((block.shape[1], n_components), np.float32) for name, block in blocks.items()}
        return np.zeros((n_rows, n_components), np.float32), columns
    matrix = sparse.hstack([_normalised(block) for block in blocks.values()], format="csr")
    left, values, right = _truncated_svd(matrix, n_components, seed)
    peak = left[np.abs(left).argmax(axis=0), np.arange(n_components)]
    sign = np.where(peak < 0, -1.0, 1.0)
    rows = (left * sign * np.sqrt(values)).astype(np.float32)
    all_columns = (right * sign * np.sqrt(values)).astype(np.float32)
    ends = np.cumsum([block.shape[1] for block in blocks.values()])
    return rows, dict(zip(blocks, np.split(all_columns, ends[:-1]), strict=True))


def _normalised(block: sparse.csr_array) -> sparse.csr_array:
    rows, columns = (_inverse_root(np.asarray(block.sum(axis=axis), dtype=np.float64)) for axis in (1, 0))
    return sparse.csr_array(sparse.diags_array(rows) @ block @ sparse.diags_array(columns))


def _inverse_root(degree: NDArray[np.float64]) -> NDArray[np.float64]:
    regularised = degree + (degree.mean() if degree.size else 0.0)
    return np.divide(1.0, np.sqrt(regularised), out=np.zeros_like(regularised), where=regularised > 0)


def _truncated_svd(
    matrix: sparse.csr_array, n_components: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return U, S descending and V (not transposed), padded with zeros to `n_components` columns."""
    if n_components >= min(matrix.shape):  # the Lanczos iteration finds fewer than all components
        left, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        from scipy.sparse.linalg import svds  # slow to import, and most rankers never embed

        start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
        left, values, right = svds(matrix, k=n_components, v0=start)
    # Values this far below the largest are rounding; their vectors are arbitrary and would not repeat.
    kept = np.argsort(-values, kind="stable")[: int((values > 1e-6 * values.max()).sum())]
    padding = ((0, 0), (0, n_components - kept.size))
    return (
        np.pad(left[:, kept], padding),
        np.pad(values[kept], padding[1]),
        np.pad(right[kept].T, padding),
    )
