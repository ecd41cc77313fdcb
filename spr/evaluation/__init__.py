"""Whether the ranker is better than what one would do without it, and what it would bring: see README.md."""

from __future__ import annotations

from spr.evaluation.baselines import Baseline, fit_baselines
from spr.evaluation.comparison import SPR, Comparison, compare
from spr.evaluation.off_policy import OffPolicyValue, off_policy_value
from spr.metrics import normalized_cross_entropy

__all__ = [
    "SPR",
    "Baseline",
    "Comparison",
    "OffPolicyValue",
    "compare",
    "fit_baselines",
    "normalized_cross_entropy",
    "off_policy_value",
]
