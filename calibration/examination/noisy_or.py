"""The probability of at least one response in a cohort, each slot given its examination."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def noisy_or(
    expected_response: NDArray[np.float64], slot_examination: NDArray[np.float64] | float = 1.0
) -> NDArray[np.float64]:
    """Return 1 - prod over slots of (1 - examination * expected response).

    Parameters
    ----------
    expected_response : float64[C, k]
        Of C cohorts, in slot order; NaN = nobody there, or not scorable. Above 1 it is taken as 1.
    slot_examination : float64[k] or float64[C, k]
        In (0, 1], relative to slot 0, as ``SlotExamination.at`` gives it; only for expected responses that
        were calibrated with it, since others hold the slots' examination already. Default 1: no correction.

    Returns
    -------
    float64[C]
        In [0, 1], non-decreasing in every expected response; NaN for a cohort without any.

    Notes
    -----
    Responses of a cohort are taken as independent given the expected responses (Pearl 1988, "Probabilistic
    reasoning in intelligent systems", section 4.3.2). The examination of the cohort's position is left out.
    With responses sorted as slots are, giving an entity a higher response and therefore an earlier slot
    never lowers the answer: log(1 - e r) has a negative mixed derivative.

    Examples
    --------
    >>> noisy_or(np.array([[0.5, 0.5], [0.1, np.nan]]))
    array([0.75, 0.1 ])
    >>> noisy_or(np.array([[0.5, 0.5]]), np.array([1.0, 0.8]))
    array([0.7])
    """
    there = ~np.isnan(expected_response)
    response = np.clip(expected_response, 0.0, 1.0) * slot_examination
    none = np.where(there, 1.0 - response, 1.0).prod(axis=1)
    return np.asarray(np.where(there.any(axis=1), 1.0 - none, np.nan))
