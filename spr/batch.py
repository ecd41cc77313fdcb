"""The canonical request: cohorts of one or many requests as offsets and flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.errors import InvalidRequest, UnknownEntityType, name_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spr.config import EntityType
    from spr.types import Cohort, RankingRequest

Column = Any
"""A feature column: float64[n], object[n] of strings or None, or float32[n, d] (embeddings, NaN where null)."""


@dataclass(frozen=True, slots=True)
class CohortBatch:
    """Cohorts of R requests, C cohorts and E entities in all, in request, page and slot order.

    Serving makes it from one request, training and offline scoring from tables; everything after it is the same.

    Parameters
    ----------
    request_id, viewer_id : object[R]
        Strings.
    at : datetime64[us][R]
        UTC.
    cohort_offset : int64[R + 1]
        Request r has the cohorts ``cohort_offset[r]:cohort_offset[r + 1]``.
    cohort_id, cohort_kind, entity_type : object[C]
        Strings.
    entity_offset : int64[C + 1]
        Cohort c has the entities ``entity_offset[c]:entity_offset[c + 1]``, first slot first.
    entity_id : object[E]
        Strings.
    raw_score : float64[E]
        NaN = not scorable.
    ranker : int64[E]
        Index into ``rankers`` of the first-pass ranker that scored the entity.
    rankers : tuple of (entity type, ranker version)
        The rankers of this batch.
    viewer_features, context : mapping of str to column[R]
        Per request.
    cohort_features : mapping of str to column[C]
        Per cohort.
    entity_features : mapping of str to column[E]
        Per entity.
    """

    request_id: NDArray[np.object_]
    at: NDArray[np.datetime64]
    viewer_id: NDArray[np.object_]
    cohort_offset: NDArray[np.int64]
    cohort_id: NDArray[np.object_]
    cohort_kind: NDArray[np.object_]
    entity_type: NDArray[np.object_]
    entity_offset: NDArray[np.int64]
    entity_id: NDArray[np.object_]
    raw_score: NDArray[np.float64]
    ranker: NDArray[np.int64]
    rankers: tuple[tuple[str, str], ...]
    viewer_features: Mapping[str, Column]
    context: Mapping[str, Column]
    cohort_features: Mapping[str, Column]
    entity_features: Mapping[str, Column]

    @property
    def n_requests(self) -> int:
        """Number of requests, R."""
        return len(self.request_id)

    @property
    def n_cohorts(self) -> int:
        """Number of cohorts, C."""
        return len(self.cohort_id)

    def request_of_cohort(self) -> NDArray[np.int64]:
        """Return int64[C]: the request that each cohort stands in."""
        return np.repeat(np.arange(self.n_requests), np.diff(self.cohort_offset))

    def cohort_of_entity(self) -> NDArray[np.int64]:
        """Return int64[E]: the cohort that each entity stands in."""
        return np.repeat(np.arange(self.n_cohorts), np.diff(self.entity_offset))

    def scorable(self) -> NDArray[np.bool_]:
        """Return bool[C]: whether each cohort has an entity with a raw score."""
        there = self.cohort_of_entity()[~np.isnan(self.raw_score)]
        return np.bincount(there, minlength=self.n_cohorts) > 0

    @classmethod
    def of_request(cls, request: RankingRequest, known: Mapping[str, EntityType]) -> CohortBatch:
        """Read one request.

        Parameters
        ----------
        request : RankingRequest
            As the service sent it.
        known : mapping of str to EntityType
            The entity types of the configuration.

        Returns
        -------
        CohortBatch
            With R = 1.

        Raises
        ------
        InvalidRequest
            When there is no cohort, a cohort is empty, duplicated or ragged, or a raw score is infinite.
        UnknownEntityType
            When a cohort's entity type is not in the configuration.
        """
        cohorts = request.cohorts
        _check_cohorts(request, known)
        offset = np.zeros(len(cohorts) + 1, dtype=np.int64)
        np.cumsum([cohort.size for cohort in cohorts], out=offset[1:])
        raw_score = _read_raw_scores(request)
        rankers, ranker = _number_rankers(cohorts)
        try:
            return cls(
                request_id=_objects([request.request_id]),
                at=np.array([to_utc(request.at)]),
                viewer_id=_objects([request.viewer.viewer_id]),
                cohort_offset=np.array([0, len(cohorts)]),
                cohort_id=_objects([cohort.cohort_id for cohort in cohorts]),
                cohort_kind=_objects([cohort.cohort_kind or cohort.cohort_id for cohort in cohorts]),
                entity_type=_objects([cohort.entity_type for cohort in cohorts]),
                entity_offset=offset,
                entity_id=_objects([entity for cohort in cohorts for entity in cohort.entity_id]),
                raw_score=raw_score,
                ranker=np.array(ranker, dtype=np.int64),
                rankers=rankers,
                viewer_features=_read_one(request.viewer.features),
                context=_read_one(request.context),
                cohort_features=_gather([cohort.features for cohort in cohorts]),
                entity_features=_gather_entities(cohorts),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidRequest(f"request {request.request_id!r} cannot be read: {error}") from error


def to_utc(at: Any) -> np.datetime64:
    """Return a moment as datetime64[us] in UTC; without a time zone it is read as UTC.

    Raises
    ------
    ValueError
        When it is None, NaT or no moment.
    """
    if getattr(at, "tzinfo", None) is not None:
        from datetime import UTC

        at = at.astimezone(UTC).replace(tzinfo=None)
    moment = np.datetime64(at, "us") if at is not None else np.datetime64("NaT")
    if np.isnat(moment):
        raise ValueError(f"{at!r} is not a moment")
    return moment


def _objects(values: list[str]) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _column(name: str, values: Sequence[Any]) -> Column:
    """Read one feature of n things: numbers and booleans as float64, embeddings as float32[n, d], else strings."""
    first = values[0] if values[0] is not None else next((value for value in values if value is not None), None)
    try:
        if first is None or isinstance(first, (float, int, np.number, np.bool_)):
            return np.array(values, dtype=np.float64)
        if isinstance(first, str):
            return _objects(list(values))
        if isinstance(first, (Sequence, np.ndarray)):
            empty = np.full(len(first), np.nan, dtype=np.float32)
            return np.array([empty if value is None else value for value in values], dtype=np.float32)
        return np.array([np.datetime64("NaT") if v is None else to_utc(v) for v in values], dtype="datetime64[us]")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"feature {name!r} mixes kinds or holds {first!r}: {error}") from error


def _read_one(features: Mapping[str, Any]) -> dict[str, Column]:
    """Read the features of one thing; all plain floats share one array."""
    numbers = {name: value for name, value in features.items() if type(value) is float}
    shared = np.array(list(numbers.values()), dtype=np.float64)
    columns: dict[str, Column] = {name: shared[i : i + 1] for i, name in enumerate(numbers)}
    return columns | {name: _column(name, [value]) for name, value in features.items() if name not in numbers}


def _read_raw_scores(request: RankingRequest) -> NDArray[np.float64]:
    try:
        raw_score = np.array([s for cohort in request.cohorts for s in cohort.raw_score], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"request {request.request_id!r}: a raw score is not a number: {error}") from error
    if np.isinf(raw_score).any():
        raise InvalidRequest(_name_infinite(request, raw_score))
    return raw_score


def _gather(features: list[Mapping[str, Any]]) -> dict[str, Column]:
    names = dict.fromkeys(name for feature in features for name in feature)
    return {name: _column(name, [feature.get(name) for feature in features]) for name in names}


def _gather_entities(cohorts: Sequence[Cohort]) -> dict[str, Column]:
    names = dict.fromkeys(name for cohort in cohorts for name in cohort.entity_features)
    return {
        name: _column(name, [v for cohort in cohorts for v in cohort.entity_features.get(name, (None,) * cohort.size)])
        for name in names
    }


def _number_rankers(cohorts: Sequence[Cohort]) -> tuple[tuple[tuple[str, str], ...], list[int]]:
    number: dict[tuple[str, str], int] = {}
    ranker: list[int] = []
    for cohort in cohorts:
        version = cohort.ranker_version
        if isinstance(version, str):
            ranker += [number.setdefault((cohort.entity_type, version), len(number))] * cohort.size
        else:
            ranker += [number.setdefault((cohort.entity_type, v), len(number)) for v in version]
    return tuple(number), ranker


def _check_cohorts(request: RankingRequest, known: Mapping[str, EntityType]) -> None:
    where = f"request {request.request_id!r}"
    if not request.cohorts:
        raise InvalidRequest(f"{where} has no cohorts; a page needs at least one")
    seen: set[str] = set()
    for cohort in request.cohorts:
        if cohort.cohort_id in seen:
            raise InvalidRequest(f"{where}: cohort {cohort.cohort_id!r} is there twice; ids are unique in a request")
        seen.add(cohort.cohort_id)
        if cohort.entity_type not in known:
            raise UnknownEntityType(name_unknown("entity type", cohort.entity_type, known, where))
        size, version = len(cohort.entity_id), cohort.ranker_version
        if size == 0:
            raise InvalidRequest(f"{where}: cohort {cohort.cohort_id!r} is empty; leave it out of the request")
        per_entity = [cohort.raw_score, *cohort.entity_features.values()]
        if type(version) is not str:
            if not isinstance(version, (Sequence, np.ndarray)):
                raise InvalidRequest(f"{where}: cohort {cohort.cohort_id!r} has ranker_version={version!r}")
            per_entity.append(version)
        if any(len(of_entity) != size for of_entity in per_entity):
            raise InvalidRequest(f"{where}: {_name_ragged(cohort)}")


def _name_ragged(cohort: Cohort) -> str:
    values: dict[str, Sequence[object]] = {"raw_score": cohort.raw_score, "ranker_version": cohort.ranker_version}
    values |= {f"entity_features[{name!r}]": of_entity for name, of_entity in cohort.entity_features.items()}
    name, length = next(
        (name, len(of_entity))
        for name, of_entity in values.items()
        if not isinstance(of_entity, str) and len(of_entity) != cohort.size
    )
    return f"cohort {cohort.cohort_id!r} has {cohort.size} entities and {length} values of {name}"


def _name_infinite(request: RankingRequest, raw_score: NDArray[np.float64]) -> str:
    at = int(np.flatnonzero(np.isinf(raw_score))[0])
    for cohort in request.cohorts:
        if at < cohort.size:
            break
        at -= cohort.size
    return (
        f"request {request.request_id!r}: cohort {cohort.cohort_id!r} has an infinite raw score in slot {at}; "
        "use NaN or None for an entity that is not scorable"
    )
