"""Existing models as first-pass rankers, one adapter per library; none imports its library before it must."""

from __future__ import annotations

from first_pass.adapters.function import FunctionRanker
from first_pass.adapters.lightgbm_model import LightGBMRanker
from first_pass.adapters.onnx_network import OnnxRanker
from first_pass.adapters.precomputed import Precomputed
from first_pass.adapters.selection import ranker
from first_pass.adapters.sklearn_estimator import SklearnRanker
from first_pass.adapters.statsmodels_results import StatsmodelsRanker
from first_pass.adapters.xgboost_model import XGBoostRanker

__all__ = [
    "FunctionRanker",
    "LightGBMRanker",
    "OnnxRanker",
    "Precomputed",
    "SklearnRanker",
    "StatsmodelsRanker",
    "XGBoostRanker",
    "ranker",
]
