"""The form of a curve: everything about it but the rates, so that rates can be fitted again under it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from calibration.errors import CalibrationError
from calibration.families import Response, ResponseFamily
from calibration.forms.isotonic import fit_isotonic
from calibration.forms.loglinear import RIDGE, Transforms, beta_design, loglinear_design, sigmoid_design
from calibration.forms.nonnegative import fit_non_negative
from calibration.forms.shrinkage import shrink_to_curve
from calibration.forms.spline import spline_design, spline_penalty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.binned import BinnedResponses

FormMethod = Literal["loglinear", "spline", "isotonic", "steps", "sigmoid", "beta"]


@dataclass(frozen=True)
class CurveForm:
    """How expected responses are made of binned responses.

    Parameters
    ----------
    method : {"loglinear", "spline", "isotonic", "steps", "sigmoid", "beta"}
        See ``QuantileResponseCalibrator``.
    transforms : {"rank", "all"}
        What ``"loglinear"`` sees.
    response : {"binary", "count", "continuous"}
        What a response is.
    curvature : float
        Penalty of ``"spline"``, in units of rows.
    is_shrunken : bool
        Bins are shrunken towards the curve by empirical Bayes: the data correct it where it misfits.

    Examples
    --------
    >>> CurveForm("spline").depends_on_ranks_only
    True
    """

    method: str
    transforms: str = "rank"
    response: str = "binary"
    curvature: float = 100.0
    is_shrunken: bool = False

    def __post_init__(self) -> None:
        for name, found, known in (
            ("method", self.method, get_args(FormMethod)),
            ("transforms", self.transforms, get_args(Transforms)),
            ("response", self.response, get_args(Response)),
        ):
            if found not in known:
                raise CalibrationError(f"unknown {name} {found!r}; known: {', '.join(known)}")
        if not (np.isfinite(self.curvature) and self.curvature > 0):
            raise CalibrationError(f"curvature is {self.curvature}; it must be finite and > 0")

    @property
    def family(self) -> ResponseFamily:
        """The response family itself."""
        return ResponseFamily.named(self.response)

    @property
    def depends_on_ranks_only(self) -> bool:
        """Whether a strictly increasing distortion of the raw scores leaves the rates alone."""
        return self.method in ("spline", "isotonic", "steps") or (
            self.method == "loglinear" and self.transforms == "rank"
        )

    def fit(self, binned: BinnedResponses) -> NDArray[np.float64]:
        """Fit the expected response of each bin.

        Parameters
        ----------
        binned : BinnedResponses
            m bins.

        Returns
        -------
        float64[m]
            Non-decreasing, inside the family's range. Without any response (1/2) / (n + 1), n the total
            exposure; where it is binary and nothing but clicks, the mirror image.

        Examples
        --------
        >>> from calibration.binned import BinnedResponses
        >>> from calibration.rows import CalibrationRows
        >>> CurveForm("isotonic").fit(BinnedResponses.of(CalibrationRows.checked([1.0] * 4, [0] * 4)))
        array([0.1])
        """
        family, table = self.family, binned.table
        total, exposure = float(binned.responses.sum()), float(binned.exposure.sum())
        half_a_row = 0.5 / (exposure + 1.0)
        if family.lowest == 0.0 and total <= 0.0:
            return np.full(binned.responses.size, half_a_row)
        if total >= exposure * (family.highest - 1e-9):
            return np.full(binned.responses.size, 1.0 - half_a_row)
        mean = total / exposure
        if family.name == "count" and mean > 1.0 + 1e-9:
            # in units of the mean: penalties and steps are the same for seconds as for hours
            scaled = replace(binned, responses=binned.responses / mean, squares=binned.squares / mean**2)
            return mean * self.fit(scaled)
        if self.method in ("isotonic", "steps"):
            smooth = fit_isotonic(binned, family, is_centred=self.method == "isotonic")
        elif self.method == "spline":
            smooth = fit_non_negative(spline_design(table), spline_penalty(self.curvature), binned, family)
        else:
            design = self._design(binned)
            smooth = fit_non_negative(design, RIDGE * np.eye(design.shape[1]), binned, family)
        return shrink_to_curve(smooth, binned, family) if self.is_shrunken else smooth

    def _design(self, binned: BinnedResponses) -> NDArray[np.float64]:
        if self.method == "sigmoid":
            return sigmoid_design(binned.table)
        if self.method == "beta":
            return beta_design(binned.table)
        return loglinear_design(binned.table, self.transforms)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CurveForm:
        """Make a form from plain values, as ``dataclasses.asdict`` gives them.

        Parameters
        ----------
        content : mapping
            Every field, and no other.

        Returns
        -------
        CurveForm

        Raises
        ------
        CalibrationError
            A field is missing, unknown, of the wrong kind, or out of range.
        """
        kinds: dict[str, tuple[type, ...]] = {
            "method": (str,),
            "transforms": (str,),
            "response": (str,),
            "curvature": (int, float),
            "is_shrunken": (bool,),
        }
        if not isinstance(content, dict) or set(content) != set(kinds):
            raise CalibrationError(f"a form has the fields {', '.join(kinds)}; found {content!r:.120}")
        for name, kind in kinds.items():
            if type(content[name]) not in kind:  # a bool is an int to isinstance
                raise CalibrationError(f"{name} of a form is {content[name]!r:.60}")
        return cls(**content)
