"""A/B tests of arms: plan them, check them, read them.

:func:`plan_arms` says how many members it takes, :func:`a_a_check` whether a metric's errors are honest, and
:func:`compare_arms` what the arms did, from one row per member.
"""

from __future__ import annotations

from spr.evaluation.experiment.arms import compare_arms
from spr.evaluation.experiment.checks import a_a_check
from spr.evaluation.experiment.comparison import ArmComparison
from spr.evaluation.experiment.power import ArmPlan, plan_arms

__all__ = ["ArmComparison", "ArmPlan", "a_a_check", "compare_arms", "plan_arms"]
