"""An edge table as sparse matrices, one per entity type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from first_pass.errors import InvalidTable, MissingColumn, name_missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Links:
    """The edges of one entity type, viewers by entities.

    Both matrices end in an empty row and an empty column, for "nobody" and "nothing": the -1 that
    ``Index.get_indexer`` gives for an unknown id then selects no edges, without a special case anywhere.

    Parameters
    ----------
    entity_ids : Index of str, n_entities
        Sorted, so that a tie broken by column is a tie broken by entity_id.
    weight : csr_array (n_viewers + 1, n_entities + 1)
        Weight of each edge, > 0.
    present : csr_array (n_viewers + 1, n_entities + 1)
        1 for each edge.

    Examples
    --------
    >>> edges = pd.DataFrame({"viewer_id": ["ann"], "entity_type": ["artist"], "entity_id": ["abba"]})
    >>> viewer_ids, links = read_links(edges, people="people")
    >>> links["artist"].present.toarray()
    array([[1., 0.],
           [0., 0.]])
    """

    entity_ids: pd.Index[Any]
    weight: sparse.csr_array
    present: sparse.csr_array

    @property
    def entity_degree(self) -> NDArray[np.float64]:
        """Viewers with an edge to each entity, (n_entities + 1,)."""
        return np.asarray(self.present.sum(axis=0), dtype=np.float64).ravel()

    @property
    def viewer_degree(self) -> NDArray[np.float64]:
        """Entities each viewer has an edge to, (n_viewers + 1,)."""
        return np.asarray(self.present.sum(axis=1), dtype=np.float64).ravel()


def read_links(edges: pd.DataFrame, *, people: str) -> tuple[pd.Index[Any], dict[str, Links]]:
    """Read an edge table into one pair of matrices per entity type.

    Parameters
    ----------
    edges : DataFrame
        Columns viewer_id, entity_type, entity_id and optionally weight, as in ``EdgeGraph.from_edges``.
    people : str
        The entity type whose entities are viewers; its matrices are made symmetric.

    Returns
    -------
    viewer_ids : Index of str
        Sorted.
    links : dict of str to Links
        By entity type, sorted; `people` is always there.

    Raises
    ------
    MissingColumn
        When a required column is absent.
    InvalidTable
        When an id is null or not a string, a weight is not a positive number, or a person has an edge to
        himself.

    Examples
    --------
    >>> edges = pd.DataFrame({"viewer_id": ["ann"], "entity_type": ["people"], "entity_id": ["bob"]})
    >>> viewer_ids, links = read_links(edges, people="people")
    >>> viewer_ids.tolist(), links["people"].viewer_degree
    (['ann', 'bob'], array([1., 1., 0.]))
    """
    viewers, entity_types, entities = (
        read_ids(edges, column, "edges") for column in ("viewer_id", "entity_type", "entity_id")
    )
    weights = _read_weights(edges)
    of_people = entity_types == people
    to_self = of_people & (viewers == entities)
    if to_self.any():
        first = int(np.flatnonzero(to_self)[0])
        raise InvalidTable(
            f"edges: a person has an edge to himself in {int(to_self.sum()):,} of {len(edges):,} rows; "
            f"first: row {first}, viewer_id={viewers[first]!r}; drop them"
        )
    viewer_ids = _sorted_ids(np.concatenate([viewers, entities[of_people]]))
    viewer_rows = places_of(viewers, viewer_ids)
    links = {}
    for entity_type in sorted({people, *entity_types}):
        at = np.flatnonzero(entity_types == entity_type)
        entity_ids = viewer_ids if entity_type == people else _sorted_ids(entities[at])
        cells = (viewer_rows[at], places_of(entities[at], entity_ids))
        shape = (len(viewer_ids) + 1, len(entity_ids) + 1)
        weight = sparse.csr_array(sparse.coo_array((weights[at], cells), shape=shape))  # adds repeated rows
        if entity_type == people:
            weight = sparse.csr_array(weight.maximum(weight.T))
        present = weight.copy()
        present.data[:] = 1.0
        links[entity_type] = Links(entity_ids, weight, present)
    return viewer_ids, links


def read_ids(table: pd.DataFrame, column: str, where: str) -> Ids:
    """Read a column of ids.

    Parameters
    ----------
    table : DataFrame, n rows
    column : str
    where : str
        The table's name, for the error.

    Returns
    -------
    object array (n,)
        Of str.

    Raises
    ------
    MissingColumn
        When the column is absent.
    InvalidTable
        When an id is null or not a string.

    Examples
    --------
    >>> read_ids(pd.DataFrame({"viewer_id": ["ann", "bob"]}), "viewer_id", "edges")
    array(['ann', 'bob'], dtype=object)
    """
    if column not in table.columns:
        raise MissingColumn(name_missing("column", column, map(str, table.columns), where))
    ids = np.asarray(table[column].astype(object), dtype=object)
    if pd.api.types.infer_dtype(ids, skipna=False) in ("string", "empty"):
        return ids
    first, found = next((i, value) for i, value in enumerate(ids) if not isinstance(value, str))
    raise InvalidTable(
        f"{where}: {column} must be a string and never null; first other: row {first}, {found!r} "
        f"({type(found).__name__}); convert with .astype(str) or drop the row"
    )


def places_of(ids: Ids, known: pd.Index[Any]) -> NDArray[np.intp]:
    """Return the place of each id in an index.

    Parameters
    ----------
    ids : object array (n,)
        Of str.
    known : Index of str

    Returns
    -------
    intp array (n,)
        -1 for an id that is not in the index.

    Examples
    --------
    >>> places_of(np.array(["bob", "eve"], dtype=object), pd.Index(["ann", "bob"]))
    array([ 1, -1])
    """
    return np.asarray(known.get_indexer(pd.Index(ids, dtype=object)))


def _read_weights(edges: pd.DataFrame) -> NDArray[np.float64]:
    if "weight" not in edges.columns:
        return np.ones(len(edges))
    weights = pd.to_numeric(edges["weight"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InvalidTable(
            f"edges: weight must be a positive number; {int(wrong.sum()):,} of {len(edges):,} rows are not; "
            f"first: row {first}, {edges['weight'].iloc[first]!r}"
        )
    return weights


def _sorted_ids(ids: Ids) -> pd.Index[Any]:
    return pd.Index(np.sort(pd.unique(ids)), dtype=object)
