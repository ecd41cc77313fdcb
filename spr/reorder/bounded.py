"""A page whose guarantees have become bounds: what `arrange` orders and exploration draws from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, isfinite
from typing import TYPE_CHECKING

import numpy as np

from spr.errors import InvalidRequest
from spr.reorder.feasibility import check_guarantees
from spr.reorder.guarantees import LABEL_KINDS
from spr.reorder.rounding import fractional_rows, round_minima

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from spr.reorder.guarantees import ImpressionGuarantee, LabelKind

    Labels = Sequence[str] | NDArray[np.str_] | NDArray[np.object_]
    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]

# Impressions of the next page that may already shape this one. T shares that sum to s < 1 are owed less than s h + T of
# h impressions, which is never more than h from h = T / (1 - s) on; shares that sum to 1 repeat themselves.
_FURTHEST = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Guarantees as arrays, a row each: made once for a configuration."""

    guarantees: tuple[ImpressionGuarantee, ...]
    kinds: tuple[LabelKind, ...]
    codes: tuple[dict[str, int], ...]  # by kind
    kind: Integers
    code: Integers
    minima: Integers  # [G, W + 1]
    maxima: Integers
    window: Integers
    rate: Floats  # 0 where no share is promised to a viewer
    share: Floats  # 0 where there is none
    slack: Floats
    catch_up: Floats
    price: Floats
    steered: Floats  # the share where a price moves with the viewer and the page, else 0
    end: int
    horizon: int
    fractional: Integers  # rows
    draw_end: Floats
    draws: Integers  # [outcomes, fractional rows]


@lru_cache(maxsize=256)
def make_plan(guarantees: tuple[ImpressionGuarantee, ...]) -> Plan:
    """Return guarantees as arrays.

    Raises
    ------
    InfeasibleGuarantee
        Shares within different tops, and whatever else `check_guarantees` refuses about them.
    """
    shares = [g for g in guarantees if g.share is not None]
    if len({g.within_top for g in shares}) > 1:
        check_guarantees(guarantees)  # refuses them, and says why
    kinds = tuple(kind for kind in LABEL_KINDS if any(g.label_kind == kind for g in guarantees))
    codes: tuple[dict[str, int], ...] = tuple({} for _ in kinds)
    kind = np.array([kinds.index(g.label_kind) for g in guarantees], dtype=np.int64)
    code = [codes[k].setdefault(g.label, len(codes[k])) for k, g in zip(kind, guarantees, strict=True)]
    width = max((g.last_prefix for g in guarantees), default=0)
    minima = np.zeros((len(guarantees), width + 1), dtype=np.int64)
    maxima = np.tile(np.arange(width + 1), (len(guarantees), 1))
    for row, g in enumerate(guarantees):
        if g.share is None:
            minima[row, 1 : g.last_prefix + 1] = np.floor(g.fixed_minima(g.last_prefix))
            minima[row, g.last_prefix :] = minima[row, g.last_prefix]
        maxima[row, 1 : g.last_prefix + 1] = g.maxima(g.last_prefix)
    promised = [g.share if g.share is not None and g.scope == "viewer" else 0.0 for g in guarantees]
    total = max((sum(g.share or 0.0 for g in shares if g.label_kind == k) for k in LABEL_KINDS), default=0.0)
    horizon = ceil(min(_FURTHEST, len(shares) / (1.0 - total) if total < 1.0 else _FURTHEST))
    fractional = fractional_rows(guarantees)
    end, draws = round_minima([guarantees[row].minimum or 0.0 for row in fractional])
    return Plan(
        guarantees,
        kinds,
        codes,
        kind,
        np.array(code, dtype=np.int64),
        minima,
        maxima,
        np.array([g.last_prefix for g in guarantees], dtype=np.int64),
        np.array(promised, dtype=np.float64),
        np.array([g.share or 0.0 for g in guarantees], dtype=np.float64),
        np.array([g.slack for g in guarantees], dtype=np.float64),
        np.array([g.catch_up for g in guarantees], dtype=np.float64),
        np.array([g.price or 0.0 for g in guarantees], dtype=np.float64),
        np.array([p if g.price is not None else 0.0 for g, p in zip(guarantees, promised, strict=True)]),
        shares[0].within_top if shares else 0,
        horizon,
        np.array(fractional, dtype=np.int64),
        end,
        draws,
    )


