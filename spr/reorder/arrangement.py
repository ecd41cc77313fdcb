"""The order of a page: by value, under impression guarantees."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final

import numpy as np

from spr.errors import InvalidRequest
from spr.reorder.deadlines import Demand, fill_page
from spr.reorder.guarantees import LABEL_KINDS, ImpressionGuarantee, check_guarantees, count_owed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from spr.reorder.guarantees import LabelKind

    Labels = Sequence[str] | NDArray[np.str_] | NDArray[np.object_]

# Impressions of the next page that may already shape this one. Within h impressions, T shares that sum to s
# fall due less than s * h + T times: never more than h times past h = T / (1 - s). Exact up to s = 0.97 for
# three shares.
LOOK_AHEAD: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Reordering:
    """A page order under guarantees.

    Parameters
    ----------
    order : int array, shape (n_cohorts,)
        Indices of the cohorts, top first.
    shortfall : dict of str to int
        By guarantee, placements missing at the prefix that misses most. A guarantee that is met is not in it.
    lifted : dict of int to str
        By cohort index, the guarantee that placed it higher than its value alone would.
    """

    order: NDArray[np.intp]
    shortfall: dict[str, int]
    lifted: dict[int, str]

    @property
    def reason(self) -> list[str]:
        """Why each cohort stands where it does, by cohort index: ``"value"`` or ``"guarantee:<name>"``."""
        reason = ["value"] * len(self.order)
        for cohort, name in self.lifted.items():
            reason[cohort] = f"guarantee:{name}"
        return reason


def reorder(
    value: ArrayLike,
    edge_type: Labels,
    minimum: Mapping[str, int],
    within_top: int = 10,
) -> Reordering:
    """Order cohorts by value with at least ``minimum[t]`` of edge type t within the top ``within_top``.

    Parameters
    ----------
    value : float array, shape (n_cohorts,)
        Value of each cohort; finite.
    edge_type : sequence of str, length n_cohorts
        Edge type of each cohort.
    minimum : mapping of str to int
        Cohorts wanted by edge type. A type of which the page has too few is a shortfall, not an error.
    within_top : int, default 10
        The first positions that count; the whole page where it is shorter.

    Returns
    -------
    Reordering
        ``shortfall`` and the reasons are by edge type; a type whose minimum is met is not in ``shortfall``.

    Raises
    ------
    InvalidRequest
        A value that is not finite, or lengths that differ.
    InfeasibleGuarantee
        Minima that are negative, not integers, or sum to more than ``within_top``.

    Notes
    -----
    The order has the greatest ``sum(discount[position] * value)`` for every non-increasing discount at once.
    Proof: (1) In an optimal page let one of the m_t best cohorts of type t stand below N = within_top. Some
    cohort of t that is not among those m_t stands above N, since m_t of t do; swapped, the better one stands
    higher, the counts are the same and the sum is no smaller. So all "forced" cohorts stand above N, and
    every such page meets the minima. (2) Let a cohort stand right above one of higher value. Swapping the two
    gains, and is allowed unless it moves a forced cohort below N. A page without an allowed swap has at its
    last position the lowest value that may stand there (else the next lower one bubbles down), and so on
    upwards: the order that is returned.

    Examples
    --------
    >>> page = reorder([0.9, 0.8, 0.7, 0.1], ["follow", "follow", "follow", "connection"], {"connection": 1}, 2)
    >>> page.order.tolist(), page.reason[3]
    ([0, 3, 1, 2], 'guarantee:connection')
    >>> reorder([0.9, 0.1], ["follow", "connection"], {"connection": 2}).shortfall
    {'connection': 1}
    """
    guarantees = [
        ImpressionGuarantee(edge, "edge_type", edge, minimum=count, within_top=within_top)
        for edge, count in minimum.items()
    ]
    check_guarantees(guarantees)
    return arrange(value, {"edge_type": edge_type}, guarantees)


def arrange(
    value: ArrayLike,
    labels: Mapping[LabelKind, Labels],
    guarantees: Sequence[ImpressionGuarantee],
    *,
    delivered: Mapping[str, float] | None = None,
    delivered_total: float = 0.0,
) -> Reordering:
    """Order cohorts by value under any guarantees: the general form of `reorder`.

    Parameters
    ----------
    value : float array, shape (n_cohorts,)
        Value of each cohort; finite. Ties keep the order of the cohorts.
    labels : mapping of label kind to sequence of str, each of length n_cohorts
        The labels of each cohort, at least of the kinds that the guarantees name.
    guarantees : sequence of ImpressionGuarantee
        As accepted by `check_guarantees`.
    delivered : mapping of str to float, optional
        By guarantee name, the viewer's impressions of its label so far; 0 where it is not named. Names of
        guarantees that are not (or no longer) configured are passed over.
    delivered_total : float, default 0
        All of the viewer's impressions so far.

    Returns
    -------
    Reordering
        Every cohort once, also where supply or places are short; ``shortfall`` says by how much.

    Raises
    ------
    InvalidRequest
        A value that is not finite, lengths that differ, a missing label kind, or a negative counter.
    InfeasibleGuarantee
        Shares within different tops.

    Notes
    -----
    The j-th best cohort of a label is due by the smallest prefix whose minimum is >= j; positions are filled
    from the last one up with the lowest value whose deadline allows. By the argument in `reorder`, prefix by
    prefix, this is exact for every non-increasing discount where labels are disjoint (all of one kind),
    minima at every prefix included. Labels of several kinds nest (an entity type has one edge type): the
    narrowest claim first, and count for the wider. Then it is exact for fixed minima whose windows do not
    shrink outwards; with shares no order is best for every discount, and every guarantee is still met. Where
    more is due than there are places, the demands of lowest value wait for the next prefix.

    Several shares can fall due at the same impression, which no page that starts there could serve. `arrange`
    looks `LOOK_AHEAD` impressions past the page and serves early what would not fit, so that the deficit
    stays at most ``slack`` on every sequence of pages that have the cohorts. (Schedules exist from the start,
    since by prefix P less than ``sum(share) * P <= P`` is due; each page keeps one for whatever remains, so
    the next page has one too.)

    Examples
    --------
    >>> floor = ImpressionGuarantee("floor", "entity_type", "people", share=0.5, within_top=3)
    >>> page = arrange([0.9, 0.8, 0.2], {"entity_type": ["event", "event", "people"]}, [floor],
    ...                delivered={"floor": 3}, delivered_total=8)
    >>> page.order.tolist(), page.lifted
    ([2, 0, 1], {2: 'floor'})
    """
    values = _check_values(value)
    by_value = np.argsort(-values, kind="stable")
    ranked = by_value.tolist()
    members = {kind: _rank_members(ranked, column, kind) for kind, column in labels.items()}
    active = sorted(guarantees, key=lambda guarantee: LABEL_KINDS.index(guarantee.label_kind))
    demands = _demand(active, members, len(ranked), delivered or {}, delivered_total)
    position, lifted = fill_page(len(ranked), demands)
    order = np.empty_like(by_value)
    order[position] = by_value
    missing = {guarantee.name: demand.shortfall(position) for guarantee, demand in zip(active, demands, strict=True)}
    return Reordering(
        order=order,
        shortfall={name: count for name, count in missing.items() if count},
        lifted={ranked[rank]: active[index].name for rank, index in lifted.items()},
    )


def _demand(
    guarantees: Sequence[ImpressionGuarantee],
    members: Mapping[LabelKind, Mapping[str, list[int]]],
    n: int,
    delivered: Mapping[str, float],
    delivered_total: float,
) -> list[Demand]:
    shares = [guarantee for guarantee in guarantees if guarantee.share is not None]
    counters = [_check_counter(guarantee.name, delivered.get(guarantee.name, 0.0)) for guarantee in shares]
    total = _check_counter("delivered_total", delivered_total)
    owed: dict[str, NDArray[np.int64]] = {}
    if shares:
        if len({guarantee.within_top for guarantee in shares}) > 1:
            check_guarantees(guarantees)  # refuses them, and says why
        last = shares[0].within_top + LOOK_AHEAD
        rows = count_owed(shares, counters, total, last)
        owed = {guarantee.name: row for guarantee, row in zip(shares, rows, strict=True)}
    demands = []
    for guarantee in guarantees:
        if guarantee.label_kind not in members:
            raise InvalidRequest(
                f"guarantee {guarantee.name!r} needs the {guarantee.label_kind} of each cohort; "
                f"found only: {', '.join(members) or 'no labels'}"
            )
        ranks = members[guarantee.label_kind].get(guarantee.label, [])
        window = min(n, guarantee.within_top)
        if guarantee.share is None:
            demands.append(Demand(ranks, guarantee.minima(n).tolist()))
        else:
            due = owed[guarantee.name]
            demands.append(Demand(ranks, due[1 : window + 1].tolist(), due[window:]))
    return demands


def _rank_members(ranked: Sequence[int], column: Labels, kind: str) -> dict[str, list[int]]:
    if len(column) != len(ranked):
        raise InvalidRequest(f"{kind} has {len(column)} entries for {len(ranked)} values; allowed: one per cohort")
    members: dict[str, list[int]] = {}
    for rank, cohort in enumerate(ranked):
        members.setdefault(column[cohort], []).append(rank)
    return members


def _check_values(value: ArrayLike) -> NDArray[np.float64]:
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
    return count
