"""What a ranking service gets back: a page of placements, each with its parts, its reason and its propensity."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.errors import InvalidRequest
from spr.reorder.guarantees import count_delivered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from spr.batch import CohortBatch
    from spr.ledger import Delivered
    from spr.reorder import ImpressionGuarantee, LabelKind
    from spr.reorder.reordering import OptimalFor, PropensityKind


@dataclass(frozen=True, slots=True)
class CohortValues:
    """The parts of every cohort's value, kept apart from the expected responses to the value itself.

    Parameters
    ----------
    batch : CohortBatch
        C cohorts with E entities.
    expected_response : float64[E]
        NaN = not scorable.
    margins : mapping of str to float64[C]
        Log-odds by coordinate: ``fixed``, each random effect, and ``unseen`` (the correction of viewers without a
        random effect).
    margin, probability, importance, value : float64[C]
        The sum of the margins, its sigmoid, the edge type's factor, and probability x importance.
    edge_type : object[C]
        Strings.
    scorable : bool[C]
        Whether the cohort has an entity with a raw score; the others are left off the page.
    seen : bool[C]
        Whether the viewer has coefficients in a random effect keyed by viewer.
    spread : sequence of float64[C, d]
        By random effect keyed by viewer: each feature times the posterior standard deviation of its coefficient, for
        Thompson sampling. Empty where pages are not explored so.
    fallbacks : mapping of int to list of str
        By request index, what the configuration's fallbacks stood in for.
    """

    batch: CohortBatch
    expected_response: NDArray[np.float64]
    margins: Mapping[str, NDArray[np.float64]]
    margin: NDArray[np.float64]
    probability: NDArray[np.float64]
    importance: NDArray[np.float64]
    value: NDArray[np.float64]
    edge_type: NDArray[np.object_]
    scorable: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    spread: Sequence[NDArray[np.float64]]
    fallbacks: Mapping[int, Sequence[str]]

    def labels(self, kind: LabelKind) -> NDArray[np.object_]:
        """Return the label of each cohort, object[C]."""
        return self.edge_type if kind == "edge_type" else np.asarray(getattr(self.batch, kind))


@dataclass(frozen=True, slots=True)
class Placement:
    """One cohort at one position.

    ``entity_id``, ``raw_score``, ``expected_response`` and ``ranker_version`` are of the scorable entities, in slot
    order. ``reason`` is ``"value"``, ``"guarantee:<name>"`` (it stands higher than its value alone would put it),
    ``"exploration"`` (it stands where it would not without) or ``"random"``. ``propensity`` is the probability of this
    cohort at this position under the page's policy, as of ``propensity_kind``; None on a deterministic page.
    """

    position: int
    cohort_id: str
    cohort_kind: str
    entity_type: str
    edge_type: str
    entity_id: tuple[str, ...]
    raw_score: tuple[float, ...]
    expected_response: tuple[float, ...]
    ranker_version: tuple[str, ...]
    margins: Mapping[str, float]
    margin: float
    probability: float
    importance: float
    value: float
    reason: str
    propensity: float | None


@dataclass(frozen=True, repr=False)
class Page:
    """A ranked page; it holds arrays and makes placements when asked.

    Parameters
    ----------
    values : CohortValues
        Parts of every cohort of the batch that the page was ranked in.
    request : int
        Index of the page's request in that batch.
    policy : str
        ``"random"`` for a shuffled page, else ``"spr"``.
    order : int64[n]
        Cohorts of the batch, top first.
    reason : tuple of str
        Per position.
    propensity : float64[n] or None
        Per position; None on a deterministic page.
    propensity_kind : {"exact", "sequential", "monte_carlo", "none"}
        ``exact``: the probability of the cohort at its position. ``sequential``: given the cohorts above it; the
        product over the positions is the probability of the page. ``monte_carlo``: estimated from
        ``propensity_draws`` draws. ``none``: a deterministic page.
    omitted : mapping of str to str
        Cohorts of the request that are not on the page, and why.
    fallbacks : tuple of str
        What the configuration's fallbacks stood in for, a viewer without random effect, counters passed over, factors
        that are older than they should be.
    versions : mapping of str to str
        Of the bundle and of each of its parts.
    shortfall : mapping of str to int
        Placements that each guarantee is short of; guarantees that are met are not named.
    propensity_draws : int
        Of ``monte_carlo``, else 0.
    outcomes : tuple of (float, int64[n])
        Where fractional minima are drawn and nothing else: every page that a draw could lead to, as the probability and
        the cohorts of the batch, top first. Else empty.
    optimal_for : {"every discount", "the discount", "no discount", "the prices"} or None
        As of :class:`spr.reorder.Reordering`; None on a random or explored page.
    guarantees : tuple of ImpressionGuarantee
        That were in force; none on a random page.
    """

    values: CohortValues
    request: int
    policy: str
    order: NDArray[np.int64]
    reason: tuple[str, ...]
    propensity: NDArray[np.float64] | None
    propensity_kind: PropensityKind
    omitted: Mapping[str, str]
    fallbacks: tuple[str, ...]
    versions: Mapping[str, str]
    shortfall: Mapping[str, int] = field(default_factory=dict)
    propensity_draws: int = 0
    outcomes: tuple[tuple[float, NDArray[np.int64]], ...] = ()
    optimal_for: OptimalFor | None = None
    guarantees: tuple[ImpressionGuarantee, ...] = ()

    def __repr__(self) -> str:
        return f"<Page {self.request_id} of {self.viewer_id}, policy {self.policy}: {', '.join(self.cohort_id)}>"

    @property
    def request_id(self) -> str:
        """Of the request that was ranked."""
        return str(self.values.batch.request_id[self.request])

    @property
    def viewer_id(self) -> str:
        """Who sees the page."""
        return str(self.values.batch.viewer_id[self.request])

    @property
    def cohort_id(self) -> tuple[str, ...]:
        """The cohorts' ids, top first."""
        return tuple(self.values.batch.cohort_id[self.order])

    @property
    def at(self) -> datetime:
        """When it was ranked, UTC."""
        moment: datetime = self.values.batch.at[self.request].item()
        return moment.replace(tzinfo=UTC)

    def count_delivered(self, seen: int | None = None) -> Delivered:
        """Count what this page adds to its viewer's counters.

        Parameters
        ----------
        seen : int, optional
            Positions that the viewer reached; the rest was not delivered. Default: all.

        Returns
        -------
        Delivered
            For :meth:`spr.ledger.DeliveryLedger.record`: by guarantee of a share, and in all, cohorts above
            ``within_top``. Nothing for a random page, on which guarantees are off: later pages do not make up for it.

        Raises
        ------
        InvalidRequest
            When ``seen`` is negative.
        """
        if seen is not None and seen < 0:
            raise InvalidRequest(f"request {self.request_id!r}: seen is {seen}; allowed: 0 or more positions")
        n = len(self.order) if seen is None else min(seen, len(self.order))
        kinds = {guarantee.label_kind for guarantee in self.guarantees}
        labels = {kind: self.values.labels(kind)[self.order] for kind in kinds}
        return count_delivered(self.guarantees, labels, n)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """The placements, top first."""
        return tuple(self._place(position) for position in range(len(self.order)))

    def _place(self, position: int) -> Placement:
        values, batch = self.values, self.values.batch
        c = int(self.order[position])
        entities = _scorable_entities(batch, c)
        return Placement(
            position=position,
            cohort_id=batch.cohort_id[c],
            cohort_kind=batch.cohort_kind[c],
            entity_type=batch.entity_type[c],
            edge_type=values.edge_type[c],
            entity_id=tuple(batch.entity_id[entities]),
            raw_score=tuple(batch.raw_score[entities].tolist()),
            expected_response=tuple(values.expected_response[entities].tolist()),
            ranker_version=tuple(batch.rankers[r][1] for r in batch.ranker[entities]),
            margins={name: float(margin[c]) for name, margin in values.margins.items()},
            margin=float(values.margin[c]),
            probability=float(values.probability[c]),
            importance=float(values.importance[c]),
            value=float(values.value[c]),
            reason=self.reason[position],
            propensity=None if self.propensity is None else float(self.propensity[position]),
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per placement: the ``pages`` table."""
        return pages_table([self])


def pages_table(pages: Sequence[Page]) -> pd.DataFrame:
    """Return the ``pages`` table: one row per placement of each page.

    Parameters
    ----------
    pages : sequence of Page
        At least one.

    Returns
    -------
    DataFrame
        request_id, at, viewer_id, policy, position, cohort_id, cohort_kind, entity_type, edge_type,
        ``margin_<coordinate>``, margin, probability, importance, value, reason, propensity (null on a deterministic
        page), propensity_kind, propensity_draws, outcome_probability and outcome_position (lists over the page's
        outcomes: how likely each is, and where it has this cohort; null where there are none), optimal_for, shortfall
        (JSON by guarantee, null where all are met), fallbacks (sentences joined by ``"; "``, null where none),
        ``version_<part>``, and the lists entity_id, raw_score, expected_response, ranker_version.
    """
    import pandas as pd

    groups = [list(group) for _, group in groupby(pages, key=lambda page: id(page.values))]
    return pd.concat([pd.DataFrame(_columns(group)) for group in groups], ignore_index=True)


def _columns(pages: list[Page]) -> dict[str, Any]:
    """Return the columns of pages that were ranked in one batch."""
    values, batch = pages[0].values, pages[0].values.batch
    order = np.concatenate([page.order for page in pages])
    n_placements = [len(page.order) for page in pages]

    def spread(of_page: list[Any]) -> NDArray[np.object_]:
        column = np.empty(len(pages), dtype=object)
        column[:] = of_page
        return np.repeat(column, n_placements)

    request = np.repeat([page.request for page in pages], n_placements)
    no_propensity = [np.full(n, np.nan) for n in n_placements]
    propensity = [none if p.propensity is None else p.propensity for p, none in zip(pages, no_propensity, strict=True)]
    entities = [_scorable_entities(batch, c) for c in order]
    versions = np.array([version for _, version in batch.rankers], dtype=object)
    return {
        "request_id": batch.request_id[request],
        "at": batch.at[request],
        "viewer_id": batch.viewer_id[request],
        "policy": spread([page.policy for page in pages]),
        "position": np.concatenate([np.arange(n) for n in n_placements]),
        "cohort_id": batch.cohort_id[order],
        "cohort_kind": batch.cohort_kind[order],
        "entity_type": batch.entity_type[order],
        "edge_type": values.edge_type[order],
        **{f"margin_{name}": margin[order] for name, margin in values.margins.items()},
        "margin": values.margin[order],
        "probability": values.probability[order],
        "importance": values.importance[order],
        "value": values.value[order],
        "reason": [reason for page in pages for reason in page.reason],
        "propensity": np.concatenate(propensity),
        "propensity_kind": spread([page.propensity_kind for page in pages]),
        "propensity_draws": np.repeat([page.propensity_draws for page in pages], n_placements),
        "outcome_probability": spread([[p for p, _ in page.outcomes] or None for page in pages]),
        "outcome_position": [positions for page in pages for positions in _outcome_positions(page)],
        "optimal_for": spread([page.optimal_for for page in pages]),
        "shortfall": spread([json.dumps(dict(page.shortfall)) if page.shortfall else None for page in pages]),
        "fallbacks": spread(["; ".join(page.fallbacks) or None for page in pages]),
        **{f"version_{part}": version for part, version in pages[0].versions.items()},
        "entity_id": [batch.entity_id[found].tolist() for found in entities],
        "raw_score": [batch.raw_score[found].tolist() for found in entities],
        "expected_response": [values.expected_response[found].tolist() for found in entities],
        "ranker_version": [versions[batch.ranker[found]].tolist() for found in entities],
    }


def _outcome_positions(page: Page) -> list[list[int] | None]:
    if not page.outcomes:
        return [None] * len(page.order)
    places = [np.argsort(order)[np.searchsorted(np.sort(order), page.order)] for _, order in page.outcomes]
    return [list(positions) for positions in zip(*(place.tolist() for place in places), strict=True)]


def _scorable_entities(batch: CohortBatch, cohort: int) -> NDArray[np.int64]:
    low, high = batch.entity_offset[cohort], batch.entity_offset[cohort + 1]
    return np.asarray(low + np.flatnonzero(~np.isnan(batch.raw_score[low:high])), dtype=np.int64)
