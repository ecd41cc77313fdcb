"""Do viewers still respond as the calibrator expects? An answer that may be looked at every day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtri

from calibration.drift.scores import cluster_codes
from calibration.drift.sums import ResponseSums, boundary
from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from calibration.curve import ResponseCurve

WINDOWS = ("day", "week")
CHANGE_TO_SEE = 0.10
POWER = 0.80
_MOST_ROWS = 10**10


def response_drift(
    at: ArrayLike,
    response: ArrayLike,
    expected: ArrayLike,
    viewer: ArrayLike,
    *,
    every: str = "day",
    alpha: float = 0.05,
    fit_error: float = 0.0,
) -> pd.DataFrame:
    """Follow observed / expected responses over time, with an interval that is valid at every look.

    Parameters
    ----------
    at : datetime[n]
        When the row was shown.
    response : float[n]
        In [0, 1]; NaN (window still open) is left out.
    expected : float[n]
        In (0, 1]: ``curve.predict(raw_score) * examination.at(position)``; NaN (not scorable) is left out.
        Of rows that the calibrator was not fitted on, else the ratio is 1 by construction.
    viewer : any[n]
        Whose row it is. Rows of a viewer, on whatever day, may depend on each other.
    every : {"day", "week"}
        One look per UTC day, or week from Monday, that has rows.
    alpha : float
        P(an interval excludes the true ratio at any look, ever), asymptotically at most; in (0, 1).
    fit_error : float
        Relative standard error of the level of ``expected``, such as 1 / sqrt(responses it was fitted on).
        0 asks whether these expectations are off; > 0 whether response rates changed since the fit.

    Returns
    -------
    DataFrame
        One row per look, by time; all figures are of the rows up to it: at (its last row's time), n, n_viewers,
        observed (responses), expected (responses), ratio (observed / expected), interval_low, interval_high
        (of the ratio, >= 0, always valid), drifted (the interval excludes 1).

    Raises
    ------
    CalibrationError
        Unequal lengths, a value out of range or null (with its row), no row left, or an unknown option.

    Notes
    -----
    observed - expected is a sum over rows; V, its variance, is the larger of the one estimated between
    viewers and sum(p * (1 - p)), plus (fit_error * expected)^2. The interval is ratio +- boundary(V) /
    expected, ``boundary`` the normal mixture of ``calibration.drift.sums``. That is derived for independent
    increments. A viewer who comes back, and a curve fitted slightly too high, make increments correlate
    positively; at equal variance such a Gaussian sum correlates more with its own past, and is therefore less
    likely to ever cross (Slepian 1962, "The one-sided barrier problem for Gaussian noise"). V needs many
    viewers: below 50 equally active ones, or others worth as many, the interval is 0 to infinity. It is about
    the mean ratio since the first row, so a change after a long quiet stretch shows late: start afresh after
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
    moments = moments_utc(at, "at")
    responses = _in_unit_interval("response", response, moments.size, lowest_allowed=True)
    expectations = _in_unit_interval("expected", expected, moments.size, lowest_allowed=False)
    viewers = cluster_codes(viewer, "viewer")
    if viewers.size != moments.size:
        raise CalibrationError(f"viewer has {viewers.size:,} values for {moments.size:,} moments; pass one a row")
    kept = ~np.isnan(responses) & ~np.isnan(expectations)
    if not kept.any():
        raise CalibrationError(f"no row among {moments.size:,} has both a response and an expectation")
    moments = moments[kept]
    look, _ = windows(moments, every)
    sums = ResponseSums.running(look, responses[kept], expectations[kept], viewers[kept])
    low, high = sums.always_valid(alpha, fit_error)
    return pd.DataFrame(
        {
            "at": pd.Series(moments).groupby(look).max().array,
            "n": sums.n.astype(np.int64),
            "n_viewers": sums.n_viewers.astype(np.int64),
            "observed": sums.observed,
            "expected": sums.expected,
            "ratio": sums.ratio,
            "interval_low": low,
            "interval_high": high,
            "drifted": (low > 1.0) | (high < 1.0),
        }
    )


def rows_to_see_change(
    expected: float, *, dispersion: float, alpha: float, fit_error: float, change: float = CHANGE_TO_SEE
) -> int | None:
    """Return how many rows show a change of the response rate with 80 % power at the always-valid level.

    Parameters
    ----------
    expected : float
        Mean expected response of a row, in (0, 1).
    dispersion : float
        Variance of a sum of responses by that of independent rows, >= 1.
    alpha : float
        In (0, 1).
    fit_error : float
        As in ``response_drift``.
    change : float
        Relative change of the rate, > 0.

    Returns
    -------
    int or None
        None: no number of rows is enough, the expectations themselves are too uncertain.

    Notes
    -----
    The smallest n with change * n * expected >= boundary(V) + z_0.8 * sqrt(V): crossing at that look; crossing
    before it adds a little power.

    Examples
    --------
    >>> rows_to_see_change(0.1, dispersion=1.0, alpha=0.05, fit_error=0.0)
    13546
    >>> rows_to_see_change(0.1, dispersion=1.0, alpha=0.05, fit_error=0.1) is None
    True
    """

    def enough(n: int) -> bool:
        total = n * expected
        variance = np.array(dispersion * total * (1.0 - expected) + (fit_error * total) ** 2)
        return bool(change * total >= boundary(variance, alpha) + ndtri(POWER) * np.sqrt(variance))

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_ROWS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def fit_error_of(curve: ResponseCurve, dispersion: float) -> float:
    """Return the relative standard error of a curve's level.

    Parameters
    ----------
    curve : ResponseCurve
    dispersion : float
        Variance of a sum of responses by that of independent rows, >= 1. A curve does not know its viewers;
        later rows of the same kind of log tell.

    Returns
    -------
    float
        sqrt(dispersion * (1 - base rate) / responses): of a binomial rate.

    Examples
    --------
    >>> from calibration.curve import ResponseCurve
    >>> from calibration.quantiles import QuantileTable
    >>> from calibration.form import CurveForm
    >>> curve = ResponseCurve(CurveForm("isotonic"), "step", QuantileTable.fit([1.0]), np.array([0.1]), 10_000, 1000, 0.1)
    >>> round(fit_error_of(curve, 1.0), 3)
    0.03
    """
    return float(np.sqrt(dispersion * max(1.0 - curve.base_rate, 0.0) / max(curve.n_positive, 1)))


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


def _in_unit_interval(name: str, values: ArrayLike, n: int, *, lowest_allowed: bool) -> NDArray[np.float64]:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} does not hold numbers: {error}") from error
    if column.shape != (n,):
        raise CalibrationError(f"{name} has shape {column.shape} for {n:,} moments; pass one a row")
    wrong = (column < 0) | (column > 1) | (~np.bool_(lowest_allowed) & (column == 0))
    if wrong.any():
        first = int(np.argmax(wrong))
        allowed = "[0, 1]" if lowest_allowed else "(0, 1]"
        raise CalibrationError(f"{name} must be in {allowed}, or NaN; row {first} has {column[first]}")
    return column
