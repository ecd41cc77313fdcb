"""Log-linear curve: the log-odds of a response as a non-negative sum of increasing transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.quantiles import QuantileTable

Transforms = Literal["all", "rank"]

RIDGE = 1.0
"""Prior precision of a standardised coefficient, in units of rows: it bounds the fit on separable rows."""

MOST_NEWTON_STEPS = 50

LARGEST_LOG_ODDS = 30.0
"""Beyond it 1 - probability loses its last digits in float64."""


def expit(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities strictly inside (0, 1).

    Parameters
    ----------
    log_odds : float64[...]

    Returns
    -------
    float64[...]

    Examples
    --------
    >>> expit(np.array([0.0]))
    array([0.5])
    """
    bounded = np.clip(log_odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)))


def logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds.

    Parameters
    ----------
    probability : float64[...]
        Inside (0, 1).

    Returns
    -------
    float64[...]

    Examples
    --------
    >>> logit(np.array([0.5]))
    array([0.])
    """
    return np.asarray(np.log(probability) - np.log1p(-probability))


def binned_log_loss(
    log_odds: NDArray[np.float64], positives: NDArray[np.float64], exposure: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the log loss of each bin, summed over its rows.

    Parameters
    ----------
    log_odds : float64[m]
        Of the expected response at the reference position.
    positives, exposure : float64[m]
        Weighted sums of response and of examination.

    Returns
    -------
    float64[m]

    Notes
    -----
    exposure * log(1 + exp(log_odds)) - positives * log_odds: the Bernoulli log loss of ``exposure`` trials.
    A row examined with relative probability e counts as e trials. The loss is convex, and its gradient
    exposure * p - positives has mean 0 at the truth, since E[response] = e * p: the estimate is consistent
    at the reference position, and positives / exposure is its answer for a free bin. With e = 1 it is the
    ordinary log loss.

    Examples
    --------
    >>> binned_log_loss(np.array([0.0]), np.array([1.0]), np.array([2.0])).round(4)
    array([1.3863])
    """
    return np.asarray(exposure * np.logaddexp(0.0, log_odds) - positives * log_odds)


def fit_loglinear(
    table: QuantileTable,
    positives: NDArray[np.float64],
    exposure: NDArray[np.float64],
    transforms: Transforms = "rank",
) -> NDArray[np.float64]:
    """Fit the log-odds of a response by non-negative coefficients on increasing transforms.

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them.
    positives : float64[m]
        Weighted sum of responses.
    exposure : float64[m]
        Weighted sum of examinations. A bin with 0 is only predicted.
    transforms : {"rank", "all"}
        ``"rank"``: of the quantile q only, log q, -log(1 - q) and the normal deviate of q; their sums bend
        as the log-odds of q, an exponential tail or a bell do, and depend on ranks alone. ``"all"``: also
        the score s, asinh s, and where its range allows log(1 + s), sqrt s, log s and -log(1 - s).

    Returns
    -------
    float64[m]
        Expected responses, non-decreasing, inside (0, 1).

    Notes
    -----
    A log-linear regression of the response rate on quantiles follows the LinkedIn SPR post; the
    non-negative coefficients make it monotone, the logistic link keeps it inside (0, 1).

    Examples
    --------
    >>> from calibration.quantiles import QuantileTable
    >>> table = QuantileTable.fit(np.arange(4.0))
    >>> bool(np.all(np.diff(fit_loglinear(table, np.array([0.0, 1, 1, 2]), np.full(4, 9.0))) > 0))
    True
    """
    design = _increasing_transforms(table, transforms)
    intercept, slopes = _non_negative_newton(design, positives, exposure)
    return np.maximum.accumulate(expit(intercept + design @ slopes))


def _non_negative_newton(
    design: NDArray[np.float64], positives: NDArray[np.float64], exposure: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and slopes >= 0 that minimise the penalised log loss.

    Each Newton step solves its quadratic model under the bounds exactly, as non-negative least squares with
    the intercept swept out. It takes about eight steps of 0.1 ms; scipy's L-BFGS-B takes three times as many,
    and each calls triangular solvers that OpenBLAS spreads over all threads (5 ms a step on a busy machine).
    """
    from scipy.optimize import nnls  # here, so that serving does not import scipy.optimize

    def penalised_loss(intercept: float, slopes: NDArray[np.float64]) -> float:
        loss = binned_log_loss(intercept + design @ slopes, positives, exposure)
        return float(loss.sum() + RIDGE / 2 * (slopes @ slopes))

    total = exposure.sum()
    intercept = float(np.log(positives.sum()) - np.log(total - positives.sum()))
    slopes = np.zeros(design.shape[1])
    loss = penalised_loss(intercept, slopes)
    for _ in range(MOST_NEWTON_STEPS):
        probability = expit(intercept + design @ slopes)
        information = exposure * probability * (1.0 - probability)
        residual = positives - exposure * probability
        centred = design - information @ design / information.sum()
        hessian = (centred.T * information) @ centred + RIDGE * np.eye(slopes.size)
        root = np.linalg.cholesky(hessian)
        target = hessian @ slopes + residual @ centred - RIDGE * slopes
        step = nnls(root.T, np.linalg.solve(root, target))[0] - slopes if slopes.size else slopes
        intercept_step = float((residual.sum() - information @ (design @ step)) / information.sum())

        size, previous = 1.0, loss
        while (loss := penalised_loss(intercept + size * intercept_step, slopes + size * step)) > previous:
            size /= 2
            if size < 1e-8:
                return intercept, slopes
        intercept, slopes = intercept + size * intercept_step, slopes + size * step
        if previous - loss <= 1e-12 * abs(loss):
            break
    return intercept, slopes


def _increasing_transforms(table: QuantileTable, transforms: Transforms) -> NDArray[np.float64]:
    """Columns of the design, float64[m, k], increasing in the score, mean 0 and variance 1 over the rows."""
    from scipy.special import ndtri  # here, so that serving does not import scipy.special

    columns = [np.log(table.quantile), -np.log1p(-table.quantile), ndtri(table.quantile)]
    if transforms == "all":
        score = table.centre
        # Extreme scores may overflow here; a column that is not finite is left out below.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            quarter, half, three_quarters = np.interp([0.25, 0.5, 0.75], table.quantile, score)
            spread = (three_quarters - quarter) or np.ptp(score) or 1.0
            standardised = (score - half) / spread
            columns += [standardised, np.arcsinh(standardised)]
            if score[0] >= 0.0:
                columns += [np.log1p(score), np.sqrt(score)]
                if score[-1] <= 1.0:
                    inside = np.clip(score, 1e-9, 1.0 - 1e-9)
                    columns += [np.log(inside), -np.log1p(-inside)]
    return _standardise(np.column_stack(columns), table.weight)


def _standardise(columns: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        centred = columns - np.average(columns, axis=0, weights=weight)
        deviation = np.sqrt(np.average(centred**2, axis=0, weights=weight))
        varies = np.isfinite(deviation) & (deviation > 1e-9 * np.abs(columns).max(axis=0))
    return np.asarray(centred[:, varies] / deviation[varies])
