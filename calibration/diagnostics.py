"""Are the probabilities true? Predicted against observed, in bins of equal mass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.errors import CalibrationError
from calibration.quantiles import QuantileTable, sum_by_group

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Z_95 = 1.959963984540054


def reliability_table(
    probability: ArrayLike,
    label: ArrayLike,
    n_bins: int = 10,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare predicted with observed rates in equal-mass bins of the prediction.

    Parameters
    ----------
    probability : float[n]
        Predictions (probabilities or expected responses) in [0, 1]; rows with NaN are left out.
    label : float[n]
        In [0, 1]; rows with NaN (window still open) are left out.
    n_bins : int
        At most so many bins; equal predictions share one.
    sample_weight : float[n], optional
        Frequency weights >= 0; default 1.

    Returns
    -------
    DataFrame
        One row per bin, by increasing prediction: lowest_prediction, mean_prediction, observed_rate,
        interval_low, interval_high (95 %), n (sum of weights).

    Raises
    ------
    CalibrationError
        Unequal lengths, values out of range, or no row.

    Notes
    -----
    Intervals are Wilson's (1927) score intervals: they keep their coverage on small rates, where the usual
    rate +- 2 standard errors is far too short or below 0.

    Examples
    --------
    >>> reliability_table([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], n_bins=2)[["mean_prediction", "observed_rate"]]
       mean_prediction  observed_rate
    0              0.1            0.0
    1              0.9            1.0
    """
    predictions, labels, weights = _checked(probability, label, sample_weight)
    table = QuantileTable.fit(predictions, weights, n_bins=n_bins)
    bins = table.assign(predictions)
    n = sum_by_group(bins, weights)
    observed = sum_by_group(bins, weights * labels) / n
    low, high = wilson_interval(observed, n)
    return pd.DataFrame(
        {
            "lowest_prediction": table.lower,
            "mean_prediction": sum_by_group(bins, weights * predictions) / n,
            "observed_rate": observed,
            "interval_low": low,
            "interval_high": high,
            "n": n,
        }
    )


def expected_calibration_error(
    probability: ArrayLike,
    label: ArrayLike,
    n_bins: int = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the mean distance of predicted and observed rates over equal-mass bins.

    Parameters
    ----------
    probability, label, n_bins, sample_weight
        As in ``reliability_table``.

    Returns
    -------
    float
        In [0, 1], in units of probability: compare it with the base rate. Noise alone makes it positive,
        about sqrt(2 / pi) of a bin's standard error, so compare models on the same rows.

    Raises
    ------
    CalibrationError
        As in ``reliability_table``.

    References
    ----------
    Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning";
    Nguyen and O'Connor (2015) for bins of equal mass.

    Examples
    --------
    >>> round(expected_calibration_error([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], n_bins=2), 3)
    0.1
    """
    table = reliability_table(probability, label, n_bins, sample_weight)
    distance = (table["mean_prediction"] - table["observed_rate"]).abs()
    return float(np.average(distance, weights=table["n"]))


def wilson_interval(
    rate: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Wilson's 95 % score interval of a binomial rate.

    Parameters
    ----------
    rate : float64[m]
        Observed, in [0, 1].
    n : float64[m]
        Trials, > 0.

    Returns
    -------
    low, high : float64[m]
        In [0, 1].

    Examples
    --------
    >>> low, high = wilson_interval(np.array([0.0]), np.array([10.0]))
    >>> low.round(3), high.round(3)
    (array([0.]), array([0.278]))
    """
    shrinkage = 1.0 / (1.0 + Z_95**2 / n)
    centre = shrinkage * (rate + Z_95**2 / (2 * n))
    half_width = shrinkage * Z_95 * np.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2))
    return np.maximum(centre - half_width, 0.0), np.minimum(centre + half_width, 1.0)


def _checked(
    probability: ArrayLike, label: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    predictions = np.asarray(probability, dtype=np.float64)
    labels = np.asarray(label, dtype=np.float64)
    weights = np.ones(predictions.shape) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if predictions.ndim != 1 or not predictions.shape == labels.shape == weights.shape:
        raise CalibrationError(
            f"probability has shape {predictions.shape}, label {labels.shape}, "
            f"sample_weight {weights.shape}; they must be one-dimensional and equally long"
        )
    for name, values in (("probability", predictions), ("label", labels)):
        wrong = (values < 0) | (values > 1)
        if wrong.any():
            first = int(np.argmax(wrong))
            raise CalibrationError(f"{name} must be in [0, 1]; row {first} has {values[first]}")
    wrong = ~((weights >= 0) & np.isfinite(weights))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CalibrationError(f"sample_weight must be finite and >= 0; row {first} has {weights[first]}")
    kept = ~np.isnan(predictions) & ~np.isnan(labels) & (weights > 0)
    if not kept.any():
        raise CalibrationError("no row has a probability, a label and a positive weight")
    return predictions[kept], labels[kept], weights[kept]
