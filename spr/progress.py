"""Progress of long work is an injected callable; the library itself never prints."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; ``done == total`` ends a stage."""


def ignore(stage: str, done: int, total: int) -> None:
    """Show nothing."""
