"""Response rates of places relative to the first place, compared within strata, steady on small logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError
from calibration.forms.isotonic import pool_adjacent_violators
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_PASSES = 2000


@dataclass(frozen=True, eq=False)
class PlaceCounts:
    """What was shown and what was answered, summed over rows that share stratum, place and viewer.

    Parameters
    ----------
    cell : int[m]
        stratum * n_places + place.
    exposure : float64[m]
        Weighted showings, >= 0.
    responses : float64[m]
        Weighted responses, >= 0.
    viewer : int[m]
        0, 1, 2, ...: what ``bootstrap`` draws.
    n_places : int
    place_name : str
        What a place is called in errors.

    Examples
    --------
    >>> counts = PlaceCounts.of(np.repeat([0, 1], 100), np.zeros(200, np.intp), np.ones(200),
    ...                         np.concatenate([np.arange(100) < 20, np.arange(100) < 10]), np.arange(200))
    >>> counts.relative().round(1)
    array([1. , 0.5])
    """

    cell: NDArray[np.intp]
    exposure: NDArray[np.float64]
    responses: NDArray[np.float64]
    viewer: NDArray[np.intp]
    n_places: int
    place_name: str = "place"

    @classmethod
    def of(
        cls,
        place: NDArray[np.intp],
        stratum: NDArray[np.intp],
        exposure: NDArray[np.float64],
        responses: NDArray[np.float64],
        viewer: NDArray[np.intp],
        place_name: str = "place",
    ) -> PlaceCounts:
        """Sum rows.

        Parameters
        ----------
        place, stratum, viewer : int[n]
            >= 0.
        exposure, responses : float64[n]
            >= 0.
        place_name : str

        Returns
        -------
        PlaceCounts
        """
        n_places = int(place.max()) + 1
        n_cells = (int(stratum.max()) + 1) * n_places
        key, group = np.unique(viewer * n_cells + stratum * n_places + place, return_inverse=True)
        return cls(
            key % n_cells,
            sum_by_group(group, exposure),
            sum_by_group(group, np.asarray(responses, dtype=np.float64)),
            key // n_cells,
            n_places,
            place_name,
        )

    def relative(self) -> NDArray[np.float64]:
        """Estimate the rates relative to the first place.

        Returns
        -------
        float64[n_places]
            1 at place 0, non-increasing, > 0. A place without rows takes the value of the last one that has some.

        Raises
        ------
        CalibrationError
            No row at place 0, or no response at all.

        Notes
        -----
        Model: responses ~ Poisson(exposure * rate_stratum * relative_place), relative non-increasing. The rates
        of the strata are profiled out, which for Poisson counts is the conditional likelihood given each
        stratum's total (Hausman, Hall and Griliches 1984, section 2), so many small strata do no harm, and the
        answer is consistent when only this mean holds. The relative rates have a gamma prior whose mean is the
        smooth curve (1 + k)^-a * exp(-b k - c k^3), a, b, c >= 0 at their penalised maximum likelihood, and whose size,
        in responses, is judged by the negative binomial likelihood of the places' totals (empirical Bayes): where a
        place has many more responses than that, the data decide; where it has few, the curve does.
        """
        return self._relative(self.exposure, self.responses, None, 1e-10)

    def bootstrap(self, n_resamples: int, seed: int) -> NDArray[np.float64]:
        """Estimate anew on reweighted viewers.

        Parameters
        ----------
        n_resamples : int
            At least 2.
        seed : int

        Returns
        -------
        float64[n_resamples, n_places]

        Raises
        ------
        CalibrationError
            Fewer than two viewers or resamples.

        Notes
        -----
        Each viewer gets an exponential weight (Rubin 1981, "The Bayesian bootstrap"): all the rows of a viewer
        stay together, and no place loses all of its rows, as drawing with replacement would have it on small logs.
        """
        n_viewers = int(self.viewer.max()) + 1
        if n_viewers < 2 or n_resamples < 2:
            raise CalibrationError(
                f"intervals need at least 2 viewers and 2 resamples; found {n_viewers} and {n_resamples}"
            )
        rng = np.random.default_rng(seed)
        start = self.relative()
        draws = np.empty((n_resamples, self.n_places))
        for draw in draws:
            weight = rng.exponential(size=n_viewers)[self.viewer]
            draw[:] = self._relative(self.exposure * weight, self.responses * weight, start, 1e-4)
        return draws

    def _relative(
        self,
        exposure: NDArray[np.float64],
        responses: NDArray[np.float64],
        start: NDArray[np.float64] | None,
        tolerance: float,
    ) -> NDArray[np.float64]:
        n = sum_by_group(self.cell, exposure, int(self.cell.max()) + 1)
        n = np.append(n, np.zeros(-n.size % self.n_places)).reshape(-1, self.n_places)
        y = sum_by_group(self.cell, responses, n.size).reshape(n.shape)
        seen = n.sum(axis=0) > 0
        if not seen[0]:
            raise CalibrationError(f"no row at {self.place_name} 0, the reference; examination is relative to it")
        informative = y.sum(axis=1) > 0  # a stratum without a response has rate 0, whatever the places
        if not informative.any():
            raise CalibrationError(
                f"no response at any {self.place_name}, so examination cannot be estimated; "
                "use constant() for no correction"
            )
        n, y = n[np.ix_(informative, seen)], y[np.ix_(informative, seen)]
        prior = _smooth_curve(np.flatnonzero(seen).astype(np.float64), n, y)
        size = _prior_size(y.sum(axis=0), _expected(n, y, prior) * prior)
        relative = prior if start is None else start[seen]
        for _ in range(_MAX_PASSES):
            expected = _expected(n, y, relative)
            updated = _non_increasing(y.sum(axis=0) + size, expected + size / prior)
            change = np.max(np.abs(updated / updated[0] - relative / relative[0]))
            relative = updated
            if change < tolerance:
                break
        return np.asarray((relative / relative[0])[np.cumsum(seen) - 1])


def _expected(n: NDArray[np.float64], y: NDArray[np.float64], relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """Responses that a place would have at relative rate 1."""
    rate = y.sum(axis=1) / (n @ relative)
    return np.asarray(rate @ n)


def _non_increasing(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    return -pool_adjacent_violators(-observed / expected, expected)


def _smooth_curve(place: NDArray[np.float64], n: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit (1 + k)^-a * exp(-b k - c k^3); the half-normal penalties keep few responses near no correction."""
    from scipy.optimize import minimize  # here, so that serving does not import scipy.optimize

    depth = place / max(place[-1], 1.0)
    basis = np.column_stack((np.log1p(place), depth, depth**3))
    at_place, at_stratum = y.sum(axis=0), y.sum(axis=1)
    total = at_stratum.sum()

    def loss(slope: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        decline = basis @ slope
        shown = n * np.exp(-decline)
        mass = shown.sum(axis=1)
        value = at_place @ decline + at_stratum @ np.log(mass) + 0.5 * slope @ slope
        gradient = at_place @ basis - ((at_stratum / mass) @ shown) @ basis + slope
        return float(value / total), gradient / total

    slope = minimize(loss, np.full(3, 0.1), jac=True, method="L-BFGS-B", bounds=[(0.0, 20.0)] * 3).x
    return np.asarray(np.exp(-(basis @ slope)))


def _prior_size(observed: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    """Return the prior's weight, in responses: one over the mean of its variance, over a grid by likelihood."""
    from scipy.special import gammaln

    size = np.geomspace(1.0, 1e4, 33)[:, None]
    likelihood = (
        gammaln(observed + size) - gammaln(size) - (observed + size) * np.log(size + mean) + size * np.log(size)
    ).sum(axis=1)
    weight = np.exp(likelihood - likelihood.max())
    return float(weight.sum() / (weight / size[:, 0]).sum())
