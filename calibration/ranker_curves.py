"""Curves by ranker: a mapping that answers a whole page in one call."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError, UnknownCalibrator
from calibration.lookup import CurveLookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.curve import ResponseCurve
    from calibration.impressions import Ranker, RankerKey, Segment


@dataclass(frozen=True, eq=False)
class RankerCurves:
    """One curve per ranker, and per segment of its viewers where they were told apart.

    Parameters
    ----------
    curves : mapping of (entity_type, ranker_version) to ResponseCurve
        At least one.
    segments : mapping of (entity_type, ranker_version, segment) to ResponseCurve
        Curves of segments, of rankers that are in ``curves``.

    Notes
    -----
    Iterating gives the rankers; ``len``, ``in`` and ``[]`` work as on a mapping of these. ``[]`` also takes
    (entity_type, ranker_version, segment) and answers with the ranker's own curve for a segment without one.

    Examples
    --------
    >>> from calibration import QuantileResponseCalibrator
    >>> curve = QuantileResponseCalibrator().fit(range(60), [0, 0, 1] * 20).curve_
    >>> curves = RankerCurves({("people", "p1"): curve})
    >>> curves["people", "p1", "frequent"] is curve
    True
    >>> curves.predict(np.array([30.0, np.nan]), np.array([0, 0]), [("people", "p1")]).round(1)
    array([0.3, nan])
    """

    curves: Mapping[Ranker, ResponseCurve]
    segments: Mapping[Segment, ResponseCurve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.curves:
            raise CalibrationError("a calibrator set needs at least one curve")
        homeless = [key for key in self.segments if key[:2] not in self.curves]
        if homeless:
            raise CalibrationError(f"segment {homeless[0]!r} has no curve of its ranker {homeless[0][:2]!r}")
        for name in ("curves", "segments"):
            object.__setattr__(self, name, MappingProxyType(dict(sorted(getattr(self, name).items()))))

    @property
    def entity_types(self) -> tuple[str, ...]:
        """The entity types that have a curve, sorted."""
        return tuple(sorted({entity_type for entity_type, _ in self.curves}))

    def known(self, entity_type: str) -> tuple[str, ...]:
        """Return the ranker versions of a type that have a curve, sorted.

        Parameters
        ----------
        entity_type : str

        Returns
        -------
        tuple of str
            Empty for a type without any.
        """
        return tuple(version for found, version in self.curves if found == entity_type)

    def __getitem__(self, key: RankerKey) -> ResponseCurve:
        if not isinstance(key, tuple) or len(key) not in (2, 3):
            raise CalibrationError(f"a curve's key is (entity_type, ranker_version[, segment]); found {key!r}")
        try:
            if len(key) == 3 and key in self.segments:
                return self.segments[key]
            return self.curves[key[:2]]
        except KeyError:
            raise self._unknown(key) from None

    def __contains__(self, key: object) -> bool:
        return key in self.curves

    def __iter__(self) -> Iterator[Ranker]:
        return iter(self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    def segments_of(self, key: Ranker) -> dict[str, ResponseCurve]:
        """Return the curves of a ranker's segments, by segment."""
        return {each[2]: curve for each, curve in self.segments.items() if each[:2] == key}

    def _unknown(self, key: RankerKey) -> UnknownCalibrator:
        known = [" ".join(each) for each in self.curves]
        close = difflib.get_close_matches(" ".join(key[:2]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return UnknownCalibrator(
            f"no calibrator for {key[0]!r}, {key[1]!r}; known: {', '.join(known)}.{hint} "
            "Fit one with refitted(impressions, entity_type=..., ranker_version=...)"
        )

    def predict(
        self, raw_score: NDArray[np.float64], ranker: NDArray[np.intp], rankers: Sequence[RankerKey]
    ) -> NDArray[np.float64]:
        """Return the expected responses of a page, all entity types in one call.

        Parameters
        ----------
        raw_score : float64[n]
            NaN = not scorable.
        ranker : int[n]
            Row i was scored by rankers[ranker[i]].
        rankers : sequence of (entity_type, ranker_version) or (entity_type, ranker_version, segment)
            Those of the page; a segment without a curve is answered by its ranker's own.

        Returns
        -------
        float64[n]
            NaN where the raw score is.

        Raises
        ------
        UnknownCalibrator
            A ranker that has no curve.
        CalibrationError
            A number in ``ranker`` that is not in ``rankers``.
        """
        raw_score, ranker = np.asarray(raw_score, dtype=np.float64), np.asarray(ranker)
        # negative numbers become huge ones: one pass finds both ends
        if ranker.size and ranker.astype(np.uintp).max() >= len(rankers):
            wrong = np.count_nonzero((ranker < 0) | (ranker >= len(rankers)))
            raise CalibrationError(
                f"ranker numbers must be in 0 .. {len(rankers) - 1}; {wrong} of {raw_score.size} are not"
            )
        numbers, lookup = self._lookup
        number = [numbers.get(key, numbers.get(key[:2], -1)) for key in rankers]
        if -1 in number:
            raise self._unknown(rankers[number.index(-1)])
        return lookup.answer(raw_score, np.array(number)[ranker])

    @cached_property
    def _lookup(self) -> tuple[dict[RankerKey, int], CurveLookup]:
        keys: list[RankerKey] = [*self.curves, *self.segments]
        return {key: number for number, key in enumerate(keys)}, CurveLookup.of(self[key] for key in keys)
