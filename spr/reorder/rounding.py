"""Fractional minima: 0.3 cohorts a page are one cohort on three pages of ten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from spr.reorder.guarantees import ImpressionGuarantee

_DIGITS = 12  # sums of short decimals miss whole numbers by less


def fractional_rows(guarantees: Sequence[ImpressionGuarantee]) -> list[int]:
    """Return which guarantees have a fractional minimum, in the order in which they are rounded.

    By ``within_top``, so that what a top asks is a sum of neighbours.
    """
    rows = [row for row, g in enumerate(guarantees) if g.minimum is not None and g.minimum != np.floor(g.minimum)]
    return sorted(rows, key=lambda row: guarantees[row].within_top)


def round_minima(minimum: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Round fractional minima together, by one uniform draw.

    Parameters
    ----------
    minimum : float array, shape (n_minima,)
        >= 0.

    Returns
    -------
    end : float array, shape (n_outcomes,)
        A uniform draw below ``end[i]`` and not below ``end[i - 1]`` gives outcome i; increasing, the last is 1.
    rounded : int array, shape (n_outcomes, n_minima)
        The whole minima of each outcome.

    Notes
    -----
    Systematic sampling (Madow 1949, "On the theory of systematic sampling", Annals of Mathematical Statistics 20): with
    S_t the sum of the first t minima, minimum t becomes ``floor(S_t + u) - floor(S_{t-1} + u)``. Its expectation over u
    is exact, it is the floor or the ceiling of the minimum, so is every sum of neighbours, and the outcome changes only
    at the n points ``1 - frac(S_t)``: at most n + 1 outcomes.

    Examples
    --------
    >>> end, rounded = round_minima([0.3, 0.5])
    >>> end.tolist(), rounded.tolist()
    ([0.2, 0.7, 1.0], [[0, 0], [0, 1], [1, 0]])
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(minimum, dtype=np.float64))]).round(_DIGITS)
    end = np.unique(np.append((1.0 - np.mod(sums, 1.0)).round(_DIGITS), 1.0))
    middle = end - 0.5 * np.diff(end, prepend=0.0)
    rounded = np.diff(np.floor(sums + middle[:, None]), axis=1).astype(np.int64)
    return end, rounded
