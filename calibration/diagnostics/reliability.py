"""Predicted against observed, in bins of equal mass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from calibration.diagnostics.intervals import clopper_pearson_interval, t_interval, wilson_interval
from calibration.diagnostics.rows import PredictionRows
from calibration.errors import CalibrationError
from calibration.quantiles import QuantileTable, sum_by_group

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Interval = Literal["wilson", "clopper-pearson"]


def reliability_table(
    probability: ArrayLike,
    label: ArrayLike,
    n_bins: int = 10,
    sample_weight: ArrayLike | None = None,
    interval: str = "wilson",
    *,
    cluster: ArrayLike | None = None,
    response: str = "binary",
) -> pd.DataFrame:
    """Compare predicted with observed means in equal-mass bins of the prediction.

    Parameters
    ----------
    probability : float[n]
        Predictions (probabilities or expected responses), in units of the label; rows with NaN are left out.
    label : float[n]
        Rows with NaN (window still open) are left out.
    n_bins : int
        At most so many bins; equal predictions share one.
    sample_weight : float[n], optional
        Frequency weights >= 0; default 1.
    interval : {"wilson", "clopper-pearson"}
        Of a binary response: 95 % coverage on average over rates, or for every rate.
    cluster : array[n], optional
        Rows of one cluster (viewer) may depend on each other. Default: all rows are independent.
    response : {"binary", "count", "continuous"}
        Predictions and labels in [0, 1]; >= 0; any finite number. Other than binary, intervals are Student's t
        with the bin's own, robust, variance.

    Returns
    -------
    DataFrame
        One row per bin, by increasing prediction: lowest_prediction, mean_prediction, observed_rate (the mean
        label), interval_low, interval_high (95 %; NaN where a bin of a count or continuous response has fewer
        than two independent rows), n (sum of weights).

    Raises
    ------
    CalibrationError
        Unequal lengths, values out of range, an unknown option, or no row.

    Notes
    -----
    Clustered binary intervals take n / design effect for n. A bin's design effect is the cluster-robust variance of
    its rate over the variance of independent rows, at least 1; a bin of equal labels, which has neither variance,
    takes that of all bins together.

    References
    ----------
    Wilson (1927); Clopper and Pearson (1934). Kish (1965), "Survey sampling", section 8.2, for the design effect.

    Examples
    --------
    >>> reliability_table([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], n_bins=2)[["mean_prediction", "observed_rate"]]
       mean_prediction  observed_rate
    0              0.1            0.0
    1              0.9            1.0
    """
    if interval not in get_args(Interval):
        raise CalibrationError(f"unknown interval {interval!r}; known: {', '.join(get_args(Interval))}")
    rows = PredictionRows.checked(probability, label, sample_weight, cluster, response)
    table = QuantileTable.fit(rows.prediction, rows.weight, n_bins=n_bins)
    bins = table.assign(rows.prediction)
    n = sum_by_group(bins, rows.weight)
    observed = sum_by_group(bins, rows.weight * rows.response) / n
    deviation = rows.response - observed[bins]
    independent = sum_by_group(bins, rows.weight * deviation**2)
    clustered, n_independent = _cluster_squares(rows, bins, deviation, independent, n)
    if response == "binary":
        effective = n / _design_effect(clustered, independent)
        limits = wilson_interval if interval == "wilson" else clopper_pearson_interval
        low, high = limits(observed, effective)
    else:
        correction = n_independent / np.maximum(n_independent - 1.0, 1.0)
        low, high = t_interval(observed, correction * clustered / n**2, n_independent)
    return pd.DataFrame(
        {
            "lowest_prediction": table.lower,
            "mean_prediction": sum_by_group(bins, rows.weight * rows.prediction) / n,
            "observed_rate": observed,
            "interval_low": low,
            "interval_high": high,
            "n": n,
        }
    )


def _cluster_squares(
    rows: PredictionRows,
    bins: NDArray[np.intp],
    deviation: NDArray[np.float64],
    independent: NDArray[np.float64],
    n: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if rows.cluster is None:
        return independent, n
    m = n.size
    pair, of_row = np.unique(rows.cluster * m + bins, return_inverse=True)
    squares = sum_by_group(of_row, rows.weight * deviation) ** 2
    return sum_by_group(pair % m, squares, m), np.bincount(pair % m, minlength=m).astype(np.float64)


def _design_effect(clustered: NDArray[np.float64], independent: NDArray[np.float64]) -> NDArray[np.float64]:
    total = independent.sum()
    overall = clustered.sum() / total if total > 0 else 1.0
    varied = independent > 0
    effect = np.where(varied, clustered / np.where(varied, independent, 1.0), overall)
    return np.maximum(effect, 1.0)
