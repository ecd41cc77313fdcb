"""One delivered page as a ledger keeps it: checked whole before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import index

from spr.errors import ConfigError, InvalidRequest

MAX_ID_BYTES = 500
"""Of an id or a name in UTF-8; a key of LMDB holds 511."""

MAX_COUNT = 2**32 - 2
"""Of one page; it is kept in four bytes, whose greatest number says that the page does not count."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = 2**53  # microseconds: past it a double, as Redis keeps scores, no longer tells neighbours apart


@dataclass(frozen=True, slots=True)
class DeliveredPage:
    """The checked record of one page.

    Parameters
    ----------
    request_id, viewer_id : str
    at : int
        Microseconds since 1970, UTC.
    counts : dict of str to int
        By guarantee, each from 0 to ``total``.
    total : int
    """

    request_id: str
    viewer_id: str
    at: int
    counts: dict[str, int]
    total: int

    @classmethod
    def checked(
        cls, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int
    ) -> DeliveredPage:
        """Check the parts of a record as they come from a service.

        Raises
        ------
        InvalidRequest
            Naming the part, what was found and what is allowed.

        Examples
        --------
        >>> moment = datetime(2026, 2, 1)
        >>> DeliveredPage.checked("r1", "v1", moment, {"connection-floor": 2, "follow-floor": 0}, 5).counts
        {'connection-floor': 2, 'follow-floor': 0}
        >>> DeliveredPage.checked("r1", "v1", moment, {"connection-floor": 7}, 5)
        Traceback (most recent call last):
        spr.errors.InvalidRequest: request 'r1': delivered 'connection-floor' is 7; allowed: 0 to the page's total, 5
        """
        check_id("request_id", request_id)
        check_id("viewer_id", viewer_id)
        where = f"request {request_id!r}"
        moment = microseconds(at, where)
        whole = _whole(total, "total", where)
        if not isinstance(counts, Mapping):
            raise InvalidRequest(f"{where}: counts is a {type(counts).__name__}; allowed: a mapping of name to count")
        kept = {}
        for name, count in counts.items():
            check_id("the name of a count", name, where)
            number = _whole(count, f"delivered {name!r}", where)
            if number > whole:
                raise InvalidRequest(
                    f"{where}: delivered {name!r} is {number}; allowed: 0 to the page's total, {whole}"
                )
            kept[name] = number
        return cls(request_id, viewer_id, moment, kept, whole)


def check_id(what: str, found: str, where: str = "") -> bytes:
    """Return an id or a name in UTF-8.

    Raises
    ------
    InvalidRequest
        When it is no string, empty, longer than `MAX_ID_BYTES` or no valid Unicode.
    """
    place = f"{where}: " if where else ""
    if not isinstance(found, str) or not found:
        raise InvalidRequest(f"{place}{what} is {found!r}; allowed: a string that is not empty")
    try:
        encoded = found.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{place}{what} is {found!r}, which UTF-8 cannot hold: {error.reason}") from error
    if len(encoded) > MAX_ID_BYTES:
        size = f"{len(encoded)} bytes of UTF-8"
        raise InvalidRequest(f"{place}{what} starting {found[:20]!r} has {size}; allowed: at most {MAX_ID_BYTES}")
    return encoded


def microseconds(at: datetime, where: str) -> int:
    """Return a moment in microseconds since 1970, UTC; without a time zone it is read as UTC.

    Raises
    ------
    InvalidRequest
        When it is no moment, or before 1970 or after June 2255.

    Examples
    --------
    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1), "request 'r1'")
    1000000
    """
    if not isinstance(at, datetime) or at != at:  # pandas' NaT is a datetime that differs from itself
        raise InvalidRequest(f"{where}: at is {at!r}; allowed: a datetime")
    since = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _EPOCH
    moment = _microseconds(since)
    if not 0 <= moment < _END:
        raise InvalidRequest(f"{where}: at is {at.isoformat()}; allowed: from 1970 to June 2255")
    return moment


def check_window(window: timedelta) -> int:
    """Return a window in microseconds.

    Raises
    ------
    ConfigError
        When it is not a positive timedelta.
    """
    if not isinstance(window, timedelta) or window <= timedelta(0):
        raise ConfigError(f"window is {window!r}; allowed: a timedelta above 0, e.g. timedelta(days=28)")
    return _microseconds(window)


def _microseconds(duration: timedelta) -> int:
    return (duration.days * 86_400 + duration.seconds) * 1_000_000 + duration.microseconds


def _whole(found: int, what: str, where: str) -> int:
    try:
        # True is an int to Python, and a flag where a count belongs is a mistake
        number = -1 if isinstance(found, bool) else index(found)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_COUNT:
        raise InvalidRequest(f"{where}: {what} is {found!r}; allowed: a whole number from 0 to {MAX_COUNT}")
    return number
