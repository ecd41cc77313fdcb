"""From cohorts and expected responses to the second pass's matrix; training and serving call the same function."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calibration import SlotExamination, noisy_or
from spr.aggregation import AGGREGATIONS, gather_slots, maximum, mean, top_slots
from spr.errors import InvalidRequest, UnknownEntityType, name_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from spr.batch import CohortBatch, Column
    from spr.config import Config

Scope = Literal["viewer", "context", "cohort", "entity"]
Kind = Literal["number", "category", "embedding", "moment"]

_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, slots=True)
class Source:
    """One input feature and the columns it becomes.

    A number is one column, a category one column per level, an embedding one column per dimension, a moment its age
    in days at the request. Entity features are averaged over the cohort's top k (a category: the share of each
    level); an entity embedding becomes the mean and largest cosine similarity with the viewer's of the same name.
    """

    scope: Scope
    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    size: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in the matrix."""
        stem = f"{self.scope}.{self.name}"
        if self.kind == "category":
            return tuple(f"{stem}={level}" for level in self.levels)
        if self.kind == "embedding" and self.scope == "entity":
            return (f"{stem}_similarity_mean", f"{stem}_similarity_max")
        if self.kind == "embedding":
            return tuple(f"{stem}[{i}]" for i in range(self.size))
        return (f"{stem}_age_days",) if self.kind == "moment" else (stem,)


