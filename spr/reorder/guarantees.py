"""Impression guarantees: bounds on where an edge type, entity type or cohort kind stands, for each viewer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import isfinite
from operator import index as as_integer
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from spr.errors import ConfigError, InfeasibleGuarantee, name_unknown
from spr.ledger import Delivered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

LabelKind = Literal["cohort_kind", "entity_type", "edge_type"]
LABEL_KINDS: Final[tuple[LabelKind, ...]] = get_args(LabelKind)  # narrowest first
Scope = Literal["viewer", "population"]


@dataclass(frozen=True, slots=True)
class ImpressionGuarantee:
    """Bounds on the placements of one label.

    Per page: at least ``minimum`` and at most ``maximum`` cohorts of the label within the top ``within_top``, or bounds
    at every prefix. Over all pages of a viewer: ``share``, a part of the viewer's impressions (cohorts placed above
    ``within_top``), counted by the service. With D impressions delivered, D_t of them of the label, the deficit ``share
    * D - D_t`` stays at most ``slack``, wherever on the page the viewer leaves, as long as pages hold cohorts of the
    label and their other bounds leave it the places (a viewer who always leaves at the first position, which another
    minimum has, sees none of it), and no impression leaves the window in which they are counted.

    Parameters
    ----------
    name : str
        Names it in the configuration, in ``delivered``, in reasons and in shortfalls.
    label_kind : {"cohort_kind", "entity_type", "edge_type"}
        Which label of a cohort is meant.
    label : str
        The label's value, e.g. ``"connection"``.
    minimum : float, optional
        Cohorts per page within the top. 0.3 = one on three pages of ten, by a draw whose probability the page states.
    share : float, optional
        Part of the viewer's impressions, in (0, 1]. Not with a minimum.
    within_top : int, default 10
        Only the first ``within_top`` positions count.
    slack : float, default 1.0
        Impressions that the label may lag behind its share, >= 1. More slack costs less value.
    maximum : int, optional
        At most so many within the top.
    minimum_by_prefix, maximum_by_prefix : sequence of int, optional
        Instead of one number: entry p - 1 is the bound within the first p positions; the last entry's prefix takes the
        place of ``within_top``. Minima must not fall; a maximum above a later one never binds.
    catch_up : float, default 2.0
        Impressions of debt beyond the slack that one page makes up for, >= 0. A debt arises where pages had no cohort
        of the label; it is paid in such instalments, so that it cannot flood a page.
    scope : {"viewer", "population"}, default "viewer"
        Of a share: promised to each viewer, or only on average over all pages, by ``price`` alone.
    price : float, optional
        Of a share: what an impression of the label is worth beyond its value to the population, in units of value; see
        :func:`spr.reorder.learn_prices`. With a price the set of cohorts above ``within_top`` is chosen by value plus a
        price, and still stands in order of value where the bounds allow. A share that is promised to a viewer moves the
        price with the viewer's lag and with what the page has, see :mod:`spr.reorder.steering`; for the population it
        stays. Without a price each page is the best one that keeps the promise, which costs more over many pages.
    starts, ends : datetime, optional
        In force from ``starts`` (included) to ``ends`` (excluded); without a time zone they are read as UTC.

    Raises
    ------
    ConfigError
        Unknown label kind or scope, bounds that contradict each other, or none.
    InfeasibleGuarantee
        Bounds that no page could keep: a minimum that is negative or above ``within_top`` or above the maximum; a share
        outside (0, 1]; slack below 1.

    Examples
    --------
    >>> floor = ImpressionGuarantee("connection-floor", "edge_type", "connection", share=0.25, within_top=6)
    >>> floor.minima(6, delivered=2, delivered_total=12).tolist()
    [1, 1, 1, 1, 2, 2]
    >>> ImpressionGuarantee("steps", "edge_type", "follow", minimum_by_prefix=(0, 1, 1, 2)).minima(8).tolist()
    [0, 1, 1, 2]
    """

    name: str
    label_kind: LabelKind
    label: str
    minimum: float | None = None
    share: float | None = None
    within_top: int = 10
    slack: float = 1.0
    maximum: int | None = None
    minimum_by_prefix: tuple[int, ...] | None = None
    maximum_by_prefix: tuple[int, ...] | None = None
    catch_up: float = 2.0
    scope: Scope = "viewer"
    price: float | None = None
    starts: datetime | None = None
    ends: datetime | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __hash__(self) -> int:
        return self._hash  # every page asks for it

    def __reduce__(self) -> tuple[Callable[..., ImpressionGuarantee], tuple[object, ...]]:
        # Hashes of strings differ between processes, so that it is made anew.
        return ImpressionGuarantee, tuple(getattr(self, term.name) for term in fields(self) if term.init)

    def __post_init__(self) -> None:
        where = f"guarantee {self.name!r}"
        if self.label_kind not in LABEL_KINDS:
            raise ConfigError(name_unknown("label kind", self.label_kind, LABEL_KINDS, where))
        if self.scope not in get_args(Scope):
            raise ConfigError(name_unknown("scope", self.scope, get_args(Scope), where))
        self._check_which(where)
        check_count("within_top", self.within_top, where, least=1)
        for name in ("minimum_by_prefix", "maximum_by_prefix"):
            bounds = getattr(self, name)
            if bounds is not None:
                object.__setattr__(self, name, tuple(bounds))
                if not bounds:
                    raise ConfigError(f"{where}: {name} is empty; give a bound for each prefix, or leave it out")
                for bound in bounds:
                    check_count(name, bound, where, least=0)
        if self.maximum is not None:
            check_count("maximum", self.maximum, where, least=0)
        if self.minimum is not None and not (_is_number(self.minimum) and self.minimum >= 0):
            raise InfeasibleGuarantee(f"{where}: minimum={self.minimum!r}; allowed: a finite number >= 0")
        if self.minimum is not None and self.minimum > self.within_top:
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
        for what, number in (("catch_up", self.catch_up), ("price", self.price)):
            if number is not None and not (number >= 0.0 and isfinite(number)):
                raise ConfigError(f"{where}: {what}={number!r}; allowed: a finite number >= 0")
        if self.starts is not None and self.ends is not None and not _utc(self.starts) < _utc(self.ends):
            raise ConfigError(f"{where}: starts {self.starts} and ends {self.ends}; allowed: a start before the end")
        self._check_prefixes(where)
        terms = tuple(getattr(self, term.name) for term in fields(self) if term.compare)
        object.__setattr__(self, "_hash", hash(terms))

    def _check_which(self, where: str) -> None:
        bounds = {
            name: getattr(self, name)
            for name in ("minimum", "share", "minimum_by_prefix", "maximum", "maximum_by_prefix")
            if getattr(self, name) is not None
        }
        lower = [name for name in ("minimum", "share", "minimum_by_prefix") if name in bounds]
        if not bounds or len(lower) > 1 or {"maximum", "maximum_by_prefix"} <= bounds.keys():
            found = ", ".join(f"{name}={bound!r}" for name, bound in bounds.items()) or "no bound"
            raise ConfigError(
                f"{where}: allowed: at most one of minimum, share and minimum_by_prefix, at most one of maximum and "
                f"maximum_by_prefix, and at least one of all; found {found}"
            )
        if self.share is None and (self.scope != "viewer" or self.price is not None):
            raise ConfigError(f"{where}: scope and price belong to a share; found none")

    def _check_prefixes(self, where: str) -> None:
        steps = self.minimum_by_prefix or ()
        for place, bound in enumerate(steps, start=1):
            if bound > place or bound < max(steps[:place]):
                raise InfeasibleGuarantee(
                    f"{where}: minimum_by_prefix={list(steps)}, and entry {place} is {bound}; "
                    f"allowed: at most {place}, and never less than before"
                )
        window = self.last_prefix
        most = self.maxima(window)
        least = np.ceil(self.fixed_minima(window))
        if self.share is not None and self.maximum is not None and self.share * self.within_top > self.maximum:
            raise InfeasibleGuarantee(
                f"{where}: share={self.share} of the top {self.within_top} is more than maximum={self.maximum}"
            )
        if (least > most).any():
            p = int(np.argmax(least > most)) + 1
            raise InfeasibleGuarantee(
                f"{where}: at least {least[p - 1]:g} and at most {most[p - 1]:g} within the first {p}; "
                f"raise the maximum"
            )

    @property
    def last_prefix(self) -> int:
        """The longest prefix of a page that any of its bounds is about."""
        lengths = [len(steps) for steps in (self.minimum_by_prefix, self.maximum_by_prefix) if steps is not None]
        if self.minimum is not None or self.share is not None or self.maximum is not None:
            lengths.append(self.within_top)
        return max(lengths)

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
        int array, shape (min(n, last_prefix),)
            Entry p - 1 is the minimum within the first p positions: of a share ``max(0, ceil(min(share * D - D_t, slack
            + catch_up) + share * p - slack))``, 0 where its scope is the population; of a fixed minimum 0, then
            ``minimum`` at the end, also where the page is shorter than that. A fractional minimum is rounded up.

        Notes
        -----
        Without p in the formula the bound breaks: the impressions of a page raise the debt while it is shown.
        """
        window = min(n, self.last_prefix)
        if self.share is None:
            return np.ceil(self.fixed_minima(window)).astype(np.int64)
        if self.scope == "population":
            return np.zeros(window, dtype=np.int64)
        from spr.reorder.bounds import count_owed

        prefixes = range(1, window + 1)
        terms = (self.share, self.slack, self.catch_up, float(delivered), float(delivered_total))
        return np.array([count_owed(*terms, p) for p in prefixes], dtype=np.int64)

    def maxima(self, n: int) -> NDArray[np.int64]:
        """Return the most cohorts of the label within each prefix of a page, shape (min(n, last_prefix),)."""
        window = min(n, self.last_prefix)
        most = np.arange(1, window + 1)
        if self.maximum is not None:
            within = min(window, self.within_top)
            most[:within] = np.minimum(most[:within], self.maximum)
        elif self.maximum_by_prefix is not None:
            given = np.array(self.maximum_by_prefix[:window], dtype=np.int64)
            most[: len(given)] = np.minimum(most[: len(given)], given)
        return most

    def fixed_minima(self, window: int) -> NDArray[np.float64]:
        """Return what ``minimum`` or ``minimum_by_prefix`` asks within each of the first ``window`` prefixes."""
        due = np.zeros(window)
        if self.minimum is not None:
            due[min(window, self.within_top) - 1 :] = self.minimum
        elif self.minimum_by_prefix is not None:
            steps = np.array(self.minimum_by_prefix[:window], dtype=np.float64)
            due[: len(steps)] = steps
            due[len(steps) :] = steps[-1] if len(steps) else 0.0
            if window < len(self.minimum_by_prefix):
                due[-1:] = self.minimum_by_prefix[-1]
        return due

    def begins(self, since: datetime) -> datetime:
        """Return the later of its start and a time; without a time zone that is read as UTC."""
        return _utc(since) if self.starts is None else max(_utc(since), _utc(self.starts))

    def in_force(self, at: datetime) -> bool:
        """Say whether it holds at a time; without a time zone that is read as UTC."""
        moment = _utc(at)
        return not (
            (self.starts is not None and moment < _utc(self.starts))
            or (self.ends is not None and moment >= _utc(self.ends))
        )


