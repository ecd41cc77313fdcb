"""Observed against expected responses, summed up to each look or in each window, noise between viewers included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import lambertw, ndtri

from calibration.families import BINARY, CONTINUOUS
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from calibration.families import ResponseFamily

    Floats = NDArray[np.float64]

PLANNED_RESPONSES = 1000.0
MINIMUM_VIEWERS = 50.0
_ROUNDING = 1e-9
_POWERS = tuple((power - j, j) for power in (2, 4) for j in range(power + 1))


@dataclass(frozen=True, eq=False)
class ResponseSums:
    """Sums over groups of rows: the rows up to each look, or those of each window.

    Parameters
    ----------
    family : ResponseFamily
        Of the responses. A continuous one has no zero to form ratios from: it deviates by a mean difference.
    n : float64[k]
        Rows.
    n_viewers : float64[k]
        Distinct viewers among them.
    effective_viewers : float64[k]
        Equally active viewers worth as much (Kish): base^2 / sum over viewers of base^2, <= n_viewers. Where
        responses have no upper bound, at most sum(s)^2 / sum(s^2), s a viewer's term of ``viewer_variance``: a
        variance that a few viewers make is not known, and is too low before the first of them comes.
    observed : float64[k]
        Sum of responses.
    expected : float64[k]
        Sum of expected responses; > 0 unless continuous.
    model_variance : float64[k]
        Of ``observed``, were the rows independent: sum of p * (1 - p), or of expected counts, at the expectations;
        for continuous responses, sum of (response - expected - difference)^2.
    viewer_variance : float64[k]
        Of ``observed`` as estimated between viewers: sum over viewers of (observed - ratio * expected)^2, or of
        (observed - expected - difference * rows)^2.
    """

    family: ResponseFamily
    n: Floats
    n_viewers: Floats
    effective_viewers: Floats
    observed: Floats
    expected: Floats
    model_variance: Floats
    viewer_variance: Floats

    @classmethod
    def running(
        cls,
        look: NDArray[np.intp],
        response: Floats,
        expected: Floats,
        viewer: NDArray[np.intp],
        family: ResponseFamily,
    ) -> ResponseSums:
        """Sum all rows up to and including each look.

        Parameters
        ----------
        look : int[n]
            0 .. k - 1, every number there, in any order of the rows.
        response : float64[n]
            In the family's range.
        expected : float64[n]
            Their expectations; > 0 unless continuous.
        viewer : int[n]
            Code of the viewer.
        family : ResponseFamily

        Returns
        -------
        ResponseSums

        Examples
        --------
        >>> look, viewer, half = np.array([0, 1]), np.array([0, 0]), np.array([0.5, 0.5])
        >>> sums = ResponseSums.running(look, np.array([1.0, 0.0]), half, viewer, BINARY)
        >>> sums.observed, sums.expected, sums.n_viewers
        (array([1., 1.]), array([0.5, 1. ]), array([1., 1.]))
        """
        order = np.argsort(look, kind="stable")
        look, response, expected, own = look[order], response[order], expected[order], viewer[order]
        above, base = _terms(response, expected, family)
        so_far = pd.DataFrame({"above": above, "base": base}).groupby(own).cumsum()
        a, b = (so_far[name].to_numpy(dtype=np.float64) for name in ("above", "base"))
        a_before, b_before = a - above, b - base
        # Sums over viewers of the products of their totals, kept up to date row by row.
        products = {(i, j): a**i * b**j - a_before**i * b_before**j for i, j in _POWERS}
        last = np.append(np.flatnonzero(np.diff(look)), look.size - 1)

        def total(row_amount: Floats) -> Floats:
            return np.asarray(np.cumsum(row_amount)[last])

        return cls._of(
            total,
            response,
            expected,
            family,
            n_viewers=total(np.asarray(~pd.Series(own).duplicated(), dtype=np.float64)),
            products={powers: total(each) for powers, each in products.items()},
        )

    @classmethod
    def by_window(
        cls,
        window: NDArray[np.intp],
        response: Floats,
        expected: Floats,
        viewer: NDArray[np.intp],
        family: ResponseFamily,
    ) -> ResponseSums:
        """Sum the rows of each window.

        Parameters
        ----------
        window : int[n]
            0 .. k - 1, every number there.
        response, expected, viewer, family
            As in ``running``.

        Returns
        -------
        ResponseSums

        Examples
        --------
        >>> ones = np.ones(3)
        >>> ResponseSums.by_window(np.array([0, 1, 1]), ones, ones / 2, np.array([0, 0, 1]), BINARY).observed
        array([1., 2.])
        """
        pair, of_pair = np.unique(np.stack([window, viewer]), axis=1, return_inverse=True)
        a, b = (sum_by_group(of_pair, each) for each in _terms(response, expected, family))
        return cls._of(
            lambda row_amount: sum_by_group(window, row_amount),
            response,
            expected,
            family,
            n_viewers=sum_by_group(pair[0], np.ones(a.size)),
            products={(i, j): sum_by_group(pair[0], a**i * b**j) for i, j in _POWERS},
        )

    @classmethod
    def _of(
        cls,
        total: Callable[[Floats], Floats],
        response: Floats,
        expected: Floats,
        family: ResponseFamily,
        *,
        n_viewers: Floats,
        products: Mapping[tuple[int, int], Floats],
    ) -> ResponseSums:
        above, base = _terms(response, expected, family)
        n, a, b = total(np.ones(response.size)), total(above), total(base)
        deviation = a / b

        def between_viewers(power: int) -> Floats:
            terms = ((-deviation) ** j * math.comb(power, j) * products[power - j, j] for j in range(power + 1))
            return np.maximum(sum(terms), 0.0)

        # One viewer alone says nothing about the noise between viewers.
        unbiased = np.where(n_viewers > 1, n_viewers / np.maximum(n_viewers - 1.0, 1.0), 0.0)
        if family is CONTINUOUS:
            # Responses equal to their expectations but for rounding must not seem to differ beyond noise.
            rounding = _ROUNDING**2 * total(response**2 + expected**2) + 1e-200
            model_variance = np.maximum(total(above**2) - deviation * a, rounding)
        else:
            model_variance = total(family.variance(expected))
        squares, effective = between_viewers(2), b**2 / products[0, 2]
        if family is not BINARY:
            fourth_powers = between_viewers(4)
            # Where viewers hardly vary beside their totals, the fourth powers are rounding.
            known = (squares > 1e-6 * products[2, 0]) & (fourth_powers > 0)
            worth = squares**2 / np.where(known, fourth_powers, 1.0)
            effective = np.where(known, np.minimum(effective, worth), effective)
        return cls(
            family, n, n_viewers, effective, total(response), total(expected), model_variance, squares * unbiased
        )

    @property
    def base(self) -> Floats:
        """What deviations are counted in, float64[k]: expected responses, or rows where continuous."""
        return self.n if self.family is CONTINUOUS else self.expected

    @property
    def unchanged(self) -> float:
        """The deviation of responses that are as expected: a ratio of 1, a difference of 0."""
        return 0.0 if self.family is CONTINUOUS else 1.0

    @property
    def deviation(self) -> Floats:
        """The ratio, or the difference where continuous, float64[k]."""
        return self._above / self.base

    @property
    def ratio(self) -> Floats:
        """Observed / expected, float64[k]; NaN where continuous."""
        return np.full(self.n.size, np.nan) if self.family is CONTINUOUS else self.deviation

    @property
    def difference(self) -> Floats:
        """Mean of observed - expected over the rows, float64[k]; NaN unless continuous."""
        return self.deviation if self.family is CONTINUOUS else np.full(self.n.size, np.nan)

    @property
    def _above(self) -> Floats:
        return self.observed - self.expected if self.family is CONTINUOUS else self.observed

    @property
    def dispersion(self) -> Floats:
        """Variance of ``observed`` by that of independent rows, float64[k], at least 1."""
        level = 1.0 if self.family is CONTINUOUS else self.ratio
        independent = level * self.model_variance
        return np.maximum(self.viewer_variance / np.where(independent > 0, independent, np.inf), 1.0)

    def always_valid(self, alpha: float, fit_error: float) -> tuple[Floats, Floats]:
        """Return an interval of the deviation that holds at all looks together.

        Parameters
        ----------
        alpha : float
            P(the true deviation is outside at any look, ever) is asymptotically at most alpha.
        fit_error : float
            Standard error of the level of the expectations, >= 0: relative, or absolute where continuous.

        Returns
        -------
        low, high : float64[k]
            Of a ratio: low >= 0. Without bounds (0 or -infinity, and infinity) below 50 effective viewers: so few
            give no variance to rely on, and of looks at one or two very active viewers each some would exclude
            what is unchanged by chance.

        Examples
        --------
        >>> look, p, viewer = np.repeat([0, 1], [2000, 6000]), np.full(8000, 0.5), np.arange(8000)
        >>> sums = ResponseSums.running(look, np.tile([0.0, 1.0], 4000), p, viewer, BINARY)
        >>> low, high = sums.always_valid(0.05, 0.0)
        >>> low.round(3), high.round(3)
        (array([0.931, 0.966]), array([1.069, 1.034]))
        """
        half = boundary(self._variance + (fit_error * self.base) ** 2, alpha, self._planned_unit)
        return self._bounds(np.where(self.effective_viewers < MINIMUM_VIEWERS, np.inf, half))

    def one_look(self, alpha: float) -> tuple[Floats, Floats]:
        """Return an interval of each deviation for itself, one look planned in advance.

        Parameters
        ----------
        alpha : float
            P(the true deviation is outside).

        Returns
        -------
        low, high : float64[k]
            Of a ratio: low >= 0, high > 0 even without a response.

        Notes
        -----
        Of a ratio: the R with (observed - R * expected)^2 <= z^2 * R * variance at R = 1, Rao's score interval
        of a Poisson ratio, its variance scaled by ``dispersion``. Of a difference: +- z standard errors.

        Examples
        --------
        >>> zero, p, viewer = np.zeros(100, dtype=int), np.full(100, 0.1), np.arange(100)
        >>> low, high = ResponseSums.by_window(zero, np.zeros(100), p, viewer, BINARY).one_look(0.05)
        >>> low.round(3), high.round(3)
        (array([0.]), array([0.346]))
        """
        z = float(ndtri(1.0 - alpha / 2.0))
        if self.family is CONTINUOUS:
            return self._bounds(z * np.sqrt(self._variance))
        spread = z**2 * self.dispersion * self.model_variance / self.expected**2
        middle = self.ratio + spread / 2.0
        half = np.sqrt(np.maximum(middle**2 - self.ratio**2, 0.0))
        return np.maximum(middle - half, 0.0), middle + half

    @property
    def _variance(self) -> Floats:
        return np.maximum(self.viewer_variance, self.model_variance)

    @property
    def _planned_unit(self) -> Floats:
        return self.model_variance / self.n if self.family is CONTINUOUS else np.ones(self.n.size)

    def _bounds(self, half: Floats) -> tuple[Floats, Floats]:
        lowest = -np.inf if self.family is CONTINUOUS else 0.0
        return np.maximum(self._above - half, lowest) / self.base, (self._above + half) / self.base


def _terms(response: Floats, expected: Floats, family: ResponseFamily) -> tuple[Floats, Floats]:
    """Return a and b of each row; the deviation is sum(a) / sum(b)."""
    if family is CONTINUOUS:
        return response - expected, np.ones(response.size)
    return response, expected


def boundary(variance: Floats, alpha: float, unit: Floats | float = 1.0) -> Floats:
    """Return what a sum of centred terms exceeds in absolute value, ever, with probability at most alpha.

    Parameters
    ----------
    variance : float64[...]
        Of the sum so far, >= 0.
    alpha : float
        In (0, 1).
    unit : float64[...]
        Variance of one response, > 0.

    Returns
    -------
    float64[...]
        In the units of the sum.

    Notes
    -----
    The two-sided normal mixture sqrt((V + r) * ln((V + r) / (r * alpha^2))) (Howard, Ramdas, McAuliffe and
    Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"), with an
    estimated V an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024,
    "Time-uniform central limit theory and asymptotic confidence sequences"). r makes it
    tightest at V = 1000 units, about 1000 expected responses (or rows, where continuous): a change of some 10 %
    (of a standard deviation) is decided there. It must not depend on the data; the unit of continuous responses,
    which is estimated, converges (the same authors' running standard deviation).

    Examples
    --------
    >>> boundary(np.array([0.0, 1000.0, 100_000.0]), 0.05).round(1)
    array([  27. ,   96. , 1127.8])
    """
    tuning = mixture_variance(alpha, unit)
    return np.asarray(np.sqrt((variance + tuning) * np.log((variance + tuning) / (tuning * alpha**2))))


def mixture_variance(alpha: float, unit: Floats | float = 1.0) -> Floats:
    """Return the r of :func:`boundary`, which makes it tightest at V = 1000 units.

    Parameters
    ----------
    alpha : float
        In (0, 1).
    unit : float64[...]
        Variance of one response, > 0.

    Returns
    -------
    float64[...]

    Examples
    --------
    >>> float(mixture_variance(0.05).round(1))
    121.8
    """
    return np.asarray(unit * PLANNED_RESPONSES / (-float(lambertw(-(alpha**2) / np.e, -1).real) - 1.0))
