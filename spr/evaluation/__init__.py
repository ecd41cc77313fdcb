"""Whether the ranker is better than what one would do without it."""

from __future__ import annotations

from spr.evaluation.baselines import Baseline, fit_baselines
from spr.evaluation.comparison import SPR, Comparison, compare

__all__ = ["SPR", "Baseline", "Comparison", "compare", "fit_baselines"]
