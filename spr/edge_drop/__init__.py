"""Counterfactual edge-drop experiments: what an edge of each type is worth, and the importance factors from it.

The design (:class:`EdgeDropExperiment`), the table that an experiment leaves, the dose-response curve, the values per
edge, their ratios with intervals, what is served, and what new factors would do to the pages.
"""

from __future__ import annotations

from spr.edge_drop.adoption import PageMix, page_mix
from spr.edge_drop.attribution import credit_downstream
from spr.edge_drop.clusters import ego_clusters, spillover_check
from spr.edge_drop.experiment import EdgeDropExperiment
from spr.edge_drop.factors import FactorEstimates
from spr.edge_drop.guard_rail import GuardRail, GuardRailVerdict
from spr.edge_drop.plan import ExperimentPlan, PilotFigures, plan_experiment
from spr.edge_drop.sample_ratio import sample_ratio_check
from spr.edge_drop.segments import SegmentFactors, estimate_segment_factors
from spr.edge_drop.values import EdgeValues, Per, estimate_edge_values

__all__ = [
    "EdgeDropExperiment",
    "EdgeValues",
    "ExperimentPlan",
    "FactorEstimates",
    "GuardRail",
    "GuardRailVerdict",
    "PageMix",
    "Per",
    "PilotFigures",
    "SegmentFactors",
    "credit_downstream",
    "ego_clusters",
    "estimate_edge_values",
    "estimate_segment_factors",
    "page_mix",
    "plan_experiment",
    "sample_ratio_check",
    "spillover_check",
]
