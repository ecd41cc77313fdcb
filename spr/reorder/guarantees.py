"""Impression guarantees: floors on where an edge type, entity type or cohort kind stands, for each viewer."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from operator import index as as_integer
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from spr.errors import ConfigError, InfeasibleGuarantee, name_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

LabelKind = Literal["cohort_kind", "entity_type", "edge_type"]
LABEL_KINDS: Final[tuple[LabelKind, ...]] = get_args(LabelKind)  # narrowest first

# 0.1 * 30 is 3.0000000000000004 and must not become 4; shares are written with fewer digits than this.
ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class ImpressionGuarantee:
    """A floor on the placements of one label, for each viewer.

    Either ``minimum``: so many cohorts of the label stand within the top ``within_top`` of every page. Or
    ``share``: so large a part of the viewer's impressions (cohorts placed above ``within_top``), over all
    pages, counted by the service. With D impressions delivered, D_t of them of the label, the deficit ``share
    * D - D_t`` stays at most ``slack``, wherever on the page the viewer leaves, as long as pages hold cohorts
    of the label.

    Parameters
    ----------
    name : str
        Names it in the configuration, in ``delivered``, in reasons and in shortfalls.
    label_kind : {"cohort_kind", "entity_type", "edge_type"}
        Which label of a cohort is meant.
    label : str
        The label's value, e.g. ``"connection"``.
    minimum : int, optional
        Cohorts per page. Exactly one of ``minimum`` and ``share`` is given.
    share : float, optional
        Part of the viewer's impressions, in (0, 1].
    within_top : int, default 10
        Only the first ``within_top`` positions count.
    slack : float, default 1.0
        Impressions that the label may lag behind its share, >= 1. More slack costs less value.

    Raises
    ------
    ConfigError
        Unknown label kind, or not exactly one of ``minimum`` and ``share``.
    InfeasibleGuarantee
        A minimum that is negative, not an integer or above ``within_top``; a share outside (0, 1]; slack
        below 1.

    Examples
    --------
    >>> floor = ImpressionGuarantee("connection-floor", "edge_type", "connection", share=0.25, within_top=6)
    >>> floor.minima(6, delivered=2, delivered_total=12).tolist()
    [1, 1, 1, 1, 2, 2]
    """

    name: str
    label_kind: LabelKind
    label: str
    minimum: int | None = None
    share: float | None = None
    within_top: int = 10
    slack: float = 1.0

    def __post_init__(self) -> None:
        where = f"guarantee {self.name!r}"
        if self.label_kind not in LABEL_KINDS:
            raise ConfigError(name_unknown("label kind", self.label_kind, LABEL_KINDS, where))
        if (self.minimum is None) == (self.share is None):
            raise ConfigError(
                f"{where}: exactly one of minimum and share is allowed; "
                f"found minimum={self.minimum!r}, share={self.share!r}"
            )
        _check_count("within_top", self.within_top, where, least=1)
        if self.minimum is not None:
            _check_count("minimum", self.minimum, where, least=0)
            if self.minimum > self.within_top:
                raise InfeasibleGuarantee(
                    f"{where}: minimum={self.minimum} within the top {self.within_top}; "
                    f"lower the minimum or raise within_top"
                )
        if self.share is not None and not 0.0 < self.share <= 1.0:
            raise InfeasibleGuarantee(f"{where}: share={self.share!r}; allowed: above 0, at most 1")
        if not (self.slack >= 1.0 and isfinite(self.slack)):
            raise InfeasibleGuarantee(
                f"{where}: slack={self.slack!r}; allowed: >= 1, since impressions are whole and less cannot be held"
            )

    def minima(self, n: int, *, delivered: float = 0.0, delivered_total: float = 0.0) -> NDArray[np.int64]:
        """Count the cohorts of the label that are due at each prefix of a page.

        Parameters
        ----------
        n : int
            Cohorts on the page.
        delivered : float, default 0
            D_t, the viewer's impressions of the label so far; not read by a fixed minimum.
        delivered_total : float, default 0
            D, all of the viewer's impressions so far.

        Returns
        -------
        int array, shape (min(n, within_top),)
            Entry p - 1 is the minimum within the first p positions: for a share that of `count_owed`; for a
            fixed minimum 0, then ``minimum`` at the end, also where the page is shorter than that.
        """
        window = min(n, self.within_top)
        if self.minimum is None:
            return count_owed([self], [delivered], delivered_total, window)[0, 1:]
        due = np.zeros(window, dtype=np.int64)
        due[-1:] = self.minimum
        return due


def count_owed(
    shares: Sequence[ImpressionGuarantee], delivered: Sequence[float], delivered_total: float, last: int
) -> NDArray[np.int64]:
    """Count the impressions that guarantees of a share are owed after each of the next impressions.

    Parameters
    ----------
    shares : sequence of ImpressionGuarantee
        Each with a ``share``.
    delivered : sequence of float
        D_t for each of them.
    delivered_total : float
        D, all of the viewer's impressions so far.
    last : int
        Impressions to look ahead.

    Returns
    -------
    int array, shape (len(shares), last + 1)
        Column p: ``max(0, ceil(share * (D + p) - D_t - slack))`` after p more impressions.

    Notes
    -----
    Without p in the formula the bound breaks: the impressions of a page raise the debt while it is shown.

    Examples
    --------
    >>> floor = ImpressionGuarantee("connection-floor", "edge_type", "connection", share=0.5)
    >>> count_owed([floor], [0], 0, 6)
    array([[0, 0, 0, 1, 1, 2, 2]])
    """
    rate = np.array([guarantee.share for guarantee in shares], dtype=np.float64)[:, None]
    lag = np.array([guarantee.slack for guarantee in shares], dtype=np.float64) + ROUNDING
    paid = (np.array(delivered, dtype=np.float64) + lag)[:, None]
    owed = np.ceil(rate * np.arange(delivered_total, delivered_total + last + 0.5) - paid)
    return np.maximum(owed, 0.0).astype(np.int64)


def check_guarantees(guarantees: Iterable[ImpressionGuarantee]) -> None:
    """Refuse guarantees that no page, or no sequence of pages, could meet together.

    Parameters
    ----------
    guarantees : iterable of ImpressionGuarantee
        All guarantees of one configuration.

    Raises
    ------
    InfeasibleGuarantee
        Two of one name; minima of one label kind that sum to more than the places within their top; shares of
        one label kind that sum to more than 1; shares that count impressions within different tops (a request
        carries one ``delivered_total``).

    Notes
    -----
    Labels of one kind are disjoint, so their floors add up. Two guarantees of the same label do not: the
    larger holds.

    Examples
    --------
    >>> check_guarantees([ImpressionGuarantee("a", "edge_type", "connection", share=0.6),
    ...                   ImpressionGuarantee("b", "edge_type", "follow", share=0.5)])
    Traceback (most recent call last):
        ...
    spr.errors.InfeasibleGuarantee: shares of edge_type sum to 1.1 (connection: 0.6, follow: 0.5); allowed: at most 1
    """
    guarantees = list(guarantees)
    names = [guarantee.name for guarantee in guarantees]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InfeasibleGuarantee(f"guarantee names must be unique; found more than once: {', '.join(twice)}")
    tops = sorted({guarantee.within_top for guarantee in guarantees if guarantee.share is not None})
    if len(tops) > 1:
        raise InfeasibleGuarantee(
            f"shares count impressions within the tops {tops}; allowed: one within_top for all shares, "
            f"since a request carries one delivered_total"
        )
    for kind in LABEL_KINDS:
        of_kind = [guarantee for guarantee in guarantees if guarantee.label_kind == kind]
        shares: dict[str, float] = {}
        for guarantee in of_kind:
            if guarantee.share is not None:
                shares[guarantee.label] = max(guarantee.share, shares.get(guarantee.label, 0.0))
        if sum(shares.values()) > 1.0 + ROUNDING:
            raise InfeasibleGuarantee(
                f"shares of {kind} sum to {sum(shares.values()):.6g} ({_list(shares)}); allowed: at most 1"
            )
        for top in sorted({guarantee.within_top for guarantee in of_kind}):
            minima: dict[str, int] = {}
            for guarantee in of_kind:
                if guarantee.minimum is not None and guarantee.within_top <= top:
                    minima[guarantee.label] = max(guarantee.minimum, minima.get(guarantee.label, 0))
            if sum(minima.values()) > top:
                raise InfeasibleGuarantee(
                    f"minima of {kind} sum to {sum(minima.values())} within the top {top} ({_list(minima)}); "
                    f"lower them or raise within_top"
                )


def _list(floors: Mapping[str, float]) -> str:
    return ", ".join(f"{label}: {floor:g}" for label, floor in floors.items())


def _check_count(what: str, found: object, where: str, least: int) -> None:
    try:
        whole = not isinstance(found, bool) and as_integer(found) >= least  # type: ignore[arg-type]  # raises if not
    except TypeError:
        whole = False
    if not whole:
        raise InfeasibleGuarantee(f"{where}: {what}={found!r}; allowed: an integer >= {least}")
