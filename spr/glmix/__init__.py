"""Generalised linear mixed effects for response prediction: margin = fixed effect + any number of random effects."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from spr.glmix.coefficients import Coefficients
from spr.glmix.fixed import FittedLinear, FittedTrees, Linear, Trees
from spr.glmix.random_effects import RandomEffect

if TYPE_CHECKING:
    from spr.glmix.descent import SweepRecord
    from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
    from spr.glmix.evaluators import Evaluator, evaluate
    from spr.glmix.model import MixedModel
    from spr.glmix.nearline import NearlineUpdater
    from spr.glmix.tuning import Tuning, tune

__all__ = [
    "Coefficients",
    "Evaluator",
    "FittedLinear",
    "FittedTrees",
    "GLMixClassifier",
    "GLMixRegressor",
    "Linear",
    "MixedModel",
    "NearlineUpdater",
    "RandomEffect",
    "SweepRecord",
    "Trees",
    "Tuning",
    "evaluate",
    "tune",
]


_HEAVY = {
    "Evaluator": "evaluators",
    "GLMixClassifier": "estimator",
    "GLMixRegressor": "estimator",
    "MixedModel": "model",
    "NearlineUpdater": "nearline",
    "SweepRecord": "descent",
    "Tuning": "tuning",
    "evaluate": "evaluators",
    "tune": "tuning",
}


def __getattr__(name: str) -> object:
    # scikit-learn takes a second to import; a ranking service that only loads a bundle never pays it.
    if name in _HEAVY:
        return getattr(import_module(f"spr.glmix.{_HEAVY[name]}"), name)
    raise AttributeError(f"module 'spr.glmix' has no attribute {name!r}")
