"""From the values of a request's cohorts to its page: guarantees and exploration, or the random policy's shuffle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

import numpy as np

from spr.errors import InvalidRequest
from spr.page import Page
from spr.personalisation import sample_values
from spr.reorder import (
    SHUFFLE_PROPENSITY_KIND,
    PageBounds,
    explore,
    is_random,
    reordering,
    shuffle_propensity,
    shuffled,
)
from spr.reorder.random_policy import first_uniform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from spr.page import CohortValues
    from spr.reorder import ImpressionGuarantee, PageExploration, Reordering

POLICY = "spr"


@dataclass(frozen=True, slots=True)
class PageRules:
    """What the pages of a ranker keep.

    Parameters
    ----------
    guarantees : tuple of ImpressionGuarantee
        Kept as far as supply allows; off on a random page.
    random_share, salt : float, str
        Of the random policy; the salt also seeds exploration and the rounding of fractional minima.
    exploration : PageExploration, optional
        Of the pages that are not random.
    outdated : mapping of str to datetime
        Sentences that pages carry from a moment on: factors that shares follow are older than their refresh.
    """

    guarantees: tuple[ImpressionGuarantee, ...]
    random_share: float
    salt: str
    exploration: PageExploration | None
    outdated: Mapping[str, datetime]

    def in_force(self, at: datetime) -> tuple[ImpressionGuarantee, ...]:
        """Return the guarantees that hold at a moment."""
        if all(guarantee.starts is None and guarantee.ends is None for guarantee in self.guarantees):
            return self.guarantees
        return tuple(guarantee for guarantee in self.guarantees if guarantee.in_force(at))


def place(
    values: CohortValues,
    request: int,
    *,
    rules: PageRules,
    delivered: Mapping[str, float],
    delivered_total: float,
    missing: Sequence[str],
    versions: Mapping[str, str],
) -> Page:
    """Put the cohorts of one request of a valued batch on a page.

    Parameters
    ----------
    values : CohortValues
        Of :meth:`spr.SecondPassRanker.value_cohorts`.
    request : int
        Index of the request in the batch.
    rules : PageRules
        Of the ranker.
    delivered, delivered_total, missing
        As in :class:`spr.RankingRequest`. A counter of no configured guarantee is passed over, and the page says so:
        a service that still sends a retired one must not lose its pages.
    versions : mapping of str to str
        For the page.

    Returns
    -------
    Page
        Every cohort with a scorable entity once; the others are named in ``omitted``.

    Raises
    ------
    InvalidRequest
        When a counter is negative or not a number.
    """
    batch = values.batch
    request_id = batch.request_id[request]
    _check_counters(request_id, {f"delivered {name!r}": n for name, n in delivered.items()})
    _check_counters(request_id, {"delivered_total": delivered_total})
    cohorts = np.arange(batch.cohort_offset[request], batch.cohort_offset[request + 1])
    scorable = values.scorable[cohorts]
    placed = cohorts[scorable]
    omitted = {str(batch.cohort_id[c]): "no scorable entity" for c in cohorts[~scorable]}
    fallbacks = [*values.fallbacks.get(request, ()), *missing]
    if values.margins.keys() > {"fixed", "unseen"} and not values.seen[cohorts].any():
        fallbacks.append("viewer without random effect: fitted correction")
    if is_random(request_id, rules.random_share, rules.salt):
        return Page(
            values,
            request,
            policy="random",
            order=placed[shuffled(len(placed), request_id, rules.salt)],
            reason=("random",) * len(placed),
            propensity=shuffle_propensity(len(placed)),
            propensity_kind=SHUFFLE_PROPENSITY_KIND,
            omitted=omitted,
            fallbacks=tuple(fallbacks),
            versions=versions,
        )
    at = batch.at[request].item().replace(tzinfo=UTC)
    guarantees = rules.in_force(at)
    retired = delivered.keys() - {guarantee.name for guarantee in rules.guarantees}
    fallbacks += [f"delivered {name!r}: no such guarantee, passed over" for name in sorted(retired)]
    fallbacks += [sentence for sentence, since in rules.outdated.items() if at >= since]
    fallbacks += [
        f"share {g.name!r} of the population has no price, and changes nothing: fit anew, or give it one"
        for g in guarantees
        if g.scope == "population" and g.price is None
    ]
    made = _arrange(values, request_id, placed, guarantees, rules, delivered, delivered_total)
    if rules.exploration is not None and made.optimal_for is not None:
        thompson = rules.exploration.method == "thompson"
        why = (
            "no coefficients of viewers to draw"
            if thompson and not values.spread
            else "labels of guarantees cross or nest"
        )
        fallbacks.append(f"not explored: {why}")
    return Page(
        values,
        request,
        policy=POLICY,
        order=placed[made.order],
        reason=tuple(map(made.reason.__getitem__, made.order)),
        propensity=made.propensity,
        propensity_kind=made.kind,
        propensity_draws=made.draws,
        outcomes=tuple((outcome.probability, placed[outcome.order]) for outcome in made.outcomes),
        optimal_for=made.optimal_for,
        shortfall=made.shortfall,
        omitted=omitted,
        fallbacks=tuple(fallbacks),
        versions=versions,
        guarantees=guarantees,
    )


def _arrange(
    values: CohortValues,
    request_id: str,
    placed: NDArray[np.int64],
    guarantees: Sequence[ImpressionGuarantee],
    rules: PageRules,
    delivered: Mapping[str, float],
    delivered_total: float,
) -> Reordering:
    labels = {kind: values.labels(kind)[placed] for kind in dict.fromkeys(g.label_kind for g in guarantees)}
    value, exploration = values.value[placed], rules.exploration
    bounds = PageBounds(len(placed), labels, guarantees, delivered, delivered_total)
    if exploration is None or (exploration.method == "thompson" and not values.spread):
        return reordering(bounds.bound(value, first_uniform(request_id, rules.salt, b"rounding")))
    sampled = None
    if exploration.method == "thompson":
        sampled = sample_values(values, placed, exploration.draws + 1, request_id, rules.salt)
    return explore(bounds, value, exploration, request_id, rules.salt, sampled)


def _check_counters(request_id: str, counters: Mapping[str, float]) -> None:
    for name, count in counters.items():
        if not (isinstance(count, (int, float, np.number)) and 0 <= count < np.inf):
            raise InvalidRequest(f"request {request_id!r}: {name} is {count!r}; a number >= 0 is needed")
