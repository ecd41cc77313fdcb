"""One arm against the control: the difference, the ratio, their intervals and the p-value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spr.edge_drop.ratios import fieller_intervals

if TYPE_CHECKING:
    from spr.evaluation.experiment.adjustment import ArmEstimates
    from spr.evaluation.experiment.sequential import Looks

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Effect:
    """What one arm does to a metric, beside the control.

    Parameters
    ----------
    control_value, value : float
        Adjusted values of the arms; NaN where an arm has none.
    difference, low, high : float
        value - control_value and its interval; without bounds where no error can be stated.
    relative, relative_low, relative_high : float
        value / control_value - 1 and its interval; NaN unless control_value > 0.
    standard_error : float
        Of the difference; NaN where it cannot be stated.
    df : float
        Its degrees of freedom.
    p_value : float
        Of no difference; NaN where there is no standard error, or the units are too few for the looks.
    """

    control_value: float
    value: float
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    standard_error: float
    df: float
    p_value: float


def compare_with_control(estimates: ArmEstimates, arm: int, looks: Looks, alpha: float) -> Effect:
    r"""Compare an arm with arm 0.

    Parameters
    ----------
    estimates : ArmEstimates
    arm : int
        1 .. K - 1.
    looks : Looks
        One, or any number.
    alpha : float
        1 - level of the intervals.

    Returns
    -------
    Effect

    Notes
    -----
    The relative interval is Fieller's, not the delta method's: it covers however noisy the control is, and where it is
    bounded it excludes 0 exactly when the interval of the difference does, so that a reader never sees the two
    disagree. Without bounds the control is not told apart from 0, and has no share to speak of. The degrees of
    freedom are Welch's, of the arms' own parts; where units have members in both arms, the smaller arm's.

    Examples
    --------
    >>> from spr.evaluation.experiment.adjustment import estimate_arms
    >>> from spr.evaluation.experiment.sequential import OneLook
    >>> y, arm = np.array([9.0, 10, 11, 10, 12, 11, 13, 12]), np.repeat([0, 1], 4)
    >>> made = estimate_arms(y, np.ones(8), arm, 2, np.empty((8, 0)), np.arange(8), 8)
    >>> effect = compare_with_control(made, 1, OneLook(), 0.05)
    >>> print(f"{effect.difference:.1f} [{effect.low:.2f}, {effect.high:.2f}], {effect.relative:+.0%}")
    2.0 [0.59, 3.41], +20%
    """
    control, value = (float(estimates.value[k]) for k in (0, arm))
    both = estimates.terms[:, [arm, 0]]
    covariance = both.T @ both
    error = float(np.sqrt(((both[:, 0] - both[:, 1]) ** 2).sum()))
    df = _degrees_of_freedom(estimates, arm)
    members = int(estimates.members.sum())
    few = min(estimates.effective_units[[arm, 0]]) < looks.least_units
    difference = value - control
    relative = difference / control if control > 0 else np.nan
    unknown = not df >= 1.0 or not error > _ROUNDING * max(abs(value), abs(control))
    if unknown or few:
        low, high = -np.inf, np.inf
        ratio_low, ratio_high, p_value = low, high, np.nan
    else:
        critical = looks.critical(alpha, members, df)
        low, high = difference - critical * error, difference + critical * error
        ratio_low, ratio_high = fieller_intervals(np.array([value, control]), covariance, 1, critical)[0] - 1.0
        p_value = looks.p_value(difference / error, alpha, members, df)
    if not control > 0:
        ratio_low = ratio_high = np.nan
    return Effect(
        control,
        value,
        difference,
        low,
        high,
        relative,
        float(ratio_low),
        float(ratio_high),
        np.nan if unknown else error,
        df,
        p_value,
    )


def _degrees_of_freedom(estimates: ArmEstimates, arm: int) -> float:
    own, df = estimates.own[:, [arm, 0]], estimates.df[[arm, 0]]
    if not (df >= 1.0).all() or (own[:, 0] * own[:, 1]).any():
        return float(df.min())
    variance = (own**2).sum(axis=0)
    total = variance.sum()
    return float(total**2 / (variance**2 / df).sum()) if total > 0 else float(df.min())
