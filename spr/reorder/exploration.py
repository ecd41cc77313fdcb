"""Milder ways to learn than a shuffled page: each knows the propensity of the page that was served.

`explore` perturbs the page of a request within its guarantees, so that what it states is about the final page.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from spr.errors import ConfigError, name_unknown
from spr.reorder.random_policy import first_uniform, uniforms
from spr.reorder.reordering import Reordering, reordering

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spr.reorder.bounded import BoundedPage, BoundedPages, PageBounds
    from spr.reorder.reordering import PropensityKind

    Integers = NDArray[np.int64]
    Floats = NDArray[np.float64]

Method = Literal["shuffle_top", "adjacent_swaps", "epsilon", "plackett_luce", "thompson"]
METHODS: tuple[Method, ...] = get_args(Method)
SETTINGS: Mapping[Method, frozenset[str]] = MappingProxyType(
    {
        "shuffle_top": frozenset({"depth", "draws"}),
        "adjacent_swaps": frozenset({"depth", "epsilon"}),
        "epsilon": frozenset({"depth", "epsilon", "draws"}),
        "plackett_luce": frozenset({"depth", "temperature", "draws"}),
        "thompson": frozenset({"draws"}),
    }
)
"""What each method reads."""


@dataclass(frozen=True, slots=True)
class PageExploration:
    """A way to explore, and its strength.

    Parameters
    ----------
    method : {"shuffle_top", "adjacent_swaps", "epsilon", "plackett_luce", "thompson"}
        ``shuffle_top``: the first ``depth`` cohorts of the page in any order. ``adjacent_swaps``: neighbours change
        places (FairPairs; Radlinski and Joachims 2006, "Minimally invasive randomization for collecting unbiased
        preferences from clickthrough logs", AAAI). ``epsilon``: each of the first ``depth`` positions takes any cohort
        that may stand there. ``plackett_luce``: each takes a cohort in proportion to ``value ** (1 / temperature)``
        (Plackett 1975, "The analysis of permutations", Applied Statistics 24). ``thompson``: values under one draw of
        the viewer's coefficients from their posterior (Chapelle and Li 2011, "An empirical evaluation of Thompson
        sampling", NIPS).
    depth : int, default 10
        Positions that are explored; not read by ``thompson``.
    epsilon : float, optional
        Probability that a position (``epsilon``) or a pair of neighbours (``adjacent_swaps``) is disturbed, in (0, 1].
        Default: 0.1, and for swaps 0.5.
    temperature : float, default 0.1
        Of ``plackett_luce``, > 0: 1 draws in proportion to the values, near 0 the order is by value. The scale of the
        values does not matter.
    draws : int, default 0
        Draws that estimate the marginal propensity of each placement. 0: sequential propensities where there is no
        exact one. ``thompson`` has no other way, and takes 200 for 0.

    Raises
    ------
    ConfigError
        An unknown method, or a number out of its range.

    Examples
    --------
    >>> PageExploration("adjacent_swaps").disturbance
    0.5
    """

    method: Method
    depth: int = 10
    epsilon: float | None = None
    temperature: float = 0.1
    draws: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(name_unknown("method", self.method, METHODS, "exploration"))
        if self.depth < 1:
            raise ConfigError(f"exploration: depth={self.depth}; allowed: 1 or more")
        if not 0.0 < self.disturbance <= 1.0:
            raise ConfigError(f"exploration: epsilon={self.epsilon}; allowed: above 0, at most 1")
        if not (self.temperature > 0.0 and isfinite(self.temperature)):
            raise ConfigError(f"exploration: temperature={self.temperature}; allowed: a finite number above 0")
        if self.draws < 0:
            raise ConfigError(f"exploration: draws={self.draws}; allowed: 0 or more")
        if self.method == "thompson" and self.draws == 0:
            object.__setattr__(self, "draws", 200)

    @property
    def disturbance(self) -> float:
        """``epsilon``, or its default."""
        if self.epsilon is not None:
            return self.epsilon
        return 0.5 if self.method == "adjacent_swaps" else 0.1


def explore(
    bounds: PageBounds,
    value: Floats,
    exploration: PageExploration,
    request_id: str,
    salt: str,
    sampled: Floats | None = None,
) -> Reordering:
    """Make the page of a request under exploration and guarantees.

    Parameters
    ----------
    bounds : PageBounds
        Labels, guarantees and counters of the request.
    value : float array, shape (n,)
        Of the cohorts; finite, for ``plackett_luce`` >= 0.
    exploration : Exploration
    request_id, salt : str
        Seed the draws: the same request gives the same page.
    sampled : float array, shape (draws + 1, n), optional
        For ``thompson``: values under independent draws of the coefficients; the first makes the page.

    Returns
    -------
    Reordering

    Notes
    -----
    *Sequential* methods fill the page from the top, choosing among the cohorts after which the guarantees can still be
    kept, so every page that they make keeps them. Where fractional minima are drawn as well, a placement's probability
    given those above it is the mixture over the draws.

    *Swaps* take the pairs (0, 1), (2, 3), ... or (1, 2), (3, 4), ... with equal probability. A swap changes only the
    prefix between the two cohorts, which no other pair of that parity touches, so that the pairs that break no bound
    are swapped independently and the marginals are exact.

    *Monte Carlo*: with c of K further draws placing the cohort there, the estimate is (c + 1) / (K + 1). Its inverse is
    unbiased for the inverse propensity but for (1 - p)^(K + 1), since E[1 / (1 + Bin(K, p))] = (1 - (1 - p)^(K + 1)) /
    ((K + 1) p) (Chao and Strawderman 1972, "Negative moments of positive random variables", JASA 67).

    A page stays as it is without exploration where labels cross or bounds contradict each other, and, with the
    sequential methods, where a guarantee lies inside another and either has a maximum: which cohorts may stand next is
    not known there without a search.

    Examples
    --------
    >>> from spr.reorder import PageBounds
    >>> page = PageBounds(3, {}, (), {}, 0)
    >>> made = explore(page, np.array([0.3, 0.2, 0.1]), PageExploration("shuffle_top", depth=2), "r7", "spr")
    >>> made.order.tolist(), made.propensity.tolist(), made.kind
    ([1, 0, 2], [0.5, 0.5, 1.0], 'exact')
    """
    if exploration.method == "thompson":
        if sampled is None or len(sampled) != exploration.draws + 1:
            raise ConfigError("exploration: thompson needs values under draws + 1 draws of the coefficients")
        return _explore_sampled(bounds, value, sampled, request_id, salt)
    pages = bounds.bound(value, first_uniform(request_id, salt, b"rounding"))
    if any(page.unsettled for page in pages.pages):
        return reordering(pages)
    n = len(value)
    if exploration.method != "adjacent_swaps" and not all(page.can_be_drawn for page in pages.pages):
        return reordering(pages)
    if exploration.method == "adjacent_swaps":
        explored = _swap(pages, exploration, uniforms(n + 1, request_id, salt, b"exploration"))
    else:
        explored = _draw(pages, exploration, uniforms(n, request_id, salt, b"exploration"))
        if exploration.draws and explored.kind == "sequential":
            return _estimate(pages, exploration, explored, request_id, salt)
    return explored


def _swap(pages: BoundedPages, exploration: PageExploration, uniform: Floats) -> Reordering:
    page = pages.pages[pages.drawn]
    n, chance = len(page.order), exploration.disturbance
    depth = min(exploration.depth, n)
    order, first = page.order.copy(), int(uniform[n] < 0.5)
    allowed = [_may_swap(other, depth) for other in pages.pages]
    for p in range(first, depth - 1, 2):
        if allowed[pages.drawn][p] and uniform[p] < chance:
            order[p : p + 2] = order[p : p + 2][::-1]
    propensity = np.zeros(n)
    for probability, other, may in zip(pages.probability, pages.pages, allowed, strict=True):
        base = np.empty(n, dtype=np.int64)
        base[other.order] = np.arange(n)
        leaves = 0.5 * chance * np.concatenate([[0.0], may, [0.0] * (n - len(may))])  # over the pair (p - 1, p)
        stays = 1.0 - leaves[:n] - leaves[1:]
        away = base[order] - np.arange(n)
        moved_down, moved_up = away == -1, away == 1
        marginal = np.where(away == 0, stays, 0.0)
        marginal[moved_down] = leaves[:n][moved_down]
        marginal[moved_up] = leaves[1:][moved_up]
        propensity += probability * marginal
    return _made(pages, order, page.lifted_ranks(), propensity, "exact")


def _may_swap(page: BoundedPage, depth: int) -> NDArray[np.bool_]:
    """Say for each pair of neighbours (p, p + 1) whether swapping them keeps every bound."""
    on_page = page.member[:, page.order].astype(np.int64)
    last = page.minima.shape[1] - 1
    may = np.ones(max(depth - 1, 0), dtype=bool)
    for p in range(min(len(may), last)):
        count = on_page[:, :p].sum(axis=1) + on_page[:, p + 1]
        may[p] = ((page.minima[:, p + 1] <= count) & (count <= page.maxima[:, p + 1])).all()
    return may


def _draw(pages: BoundedPages, exploration: PageExploration, uniform: Floats) -> Reordering:
    page, depth = pages.pages[pages.drawn], min(exploration.depth, len(uniform))
    order, lifted, _ = _fill(page, exploration, uniform)
    if exploration.method == "shuffle_top" and all(_is_free(other, depth) for other in pages.pages):
        propensity = np.zeros(len(order))
        for probability, other in zip(pages.probability, pages.pages, strict=True):
            top = np.isin(order[:depth], other.order[:depth]) / depth
            propensity += probability * np.concatenate([top, order[depth:] == other.order[depth:]])
        return _made(pages, order, lifted, propensity, "exact")
    if len(pages.pages) == 1:
        return _made(pages, order, lifted, _fill(page, exploration, uniform, order)[2], "sequential")
    chance = np.array([_fill(other, exploration, uniform, order)[2] for other in pages.pages])
    # of the draws, given what stands above
    belief, propensity = pages.probability, np.empty(len(order))
    for p, chances in enumerate(chance.T):
        joint = belief * chances
        propensity[p] = joint.sum()
        belief = joint / propensity[p]
    return _made(pages, order, lifted, propensity, "sequential")


def _fill(
    page: BoundedPage, exploration: PageExploration, uniform: Floats, given: Integers | None = None
) -> tuple[Integers, dict[int, int], Floats]:
    from spr.reorder.filling import fill

    n, depth = len(page.order), min(exploration.depth, len(page.order))
    log_weight, mixture = np.zeros(n), 1.0
    if exploration.method == "epsilon":
        mixture = exploration.disturbance
    elif exploration.method == "shuffle_top":
        log_weight = np.full(n, -np.inf)
        log_weight[page.order[:depth]] = 0.0
    elif exploration.method == "plackett_luce":
        with np.errstate(divide="ignore"):
            log_weight = np.log(np.maximum(page.value, 0.0)) / exploration.temperature
    order, lifted, chance = fill(
        page.minima,
        page.maxima,
        page.parent,
        page.outwards,
        page.innermost,
        depth,
        mixture,
        log_weight,
        uniform,
        np.empty(0, dtype=np.int64) if given is None else given,
    )
    return order, {int(order[p]): int(lifted[p]) for p in np.flatnonzero(lifted >= 0)}, chance


def _is_free(page: BoundedPage, depth: int) -> bool:
    """Say whether the first cohorts of a page keep every bound in any order."""
    count = page.member[:, page.order[:depth]].sum(axis=1)[:, None]
    prefix = np.arange(min(depth, page.minima.shape[1]))
    fewest, most = np.maximum(count - (depth - prefix), 0), np.minimum(count, prefix)
    keeps = (fewest >= page.minima[:, : len(prefix)]).all() and (most <= page.maxima[:, : len(prefix)]).all()
    return bool(keeps) and not page.depends_on_discount


def _estimate(
    pages: BoundedPages, exploration: PageExploration, explored: Reordering, request_id: str, salt: str
) -> Reordering:
    n, draws = len(explored.order), exploration.draws
    uniform = uniforms(draws * (n + 1), request_id, salt, b"monte-carlo").reshape(draws, n + 1)
    drawn = np.searchsorted(pages.plan.draw_end, uniform[:, n], side="right") if len(pages.pages) > 1 else None
    by_value = pages.pages[0].by_value
    count = np.zeros(n)
    for draw in range(draws):
        page = pages.pages[0 if drawn is None else drawn[draw]]
        count += by_value[_fill(page, exploration, uniform[draw, :n])[0]] == explored.order
    return replace(explored, propensity=(count + 1.0) / (draws + 1.0), kind="monte_carlo", draws=draws)


def _explore_sampled(bounds: PageBounds, value: Floats, sampled: Floats, request_id: str, salt: str) -> Reordering:
    draws = len(sampled) - 1
    own = first_uniform(request_id, salt, b"rounding")
    uniform = np.concatenate([[own], uniforms(draws, request_id, salt, b"monte-carlo")])
    made = bounds.bound(sampled[0], own)
    if any(page.unsettled for page in made.pages):
        return reordering(bounds.bound(value, own))
    page = made.pages[made.drawn]
    order = page.by_value[page.order]
    count = np.zeros(len(order))
    for values, u in zip(sampled[1:], uniform[1:], strict=True):
        other = bounds.bound(values, float(u))
        count += other.pages[other.drawn].by_value[other.pages[other.drawn].order] == order
    without = bounds.bound(value, own)
    unexplored = without.pages[without.drawn]
    lifted = {int(page.by_value[rank]): made.plan.guarantees[g].name for rank, g in page.lifted_ranks().items()}
    stays = unexplored.by_value[unexplored.order] == order
    return Reordering(
        order=order,
        propensity=(count + 1.0) / (draws + 1.0),
        kind="monte_carlo",
        draws=draws,
        shortfall=page.named_shortfall(made.plan),
        lifted=lifted,
        moved=frozenset(order[~stays].tolist()) - lifted.keys(),
    )


def _made(
    pages: BoundedPages, order: Integers, lifted: dict[int, int], propensity: Floats, kind: PropensityKind
) -> Reordering:
    """Return a page of ranks as cohorts."""
    from spr.reorder.filling import missing

    page, guarantees = pages.pages[pages.drawn], pages.plan.guarantees
    short = missing(order, page.asked, page.allowed, page.member)
    moved = frozenset(page.by_value[order[order != page.order]].tolist())
    named = {int(page.by_value[rank]): guarantees[g].name for rank, g in lifted.items()}
    return Reordering(
        order=page.by_value[order],
        propensity=propensity,
        kind=kind,
        draws=0,
        shortfall={guarantees[g].name: int(short[g]) for g in np.flatnonzero(short)},
        lifted=named,
        moved=moved - named.keys(),
    )
