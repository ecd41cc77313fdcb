"""Sums over rows that depend on each other within a cluster: their covariance, and noise of the same law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.diagnostics.rows import PredictionRows

_DRAWS_AT_ONCE = 50


@dataclass(frozen=True)
class Estimate:
    """An estimate with its confidence interval.

    Parameters
    ----------
    estimate, low, high : float
        low <= estimate <= high; NaN where the data cannot tell.
    """

    estimate: float
    low: float
    high: float


def cluster_sums(rows: PredictionRows, amount: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum weighted amounts within clusters, scaled so that the squares sum to the variance of the total.

    Parameters
    ----------
    rows : PredictionRows
    amount : float64[n, q]
        Per row, of mean 0 under the model whose variance is wanted.

    Returns
    -------
    float64[c, q]
        One row per cluster, or per row where rows are independent: there a row of weight w stands for w rows and
        carries sqrt(w), so that weights equal repetition.

    Examples
    --------
    >>> from calibration.diagnostics.rows import PredictionRows
    >>> rows = PredictionRows.checked([0.5, 0.5, 0.5], [0, 1, 1], cluster=[7, 8, 8])
    >>> cluster_sums(rows, rows.residual[:, None]).ravel()
    array([-0.5,  1. ])
    """
    if rows.cluster is None:
        return np.asarray(np.sqrt(rows.weight)[:, None] * amount)
    return np.column_stack([sum_by_group(rows.cluster, rows.weight * column) for column in amount.T])


def draw_noise(
    rows: PredictionRows,
    cell: NDArray[np.intp],
    amount: NDArray[np.float64],
    n_cells: int,
    n_draws: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw the noise of the cells' weighted sums by the Gaussian multiplier bootstrap over clusters.

    Parameters
    ----------
    rows : PredictionRows
    cell : int[n, k]
        Cells that a row adds to, in 0 .. n_cells - 1.
    amount : float64[n, k]
        What it adds (before its weight), of mean 0.
    n_cells, n_draws : int
    rng : Generator

    Returns
    -------
    float64[n_draws, n_cells]
        Sum over clusters of a standard normal times the cluster's sums: of mean 0, with the cluster-robust
        covariance.

    Notes
    -----
    Independent rows are drawn by cells: where each row adds to one cell this is the same law.

    References
    ----------
    Kline and Santos (2012), "A score based approach to wild bootstrap inference", Journal of Econometric Methods 1.

    Examples
    --------
    >>> from calibration.diagnostics.rows import PredictionRows
    >>> rows = PredictionRows.checked([0.5, 0.5], [0, 1], cluster=[1, 1])
    >>> cell, amount = np.array([[0], [1]]), rows.residual[:, None]
    >>> noise = draw_noise(rows, cell, amount, 2, 4, np.random.default_rng(0))
    >>> bool(np.all(noise[:, 0] == -noise[:, 1]))
    True
    """
    if rows.cluster is None:
        variance = sum_by_group(cell.ravel(), (rows.weight[:, None] * amount**2).ravel(), n_cells)
        return np.asarray(np.sqrt(variance) * rng.standard_normal((n_draws, n_cells)))

    from scipy.sparse import csr_array

    n_clusters = int(rows.n_independent)
    place = (cell.ravel(), np.repeat(rows.cluster, cell.shape[1]))
    sums = csr_array(((rows.weight[:, None] * amount).ravel(), place), shape=(n_cells, n_clusters))
    noise = np.empty((n_draws, n_cells))
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        part = noise[start : start + _DRAWS_AT_ONCE]
        part[:] = np.asarray(sums @ rng.standard_normal((n_clusters, len(part)))).T
    return noise
