"""What a delivery ledger is: the counters of a viewer, and what every ledger does with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Self

DEFAULT_WINDOW = timedelta(days=28)
"""How long an impression counts where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a viewer has had in the window that ends at one moment.

    Parameters
    ----------
    counts : mapping of str to int
        Impressions by guarantee; one that is not named has had none. A ledger names those that have had any.
    total : int
        All impressions: cohorts placed above ``within_top``.
    counted : mapping of str to int
        All impressions of the pages that counted for a guarantee, by its name: fewer than ``total`` for one that began
        while others ran.

    Examples
    --------
    >>> had = Delivered({"connection-floor": 3}, 12, {"connection-floor": 12, "follow-floor": 4})
    >>> had.counts.get("follow-floor", 0), had.total
    (0, 12)

    The floor of 0.5 that began four impressions ago is behind by two of them, not by six:

    >>> had.toward("follow-floor", 0.5)
    4.0
    """

    counts: Mapping[str, int]
    total: int
    counted: Mapping[str, int] = field(default_factory=dict)

    def toward(self, name: str, share: float) -> float:
        """Return the impressions of a share, as if pages from before it began had held exactly the share.

        ``share * total`` less this is what the share is behind by on its own pages.
        """
        return self.counts.get(name, 0) + share * (self.total - self.counted.get(name, 0))


class DeliveryLedger(Protocol):
    """Impressions by viewer and guarantee over a rolling window; a ledger of your own needs only this shape.

    A record is one page: its request id, viewer, moment and counts. Counters are sums over records and are never
    incremented, so that a page that is delivered twice counts once. With ``newest`` the latest moment recorded for a
    viewer, records at or before ``newest - window`` are gone from that viewer: a read at ``newest`` or later is
    exact, and one at an earlier moment is exact for the records that are left.

    Safe for threads; :func:`spr.ledger.testing.check_delivery_ledger` holds a ledger to all of this.
    """

    @property
    def window(self) -> timedelta:
        """How long an impression counts."""
        ...

    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        """Record one delivered page; the first record of a request id wins.

        Parameters
        ----------
        request_id : str
            Of the page, at most 500 bytes of UTF-8. The same id of another viewer is another page.
        viewer_id : str
            Who saw it, at most 500 bytes of UTF-8.
        at : datetime
            When; without a time zone it is read as UTC. Records may come late and in any order. It is taken at its
            word: a moment far ahead puts the viewer's earlier records out of the window.
        counts : mapping of str to int
            Impressions of this page that count for each guarantee, from 0 to ``total``. For a guarantee that is not
            named the page does not count: it was not in force.
        total : int
            All impressions of this page: cohorts placed above ``within_top``.

        Returns
        -------
        bool
            False where nothing changed: this request id of this viewer is recorded already, or its moment is out of
            the window that ends at the viewer's newest record.

        Raises
        ------
        InvalidRequest
            When an id, a name, a moment or a count cannot be one; nothing is written then.
        LedgerError
            When the ledger cannot be reached or what it holds cannot be read. To record the same page again later is
            safe.
        """
        ...

    def delivered(self, viewer_id: str, at: datetime) -> Delivered:
        """Return what a viewer has had: records with ``at - window < moment <= at``.

        Parameters
        ----------
        viewer_id : str
            A viewer without records has had nothing.
        at : datetime
            When the page is ranked; without a time zone it is read as UTC.

        Raises
        ------
        InvalidRequest
            When the id or the moment cannot be one.
        LedgerError
            When the ledger cannot be reached or what it holds cannot be read.
        """
        ...

    def delivered_many(self, viewer_ids: Sequence[str], at: datetime) -> list[Delivered]:
        """Return :meth:`delivered` of each viewer, in the order asked, in one round trip."""
        ...

    def forget(self, viewer_id: str) -> None:
        """Remove every record of a viewer, readable or not; a viewer without records is no error."""
        ...

    def close(self) -> None:
        """Give back what the ledger has open; closing twice is no error."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
