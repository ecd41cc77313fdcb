"""From values to a page: importance factors, impression guarantees and the random policy."""

from __future__ import annotations

from spr.reorder.arrangement import Outcome, Reordering, arrange, reorder
from spr.reorder.bounded import PageBounds
from spr.reorder.exploration import Explored, PageExploration, explore
from spr.reorder.feasibility import check_guarantees
from spr.reorder.guarantees import LABEL_KINDS, ImpressionGuarantee, LabelKind
from spr.reorder.importance import ImportanceFactors
from spr.reorder.random_policy import SHUFFLE_PROPENSITY_KIND, is_random, shuffle_propensity, shuffled

__all__ = [
    "LABEL_KINDS",
    "SHUFFLE_PROPENSITY_KIND",
    "Explored",
    "ImportanceFactors",
    "ImpressionGuarantee",
    "LabelKind",
    "Outcome",
    "PageBounds",
    "PageExploration",
    "Reordering",
    "arrange",
    "check_guarantees",
    "explore",
    "is_random",
    "reorder",
    "shuffle_propensity",
    "shuffled",
]
