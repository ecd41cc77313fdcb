"""The rows of an impressions log that can tell drift, by ranker: like with like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.columns import numbers, require_columns
from calibration.drift.responses import moments_utc
from calibration.drift.scores import cluster_codes
from calibration.errors import CalibrationError
from calibration.impressions import checked_rows, learnable_rows, rows_by_ranker, segment_names
from calibration.segments import answer_by_segment

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from calibration.calibrator_set import CalibratorSet
    from calibration.impressions import Ranker

_COLUMNS = ("entity_type", "ranker_version", "raw_score", "response", "at", "viewer_id")


@dataclass(frozen=True, eq=False)
class RankerRows:
    """What a log holds of one ranker.

    Parameters
    ----------
    n_logged : int
        Rows of every policy.
    since, until : Timestamp
        First and last moment of these.
    score_at : DatetimeIndex[a]
        Rows with a raw score, of the random policy where the log has policies.
    raw_score : float64[a]
        Finite.
    score_viewer : int[a]
        Code of the viewer, the same all over the log.
    response_at : DatetimeIndex[b]
        Those of them with a known response.
    response : float64[b]
        In its family's range.
    expected : float64[b]
        Calibrated expectation, of the row's segment, times relative examination; empty without a calibrator.
    response_viewer : int[b]
        Code of the viewer.
    """

    n_logged: int
    since: pd.Timestamp
    until: pd.Timestamp
    score_at: pd.DatetimeIndex
    raw_score: NDArray[np.float64]
    score_viewer: NDArray[np.intp]
    response_at: pd.DatetimeIndex
    response: NDArray[np.float64]
    expected: NDArray[np.float64]
    response_viewer: NDArray[np.intp]


def read_log(log: pd.DataFrame, calibrators: CalibratorSet) -> dict[Ranker, RankerRows]:
    """Pick and check the rows of each ranker that is in the log.

    Parameters
    ----------
    log : DataFrame
        As in ``needs_recalibration``.
    calibrators : CalibratorSet
        Its examination is looked up at the rows' positions and slots.

    Returns
    -------
    dict of (entity_type, ranker_version) to RankerRows
        Sorted; versions without a calibrator, too.

    Raises
    ------
    CalibrationError
        No row, a missing column, or a value out of range or null with its row.

    Notes
    -----
    Curves and their quantile tables come from rows of the random policy: other policies choose and place by
    score, so their scores and responses differ without any drift. Scores need no known response, so the
    latest rows count before their response windows close.

    Examples
    --------
    >>> import pandas as pd
    >>> from calibration import CalibratorSet
    >>> log = pd.DataFrame({"entity_type": "people", "ranker_version": "p1", "raw_score": np.arange(60.0),
    ...                     "response": [0.0, 1.0, None] * 20, "at": pd.Timestamp("2026-05-01"),
    ...                     "viewer_id": np.arange(60)})
    >>> rows = read_log(log, CalibratorSet.fit(log, minimum_rows=40))["people", "p1"]
    >>> rows.raw_score.size, rows.response.size
    (60, 40)
    """
    examination = calibrators.examination
    require_columns(log, (*_COLUMNS, *(() if examination is None else examination.columns)))
    if log.empty:
        raise CalibrationError("the log has no row; drift needs the rows shown since the calibrators were fitted")
    moments = moments_utc(log["at"].array, "at")
    viewer = cluster_codes(log["viewer_id"].array, "viewer_id")
    is_learnable = np.zeros(len(log), dtype=bool)
    is_learnable[learnable_rows(log)] = True
    segments = segment_names(log, calibrators.settings.segment)
    raw_score = numbers(log, "raw_score")
    if np.isinf(raw_score).any():
        first = int(np.argmax(np.isinf(raw_score)))
        raise CalibrationError(
            f"raw_score must be finite, or null where not scorable; row {first} has {raw_score[first]}"
        )
    scored = ~np.isnan(raw_score)
    if "policy" in log.columns:
        scored &= (log["policy"] == "random").to_numpy(dtype=bool, na_value=False)

    answer: dict[Ranker, RankerRows] = {}
    for key, index in sorted(rows_by_ranker(log).items()):
        of_scores = index[scored[index]]
        of_responses = index[is_learnable[index]]
        response, expected = np.empty(0), np.empty(0)
        if of_responses.size:
            rows = checked_rows(log, of_responses, examination, calibrators.settings.family(key[0]))
            response = rows.response
            if key in calibrators:
                own = answer_by_segment(
                    calibrators[key], calibrators.segments_of(key), rows.raw_score, segments[of_responses]
                )
                rate = calibrators.settings.negative_sampling_rate.get(key[0], 1.0)
                expected = _among_kept(own * rows.examination, rate)
        answer[key] = RankerRows(
            n_logged=index.size,
            since=moments[index].min(),
            until=moments[index].max(),
            score_at=moments[of_scores],
            raw_score=raw_score[of_scores],
            score_viewer=viewer[of_scores],
            response_at=moments[of_responses],
            response=response,
            expected=expected,
            response_viewer=viewer[of_responses],
        )
    return answer


def _among_kept(expected: NDArray[np.float64], negative_sampling_rate: float) -> NDArray[np.float64]:
    # of the rows that the log kept, more have a response than of all
    if negative_sampling_rate == 1.0:
        return expected
    return expected / (expected + negative_sampling_rate * (1.0 - expected))
