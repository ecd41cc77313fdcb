"""Generalised linear mixed effects for response prediction: margin = fixed effect + random effects."""

from __future__ import annotations

from spr.glmix.coefficients import Coefficients
from spr.glmix.descent import SweepRecord
from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
from spr.glmix.fixed import FittedLinear, FittedTrees, Linear, Trees
from spr.glmix.random_effects import RandomEffect

__all__ = [
    "Coefficients",
    "FittedLinear",
    "FittedTrees",
    "GLMixClassifier",
    "GLMixRegressor",
    "Linear",
    "RandomEffect",
    "SweepRecord",
    "Trees",
]
