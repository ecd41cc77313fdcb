"""Responses of one ranker beside its curve, all rows together: how far off, how sure, how many rows it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.special import ndtri

from calibration.drift.sums import ResponseSums, boundary
from calibration.families import BINARY, CONTINUOUS

if TYPE_CHECKING:
    from calibration.curve import ResponseCurve
    from calibration.drift.log import RankerRows
    from calibration.families import ResponseFamily

CHANGE_TO_SEE = 0.10
POWER = 0.80
_MOST_ROWS = 10**10


@dataclass(frozen=True)
class TypicalRow:
    """What a row of a ranker adds to the sums, on average.

    Parameters
    ----------
    family : ResponseFamily
    expected : float
        Mean expected response; > 0 unless continuous.
    variance : float
        Of its response, were rows independent.
    dispersion : float
        Variance of a sum of responses by that of independent rows, >= 1.
    """

    family: ResponseFamily
    expected: float
    variance: float
    dispersion: float

    @classmethod
    def of_curve(cls, curve: ResponseCurve) -> Self:
        """Guess it before any row: rows as the fitted ones, independent; continuous responses with variance 1."""
        family = curve.form.family
        variance = float(np.average(family.variance(curve.values), weights=curve.table.weight))
        return cls(family, curve.mean_response, variance, 1.0)

    @classmethod
    def of_sums(cls, sums: ResponseSums) -> Self:
        """Take it from the last group of rows."""
        n = float(sums.n[-1])
        return cls(
            sums.family, float(sums.expected[-1]) / n, float(sums.model_variance[-1]) / n, float(sums.dispersion[-1])
        )


def fit_error_of(curve: ResponseCurve, row: TypicalRow) -> float:
    """Return the standard error of a curve's level.

    Parameters
    ----------
    curve : ResponseCurve
    row : TypicalRow
        A curve does not know its viewers, nor how much counts and continuous responses vary; later rows of the
        same kind of log tell.

    Returns
    -------
    float
        Relative: sqrt(dispersion * variance / expected / responses), of a binomial or over-dispersed Poisson rate.
        Of a continuous response, in its units: sqrt(dispersion * variance / rows), of a mean.

    Examples
    --------
    >>> from calibration.curve import ResponseCurve
    >>> from calibration.quantiles import QuantileTable
    >>> from calibration.forms import CurveForm
    >>> table, values = QuantileTable.fit([1.0]), np.array([0.1])
    >>> curve = ResponseCurve(CurveForm("isotonic"), "step", table, values, 10_000, 1000, 0.1)
    >>> round(fit_error_of(curve, TypicalRow.of_curve(curve)), 3)
    0.03
    """
    variance = row.dispersion * row.variance
    if row.family is CONTINUOUS:
        return float(np.sqrt(variance / curve.n_rows))
    # Rows without a click may have been sampled; of counts, the curve knows no sum.
    responses = curve.n_positive if row.family is BINARY else curve.n_rows * row.expected
    return float(np.sqrt(variance / row.expected / max(responses, 1.0)))


def rows_to_see_change(row: TypicalRow, *, change: float, alpha: float, fit_error: float) -> int | None:
    """Return how many rows show a change of responses with 80 % power at the always-valid level.

    Parameters
    ----------
    row : TypicalRow
    change : float
        Relative change of the expected response, or absolute where continuous; > 0.
    alpha : float
        In (0, 1).
    fit_error : float
        As in ``response_drift``.

    Returns
    -------
    int or None
        None: no number of rows is enough, the expectations themselves are too uncertain.

    Notes
    -----
    The smallest n with change * n * base >= boundary(V) + z_0.8 * sqrt(V), base = the row's expected response (1
    where continuous): crossing at that look; crossing before it adds a little power.

    Examples
    --------
    >>> row = TypicalRow(BINARY, expected=0.1, variance=0.09, dispersion=1.0)
    >>> rows_to_see_change(row, change=0.1, alpha=0.05, fit_error=0.0)
    13546
    >>> rows_to_see_change(row, change=0.1, alpha=0.05, fit_error=0.1) is None
    True
    """
    base, unit = (1.0, row.variance) if row.family is CONTINUOUS else (row.expected, 1.0)

    def enough(n: int) -> bool:
        total = n * base
        variance = np.array(n * row.dispersion * row.variance + (fit_error * total) ** 2)
        return bool(change * total >= boundary(variance, alpha, unit) + ndtri(POWER) * np.sqrt(variance))

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


@dataclass(frozen=True)
class Comparison:
    """Responses of one ranker beside their expectations. NaN = no such figure: no row, or another family.

    Parameters
    ----------
    family : ResponseFamily
    n, n_viewers : int
        Rows with a response, and their viewers.
    effective_viewers : float
        As in ``ResponseSums``.
    observed, expected, ratio, difference, interval_low, interval_high : float
        As in ``DriftVerdict``.
    deviation, unchanged : float
        The ratio and 1, or the difference and 0.
    unit : float
        What changes are relative to: 1 for a ratio; the responses' standard deviation for a difference.
    rows_needed : int or None
        To see a change of 0.1 units.
    """

    family: ResponseFamily
    n: int
    n_viewers: int
    effective_viewers: float
    observed: float
    expected: float
    ratio: float
    difference: float
    interval_low: float
    interval_high: float
    deviation: float
    unchanged: float
    unit: float
    rows_needed: int | None

    @classmethod
    def of(cls, rows: RankerRows, curve: ResponseCurve, alpha: float) -> Self:
        """Compare.

        Parameters
        ----------
        rows : RankerRows
        curve : ResponseCurve
            The ranker's own.
        alpha : float
            1 - level of the always-valid interval.

        Returns
        -------
        Comparison
        """
        family, n = curve.form.family, rows.response.size
        if n == 0:
            return cls._without_rows(curve, alpha)
        look = np.zeros(n, dtype=np.intp)
        sums = ResponseSums.by_window(look, rows.response, rows.expected, rows.response_viewer, family)
        row, unit = TypicalRow.of_sums(sums), float(np.std(rows.response)) if family is CONTINUOUS else 1.0
        fit_error = fit_error_of(curve, row)
        low, high = sums.always_valid(alpha, fit_error)
        return cls(
            family=family,
            n=n,
            n_viewers=int(sums.n_viewers[0]),
            effective_viewers=float(sums.effective_viewers[0]),
            observed=float(sums.observed[0]),
            expected=float(sums.expected[0]),
            ratio=float(sums.ratio[0]),
            difference=float(sums.difference[0]),
            interval_low=float(low[0]),
            interval_high=float(high[0]),
            deviation=float(sums.deviation[0]),
            unchanged=sums.unchanged,
            unit=unit,
            rows_needed=rows_to_see_change(row, change=CHANGE_TO_SEE * unit, alpha=alpha, fit_error=fit_error),
        )

    @classmethod
    def _without_rows(cls, curve: ResponseCurve, alpha: float) -> Self:
        row = TypicalRow.of_curve(curve)
        needed = rows_to_see_change(row, change=CHANGE_TO_SEE, alpha=alpha, fit_error=fit_error_of(curve, row))
        unknown = dict.fromkeys(("ratio", "difference", "interval_low", "interval_high", "deviation"), np.nan)
        return cls(
            family=row.family,
            n=0,
            n_viewers=0,
            effective_viewers=0.0,
            observed=0.0,
            expected=0.0,
            unchanged=0.0 if row.family is CONTINUOUS else 1.0,
            unit=np.nan if row.family is CONTINUOUS else 1.0,
            rows_needed=needed,
            **unknown,
        )

    @property
    def excludes_unchanged(self) -> bool:
        """Whether the always-valid interval excludes that responses are as expected."""
        return self.interval_low > self.unchanged or self.interval_high < self.unchanged

    def is_beyond(self, tolerance: float) -> bool:
        """Whether the deviation is larger than a tolerance, in units."""
        return abs(self.deviation - self.unchanged) > tolerance * self.unit

    @property
    def in_words(self) -> str:
        """How far responses are off: "18.1 % below what was expected"."""
        side = "below" if self.deviation < self.unchanged else "above"
        if self.family is not CONTINUOUS:
            return f"{100 * abs(self.ratio - 1):.1f} % {side} what was expected"
        relative = abs(self.difference) / self.unit if self.unit > 0 else np.inf
        return (
            f"{abs(self.difference):.4g} {side} what was expected on average, "
            f"{100 * relative:.1f} % of their standard deviation"
        )

    @property
    def interval_in_words(self) -> str:
        """The interval: "13.6 to 22.6 % below"."""
        scale, sign, digits = (1.0, "", ".4g") if self.family is CONTINUOUS else (100.0, " %", ".1f")
        low, high = scale * (self.interval_low - self.unchanged), scale * (self.interval_high - self.unchanged)
        if high <= 0:
            return f"{-high:{digits}} to {-low:{digits}}{sign} below"
        if low >= 0:
            return f"{low:{digits}} to {high:{digits}}{sign} above"
        return f"{-low:{digits}}{sign} below to {high:{digits}}{sign} above"

    def share_in_words(self, share: float) -> str:
        """So many units: "10 %", or "10 % of the responses' standard deviation"."""
        return f"{100 * share:g} %" + (" of the responses' standard deviation" if self.family is CONTINUOUS else "")
