"""Drift over time, one row per ranker and window: what a plot of it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.drift.comparison import TypicalRow, fit_error_of
from calibration.drift.log import RankerRows, read_log
from calibration.drift.responses import refuse_options, windows
from calibration.drift.scores import score_figures
from calibration.drift.sums import ResponseSums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.calibrator_set import CalibratorSet
    from calibration.curve import ResponseCurve

COLUMNS = (
    "entity_type",
    "ranker_version",
    "response",
    "window_start",
    "n_scores",
    "n_responses",
    "n_viewers",
    "mean_quantile",
    "psi",
    "psi_noise",
    "ks",
    "ks_p_value",
    "observed",
    "expected",
    "ratio",
    "difference",
    "interval_low",
    "interval_high",
    "ratio_so_far",
    "difference_so_far",
    "so_far_low",
    "so_far_high",
    "drifted",
)
_RESPONSE_COLUMNS = ("n_responses", *COLUMNS[COLUMNS.index("observed") :])


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

        - response: "binary", "count" or "continuous".
        - n_scores, n_responses, n_viewers: rows of the random policy with a raw score; with a known response
          too; viewers with a score.
        - mean_quantile: of the scores among those of the fit; 0.5 = unmoved.
        - psi, psi_noise: population stability index, and what it stays below without drift (one window).
        - ks, ks_p_value: Kolmogorov-Smirnov distance of the scores, and its p-value (one window).
        - observed, expected: responses of the window, expected ones.
        - ratio, difference: observed / expected; where continuous, that is NaN, and the mean of observed - expected
          over rows is not.
        - interval_low, interval_high: of the ratio or difference of this window alone; one window in 1 / alpha
          excludes 1 (0) by chance, more of them where a window has only a few dozen viewers.
        - ratio_so_far, difference_so_far, so_far_low, so_far_high: the same over all windows up to this one,
          always valid, the noise of the fit itself allowed for: P(any of them is wrong) is at most alpha. Without
          bounds (0 or -infinity, and infinity) until there are 50 viewers.
        - drifted: so_far_low .. so_far_high excludes a ratio of 1, or a difference of 0.

        NaN where a window has no such row; psi and ks need two viewers.

    Raises
    ------
    CalibrationError
        As in ``needs_recalibration``.

    Notes
    -----
    The last so-far interval is the one of ``needs_recalibration`` but for its alpha, which is shared among the
    curves there.

    Examples
    --------
    >>> from calibration import CalibratorSet
    >>> rng = np.random.default_rng(0)
    >>> score = rng.random(8000)
    >>> log = pd.DataFrame({"entity_type": "people", "ranker_version": "p1", "raw_score": score,
    ...                     "response": (rng.random(8000) < 0.3 * score).astype(float), "viewer_id": np.arange(8000),
    ...                     "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(8000) // 4000, unit="D")})
    >>> table = drift_table(log, CalibratorSet.fit(log))
    >>> table[["n_responses", "mean_quantile", "ratio", "drifted"]].round(2)
       n_responses  mean_quantile  ratio  drifted
    0         4000            0.5   1.01    False
    1         4000            0.5   0.99    False
    """
    refuse_options(alpha, every)
    frames = [
        _of_ranker(rows, calibrators[key], every, alpha).assign(
            entity_type=key[0], ranker_version=key[1], response=calibrators[key].form.response
        )
        for key, rows in read_log(log, calibrators).items()
        if key in calibrators and rows.raw_score.size
    ]
    if not frames:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _of_ranker(rows: RankerRows, curve: ResponseCurve, every: str, alpha: float) -> pd.DataFrame:
    window, start = windows(rows.score_at, every)
    order = np.argsort(window, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(window[order])) + 1)
    scores = pd.DataFrame([_scores(rows, part, curve, alpha) for part in parts], index=start)
    # Rows with a response have a score, so every window of theirs is there.
    frame = scores.join(_responses(rows, curve, every, alpha))
    frame["n_responses"] = frame["n_responses"].fillna(0).astype(np.int64)
    frame["drifted"] = frame["drifted"] == 1.0
    return frame.rename_axis("window_start").reset_index()


def _scores(rows: RankerRows, part: NDArray[np.intp], curve: ResponseCurve, alpha: float) -> dict[str, float]:
    scores, viewer = rows.raw_score[part], rows.score_viewer[part]
    figures = score_figures(curve.table, scores, viewer, alpha)
    return {"n_scores": scores.size, "n_viewers": np.unique(viewer).size, **figures}


def _responses(rows: RankerRows, curve: ResponseCurve, every: str, alpha: float) -> pd.DataFrame:
    window, start = windows(rows.response_at, every)
    if start.empty:
        return pd.DataFrame(index=start, columns=list(_RESPONSE_COLUMNS), dtype=np.float64)
    rows_of = rows.response, rows.expected, rows.response_viewer, curve.form.family
    alone, so_far = ResponseSums.by_window(window, *rows_of), ResponseSums.running(window, *rows_of)
    low, high = alone.one_look(alpha)
    so_far_low, so_far_high = so_far.always_valid(alpha, fit_error_of(curve, TypicalRow.of_sums(so_far)))
    columns = (
        alone.n,
        alone.observed,
        alone.expected,
        alone.ratio,
        alone.difference,
        low,
        high,
        so_far.ratio,
        so_far.difference,
        so_far_low,
        so_far_high,
        ((so_far_low > so_far.unchanged) | (so_far_high < so_far.unchanged)).astype(np.float64),
    )
    return pd.DataFrame(dict(zip(_RESPONSE_COLUMNS, columns, strict=True)), index=start)
