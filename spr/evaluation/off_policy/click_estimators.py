"""Estimators that take a click model for true: every interaction counts, not those of repeated placements only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spr.evaluation.off_policy.click_kernels import average_over_orders
from spr.evaluation.off_policy.inverse_propensity import placement_weights
from spr.evaluation.off_policy.page_estimate import PageEstimate, effective_pages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.evaluation.off_policy.click_model import ClickModel
    from spr.evaluation.off_policy.logged_pages import LoggedPages

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


def examination_weighted(pages: LoggedPages, model: ClickModel) -> PageEstimate:
    r"""Weigh every reward by how much more its cohort is examined in the new order than in a random one.

    .. math:: \hat V = \frac1P \sum_{p,c} \frac{e_c(\text{new order})}{E_{\text{orders}}\, e_c(\text{order})} \, r_{pc}

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.
    model : ClickModel
        Fitted on these pages.

    Returns
    -------
    PageEstimate
        The error of the fitted examination is in its influence. Its effective pages are over the cohorts with a reward.

    Notes
    -----
    Unbiased where the click model holds with known examination, whatever the relevance of the cohorts is and however
    it is predicted (where the model reads interactions above, their prediction is part of it). With examination by
    position it is the position-based estimator of Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen 2018,
    "Offline evaluation of ranking policies with click models", KDD, section 4.3; no other weights of that form have a
    smaller variance when interactions are rare. What stands above enters in the same way, its expectation over the
    shuffles computed exactly (:func:`~spr.evaluation.off_policy.click_kernels.average_over_orders`). Examination is
    estimated from the same pages, which is in the interval: the estimate is an M-estimator stacked on the likelihood
    of the click model (Newey and McFadden 1994, "Large sample estimation and hypothesis testing", section 6).

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages, fit_click_model
    >>> rng = np.random.default_rng(0)
    >>> good, page = np.tile([True, False], 20_000), np.repeat(np.arange(20_000), 2)
    >>> place = np.where(np.repeat(rng.random(20_000) < 0.5, 2), good, ~good)
    >>> label = rng.random(40_000) < np.where(good, 0.4, 0.1) * np.where(place == 0, 1.0, 0.5)
    >>> pages = LoggedPages.of(page, place, np.where(good, 0, 1), label)  # the good one on top: 0.4 + 0.05
    >>> print(round(examination_weighted(pages, fit_click_model(pages, np.ones(40_000))).value, 2))
    0.45
    """
    k = len(model.log_place)
    new = model.examination[pages.new_position] * np.exp(model.new_above @ model.slope)
    acted_on = np.flatnonzero(pages.reward)  # no other row counts
    mean, of_mean = average_over_orders(
        pages.offset,
        acted_on,
        pages.page,
        model.relevance,
        pages.group,
        int(pages.group.max()) + 1,
        model.examination,
        model.place,
        model.terms,
        model.slope,
        k,
    )
    weight = new[acted_on] / mean
    amount = pages.reward[acted_on] * weight / pages.n_pages
    gradient = np.zeros(len(model.covariance))
    new_place = model.place[pages.new_position[acted_on]]
    gradient[:k] = np.bincount(new_place, amount, k) - amount @ of_mean[:, :k]
    gradient[k + model.own.shape[1] :] = amount @ (model.new_above[acted_on] - of_mean[:, k:])
    reward = np.bincount(pages.page[acted_on], weight * pages.reward[acted_on], pages.n_pages)
    value = float(reward.mean())
    influence = reward - value + model.error_of(gradient, pages)
    return PageEstimate(value, influence, effective_pages(weight, pages.n_pages))


def direct(pages: LoggedPages, model: ClickModel) -> PageEstimate:
    r"""Multiply what each page brought by what the click model says the new order does to it: the direct method.

    .. math:: \hat V = \frac1P \sum_p R_p \, \frac{\sum_c v_c \, \mu_c(\text{new order})}
              {\sum_c v_c \, \mu_c(\text{logged order})}, \qquad \mu_c = \hat r_c \, e_c(\text{order})

    with the reward R of the page, importance v, and the relevance r, recalibrated by the click model.

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.
    model : ClickModel
        Fitted on these pages.

    Returns
    -------
    PageEstimate
        ``effective_pages`` is NaN: nothing is weighted. The error of the coefficients is in its influence, that of the
        cross-fitted relevance is not, beyond its recalibration.

    Notes
    -----
    Consistent where the click model holds *and* the relevance is right within pages: the level of each
    page is taken from its own reward, so that an active viewer need not be predicted. A direct method in the sense of
    Dudik, Langford and Li 2011, "Doubly robust policy evaluation and learning", ICML, section 2.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages, fit_click_model
    >>> rng = np.random.default_rng(0)
    >>> good, page = np.tile([True, False], 20_000), np.repeat(np.arange(20_000), 2)
    >>> place = np.where(np.repeat(rng.random(20_000) < 0.5, 2), good, ~good)
    >>> label = rng.random(40_000) < np.where(good, 0.4, 0.1) * np.where(place == 0, 1.0, 0.5)
    >>> pages = LoggedPages.of(page, place, np.where(good, 0, 1), label)
    >>> print(round(direct(pages, fit_click_model(pages, np.where(good, 0.3, 0.08)[pages.row])).value, 2))
    0.45
    """
    logged, new = (
        pages.importance * _mean_reward(model, position, above)
        for position, above in ((pages.position, model.logged_above), (pages.new_position, model.new_above))
    )
    logged_sum, new_sum = pages.sum_by_page(logged), pages.sum_by_page(new)
    lift = np.divide(new_sum, logged_sum, out=np.zeros(pages.n_pages), where=logged_sum > 0)
    reward = pages.sum_by_page(pages.reward)
    value = float((reward * lift).mean())
    level = np.divide(reward, logged_sum, out=np.zeros(pages.n_pages), where=logged_sum > 0) / pages.n_pages
    amount_new, amount_logged = level[pages.page] * new, (level * lift)[pages.page] * logged
    k = len(model.log_place)
    gradient = np.zeros(len(model.covariance))
    gradient[:k] = np.bincount(model.place[pages.new_position], amount_new, k)
    gradient[:k] -= np.bincount(model.place[pages.position], amount_logged, k)
    gradient[k : k + model.own.shape[1]] = (amount_new - amount_logged) @ model.own
    gradient[k + model.own.shape[1] :] = amount_new @ model.new_above - amount_logged @ model.logged_above
    influence = reward * lift - value + model.error_of(gradient, pages)
    return PageEstimate(value, influence, np.nan)


def doubly_robust(pages: LoggedPages, model: ClickModel, *, clip: float | None = None) -> PageEstimate:
    r"""Correct the click model's prediction by the weighted error that it makes on repeated placements.

    .. math:: \hat V = \frac1P \sum_{p,c} \bigl[ q_c(k'_{pc}) + w_{pc} (r_{pc} - q_c(k_{pc})) \bigr]

    with the weights of :func:`~spr.evaluation.off_policy.inverse_propensity.iips` and the model's reward q.

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.
    model : ClickModel
        Of positions alone.
    clip : float, optional
        Largest weight, > 0. Its bias is :math:`-E[(w - clip)_+ (r - q)]`, of either sign.

    Returns
    -------
    PageEstimate

    Raises
    ------
    InvalidModelInput
        A clip that is not above 0.

    Notes
    -----
    Unbiased where `iips` is, whatever the model, since propensities are known (Dudik, Langford and Li 2011, "Doubly
    robust policy evaluation and learning", ICML). It takes away the part of the variance that the model explains. Where
    interactions are rare that is little: at a rate of 5 % their own chance is most of it. A cascade form
    (Kiyohara, Saito, Matsuhiro, Narita, Shimizu and Yamamoto 2022, "Doubly robust off-policy evaluation for ranking
    policies under the cascade behavior model", WSDM) weighs agreement of everything above, of which shuffles of long
    pages have next to none below the second position; :func:`~spr.evaluation.off_policy.inverse_propensity.rips`
    shows it.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages, fit_click_model
    >>> rng = np.random.default_rng(0)
    >>> good, page = np.tile([True, False], 20_000), np.repeat(np.arange(20_000), 2)
    >>> place = np.where(np.repeat(rng.random(20_000) < 0.5, 2), good, ~good)
    >>> label = rng.random(40_000) < np.where(good, 0.4, 0.1) * np.where(place == 0, 1.0, 0.5)
    >>> pages = LoggedPages.of(page, place, np.where(good, 0, 1), label)
    >>> print(round(doubly_robust(pages, fit_click_model(pages, np.ones(40_000))).value, 2))
    0.45
    """
    logged, new = (
        _mean_reward(model, position, above)
        for position, above in ((pages.position, model.logged_above), (pages.new_position, model.new_above))
    )
    level = pages.importance * pages.label.sum() / logged.sum()
    weight = placement_weights(pages, clip)
    corrected = level * new + weight * (pages.reward - level * logged)
    return PageEstimate.of_mean(pages.sum_by_page(corrected), effective_pages(weight, pages.n_pages))


def _mean_reward(model: ClickModel, position: Integers, above: Floats) -> Floats:
    """Return what each cohort brings at a position, up to the level of its page."""
    margin = model.own @ model.own_slope + model.log_place[model.place[position]]
    return np.exp(margin + above @ model.slope)
