"""Whether the ranker is better than what one would do without it, and how long it stays so."""

from __future__ import annotations

from spr.evaluation.ageing import Replay
from spr.evaluation.baselines import Baseline, fit_baselines
from spr.evaluation.comparison import SPR, Comparison, compare
from spr.evaluation.replay import cut_schedule, replay
from spr.metrics import normalized_cross_entropy

__all__ = [
    "SPR",
    "Baseline",
    "Comparison",
    "Replay",
    "compare",
    "cut_schedule",
    "fit_baselines",
    "normalized_cross_entropy",
    "replay",
]
