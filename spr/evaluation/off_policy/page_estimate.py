"""An estimate of the mean over pages, with what each page adds to its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.evaluation.off_policy.logged_pages import LoggedPages

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PageEstimate:
    """An estimate of the reward per page, and its influence function.

    Parameters
    ----------
    value : float
        Reward per page; NaN where the log holds nothing to estimate it from.
    influence : float64[P]
        By how much each page moves the estimate, times P, to the first order; sums to 0. The estimate's standard error
        is that of the mean of these numbers, so that whatever is estimated on the way (self-normalisation, examination)
        is in it, and the estimates of several estimators or policies on the same pages can be subtracted.
    effective_pages : float
        P (sum w)^2 / (m sum w^2) over the estimator's m weights (Kish 1965, "Survey sampling", section 11.7): as many
        pages of equal weight would be as informative. NaN where nothing is weighted.
    """

    value: float
    influence: Floats
    effective_pages: float

    @classmethod
    def of_mean(cls, reward: Floats, effective_pages: float) -> PageEstimate:
        """Estimate by the plain mean of a (weighted) reward per page, float64[P]."""
        value = float(reward.mean())
        return cls(value, reward - value, effective_pages)


def effective_pages(weight: Floats, n_pages: int) -> float:
    """Return how many pages of equal weight would tell as much.

    Parameters
    ----------
    weight : float64[m]
        Of whatever is weighted: pages, placements.
    n_pages : int
        P.

    Returns
    -------
    float
        In [0, P]; 0 where all weights are 0.

    Examples
    --------
    >>> effective_pages(np.array([2.0, 0.0, 2.0, 0.0]), 100)
    50.0
    """
    squares = float(np.square(weight).sum())
    return n_pages * float(weight.sum()) ** 2 / (len(weight) * squares) if squares > 0 else 0.0


def logged_value(pages: LoggedPages) -> PageEstimate:
    """Return what the logged pages brought: the mean reward per page of the policy that logged them.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> logged_value(LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 1, 1])).value
    1.5
    """
    return PageEstimate.of_mean(pages.sum_by_page(pages.reward), float(pages.n_pages))
