"""A delivery ledger on disk, shared by the processes of one machine: one packed value per viewer in LMDB."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from spr.errors import ConfigError, LedgerError, MissingDependency
from spr.ledger.contract import DEFAULT_WINDOW, Delivered
from spr.ledger.gate import Gate
from spr.ledger.page import DeliveredPage, check_id, check_window, microseconds
from spr.ledger.records import ViewerRecords

try:
    import lmdb
except ImportError as error:
    raise MissingDependency("LMDBLedger needs lmdb, which is missing; run: pip install lmdb") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self

    Transaction = lmdb.Transaction[bytes]

DEFAULT_MAP_SIZE = 2**30
"""Bytes that the file may grow to before the map is doubled; the file itself takes what it holds."""

MAX_READERS = 1024
"""Threads of all processes that read at one moment; LMDB's own default is 126."""

_SWEEP = 1000  # viewers per transaction of `expire`: a writer waits for milliseconds, not for the whole file

_Result = TypeVar("_Result")


class LMDBLedger:
    """Counters in a folder on disk, for every process and thread of one machine.

    A record reads, changes and writes the viewer's value in one write transaction, so that concurrent writers lose
    nothing. A crash of the process loses nothing; a crash of the machine may undo the last record, never more. The
    map grows by doubling. After ``os.fork`` the child opens the folder anew by itself; transactions of other threads
    end before the fork. Open a folder once per process and share the ledger among its threads. Removed records are
    overwritten when their pages are used again, not wiped at once.

    Parameters
    ----------
    path : path
        A folder on a local disk (LMDB's locks do not work over a network); made when it is not there.
    window : timedelta, default 28 days
        How long an impression counts. Every process must say the same: records leave by the window of who writes.
    map_size : int, default 1 GiB
        Bytes of the first memory map.

    Raises
    ------
    ConfigError
        When the window or the map's size is not above 0.
    LedgerError
        When the folder cannot be opened, is no ledger, or is open in this process already.
    MissingDependency
        When lmdb is not installed; raised where this class is imported.

    Notes
    -----
    LMDB, "Lightning Memory-Mapped Database Manager", http://www.lmdb.tech/doc: one writer at a time, readers never
    wait for it. Readers that died are cleared when a ledger opens.

    Examples
    --------
    >>> import tempfile
    >>> from datetime import datetime, timedelta
    >>> monday = datetime(2026, 2, 2)
    >>> with tempfile.TemporaryDirectory() as folder, LMDBLedger(folder) as ledger:
    ...     ledger.record("r1", "v1", monday, {"connection-floor": 1}, total=5)
    ...     ledger.delivered("v1", monday + timedelta(days=1))
    ...     ledger.expire(monday + timedelta(days=28))
    True
    Delivered(counts={'connection-floor': 1}, total=5, counted={'connection-floor': 5})
    1
    """

    def __init__(
        self, path: str | os.PathLike[str], *, window: timedelta = DEFAULT_WINDOW, map_size: int = DEFAULT_MAP_SIZE
    ) -> None:
        self._window, self._span = window, check_window(window)
        if isinstance(map_size, bool) or not isinstance(map_size, int) or map_size <= 0:
            raise ConfigError(f"map_size is {map_size!r}; allowed: a whole number of bytes above 0")
        self._path, self._map_size = Path(path), map_size
        self._gate = Gate()
        self._closed = False
        self._environment: lmdb.Environment | None = None
        with _FORKING:
            _LEDGERS.add(self)
        with self._gate.alone():
            self._open()

    @property
    def window(self) -> timedelta:
        """How long an impression counts."""
        return self._window

    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        """Record one delivered page; see :meth:`spr.ledger.DeliveryLedger.record`."""
        page = DeliveredPage.checked(request_id, viewer_id, at, counts, total)
        key = viewer_id.encode()

        def add(transaction: Transaction) -> bool:
            before = transaction.get(key)
            if before is None:
                after: ViewerRecords | None = ViewerRecords.of_page(page)
            else:
                after = ViewerRecords.unpack(before, viewer_id).with_page(page, self._span)
            return after is not None and transaction.put(key, after.pack())

        return self._run(add, write=True)

    def delivered(self, viewer_id: str, at: datetime) -> Delivered:
        """Return what a viewer has had; see :meth:`spr.ledger.DeliveryLedger.delivered`."""
        return self.delivered_many([viewer_id], at)[0]

    def delivered_many(self, viewer_ids: Sequence[str], at: datetime) -> list[Delivered]:
        """Return what each viewer has had, in the order asked, from one read transaction."""
        moment = microseconds(at, "delivered")
        keys = [check_id("viewer_id", viewer_id) for viewer_id in viewer_ids]
        values = self._run(lambda transaction: [transaction.get(key) for key in keys], write=False)
        return [
            Delivered({}, 0) if value is None else ViewerRecords.unpack(value, viewer_id).delivered(moment, self._span)
            for viewer_id, value in zip(viewer_ids, values, strict=True)
        ]

    def forget(self, viewer_id: str) -> None:
        """Remove every record of a viewer."""
        key = check_id("viewer_id", viewer_id)
        self._run(lambda transaction: transaction.delete(key), write=True)

    def expire(self, at: datetime) -> int:
        """Remove the viewers whose newest record is out of the window that ends at a moment.

        Run it once a day or so: viewers who come back drop their own old records, those who do not are removed here.
        It works through the file in small transactions, so that writers go on meanwhile.

        Parameters
        ----------
        at : datetime
            Without a time zone it is read as UTC.

        Returns
        -------
        int
            Viewers removed.

        Raises
        ------
        InvalidRequest
            When the moment cannot be one.
        LedgerError
            When a value cannot be read; the viewers before it are removed already.
        """
        edge = microseconds(at, "expire") - self._span
        start: bytes | None = b""
        removed = 0
        while start is not None:
            old, start = self._run(_sweep(start, edge), write=False)
            if old:
                removed += self._run(_remove(old, edge), write=True)
        return removed

    def close(self) -> None:
        """Close the folder; using the ledger afterwards is an error."""
        with self._gate.alone():
            self._closed = True
            if self._environment is not None:
                self._environment.close()
                self._environment = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        if self._closed:
            raise LedgerError(f"the ledger at {self._path} is closed; open it anew")
        if self._environment is not None:
            return  # another thread was first
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            # Without the sync of the meta page a commit costs one sync, not two; the file stays whole all the same.
            # Cached transactions would keep their slot in the table of readers across a fork: none are kept.
            self._environment = lmdb.open(
                str(self._path),
                map_size=self._map_size,
                metasync=False,
                max_readers=MAX_READERS,
                max_spare_txns=0,
            )
            self._environment.reader_check()
            self._map_size = self._environment.info()["map_size"]
        except (lmdb.Error, OSError) as error:
            raise LedgerError(
                f"the ledger at {self._path} cannot be opened: {error}. "
                "Allowed: a folder of this library or a new one, opened once per process and shared among its threads"
            ) from error

    def _run(self, work: Callable[[Transaction], _Result], *, write: bool) -> _Result:
        """Do work in one transaction, with the map as large as it needs and the folder open in this process."""
        while True:
            seen = self._map_size
            try:
                with self._gate.together():
                    if self._environment is not None:
                        with self._environment.begin(write=write) as transaction:
                            return work(transaction)
                with self._gate.alone():
                    self._open()
            except lmdb.MapFullError:
                self._resize(seen, 2 * seen)
            except lmdb.MapResizedError:
                self._resize(seen, 0)  # another process made it larger: 0 takes that size
            except lmdb.Error as error:
                doing = "written" if write else "read"
                raise LedgerError(f"the ledger at {self._path} cannot be {doing}: {error}") from error

    def _resize(self, seen: int, size: int) -> None:
        with self._gate.alone():
            if self._environment is None or self._map_size != seen:
                return  # another thread was first
            try:
                self._environment.set_mapsize(size)
                self._map_size = self._environment.info()["map_size"]
            except lmdb.Error as error:
                raise LedgerError(f"the map of the ledger at {self._path} cannot grow: {error}") from error


