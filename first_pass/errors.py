"""Every error the first pass raises on purpose: what was found, what is allowed, where, and what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class FirstPassError(ValueError):
    """Base of every error that the first pass raises on purpose."""


class InvalidRanker(FirstPassError):
    """A ranker is declared wrongly: an empty name, no features, a model that no adapter takes."""


class InvalidRawScore(FirstPassError):
    """A ranker breaks its contract: raw scores of the wrong shape, not numbers, or infinite."""


class InvalidTable(FirstPassError):
    """A table cannot be read: null ids, ragged lengths, text where a number belongs, repeated keys."""


class MissingColumn(FirstPassError, LookupError):
    """A column that a ranker or a graph needs is neither with the viewer nor with the entities."""


class UnknownName(FirstPassError, LookupError):
    """A name that is chosen from a fixed list is not on that list."""


class MissingDependency(FirstPassError, ImportError):
    """A package that this kind of model needs is not installed."""


def name_unknown(what: str, found: str, known: Iterable[str], where: str = "") -> str:
    """Say that a name is unknown, where, what is known, and which known name was probably meant.

    Parameters
    ----------
    what : str
        What the name should have been, e.g. ``"feature"``.
    found : str
        The unknown name.
    known : iterable of str
        The names that would have been accepted.
    where : str, default ""
        Where it was looked for, e.g. ``"edges"``; left out when empty.

    Returns
    -------
    str
        One sentence for an error message.

    Examples
    --------
    >>> name_unknown("column", "viewerid", ["viewer_id", "entity_id"], where="edges")
    "unknown column 'viewerid' in edges; known: entity_id, viewer_id. Did you mean 'viewer_id'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1)
    place = f" in {where}" if where else ""
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {found!r}{place}; known: {', '.join(names) or 'none'}.{hint}"


def name_missing(what: str, missing: str, present: Iterable[str], where: str) -> str:
    """Say that something needed is missing, where it was looked for, and which present name is close to it.

    Parameters
    ----------
    what : str
        What is missing, e.g. ``"column"``.
    missing : str
        The name that is needed.
    present : iterable of str
        The names that are there.
    where : str
        Where it was looked for, e.g. ``"edges"``.

    Returns
    -------
    str
        One sentence for an error message.

    Examples
    --------
    >>> name_missing("column", "viewer_id", ["viewerid", "entity_id"], where="edges")
    "edges: column 'viewer_id' is missing; present: entity_id, viewerid. Did you mean 'viewerid'?"
    """
    names = sorted(present)
    close = difflib.get_close_matches(missing, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{where}: {what} {missing!r} is missing; present: {', '.join(names) or 'none'}.{hint}"
