"""Drift over time, one row per ranker and window: what a plot of it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.drift.log import RankerRows, read_log
from calibration.drift.responses import refuse_options, windows
from calibration.drift.scores import kolmogorov_smirnov, population_stability_index
from calibration.drift.sums import ResponseSums

if TYPE_CHECKING:
    from calibration.calibrator_set import CalibratorSet
    from calibration.curve import ResponseCurve

_COUNTS = ("n_scores", "n_responses", "n_viewers")


def drift_table(
    log: pd.DataFrame, calibrators: CalibratorSet, *, every: str = "day", alpha: float = 0.05
) -> pd.DataFrame:
    """Compare scores and responses of each window with the fit.

    Parameters
    ----------
    log : DataFrame
        As in ``needs_recalibration``. Versions without a calibrator are left out.
    calibrators : CalibratorSet
    every : {"day", "week"}
        UTC days, or weeks from Monday; those without a row that can be compared are left out.
    alpha : float
        1 - level of the noise and the intervals, of each ranker for itself; in (0, 1).

    Returns
    -------
    DataFrame
        By entity_type, ranker_version and window_start (datetime):

        - n_scores, n_responses, n_viewers: rows of the random policy with a raw score; with a known response
          too; viewers with a score.
        - mean_quantile: of the scores among those of the fit; 0.5 = unmoved.
        - psi, psi_noise: population stability index, and what it stays below without drift (one window).
        - ks, ks_p_value: Kolmogorov-Smirnov distance of the scores, and its p-value (one window).
        - observed, expected, ratio: responses of the window, expected ones, observed / expected.
        - interval_low, interval_high: of the ratio of this window alone; one window in 1 / alpha excludes 1 by
          chance.
        - ratio_so_far, so_far_low, so_far_high: the same over all windows up to this one, always valid: P(any
          window's interval is wrong) is at most alpha.
        - drifted: so_far_low .. so_far_high excludes 1.

        NaN where a window has no such row; psi and ks need two viewers.

    Raises
    ------
    CalibrationError
        As in ``needs_recalibration``.

    Notes
    -----
    The expectations are taken as given: the noise of the fit itself is not in these intervals, as it is in
    ``needs_recalibration``, which decides.

    Examples
    --------
    >>> from calibration import CalibratorSet
    >>> rng = np.random.default_rng(0)
    >>> score = rng.random(8000)
    >>> log = pd.DataFrame({"entity_type": "people", "ranker_version": "p1", "raw_score": score,
    ...                     "response": (rng.random(8000) < 0.3 * score).astype(float), "viewer_id": np.arange(8000),
    ...                     "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(8000) // 4000, unit="D")})
    >>> table = drift_table(log, CalibratorSet.fit(log))
    >>> table[["window_start", "n_responses", "mean_quantile", "ratio", "drifted"]].round(2)
      window_start  n_responses  mean_quantile  ratio  drifted
    0   2026-05-01         4000            0.5   0.98    False
    1   2026-05-02         4000            0.5   1.02    False
    """
    refuse_options(alpha, every)
    frames = [
        _of_ranker(rows, calibrators[key], every, alpha).assign(entity_type=key[0], ranker_version=key[1])
        for key, rows in read_log(log, calibrators).items()
        if key in calibrators and rows.raw_score.size
    ]
    columns = ["entity_type", "ranker_version", *_WINDOW_COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


_SCORE_COLUMNS = ("n_scores", "n_viewers", "mean_quantile", "psi", "psi_noise", "ks", "ks_p_value")
_WINDOW_COLUMNS = (
    "window_start",
    *_COUNTS,
    "mean_quantile",
    "psi",
    "psi_noise",
    "ks",
    "ks_p_value",
    "observed",
    "expected",
    "ratio",
    "interval_low",
    "interval_high",
    "ratio_so_far",
    "so_far_low",
    "so_far_high",
    "drifted",
)


def _of_ranker(rows: RankerRows, curve: ResponseCurve, every: str, alpha: float) -> pd.DataFrame:
    window, start = windows(rows.score_at, every)
    order = np.argsort(window, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(window[order])) + 1)
    frame = pd.DataFrame([_scores(rows, part, curve, alpha) for part in parts], columns=list(_SCORE_COLUMNS))
    frame["window_start"] = start
    responses = _responses(rows, every, alpha)
    # Rows with a response have a score, so every window of theirs is there.
    frame = frame.merge(responses, on="window_start", how="left")
    frame["n_responses"] = frame["n_responses"].fillna(0).astype(np.int64)
    frame["drifted"] = frame["drifted"].eq(True)
    return frame


def _scores(
    rows: RankerRows, part: np.ndarray[tuple[int], np.dtype[np.intp]], curve: ResponseCurve, alpha: float
) -> tuple[float, ...]:
    scores, viewer = rows.raw_score[part], rows.score_viewer[part]
    n_viewers = np.unique(viewer).size
    quantile = float(curve.table.at(scores).mean())
    if n_viewers < 2:
        return scores.size, n_viewers, quantile, np.nan, np.nan, np.nan, np.nan
    stability = population_stability_index(curve.table, scores, cluster=viewer, alpha=alpha)
    distance = kolmogorov_smirnov(curve.table, scores, cluster=viewer)
    return (
        scores.size,
        n_viewers,
        quantile,
        stability.value,
        stability.noise,
        distance.statistic,
        distance.p_value,
    )


def _responses(rows: RankerRows, every: str, alpha: float) -> pd.DataFrame:
    names = ["window_start", "n_responses", "drifted", *_WINDOW_COLUMNS[9:-1]]
    if rows.response.size == 0:
        empty = pd.DataFrame(columns=names, dtype=np.float64)
        return empty.astype({"window_start": rows.score_at.dtype})
    window, start = windows(rows.response_at, every)
    alone = ResponseSums.by_window(window, rows.response, rows.expected, rows.response_viewer)
    so_far = ResponseSums.running(window, rows.response, rows.expected, rows.response_viewer)
    low, high = alone.score_interval(alpha)
    so_far_low, so_far_high = so_far.always_valid(alpha, 0.0)
    return pd.DataFrame(
        {
            "window_start": start,
            "n_responses": alone.n,
            "observed": alone.observed,
            "expected": alone.expected,
            "ratio": alone.ratio,
            "interval_low": low,
            "interval_high": high,
            "ratio_so_far": so_far.ratio,
            "so_far_low": so_far_low,
            "so_far_high": so_far_high,
            "drifted": (so_far_low > 1.0) | (so_far_high < 1.0),
        }
    )
