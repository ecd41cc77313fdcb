"""Shadow scores: a ranker that is not live yet scores what other versions ranked, beside the logged responses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from calibration.columns import numbers, require_columns
from calibration.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

KEY = ("request_id", "cohort_id", "slot")


def with_shadow_scores(impressions: pd.DataFrame, shadow: pd.DataFrame, ranker_version: str) -> pd.DataFrame:
    """Join the scores of a new first-pass version to the responses that were logged for other versions' pages.

    Parameters
    ----------
    impressions : DataFrame
        As in ``CalibratorSet.fit``, with the key request_id, cohort_id, slot.
    shadow : DataFrame
        One row per entity that the new version scored: request_id, cohort_id, slot, raw_score (null = not
        scorable). All of one entity type.
    ranker_version : str
        Name of the new version.

    Returns
    -------
    DataFrame
        The impressions of these keys in their order and with their index, raw_score and ranker_version those of the
        new version: rows for ``CalibratorSet.refitted``. Rows of either table without a partner are left out, and
        logged how many; of impressions, those of the same entity type count.

    Raises
    ------
    CalibrationError
        A missing column, a null, duplicated or unknown key throughout, an infinite score (with row and value), or
        keys of several entity types.

    Notes
    -----
    The responses are those to the pages of the live version. Rows of the random policy are then fair to the new one,
    except that entities which only the new version would have retrieved were never shown.

    Examples
    --------
    >>> import pandas as pd
    >>> impressions = pd.DataFrame(
    ...     {"request_id": ["r1", "r1", "r2"], "cohort_id": "c", "slot": [0, 1, 0], "entity_type": "people",
    ...      "ranker_version": "p1", "raw_score": [3.0, 1.0, 2.0], "response": [1.0, 0.0, 0.0]}
    ... )
    >>> shadow = pd.DataFrame({"request_id": ["r2", "r1"], "cohort_id": "c", "slot": 0, "raw_score": [0.1, 0.4]})
    >>> with_shadow_scores(impressions, shadow, "p2")[["request_id", "ranker_version", "raw_score", "response"]]
      request_id ranker_version  raw_score  response
    0         r1             p2        0.4       1.0
    2         r2             p2        0.1       0.0
    """
    require_columns(impressions, (*KEY, "entity_type", "ranker_version", "raw_score"))
    require_columns(shadow, (*KEY, "raw_score"), "shadow")
    key = list(KEY)
    for name, table in (("impressions", impressions), ("shadow", shadow)):
        _refuse_broken_keys(table[key], name)
    raw_score = numbers(shadow, "raw_score", "shadow")
    infinite = np.flatnonzero(np.isinf(raw_score))
    if infinite.size:
        raise CalibrationError(
            f"shadow: raw_score is infinite in {infinite.size:,} of {len(shadow):,} rows; first: row {infinite[0]} has "
            f"{raw_score[infinite[0]]}; use null where an entity is not scorable"
        )
    try:
        scored = shadow[key].assign(raw_score=raw_score)
        found = impressions[key].merge(scored, on=key, how="left", indicator=True)
    except ValueError as error:
        raise CalibrationError(f"shadow: its keys are not of the kind of those of impressions: {error}") from error
    matched = (found["_merge"] == "both").to_numpy()
    if not matched.any():
        raise CalibrationError(
            f"shadow: none of {len(shadow):,} rows has the {', '.join(KEY)} of an impression; "
            f"first: {_name_row(shadow[key], 0) if len(shadow) else 'no row at all'}"
        )
    entity_types = sorted(set(impressions.loc[matched, "entity_type"]))
    if len(entity_types) > 1:
        raise CalibrationError(
            f"shadow: its rows are of the entity types {', '.join(entity_types)}; a ranker scores one"
        )
    of_type = int((impressions["entity_type"] == entity_types[0]).sum())
    n_matched = int(matched.sum())
    _log.info(
        "shadow scores of %s %s: %d rows joined, %d shadow rows without an impression, %d impressions without a score",
        entity_types[0],
        ranker_version,
        n_matched,
        len(shadow) - n_matched,
        of_type - n_matched,
    )
    return impressions[matched].assign(
        raw_score=found.loc[matched, "raw_score"].to_numpy(), ranker_version=ranker_version
    )


def _refuse_broken_keys(key: pd.DataFrame, name: str) -> None:
    for what, wrong in (("null", key.isna().any(axis=1)), ("duplicated", key.duplicated())):
        rows = np.flatnonzero(wrong.to_numpy())
        if rows.size:
            raise CalibrationError(
                f"{name}: {', '.join(KEY)} is {what} in {rows.size:,} of {len(key):,} rows; first: "
                f"{_name_row(key, int(rows[0]))}"
            )


def _name_row(key: pd.DataFrame, row: int) -> str:
    (values,) = key.iloc[[row]].to_dict("records")
    return f"row {row} has " + ", ".join(f"{name}={value!r}" for name, value in values.items())
