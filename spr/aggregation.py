"""From the expected responses of a cohort's first k slots to one number, and the functions to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration import noisy_or

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from spr.batch import CohortBatch


def top_slots(batch: CohortBatch, top_k: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Find the first k scorable entities of each cohort.

    Parameters
    ----------
    batch : CohortBatch
        C cohorts.
    top_k : int64[C]
        k of each cohort.
    width : int
        The largest k: columns of the answer.

    Returns
    -------
    int64[C, width]
        Index of each entity in the batch, in slot order; -1 where the cohort has fewer.
    """
    scorable = ~np.isnan(batch.raw_score)
    cohort = batch.cohort_of_entity()
    scorable_until = np.concatenate(([0], np.cumsum(scorable)))
    rank = scorable_until[:-1] - scorable_until[batch.entity_offset[:-1]][cohort]
    kept = np.flatnonzero(scorable & (rank < top_k[cohort]))
    slots = np.full((batch.n_cohorts, width), -1, dtype=np.int64)
    slots[cohort[kept], rank[kept]] = kept
    return slots


def gather_slots(values: NDArray[np.float64], slots: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64[C, width]: the value of each top slot, NaN where there is none."""
    return np.where(slots >= 0, values[slots], np.nan)


def mean(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean expected response of the top slots.

    Parameters
    ----------
    responses : float64[C, k]
        Expected responses in slot order; NaN where a cohort has fewer. This holds for every function here.

    Returns
    -------
    float64[C]
        NaN for a cohort without any.

    Examples
    --------
    >>> mean(np.array([[0.2, 0.4], [0.1, np.nan]])).round(3)
    array([0.3, 0.1])
    """
    return slot_weighted_mean(responses, np.ones(responses.shape[1]))


def slot_weighted_mean(
    responses: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Mean that counts slot j with weight 1 / log2(j + 2), as in discounted cumulative gain.

    Parameters
    ----------
    responses : float64[C, k]
        See :func:`mean`.
    weight : float64[k], optional
        Non-negative slot weights of your own.

    Examples
    --------
    >>> slot_weighted_mean(np.array([[0.2, 0.4]])).round(3)
    array([0.277])
    """
    if weight is None:
        weight = 1.0 / np.log2(np.arange(responses.shape[1]) + 2.0)
    there = ~np.isnan(responses)
    # Row sums, not a matrix product: BLAS may round one row differently when others stand beside it.
    total = (there * weight).sum(axis=1)
    summed = (np.where(there, responses, 0.0) * weight).sum(axis=1)
    return np.asarray(np.divide(summed, total, out=np.full(len(responses), np.nan), where=total > 0))


def maximum(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest expected response of the top slots.

    Examples
    --------
    >>> maximum(np.array([[0.2, 0.4], [np.nan, np.nan]]))
    array([0.4, nan])
    """
    return np.asarray(np.fmax.reduce(responses, axis=1))


def log_sum_exp(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(sum(exp(r))): a smooth count that favours large responses.

    Examples
    --------
    >>> log_sum_exp(np.array([[0.0, 0.0]])).round(3)
    array([0.693])
    """
    largest = maximum(responses)
    # Counts may be too large for exp.
    summed = np.where(np.isnan(responses), 0.0, np.exp(responses - largest[:, None])).sum(axis=1)
    return np.asarray(np.log(summed, out=np.full(len(responses), np.nan), where=summed > 0)) + largest


AGGREGATIONS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": mean,
    "slot_weighted_mean": slot_weighted_mean,
    "max": maximum,
    "noisy_or": noisy_or,
    "log_sum_exp": log_sum_exp,
}
"""By the name used in a configuration. Each is non-decreasing in every response, which the trees rely on."""
