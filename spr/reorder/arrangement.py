"""The order of a page: by value, under impression guarantees."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from spr.reorder.bounded import PageBounds
from spr.reorder.feasibility import check_guarantees
from spr.reorder.guarantees import ImpressionGuarantee, check_count
from spr.reorder.reordering import Reordering, reordering

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from spr.reorder.bounded import Labels
    from spr.reorder.guarantees import LabelKind


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
    upwards: one page, which is therefore best for all discounts, so that its first position holds the highest value
    that a page which meets the minima can start with, and so on downwards: the order that is returned.

    Examples
    --------
    >>> page = reorder([0.9, 0.8, 0.7, 0.1], ["follow", "follow", "follow", "connection"], {"connection": 1}, 2)
    >>> page.order.tolist(), page.reason[3]
    ([0, 3, 1, 2], 'guarantee:connection')
    >>> reorder([0.9, 0.1], ["follow", "connection"], {"connection": 2}).shortfall
    {'connection': 1}
    """
    for edge, count in minimum.items():
        check_count("minimum", count, f"guarantee {edge!r}", least=0)
    guarantees = _of_minima(tuple(minimum.items()), within_top)
    return arrange(value, {"edge_type": edge_type}, guarantees)


@lru_cache(maxsize=256)
def _of_minima(minimum: tuple[tuple[str, int], ...], within_top: int) -> tuple[ImpressionGuarantee, ...]:
    guarantees = tuple(
        ImpressionGuarantee(edge, "edge_type", edge, minimum=count, within_top=within_top) for edge, count in minimum
    )
    check_guarantees(guarantees)
    return guarantees


def arrange(
    value: ArrayLike,
    labels: Mapping[LabelKind, Labels],
    guarantees: Sequence[ImpressionGuarantee],
    *,
    delivered: Mapping[str, float] | None = None,
    delivered_total: float = 0.0,
    discount: ArrayLike | None = None,
    uniform: float | None = None,
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
        By share, the viewer's impressions of its label so far. A share that is not named is not behind: it has just
        begun. Names of guarantees that are not (or no longer) configured are passed over.
    delivered_total : float, default 0
        All of the viewer's impressions so far.
    discount : float array, shape (n_cohorts,), optional
        What a position is worth; non-increasing, >= 0. Read only where no page is best for every discount. Default:
        ``1 / log2(position + 2)``.
    uniform : float, optional
        The draw in [0, 1) that rounds fractional minima. Needed where there are any.

    Returns
    -------
    Reordering
        Every cohort once, also where supply or places are short; ``shortfall`` says by how much.

    Raises
    ------
    InvalidRequest
        A value that is not finite, lengths that differ, a missing label kind, a negative counter, a discount that
        rises, or fractional minima without a draw.
    InfeasibleGuarantee
        Shares within different tops.

    Notes
    -----
    Positions are filled from the top: each takes the highest value after which the page can still be completed
    (:mod:`spr.reorder.bounds` says when). Where some page is best for every non-increasing discount, each of its
    prefixes has the greatest sum of values that a page can have there, so that it is this one. There is such a page

    * for minima at every prefix, of disjoint labels: unit jobs with deadlines; the argument in `reorder`, prefix by
      prefix (Lawler 1976, "Combinatorial Optimization: Networks and Matroids", ch. 7);
    * for minima of nested labels (an entity type has one edge type) where what a label asks beyond those inside it does
      not fall from one prefix to the next, as with fixed minima whose windows do not shrink outwards;
    * for maxima at every prefix, of disjoint labels: unit jobs with release times, mirrored;
    * for minima and maxima of disjoint or nested labels within one common top: the sets that keep them are the bases of
      a matroid, and the greedy basis has the best k elements for every k (Edmonds 1971, "Matroids and the greedy
      algorithm", Mathematical Programming 1);
    * whenever the page that keeps the minima alone keeps the maxima, too, or the other way round.

    Elsewhere the page depends on the discount: minima and maxima of disjoint labels are an assignment problem (the j-th
    best cohort of a label stands between the first prefix that lets j of them in and the first that demands j), and the
    rest, an integer program, solved by HiGHS in milliseconds: crossing labels, and minima and maxima of nested labels
    that contradict each other on this page, which are broken by as little as possible. Where shares of nested labels
    pull in two directions, every guarantee is met and the page need not be the best one; ``optimal_for`` says which.

    Where more is due than there are places, the demands of lowest value wait for the next prefix.

    Several shares can fall due at the same impression, which no page that starts there could serve. `arrange` looks
    past the page and serves early what would not fit, so that the deficit stays at most ``slack`` on every sequence of
    pages that have the cohorts. (Schedules exist from the start, since by prefix P less than ``sum(share) * P <= P`` is
    due; each page keeps one for whatever remains, so the next page has one too.)

    Examples
    --------
    >>> floor = ImpressionGuarantee("floor", "entity_type", "people", share=0.5, within_top=3)
    >>> page = arrange([0.9, 0.8, 0.2], {"entity_type": ["event", "event", "people"]}, [floor],
    ...                delivered={"floor": 3}, delivered_total=8)
    >>> page.order.tolist(), page.lifted
    ([2, 0, 1], {2: 'floor'})

    A minimum of 0.3 lifts the last cohort on three pages of ten:

    >>> some = ImpressionGuarantee("some", "entity_type", "people", minimum=0.3, within_top=1)
    >>> page = arrange([0.9, 0.2], {"entity_type": ["event", "people"]}, [some], uniform=0.9)
    >>> page.order.tolist(), [(round(o.probability, 3), o.order.tolist()) for o in page.outcomes]
    ([1, 0], [(0.7, [0, 1]), (0.3, [1, 0])])
    """
    values = np.asarray(value, dtype=np.float64)
    bounds = PageBounds(len(values), labels, guarantees, delivered or {}, delivered_total, discount)
    return reordering(bounds.bound(values, uniform))
