"""Forms of a curve: from binned responses to monotone expected responses, and which form to take."""

from __future__ import annotations

from calibration.forms.form import CurveForm
from calibration.forms.selection import choose_form

__all__ = ["CurveForm", "choose_form"]
