"""From the values of a request's cohorts to its page: guarantees, or the random policy's shuffle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spr.errors import InvalidRequest
from spr.page import Page
from spr.reorder import SHUFFLE_PROPENSITY_KIND, arrange, is_random, shuffle_propensity, shuffled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spr.config import Exploration
    from spr.page import CohortValues
    from spr.reorder import ImpressionGuarantee, LabelKind

POLICY = "spr"


def place(
    values: CohortValues,
    request: int,
    *,
    guarantees: Sequence[ImpressionGuarantee],
    exploration: Exploration,
    delivered: Mapping[str, int],
    delivered_total: int,
    versions: Mapping[str, str],
) -> Page:
    """Put the cohorts of one request of a valued batch on a page.

    Parameters
    ----------
    values : CohortValues
        Of :meth:`spr.SecondPassRanker.value_cohorts`.
    request : int
        Index of the request in the batch.
    guarantees : sequence of ImpressionGuarantee
        Kept as far as supply allows; off on a random page.
    exploration : Exploration
        The random policy's share and salt.
    delivered, delivered_total
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
    fallbacks = list(values.fallbacks.get(request, ()))
    if values.margins.keys() > {"fixed", "unseen"} and not values.seen[cohorts].any():
        fallbacks.append("viewer without random effect: fitted correction")
    if is_random(request_id, exploration.random_share, exploration.salt):
        order = placed[shuffled(len(placed), request_id, exploration.salt)]
        reason, shortfall = ("random",) * len(order), {}
        policy, propensity, kind = "random", shuffle_propensity(len(order)), SHUFFLE_PROPENSITY_KIND
    else:
        retired = delivered.keys() - {guarantee.name for guarantee in guarantees}
        fallbacks += [f"delivered {name!r}: no such guarantee, passed over" for name in sorted(retired)]
        kinds = dict.fromkeys(guarantee.label_kind for guarantee in guarantees)
        labels = {label_kind: _label(values, label_kind)[placed] for label_kind in kinds}
        kept = arrange(values.value[placed], labels, guarantees, delivered=delivered, delivered_total=delivered_total)
        order, by_cohort = placed[kept.order], kept.reason
        reason, shortfall = tuple(by_cohort[c] for c in kept.order), kept.shortfall
        policy, propensity, kind = POLICY, None, "none"
    return Page(
        values, request, policy, order, reason, propensity, kind, shortfall, omitted, tuple(fallbacks), versions
    )


def _check_counters(request_id: str, counters: Mapping[str, int]) -> None:
    for name, count in counters.items():
        if not (isinstance(count, (int, float, np.number)) and 0 <= count < np.inf):
            raise InvalidRequest(f"request {request_id!r}: {name} is {count!r}; a number >= 0 is needed")


def _label(values: CohortValues, label_kind: LabelKind) -> NDArray[np.object_]:
    return values.edge_type if label_kind == "edge_type" else np.asarray(getattr(values.batch, label_kind))
