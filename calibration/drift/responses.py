"""Do viewers still respond as the calibrator expects? An answer that may be looked at every day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.drift.scores import cluster_codes
from calibration.drift.sums import ResponseSums
from calibration.errors import CalibrationError
from calibration.families import BINARY, CONTINUOUS, COUNT, ResponseFamily

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

WINDOWS = ("day", "week")
_EXPECTED_ALLOWED = {BINARY: "in (0, 1]", COUNT: "finite and > 0", CONTINUOUS: "finite"}


def response_drift(
    at: ArrayLike,
    response: ArrayLike,
    expected: ArrayLike,
    viewer: ArrayLike,
    *,
    family: str = "binary",
    every: str = "day",
    alpha: float = 0.05,
    fit_error: float = 0.0,
) -> pd.DataFrame:
    """Follow observed against expected responses over time, with an interval that is valid at every look.

    Parameters
    ----------
    at : datetime[n]
        When the row was shown.
    response : float[n]
        In [0, 1], >= 0 or any number, by family; NaN (window still open) is left out.
    expected : float[n]
        In (0, 1], > 0 or any number: ``curve.predict(raw_score) * examination.at(position, slot)``; NaN (not
        scorable) is left out. Of rows that the calibrator was not fitted on, else nothing can deviate.
    viewer : any[n]
        Whose row it is. Rows of a viewer, on whatever day, may depend on each other.
    family : {"binary", "count", "continuous"}
        What a response is. Binary ones and counts deviate by a ratio, continuous ones by a difference.
    every : {"day", "week"}
        One look per UTC day, or week from Monday, that has rows.
    alpha : float
        P(an interval excludes the true deviation at any look, ever), asymptotically at most; in (0, 1).
    fit_error : float
        Standard error of the level of ``expected``: relative, such as 1 / sqrt(responses it was fitted on); in
        units of the response where continuous, such as standard deviation / sqrt(rows it was fitted on).
        0 asks whether these expectations are off; > 0 whether response rates changed since the fit.

    Returns
    -------
    DataFrame
        One row per look, by time; all figures are of the rows up to it: at (its last row's time), n, n_viewers,
        observed (responses), expected (responses), ratio (observed / expected; NaN where continuous), difference
        (mean of observed - expected over rows; NaN unless continuous), interval_low, interval_high (of the one
        that is not NaN, always valid), drifted (the interval excludes a ratio of 1 or a difference of 0).

    Raises
    ------
    CalibrationError
        Unequal lengths, a value out of range or null (with its row), no row left, or an unknown option.

    Notes
    -----
    observed - expected is a sum over rows; V, its variance, is the larger of the one estimated between viewers
    and that of independent rows (sum of p * (1 - p), of expected counts, or of squared residuals), plus
    (fit_error * base)^2, base being expected, or n where continuous. The interval is the deviation +- boundary(V)
    / base, ``boundary`` the normal mixture of ``calibration.drift.sums``. That is derived for independent
    increments. A viewer who comes back, and a curve fitted slightly too high, make increments correlate
    positively; at equal variance such a Gaussian sum correlates more with its own past, and is therefore less
    likely to ever cross (Slepian 1962, "The one-sided barrier problem for Gaussian noise"). V needs many
    viewers: below 50 equal ones, or others worth as many, the interval has no bounds. Without an upper bound of
    responses, viewers are equal if they add alike to V, too: long-tailed dwell times take thousands. It is about
    the mean deviation since the first row, so a change after a long quiet stretch shows late: start afresh after
    each new fit. Weekly rhythm is change, too, until it averages out.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> at = pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(20_000) // 2000, unit="D")
    >>> response = rng.random(20_000) < 0.08
    >>> drift = response_drift(at, response, np.full(20_000, 0.1), np.arange(20_000) // 20)
    >>> drift.loc[[0, 9], ["n", "ratio", "drifted"]].round(2)
           n  ratio  drifted
    0   2000   0.82    False
    9  20000   0.81     True
    """
    refuse_options(alpha, every)
    if not (np.isfinite(fit_error) and fit_error >= 0):
        raise CalibrationError(f"fit_error is {fit_error}; it must be finite and >= 0")
    kind = ResponseFamily.named(family)
    moments = moments_utc(at, "at")
    responses = _numbers("response", response, moments.size)
    expectations = _numbers("expected", expected, moments.size)
    outside = (responses < kind.lowest) | (responses > kind.highest) | np.isinf(responses)
    _refuse("response", responses, outside, kind.allowed)
    outside = (expectations > kind.highest) | np.isinf(expectations)
    if kind is not CONTINUOUS:
        outside |= expectations <= 0
    _refuse("expected", expectations, outside, _EXPECTED_ALLOWED[kind])
    viewers = cluster_codes(viewer, "viewer")
    if viewers.size != moments.size:
        raise CalibrationError(f"viewer has {viewers.size:,} values for {moments.size:,} moments; pass one a row")
    kept = ~np.isnan(responses) & ~np.isnan(expectations)
    if not kept.any():
        raise CalibrationError(f"no row among {moments.size:,} has both a response and an expectation")
    moments = moments[kept]
    look, _ = windows(moments, every)
    sums = ResponseSums.running(look, responses[kept], expectations[kept], viewers[kept], kind)
    low, high = sums.always_valid(alpha, fit_error)
    return pd.DataFrame(
        {
            "at": pd.Series(moments).groupby(look).max().array,
            "n": sums.n.astype(np.int64),
            "n_viewers": sums.n_viewers.astype(np.int64),
            "observed": sums.observed,
            "expected": sums.expected,
            "ratio": sums.ratio,
            "difference": sums.difference,
            "interval_low": low,
            "interval_high": high,
            "drifted": (low > sums.unchanged) | (high < sums.unchanged),
        }
    )


def windows(moments: pd.DatetimeIndex, every: str) -> tuple[NDArray[np.intp], pd.DatetimeIndex]:
    """Return the number of each row's day or week, and when these begin.

    Parameters
    ----------
    moments : DatetimeIndex[n]
        As from ``moments_utc``.
    every : {"day", "week"}
        Weeks begin on Monday.

    Returns
    -------
    number : int[n]
        0, 1, ... by time.
    start : DatetimeIndex[k]
        First moment of each window.

    Examples
    --------
    >>> number, start = windows(pd.DatetimeIndex(["2026-05-08 10:00", "2026-05-02"]), "week")
    >>> number, start[0]
    (array([1, 0]), Timestamp('2026-04-27 00:00:00'))
    """
    start = moments.normalize()
    if every == "week":
        start = start - pd.to_timedelta(start.day_of_week.to_numpy(), unit="D")
    number, distinct = pd.factorize(start, sort=True)
    return np.asarray(number, dtype=np.intp), pd.DatetimeIndex(distinct)


def moments_utc(at: ArrayLike, name: str) -> pd.DatetimeIndex:
    """Read moments; those with a time zone are moved to UTC, those without are taken as they are.

    Parameters
    ----------
    at : datetime[n]
        Not null.
    name : str
        To say in errors.

    Returns
    -------
    DatetimeIndex[n]

    Raises
    ------
    CalibrationError
        Not datetimes, or a null with its row.

    Examples
    --------
    >>> moments_utc(["2026-05-01", "2026-05-02"], "at")
    Traceback (most recent call last):
    calibration.errors.CalibrationError: at must hold datetimes; found str
    """
    column = pd.Series(at)
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise CalibrationError(f"{name} must hold datetimes; found {column.dtype}")
    null = column.isna().to_numpy()
    if null.any():
        raise CalibrationError(f"{name} must not be null; first: row {int(np.argmax(null))}")
    moments = pd.DatetimeIndex(column.array)
    return moments if moments.tz is None else moments.tz_convert("UTC")


def refuse_options(alpha: float, every: str) -> None:
    """Refuse a level outside (0, 1) or an unknown window.

    Parameters
    ----------
    alpha : float
    every : str

    Raises
    ------
    CalibrationError
        It says what was found and what is allowed.

    Examples
    --------
    >>> refuse_options(0.05, "month")
    Traceback (most recent call last):
    calibration.errors.CalibrationError: unknown every 'month'; known: day, week
    """
    if not 0.0 < alpha < 1.0:
        raise CalibrationError(f"alpha is {alpha}; it must be inside (0, 1)")
    if every not in WINDOWS:
        raise CalibrationError(f"unknown every {every!r}; known: {', '.join(WINDOWS)}")


def _numbers(name: str, values: ArrayLike, n: int) -> NDArray[np.float64]:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} does not hold numbers: {error}") from error
    if column.shape != (n,):
        raise CalibrationError(f"{name} has shape {column.shape} for {n:,} moments; pass one a row")
    return column


def _refuse(name: str, values: NDArray[np.float64], outside: NDArray[np.bool_], allowed: str) -> None:
    if outside.any():
        first = int(np.argmax(outside))
        raise CalibrationError(f"{name} must be {allowed}, or NaN; row {first} has {values[first]}")
