"""Whether the ranker is better than what one would do without it: on logged pages, and in A/B tests."""

from __future__ import annotations

from spr.evaluation.baselines import Baseline, fit_baselines
from spr.evaluation.comparison import SPR, Comparison, compare
from spr.evaluation.experiment import ArmComparison, ArmPlan, a_a_check, compare_arms, plan_arms
from spr.metrics import normalized_cross_entropy

__all__ = [
    "SPR",
    "ArmComparison",
    "ArmPlan",
    "Baseline",
    "Comparison",
    "a_a_check",
    "compare",
    "compare_arms",
    "fit_baselines",
    "normalized_cross_entropy",
    "plan_arms",
]
