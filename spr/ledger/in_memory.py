"""A delivery ledger in memory: for one process, a notebook, a simulation."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from spr.ledger.contract import DEFAULT_WINDOW, Delivered
from spr.ledger.page import DeliveredPage, check_id, check_window, microseconds
from spr.ledger.records import ViewerRecords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self


class MemoryLedger:
    """Counters that live as long as the process; other processes do not see them.

    Parameters
    ----------
    window : timedelta, default 28 days
        How long an impression counts.

    Raises
    ------
    ConfigError
        When the window is not above 0.

    Examples
    --------
    >>> from datetime import datetime, timedelta
    >>> ledger, monday = MemoryLedger(window=timedelta(days=7)), datetime(2026, 2, 2)
    >>> ledger.record("r1", "v1", monday, {"connection-floor": 1}, total=5)
    True
    >>> ledger.record("r1", "v1", monday, {"connection-floor": 1}, total=5)  # delivered again: counted once
    False
    >>> ledger.delivered("v1", monday + timedelta(days=1))
    Delivered(counts={'connection-floor': 1}, total=5, counted={'connection-floor': 5})
    >>> ledger.delivered("v1", monday + timedelta(days=7))
    Delivered(counts={}, total=0, counted={})
    """

    def __init__(self, *, window: timedelta = DEFAULT_WINDOW) -> None:
        self._window, self._span = window, check_window(window)
        self._records: dict[str, ViewerRecords] = {}
        self._lock = threading.Lock()

    @property
    def window(self) -> timedelta:
        """How long an impression counts."""
        return self._window

    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        """Record one delivered page; see :meth:`spr.ledger.DeliveryLedger.record`."""
        page = DeliveredPage.checked(request_id, viewer_id, at, counts, total)
        with self._lock:
            before = self._records.get(viewer_id)
            after = before.with_page(page, self._span) if before else ViewerRecords.of_page(page)
            if after is None:
                return False
            self._records[viewer_id] = after
            return True

    def delivered(self, viewer_id: str, at: datetime) -> Delivered:
        """Return what a viewer has had; see :meth:`spr.ledger.DeliveryLedger.delivered`."""
        return self.delivered_many([viewer_id], at)[0]

    def delivered_many(self, viewer_ids: Sequence[str], at: datetime) -> list[Delivered]:
        """Return what each viewer has had, in the order asked."""
        moment = microseconds(at, "delivered")
        for viewer_id in viewer_ids:
            check_id("viewer_id", viewer_id)
        with self._lock:
            found = [self._records.get(viewer_id) for viewer_id in viewer_ids]
        return [records.delivered(moment, self._span) if records else Delivered({}, 0) for records in found]

    def forget(self, viewer_id: str) -> None:
        """Remove every record of a viewer."""
        check_id("viewer_id", viewer_id)
        with self._lock:
            self._records.pop(viewer_id, None)

    def expire(self, at: datetime) -> int:
        """Remove the viewers whose newest record is out of the window that ends at a moment, and count them."""
        edge = microseconds(at, "expire") - self._span
        with self._lock:
            old = [viewer_id for viewer_id, records in self._records.items() if records.newest <= edge]
            for viewer_id in old:
                del self._records[viewer_id]
        return len(old)

    def close(self) -> None:
        """Drop all records."""
        with self._lock:
            self._records.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