@dataclass(frozen=True, slots=True, eq=False)
class BoundedPage:
    """One request's cohorts by value, and the bounds that its page keeps.

    Parameters
    ----------
    by_value : int array, shape (n,)
        Cohort at each rank, best first.
    value : float array, shape (n,)
        Of the ranks.
    member : bool array, shape (G, n)
        Whether a rank counts for a guarantee.
    minima, maxima : int array, shape (G, W + 1)
        At each prefix; settled, so that some page keeps them, unless ``unsettled``.
    asked, allowed : int array, shape (G, W + 1)
        The minima and maxima before they were settled.
    unsettled : bool
        Whether labels cross, or bounds of nested ones contradict each other on this page.
    parent, outwards, innermost : int array
        The forest of guarantees; see :mod:`spr.reorder.bounds`.
    order, lifted : int array, shape (n,)
        Rank at each position of the page of greatest value, and the guarantee that lifted it or -1.
    shortfall : int array, shape (G,)
    optimal_for : int
        As of :func:`spr.reorder.filling.arrange_page`.
    """

    by_value: NDArray[np.intp]
    value: Floats
    member: NDArray[np.bool_]
    minima: Integers
    maxima: Integers
    asked: Integers
    allowed: Integers
    unsettled: bool
    parent: Integers
    outwards: Integers
    innermost: Integers
    order: Integers
    lifted: Integers
    shortfall: Integers
    optimal_for: int

    @property
    def depends_on_discount(self) -> bool:
        """Whether no page is best for every discount."""
        return self.optimal_for == 1

    @property
    def can_be_drawn(self) -> bool:
        """Whether every page that `fill` draws keeps the bounds: not where nested guarantees have maxima."""
        size = self.member.sum(axis=1)
        inner = np.flatnonzero((self.parent >= 0) & (size < size[self.parent]))
        if self.unsettled or not len(inner):
            return not self.unsettled
        root = np.arange(len(size))
        for _ in size:
            root = np.where(self.parent[root] >= 0, self.parent[root], root)
        capped = (self.maxima < np.arange(self.maxima.shape[1])).any(axis=1)
        return not np.isin(root[capped], root[inner]).any()

    def lifted_ranks(self) -> dict[int, int]:
        """Return the guarantee of each rank that one lifted."""
        return {int(self.order[p]): int(self.lifted[p]) for p in np.flatnonzero(self.lifted >= 0)}

    def named_shortfall(self, plan: Plan) -> dict[str, int]:
        """Return the shortfall of the guarantees that are not met."""
        return {plan.guarantees[g].name: int(self.shortfall[g]) for g in np.flatnonzero(self.shortfall)}


@dataclass(frozen=True, slots=True, eq=False)
class BoundedPages:
    """The bounded pages of all draws of fractional minima: one, where there are none.

    Parameters
    ----------
    plan : Plan
        Of the guarantees.
    probability : float array, shape (outcomes,)
        Of each draw.
    pages : list of BoundedPage
        For each draw.
    drawn : int
        Which draw this request has.
    """

    plan: Plan
    probability: Floats
    pages: list[BoundedPage]
    drawn: int


