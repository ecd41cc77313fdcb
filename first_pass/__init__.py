"""The first pass: one ranker per entity type, any algorithm, any scale; and features for edge recommendation.

An existing model becomes a ranker in one line, ``first_pass.ranker(model, entity_type="people",
version="pymk-7")``; a ranker of your own is a :class:`PairRanker` with one method, or anything that meets
:class:`FirstPassRanker`. :class:`EdgeGraph` makes features and candidates from an edge table, and
:func:`training_table` takes the shuffled pages out of a log, to train on.
"""

from __future__ import annotations

from first_pass.adapters import (
    FunctionRanker,
    LightGBMRanker,
    OnnxRanker,
    Precomputed,
    SklearnRanker,
    StatsmodelsRanker,
    XGBoostRanker,
    ranker,
)
from first_pass.contract import FirstPassRanker, PairRanker
from first_pass.embedding import EmbeddingTable
from first_pass.errors import FirstPassError
from first_pass.graph import EdgeGraph
from first_pass.training_table import training_table

__all__ = [
    "EdgeGraph",
    "EmbeddingTable",
    "FirstPassError",
    "FirstPassRanker",
    "FunctionRanker",
    "LightGBMRanker",
    "OnnxRanker",
    "PairRanker",
    "Precomputed",
    "SklearnRanker",
    "StatsmodelsRanker",
    "XGBoostRanker",
    "ranker",
    "training_table",
]