def _sweep(start: bytes, edge: int) -> Callable[[Transaction], tuple[list[bytes], bytes | None]]:
    """Find the old viewers among the next ones, and the key to go on from; None at the end."""

    def sweep(transaction: Transaction) -> tuple[list[bytes], bytes | None]:
        old: list[bytes] = []
        with transaction.cursor() as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            for _ in range(_SWEEP):
                if not found:
                    return old, None
                key, value = cursor.item()
                if ViewerRecords.unpack(value, key.decode()).newest <= edge:
                    old.append(key)
                found = cursor.next()
            return old, cursor.key() if found else None

    return sweep


def _remove(old: list[bytes], edge: int) -> Callable[[Transaction], int]:
    """Remove viewers who are still old: one may have come back since the sweep."""

    def remove(transaction: Transaction) -> int:
        removed = 0
        for key in old:
            value = transaction.get(key)
            if value is not None and ViewerRecords.unpack(value, key.decode()).newest <= edge:
                removed += transaction.delete(key)
        return removed

    return remove


# A transaction that another thread has open would hold the child for ever, and the child may not use what its parent
# opened. So a fork waits for transactions to end, and the child closes the environment and opens it at its first use.
_LEDGERS: WeakSet[LMDBLedger] = WeakSet()
_FORKING = threading.Lock()
_shut: list[LMDBLedger] = []


def _before_fork() -> None:
    _FORKING.acquire()
    for ledger in _LEDGERS:
        ledger._gate.shut()
        _shut.append(ledger)


def _after_fork_in_parent() -> None:
    while _shut:
        _shut.pop()._gate.open()
    _FORKING.release()


def _after_fork_in_child() -> None:
    while _shut:
        ledger = _shut.pop()
        ledger._gate = Gate()  # threads that waited at the old one are not here to leave it
        if ledger._environment is not None:
            ledger._environment.close()
            ledger._environment = None
    _FORKING.release()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
