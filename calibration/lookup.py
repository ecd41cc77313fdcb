"""Many curves as one table, so that a page of all entity types is one search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from calibration.curve import ResponseCurve


_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True, eq=False)
class CurveLookup:
    """The knots of all curves, end to end.

    Parameters
    ----------
    knot : complex128[k]
        Curve number as the real part, raw score as the imaginary: numpy orders complex numbers by the real part
        first, so one binary search finds the curve and the place in it. The first knot of a curve is -inf.
    value : float64[k]
        Expected response at the knot.
    slope : float64[k]
        Rise per raw score up to the next knot; 0 where the curve is flat or steps.
    origin : float64[k]
        The raw score that the slope counts from; 0 where the slope is.

    Examples
    --------
    >>> from calibration import QuantileResponseCalibrator
    >>> curve = QuantileResponseCalibrator("isotonic").fit(np.arange(100.0), np.arange(100) >= 50).curve_
    >>> lookup = CurveLookup.of([curve, curve])
    >>> lookup.answer(np.array([20.0, 80.0, np.nan]), np.array([0, 1, 1])).round(2)
    array([0.01, 0.99,  nan])
    """

    knot: NDArray[np.complex128]
    value: NDArray[np.float64]
    slope: NDArray[np.float64]
    origin: NDArray[np.float64]

    @classmethod
    def of(cls, curves: Iterable[ResponseCurve]) -> CurveLookup:
        """Lay the tables of curves end to end; a curve's number is its place.

        Parameters
        ----------
        curves : iterable of ResponseCurve

        Returns
        -------
        CurveLookup
        """
        parts: list[tuple[NDArray[np.complex128], *tuple[NDArray[np.float64], ...]]] = []
        for number, curve in enumerate(curves):
            lower = curve.knots.copy()
            slope = np.zeros(lower.size)
            if curve.interpolation == "linear":
                slope[:-1] = np.diff(curve.values) / np.diff(lower)
                # below the first centre the curve is flat: one more knot there
                lower, slope = np.append(-np.inf, lower), np.append(0.0, slope)
                value = np.append(curve.values[0], curve.values)
                origin = np.append(0.0, curve.knots)
            else:
                lower[0], value, origin = -np.inf, curve.values, curve.knots
            knot = np.empty(lower.size, dtype=np.complex128)
            knot.real, knot.imag = number, lower
            parts.append((knot, value, slope, origin))
        knot, value, slope, origin = (np.concatenate(each) for each in zip(*parts, strict=True))
        # scores of opposite ends of float64 are further apart than it reaches, and 0 * inf is NaN
        return cls(knot, value, slope, np.where(slope == 0.0, 0.0, origin))

    def answer(self, raw_score: NDArray[np.float64], number: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the expected response of each raw score under the curve of that number.

        Parameters
        ----------
        raw_score : float64[n]
            NaN = not scorable.
        number : int[n]
            Of the curve.

        Returns
        -------
        float64[n]
            NaN where the raw score is.
        """
        asked = np.empty(raw_score.shape, dtype=np.complex128)
        asked.real, asked.imag = number, raw_score
        place = self.knot.searchsorted(asked, side="right") - 1
        # raw_score - origin is NaN for NaN; slopes are finite, and the product 0 where the curve is flat
        finite = np.minimum(np.maximum(raw_score, -_LARGEST), _LARGEST)
        return self.value[place] + self.slope[place] * (finite - self.origin[place])
