"""How much less of a page is examined further down and further in, and what a cohort is worth then."""

from __future__ import annotations

from calibration.examination.both import Examination
from calibration.examination.noisy_or import noisy_or
from calibration.examination.position import PositionExamination
from calibration.examination.slot import SlotExamination

__all__ = ["Examination", "PositionExamination", "SlotExamination", "noisy_or"]
