"""What every section of the configuration is made of."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import pydantic
from pydantic import BeforeValidator, ConfigDict, PlainSerializer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_duration(text: str) -> timedelta:
    """Read a number and its unit: s, m, h or d.

    Raises
    ------
    ValueError
        When the text is something else.

    Examples
    --------
    >>> read_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number and s, m, h or d, e.g. '3d'")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


Duration = Annotated[
    timedelta,
    BeforeValidator(lambda value: read_duration(value) if isinstance(value, str) else value),
    PlainSerializer(lambda span: f"{span.total_seconds():f}".rstrip("0").rstrip(".") + "s", return_type=str),
]


class Section(pydantic.BaseModel):
    """A section of the configuration: frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
