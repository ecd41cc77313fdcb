"""What a calibrator set was fitted with, kept so that one curve can be fitted again in the same way."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from calibration.errors import CalibrationError
from calibration.families import Response, ResponseFamily
from calibration.forms.loglinear import Transforms
from calibration.impressions import checked_rows
from calibration.response import Method, fit_curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from calibration.binned import ScoredResponses
    from calibration.curve import ResponseCurve
    from calibration.examination import Examination
    from calibration.rows import CalibrationRows


@dataclass(frozen=True)
class CalibrationSettings:
    """How the curves of a set are fitted.

    Parameters
    ----------
    method, transforms : str
        As in ``QuantileResponseCalibrator``.
    response : mapping of entity type to {"binary", "count", "continuous"}
        What each type's ranker is labelled with; binary where it is not named.
    negative_sampling_rate : mapping of entity type to float
        The share of rows without a response that the log kept; 1 where it is not named.
    segment : str, optional
        Column of the impressions table by which a type's curve is split, for instance how active a viewer is.

    Raises
    ------
    CalibrationError
        An unknown method, transforms or response, or a rate outside (0, 1].

    Examples
    --------
    >>> settings = CalibrationSettings(response={"newsletter": "count"})
    >>> settings.family("newsletter").name, settings.family("people").name
    ('count', 'binary')
    """

    method: str = "auto"
    transforms: str = "rank"
    response: Mapping[str, str] = field(default_factory=dict)
    negative_sampling_rate: Mapping[str, float] = field(default_factory=dict)
    segment: str | None = None

    def __post_init__(self) -> None:
        for name in ("response", "negative_sampling_rate"):
            if not hasattr(getattr(self, name), "items"):
                raise CalibrationError(
                    f"{name} maps entity types to values, for instance {{'newsletter': ...}}; "
                    f"found {getattr(self, name)!r:.60}"
                )
        named = [("method", self.method, Method), ("transforms", self.transforms, Transforms)]
        named += [(f"response of {each!r}", found, Response) for each, found in self.response.items()]
        for name, found, known in named:
            if found not in get_args(known):
                raise CalibrationError(f"unknown {name} {found!r}; known: {', '.join(get_args(known))}")
        for entity_type, rate in self.negative_sampling_rate.items():
            if not 0.0 < rate <= 1.0:
                raise CalibrationError(f"negative_sampling_rate of {entity_type!r} is {rate}; it must be in (0, 1]")
            if rate < 1.0 and self.response.get(entity_type, "binary") != "binary":
                raise CalibrationError(
                    f"negative_sampling_rate of {entity_type!r} is {rate}; it must be 1 unless the response is binary "
                    f"(it is {self.response[entity_type]})"
                )
        for name in ("response", "negative_sampling_rate"):
            object.__setattr__(self, name, MappingProxyType(dict(sorted(getattr(self, name).items()))))

    def family(self, entity_type: str) -> ResponseFamily:
        """Return what a response of this entity type is."""
        return ResponseFamily.named(self.response.get(entity_type, "binary"))

    def rows(
        self,
        entity_type: str,
        impressions: pd.DataFrame,
        index: NDArray[np.intp],
        examination: Examination | None,
    ) -> CalibrationRows:
        """Return checked rows of this entity type, sampled ones as those of the population before sampling."""
        rows = checked_rows(impressions, index, examination, self.family(entity_type))
        return rows.of_population(self.negative_sampling_rate.get(entity_type, 1.0))

    def fit_curve(self, entity_type: str, rows: ScoredResponses) -> ResponseCurve:
        """Fit the curve of one ranker of this entity type."""
        return fit_curve(
            rows,
            method=self.method,
            transforms=self.transforms,
            response=self.family(entity_type).name,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON-able values."""
        return {
            "method": self.method,
            "transforms": self.transforms,
            "response": dict(self.response),
            "negative_sampling_rate": dict(self.negative_sampling_rate),
            "segment": self.segment,
        }

    @classmethod
    def from_dict(cls, content: Any) -> CalibrationSettings:
        """Make the settings that ``to_dict`` wrote.

        Raises
        ------
        CalibrationError
            A field is missing, unknown, of the wrong kind or out of range.
        """
        fields = ("method", "transforms", "response", "negative_sampling_rate", "segment")
        if not isinstance(content, dict) or set(content) != set(fields):
            raise CalibrationError(f"settings have the fields {', '.join(fields)}; found {content!r:.120}")
        response, rate, segment = content["response"], content["negative_sampling_rate"], content["segment"]
        if not isinstance(response, dict) or not isinstance(rate, dict):
            raise CalibrationError("settings: response and negative_sampling_rate must map entity types")
        if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in rate.values()):
            raise CalibrationError(f"settings: negative_sampling_rate is {rate!r:.80}; rates must be numbers")
        if not (segment is None or isinstance(segment, str)):
            raise CalibrationError(f"settings: segment is {segment!r:.60}; it must be a column name or null")
        return cls(**content)
