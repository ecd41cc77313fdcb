"""Generalised linear mixed effects for response prediction: margin = fixed effect + any number of random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spr.glmix.coefficients import Coefficients
from spr.glmix.fixed import FittedLinear, FittedTrees, Linear, Trees
from spr.glmix.random_effects import RandomEffect

if TYPE_CHECKING:
    from spr.glmix.descent import SweepRecord
    from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
    from spr.glmix.evaluators import Evaluator, evaluate
    from spr.glmix.tuning import Tuning, tune

__all__ = [
    "Coefficients",
    "Evaluator",
    "FittedLinear",
    "FittedTrees",
    "GLMixClassifier",
    "GLMixRegressor",
    "Linear",
    "RandomEffect",
    "SweepRecord",
    "Trees",
    "Tuning",
    "evaluate",
    "tune",
]


def __getattr__(name: str) -> object:
    # scikit-learn takes a second to import; a ranking service that only loads a bundle never pays it.
    if name in ("GLMixClassifier", "GLMixRegressor"):
        from spr.glmix import estimator

        return getattr(estimator, name)
    if name in ("Evaluator", "evaluate"):
        from spr.glmix import evaluators

        return getattr(evaluators, name)
    if name in ("Tuning", "tune"):
        from spr.glmix import tuning

        return getattr(tuning, name)
    if name == "SweepRecord":
        from spr.glmix.descent import SweepRecord

        return SweepRecord
    raise AttributeError(f"module 'spr.glmix' has no attribute {name!r}")
