"""Calibration as a regression: responses on predictions, and their means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit, stdtrit

from calibration.diagnostics.clusters import Estimate, cluster_sums
from calibration.diagnostics.rows import PredictionRows
from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_STEPS = 100
SEPARATED = 1e-6  # nats in all: a single pair of labels in the wrong order costs more than 1


@dataclass(frozen=True)
class CalibrationLine:
    """Link of the expected response = intercept + slope * link of the prediction; calibrated: 0 and 1.

    Parameters
    ----------
    intercept, slope : Estimate
        With 95 % intervals.
    """

    intercept: Estimate
    slope: Estimate


def calibration_line(
    probability: ArrayLike,
    label: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    cluster: ArrayLike | None = None,
    response: str = "binary",
) -> CalibrationLine:
    """Regress responses on predictions: the calibration slope and intercept.

    Parameters
    ----------
    probability, label, sample_weight, cluster, response
        As in ``reliability_table``.

    Returns
    -------
    CalibrationLine
        On the scale of log-odds (binary), logarithms (count) or the response (continuous). A slope below 1 says
        that predictions are too extreme, above 1 that they are too timid. Intervals are Student's t with
        cluster-robust standard errors; NaN with a single cluster.

    Raises
    ------
    CalibrationError
        As in ``reliability_table``; a prediction of 0 or 1 (count: of 0), which has no link; equal predictions; equal
        labels (all 0 or all 1); or labels that predictions separate, where the slope is infinite.

    References
    ----------
    Cox (1958), "Two further applications of a model for binary regression", Biometrika 45; Liang and Zeger (1986),
    "Longitudinal data analysis using generalized linear models", Biometrika 73, for the standard errors.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> prediction = rng.uniform(0.05, 0.5, 50_000)
    >>> truth = expit(0.3 + 0.8 * logit(prediction))
    >>> line = calibration_line(prediction, rng.random(50_000) < truth)
    >>> round(line.intercept.estimate, 1), round(line.slope.estimate, 1)
    (0.3, 0.8)
    """
    rows = PredictionRows.checked(probability, label, sample_weight, cluster, response)
    link = _link(rows, response)
    middle = float(np.average(link, weights=rows.weight))
    spread = float(np.sqrt(np.average((link - middle) ** 2, weights=rows.weight)))
    if spread <= 1e-10 * max(1.0, abs(middle)):
        raise CalibrationError("the slope needs predictions that differ; all are equal")
    design = np.column_stack([np.ones(link.size), (link - middle) / spread])
    beta, information, residual = _fit(rows, design, response)
    inverse = np.linalg.inv(information)
    sums = cluster_sums(rows, design * residual[:, None]) @ inverse
    # From centred, scaled predictions back to intercept and slope.
    back = np.array([[1.0, -middle / spread], [0.0, 1.0 / spread]])
    intercept, slope = back @ beta
    variance = np.sum((sums @ back.T) ** 2, axis=0)
    return CalibrationLine(
        intercept=_estimate(float(intercept), float(variance[0]), rows.n_independent),
        slope=_estimate(float(slope), float(variance[1]), rows.n_independent),
    )


def calibration_in_the_large(
    probability: ArrayLike,
    label: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    cluster: ArrayLike | None = None,
    response: str = "binary",
) -> Estimate:
    """Compare the mean response with the mean prediction.

    Parameters
    ----------
    probability, label, sample_weight, cluster, response
        As in ``reliability_table``.

    Returns
    -------
    Estimate
        Binary and count: mean response / mean prediction, 1 where calibrated; the interval is that of the logarithm,
        NaN where all responses are 0. Continuous: mean response - mean prediction, 0 where calibrated.
        Intervals are Student's t with cluster-robust standard errors; NaN with a single cluster.

    Raises
    ------
    CalibrationError
        As in ``reliability_table``; or predictions that are all 0, to which nothing has a ratio.

    References
    ----------
    Van Calster et al. (2016), "A calibration hierarchy for risk models was defined", Journal of Clinical Epidemiology
    74, for mean calibration; the ratio's variance by the delta method.

    Examples
    --------
    >>> calibration_in_the_large([0.1, 0.3, 0.2, 0.4], [0, 1, 0, 1]).estimate
    2.0
    """
    rows = PredictionRows.checked(probability, label, sample_weight, cluster, response)
    if response == "continuous":
        difference = float(np.average(rows.residual, weights=rows.weight))
        spread = cluster_sums(rows, (rows.residual - difference)[:, None]) / rows.n
        return _estimate(difference, float(np.sum(spread**2)), rows.n_independent)
    predicted, observed = float(rows.weight @ rows.prediction), float(rows.weight @ rows.response)
    if predicted == 0.0:
        raise CalibrationError("all predictions are 0; the ratio of responses to predictions does not exist")
    ratio = observed / predicted
    if observed == 0.0:
        return Estimate(0.0, np.nan, np.nan)
    spread = cluster_sums(rows, (rows.response - ratio * rows.prediction)[:, None]) / observed
    log_ratio = _estimate(float(np.log(ratio)), float(np.sum(spread**2)), rows.n_independent)
    return Estimate(ratio, float(np.exp(log_ratio.low)), float(np.exp(log_ratio.high)))


def _link(rows: PredictionRows, response: str) -> Floats:
    if response == "continuous":
        return rows.prediction
    inside = rows.prediction > 0
    if response == "binary":
        inside &= rows.prediction < 1
    if not inside.all():
        first = float(rows.prediction[np.argmin(inside)])
        raise CalibrationError(
            f"the slope needs predictions {'> 0' if response == 'count' else 'inside (0, 1)'}; found {first}"
        )
    return np.asarray(np.log(rows.prediction) if response == "count" else logit(rows.prediction))


def _fit(rows: PredictionRows, design: Floats, response: str) -> tuple[Floats, Floats, Floats]:
    """Fit by Newton's method, halving steps that raise the loss; return beta, information and residuals."""
    if response == "continuous":
        information = design.T @ (rows.weight[:, None] * design)
        beta = np.asarray(np.linalg.solve(information, design.T @ (rows.weight * rows.response)), np.float64)
        return beta, information, rows.response - design @ beta

    mean = float(np.average(rows.response, weights=rows.weight))
    if mean == 0.0 or (response == "binary" and mean == 1.0):
        raise CalibrationError(f"the slope needs labels that differ; all are {mean:g}")
    start = np.log(mean) if response == "count" else logit(mean)
    beta = np.array([start, 0.0])
    loss = _loss(rows, design @ beta, response)
    for _ in range(N_STEPS):
        eta = design @ beta
        fitted = np.exp(eta) if response == "count" else expit(eta)
        variance = fitted if response == "count" else fitted * (1.0 - fitted)
        residual = rows.response - fitted
        information = design.T @ ((rows.weight * variance)[:, None] * design)
        gradient = design.T @ (rows.weight * residual)
        if np.linalg.cond(information) > 1e12:
            break
        step = np.linalg.solve(information, gradient)
        if float(gradient @ step) <= 1e-16 * max(1.0, rows.n):
            if response == "binary" and loss < SEPARATED:
                break
            return beta, information, residual
        trial = _loss(rows, design @ (beta + step), response)
        while not trial <= loss and np.abs(step).max() > 1e-12:
            step = step / 2.0
            trial = _loss(rows, design @ (beta + step), response)
        beta, loss = np.asarray(beta + step, np.float64), trial
    raise CalibrationError("the slope is infinite: predictions separate the labels")


def _loss(rows: PredictionRows, eta: Floats, response: str) -> float:
    with np.errstate(over="ignore"):
        partition = np.exp(eta) if response == "count" else np.logaddexp(0.0, eta)
        return float(rows.weight @ (partition - rows.response * eta))


def _estimate(centre: float, variance: float, n_independent: float) -> Estimate:
    if n_independent <= 1:
        return Estimate(centre, np.nan, np.nan)
    correction = n_independent / (n_independent - 1.0)
    half_width = float(stdtrit(n_independent - 1.0, 0.975)) * float(np.sqrt(variance * correction))
    return Estimate(centre, centre - half_width, centre + half_width)
