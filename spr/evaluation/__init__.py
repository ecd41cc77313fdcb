"""Whether the ranker is better than what one would do without it: on logged pages, over time, and in experiments."""

from __future__ import annotations

from spr.evaluation.ageing import Replay
from spr.evaluation.baselines import Baseline, fit_baselines
from spr.evaluation.cannibalization import Cannibalization, cannibalization, cannibalization_plot
from spr.evaluation.comparison import SPR, Comparison, compare
from spr.evaluation.edge_change import edge_change, formed_edges
from spr.evaluation.experiment import ArmComparison, ArmPlan, a_a_check, compare_arms, plan_arms
from spr.evaluation.off_policy import OffPolicyValue, off_policy_value
from spr.evaluation.replay import cut_schedule, replay
from spr.metrics import normalized_cross_entropy

__all__ = [
    "SPR",
    "ArmComparison",
    "ArmPlan",
    "Baseline",
    "Cannibalization",
    "Comparison",
    "OffPolicyValue",
    "Replay",
    "a_a_check",
    "cannibalization",
    "cannibalization_plot",
    "compare",
    "compare_arms",
    "cut_schedule",
    "edge_change",
    "fit_baselines",
    "formed_edges",
    "normalized_cross_entropy",
    "off_policy_value",
    "plan_arms",
    "replay",
]
