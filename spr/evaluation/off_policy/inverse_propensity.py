"""Inverse propensity: what the logged pages brought where they agree with the new ones, weighted for being rare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import gammaln

from spr.errors import InvalidModelInput
from spr.evaluation.off_policy.page_estimate import PageEstimate, effective_pages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.evaluation.off_policy.logged_pages import LoggedPages

    Floats = NDArray[np.float64]

FEWEST_PAGES: Final = 100
"""Effective pages that :func:`rips` wants at a position before it looks further up."""


def whole_page(pages: LoggedPages, *, clip: float | None = None) -> PageEstimate:
    r"""Weigh the pages that were logged in exactly the new order.

    .. math:: \hat V = \frac1P \sum_p n_p! \, 1[\text{logged order} = \text{new order}] \sum_c r_{pc}

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.
    clip : float, optional
        Largest weight, > 0. Rewards are not negative, so clipping can only lower the estimate: its bias is
        :math:`-E[(w - clip)_+ \, r]`.

    Returns
    -------
    PageEstimate
        NaN where no page agrees: on 20 cohorts one in 2.4e18 does.

    Raises
    ------
    InvalidModelInput
        Pages that are not full shuffles, or a clip that is not above 0.

    Notes
    -----
    Unbiased whatever people do with a page (Horvitz and Thompson 1952; Li et al. 2011, "Unbiased offline evaluation of
    contextual-bandit-based news article recommendation algorithms", WSDM). Its effective sample size says why it is of
    use on the shortest pages only.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> whole_page(LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1])).value
    1.0
    """
    require_shuffled(pages, "whole_page")
    agrees = np.logical_and.reduceat(pages.new_position == pages.position, pages.offset[:-1])
    weight = np.zeros(pages.n_pages)
    weight[agrees] = np.exp(gammaln(pages.length[agrees] + 1.0))
    weight = _clipped(weight, clip)
    if not agrees.any():
        return PageEstimate(np.nan, np.full(pages.n_pages, np.nan), 0.0)
    return PageEstimate.of_mean(weight * pages.sum_by_page(pages.reward), effective_pages(weight, pages.n_pages))


def iips(pages: LoggedPages, *, clip: float | None = None) -> PageEstimate:
    r"""Weigh the placements that the new policy would repeat: item-position inverse propensity.

    .. math:: \hat V = \frac1P \sum_{p,c} \frac{1[k'_{pc} = k_{pc}]}{P(c \text{ at } k_{pc})} r_{pc}

    Parameters
    ----------
    pages : LoggedPages
        Of any policy with known marginal propensities that puts every cohort at its new position with a probability
        above 0.
    clip : float, optional
        Largest weight, > 0; see :func:`whole_page`.

    Returns
    -------
    PageEstimate

    Raises
    ------
    InvalidModelInput
        A clip that is not above 0.

    Notes
    -----
    Unbiased where the reward of a cohort depends on the cohort (and the viewer) and its position, in any way, and not
    on what else stands where (the item-position model of Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen 2018,
    "Offline evaluation of ranking policies with click models", KDD, section 4.2).

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> iips(LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1])).value
    1.0
    """
    weight = placement_weights(pages, clip)
    return PageEstimate.of_mean(pages.sum_by_page(weight * pages.reward), effective_pages(weight, pages.n_pages))


def self_normalised_iips(pages: LoggedPages, *, clip: float | None = None) -> PageEstimate:
    r"""Divide :func:`iips` by the mean of its weights, which is 1 but for chance.

    .. math:: \hat V = \frac{\sum w r}{\sum w} \cdot \frac{C}{P}

    Parameters
    ----------
    pages, clip
        As of :func:`iips`.

    Returns
    -------
    PageEstimate
        NaN where no placement agrees.

    Raises
    ------
    InvalidModelInput
        A clip that is not above 0.

    Notes
    -----
    Consistent where `iips` is unbiased; its bias is of the order 1 / P, and the chance number of repeated placements
    does not move it (Swaminathan and Joachims 2015, "The self-normalized estimator for counterfactual learning", NIPS).

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> self_normalised_iips(LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1])).value
    1.0
    """
    weight = placement_weights(pages, clip)
    if weight.sum() == 0.0:
        return PageEstimate(np.nan, np.full(pages.n_pages, np.nan), 0.0)
    rewards, shown = pages.sum_by_page(weight * pages.reward), pages.length.astype(np.float64)
    weights = pages.sum_by_page(weight)
    rate = rewards.sum() / weights.sum()
    value = float(rate * shown.mean())
    influence = (rewards - rate * weights) * shown.mean() / weights.mean() + rate * (shown - shown.mean())
    return PageEstimate(value, influence, effective_pages(weight, pages.n_pages))


def rips(pages: LoggedPages, *, clip: float | None = None, fewest_pages: int = FEWEST_PAGES) -> PageEstimate:
    r"""Weigh placements where what stands above agrees, too: reward-interaction inverse propensity.

    The reward at position k counts where the new policy agrees with the log at k and at the l positions above it:

    .. math:: \hat V = \sum_k \frac{P_k}{P} \frac{\sum_p w_{pk} r_{pk}}{\sum_p w_{pk}}, \qquad
              w_{pk} = \frac{n_p!}{(n_p - l_k - 1)!} \, 1[\text{agree at } k - l_k, \dots, k]

    with :math:`P_k` pages that have a position k, and :math:`l_k` the most, at most k, that leaves enough pages.

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.
    clip : float, optional
        Largest weight, > 0; see :func:`whole_page`.
    fewest_pages : int, default 100
        Effective pages that a position must keep; 0 always looks up to the top.

    Returns
    -------
    PageEstimate
        NaN where no page agrees at some position.

    Raises
    ------
    InvalidModelInput
        Pages that are not full shuffles, or a clip that is not above 0.

    Notes
    -----
    Consistent where a reward depends on its cohort, its position and what stands *above* it (a cascade), as far as
    :math:`l_k` reaches k; where it does not, on the l cohorts just above alone. The weights are normalised by position
    and the look-back stops where too few pages agree, as in McInerney, Brost, Chandar, Mehrotra and Carterette 2020,
    "Counterfactual evaluation of slate recommendations with sequential reward interactions", KDD, section 4. On long
    shuffled pages l is 0 nearly everywhere, and what is left is an `iips` that is normalised by position.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> pages = LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1])
    >>> rips(pages, fewest_pages=0).value
    1.0
    """
    require_shuffled(pages, "rips")
    n_pages, width = pages.n_pages, int(pages.length.max())
    agrees = np.zeros((n_pages, width), dtype=bool)
    reward = np.zeros((n_pages, width))
    agrees[pages.page, pages.position] = pages.new_position == pages.position
    reward[pages.page, pages.position] = pages.reward
    value, influence = 0.0, np.zeros(n_pages)
    squares = total = 0.0
    run = np.zeros(n_pages, dtype=np.int64)
    for k in range(width):
        run = np.where(agrees[:, k], run + 1, 0)
        there = pages.length > k
        for look_back in range(min(k, int(run.max())), -1, -1):
            weight = np.zeros(n_pages)
            counts = run > look_back
            n = pages.length[counts].astype(np.float64)
            weight[counts] = np.exp(gammaln(n + 1.0) - gammaln(n - look_back))
            weight = _clipped(weight, clip)
            if look_back == 0 or effective_pages(weight, n_pages) >= fewest_pages:
                break
        if not weight.any():
            return PageEstimate(np.nan, np.full(n_pages, np.nan), 0.0)
        mean, share = float(weight @ reward[:, k] / weight.sum()), float(there.mean())
        value += share * mean
        influence += share * weight * (reward[:, k] - mean) / weight.mean() + mean * (there - share)
        total, squares = total + weight.sum(), squares + float(weight @ weight)
    return PageEstimate(value, influence, n_pages * total**2 / (len(pages.label) * squares))


def placement_weights(pages: LoggedPages, clip: float | None = None) -> Floats:
    """Return float64[C]: 1 / propensity where the new policy repeats the placement, else 0."""
    return _clipped(np.where(pages.new_position == pages.position, 1.0 / pages.propensity, 0.0), clip)


def require_shuffled(pages: LoggedPages, estimator: str) -> None:
    """Refuse pages that are not full shuffles.

    Raises
    ------
    InvalidModelInput
        Where a propensity is not 1 / n.
    """
    if not pages.uniform:
        raise InvalidModelInput(
            f"{estimator}: needs fully shuffled pages, with propensities of 1 / n; allowed for others: iips, "
            "self_normalised_iips"
        )


def _clipped(weight: Floats, clip: float | None) -> Floats:
    if clip is None:
        return weight
    if not clip > 0.0:
        raise InvalidModelInput(f"clip is {clip}; allowed: a number above 0")
    return np.minimum(weight, clip)
