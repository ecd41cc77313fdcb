"""Where a raw score stands among the scores that its ranker gave: quantile bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def sum_by_group(group: NDArray[np.intp], amount: NDArray[np.float64], n_groups: int = 0) -> NDArray[np.float64]:
    """Return the sum of the amounts in each group.

    Parameters
    ----------
    group : int[n]
        0, 1, 2, ...
    amount : float64[n]
    n_groups : int
        At least so many sums, 0 for a group without rows.

    Returns
    -------
    float64[groups]

    Examples
    --------
    >>> sum_by_group(np.array([0, 2, 2]), np.array([1.0, 2.0, 3.0]))
    array([1., 0., 5.])
    """
    return np.asarray(np.bincount(group, amount, n_groups), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class QuantileTable:
    """Quantile bins of a raw score; equal scores always share a bin.

    A bin takes the distinct scores whose mid-rank quantile falls in one interval of a grid fixed beforehand, so
    a table depends on scores and weights only: not on the order of the rows, and a row of weight 2 is the
    row twice. ``lower`` and ``centre`` are scores that occurred, so a strictly increasing distortion of
    the scores distorts the table alike, bin by bin.

    Parameters
    ----------
    lower : float64[m]
        Smallest raw score of each bin, strictly increasing; m <= n_bins.
    centre : float64[m]
        The raw score at half of the bin's mass; lower[j] <= centre[j] < lower[j + 1].
    quantile : float64[m]
        Share of the mass below the bin plus half of its own, in (0, 1), strictly increasing.
    weight : float64[m]
        Mass of each bin, > 0: the number of rows where there are no weights.

    Examples
    --------
    >>> table = QuantileTable.fit([1.0, 2.0, 2.0, 8.0])
    >>> table.quantile
    array([0.125, 0.5  , 0.875])
    >>> table.at([2.0, 5.0, 100.0])
    array([0.5   , 0.6875, 0.875 ])
    """

    lower: NDArray[np.float64]
    centre: NDArray[np.float64]
    quantile: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {np.shape(column) for column in (self.lower, self.centre, self.quantile, self.weight)}
        if len(shapes) != 1 or self.lower.ndim != 1 or self.lower.size == 0:
            raise CalibrationError(f"the columns of a quantile table must be equally long; found {shapes}")
        in_order = np.all(self.lower <= self.centre) and np.all(self.centre[:-1] < self.lower[1:])
        if not (in_order and np.isfinite(self.lower[0]) and np.isfinite(self.centre[-1])):
            raise CalibrationError("the bins of a quantile table must be finite and strictly increasing")
        if not (np.all(np.diff(self.quantile) > 0) and self.quantile[0] > 0 and self.quantile[-1] < 1):
            raise CalibrationError("the quantiles of a table must increase strictly inside (0, 1)")
        if not np.all((self.weight > 0) & np.isfinite(self.weight)):
            raise CalibrationError("the weights of a quantile table must be finite and > 0")
        for column in (self.lower, self.centre, self.quantile, self.weight):
            column.setflags(write=False)

    @classmethod
    def fit(
        cls,
        raw_score: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        n_bins: int = 1000,
        tails: float = 0.0,
    ) -> QuantileTable:
        """Cut raw scores into bins by their quantile.

        Parameters
        ----------
        raw_score : float[n]
            Finite.
        sample_weight : float[n], optional
            Frequency weights > 0; default 1.
        n_bins : int
            At most so many bins; fewer where scores are tied or few.
        tails : float
            0: bins of equal mass. Otherwise this share of the bins, at most 1, is cut evenly in the log-odds of
            the quantile instead, which resolves the best and the worst scores.

        Returns
        -------
        QuantileTable

        Raises
        ------
        CalibrationError
            No row, a raw score that is not finite, a weight that is not finite and > 0, n_bins < 1, or tails
            outside [0, 1].
        """
        scores = np.asarray(raw_score, dtype=np.float64)
        weights = np.ones(scores.shape) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if scores.ndim != 1 or scores.size == 0 or scores.shape != weights.shape:
            raise CalibrationError(
                f"raw_score has shape {scores.shape}, sample_weight {weights.shape}; "
                "both must be one-dimensional, equally long and not empty"
            )
        if not np.isfinite(scores).all() or not ((weights > 0) & np.isfinite(weights)).all():
            raise CalibrationError("a quantile table needs finite raw scores and finite weights > 0")
        if n_bins < 1:
            raise CalibrationError(f"n_bins is {n_bins}; it must be at least 1")
        if not 0.0 <= tails <= 1.0:
            raise CalibrationError(f"tails is {tails}; it must be in [0, 1]")

        order = np.argsort(scores)
        ranked = scores[order]
        is_first = np.append(True, ranked[1:] > ranked[:-1])
        distinct = ranked[is_first]
        mass = np.add.reduceat(weights[order], np.flatnonzero(is_first))
        above = np.cumsum(mass)
        total = above[-1]
        place = (above - mass / 2) / total
        if tails > 0.0:
            place = np.clip(place, np.finfo(np.float64).tiny, 1.0 - np.finfo(np.float64).epsneg)
            widest = np.log(2.0 * max(total, 2.0))  # log-odds of half a row
            log_odds = np.clip((np.log(place) - np.log1p(-place)) / widest, -1.0, 1.0)
            place = (1.0 - tails) * place + tails * (log_odds + 1.0) / 2.0
        bin_of = np.minimum(place * n_bins, n_bins - 1).astype(np.intp)

        start = np.flatnonzero(np.append(True, bin_of[1:] > bin_of[:-1]))
        end = np.append(start[1:], distinct.size)
        bin_weight = np.add.reduceat(mass, start)
        middle = above[end - 1] - bin_weight / 2
        centre = distinct[np.clip(np.searchsorted(above, middle), start, end - 1)]
        # Weights that vanish beside the others would round to the quantiles 0 and 1.
        quantile = np.clip(middle / total, np.finfo(np.float64).tiny, 1.0 - np.finfo(np.float64).epsneg)
        return cls(distinct[start], centre, quantile, bin_weight)

    def assign(self, raw_score: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the bin of each raw score: the last one whose ``lower`` is not above it.

        Parameters
        ----------
        raw_score : float64[n]
            Not NaN. Below every bin is in the first.

        Returns
        -------
        int[n]
            In 0 .. m - 1. Unchanged when scores and table are distorted alike.
        """
        return np.asarray(np.searchsorted(self.lower[1:], raw_score, side="right"), dtype=np.intp)

    def at(self, raw_score: ArrayLike) -> NDArray[np.float64]:
        """Return the quantile of each raw score, interpolated between bin centres.

        Parameters
        ----------
        raw_score : float[n]
            NaN gives NaN.

        Returns
        -------
        float64[n]
            In (0, 1); flat outside the fitted range.
        """
        return np.asarray(np.interp(np.asarray(raw_score, np.float64), self.centre, self.quantile))
