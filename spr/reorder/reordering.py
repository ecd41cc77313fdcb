"""What ordering a page gives: the order, why, how likely it was, and what it falls short of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.reorder.bounded import BoundedPages

PropensityKind = Literal["exact", "sequential", "monte_carlo", "none"]
OptimalFor = Literal["every discount", "the discount", "no discount", "the prices"]
_OPTIMAL_FOR: tuple[OptimalFor, ...] = ("every discount", "the discount", "no discount", "the prices")


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A page that a draw of minima can lead to, and how likely it is.

    Parameters
    ----------
    probability : float
        Mass of the draws that lead to it.
    order : int array, shape (n_cohorts,)
        Indices of the cohorts, top first.
    """

    probability: float
    order: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Reordering:
    """A page order under guarantees, with or without exploration.

    Parameters
    ----------
    order : int array, shape (n_cohorts,)
        Indices of the cohorts, top first.
    shortfall : dict of str to int
        By guarantee, placements missing at the prefix that misses most, or above a maximum where it is exceeded most. A
        guarantee that is met is not in it.
    lifted : dict of int to str
        By cohort index, the guarantee that placed it higher than its value alone would.
    propensity : float array, shape (n_cohorts,), or None
        By position, of the cohort there; None where the page is deterministic.
    kind : {"exact", "sequential", "monte_carlo", "none"}
        ``exact``: the marginal probability of the cohort at its position. ``sequential``: its probability given the
        cohorts above it; the product over the positions is the probability of the page. ``monte_carlo``: the marginal
        probability, estimated. ``none``: deterministic.
    draws : int
        Of ``monte_carlo``, else 0.
    moved : set of int
        Cohorts that do not stand where they would without exploration, and that no guarantee placed.
    optimal_for : {"every discount", "the discount", "no discount", "the prices"} or None
        Among the pages that keep what can be kept, this one has the greatest ``sum(discount[position] * value)`` for
        every non-increasing discount; for the discount it was arranged for, where no page is best for all; or it keeps
        the guarantees without being best (shares of nested labels that pull in two directions); or prices of shares
        chose how many cohorts of each label it has at the top, and it is the best with so many. None: explored.
    outcomes : tuple of Outcome
        The different pages that a draw of fractional minima can lead to; empty where nothing is drawn, or explored.
    """

    order: NDArray[np.intp]
    shortfall: dict[str, int]
    lifted: dict[int, str]
    propensity: NDArray[np.float64] | None = None
    kind: PropensityKind = "none"
    draws: int = 0
    moved: frozenset[int] = frozenset()
    optimal_for: OptimalFor | None = None
    outcomes: tuple[Outcome, ...] = ()

    @property
    def reason(self) -> list[str]:
        """Why each cohort stands where it does, by cohort index: value, guarantee:<name> or exploration."""
        reason = ["value"] * len(self.order)
        for cohort in self.moved:
            reason[cohort] = "exploration"
        for cohort, name in self.lifted.items():
            reason[cohort] = f"guarantee:{name}"
        return reason


def reordering(pages: BoundedPages) -> Reordering:
    """Return the page of greatest value of a request, and what else could have been drawn."""
    page, guarantees = pages.pages[pages.drawn], pages.plan.guarantees
    order = page.by_value[page.order]
    outcomes = _merge(pages)
    return Reordering(
        order=order,
        shortfall=page.named_shortfall(pages.plan),
        lifted={int(page.by_value[rank]): guarantees[g].name for rank, g in page.lifted_ranks().items()},
        propensity=sum((o.probability * (o.order == order) for o in outcomes), np.zeros(len(order)))
        if outcomes
        else None,
        kind="exact" if outcomes else "none",
        optimal_for=_OPTIMAL_FOR[page.optimal_for],
        outcomes=outcomes,
    )


def _merge(pages: BoundedPages) -> tuple[Outcome, ...]:
    if len(pages.pages) == 1:
        return ()
    mass: dict[bytes, float] = {}
    orders = [page.by_value[page.order] for page in pages.pages]
    for order, probability in zip(orders, pages.probability.tolist(), strict=True):
        mass[order.tobytes()] = mass.get(order.tobytes(), 0.0) + probability
    different = {order.tobytes(): order for order in orders}
    outcomes = tuple(Outcome(mass[key], order) for key, order in different.items())
    return outcomes if len(outcomes) > 1 else ()
