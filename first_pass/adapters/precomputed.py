"""Raw scores that were computed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from first_pass.contract import PairRanker
from first_pass.edges import read_ids
from first_pass.errors import InvalidTable, MissingColumn, name_missing
from first_pass.pairs import numeric_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Precomputed(PairRanker):
    """Raw scores from a column of the entities, or from a table keyed by viewer and entity.

    Parameters
    ----------
    table : DataFrame, optional
        Columns viewer_id, entity_id (strings, unique together) and `column`. A pair that is not in it is
        not scorable. Without a table, `column` is one of the entities' own.
    entity_type, version : str
        The version of the ranker that computed them.
    column : str, default "raw_score"
        Null = not scorable.

    Raises
    ------
    MissingColumn
        When the table lacks a column.
    InvalidTable
        When a key of the table is null, not a string, or repeated, or a raw score is not a number.

    Examples
    --------
    >>> entities = pd.DataFrame({"entity_id": ["g1", "g2"], "raw_score": [0.3, None]})
    >>> Precomputed(entity_type="group", version="groups-3").raw_scores({}, entities)
    array([0.3, nan])
    >>> table = pd.DataFrame({"viewer_id": ["ann"], "entity_id": ["g2"], "raw_score": [7.0]})
    >>> ranker = Precomputed(table, entity_type="group", version="groups-3")
    >>> ranker.raw_scores({"viewer_id": "ann"}, entities)
    array([nan,  7.])
    """

    def __init__(
        self, table: pd.DataFrame | None = None, *, entity_type: str, version: str, column: str = "raw_score"
    ) -> None:
        keyed = table is not None
        features = ["viewer_id", "entity_id"] if keyed else [column]
        super().__init__(entity_type=entity_type, version=version, features=features)
        self.accepts_null = not keyed
        self._raw_score: pd.Series[float] | None = None
        if table is not None:
            self._raw_score = self._read(table, column)

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Look each row up; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        float64 (n,) or (n, 1)
        """
        if self._raw_score is None:
            return numeric_matrix(pairs, self._name)
        return self._raw_score.reindex(pd.MultiIndex.from_frame(pairs)).to_numpy(dtype=np.float64)

    def _read(self, table: pd.DataFrame, column: str) -> pd.Series[float]:
        if column not in table.columns:
            raise MissingColumn(name_missing("column", column, map(str, table.columns), self._name))
        keys = pd.MultiIndex.from_arrays(
            [read_ids(table, key, self._name) for key in self.features], names=list(self.features)
        )
        repeated = keys.duplicated()
        if repeated.any():
            raise InvalidTable(
                f"{self._name}: {int(repeated.sum()):,} of {len(keys):,} rows repeat a key; "
                f"first: viewer_id={keys[repeated][0][0]!r}, entity_id={keys[repeated][0][1]!r}; keep one of each"
            )
        return pd.Series(numeric_matrix(table[[column]], self._name)[:, 0], index=keys)
