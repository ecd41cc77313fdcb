"""The base rate of another population, from its scores alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def estimate_base_rate(expected_response: ArrayLike, base_rate: float) -> float:
    """Estimate how often a new population responds, from the expected responses of its unlabelled scores.

    Parameters
    ----------
    expected_response : float[n]
        Of the new population, by a binary curve fitted on the old one; NaN is left out.
    base_rate : float
        Of the old population, in (0, 1): ``curve.base_rate``.

    Returns
    -------
    float
        In (0, 1), for ``curve.at_base_rate``.

    Raises
    ------
    CalibrationError
        No expected response, one outside (0, 1), or a base rate outside (0, 1).

    Notes
    -----
    The maximum likelihood estimate under label shift, where scores are distributed as before among those who respond
    and those who do not (Saerens, Latinne and Decaestecker 2002, section 2.2). The likelihood is concave in the
    rate, so bisection of its derivative finds what their EM algorithm may need thousands of steps for. It is as
    good as the curve's calibration, and as precise as the scores tell the two groups apart.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> responds = rng.random(200_000) < 0.3         # the old population: 10 %
    >>> score = rng.normal(3.0 * responds)
    >>> odds = 1 / 9 * np.exp(3.0 * score - 4.5)     # the old curve
    >>> round(estimate_base_rate(odds / (1 + odds), 0.1), 2)
    0.3
    """
    rate = np.asarray(expected_response, dtype=np.float64).ravel()
    rate = rate[~np.isnan(rate)]
    wrong = ~((rate > 0) & (rate < 1))
    if rate.size == 0 or wrong.any() or not 0 < base_rate < 1:
        first = f"; found {rate[np.argmax(wrong)]}" if wrong.any() else f"; {rate.size} rows"
        raise CalibrationError(f"expected responses and base_rate ({base_rate}) must be inside (0, 1){first}")
    excess = rate / (1.0 - rate) * (1.0 - base_rate) / base_rate - 1.0  # likelihood ratio of each score, less 1
    low, high = 1e-12, 1.0 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        increases = float(np.sum(excess / (1.0 + middle * excess))) > 0
        low, high = (middle, high) if increases else (low, middle)
    return (low + high) / 2
