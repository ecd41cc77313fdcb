"""From values to a page: importance factors, impression guarantees and the random policy."""

from __future__ import annotations

from spr.reorder.arrangement import arrange, reorder
from spr.reorder.bounded import PageBounds
from spr.reorder.exploration import PageExploration, explore
from spr.reorder.feasibility import check_guarantees
from spr.reorder.guarantees import LABEL_KINDS, ImpressionGuarantee, LabelKind, count_delivered
from spr.reorder.importance import ImportanceFactors
from spr.reorder.prices import LearntPrices, learn_prices
from spr.reorder.random_policy import SHUFFLE_PROPENSITY_KIND, is_random, shuffle_propensity, shuffled
from spr.reorder.reordering import Outcome, Reordering, reordering

__all__ = [
    "LABEL_KINDS",
    "SHUFFLE_PROPENSITY_KIND",
    "ImportanceFactors",
    "ImpressionGuarantee",
    "LabelKind",
    "LearntPrices",
    "Outcome",
    "PageBounds",
    "PageExploration",
    "Reordering",
    "arrange",
    "check_guarantees",
    "count_delivered",
    "explore",
    "is_random",
    "learn_prices",
    "reorder",
    "reordering",
    "shuffle_propensity",
    "shuffled",
]
