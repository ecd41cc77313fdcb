"""Many tests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def holm(p_value: Floats) -> Floats:
    """Adjust p-values so that the chance of any false finding is at most the level, whatever their dependence.

    Parameters
    ----------
    p_value : float64[m]
        NaN where there was no test; it does not count as one.

    Returns
    -------
    float64[m]
        In [0, 1], NaN where there was no test.

    Notes
    -----
    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6. As
    ``statsmodels.stats.multitest.multipletests``, which runs the garbage collector at each call: 0.3 s in a process of
    some size.

    Examples
    --------
    >>> holm(np.array([0.03, 0.01, np.nan, 0.4]))
    array([0.06, 0.03,  nan, 0.4 ])
    """
    order = np.argsort(p_value, kind="stable")  # NaN sorts last
    n_tests = int((~np.isnan(p_value)).sum())
    stepped = np.maximum.accumulate(p_value[order] * np.maximum(n_tests - np.arange(len(p_value)), 1))
    adjusted = np.empty_like(p_value)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
