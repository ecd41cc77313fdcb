"""Transactions pass side by side; a change that none may see waits for them and lets no other in."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Gate:
    """A lock that many threads hold together or one alone; who waits to be alone goes before who comes later.

    Not reentrant.

    Examples
    --------
    >>> gate = Gate()
    >>> with gate.together(), gate.together():
    ...     pass
    >>> with gate.alone():
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._waiting = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Pass beside others."""
        with self._changed:
            while self._waiting:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody is inside and let nobody in."""
        self.shut()
        try:
            yield
        finally:
            self.open()

    def shut(self) -> None:
        """Begin to be alone; :meth:`open` ends it."""
        self._changed.acquire()
        self._waiting += 1
        while self._inside:
            self._changed.wait()
        self._waiting -= 1

    def open(self) -> None:
        """End being alone."""
        self._changed.notify_all()
        self._changed.release()
