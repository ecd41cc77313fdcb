"""Many comparisons: Holm's p-values for what was declared in advance, Benjamini and Hochberg's for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import false_discovery_control

from spr.multiplicity import holm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PRIMARY, EXPLORATORY, GUARD_RAIL = "primary", "exploratory", "guard-rail"


def adjust_p_values(p_value: Floats, family: NDArray[np.object_]) -> Floats:
    """Adjust p-values within their families.

    Parameters
    ----------
    p_value : float64[m]
        NaN: not known; such a comparison does not count.
    family : object[m]
        ``"primary"`` (Holm, 1979: P(any false rejection) <= alpha, whatever their dependence), ``"exploratory"``
        (Benjamini and Hochberg, 1995: the expected share of false ones among the rejected <= alpha, where they are
        independent or positively dependent) or another, which is not adjusted.

    Returns
    -------
    float64[m]
        NaN of the not known and of other families.

    Examples
    --------
    >>> adjust_p_values(np.array([0.01, 0.04, 0.01, 0.04]), np.repeat(["primary", "exploratory"], 2).astype(object))
    array([0.02, 0.04, 0.02, 0.04])
    """
    adjusted = holm(np.where(family == PRIMARY, p_value, np.nan))
    explores = (family == EXPLORATORY) & ~np.isnan(p_value)
    if explores.any():
        adjusted[explores] = false_discovery_control(p_value[explores])
    return adjusted
