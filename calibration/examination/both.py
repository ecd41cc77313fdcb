"""Position and slot examination together: what a calibrator corrects for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.errors import CalibrationError
from calibration.examination.position import PositionExamination
from calibration.examination.slot import SlotExamination

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from calibration.examination.relative import RelativeExamination


@dataclass(frozen=True, eq=False)
class Examination:
    """Position and slot examination of a row, multiplied; a part that is None is not corrected.

    Parameters
    ----------
    position : PositionExamination, optional
    slot : SlotExamination, optional

    Notes
    -----
    P(response at position p, slot s) = position_p * slot_s * P(response | examined): the expected responses
    of a calibrator that learns with both are those of slot 0 at the top position, and an aggregation over
    slots must then give each slot its examination back (``noisy_or``). With the slot part None they are
    those of the slots that the ranker gave its scores, and no aggregation may discount them again.

    Examples
    --------
    >>> both = Examination(PositionExamination(np.array([1.0, 0.5])), SlotExamination(np.array([1.0, 0.8])))
    >>> both.at([0, 1, 1], [0, 0, 1])
    array([1. , 0.5, 0.4])
    >>> Examination.from_dict(both.to_dict()).to_dict()
    {'position': {'relative': [1.0, 0.5]}, 'slot': {'relative': [1.0, 0.8]}}
    """

    position: PositionExamination | None = None
    slot: SlotExamination | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What ``at`` needs to know of a row: none, one or both of ``position`` and ``slot``."""
        return tuple(name for name in ("position", "slot") if getattr(self, name) is not None)

    def at(self, position: ArrayLike | None, slot: ArrayLike | None) -> NDArray[np.float64]:
        """Return the examination of rows, relative to slot 0 of the top position.

        Parameters
        ----------
        position, slot : int[n], optional
            0 = top, 0 = first; one whose part is None is not read.

        Returns
        -------
        float64[n]
            In (0, 1].

        Raises
        ------
        CalibrationError
            A place that is missing, negative or not a whole number, or unequal lengths.
        """
        examined: NDArray[np.float64] | None = None
        for name, places in (("position", position), ("slot", slot)):
            part: RelativeExamination | None = getattr(self, name)
            if part is None:
                continue
            if places is None:
                raise CalibrationError(f"the {name} of each row is needed: its examination is corrected")
            found = part.at(places)
            if examined is not None and examined.shape != found.shape:
                raise CalibrationError(f"position has shape {examined.shape}, slot {found.shape}; they must be equal")
            examined = found if examined is None else examined * found
        if examined is None:
            length = next((np.shape(places) for places in (position, slot) if places is not None), (0,))
            return np.ones(length)
        return examined

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` reads back.

        Returns
        -------
        dict
            ``position`` and ``slot``, each None or as its own ``to_dict``.
        """
        return {
            "position": None if self.position is None else self.position.to_dict(),
            "slot": None if self.slot is None else self.slot.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Examination:
        """Read what :meth:`to_dict` wrote; no code is run, everything is checked.

        Parameters
        ----------
        content : mapping

        Returns
        -------
        Examination

        Raises
        ------
        CalibrationError
            Other fields, or a curve that breaks its contract.
        """
        if not hasattr(content, "keys") or set(content) != {"position", "slot"}:
            raise CalibrationError(f"an examination holds the fields position and slot; found {content!r:.80}")
        position, slot = content["position"], content["slot"]
        return cls(
            None if position is None else PositionExamination.from_dict(position),
            None if slot is None else SlotExamination.from_dict(slot),
        )
