"""Generalised linear models whose slopes are non-negative: monotone in whatever their columns increase in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.binned import BinnedResponses
    from calibration.families import ResponseFamily

    Floats = NDArray[np.float64]

MOST_NEWTON_STEPS = 50


def fit_non_negative(design: Floats, penalty: Floats, binned: BinnedResponses, family: ResponseFamily) -> Floats:
    """Fit responses by an intercept and slopes >= 0, with a quadratic penalty on the slopes.

    Parameters
    ----------
    design : float64[m, k]
        A row per bin; every column non-decreasing.
    penalty : float64[k, k]
        Positive definite; slopes @ penalty @ slopes / 2 is added to the loss, so it counts in rows.
    binned : BinnedResponses
        The m bins, with a response total strictly inside the family's range.
    family : ResponseFamily

    Returns
    -------
    float64[m]
        Expected responses, non-decreasing, inside the family's range.

    Notes
    -----
    Each Newton step solves its quadratic model under the bounds exactly, as non-negative least squares with
    the intercept swept out. It takes about eight steps of 0.1 ms; scipy's L-BFGS-B takes three times as many,
    and each calls triangular solvers that OpenBLAS spreads over all threads (5 ms a step on a busy machine).

    Examples
    --------
    >>> from calibration.binned import BinnedResponses
    >>> from calibration.families import BINARY
    >>> from calibration.rows import CalibrationRows
    >>> binned = BinnedResponses.of(CalibrationRows.checked([0.0, 1, 2, 3], [0, 1, 0, 1]))
    >>> fit_non_negative(np.arange(4.0)[:, None], 0.01 * np.eye(1), binned, BINARY).round(2)
    array([0.21, 0.39, 0.61, 0.79])
    """
    from scipy.optimize import nnls  # here, so that serving does not import scipy.optimize

    responses, exposure = binned.responses, binned.exposure

    def penalised_loss(intercept: float, slopes: Floats) -> float:
        loss = family.loss(intercept + design @ slopes, responses, exposure)
        return float(loss.sum() + slopes @ penalty @ slopes / 2)

    intercept = float(family.link(responses.sum() / exposure.sum()))
    slopes = np.zeros(design.shape[1])
    loss = penalised_loss(intercept, slopes)
    for _ in range(MOST_NEWTON_STEPS if slopes.size else 0):
        mean = family.mean(intercept + design @ slopes)
        information = exposure * family.variance(mean)
        residual = responses - exposure * mean
        centred = design - information @ design / information.sum()
        hessian = (centred.T * information) @ centred + penalty
        root = np.linalg.cholesky(hessian)
        target = hessian @ slopes + residual @ centred - penalty @ slopes
        step = nnls(root.T, np.linalg.solve(root, target))[0] - slopes
        intercept_step = float((residual.sum() - information @ (design @ step)) / information.sum())

        size, previous = 1.0, loss
        while not (loss := penalised_loss(intercept + size * intercept_step, slopes + size * step)) <= previous:
            size /= 2
            if size < 1e-8:
                break
        else:
            intercept, slopes = intercept + size * intercept_step, slopes + size * step
            if previous - loss > 1e-12 * abs(loss):
                continue
        break
    return np.maximum.accumulate(family.mean(intercept + design @ slopes))
