"""Every error SPR raises on purpose: what was found, what is allowed, where, and what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SPRError(Exception):
    """Base of every error that SPR raises on purpose."""


class TableError(SPRError, ValueError):
    """A table breaks its contract; it is refused whole, before any work."""


class ConfigError(SPRError, ValueError):
    """A configuration names something unknown, contradicts itself or cannot be met."""


class InvalidRequest(SPRError, ValueError):
    """A ranking request cannot be read: nothing to rank, duplicated cohorts, ragged or infinite raw scores."""


class UnknownEntityType(SPRError, LookupError):
    """An entity type that the configuration does not name."""


class UnknownRankerVersion(SPRError, LookupError):
    """A first-pass ranker version without a calibrator, where the configuration states no fallback."""


class InvalidModelInput(SPRError, ValueError):
    """Rows, labels, weights or columns that a model cannot be fitted on or asked about."""


class NotFitted(SPRError, ValueError, AttributeError):
    """A model is asked for something it learns in ``fit``, before ``fit``."""


class InfeasibleGuarantee(SPRError, ValueError):
    """Guarantees that no page could meet, whatever its cohorts."""


class InvalidExperiment(SPRError, ValueError):
    """An experiment whose design, assignment or groups cannot answer the question."""


class BundleError(SPRError, ValueError):
    """A saved bundle is missing, altered, newer than this library, or does not reproduce its golden rows."""


class LedgerError(SPRError, ValueError):
    """A delivery ledger cannot be opened or reached, or what it holds cannot be read."""


class MissingDependency(SPRError, ImportError):
    """A package of an optional extra is asked for and not installed."""


class DataNotFound(SPRError, LookupError):
    """A data set that is read from the user's disk is not there."""


def name_unknown(what: str, found: str, known: Iterable[str], where: str = "") -> str:
    """Say that a name is unknown, where, what is known, and which known name was probably meant.

    Parameters
    ----------
    what : str
        What the name should have been, e.g. ``"entity type"``.
    found : str
        The unknown name.
    known : iterable of str
        The names that would have been accepted.
    where : str, default ""
        Where it was found, e.g. ``"request 'r1'"``; left out when empty.

    Returns
    -------
    str
        One sentence for an error message.

    Examples
    --------
    >>> name_unknown("entity type", "peple", ["people", "company"], where="request 'r1'")
    "unknown entity type 'peple' in request 'r1'; known: company, people. Did you mean 'people'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1)
    place = f" in {where}" if where else ""
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {found!r}{place}; known: {', '.join(names) or 'none'}.{hint}"
