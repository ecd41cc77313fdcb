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


def binned_covariance(rows: PredictionRows, bins: NDArray[np.intp], amount: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cluster-robust covariance of weighted sums in bins.

    Parameters
    ----------
    rows : PredictionRows
    bins : int[n]
        0, 1, ..., m - 1, none of them empty.
    amount : float64[n]
        Per row, of mean 0 under the model whose covariance is wanted.

    Returns
    -------
    float64[m, m]
        Diagonal where rows are independent.

    Examples
    --------
    >>> from calibration.diagnostics.rows import PredictionRows
    >>> rows = PredictionRows.checked([0.2, 0.5], [0, 1], cluster=["a", "a"])
    >>> binned_covariance(rows, np.array([0, 1]), rows.residual)
    array([[ 0.04, -0.1 ],
           [-0.1 ,  0.25]])
    """
    if rows.cluster is None:
        return np.diag(sum_by_group(bins, rows.weight * amount**2))
    m = int(bins.max()) + 1
    sums = sum_by_group(rows.cluster * m + bins, rows.weight * amount, int(rows.n_independent) * m).reshape(-1, m)
    return np.asarray(sums.T @ sums)


def draw_noise(
    rows: PredictionRows, cell: NDArray[np.intp], n_cells: int, n_draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the noise of the weighted sums of residuals in many cells, by the multiplier bootstrap over clusters.

    Parameters
    ----------
    rows : PredictionRows
    cell : int[n]
        The cell that a row adds to, in 0 .. n_cells - 1.
    n_cells, n_draws : int
    rng : Generator

    Returns
    -------
    float64[n_draws, n_cells]
        Sum over clusters of a standard normal times the cluster's sums of residuals: normal, of mean 0, with the
        cluster-robust covariance, which is itself too large to make.

    References
    ----------
    Kline and Santos (2012), "A score based approach to wild bootstrap inference", Journal of Econometric Methods 1.

    Examples
    --------
    >>> from calibration.diagnostics.rows import PredictionRows
    >>> rows = PredictionRows.checked([0.5, 0.5], [0, 1], cluster=[1, 1])
    >>> noise = draw_noise(rows, np.array([0, 1]), 2, 4, np.random.default_rng(0))
    >>> bool(np.all(noise[:, 0] == -noise[:, 1]))
    True
    """
    if rows.cluster is None:
        variance = sum_by_group(cell, rows.weight * rows.residual**2, n_cells)
        return np.asarray(np.sqrt(variance) * rng.standard_normal((n_draws, n_cells)))

    from scipy.sparse import csr_array

    n_clusters = int(rows.n_independent)
    sums = csr_array((rows.weight * rows.residual, (cell, rows.cluster)), shape=(n_cells, n_clusters))
    noise = np.empty((n_draws, n_cells))
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        part = noise[start : start + _DRAWS_AT_ONCE]
        part[:] = np.asarray(sums @ rng.standard_normal((n_clusters, len(part)))).T
    return noise
