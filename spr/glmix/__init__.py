"""Generalised linear mixed effects for response prediction: margin = fixed effect + any number of random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spr.glmix.coefficients import Coefficients
from spr.glmix.fixed import FittedLinear, FittedTrees, Linear, Trees
from spr.glmix.random_effects import RandomEffect

if TYPE_CHECKING:
    from spr.glmix.descent import SweepRecord
    from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
    from spr.glmix.model import MixedModel

__all__ = [
    "Coefficients",
    "FittedLinear",
    "FittedTrees",
    "GLMixClassifier",
    "GLMixRegressor",
    "Linear",
    "MixedModel",
    "RandomEffect",
    "SweepRecord",
    "Trees",
]


def __getattr__(name: str) -> object:
    # scikit-learn takes a second to import; a ranking service that only loads a bundle never pays it.
    if name in ("GLMixClassifier", "GLMixRegressor"):
        from spr.glmix import estimator

        return getattr(estimator, name)
    if name == "MixedModel":
        from spr.glmix.model import MixedModel

        return MixedModel
    if name == "SweepRecord":
        from spr.glmix.descent import SweepRecord

        return SweepRecord
    raise AttributeError(f"module 'spr.glmix' has no attribute {name!r}")
