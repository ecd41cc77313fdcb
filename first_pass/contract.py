"""The contract that every first-pass ranker meets, and the one method that meets it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from first_pass.errors import InvalidRanker, InvalidRawScore, InvalidTable
from first_pass.pairs import join_one_viewer, join_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


@runtime_checkable
class FirstPassRanker(Protocol):
    """Ranks entities of one type for a viewer, with any algorithm and on any scale.

    A raw score is higher for a better entity; NaN means "not scorable"; it is never infinite. Equal
    versions of a ranker have equal scales: a calibrator belongs to one (entity type, version), so a model
    that is trained again is a new version. ``first_pass.testing.check_first_pass_ranker`` checks all this.

    A class need not derive from this one. To write a ranker with one method, see :class:`PairRanker`.

    Examples
    --------
    >>> class ById:
    ...     entity_type, version = "group", "by-id-1"
    ...     def raw_scores(self, viewer, entities):
    ...         return entities["entity_id"].str.len().to_numpy(float)
    ...     def raw_scores_batch(self, viewers, entities):
    ...         return self.raw_scores({}, entities)
    >>> isinstance(ById(), FirstPassRanker)
    True
    """

    @property
    def entity_type(self) -> str:
        """The type of the entities it ranks."""

    @property
    def version(self) -> str:
        """Names this model and its scale, e.g. "pymk-7"."""

    def raw_scores(self, viewer: Mapping[str, object], entities: pd.DataFrame) -> Floats:
        """Score many entities for one viewer.

        Parameters
        ----------
        viewer : mapping of str to object
            The viewer's features, by name.
        entities : DataFrame, n rows
            One row per entity; its index is not read.

        Returns
        -------
        float64 (n,)
            Raw scores, higher is better; NaN = not scorable, never infinite.
        """

    def raw_scores_batch(self, viewers: pd.DataFrame, entities: pd.DataFrame) -> Floats:
        """Score row i of `entities` for row i of `viewers`.

        Parameters
        ----------
        viewers : DataFrame, n rows
            One row per viewer, by position; its index is not read.
        entities : DataFrame, n rows

        Returns
        -------
        float64 (n,)
            As ``raw_scores`` gives for each pair alone.
        """


class PairRanker(ABC):
    """A first-pass ranker in one method: `predict_pairs`, on a table with one row per (viewer, entity).

    It finds the features with the viewer and with the entities, leaves out the rows that the model cannot
    take, and holds what comes back to the contract.

    Parameters
    ----------
    entity_type : str
        The type of the entities it ranks.
    version : str
        Names this model and its scale, e.g. ``"pymk-7"``.
    features : sequence of str
        What it reads: each a column of the entities or a feature of the viewer, not of both.

    Attributes
    ----------
    accepts_null : bool
        Whether `predict_pairs` takes nulls in the features. False by default: the rows with a null then
        get NaN, "not scorable", and are not passed on.

    Raises
    ------
    InvalidRanker
        When a name is empty, or there are no features or repeated ones.

    Examples
    --------
    >>> import pandas as pd
    >>> class Nearest(PairRanker):
    ...     def predict_pairs(self, pairs):
    ...         return -(pairs["home_km"] - pairs["venue_km"]).abs()
    >>> ranker = Nearest(entity_type="event", version="nearest-1", features=["home_km", "venue_km"])
    >>> ranker.raw_scores({"home_km": 10.0}, pd.DataFrame({"venue_km": [12.0, None, 50.0]}))
    array([ -2.,  nan, -40.])
    """

    accepts_null: bool = False

    def __init__(self, *, entity_type: str, version: str, features: Sequence[str]) -> None:
        for name, value in (("entity_type", entity_type), ("version", version)):
            if not isinstance(value, str) or not value:
                raise InvalidRanker(f"{type(self).__name__}: {name} is {value!r}; it must be a non-empty string")
        if isinstance(features, str) or not features or len(set(features)) != len(features):
            raise InvalidRanker(
                f"{type(self).__name__} {version!r}: features is {features!r}; "
                "it must be a list of different column names"
            )
        self.entity_type = entity_type
        self.version = version
        self.features = tuple(features)

    @abstractmethod
    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; the one method to write.

        Parameters
        ----------
        pairs : DataFrame, n rows, n > 0
            The columns of `features`, in their order; free to change, nobody else sees it.

        Returns
        -------
        array-like (n,) or (n, 1)
            Raw scores, each from its own row alone; NaN = not scorable.
        """

    def raw_scores(self, viewer: Mapping[str, object], entities: pd.DataFrame) -> Floats:
        """Score many entities for one viewer; see :class:`FirstPassRanker`.

        Parameters
        ----------
        viewer : mapping of str to object
        entities : DataFrame, n rows

        Returns
        -------
        float64 (n,)
            NaN = not scorable.

        Raises
        ------
        MissingColumn, InvalidTable
            When a feature is nowhere, or is with the viewer and with the entities.
        InvalidRawScore
            When the model gives another shape than one number a row, or an infinite one.
        """
        if len(entities) == 0:
            return np.zeros(0)
        return self._raw_scores(join_one_viewer(viewer, entities, self.features, self._name))

    def raw_scores_batch(self, viewers: pd.DataFrame, entities: pd.DataFrame) -> Floats:
        """Score row i of `entities` for row i of `viewers`; see :class:`FirstPassRanker`.

        Parameters
        ----------
        viewers : DataFrame, n rows
        entities : DataFrame, n rows

        Returns
        -------
        float64 (n,)
            NaN = not scorable.

        Raises
        ------
        InvalidTable
            When the tables differ in length.
        MissingColumn, InvalidRawScore
            As ``raw_scores``.
        """
        if len(viewers) != len(entities):
            raise InvalidTable(
                f"{self._name}: {len(viewers):,} viewers and {len(entities):,} entities; "
                "a batch needs one viewer row per entity row"
            )
        if len(entities) == 0:
            return np.zeros(0)
        return self._raw_scores(join_rows(viewers, entities, self.features, self._name))

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} {self.version!r} of {self.entity_type!r}"

    def _raw_scores(self, pairs: pd.DataFrame) -> Floats:
        raw_score = np.full(len(pairs), np.nan)
        rows = np.arange(len(pairs))
        if not self.accepts_null:
            rows = np.flatnonzero(pairs.notna().all(axis=1))
            if len(rows) < len(pairs):
                pairs = pairs.iloc[rows].reset_index(drop=True)
        if len(rows):
            raw_score[rows] = self._checked(self.predict_pairs(pairs), rows)
        return raw_score

    def _checked(self, predicted: ArrayLike, rows: NDArray[np.intp]) -> Floats:
        try:
            raw_score = np.asarray(predicted, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidRawScore(f"{self._name}: raw scores are not numbers: {error}") from error
        if raw_score.shape not in ((len(rows),), (len(rows), 1)):
            raise InvalidRawScore(
                f"{self._name}: {len(rows):,} rows gave raw scores of shape {raw_score.shape}; "
                f"allowed: ({len(rows)},), one number per row (of several classes or outputs, choose one)"
            )
        infinite = np.flatnonzero(np.isinf(raw_score.reshape(-1)))
        if infinite.size:
            raise InvalidRawScore(
                f"{self._name}: raw_score is infinite in {infinite.size:,} of {len(rows):,} rows; "
                f"first: row {rows[infinite[0]]}; give NaN for an entity that is not scorable"
            )
        return raw_score.reshape(-1)
