"""Metrics of predictions on logged pages, with intervals by bootstrap over viewers.

Two questions are kept apart. *How good is the probability?* (`log_loss`, `normalized_cross_entropy`,
`calibration_error`) is asked at the logged position. *How good is the order?* (`auc`, `grouped_auc`, `ndcg`,
`top1_rate`, `precision_at_k`) is asked of what the ranker sorts by, with position at its reference. A `Prediction`
has both arrays. *What did the pages show?* is asked of positions alone (`placement_shares`).
"""

from __future__ import annotations

from spr.metrics.means import clustered_mean
from spr.metrics.orders import auc, grouped_auc, ndcg, precision_at_k, top1_rate
from spr.metrics.probabilities import calibration_error, log_loss, normalized_cross_entropy
from spr.metrics.shares import placement_shares
from spr.metrics.sums import GroupMean
from spr.metrics.table import MetricsTable, Prediction, evaluate_predictions, paired_difference

__all__ = [
    "GroupMean",
    "MetricsTable",
    "Prediction",
    "auc",
    "calibration_error",
    "clustered_mean",
    "evaluate_predictions",
    "grouped_auc",
    "log_loss",
    "ndcg",
    "normalized_cross_entropy",
    "paired_difference",
    "placement_shares",
    "precision_at_k",
    "top1_rate",
]
