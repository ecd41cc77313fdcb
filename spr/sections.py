"""What every section of the configuration is made of."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import pydantic
from pydantic import BeforeValidator, ConfigDict, PlainSerializer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_duration(value: object) -> timedelta:
    """Read a number and its unit: s, m, h or d; a timedelta stays one.

    Raises
    ------
    ValueError
        When it is something else, a number without a unit among it.

    Examples
    --------
    >>> read_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration: write a number and s, m, h or d, e.g. '3d'")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


Duration = Annotated[
    timedelta,
    BeforeValidator(read_duration),
    PlainSerializer(lambda span: f"{span.total_seconds():f}".rstrip("0").rstrip(".") + "s", return_type=str),
]


class Section(pydantic.BaseModel):
    """A section of the configuration: frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
