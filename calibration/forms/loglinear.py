"""Log-linear curves: the log-odds of a response (a count's logarithm) as a sum of increasing transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.quantiles import QuantileTable

    Floats = NDArray[np.float64]

Transforms = Literal["all", "rank"]

RIDGE = 1.0
"""Prior precision of a standardised coefficient, in units of rows: it bounds the fit on separable rows."""


def loglinear_design(table: QuantileTable, transforms: str) -> Floats:
    """Return increasing transforms of each bin's quantile and score.

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them.
    transforms : {"rank", "all"}
        ``"rank"``: of the quantile q only, log q, -log(1 - q) and the normal deviate of q; their sums bend
        as the log-odds of q, an exponential tail or a bell do, and depend on ranks alone. ``"all"``: also
        the score s, standardised, asinh of that, and where its range allows log(1 + s), sqrt s, log s and
        -log(1 - s).

    Returns
    -------
    float64[m, k]
        Mean 0 and variance 1 over the rows.

    Notes
    -----
    A log-linear regression of the response rate on quantiles follows the LinkedIn SPR post; non-negative
    coefficients (``fit_non_negative``) make it monotone, the link keeps it inside the family's range.

    Examples
    --------
    >>> from calibration.quantiles import QuantileTable
    >>> loglinear_design(QuantileTable.fit(np.arange(4.0)), "rank").shape
    (4, 3)
    """
    from scipy.special import ndtri  # here, so that serving does not import scipy.special

    columns = [np.log(table.quantile), -np.log1p(-table.quantile), ndtri(table.quantile)]
    if transforms == "all":
        score = table.centre
        # Extreme scores may overflow here; a column that is not finite is left out below.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            standardised = _robustly_standardised(table)
            columns += [standardised, np.arcsinh(standardised)]
            if score[0] >= 0.0:
                columns += [np.log1p(score), np.sqrt(score)]
                if score[-1] <= 1.0:
                    columns += _log_and_log_of_rest(score)
    return _standardise(np.column_stack(columns), table.weight)


def sigmoid_design(table: QuantileTable) -> Floats:
    """Return the score itself: the link is linear in it (Platt 1999, where the response is binary).

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them.

    Returns
    -------
    float64[m, 1] or float64[m, 0]
        Mean 0 and variance 1 over the rows; no column where all scores are equal.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _standardise(_robustly_standardised(table)[:, None], table.weight)


def beta_design(table: QuantileTable) -> Floats:
    """Return log s and -log(1 - s) of scores in [0, 1] (Kull, Silva Filho and Flach 2017, section 3).

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them; every score in [0, 1].

    Returns
    -------
    float64[m, k]
        k <= 2 columns of mean 0 and variance 1 over the rows.
    """
    return _standardise(np.column_stack(_log_and_log_of_rest(table.centre)), table.weight)


def _robustly_standardised(table: QuantileTable) -> Floats:
    quarter, half, three_quarters = np.interp([0.25, 0.5, 0.75], table.quantile, table.centre)
    spread = (three_quarters - quarter) or np.ptp(table.centre) or 1.0
    return np.asarray((table.centre - half) / spread)


def _log_and_log_of_rest(score: Floats) -> list[Floats]:
    inside = np.clip(score, 1e-9, 1.0 - 1e-9)
    return [np.log(inside), -np.log1p(-inside)]


def _standardise(columns: Floats, weight: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        centred = columns - np.average(columns, axis=0, weights=weight)
        deviation = np.sqrt(np.average(centred**2, axis=0, weights=weight))
        varies = np.isfinite(deviation) & (deviation > 1e-9 * np.abs(columns).max(axis=0))
    return np.asarray(centred[:, varies] / deviation[varies])
