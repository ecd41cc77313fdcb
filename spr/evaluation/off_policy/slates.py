"""The pseudo-inverse estimator: pages whose reward is a sum over placements, observed as one number a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spr.evaluation.off_policy.inverse_propensity import require_shuffled
from spr.evaluation.off_policy.page_estimate import PageEstimate, effective_pages

if TYPE_CHECKING:
    from spr.evaluation.off_policy.logged_pages import LoggedPages


def pseudo_inverse(pages: LoggedPages) -> PageEstimate:
    r"""Weigh the reward of whole pages by how many placements they share with the new page.

    .. math:: \hat V = \frac1P \sum_p \bigl[(n_p - 1) M_p - (n_p - 2)\bigr] \sum_c r_{pc}, \qquad
              M_p = \#\{c : k'_{pc} = k_{pc}\}

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.

    Returns
    -------
    PageEstimate
        Weights may be negative.

    Raises
    ------
    InvalidModelInput
        Pages that are not full shuffles.

    Notes
    -----
    Unbiased where the reward of a page is a sum over its placements, even where only the sum is seen (Swaminathan,
    Krishnamurthy, Agarwal, Dudik, Langford, Jose and Zitouni 2017, "Off-policy evaluation for slate recommendation",
    NIPS, theorem 1). The weight is :math:`1_{new}^T \Gamma^\dagger 1_{logged}` with
    :math:`\Gamma = E[1_{logged} 1_{logged}^T]` over permutation matrices of size n. Their mean J / n has norm 1, and
    what is left, in the (n - 1)^2 dimensions with zero row and column sums, has the covariance 1 / (n - 1) times the
    identity, by symmetry and since its trace is n - 1. Hence the weight 1 + (n - 1)(M - 1). Here rewards of single
    cohorts *are* seen, and :func:`iips`, under the same assumption, has about n times less variance.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> pseudo_inverse(LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1])).value
    1.0
    """
    require_shuffled(pages, "pseudo_inverse")
    shared = pages.sum_by_page((pages.new_position == pages.position).astype(np.float64))
    n = pages.length
    weight = np.where(n > 1, (n - 1) * shared - (n - 2), 1.0)
    return PageEstimate.of_mean(weight * pages.sum_by_page(pages.reward), effective_pages(weight, pages.n_pages))
