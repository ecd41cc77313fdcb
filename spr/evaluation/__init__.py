"""Whether the ranker is better than what one would do without it, and what its pages do to each type."""

from __future__ import annotations

from spr.evaluation.baselines import Baseline, fit_baselines
from spr.evaluation.cannibalization import Cannibalization, cannibalization, cannibalization_plot
from spr.evaluation.comparison import SPR, Comparison, compare
from spr.evaluation.edge_change import edge_change, formed_edges
from spr.metrics import normalized_cross_entropy

__all__ = [
    "SPR",
    "Baseline",
    "Cannibalization",
    "Comparison",
    "cannibalization",
    "cannibalization_plot",
    "compare",
    "edge_change",
    "fit_baselines",
    "formed_edges",
    "normalized_cross_entropy",
]
