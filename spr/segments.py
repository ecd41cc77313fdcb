"""Segments of viewers or requests, by which the calibrators' curves are split; one path for training and serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spr.errors import ConfigError, name_unknown

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from spr.batch import CohortBatch, Column

_CONTEXT = "context_"


def request_segments(batch: CohortBatch, segment: str) -> NDArray[np.object_]:
    """Return each request's segment.

    Parameters
    ----------
    batch : CohortBatch
        R requests.
    segment : str
        A viewer feature of strings or booleans, or ``context_<name>``.

    Returns
    -------
    object[R]
        Strings, ``"True"`` and ``"False"`` for booleans; None where the feature is null, missing or neither.

    Examples
    --------
    >>> from datetime import datetime
    >>> import spr
    >>> from spr.batch import CohortBatch
    >>> config = spr.Config.named("network")
    >>> request = spr.RankingRequest(
    ...     request_id="r1", at=datetime(2026, 2, 1), viewer=spr.Viewer("v1", features={"is_new": True}),
    ...     context={"device": "phone"}, cohorts=[spr.Cohort("c", "people", ["p"], [0.1], "people-1")],
    ... )
    >>> batch = CohortBatch.of_request(request, config.entity_types)
    >>> request_segments(batch, "is_new"), request_segments(batch, "context_device")
    (array(['True'], dtype=object), array(['phone'], dtype=object))
    """
    column = _column(batch, segment)
    if column is not None and column.dtype == object:
        return np.asarray(column)
    names = np.full(batch.n_requests, None, dtype=object)
    if column is not None and column.ndim == 1 and column.dtype.kind == "f":
        names[column == 1.0] = "True"
        names[column == 0.0] = "False"
    return names


def with_segments(rows: pd.DataFrame, batch: CohortBatch, segment: str | None) -> pd.DataFrame:
    """Join each row's segment, as its request had it at that moment.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`spr.tables.read_impressions`.
    batch : CohortBatch
        Assembled from them.
    segment : str, optional
        As configured; None = no segments.

    Returns
    -------
    DataFrame
        The rows, with a column of that name.

    Raises
    ------
    ConfigError
        When no table has the column, or it holds something else than strings or booleans.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> from spr import tables
    >>> from spr.assembly import assemble
    >>> rows = tables.read_impressions(World(n_viewers=20).tables(2).impressions, spr.Config.named("network"))
    >>> rows["context_device"] = "phone"
    >>> set(with_segments(rows, assemble(rows), "context_device")["context_device"])
    {'phone'}
    """
    if segment is None:
        return rows
    column = _column(batch, segment)
    if column is None:
        known = [*batch.viewer_features, *(_CONTEXT + name for name in batch.context)]
        raise ConfigError(name_unknown("segment", segment, known, "[calibration]"))
    is_number = column.ndim == 1 and column.dtype.kind == "f"
    if not (column.dtype == object or (is_number and np.isin(column[~np.isnan(column)], (0.0, 1.0)).all())):
        raise ConfigError(
            f"[calibration] segment {segment!r} must be a column of strings or booleans; cut numbers into named bands"
        )
    request = batch.request_of_cohort()[batch.cohort_of_entity()]
    return rows.assign(**{segment: request_segments(batch, segment)[request]})


def rankers_by_segment(
    batch: CohortBatch, segment: str | None
) -> tuple[NDArray[np.int64], list[tuple[str, str] | tuple[str, str, str]]]:
    """Give each ranker of a batch a number, apart for each segment.

    Parameters
    ----------
    batch : CohortBatch
        E entities.
    segment : str, optional
        Of the calibrators; None = no segments.

    Returns
    -------
    ranker : int64[E]
        Index into ``rankers``.
    rankers : list of (entity type, ranker version) or (entity type, ranker version, segment)
        The first where the request has no segment.

    Examples
    --------
    >>> from datetime import datetime
    >>> import spr
    >>> from spr.batch import CohortBatch
    >>> request = spr.RankingRequest(
    ...     request_id="r1", at=datetime(2026, 2, 1), viewer=spr.Viewer("v1", features={"activity": "rare"}),
    ...     cohorts=[spr.Cohort("c", "people", ["p", "q"], [0.1, 0.2], "people-1")],
    ... )
    >>> batch = CohortBatch.of_request(request, spr.Config.named("network").entity_types)
    >>> rankers_by_segment(batch, "activity")
    (array([0, 0]), [('people', 'people-1', 'rare')])
    """
    if segment is None:
        return batch.ranker, list(batch.rankers)
    names = request_segments(batch, segment).tolist()
    code = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(code) == 1:  # one request, in serving: no need to count who is used
        return batch.ranker, [key if names[0] is None else (*key, names[0]) for key in batch.rankers]
    of_request = np.array([code[name] for name in names])
    of_entity = of_request[batch.request_of_cohort()[batch.cohort_of_entity()]]
    used, ranker = np.unique(of_entity * len(batch.rankers) + batch.ranker, return_inverse=True)
    named = list(code)
    whose = [(named[number // len(batch.rankers)], batch.rankers[number % len(batch.rankers)]) for number in used]
    return ranker, [key if name is None else (*key, name) for name, key in whose]


def _column(batch: CohortBatch, segment: str) -> Column | None:
    if segment.startswith(_CONTEXT):
        return batch.context.get(segment.removeprefix(_CONTEXT))
    return batch.viewer_features.get(segment)
