"""How much less is seen further down the page, estimated from shuffled pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from calibration.errors import CalibrationError
from calibration.examination.rates import PlaceCounts
from calibration.examination.relative import RelativeExamination, whole_places

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class PositionExamination(RelativeExamination):
    """Probability that a position is examined, relative to the top position.

    Parameters
    ----------
    relative : float64[p]
        By position, 0 = top; 1 at position 0, non-increasing, > 0. Positions beyond take the last value.
    uncertainty : Uncertainty, optional
        Of a fit with ``n_resamples``; not saved.

    Notes
    -----
    The position-based model (Craswell et al. 2008, "An experimental comparison of click position-bias
    models", section 3): P(response at position k) = examination_k * P(response | examined). Only ratios are
    identified, hence the reference position. *Slot* examination, inside a cohort, is not identified by
    shuffled pages, because the slots of a cohort follow the raw score: see ``SlotExamination``.

    Examples
    --------
    >>> PositionExamination(np.array([1.0, 0.5])).at([0, 1, 7])
    array([1. , 0.5, 0.5])
    """

    place_name: ClassVar[str] = "position"

    @classmethod
    def fit(
        cls,
        position: ArrayLike,
        response: ArrayLike,
        sample_weight: ArrayLike | None = None,
        stratum: ArrayLike | None = None,
        *,
        viewer: ArrayLike | None = None,
        n_resamples: int = 0,
        seed: int = 0,
    ) -> Self:
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
        viewer : any[n], optional
            Whose row it is; needed for intervals, since the rows of a viewer are not independent.
        n_resamples : int
            Of viewers, for ``uncertainty``; 200 is usual. Default 0: none.
        seed : int
            Of the resamples.

        Returns
        -------
        PositionExamination

        Raises
        ------
        CalibrationError
            Unequal lengths, a value out of range, no row at position 0, no response at all, or
            resamples asked for without viewers.

        Notes
        -----
        See ``PlaceCounts.relative``: strata are compared with themselves only, and positions with few
        responses lean on a smooth curve through all of them. A stratum's responses count in units of
        sum(y^2) / sum(y), which is 1 for clicks: a type measured in seconds does not outvote them.

        Examples
        --------
        >>> position = np.repeat([0, 1], 100)
        >>> response = np.concatenate([np.arange(100) < 20, np.arange(100) < 10])
        >>> PositionExamination.fit(position, response).relative.round(1)
        array([1. , 0.5])
        """
        if n_resamples and viewer is None:
            raise CalibrationError("intervals resample viewers: give viewer, or leave n_resamples at 0")
        counts = _count(position, response, sample_weight, stratum, viewer)
        return cls._of(counts, n_resamples, seed)


def _count(
    position: ArrayLike,
    response: ArrayLike,
    sample_weight: ArrayLike | None,
    stratum: ArrayLike | None,
    viewer: ArrayLike | None,
) -> PlaceCounts:
    positions = whole_places(position, "position")
    responses = np.asarray(response, dtype=np.float64)
    weights = np.ones(positions.shape) if sample_weight is None else np.asarray(sample_weight, np.float64)
    strata = np.zeros(positions.shape) if stratum is None else np.asarray(stratum)
    viewers = np.zeros(positions.shape) if viewer is None else np.asarray(viewer)
    if positions.size == 0 or not (
        positions.shape == responses.shape == weights.shape == strata.shape == viewers.shape
    ):
        raise CalibrationError(
            f"position has shape {positions.shape}, response {responses.shape}, "
            f"sample_weight {weights.shape}, stratum {strata.shape}, viewer {viewers.shape}; "
            "they must be equally long, with at least one row"
        )
    for name, values in (("response", responses), ("sample_weight", weights)):
        wrong = ~((values >= 0) & np.isfinite(values))
        if wrong.any():
            first = int(np.argmax(wrong))
            raise CalibrationError(f"{name} must be finite and >= 0; row {first} has {values[first]}")
    _, stratum_code = np.unique(strata, return_inverse=True)
    responses = responses / _unit(responses, weights, stratum_code)[stratum_code]
    _, viewer_code = np.unique(viewers, return_inverse=True)
    return PlaceCounts.of(
        positions, stratum_code, weights, weights * responses, viewer_code, PositionExamination.place_name
    )


def _unit(
    responses: NDArray[np.float64], weights: NDArray[np.float64], stratum: NDArray[np.intp]
) -> NDArray[np.float64]:
    total, squares = (np.bincount(stratum, weights * each) for each in (responses, responses**2))
    return np.asarray(np.divide(squares, total, out=np.ones(total.size), where=total > 0))
