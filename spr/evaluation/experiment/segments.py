"""Whether an arm does the same to members of every segment, in shares of the control's value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import f

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spr.evaluation.experiment.adjustment import ArmEstimates
    from spr.evaluation.experiment.effects import Effect


def interaction_p_value(estimates: Sequence[ArmEstimates], effects: Sequence[Effect], arm: int) -> float:
    r"""Test whether value / control_value is the same in all segments.

    Parameters
    ----------
    estimates : sequence of ArmEstimates
        Of each segment, over the same units.
    effects : sequence of Effect
        Of the arm, in each.
    arm : int
        1 .. K - 1.

    Returns
    -------
    float
        Of one look; NaN where fewer than two segments have a standard error and positive values.

    Notes
    -----
    Wald's test that the logs of the ratios are equal, by the delta method and with the covariance of segments whose
    units have members in several; against F with the smallest segment's degrees of freedom, Student's t where there
    are two segments. On the relative scale, since members who come often do more of everything: 3 % more for everyone
    is no interaction.

    Examples
    --------
    >>> from spr.evaluation.experiment.adjustment import estimate_arms
    >>> from spr.evaluation.experiment.effects import compare_with_control
    >>> from spr.evaluation.experiment.sequential import OneLook
    >>> rng = np.random.default_rng(0)
    >>> arm, often = rng.integers(2, size=4000), rng.integers(2, size=4000)
    >>> y, parts = rng.poisson(10 * (1 + often) * (1 + 0.1 * arm * often)).astype(float), []
    >>> for segment in (often == 0, often == 1):
    ...     n = segment.sum()
    ...     units = np.flatnonzero(segment)
    ...     parts.append(estimate_arms(y[segment], np.ones(n), arm[segment], 2, np.empty((n, 0)), units, 4000))
    >>> interaction_p_value(parts, [compare_with_control(made, 1, OneLook(), 0.05) for made in parts], 1) < 1e-5
    True
    """
    ratios, terms, df = [], [], []
    for made, effect in zip(estimates, effects, strict=True):
        if np.isnan(effect.standard_error) or not min(effect.value, effect.control_value) > 0:
            continue
        ratios.append(np.log(effect.value / effect.control_value))
        terms.append(made.terms[:, arm] / effect.value - made.terms[:, 0] / effect.control_value)
        df.append(effect.df)
    if len(ratios) < 2:
        return float("nan")
    error = np.column_stack(terms)
    against_first = error[:, 1:] - error[:, :1]
    distance = np.array(ratios[1:]) - ratios[0]
    covariance = against_first.T @ against_first
    statistic = float(distance @ np.linalg.pinv(covariance, hermitian=True) @ distance)
    rank = len(distance)
    return float(f.sf(statistic / rank, rank, min(df)))