@dataclass(frozen=True)
class CohortFeatures:
    """What the second pass sees of a cohort, learnt from the training batch.

    Columns, in order: ``response`` (the configured aggregation of the top-k expected responses),
    ``response_mean``, ``response_max``, ``response_noisy_or``, ``response_slot_<j>``, ``scorable`` (how many of the
    top k there are), ``entity_type=<t>``, ``edge_type=<t>``, the sources' columns, and ``position``.

    Parameters
    ----------
    entity_types : mapping of str to (edge type, top_k, aggregation)
        From the configuration.
    sources : tuple of Source
        Viewer, context, cohort and entity features.
    slot_examination : SlotExamination, optional
        From the configuration; noisy-or, alone among the aggregations, takes an entity's expected response times the
        examination of the slot where it is displayed. Default: no correction.
    """

    entity_types: Mapping[str, tuple[str, int, str]]
    sources: tuple[Source, ...] = field(default=())
    slot_examination: SlotExamination | None = None

    @classmethod
    def fit(cls, batch: CohortBatch, config: Config) -> CohortFeatures:
        """Learn which features there are, their kinds and levels.

        Parameters
        ----------
        batch : CohortBatch
            Training cohorts.
        config : Config
            Gives the entity types and the largest number of levels of a category.
        """
        scopes: tuple[tuple[Scope, Mapping[str, Column]], ...] = (
            ("viewer", batch.viewer_features),
            ("context", batch.context),
            ("cohort", batch.cohort_features),
            ("entity", batch.entity_features),
        )
        sources = tuple(
            _describe(scope, name, column, config.features.max_levels)
            for scope, columns in scopes
            for name, column in columns.items()
        )
        types = {name: (kind.edge_type, kind.top_k, kind.aggregation) for name, kind in config.entity_types.items()}
        given = config.calibration.slot_examination
        return cls(types, sources, None if given is None else SlotExamination(np.array(given)))

    @cached_property
    def width(self) -> int:
        """Number of slots that have a column."""
        return max(top_k for _, top_k, _ in self.entity_types.values())

    @cached_property
    def edge_types(self) -> tuple[str, ...]:
        """Edge types in order of first mention."""
        return tuple(dict.fromkeys(edge_type for edge_type, _, _ in self.entity_types.values()))

    @cached_property
    def response_columns(self) -> tuple[str, ...]:
        """Columns that grow with every expected response; trees are monotone in them."""
        slots = tuple(f"response_slot_{j}" for j in range(self.width))
        return ("response", "response_mean", "response_max", "response_noisy_or", *slots)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix's columns."""
        return (
            *self.response_columns,
            "scorable",
            *(f"entity_type={name}" for name in self.entity_types),
            *(f"edge_type={name}" for name in self.edge_types),
            *(column for source in self.sources for column in source.columns),
            "position",
        )

    def expand(self, names: Iterable[str]) -> list[str]:
        """Return the columns that feature names stand for: ``entity_type`` -> ``entity_type=people``, ...

        Raises
        ------
        LookupError
            When a name stands for no column.
        """
        found: list[str] = []
        for name in names:
            stems = (name, f"viewer.{name}", f"context.{name}", f"cohort.{name}", f"entity.{name}")
            columns = [
                c for c in self.columns if c in stems or c.startswith(tuple(f"{s}{m}" for s in stems for m in "=["))
            ]
            if not columns:
                raise LookupError(name_unknown("feature", name, {c.split("=")[0] for c in self.columns}))
            found += columns
        return found

    def build(
        self,
        batch: CohortBatch,
        expected_response: NDArray[np.float64],
        position: NDArray[np.int64] | int = 0,
    ) -> NDArray[np.float32]:
        """Build the matrix.

        Parameters
        ----------
        batch : CohortBatch
            C cohorts with E entities.
        expected_response : float64[E]
            NaN = not scorable.
        position : int64[C] or int, default 0
            The logged position in training; its reference, 0, when ranking.

        Returns
        -------
        float32[C, len(columns)]
            NaN = null.

        Raises
        ------
        InvalidRequest
            When a feature is not of the kind that it was fitted as, or not finite.
        UnknownEntityType
            When a cohort's entity type is not in the configuration.
        """
        with np.errstate(over="ignore"):
            return self._build(batch, expected_response, position)

    def _build(
        self, batch: CohortBatch, expected_response: NDArray[np.float64], position: NDArray[np.int64] | int
    ) -> NDArray[np.float32]:
        matrix = np.empty((batch.n_cohorts, len(self.columns)), dtype=np.float32)
        type_code = self._code_types(batch)
        slots = top_slots(batch, self._top_k[type_code], self.width)
        responses = gather_slots(expected_response, slots)
        end = self._fill_responses(matrix, responses, self._examined(batch, slots), type_code)
        matrix[:, end : end + self._type_block.shape[1]] = self._type_block[type_code]
        end += self._type_block.shape[1]
        request = batch.request_of_cohort()
        per_scope = {
            "viewer": (batch.viewer_features, batch.n_requests, batch.at),
            "context": (batch.context, batch.n_requests, batch.at),
            "cohort": (batch.cohort_features, batch.n_cohorts, batch.at[request]),
        }
        for scope, (columns, n, at) in per_scope.items():
            block = self._scope_block(scope, columns, n, at)
            matrix[:, end : end + block.shape[1]] = block if scope == "cohort" else block[request]
            end += block.shape[1]
        for source, width in self._by_scope["entity"]:
            matrix[:, end : end + width] = self._entity_block(source, batch, slots, request)
            end += width
        matrix[:, end] = position
        if np.isinf(matrix).any():
            cohort, column = np.argwhere(np.isinf(matrix))[0]
            raise InvalidRequest(
                f"request {batch.request_id[request[cohort]]!r}, cohort {batch.cohort_id[cohort]!r}: feature "
                f"{self.columns[column]!r} is infinite, or too large for a 32-bit number"
            )
        return matrix

    def edge_type_of(self, batch: CohortBatch) -> NDArray[np.object_]:
        """Return object[C]: the edge type that acting on each cohort forms."""
        return self._edge_type[self._code_types(batch)]

    def slots(self, batch: CohortBatch) -> NDArray[np.int64]:
        """Return int64[C, width]: the entities of each cohort's top k, -1 where there are fewer."""
        return top_slots(batch, self._top_k[self._code_types(batch)], self.width)

    def places(self, columns: tuple[str, ...]) -> list[int]:
        """Return where columns stand in the matrix."""
        return [self._place[column] for column in columns]

    def keys(self, batch: CohortBatch, key: str) -> NDArray[np.object_]:
        """Return object[C]: the key of each cohort for a random effect, None where it is null or missing.

        Parameters
        ----------
        batch : CohortBatch
            C cohorts.
        key : str
            ``viewer_id``, ``cohort_kind``, ``entity_type``, ``context_<name>``, ``cohort_<name>``, or the name of a
            viewer feature of strings.

        Raises
        ------
        LookupError
            When the tables of the fit had no such key.
        """
        if key in ("cohort_kind", "entity_type"):
            return np.asarray(getattr(batch, key), dtype=object)
        request = batch.request_of_cohort()
        if key == "viewer_id":
            return batch.viewer_id[request]
        if key not in self.key_names:
            raise LookupError(name_unknown("key of a random effect", key, self.key_names))
        scope, name = self.key_names[key]
        columns = {"viewer": batch.viewer_features, "context": batch.context, "cohort": batch.cohort_features}[scope]
        column = columns.get(name)
        if column is None or column.dtype != object:
            return np.full(batch.n_cohorts, None)
        return np.asarray(column if scope == "cohort" else column[request], dtype=object)

    @cached_property
    def key_names(self) -> dict[str, tuple[str, str]]:
        """Categories that may key a random effect: name of the key -> (scope, feature)."""
        prefix = {"viewer": "", "context": "context_", "cohort": "cohort_"}
        return {
            prefix[source.scope] + source.name: (source.scope, source.name)
            for source in self.sources
            if source.scope in prefix and source.kind == "category"
        }

    @cached_property
    def version(self) -> str:
        """First 12 hex digits of the SHA-256 of the content."""
        return hashlib.sha256(json.dumps(self.to_dict()).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a bundle."""
        return {
            "entity_types": {name: list(kind) for name, kind in self.entity_types.items()},
            "sources": [
                {"scope": s.scope, "name": s.name, "kind": s.kind, "levels": list(s.levels), "size": s.size}
                for s in self.sources
            ],
            "slot_examination": None if self.slot_examination is None else self.slot_examination.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CohortFeatures:
        """Read what :meth:`to_dict` wrote."""
        types = {name: (str(e), int(k), str(a)) for name, (e, k, a) in content["entity_types"].items()}
        sources = tuple(
            Source(s["scope"], s["name"], s["kind"], tuple(s["levels"]), s["size"]) for s in content["sources"]
        )
        given = content["slot_examination"]
        return cls(types, sources, None if given is None else SlotExamination.from_dict(given))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {column: place for place, column in enumerate(self.columns)}

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.entity_types)}

    @cached_property
    def _edge_type(self) -> NDArray[np.object_]:
        return np.array([edge_type for edge_type, _, _ in self.entity_types.values()], dtype=object)

    @cached_property
    def _top_k(self) -> NDArray[np.int64]:
        return np.array([top_k for _, top_k, _ in self.entity_types.values()])

    @cached_property
    def _type_block(self) -> NDArray[np.float32]:
        hot = self._edge_type[:, None] == np.array(self.edge_types, dtype=object)
        return np.hstack((np.eye(len(hot)), hot)).astype(np.float32)

    @cached_property
    def _by_scope(self) -> dict[str, list[tuple[Source, int]]]:
        return {
            scope: [(source, len(source.columns)) for source in self.sources if source.scope == scope]
            for scope in ("viewer", "context", "cohort", "entity")
        }

    def _code_types(self, batch: CohortBatch) -> NDArray[np.int64]:
        try:
            return np.array([self._codes[name] for name in batch.entity_type], dtype=np.int64)
        except KeyError as error:
            raise UnknownEntityType(name_unknown("entity type", error.args[0], self.entity_types)) from None

    def _examined(self, batch: CohortBatch, slots: NDArray[np.int64]) -> NDArray[np.float64] | float:
        """Return float64[C, width]: the examination of each top entity's slot, unscorable ones counted."""
        if self.slot_examination is None:
            return 1.0
        displayed = np.maximum(slots - batch.entity_offset[:-1, None], 0)  # nobody there: any slot will do
        return self.slot_examination.at(displayed)

    def _fill_responses(
        self,
        matrix: NDArray[np.float32],
        responses: NDArray[np.float64],
        examined: NDArray[np.float64] | float,
        type_code: NDArray[np.int64],
    ) -> int:
        by_type = [aggregation for _, _, aggregation in self.entity_types.values()]
        known = {"mean": mean(responses), "max": maximum(responses), "noisy_or": noisy_or(responses, examined)}
        for name in dict.fromkeys(by_type):
            values = known[name] if name in known else AGGREGATIONS[name](responses)
            chosen = np.array([aggregation == name for aggregation in by_type])[type_code]
            matrix[chosen, 0] = values[chosen]
        matrix[:, 1] = known["mean"]
        matrix[:, 2] = known["max"]
        matrix[:, 3] = known["noisy_or"]
        matrix[:, 4 : 4 + self.width] = responses
        matrix[:, 4 + self.width] = (~np.isnan(responses)).sum(axis=1)
        return 5 + self.width

    def _scope_block(
        self, scope: str, columns: Mapping[str, Column], n: int, at: NDArray[np.datetime64]
    ) -> NDArray[np.float32]:
        sources = self._by_scope[scope]
        block = np.full((n, sum(width for _, width in sources)), np.nan, dtype=np.float32)
        numbers: list[Column] = []
        places: list[int] = []
        end = 0
        for source, width in sources:
            start, end = end, end + width
            column = columns.get(source.name)
            if column is None:
                continue
            if source.kind == "number" == kind_of(column):
                numbers.append(column)
                places.append(start)
            else:
                block[:, start:end] = _encode(source, column, at)
        if numbers:  # at once: one assignment a number would be most of a page's feature time
            block[:, places] = np.array(numbers).T
        return block

    def _entity_block(
        self, source: Source, batch: CohortBatch, slots: NDArray[np.int64], request: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        column = batch.entity_features.get(source.name)
        empty = np.full((batch.n_cohorts, len(source.columns)), np.nan, dtype=np.float32)
        if column is None:
            return empty
        at = batch.at[request][batch.cohort_of_entity()] if source.kind == "moment" else batch.at
        encoded = _encode(source, column, at)
        if source.kind == "embedding":
            of_viewer = batch.viewer_features.get(source.name)
            if of_viewer is None:
                return empty
            viewer = _encode(dataclasses.replace(source, scope="viewer"), of_viewer, batch.at)
            if encoded.shape[1] != viewer.shape[1]:
                return empty  # one of them is null throughout
            similarity = np.where(slots >= 0, _cosine(encoded[slots], viewer[request][:, None, :]), np.nan)
            return np.column_stack((mean(similarity), maximum(similarity))).astype(np.float32)
        encoded = np.broadcast_to(encoded, (len(column), len(source.columns)))
        return np.column_stack([mean(gather_slots(part.astype(np.float64), slots)) for part in encoded.T]).astype(
            np.float32
        )


def kind_of(column: Column) -> Kind:
    """Tell the kind of a feature column from its dtype and shape."""
    if column.ndim == 2:
        return "embedding"
    if column.dtype.kind == "M":
        return "moment"
    return "category" if column.dtype == object else "number"


def _describe(scope: Scope, name: str, column: Column, max_levels: int) -> Source:
    kind = kind_of(column)
    if kind == "category":
        counted = Counter(level for level in column.tolist() if level is not None)
        common = sorted(counted, key=lambda level: (-counted[level], level))[:max_levels]
        return Source(scope, name, kind, levels=tuple(sorted(common)))
    return Source(scope, name, kind, size=column.shape[1] if kind == "embedding" else 1)


def _encode(source: Source, column: Column, at: NDArray[np.datetime64]) -> NDArray[np.float32] | Column:
    kind = kind_of(column)
    if kind == source.kind == "number":
        return np.asarray(column)[:, None]
    if kind == "number" and np.isnan(column).all():
        return np.full((len(column), 1), np.nan, dtype=np.float32)
    if kind != source.kind or (kind == "embedding" and column.shape[1] != source.size):
        found = f"{kind} of size {column.shape[1]}" if kind == "embedding" else kind
        raise InvalidRequest(
            f"{source.scope} feature {source.name!r} is a {found}; the bundle was fitted with a {source.kind}"
            + (f" of size {source.size}" if source.kind == "embedding" else "")
        )
    if kind == "moment":
        return np.asarray((at - column) / _DAY, dtype=np.float32)[:, None]
    if kind == "category":
        null = np.array([level is None for level in column])
        hot: NDArray[np.float32] = (column[:, None] == np.array(source.levels, dtype=object)).astype(np.float32)
        hot[null] = np.nan
        return hot
    return column


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    dot = (a * b).sum(axis=-1, dtype=np.float64)
    norm = np.sqrt((a * a).sum(axis=-1, dtype=np.float64) * (b * b).sum(axis=-1, dtype=np.float64))
    similarity = np.where(np.isnan(norm), np.nan, 0.0)
    return np.asarray(np.divide(dot, norm, out=similarity, where=norm > 0))


def label_cohorts(downstream: NDArray[np.float64], slots: NDArray[np.int64]) -> NDArray[np.float64]:
    """Label each cohort: a downstream interaction with its top k.

    Parameters
    ----------
    downstream : float64[E]
        0, 1, or NaN while the window is open.
    slots : int64[C, k]
        Of :meth:`CohortFeatures.slots`.

    Returns
    -------
    float64[C]
        0 or 1; NaN while a row of the top k is open, and for a cohort without scorable entities.

    Examples
    --------
    >>> label_cohorts(np.array([0.0, 1.0, 0.0, np.nan]), np.array([[0, 1], [2, -1], [3, 2], [-1, -1]]))
    array([ 1.,  0., nan, nan])
    """
    there = slots >= 0
    values = np.where(there, downstream[slots], 0.0)
    label: NDArray[np.float64] = values.max(axis=1, initial=0.0)
    label[np.isnan(values).any(axis=1) | ~there.any(axis=1)] = np.nan
    return label
