"""What a ranking service sends: a viewer, cohorts of scored entities, and a request that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np

FeatureValue = float | int | bool | str | Sequence[float] | None
"""A number, a boolean, a category, an embedding, or None where it is unknown."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who sees the page.

    Parameters
    ----------
    viewer_id : str
        A viewer that was never seen has no random effect and gets the fitted correction.
    features : mapping of str to number, bool, str, sequence of float or None
        As in the ``viewers`` table. A feature that is missing is null to the trees; one that the bundle was not
        fitted on is ignored.
    """

    viewer_id: str
    features: Mapping[str, FeatureValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Entities of one type that are shown as one carousel, first slot first.

    Parameters
    ----------
    cohort_id : str
        Unique in its request.
    entity_type : str
        In the configuration.
    entity_id : sequence of str
        In slot order; SPR never reorders inside a cohort.
    raw_score : sequence of float
        Of the first-pass ranker, on its own scale; NaN or None = not scorable: the entity is left out.
    ranker_version : str or sequence of str
        Of the first-pass ranker that scored the cohort, or each of its entities.
    cohort_kind : str, optional
        The template; default: ``cohort_id``.
    features : mapping, optional
        ``cohort_*`` features, named without the prefix.
    entity_features : mapping of str to sequence, optional
        One value per entity, as in the ``entities`` table.

    Examples
    --------
    >>> Cohort("pymk", "people", entity_id=["p1", "p2"], raw_score=[3.1, None], ranker_version="pymk-7").size
    2
    """

    cohort_id: str
    entity_type: str
    entity_id: Sequence[str]
    raw_score: Sequence[float | None]
    ranker_version: str | Sequence[str]
    cohort_kind: str | None = None
    features: Mapping[str, FeatureValue] = field(default_factory=dict)
    entity_features: Mapping[str, Sequence[FeatureValue]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of entities."""
        return len(self.entity_id)


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """One page to rank.

    Parameters
    ----------
    request_id : str
        One page view. It seeds the random policy, so that a request replays to the same page.
    at : datetime
        When; without a time zone it is read as UTC.
    viewer : Viewer
        Who.
    cohorts : sequence of Cohort
        What is to be placed.
    context : mapping, optional
        ``context_*`` features, named without the prefix.
    delivered : mapping of str to float, optional
        Impressions that each share (by name) has had with this viewer, by the service's own counters. A share that is
        not named has none yet, and is not behind.
    delivered_total : int, default 0
        All impressions that this viewer has had: cohorts placed above the ``within_top`` of the shares.
    coefficients : mapping of str to float32[d] or None, optional
        The random-effect coefficients of this request, by effect; None for a key that has none.
        :meth:`spr.SecondPassRanker.resolve` fills it; an effect that is not named is looked up in the bundle.
    missing : sequence of str, optional
        Sentences about what :meth:`spr.SecondPassRanker.resolve` could not get; the page repeats them in ``fallbacks``.
    """

    request_id: str
    at: datetime
    viewer: Viewer
    cohorts: Sequence[Cohort]
    context: Mapping[str, FeatureValue] = field(default_factory=dict)
    delivered: Mapping[str, float] = field(default_factory=dict)
    delivered_total: int = 0
    coefficients: Mapping[str, np.ndarray | None] = field(default_factory=dict)
    missing: Sequence[str] = ()
