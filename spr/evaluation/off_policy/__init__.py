"""Off-policy value: what a new ranking would have brought on the pages that the random policy shuffled.

:func:`off_policy_value` reads the impressions table; :func:`evaluate_pages` takes arrays (:class:`LoggedPages`). The
estimators are functions of logged pages, for use by themselves.
"""

from __future__ import annotations

from spr.evaluation.off_policy.choice import LADDER, ClickModelChoice, choose_click_model, choose_estimator
from spr.evaluation.off_policy.click_estimators import direct, doubly_robust, examination_weighted
from spr.evaluation.off_policy.click_model import MODELS, ClickModel, fit_click_model, given_examination
from spr.evaluation.off_policy.inverse_propensity import iips, rips, self_normalised_iips, whole_page
from spr.evaluation.off_policy.logged_pages import LoggedPages
from spr.evaluation.off_policy.logged_tables import off_policy_value
from spr.evaluation.off_policy.page_estimate import PageEstimate, effective_pages, logged_value
from spr.evaluation.off_policy.relevance import cross_fit_relevance
from spr.evaluation.off_policy.slates import pseudo_inverse
from spr.evaluation.off_policy.value import ESTIMATORS, OffPolicyValue, evaluate_pages

__all__ = [
    "ESTIMATORS",
    "LADDER",
    "MODELS",
    "ClickModel",
    "ClickModelChoice",
    "LoggedPages",
    "OffPolicyValue",
    "PageEstimate",
    "choose_click_model",
    "choose_estimator",
    "cross_fit_relevance",
    "direct",
    "doubly_robust",
    "effective_pages",
    "evaluate_pages",
    "examination_weighted",
    "fit_click_model",
    "given_examination",
    "iips",
    "logged_value",
    "off_policy_value",
    "pseudo_inverse",
    "rips",
    "self_normalised_iips",
    "whole_page",
]
