"""Smooth calibration error: the calibration error without bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.diagnostics.clusters import Estimate, draw_noise
from calibration.diagnostics.inversion import invert_norm
from calibration.diagnostics.rows import PredictionRows
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_DRAWS, DRAWS_AT_ONCE = 400, 50
SMALLEST_GRID, LARGEST_GRID = 2**10, 2**20
CELLS_PER_BANDWIDTH, THINNING = 16, 4


def smooth_calibration_error(
    probability: ArrayLike,
    label: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    cluster: ArrayLike | None = None,
    seed: int = 0,
) -> Estimate:
    """Return SmoothECE with a 95 % interval: the mean distance of predicted and observed rates, smoothed.

    Parameters
    ----------
    probability, label : float[n]
        In [0, 1]; rows with NaN are left out.
    sample_weight : float[n], optional
        Frequency weights >= 0; default 1.
    cluster : array[n], optional
        Rows of one cluster (viewer) may depend on each other. Default: all rows are independent.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Estimate
        In [0, 1], in units of probability. The estimate is the published one, noise included; the interval is of
        the error without the noise, widened to hold the estimate.

    Raises
    ------
    CalibrationError
        Unequal lengths, values out of range, or no row.

    Notes
    -----
    Residuals (label - probability) are smoothed along the prediction by a Gaussian kernel reflected at 0 and 1; the
    error at bandwidth s is the integral of the absolute value, and SmoothECE is the s that equals its own error.
    There is no parameter; small changes of the predictions change it little, unlike the error in bins. Residuals are
    summed on a grid of at least 16 cells a bandwidth, where the kernel is diagonal in cosines.

    The interval is ``invert_norm``'s of the error at bandwidth s, s the estimate, stretched to s. That suffices: the
    error falls with the bandwidth, so a true SmoothECE below s is at least the true error at s, one above at most.

    References
    ----------
    Blasiok and Nakkiran (2024), "Smooth ECE: principled reliability diagrams via kernel smoothing", ICLR,
    definitions 5 to 7.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.uniform(0.1, 0.3, 20_000)
    >>> error = smooth_calibration_error(truth + 0.05, rng.random(20_000) < truth)
    >>> round(error.estimate, 3), error.low < 0.05 < error.high
    (0.05, True)
    """
    rows = PredictionRows.checked(probability, label, sample_weight, cluster)
    n_cells, bandwidth, spectrum = SMALLEST_GRID, 0.0, np.empty(0)
    while True:
        cell, share = _split(rows.prediction, n_cells)
        amount = share * (rows.weight * rows.residual / rows.n)[:, None]
        spectrum = _cosines(sum_by_group(cell.ravel(), amount.ravel(), n_cells))
        bandwidth = _fixed_point(spectrum)
        needed = n_cells if bandwidth == 0 else 2 ** int(np.ceil(np.log2(CELLS_PER_BANDWIDTH / bandwidth)))
        if needed <= n_cells or n_cells == LARGEST_GRID:
            break
        n_cells = min(needed, LARGEST_GRID)

    smooth = _thinned(spectrum, bandwidth)
    nearest = np.minimum((rows.prediction * n_cells).astype(np.intp), n_cells - 1)
    rng = np.random.default_rng(seed)
    draws = (draw_noise(rows, nearest, n_cells, DRAWS_AT_ONCE, rng) for _ in range(N_DRAWS // DRAWS_AT_ONCE))
    noise = np.concatenate([_thinned(_cosines(some / rows.n), bandwidth) for some in draws])
    limits = invert_norm(smooth, noise)
    return Estimate(bandwidth, min(limits.low, bandwidth), max(limits.high, bandwidth))


def _split(prediction: Floats, n_cells: int) -> tuple[NDArray[np.intp], Floats]:
    """Share each row between the two nearest cells, so that sums keep their mean place."""
    place = prediction * n_cells - 0.5
    below = np.floor(place).astype(np.intp)
    upper = place - below
    cell = np.clip(np.stack([below, below + 1], axis=1), 0, n_cells - 1)
    return cell, np.stack([1.0 - upper, upper], axis=1)


def _cosines(sums: Floats) -> Floats:
    from scipy.fft import dct

    return np.asarray(dct(sums, type=2, norm="ortho", axis=-1))


def _smoothed(spectrum: Floats, bandwidth: float) -> Floats:
    from scipy.fft import idct

    # Cosines of half periods are what reflection at 0 and 1 leaves unchanged; a Gaussian only dampens them.
    damping = np.exp(-0.5 * (np.pi * bandwidth * np.arange(spectrum.shape[-1])) ** 2)
    return np.asarray(idct(spectrum * damping, type=2, norm="ortho", axis=-1))


def _thinned(spectrum: Floats, bandwidth: float) -> Floats:
    """Return every fourth cell for four: a smooth function needs no more, and the bootstrap keeps many."""
    return _smoothed(spectrum, bandwidth)[..., THINNING // 2 :: THINNING] * THINNING


def _fixed_point(spectrum: Floats) -> float:
    """Find the bandwidth that equals its own error; the error falls with it, so there is one."""
    low, high = 0.0, 1.0
    while high - low > 1e-9 + 1e-7 * high:
        middle = (low + high) / 2.0
        if float(np.abs(_smoothed(spectrum, middle)).sum()) > middle:
            low = middle
        else:
            high = middle
    return low
