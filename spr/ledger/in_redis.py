"""A delivery ledger in Redis, shared by many machines: per viewer a hash of records and a sorted set of moments."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spr.errors import ConfigError, LedgerError, MissingDependency
from spr.ledger.contract import DEFAULT_WINDOW, Delivered
from spr.ledger.page import DeliveredPage, check_id, check_window, microseconds

try:
    import redis
except ImportError as error:
    raise MissingDependency("RedisLedger needs redis, which is missing; run: pip install 'spr[redis]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self

_FORM = "1"  # the first word of a record

# Keys expire a window after the later of now and the newest record, so that a test or a replay with moments long past
# keeps them too. The server's clock is asked for that alone.
_RECORD = """
local records, moments = KEYS[1], KEYS[2]
local id, at, record, window = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if redis.call('HEXISTS', records, id) == 1 then return 0 end
local newest = at
local last = redis.call('ZREVRANGE', moments, 0, 0, 'WITHSCORES')
if last[2] then newest = math.max(at, tonumber(last[2])) end
if at <= newest - window then return 0 end
local edge = string.format('%.0f', newest - window)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', moments, '-inf', edge)) do redis.call('HDEL', records, old) end
redis.call('ZREMRANGEBYSCORE', moments, '-inf', edge)
redis.call('HSET', records, id, record)
redis.call('ZADD', moments, ARGV[2], id)
local now = redis.call('TIME')
local ahead = math.max(0, newest - (tonumber(now[1]) * 1000000 + tonumber(now[2])))
local life = string.format('%.0f', math.ceil((window + ahead) / 1000))
redis.call('PEXPIRE', records, life)
redis.call('PEXPIRE', moments, life)
return 1
"""


class RedisLedger:
    """Counters in Redis or a cluster of it, for every machine that reaches it.

    A record is one script on the server, in one round trip: it looks for the request id, drops what has left the
    window, writes, and sets both keys to expire. A client may repeat a call whose connection broke, so that False can
    mean that the first try was recorded. Fork before threads use the ledger, or open one per process: redis-py does
    not stand a fork while another thread takes a connection.

    Parameters
    ----------
    client_or_url : redis.Redis, redis.RedisCluster or str
        A client stays the caller's to close; a url such as ``"redis://localhost:6379/0"`` is opened here. Nothing is
        sent before the first call.
    window : timedelta, default 28 days
        How long an impression counts. Every process must say the same: records leave by the window of who writes.
    prefix : str, default "spr:delivered:"
        Of both keys: ``<prefix>{<viewer_id>}:records`` and ``<prefix>{<viewer_id>}:moments``. The braces keep them on
        one node of a cluster.
    timeout : float, default 0.1
        Seconds that a page may wait for a server that does not answer, of a ledger opened by a url; a
        ``socket_timeout`` in the url goes before. A client that is handed over has its own: give it one.

    Raises
    ------
    ConfigError
        When the window is not above 0 or the url cannot be one.
    MissingDependency
        When redis is not installed; raised where this class is imported.

    Notes
    -----
    A record is one line of words: ``1`` (the form), microseconds since 1970, total, one count per name, the names as a
    JSON list; e.g. ``1 1770026400000000 5 1 ["connection-floor"]``. Redis 5 or later. With the package hiredis, which
    redis-py finds by itself, a read costs about a quarter less.

    Examples
    --------
    >>> with RedisLedger("redis://localhost:6379/0", prefix="home-page:") as ledger:
    ...     ledger.window.days
    28
    """

    def __init__(
        self,
        client_or_url: redis.Redis | redis.RedisCluster | str,
        *,
        window: timedelta = DEFAULT_WINDOW,
        prefix: str = "spr:delivered:",
        timeout: float = 0.1,
    ) -> None:
        self._window, self._span = window, check_window(window)
        self._prefix = prefix
        self._owned = isinstance(client_or_url, str)
        if isinstance(client_or_url, str):
            try:
                self._client: redis.Redis | redis.RedisCluster = redis.Redis.from_url(
                    client_or_url, socket_timeout=timeout, socket_connect_timeout=timeout
                )
            except ValueError as error:
                raise ConfigError(f"{client_or_url!r} is no address of a Redis: {error}") from error
        else:
            self._client = client_or_url
        self._record = self._client.register_script(_RECORD)

    @property
    def window(self) -> timedelta:
        """How long an impression counts."""
        return self._window

    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        """Record one delivered page; see :meth:`spr.ledger.DeliveryLedger.record`."""
        page = DeliveredPage.checked(request_id, viewer_id, at, counts, total)
        numbers = (page.at, page.total, *page.counts.values())
        record = " ".join([_FORM, *map(str, numbers), json.dumps(list(page.counts))])
        with _answering("record"):
            return bool(self._record(keys=self._keys(viewer_id), args=[request_id, page.at, record, self._span]))

    def delivered(self, viewer_id: str, at: datetime) -> Delivered:
        """Return what a viewer has had; see :meth:`spr.ledger.DeliveryLedger.delivered`."""
        return self.delivered_many([viewer_id], at)[0]

    def delivered_many(self, viewer_ids: Sequence[str], at: datetime) -> list[Delivered]:
        """Return what each viewer has had, in the order asked, from one pipeline."""
        moment = microseconds(at, "delivered")
        for viewer_id in viewer_ids:
            check_id("viewer_id", viewer_id)
        with _answering("delivered"):
            pipeline = self._client.pipeline(transaction=False)
            for viewer_id in viewer_ids:
                pipeline.hvals(self._keys(viewer_id)[0])
            answers = pipeline.execute()
        return [
            _sum(records, viewer_id, moment - self._span, moment)
            for viewer_id, records in zip(viewer_ids, answers, strict=True)
        ]

    def forget(self, viewer_id: str) -> None:
        """Remove every record of a viewer."""
        check_id("viewer_id", viewer_id)
        with _answering("forget"):
            self._client.delete(*self._keys(viewer_id))

    def close(self) -> None:
        """Close the connections to a url; a client that was handed over stays open."""
        if self._owned:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keys(self, viewer_id: str) -> list[str]:
        place = f"{self._prefix}{{{viewer_id}}}"
        return [f"{place}:records", f"{place}:moments"]


@contextmanager
def _answering(what: str) -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, UnicodeDecodeError) as error:  # the latter from a client that decodes by itself
        raise LedgerError(
            f"{what}: Redis did not do it: {error}. Serve the page without counters, and record it later: "
            "to record a page twice is safe"
        ) from error


def _sum(records: Sequence[bytes | str], viewer_id: str, after: int, until: int) -> Delivered:
    counts: dict[str, int] = {}
    counted: dict[str, int] = {}
    total = 0
    for names, rows in _by_names(records, viewer_id):
        inside = [row for row in rows if after < row[0] <= until]
        of_names = sum(row[1] for row in inside)
        total += of_names
        for place, name in enumerate(names, start=2):
            counts[name] = counts.get(name, 0) + sum(row[place] for row in inside)
            counted[name] = counted.get(name, 0) + of_names
    named = ({name: count for name, count in sums.items() if count} for sums in (counts, counted))
    return Delivered(next(named), total, next(named))


def _by_names(records: Sequence[bytes | str], viewer_id: str) -> Iterator[tuple[list[str], list[list[int]]]]:
    """Give rows of moment, total and counts by their names: pages of one config share them, and they are read once."""
    by_names: dict[str, list[list[int]]] = {}
    for record in records:
        line = record if isinstance(record, str) else record.decode("ascii", errors="replace")
        form, _, rest = line.partition(" ")
        if form != _FORM:
            raise _unreadable(line, viewer_id)
        numbers, opening, names = rest.partition("[")
        try:
            row = list(map(int, numbers.split()))
        except ValueError:
            raise _unreadable(line, viewer_id) from None
        by_names.setdefault(opening + names, []).append(row)
    for text, rows in by_names.items():
        try:
            read = json.loads(text)
        except ValueError:
            read = None
        size = 2 + len(read) if isinstance(read, list) and all(isinstance(name, str) for name in read) else -1
        for row in rows:
            if len(row) != size or min(row) < 0:
                raise _unreadable(f"{_FORM} {' '.join(map(str, row))} {text}", viewer_id)
        yield read, rows


def _unreadable(record: str, viewer_id: str) -> LedgerError:
    form = record.partition(" ")[0]
    if form.isdigit() and int(form) > int(_FORM):
        return LedgerError(
            f"a record of viewer {viewer_id!r} has the form {form}; this library reads {_FORM}: use what wrote it"
        )
    return LedgerError(
        f"a record of viewer {viewer_id!r} cannot be read: {record[:60]!r}; forget the viewer to count anew"
    )