def count_delivered(
    guarantees: Iterable[ImpressionGuarantee],
    labels: Mapping[LabelKind, Sequence[str] | NDArray[np.object_]],
    n: int,
) -> Delivered:
    """Count what a page adds to its viewer's counters.

    Parameters
    ----------
    guarantees : iterable of ImpressionGuarantee
        Of the page; only shares count impressions.
    labels : mapping of label kind to sequence of str
        Of the page's cohorts, top first.
    n : int
        Positions that the viewer reached.

    Returns
    -------
    Delivered
        By share of the page, also where it is 0, and in all: cohorts above the ``within_top`` of the shares.

    Examples
    --------
    >>> floor = ImpressionGuarantee("floor", "edge_type", "follow", share=0.5, within_top=2)
    >>> count_delivered([floor], {"edge_type": ["follow", "connection", "follow"]}, 3)
    Delivered(counts={'floor': 1}, total=2, counted={'floor': 2})
    """
    shares = [guarantee for guarantee in guarantees if guarantee.share is not None]
    total = min(n, shares[0].within_top) if shares else 0
    counts = {g.name: sum(label == g.label for label in labels[g.label_kind][:total]) for g in shares}
    return Delivered(counts, total, dict.fromkeys(counts, total))


def _utc(moment: datetime) -> datetime:
    from datetime import UTC

    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _is_number(found: object) -> bool:
    return isinstance(found, (int, float, np.number)) and not isinstance(found, bool) and isfinite(found)


def check_count(what: str, found: object, where: str, least: int) -> None:
    """Refuse what is no integer, or below ``least``."""
    try:
        whole = not isinstance(found, bool) and as_integer(found) >= least  # type: ignore[arg-type]  # raises if not
    except TypeError:
        whole = False
    if not whole:
        raise InfeasibleGuarantee(f"{where}: {what}={found!r}; allowed: an integer >= {least}")
