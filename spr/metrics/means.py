"""The mean of rows that go together, with its standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def clustered_mean(
    values: NDArray[np.float64], cluster: NDArray[np.int64], weight: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """Average rows, and give the standard error where rows of one cluster depend on each other.

    Parameters
    ----------
    values : float64[n]
        At least one row.
    cluster : int64[n]
        Numbers from 0, each of them there: the viewer.
    weight : float64[n], optional
        1 each where not given.

    Returns
    -------
    mean, standard_error : float
        The error is NaN where there is one cluster only.

    Notes
    -----
    The mean is a ratio of sums over clusters; its error is linearised, sqrt(n / (n - 1) sum of u²) / sum of weights,
    where u is a cluster's sum of weight times (value - mean) and n the number of clusters (Cochran 1977, "Sampling
    techniques", section 6.3).

    Examples
    --------
    >>> clustered_mean(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    (2.0, 1.0)
    """
    weight = np.ones(len(values)) if weight is None else weight
    mean = float(np.average(values, weights=weight))
    of_cluster = np.bincount(cluster, weights=weight * (values - mean))
    n = len(of_cluster)
    if n == 1:
        return mean, float("nan")
    return mean, float(np.sqrt(n / (n - 1) * np.square(of_cluster).sum()) / weight.sum())
