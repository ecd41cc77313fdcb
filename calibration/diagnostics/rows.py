"""Predictions with their responses, checked once for every diagnostic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.errors import CalibrationError
from calibration.families import ResponseFamily

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class PredictionRows:
    """Rows with a prediction, a response and a positive weight.

    Parameters
    ----------
    prediction : float64[n]
        In units of the response.
    response : float64[n]
    weight : float64[n]
        Frequency weight, > 0: a row of weight 2 is the row twice.
    cluster : int[n] or None
        0, 1, 2, ...: rows of one cluster (viewer) may depend on each other. None = all rows are independent.
    n_left_out : int
        Rows whose prediction or response is NaN, or whose weight is 0.
    """

    prediction: NDArray[np.float64]
    response: NDArray[np.float64]
    weight: NDArray[np.float64]
    cluster: NDArray[np.intp] | None
    n_left_out: int

    @classmethod
    def checked(
        cls,
        probability: ArrayLike,
        label: ArrayLike,
        sample_weight: ArrayLike | None = None,
        cluster: ArrayLike | None = None,
        response: str = "binary",
    ) -> PredictionRows:
        """Check the rows and leave out those that cannot count.

        Parameters
        ----------
        probability : float[n]
            NaN = no prediction: left out.
        label : float[n]
            NaN = window still open: left out.
        sample_weight : float[n], optional
            Frequency weights >= 0; default 1.
        cluster : array[n], optional
            Of any sortable kind, not null. Default: all rows are independent.
        response : {"binary", "count", "continuous"}
            What predictions and labels may be: in [0, 1]; >= 0; any finite number.

        Returns
        -------
        PredictionRows

        Raises
        ------
        CalibrationError
            Unequal lengths, a value out of range (with its row), a null cluster, an unknown response, or no row left.

        Examples
        --------
        >>> rows = PredictionRows.checked([0.1, 0.2, float("nan")], [0, 1, 1], cluster=["b", "a", "a"])
        >>> rows.cluster, rows.n_left_out
        (array([1, 0]), 1)
        """
        family = ResponseFamily.named(response)
        predictions, labels = _floats("probability", probability), _floats("label", label)
        weights = np.ones(predictions.shape) if sample_weight is None else _floats("sample_weight", sample_weight)
        if predictions.ndim != 1 or not predictions.shape == labels.shape == weights.shape:
            raise CalibrationError(
                f"probability has shape {predictions.shape}, label {labels.shape}, "
                f"sample_weight {weights.shape}; they must be one-dimensional and equally long"
            )
        for name, values in (("probability", predictions), ("label", labels)):
            outside = (values < family.lowest) | (values > family.highest) | np.isinf(values)
            _refuse(name, values, outside, family.allowed)
        _refuse("sample_weight", weights, ~((weights >= 0) & np.isfinite(weights)), "finite and >= 0")
        codes = None if cluster is None else _codes(cluster, predictions.size)
        kept = ~np.isnan(predictions) & ~np.isnan(labels) & (weights > 0)
        n_kept = int(np.count_nonzero(kept))
        if n_kept == 0:
            raise CalibrationError("no row has a probability, a label and a positive weight")
        if codes is not None:
            codes = pd.factorize(codes[kept], sort=True)[0]
        return cls(predictions[kept], labels[kept], weights[kept], codes, kept.size - n_kept)

    @property
    def residual(self) -> NDArray[np.float64]:
        """Response less prediction, float64[n]."""
        return self.response - self.prediction

    @property
    def n(self) -> float:
        """Sum of the weights: the number of rows where there are none."""
        return float(self.weight.sum())

    @property
    def n_independent(self) -> float:
        """Number of clusters, or ``n`` where rows are independent."""
        return self.n if self.cluster is None else float(self.cluster.max() + 1)


def _floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} does not hold numbers: {error}") from error


def _refuse(name: str, values: NDArray[np.float64], wrong: NDArray[np.bool_], allowed: str) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CalibrationError(f"{name} must be {allowed}; row {first} has {values[first]}")


def _codes(cluster: ArrayLike, n: int) -> NDArray[np.intp]:
    values = pd.Series(cluster)
    if len(values) != n:
        raise CalibrationError(f"cluster has {len(values):,} values for {n:,} probabilities; pass one a row")
    null = values.isna().to_numpy()
    if null.any():
        raise CalibrationError(f"cluster must not be null; row {int(np.argmax(null))} is")
    return np.asarray(pd.factorize(values, sort=True)[0], dtype=np.intp)
