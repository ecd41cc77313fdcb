"""What calibration raises on purpose: what was found, what is allowed, where, and what to do."""

from __future__ import annotations


class CalibrationError(ValueError):
    """Rows nobody can learn from, a curve that breaks its contract, or a saved set that cannot be read."""


class UnknownCalibrator(CalibrationError, LookupError):
    """An (entity type, ranker version) that has no calibrator in the set."""


class CalibrationWarning(UserWarning):
    """A curve that answers, but on so little that a reader should know; ``ResponseCurve.warnings`` keeps them."""


class SlotExaminationNotIdentified(CalibrationError):
    """Rows that cannot tell how much less is seen at later slots from how much worse the later entities are."""
