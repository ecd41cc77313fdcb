"""Page views before anybody is shown anything: who comes when, and which cohorts there are to place."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from simulations.behaviour import COHORT_SIZE, ENTITY_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from simulations.world import World

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

COHORT_KINDS = {
    f"{entity_type}-{chosen_by}": entity_type
    for entity_type in ENTITY_TYPES
    for chosen_by in ("taste", "popular", "any")
}
_OF_COHORTS = (
    *("request", "kind", "topic", "entity_type", "entity", "true_score", "raw_score", "place_uniform"),
    *("cohort_uniform", "slot_uniform", "response_uniform", "downstream_uniform", "delay_uniform", "action_uniform"),
)
LOG_START = pd.Timestamp("2026-01-01", tz="UTC")
_CANDIDATES = 2 * COHORT_SIZE + 1  # one to spare: the viewer is no candidate on their own page
_TOPICS = 20
_UNSCORABLE = 0.01


@dataclass(frozen=True)
class PageViews:
    """A chunk of page views: R requests in order of time, C cohorts, six entities in each; and all their chance.

    Every draw belongs to a request, a cohort or an entity, never to a position, so that two policies meet the same
    people in the same mood.

    Parameters
    ----------
    world : World
    request_id : object[R]
        Strings.
    at : datetime64[R]
        UTC.
    viewer : int64[R]
    request_uniform : float64[R]
        For the share of shuffled requests.
    request, kind, topic, entity_type : int64[C]
        Cohorts in order of their requests.
    entity : int64[C, 6]
        Among the entities of all types, best raw score first.
    true_score : float64[C, 6]
        What people respond by.
    raw_score : float64[C, 6]
        NaN = not scorable.
    place_uniform, cohort_uniform : float64[C]
    slot_uniform, response_uniform, downstream_uniform, delay_uniform, action_uniform : float64[C, 6]
    engaged : float64[V, T]
        Engaged edges of each viewer when the chunk begins.
    counters : mapping of int to (dict of str to int)
        Of each viewer, impressions delivered so far over the run, "total" and by guarantee: policies that keep
        guarantees count here, so that they hold no state and serve any number of runs.
    ranker_version : object[7]
        Of the first-pass ranker of each entity type.
    """

    world: World
    request_id: npt.NDArray[np.object_]
    at: pd.DatetimeIndex
    viewer: Integers
    request_uniform: Floats
    request: Integers
    kind: Integers
    topic: Integers
    entity_type: Integers
    entity: Integers
    true_score: Floats
    raw_score: Floats
    place_uniform: Floats
    cohort_uniform: Floats
    slot_uniform: Floats
    response_uniform: Floats
    downstream_uniform: Floats
    delay_uniform: Floats
    action_uniform: Floats
    engaged: Floats
    counters: defaultdict[int, dict[str, int]]
    ranker_version: npt.NDArray[np.object_]

    @property
    def n_requests(self) -> int:
        """R."""
        return len(self.viewer)

    @property
    def n_cohorts(self) -> int:
        """C."""
        return len(self.request)

    @cached_property
    def cohort_viewer(self) -> Integers:
        """Viewer of each cohort, int64[C]."""
        return self.viewer[self.request]

    @cached_property
    def response_probability(self) -> Floats:
        """True P(response | examined) of each entity, float64[C, 6]; of its lost score where it is not scorable."""
        curves = self.world.truth.curves
        wants = np.empty_like(self.true_score)
        for code, curve in enumerate(curves):
            of_type = self.entity_type == code
            wants[of_type] = curve.response_probability(self.true_score[of_type])
        return wants

    @cached_property
    def downstream_probability(self) -> Floats:
        """True P(downstream | response) of each cohort, float64[C]."""
        return self.world.truth.downstream_probability.to_numpy()[self.cohort_viewer, self.entity_type]

    @cached_property
    def probability(self) -> Floats:
        """True P(a downstream interaction with a scorable entity) of each cohort at the top, float64[C]."""
        examined = self.world.truth.slot_examination_at_top
        hit = examined * self.response_probability * self.downstream_probability[:, None]
        return np.asarray(1.0 - np.prod(1.0 - np.where(np.isnan(self.raw_score), 0.0, hit), axis=1))

    @cached_property
    def next_edge_value(self) -> Floats:
        """Engagement a week that one more engaged edge of its type brings the viewer, float64[C]."""
        edge_type = self.world.behaviour.edge_code[self.entity_type]
        return self.world.truth.value_of_next(self.engaged)[self.cohort_viewer, edge_type]

    def position_of(self, key: Floats) -> Integers:
        """Return positions by a key, smallest on top, within each request; stable, NaN last."""
        order = np.lexsort((key, self.request))
        first = np.searchsorted(self.request, np.arange(self.n_requests))
        position = np.empty(self.n_cohorts, dtype=np.int64)
        position[order] = np.arange(self.n_cohorts) - first[self.request]
        return position

    def only(self, requests: npt.NDArray[np.bool_]) -> PageViews:
        """Return some of the requests, with their cohorts, renumbered; ids stay.

        Parameters
        ----------
        requests : bool[R]
        """
        cohorts = requests[self.request]
        number = np.cumsum(requests) - 1
        taken = {column: getattr(self, column)[cohorts] for column in _OF_COHORTS}
        taken["request"] = number[taken["request"]]
        return replace(
            self,
            at=self.at[requests],
            viewer=self.viewer[requests],
            request_uniform=self.request_uniform[requests],
            request_id=self.request_id[requests],
            **taken,
        )

    def to_requests(self) -> pd.DataFrame:
        """Return the public requests table.

        Returns
        -------
        DataFrame
            request_id, at, viewer_id, cohort_id, cohort_kind, entity_type, slot, entity_id, ranker_version, raw_score;
            six rows a cohort, in order.
        """
        world, row = self.world, np.repeat(np.arange(self.n_cohorts), COHORT_SIZE)
        request = self.request[row]
        return pd.DataFrame(
            {
                "request_id": self.request_id[request],
                "at": self.at[request],
                "viewer_id": world.viewer_ids[self.viewer[request]],
                "cohort_id": _COHORT_NAMES[self.kind[row] * _TOPICS + self.topic[row]],
                "cohort_kind": _KIND_NAMES[self.kind[row]],
                "entity_type": _TYPE_NAMES[self.entity_type[row]],
                "slot": np.tile(np.arange(COHORT_SIZE), self.n_cohorts),
                "entity_id": world.entity_ids[self.entity.ravel()],
                "ranker_version": self.ranker_version[self.entity_type[row]],
                "raw_score": self.raw_score.ravel(),
            }
        )


def draw_page_views(
    world: World,
    n: int,
    *,
    rng: np.random.Generator,
    later: np.random.Generator,
    first_number: int,
    prefix: str,
    start: pd.Timestamp,
    seconds: int,
    without: tuple[str, ...],
) -> PageViews:
    """Draw n page views of a slice of time; the engaged edges are filled in by the run.

    ``later`` draws what follows a response. The order of the draws is fixed: a log of one chunk is the same in every
    version.
    """
    chance = world.activity / world.activity.sum()
    viewer = rng.choice(world.n_viewers, size=n, p=chance)
    at = start + pd.to_timedelta(np.sort(rng.integers(seconds, size=n)), unit="s")
    request_uniform = rng.random(n)
    request, kind = _draw_cohorts(rng, n, world.cohorts_per_page)
    entity_type = _TYPE_OF_KIND[kind]
    entity = _draw_entities(world, rng, viewer[request], kind, entity_type)
    true_score = _score(world, viewer[request], entity_type, entity)
    raw_score = np.where(rng.random(entity.shape) < _UNSCORABLE, np.nan, true_score)
    by_slot = np.argsort(-raw_score, axis=1, kind="stable")  # NaN sorts last
    entity, true_score, raw_score = (np.take_along_axis(a, by_slot, axis=1) for a in (entity, true_score, raw_score))
    cohorts = {
        "request": request,
        "kind": kind,
        "entity_type": entity_type,
        "entity": entity,
        "true_score": true_score,
        "raw_score": raw_score,
        "place_uniform": rng.random(len(kind)),
        "cohort_uniform": rng.random(len(kind)),
        "slot_uniform": rng.random(entity.shape),
        "response_uniform": rng.random(entity.shape),
        "downstream_uniform": rng.random(entity.shape),
        "topic": rng.integers(_TOPICS, size=len(kind)),
        "delay_uniform": later.random(entity.shape),
        "action_uniform": later.random(entity.shape),
    }
    if without:
        there = ~np.isin(entity_type, [ENTITY_TYPES.index(t) for t in without])
        cohorts = {column: values[there] for column, values in cohorts.items()}
    request_id = names(f"{prefix}{first_number + number:07d}" for number in range(n))
    return PageViews(
        world,
        request_id,
        at,
        viewer,
        request_uniform,
        engaged=np.empty((0, 0)),
        counters=defaultdict(dict),
        ranker_version=_VERSION_NAMES,
        **cohorts,
    )


def _draw_cohorts(
    rng: np.random.Generator, n_requests: int, cohorts_per_page: tuple[int, int]
) -> tuple[Integers, Integers]:
    least, most = cohorts_per_page
    shuffled = rng.random((n_requests, len(COHORT_KINDS))).argsort(axis=1)[:, :most]
    n_cohorts = rng.integers(least, most + 1, size=n_requests)
    shown = np.arange(most) < n_cohorts[:, None]
    return np.repeat(np.arange(n_requests), n_cohorts), shuffled[shown]


def _draw_entities(
    world: World, rng: np.random.Generator, viewer: Integers, kind: Integers, entity_type: Integers
) -> Integers:
    """Take for each cohort the best six of thirteen distinct candidates, by what its kind looks at."""
    size = world.n_of_type[entity_type][:, None]
    shape = (len(kind), _CANDIDATES)
    steps = 1 + (rng.random(shape) * ((size - 1) // _CANDIDATES)).astype(np.int64)  # steps > 0: all distinct
    number = (rng.integers(size) + steps.cumsum(axis=1)) % size
    candidate = world.first_of_type[entity_type][:, None] + number
    is_member = np.isin(entity_type, world.member_codes)[:, None]
    chosen_by = kind[:, None] % 3  # taste, popular, any: the order of COHORT_KINDS
    taste = np.einsum("ci,cji->cj", world.taste[viewer], world.entity_taste[candidate])
    merit = np.select([chosen_by == 0, chosen_by == 1], [taste, world.quality[candidate]], rng.random(shape))
    merit[is_member & (number == viewer[:, None])] = -np.inf
    best = np.argsort(-merit, axis=1)[:, :COHORT_SIZE]
    return np.take_along_axis(candidate, best, axis=1)


def _score(world: World, viewer: Integers, entity_type: Integers, entity: Integers) -> Floats:
    relevance = world.relevance(viewer[:, None], entity_type[:, None], entity)
    raw_score = np.empty_like(relevance)
    for code, curve in enumerate(world.truth.curves):
        of_type = entity_type == code
        raw_score[of_type] = curve.raw_score(relevance[of_type])
    return raw_score


def names(made: Iterable[str]) -> npt.NDArray[np.object_]:
    """Return strings as an array of objects."""
    return np.array(list(made), dtype=object)


_COHORT_NAMES = names(f"{kind}:{topic}" for kind in COHORT_KINDS for topic in range(_TOPICS))
_KIND_NAMES, _TYPE_NAMES = names(COHORT_KINDS), names(ENTITY_TYPES)
_VERSION_NAMES = names(f"{t}-1" for t in ENTITY_TYPES)
_TYPE_OF_KIND = np.array([ENTITY_TYPES.index(t) for t in COHORT_KINDS.values()])
