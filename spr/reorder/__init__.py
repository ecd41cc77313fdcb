"""From values to a page: importance factors, impression guarantees and the random policy."""

from __future__ import annotations

from spr.reorder.arrangement import Reordering, arrange, reorder
from spr.reorder.exploration import SHUFFLE_PROPENSITY_KIND, is_random, shuffle_propensity, shuffled
from spr.reorder.guarantees import LABEL_KINDS, ImpressionGuarantee, LabelKind, check_guarantees
from spr.reorder.importance import ImportanceFactors

__all__ = [
    "LABEL_KINDS",
    "SHUFFLE_PROPENSITY_KIND",
    "ImportanceFactors",
    "ImpressionGuarantee",
    "LabelKind",
    "Reordering",
    "arrange",
    "check_guarantees",
    "is_random",
    "reorder",
    "shuffle_propensity",
    "shuffled",
]
