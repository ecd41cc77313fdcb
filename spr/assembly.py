"""From tables to a batch: page rows joined with what was known of viewers and entities at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.batch import CohortBatch
from spr.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from spr.batch import Column


def assemble(
    pages: pd.DataFrame, viewers: pd.DataFrame | None = None, entities: pd.DataFrame | None = None
) -> CohortBatch:
    """Make a batch from tables.

    Parameters
    ----------
    pages : DataFrame
        Of :func:`spr.tables.read_impressions` or :func:`spr.tables.read_requests`: the rows of a request and of a
        cohort stand together, in slot order. Row i becomes entity i.
    viewers : DataFrame, optional
        Of :func:`spr.tables.read_viewers`. With a column ``at``, each request takes the last row at or before its
        own ``at``, never a later one. A viewer without a row has null features.
    entities : DataFrame, optional
        Of :func:`spr.tables.read_entities`; joined in the same way.

    Returns
    -------
    CohortBatch
        With one entity per row of ``pages``.
    """
    request_start = _starts(pages, ["request_id"])
    cohort_start = _starts(pages, ["request_id", "cohort_id"])
    request = pages.iloc[request_start]
    cohort = pages.iloc[cohort_start]
    ranker_code, rankers = pd.MultiIndex.from_frame(pages[["entity_type", "ranker_version"]]).factorize()
    at = request["at"].to_numpy(dtype="datetime64[us]")
    reserved = {"cohort_id", "cohort_kind"}
    return CohortBatch(
        request_id=request["request_id"].to_numpy(dtype=object),
        at=at,
        viewer_id=request["viewer_id"].to_numpy(dtype=object),
        cohort_offset=np.append(np.searchsorted(cohort_start, request_start), len(cohort_start)),
        cohort_id=cohort["cohort_id"].to_numpy(dtype=object),
        cohort_kind=cohort["cohort_kind"].to_numpy(dtype=object),
        entity_type=cohort["entity_type"].to_numpy(dtype=object),
        entity_offset=np.append(cohort_start, len(pages)),
        entity_id=pages["entity_id"].to_numpy(dtype=object),
        raw_score=pages["raw_score"].to_numpy(dtype=np.float64),
        ranker=ranker_code.astype(np.int64),
        rankers=tuple((str(entity_type), str(version)) for entity_type, version in rankers),
        viewer_features=_join(viewers, ("viewer_id",), request, at, "viewers"),
        context=_prefixed(request, "context_"),
        cohort_features=_prefixed(cohort.drop(columns=list(reserved)), "cohort_"),
        entity_features=_join(
            entities,
            ("entity_type", "entity_id"),
            pages,
            pages["at"].to_numpy(dtype="datetime64[us]"),
            "entities",
        ),
    )


def _starts(pages: pd.DataFrame, key: list[str]) -> NDArray[np.int64]:
    group = pages.groupby(key, sort=False).ngroup().to_numpy()
    return np.flatnonzero(np.diff(group, prepend=-1)).astype(np.int64)


def _prefixed(frame: pd.DataFrame, prefix: str) -> dict[str, Column]:
    names = [str(column) for column in frame.columns if str(column).startswith(prefix)]
    rows = np.arange(len(frame))
    return {name.removeprefix(prefix): _take(frame[name], rows, name) for name in names}


def _join(
    table: pd.DataFrame | None,
    key: tuple[str, ...],
    rows: pd.DataFrame,
    at: NDArray[np.datetime64],
    name: str,
) -> dict[str, Column]:
    if table is None:
        return {}
    found = _locate(table, key, rows, at)
    features = [str(column) for column in table.columns if column not in {*key, "at"}]
    return {column: _take(table[column], found, f"{name}: {column}") for column in features}


def _locate(
    table: pd.DataFrame, key: Sequence[str], rows: pd.DataFrame, at: NDArray[np.datetime64]
) -> NDArray[np.int64]:
    """Return for each row the last row of the table with its key, at or before its moment; -1 where none is."""
    if table.empty:
        return np.full(len(rows), -1)
    both = pd.concat([table[list(key)], rows[list(key)]], ignore_index=True)
    code = both.groupby(list(key), sort=False).ngroup().to_numpy()
    own, asked = code[: len(table)], code[len(table) :]
    if "at" in table:
        moments, moment = np.unique(
            np.concatenate((table["at"].to_numpy(dtype="datetime64[us]"), at)), return_inverse=True
        )
        own, asked = own * len(moments) + moment[: len(table)], asked * len(moments) + moment[len(table) :]
        per_key = len(moments)
    else:
        per_key = 1
    order = np.argsort(own, kind="stable")
    last = np.searchsorted(own[order], asked, side="right") - 1
    there = (last >= 0) & (own[order][last] // per_key == asked // per_key)
    return np.where(there, order[last], -1)


def _take(values: pd.Series, rows: NDArray[np.int64], name: str) -> Column:
    there = rows >= 0
    if values.isna().all():  # of no kind, whatever the column's dtype
        return np.full(len(rows), np.nan)
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(there, numbers[rows], np.nan)
    if pd.api.types.is_datetime64_any_dtype(values):
        return np.where(there, values.to_numpy(dtype="datetime64[us]")[rows], np.datetime64("NaT"))
    objects = values.to_numpy(dtype=object)
    known = objects[values.notna().to_numpy()]
    if len(known) and isinstance(known[0], (list, tuple, np.ndarray)):
        return _take_embeddings(objects, known, rows, name)
    # The last one stands for a row that is not there.
    text = np.array([*(None if pd.isna(value) else str(value) for value in objects), None], dtype=object)
    return text[np.where(there, rows, -1)]


def _take_embeddings(
    objects: NDArray[np.object_], known: Iterable[Sequence[float]], rows: NDArray[np.int64], name: str
) -> NDArray[np.float32]:
    sizes = {len(value) for value in known}
    if len(sizes) > 1:
        raise TableError(f"{name} holds lists of {min(sizes)} to {max(sizes)} numbers; an embedding has one length")
    null = np.full(sizes.pop(), np.nan, dtype=np.float32)
    table = np.array(
        [value if isinstance(value, (list, tuple, np.ndarray)) else null for value in (*objects, null)],
        dtype=np.float32,
    )
    return table[rows]
