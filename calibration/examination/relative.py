"""Examination by place, relative to the first: the table that positions and slots have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from calibration.examination.rates import PlaceCounts


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How far a fitted examination may be off, by a bootstrap over viewers.

    Parameters
    ----------
    standard_error : float64[p]
        Standard deviation over the resamples; 0 at place 0, the reference.
    lower, upper : float64[p]
        The 2.5 % and 97.5 % quantiles of the resamples, place by place.

    Notes
    -----
    Resamples repeat the variance of a fit, not the bias that its smooth curve and its order bring: on logs of
    known truth the intervals held it at about 90 % of the places, and at 75 % of those where a curve that is
    flat elsewhere drops.
    """

    standard_error: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RelativeExamination:
    """Probability that a place is examined, relative to the first place.

    Parameters
    ----------
    relative : float64[p]
        By place; 1 at place 0, non-increasing, > 0. Places beyond take the last value.
    uncertainty : Uncertainty, optional
        Of a fit with resamples; not saved.

    Raises
    ------
    CalibrationError
        Values that are not such a curve.

    Examples
    --------
    >>> RelativeExamination(np.array([1.0, 0.5])).at([0, 1, 7])
    array([1. , 0.5, 0.5])
    """

    place_name: ClassVar[str] = "place"

    relative: NDArray[np.float64]
    uncertainty: Uncertainty | None = None

    def __post_init__(self) -> None:
        relative = np.array(self.relative, dtype=np.float64)  # a copy: the caller's array stays writable
        if relative.ndim != 1 or relative.size == 0 or not np.isfinite(relative).all():
            raise CalibrationError("relative examination must be finite numbers, one a place, 0 = first")
        if relative[0] != 1.0 or relative[-1] <= 0.0 or np.any(np.diff(relative) > 0):
            raise CalibrationError(
                f"relative examination must be 1 at {self.place_name} 0, never increase and stay > 0; "
                f"found {np.array2string(relative, threshold=6, precision=4)}"
            )
        relative.setflags(write=False)
        object.__setattr__(self, "relative", relative)

    @classmethod
    def constant(cls) -> Self:
        """Return the examination of places that are always read to the end: no correction.

        Examples
        --------
        >>> RelativeExamination.constant().at([0, 30])
        array([1., 1.])
        """
        return cls(np.ones(1))

    @classmethod
    def _of(cls, counts: PlaceCounts, n_resamples: int, seed: int) -> Self:
        relative = counts.relative()
        if not n_resamples:
            return cls(relative)
        draws = counts.bootstrap(n_resamples, seed)
        lower, upper = np.quantile(draws, [0.025, 0.975], axis=0)
        return cls(relative, Uncertainty(draws.std(axis=0, ddof=1), lower, upper))

    def at(self, place: ArrayLike) -> NDArray[np.float64]:
        """Return the relative examination of places.

        Parameters
        ----------
        place : int[n]
            0 = first.

        Returns
        -------
        float64[n]
            In (0, 1]; the last value beyond the table.

        Raises
        ------
        CalibrationError
            A place that is negative or not a whole number.
        """
        return self.relative[np.minimum(whole_places(place, self.place_name), self.relative.size - 1)]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per place, for printing.

        Returns
        -------
        DataFrame
            relative; after a fit with resamples also standard_error, lower and upper.
        """
        columns = {"relative": self.relative}
        if self.uncertainty is not None:
            columns |= vars(self.uncertainty)
        return pd.DataFrame(columns).rename_axis(self.place_name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` reads back.

        Returns
        -------
        dict
            ``relative``: a list of floats.
        """
        return {"relative": self.relative.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote; no code is run, everything is checked.

        Parameters
        ----------
        content : mapping

        Returns
        -------
        RelativeExamination
            Of the class that is asked.

        Raises
        ------
        CalibrationError
            Other fields, something else than numbers, or values that are not such a curve.

        Examples
        --------
        >>> RelativeExamination.from_dict({"relative": [1.0, 0.5]}).relative
        array([1. , 0.5])
        """
        if not isinstance(content, dict) or set(content) != {"relative"} or not isinstance(content["relative"], list):
            raise CalibrationError(f"an examination holds the field relative, a list; found {content!r:.80}")
        if not {type(value) for value in content["relative"]} <= {float, int}:
            raise CalibrationError(f"relative examination must be numbers; found {content['relative']!r:.80}")
        return cls(np.array(content["relative"], dtype=np.float64))


def whole_places(place: ArrayLike, name: str) -> NDArray[np.intp]:
    """Return places as integers.

    Parameters
    ----------
    place : int[n]
    name : str
        What to call them in the error.

    Returns
    -------
    int[n]

    Raises
    ------
    CalibrationError
        A place that is negative or not a whole number, with its row.

    Examples
    --------
    >>> whole_places([0.0, 3.0], "slot")
    array([0, 3])
    """
    try:
        values = np.asarray(place, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} does not hold numbers: {error}") from error
    wrong = ~((values >= 0) & (values == np.floor(values)) & np.isfinite(values))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CalibrationError(f"{name} must be a whole number >= 0; row {first} has {values.reshape(-1)[first]}")
    return values.astype(np.intp)
