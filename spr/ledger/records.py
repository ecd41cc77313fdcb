"""All records of one viewer in one packed value, as the ledgers in memory and in LMDB keep them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from spr.errors import LedgerError
from spr.ledger.contract import Delivered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.ledger.page import DeliveredPage

_FORM = b"spd2"  # the last byte is the version of the form
_HEAD = struct.Struct("<4sIII")  # form, check sum of all after it, number of records, bytes of names
_SUMMED_FROM = 8
_REMEDY = "forget the viewer to count anew"
_NOT_COUNTED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class ViewerRecords:
    """The records of one viewer, in the order they came.

    A value is a head (form, CRC-32 of what follows it, sizes), the guarantees' names as JSON, then a column after the
    other, little-endian: moments, totals, counts, digests.

    Parameters
    ----------
    at : int64[n]
        Microseconds since 1970, UTC.
    total : uint32[n]
    names : tuple of str, length k
        Guarantees that any record counts for.
    counts : uint32[k, n]
        ``2**32 - 1`` where a record does not count for a guarantee.
    digest : uint64[n, 2]
        BLAKE2b of the request id, 128 bits: a fixed width, whatever the ids look like.
    """

    at: NDArray[np.int64]
    total: NDArray[np.uint32]
    names: tuple[str, ...]
    counts: NDArray[np.uint32]
    digest: NDArray[np.uint64]

    @property
    def newest(self) -> int:
        """The latest moment, microseconds since 1970."""
        return int(self.at.max())

    @classmethod
    def of_page(cls, page: DeliveredPage) -> ViewerRecords:
        """Return the records of a viewer whose first page this is."""
        return cls(
            np.array([page.at], dtype="<i8"),
            np.array([page.total], dtype="<u4"),
            tuple(page.counts),
            np.array([[count] for count in page.counts.values()], dtype="<u4").reshape(-1, 1),
            _digest(page.request_id),
        )

    def with_page(self, page: DeliveredPage, window: int) -> ViewerRecords | None:
        """Return the records with one page more and without those that leave the window.

        Parameters
        ----------
        page : DeliveredPage
        window : int
            Microseconds.

        Returns
        -------
        ViewerRecords or None
            None where nothing changes: the request id is there already, or its moment is out of the window.
        """
        edge = max(self.newest, page.at) - window
        digest = _digest(page.request_id)
        if page.at <= edge or bool((self.digest == digest).all(axis=1).any()):
            return None
        kept = self.at > edge
        counts = self.counts[:, kept]
        before = {name: row for name, row in zip(self.names, counts, strict=True) if (row != _NOT_COUNTED).any()}
        names = (*before, *(name for name in page.counts if name not in before))
        table = np.full((len(names), counts.shape[1] + 1), _NOT_COUNTED, dtype="<u4")
        for row, name in enumerate(names):
            table[row, :-1] = before.get(name, _NOT_COUNTED)
            table[row, -1] = page.counts.get(name, _NOT_COUNTED)
        return ViewerRecords(
            np.append(self.at[kept], page.at),
            np.append(self.total[kept], np.uint32(page.total)),
            names,
            table,
            np.concatenate([self.digest[kept], digest]),
        )

    def delivered(self, at: int, window: int) -> Delivered:
        """Return what the viewer has had at a moment; both arguments in microseconds."""
        inside = (self.at > at - window) & (self.at <= at)
        total, counts = self.total[inside], self.counts[:, inside]
        counting = counts != _NOT_COUNTED
        sums = np.where(counting, counts, 0).sum(axis=1, dtype=np.int64).tolist()
        of = np.where(counting, total, 0).sum(axis=1, dtype=np.int64).tolist()
        return Delivered(
            {name: count for name, count in zip(self.names, sums, strict=True) if count},
            int(total.sum(dtype=np.int64)),
            {name: n for name, n in zip(self.names, of, strict=True) if n},
        )

    def pack(self) -> bytes:
        """Return the value to store."""
        names = json.dumps(self.names).encode()
        columns = (self.at, self.total, self.counts, self.digest)
        sizes = _HEAD.pack(_FORM, 0, len(self.at), len(names))[_SUMMED_FROM:]
        rest = b"".join([sizes, names, *(column.tobytes() for column in columns)])
        return _FORM + crc32(rest).to_bytes(4, "little") + rest

    @classmethod
    def unpack(cls, value: bytes, viewer_id: str) -> ViewerRecords:
        """Read a stored value.

        Raises
        ------
        LedgerError
            When it is altered, cut short, or of a form that this library does not know.
        """
        where = f"the records of viewer {viewer_id!r}"
        if len(value) < _HEAD.size or value[:3] != _FORM[:3]:
            raise LedgerError(f"{where} start with {value[:4]!r} and not with {_FORM!r}; {_REMEDY}")
        form, check, n, names_size = _HEAD.unpack_from(value)
        if form != _FORM:
            raise LedgerError(
                f"{where} have the form {form!r}; this library reads {_FORM!r}: use the one that wrote them"
            )
        if crc32(memoryview(value)[_SUMMED_FROM:]) != check:
            raise LedgerError(f"{where} are altered: their check sum does not hold; {_REMEDY}")
        start = _HEAD.size + names_size
        names = tuple(json.loads(value[_HEAD.size : start]))
        at = np.frombuffer(value, "<i8", n, start)
        total = np.frombuffer(value, "<u4", n, start + 8 * n)
        counts = np.frombuffer(value, "<u4", n * len(names), start + 12 * n)
        digest = np.frombuffer(value, "<u8", 2 * n, start + 12 * n + 4 * n * len(names))
        return cls(at, total, names, counts.reshape(len(names), n), digest.reshape(n, 2))


def _digest(request_id: str) -> NDArray[np.uint64]:
    return np.frombuffer(blake2b(request_id.encode(), digest_size=16).digest(), "<u8").reshape(1, 2)
