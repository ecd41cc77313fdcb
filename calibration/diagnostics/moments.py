"""A test of calibration: residuals must sum to nothing, wherever predictions lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import fdtrc

from calibration.diagnostics.clusters import binned_covariance
from calibration.diagnostics.rows import PredictionRows
from calibration.errors import CalibrationError
from calibration.quantiles import QuantileTable, sum_by_group

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationTest:
    """Outcome of ``calibration_test``.

    Parameters
    ----------
    statistic : float
        Hotelling's T squared scaled to F, >= 0.
    degrees_of_freedom : int
        Moments tested: of the numerator of F.
    residual_degrees_of_freedom : float
        Independent clusters (or rows) less moments: of the denominator.
    p_value : float
        In [0, 1]: the probability of such a statistic where predictions are calibrated.
    """

    statistic: float
    degrees_of_freedom: int
    residual_degrees_of_freedom: float
    p_value: float


def calibration_test(
    probability: ArrayLike,
    label: ArrayLike,
    n_bins: int = 5,
    sample_weight: ArrayLike | None = None,
    *,
    cluster: ArrayLike | None = None,
    response: str = "binary",
) -> CalibrationTest:
    """Test whether predictions are calibrated: E(label | prediction) = prediction.

    Parameters
    ----------
    probability, label, sample_weight, cluster, response
        As in ``reliability_table``.
    n_bins : int
        At most so many bins, one moment each. Few make the test powerful against a shift or a wrong slope, many
        against waves.

    Returns
    -------
    CalibrationTest

    Raises
    ------
    CalibrationError
        As in ``reliability_table``, or no more independent clusters (rows) than bins.

    Notes
    -----
    The moments are the sums of residuals in bins that hold equal shares of the expected variance: p (1 - p) a row for
    a binary response, p for a count, 1 for a continuous one. At small rates bins of equal numbers of rows would
    leave the lowest ones hardly a response. Sums over clusters are independent of mean 0 where predictions are
    calibrated, and the covariance of their total is estimated from themselves, with no model of the dependence. Of a
    binary response the variance of a row is known under calibration, p (1 - p): the estimate only gives the bins'
    design effects and correlations (labels between 0 and 1 vary less, which makes the test conservative). The
    statistic is referred to Hotelling's distribution, which allows for the estimate's own noise with few clusters.

    References
    ----------
    Hosmer and Lemeshow (1980), "Goodness of fit tests for the multiple logistic regression model", Communications in
    Statistics A9, for the binned sums; Hotelling (1931), "The generalization of Student's ratio", Annals of
    Mathematical Statistics 2; Boos (1992), "On generalized score tests", American Statistician 46.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.uniform(0.1, 0.3, 20_000)
    >>> label = rng.random(20_000) < truth
    >>> calibration_test(truth, label).p_value > 0.05, calibration_test(1.1 * truth, label).p_value < 0.001
    (True, True)
    """
    rows = PredictionRows.checked(probability, label, sample_weight, cluster, response)
    variance = _expected_variance(rows, response)
    # A row with no variance to expect (prediction 0 or 1) still belongs to a bin.
    least = max(1e-12 * float(variance.max()), float(np.finfo(np.float64).tiny))
    mass = rows.weight * np.maximum(variance, least)
    bins = QuantileTable.fit(rows.prediction, mass, n_bins=n_bins).assign(rows.prediction)
    total = sum_by_group(bins, rows.weight * rows.residual)
    covariance = binned_covariance(rows, bins, rows.residual)
    if response == "binary":
        # The spread of rare labels rises and falls with their number, which skews the test: take the spread
        # that calibrated predictions have, and of the labels only how rows depend on each other.
        drawn = sum_by_group(bins, rows.weight * rows.residual**2)
        expected = sum_by_group(bins, rows.weight * variance)
        # Certain predictions expect no spread; refuted ones are left their own.
        scale = np.sqrt(np.where((drawn > 0) & (expected > 0), expected / np.where(drawn > 0, drawn, 1.0), 1.0))
        covariance *= np.outer(scale, scale)
    statistic, q = _quadratic_form(total, covariance)
    n = rows.n_independent
    if n <= q:
        raise CalibrationError(
            f"the test needs more than {q} independent clusters or rows for its {q} bins; found {n:g}"
        )
    if q == 0:
        return CalibrationTest(0.0, 0, n, 1.0)
    ratio = (n - q + 1.0) / (n * q) * statistic
    return CalibrationTest(ratio, q, n - q + 1.0, float(fdtrc(q, n - q + 1.0, ratio)))


def _expected_variance(rows: PredictionRows, response: str) -> Floats:
    if response == "binary":
        return rows.prediction * (1.0 - rows.prediction)
    return rows.prediction if response == "count" else np.ones(rows.prediction.size)


def _quadratic_form(total: Floats, covariance: Floats) -> tuple[float, int]:
    """Return total' covariance^+ total and the rank of the covariance."""
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = values > 1e-10
    along = vectors.T[kept] @ (total / scale)
    return float(np.sum(along**2 / values[kept])), int(np.count_nonzero(kept))
