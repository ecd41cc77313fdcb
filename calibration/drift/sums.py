"""Observed against expected responses, summed up to each look or in each window, noise between viewers included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import lambertw, ndtri

from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLANNED_RESPONSES = 1000.0
MINIMUM_VIEWERS = 50.0


@dataclass(frozen=True, eq=False)
class ResponseSums:
    """Sums over groups of rows: the rows up to each look, or those of each window.

    Parameters
    ----------
    n : float64[k]
        Rows.
    n_viewers : float64[k]
        Distinct viewers among them.
    effective_viewers : float64[k]
        Equally active viewers worth as much (Kish): expected^2 / sum over viewers of expected^2, <= n_viewers.
    observed : float64[k]
        Sum of responses.
    expected : float64[k]
        Sum of expected responses, > 0.
    model_variance : float64[k]
        Sum of p * (1 - p): of ``observed``, were the rows independent and the expectations p true.
    viewer_variance : float64[k]
        Of ``observed`` as estimated between viewers: sum over viewers of (observed - ratio * expected)^2.
    """

    n: NDArray[np.float64]
    n_viewers: NDArray[np.float64]
    effective_viewers: NDArray[np.float64]
    observed: NDArray[np.float64]
    expected: NDArray[np.float64]
    model_variance: NDArray[np.float64]
    viewer_variance: NDArray[np.float64]

    @classmethod
    def running(
        cls,
        look: NDArray[np.intp],
        response: NDArray[np.float64],
        expected: NDArray[np.float64],
        viewer: NDArray[np.intp],
    ) -> ResponseSums:
        """Sum all rows up to and including each look.

        Parameters
        ----------
        look : int[n]
            0 .. k - 1, every number there, in any order of the rows.
        response : float64[n]
            In [0, 1].
        expected : float64[n]
            In (0, 1].
        viewer : int[n]
            Code of the viewer.

        Returns
        -------
        ResponseSums

        Examples
        --------
        >>> sums = ResponseSums.running(np.array([0, 1]), np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([0, 0]))
        >>> sums.observed, sums.expected, sums.n_viewers
        (array([1., 1.]), array([0.5, 1. ]), array([1., 1.]))
        """
        order = np.argsort(look, kind="stable")
        rows = pd.DataFrame({"observed": response[order], "expected": expected[order]})
        own = viewer[order]
        so_far = rows.groupby(own).cumsum()
        y, e = (so_far[name].to_numpy(dtype=np.float64) for name in ("observed", "expected"))
        y_before, e_before = y - rows["observed"].to_numpy(), e - rows["expected"].to_numpy()
        p = expected[order]
        last = np.append(np.flatnonzero(np.diff(look[order])), look.size - 1)

        def total(row_amount: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(np.cumsum(row_amount)[last])

        return cls._of(
            n=last + 1.0,
            n_viewers=total(np.asarray(~pd.Series(own).duplicated(), dtype=np.float64)),
            observed=total(response[order]),
            expected=total(p),
            model_variance=total(p * (1.0 - p)),
            # Sums over viewers of the products of their totals, kept up to date row by row.
            yy=total(y**2 - y_before**2),
            ye=total(y * e - y_before * e_before),
            ee=total(e**2 - e_before**2),
        )

    @classmethod
    def by_window(
        cls,
        window: NDArray[np.intp],
        response: NDArray[np.float64],
        expected: NDArray[np.float64],
        viewer: NDArray[np.intp],
    ) -> ResponseSums:
        """Sum the rows of each window.

        Parameters
        ----------
        window : int[n]
            0 .. k - 1, every number there.
        response, expected, viewer
            As in ``running``.

        Returns
        -------
        ResponseSums

        Examples
        --------
        >>> ones = np.ones(3)
        >>> ResponseSums.by_window(np.array([0, 1, 1]), ones, ones / 2, np.array([0, 0, 1])).observed
        array([1., 2.])
        """
        pair, of_pair = np.unique(np.stack([window, viewer]), axis=1, return_inverse=True)
        y, e = sum_by_group(of_pair, response), sum_by_group(of_pair, expected)
        return cls._of(
            n=sum_by_group(window, np.ones(window.size)),
            n_viewers=sum_by_group(pair[0], np.ones(y.size)),
            observed=sum_by_group(window, response),
            expected=sum_by_group(window, expected),
            model_variance=sum_by_group(window, expected * (1.0 - expected)),
            yy=sum_by_group(pair[0], y * y),
            ye=sum_by_group(pair[0], y * e),
            ee=sum_by_group(pair[0], e * e),
        )

    @classmethod
    def _of(
        cls,
        *,
        n: NDArray[np.float64],
        n_viewers: NDArray[np.float64],
        observed: NDArray[np.float64],
        expected: NDArray[np.float64],
        model_variance: NDArray[np.float64],
        yy: NDArray[np.float64],
        ye: NDArray[np.float64],
        ee: NDArray[np.float64],
    ) -> ResponseSums:
        ratio = observed / expected
        between = np.maximum(yy - 2.0 * ratio * ye + ratio**2 * ee, 0.0)
        # One viewer alone says nothing about the noise between viewers.
        unbiased = np.where(n_viewers > 1, n_viewers / np.maximum(n_viewers - 1.0, 1.0), 0.0)
        effective = expected**2 / ee
        return cls(n, n_viewers, effective, observed, expected, model_variance, between * unbiased)

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Observed / expected, float64[k]; 1 = as expected."""
        return self.observed / self.expected

    @property
    def dispersion(self) -> NDArray[np.float64]:
        """Variance of ``observed`` by that of independent rows, float64[k], at least 1."""
        independent = np.maximum(self.ratio * self.model_variance, 1e-300)
        return np.where(self.observed > 0, np.maximum(self.viewer_variance / independent, 1.0), 1.0)

    def always_valid(self, alpha: float, fit_error: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return an interval of the ratio that holds at all looks together.

        Parameters
        ----------
        alpha : float
            P(the true ratio is outside at any look, ever) is asymptotically at most alpha.
        fit_error : float
            Relative standard error of the level of the expectations, >= 0.

        Returns
        -------
        low, high : float64[k]
            low >= 0. 0 and infinity below 50 effective viewers: so few give no variance to rely on, and of
            looks at one or two very active viewers each some would exclude 1 by chance.

        Examples
        --------
        >>> look = np.repeat([0, 1], [2000, 6000])
        >>> sums = ResponseSums.running(look, np.tile([0.0, 1.0], 4000), np.full(8000, 0.5), np.arange(8000))
        >>> low, high = sums.always_valid(0.05, 0.0)
        >>> low.round(3), high.round(3)
        (array([0.931, 0.966]), array([1.069, 1.034]))
        """
        variance = np.maximum(self.viewer_variance, self.model_variance)
        half = boundary(variance + (fit_error * self.expected) ** 2, alpha)
        half = np.where(self.effective_viewers < MINIMUM_VIEWERS, np.inf, half)
        return np.maximum(self.observed - half, 0.0) / self.expected, (self.observed + half) / self.expected

    def score_interval(self, alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return an interval of each ratio for itself, one look planned in advance.

        Parameters
        ----------
        alpha : float
            P(the true ratio is outside).

        Returns
        -------
        low, high : float64[k]
            low >= 0, high > 0 even without a response.

        Notes
        -----
        The ratios R with (observed - R * expected)^2 <= z^2 * R * variance at R = 1: Rao's score interval of
        a Poisson ratio, its variance scaled by ``dispersion``.

        Examples
        --------
        >>> zero, p, viewer = np.zeros(100, dtype=int), np.full(100, 0.1), np.arange(100)
        >>> low, high = ResponseSums.by_window(zero, np.zeros(100), p, viewer).score_interval(0.05)
        >>> low.round(3), high.round(3)
        (array([0.]), array([0.346]))
        """
        spread = float(ndtri(1.0 - alpha / 2.0)) ** 2 * self.dispersion * self.model_variance / self.expected**2
        middle = self.ratio + spread / 2.0
        half = np.sqrt(np.maximum(middle**2 - self.ratio**2, 0.0))
        return np.maximum(middle - half, 0.0), middle + half


def boundary(variance: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Return what a sum of centred terms exceeds in absolute value, ever, with probability at most alpha.

    Parameters
    ----------
    variance : float64[...]
        Of the sum so far, >= 0.
    alpha : float
        In (0, 1).

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
    tightest at V = 1000, about 1000 expected responses: a change of some 10 % is decided there. It must not
    depend on the data.

    Examples
    --------
    >>> boundary(np.array([0.0, 1000.0, 100_000.0]), 0.05).round(1)
    array([  27. ,   96. , 1127.8])
    """
    tuning = PLANNED_RESPONSES / (-float(lambertw(-(alpha**2) / np.e, -1).real) - 1.0)
    return np.asarray(np.sqrt((variance + tuning) * np.log((variance + tuning) / (tuning * alpha**2))))
