"""A reader of UBJSON, the binary JSON that XGBoost writes (https://ubjson.org, draft 12), and nothing more.

It exists so that a model file can be checked before XGBoost sees it: XGBoost crashes on what is not a tree.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

import numpy as np

from spr.errors import InvalidModelInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

# marker -> struct and numpy type, big-endian
_NUMBERS = {
    b"i": ">i1",
    b"U": ">u1",
    b"I": ">i2",
    b"l": ">i4",
    b"L": ">i8",
    b"d": ">f4",
    b"D": ">f8",
}
_FORMATS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q", b"d": ">f", b"D": ">d"}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}
_DEEPEST = 64


def parse_ubjson(data: bytes) -> object:
    r"""Read one UBJSON value that fills `data` to its end.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    dict, list, str, number, bool, None, or a numpy array for a typed array

    Raises
    ------
    InvalidModelInput
        What is not UBJSON: an unknown marker, a count past the end, bytes left over.

    Examples
    --------
    >>> parse_ubjson(b"{U\x01aSU\x02hiU\x01b[$U#U\x03\x07\x08\x09}")
    {'a': 'hi', 'b': array([7, 8, 9], dtype=uint8)}
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.place != len(data):
        raise InvalidModelInput(f"UBJSON: {len(data) - reader.place} bytes left over at byte {reader.place}.")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.place + count > len(self.data):
            raise InvalidModelInput(
                f"UBJSON: {count} bytes wanted at byte {self.place}, of {len(self.data)}: cut or altered."
            )
        self.place += count
        return self.data[self.place - count : self.place]

    def value(self, marker: bytes, depth: int) -> object:
        if depth > _DEEPEST:
            raise InvalidModelInput(f"UBJSON: nested deeper than {_DEEPEST} at byte {self.place}.")
        if marker in _FORMATS:
            layout = _FORMATS[marker]
            return cast("object", struct.unpack(layout, self.take(struct.calcsize(layout)))[0])
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == b"S":
            return self.text()
        if marker == b"C":
            return self.take(1).decode("latin-1")
        if marker == b"{":
            return self.mapping(depth)
        if marker == b"[":
            return self.sequence(depth)
        raise InvalidModelInput(f"UBJSON: unknown marker {marker!r} at byte {self.place - 1}.")

    def count(self) -> int:
        marker = self.take(1)
        found = self.value(marker, 0) if marker in b"iUIlL" else None
        if not isinstance(found, int) or found < 0:
            raise InvalidModelInput(f"UBJSON: a count >= 0 was expected at byte {self.place - 1}.")
        return found

    def text(self) -> str:
        raw = self.take(self.count())
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise InvalidModelInput(f"UBJSON: text before byte {self.place} is not UTF-8.") from problem

    def mapping(self, depth: int) -> dict[str, object]:
        out: dict[str, object] = {}
        while self.data[self.place : self.place + 1] != b"}":
            name = self.text()
            if name in out:  # two readers could take different ones
                raise InvalidModelInput(f"UBJSON: {name!r} stands twice in one object at byte {self.place}.")
            out[name] = self.value(self.take(1), depth + 1)
        self.take(1)
        return out

    def sequence(self, depth: int) -> list[object] | NDArray[np.generic]:
        following = self.data[self.place : self.place + 1]
        if following == b"$":
            self.take(1)
            marker = self.take(1)
            if marker not in _NUMBERS or self.take(1) != b"#":
                raise InvalidModelInput(f"UBJSON: a typed array of unknown type {marker!r} at byte {self.place}.")
            kind = np.dtype(_NUMBERS[marker])
            raw = self.take(self.count() * kind.itemsize)
            return np.frombuffer(raw, dtype=kind).astype(kind.newbyteorder("="))
        if following == b"#":
            self.take(1)
            length = self.count()
            if length > len(self.data) - self.place:
                raise InvalidModelInput(f"UBJSON: an array of {length} values at byte {self.place} passes the end.")
            return [self.value(self.take(1), depth + 1) for _ in range(length)]
        out: list[object] = []
        while self.data[self.place : self.place + 1] != b"]":
            out.append(self.value(self.take(1), depth + 1))
        self.take(1)
        return out