class PageBounds:
    """Makes bounded pages of one request for any values of its cohorts.

    Parameters
    ----------
    labels : mapping of label kind to sequence of str, each of length n
    guarantees : sequence of ImpressionGuarantee
    delivered, delivered_total, discount
        As of :func:`spr.reorder.arrange`.
    n : int
        Cohorts.
    """

    __slots__ = ("_code", "_delivered", "_discount", "_n", "_total", "plan")

    def __init__(
        self,
        n: int,
        labels: Mapping[LabelKind, Labels],
        guarantees: Sequence[ImpressionGuarantee],
        delivered: Mapping[str, float],
        delivered_total: float,
        discount: ArrayLike | None = None,
    ) -> None:
        plan = self.plan = make_plan(tuple(guarantees))
        for kind, column in labels.items():
            if len(column) != n:
                raise InvalidRequest(f"{kind} has {len(column)} entries for {n} values; allowed: one per cohort")
        for kind in plan.kinds:
            if kind not in labels:
                name = next(g.name for g in plan.guarantees if g.label_kind == kind)
                raise InvalidRequest(
                    f"guarantee {name!r} needs the {kind} of each cohort; "
                    f"found only: {', '.join(labels) or 'no labels'}"
                )
        columns = zip(plan.codes, [labels[kind] for kind in plan.kinds], strict=True)
        code = np.array([[codes.get(label, -1) for label in column] for codes, column in columns], dtype=np.int64)
        self._code = code.reshape(len(plan.kinds), n)[plan.kind] == plan.code[:, None]
        self._n, self._discount = n, discount
        self._total = _check_counter("delivered_total", delivered_total)
        self._delivered = plan.share * self._total  # of a share without a counter, which is not behind
        if plan.end:
            for row, g in enumerate(plan.guarantees):
                if g.share is not None and g.name in delivered:
                    self._delivered[row] = _check_counter(g.name, delivered[g.name])

    def bound(self, value: ArrayLike, uniform: float | None = None) -> BoundedPages:
        """Return the bounded pages of the cohorts' values.

        Parameters
        ----------
        value : float array, shape (n,)
        uniform : float, optional
            As of :func:`spr.reorder.arrange`.

        Raises
        ------
        InvalidRequest
            As of :func:`spr.reorder.arrange`.
        """
        values = _check_values(value)
        plan = self.plan
        by_value = np.argsort(-values, kind="stable")
        ranked, member = values[by_value], self._code[:, by_value]
        if len(plan.fractional) == 0:
            return BoundedPages(plan, np.ones(1), [self._page(by_value, ranked, member, None)], 0)
        if uniform is None or not 0.0 <= uniform < 1.0:
            raise InvalidRequest(f"uniform is {uniform!r}; fractional minima need a draw in [0, 1)")
        pages = [self._page(by_value, ranked, member, drawn) for drawn in plan.draws]
        drawn = int(np.searchsorted(plan.draw_end, uniform, side="right"))
        return BoundedPages(plan, np.diff(plan.draw_end, prepend=0.0), pages, drawn)

    def _page(
        self, by_value: NDArray[np.intp], value: Floats, member: NDArray[np.bool_], drawn: Integers | None
    ) -> BoundedPage:
        from spr.reorder.filling import ONE_DISCOUNT, arrange_page, missing  # numba loads when a page is made

        plan, n = self.plan, self._n
        last = min(n, plan.minima.shape[1] - 1)
        minima, maxima = plan.minima[:, : last + 1].copy(), plan.maxima[:, : last + 1].copy()
        if last:
            minima[:, last] = plan.minima[:, -1]  # also on a page shorter than the window
        window = np.minimum(plan.window, last)
        if drawn is not None:
            for row, count in zip(plan.fractional, drawn, strict=True):
                minima[row, window[row] :] = count
        allowed, price = maxima.copy(), plan.price
        if plan.steered.any() and self._n:
            from spr.reorder.steering import steer

            most = plan.slack + plan.catch_up
            counters = (self._delivered, self._total, plan.end)
            price = steer(value, member, plan.kind, plan.steered, plan.slack, most, price, *counters)
        order, lifted, shortfall, optimal, unsettled, asked, minima, maxima, parent, outwards, innermost = arrange_page(
            value,
            member,
            minima,
            maxima,
            window,
            plan.rate,
            plan.slack,
            plan.catch_up,
            price,
            self._delivered,
            self._total,
            min(plan.end, last),
            plan.horizon,
        )
        if optimal == ONE_DISCOUNT:
            from spr.reorder.assignment import best_page

            discount = _check_discount(self._discount, n)
            order = best_page(value, member, minima, maxima, discount, settled=not unsettled)
            lifted, shortfall = _find_lifted(order, member, asked), missing(order, asked, allowed, member)
        return BoundedPage(
            by_value,
            value,
            member,
            minima,
            maxima,
            asked,
            allowed,
            unsettled,
            parent,
            outwards,
            innermost,
            order,
            lifted,
            shortfall,
            optimal,
        )


def _find_lifted(order: Integers, member: NDArray[np.bool_], minima: Integers) -> Integers:
    """Name the narrowest guarantee of each rank that stands higher than by value; -1 for the others."""
    asking = np.flatnonzero(minima.any(axis=1))
    narrowest = asking[np.argsort(member[asking].sum(axis=1), kind="stable")]
    lifted = np.full(len(order), -1, dtype=np.int64)
    for position, rank in enumerate(order):
        named = narrowest[member[narrowest, rank]]
        if position < rank and len(named):
            lifted[position] = named[0]
    return lifted


def _check_values(value: ArrayLike) -> Floats:
    values = np.asarray(value, dtype=np.float64)
    if values.ndim != 1:
        raise InvalidRequest(f"value has shape {values.shape}; allowed: one number per cohort")
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        raise InvalidRequest(
            f"value is not finite for {int((~finite).sum())} of {len(values)} cohorts; "
            f"first: index {first} is {values[first]}"
        )
    return values


def _check_counter(name: str, count: float) -> float:
    if not (count >= 0.0 and isfinite(count)):
        raise InvalidRequest(f"delivered impressions of {name!r} are {count}; allowed: a finite number >= 0")
    return float(count)


def _check_discount(discount: ArrayLike | None, n: int) -> Floats:
    if discount is None:
        return np.asarray(1.0 / np.log2(np.arange(n) + 2.0))
    given = np.asarray(discount, dtype=np.float64)
    if given.shape != (n,) or not np.isfinite(given).all() or (np.diff(given) > 0).any() or (given < 0).any():
        raise InvalidRequest(f"discount of shape {given.shape}; allowed: {n} finite numbers >= 0 that never rise")
    return given
