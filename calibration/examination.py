"""How much less is seen further down the page, estimated from shuffled pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError
from calibration.isotonic import pool_adjacent_violators
from calibration.quantiles import sum_by_group

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class PositionExamination:
    """Probability that a position is examined, relative to the top position.

    Parameters
    ----------
    relative : float64[p]
        By position, 0 = top; 1 at position 0, non-increasing, > 0. Positions beyond take the last value.

    Notes
    -----
    The position-based model (Craswell et al. 2008, "An experimental comparison of click position-bias
    models", section 3): P(response at position k) = examination_k * P(response | examined). Only ratios are
    identified, hence the reference position. *Slot* examination, inside a cohort, is not identified by
    shuffled pages, because the slots of a cohort follow the raw score; it is not corrected here.

    Examples
    --------
    >>> PositionExamination(np.array([1.0, 0.5])).at([0, 1, 7])
    array([1. , 0.5, 0.5])
    """

    relative: NDArray[np.float64]

    def __post_init__(self) -> None:
        relative = np.array(self.relative, dtype=np.float64)  # a copy: the caller's array stays writable
        if relative.ndim != 1 or relative.size == 0 or not np.isfinite(relative).all():
            raise CalibrationError("relative examination must be finite numbers, one a position")
        if relative[0] != 1.0 or relative[-1] <= 0.0 or np.any(np.diff(relative) > 0):
            raise CalibrationError(
                "relative examination must be 1 at position 0, never increase and stay > 0; "
                f"found {np.array2string(relative, threshold=6, precision=4)}"
            )
        relative.setflags(write=False)
        object.__setattr__(self, "relative", relative)

    @classmethod
    def constant(cls) -> PositionExamination:
        """Return the examination of a page that is always read to the end: no correction.

        Returns
        -------
        PositionExamination

        Examples
        --------
        >>> PositionExamination.constant().at([0, 30])
        array([1., 1.])
        """
        return cls(np.ones(1))

    @classmethod
    def fit(
        cls,
        position: ArrayLike,
        response: ArrayLike,
        sample_weight: ArrayLike | None = None,
        stratum: ArrayLike | None = None,
    ) -> PositionExamination:
        """Estimate relative examination from rows of randomly shuffled pages.

        Parameters
        ----------
        position : int[n]
            Of the cohort on its page, 0 = top. It must be independent of the content within a stratum, as
            the random policy makes it; on other rows the estimate absorbs what that policy put on top.
        response : float[n]
            >= 0; usually 0 or 1.
        sample_weight : float[n], optional
            Frequency weights >= 0; default 1.
        stratum : any[n], optional
            Rows that share a response rate, for instance the entity type, since not every page has every
            type. Default: one stratum.

        Returns
        -------
        PositionExamination

        Raises
        ------
        CalibrationError
            Unequal lengths, a value out of range, no row at position 0, or no response at all.

        Notes
        -----
        Maximum likelihood of responses ~ Poisson(rows * rate_stratum * examination_position), examination
        non-increasing: given the rates, weighted pool-adjacent-violators of observed / expected; given the
        examination, responses / expected; repeated until both stand still. Strata are thereby compared with
        themselves only. Positions without rows take the value of the last one that has some.

        Examples
        --------
        >>> position = np.repeat([0, 1], 100)
        >>> response = np.concatenate([np.arange(100) < 20, np.arange(100) < 10])
        >>> PositionExamination.fit(position, response).relative
        array([1. , 0.5])
        """
        counts, responses = _count(position, response, sample_weight, stratum)
        seen = counts.sum(axis=0) > 0
        if not seen[0]:
            raise CalibrationError("no row at position 0, the reference; examination is relative to it")
        if not responses.sum() > 0:
            raise CalibrationError(
                "no response at any position, so examination cannot be estimated; "
                "use PositionExamination.constant() for no correction"
            )
        relative = np.ones(int(seen.sum()))
        n, y = counts[:, seen], responses[:, seen]
        for _ in range(1000):
            rate = y.sum(axis=1) / (n @ relative)
            expected = rate @ n
            informative = expected > 0  # positions that show only strata without a response say nothing
            pooled = _non_increasing(y.sum(axis=0)[informative], expected[informative])
            updated = np.interp(np.arange(relative.size), np.flatnonzero(informative), pooled)
            updated /= updated[0]
            if np.max(np.abs(updated - relative)) < 1e-12:
                break
            relative = updated
        latest_seen = np.cumsum(seen) - 1
        return cls(relative[latest_seen])

    def at(self, position: ArrayLike) -> NDArray[np.float64]:
        """Return the relative examination of positions.

        Parameters
        ----------
        position : int[n]
            0 = top.

        Returns
        -------
        float64[n]
            In (0, 1]; the last value beyond the table.

        Raises
        ------
        CalibrationError
            A position that is negative or not a whole number.
        """
        return self.relative[np.minimum(_whole_positions(position), self.relative.size - 1)]


def _count(
    position: ArrayLike, response: ArrayLike, sample_weight: ArrayLike | None, stratum: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted rows and responses, float64[strata, positions] each."""
    positions = _whole_positions(position)
    responses = np.asarray(response, dtype=np.float64)
    weights = np.ones(positions.shape) if sample_weight is None else np.asarray(sample_weight, np.float64)
    strata = np.zeros(positions.shape) if stratum is None else np.asarray(stratum)
    if positions.size == 0 or not positions.shape == responses.shape == weights.shape == strata.shape:
        raise CalibrationError(
            f"position has shape {positions.shape}, response {responses.shape}, "
            f"sample_weight {weights.shape}, stratum {strata.shape}; "
            "they must be equally long, with at least one row"
        )
    for name, values in (("response", responses), ("sample_weight", weights)):
        wrong = ~((values >= 0) & np.isfinite(values))
        if wrong.any():
            first = int(np.argmax(wrong))
            raise CalibrationError(f"{name} must be finite and >= 0; row {first} has {values[first]}")
    _, stratum_code = np.unique(strata, return_inverse=True)
    shape = (int(stratum_code.max()) + 1, int(positions.max()) + 1)
    cell = stratum_code * shape[1] + positions
    counts = sum_by_group(cell, weights, shape[0] * shape[1]).reshape(shape)
    sums = sum_by_group(cell, weights * responses, shape[0] * shape[1]).reshape(shape)
    has_rows = counts.sum(axis=1) > 0
    return counts[has_rows], sums[has_rows]


def _whole_positions(position: ArrayLike) -> NDArray[np.intp]:
    values = np.asarray(position)
    wrong = ~((values >= 0) & (values == np.floor(values)) & np.isfinite(values))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CalibrationError(f"position must be a whole number >= 0; row {first} has {values.reshape(-1)[first]}")
    return values.astype(np.intp)


def _non_increasing(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = -pool_adjacent_violators(-observed / expected, expected)
    # No response at all below some position: half a response there, since examination 0 would be a claim.
    empty = ratio <= 0.0
    if empty.any():
        ratio[empty] = min(0.5 / (expected[empty].sum() + 0.5), ratio[~empty].min())
    return ratio
