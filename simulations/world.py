"""A made network whose truth is known: viewers, entities, page views and how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from simulations.response_curves import CURVES
from simulations.truth import WorldTruth
from spr.errors import InvalidModelInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

ENTITY_TYPES = tuple(CURVES)
EDGE_TYPES = ("connection", "follow", "subscribe")
MEMBER_TYPES = ("people", "member_follow")  # entities of these types are viewers themselves
COHORT_KINDS = {
    f"{entity_type}-{chosen_by}": entity_type
    for entity_type in ENTITY_TYPES
    for chosen_by in ("taste", "popular", "any")
}
COHORT_SIZE = 6
MAX_COHORTS = 12
MIN_COHORTS = 8
LABEL_WINDOW = pd.Timedelta(days=10)  # 3 days for the response + 7 for the downstream interaction, as in the config

_INDUSTRIES = ("software", "health", "finance", "education", "design", "manufacturing")
_LATENT = 8
_CANDIDATES = 2 * COHORT_SIZE + 1  # one to spare: the viewer is no candidate on their own page
_TOPICS = 20
_EDGES_PER_TYPE = 6.0
_UNSCORABLE = 0.01
_DOWNSTREAM_LOG_ODDS = (-0.2, -1.2, -0.8, -0.4, -1.6, 0.2, -1.0)  # by entity type
_LOG_START = pd.Timestamp("2026-01-01", tz="UTC")


@dataclass(frozen=True)
class WorldTables:
    """The public tables of a made network (DESIGN section 3)."""

    impressions: pd.DataFrame
    viewers: pd.DataFrame
    entities: pd.DataFrame
    edges: pd.DataFrame


class World:
    """A made network of seven entity types and three edge types, whose every probability is known.

    Viewers have a latent intent per entity type, which moves P(downstream | response) and is no feature, so
    that only a per-viewer effect can learn it. Activity is heavy-tailed. Seven first-pass rankers score on
    seven different scales; what a raw score is worth is ``world.truth``.

    Parameters
    ----------
    n_viewers : int, default 2000
        At least 20; viewers are also the entities of types ``people`` and ``member_follow``.
    seed : int, default 0
        Same arguments and seed, same tables.
    n_entities : int, default 300
        Of each entity type that is not a member; at least 20.

    Raises
    ------
    InvalidModelInput
        When there are too few viewers or entities to fill a cohort.

    Examples
    --------
    >>> world = World(n_viewers=100, seed=1)
    >>> tables = world.tables(n_requests=50)
    >>> sorted(tables.impressions["entity_type"].unique())
    ['company', 'event', 'group', 'hashtag', 'member_follow', 'newsletter', 'people']
    >>> world.truth.downstream_probability.shape
    (100, 7)
    """

    def __init__(self, n_viewers: int = 2000, *, seed: int = 0, n_entities: int = 300) -> None:
        for name, count in (("n_viewers", n_viewers), ("n_entities", n_entities)):
            if count < 20:
                raise InvalidModelInput(f"World: {name} is {count}; at least 20 are needed to fill cohorts.")
        self.n_viewers = n_viewers
        self.seed = seed
        self.n_entities = n_entities
        rng = np.random.default_rng([seed, 0])
        self._viewer_ids = _names(f"v{number:06d}" for number in range(n_viewers))
        self._taste = rng.standard_normal((n_viewers, _LATENT))
        self._activity = np.minimum(rng.pareto(1.3, n_viewers) + 0.15, 15.0)
        edge_intent = rng.standard_normal((n_viewers, len(EDGE_TYPES)))
        type_intent = rng.standard_normal((n_viewers, len(ENTITY_TYPES)))
        edge_of_type = [EDGE_TYPES.index(CURVES[entity_type].edge_type) for entity_type in ENTITY_TYPES]
        self._intent: Floats = 1.0 * edge_intent[:, edge_of_type] + 1.2 * type_intent
        self._industry = rng.integers(len(_INDUSTRIES), size=n_viewers)
        self._is_creator = rng.random(n_viewers) < 0.2
        self._tenure_days = rng.gamma(1.5, 600.0, n_viewers)
        self._industry_taste = rng.normal(0.0, 0.4, (len(_INDUSTRIES), len(ENTITY_TYPES)))
        n_of_type = [n_viewers if t in MEMBER_TYPES else n_entities for t in ENTITY_TYPES]
        self._n_of_type = np.array(n_of_type)
        self._first_of_type = np.concatenate([[0], np.cumsum(n_of_type)])[:-1]
        self._quality = rng.standard_normal(sum(n_of_type))
        self._entity_taste = rng.standard_normal((sum(n_of_type), _LATENT))
        self._viewer_noise = rng.standard_normal((n_viewers, _LATENT))
        self._entity_noise = rng.standard_normal(sum(n_of_type))
        self._created_days = rng.exponential(400.0, sum(n_of_type))

    @cached_property
    def truth(self) -> WorldTruth:
        """What is known about this world: response curves, downstream probabilities, examination."""
        newcomer = np.exp(-self._tenure_days / 300.0)
        log_odds = (
            np.array(_DOWNSTREAM_LOG_ODDS)
            + self._industry_taste[self._industry]
            + np.outer(newcomer, np.linspace(1.5, -1.5, len(ENTITY_TYPES)))
            + np.outer(self._is_creator, np.linspace(-0.8, 0.8, len(ENTITY_TYPES)))
            + self._intent
        )
        index = pd.Index(self._viewer_ids, name="viewer_id")
        return WorldTruth(
            downstream_probability=pd.DataFrame(expit(log_odds), index=index, columns=list(ENTITY_TYPES)),
            position_examination=1.0 / np.sqrt(1.0 + np.arange(MAX_COHORTS)),
            slot_examination=np.power(0.9, np.arange(COHORT_SIZE)),
        )

    @cached_property
    def viewers(self) -> pd.DataFrame:
        """One row per viewer: numeric, boolean and categorical features, a noisy embedding of the taste."""
        return pd.DataFrame(
            {
                "viewer_id": self._viewer_ids,
                "tenure_days": self._tenure_days,
                "sessions_per_week": self._activity,
                "is_creator": self._is_creator,
                "industry": _names(_INDUSTRIES)[self._industry],
                "embedding": (self._taste + 0.5 * self._viewer_noise).round(4).tolist(),
            }
        )

    @cached_property
    def entities(self) -> pd.DataFrame:
        """One row per entity: noisy popularity, age and taste embedding."""
        return pd.DataFrame(
            {
                "entity_type": np.repeat(_names(ENTITY_TYPES), self._n_of_type),
                "entity_id": self._entity_ids,
                "popularity": np.exp(self._quality + 0.5 * self._entity_noise),
                "created_at": _LOG_START - pd.to_timedelta(self._created_days.round(3), unit="D"),
                "embedding": self._entity_taste.round(4).tolist(),
            }
        )

    @cached_property
    def edges(self) -> pd.DataFrame:
        """The edges that stand when the log starts: more for active viewers, more of what they are after."""
        rng = np.random.default_rng([self.seed, 1])
        parts = []
        for code, entity_type in enumerate(ENTITY_TYPES):
            pull = np.sqrt(self._activity) * np.exp(0.5 * self._intent[:, code])
            degree = rng.poisson(_EDGES_PER_TYPE * pull / pull.mean())
            viewer = np.repeat(np.arange(self.n_viewers), degree)
            drawn = rng.integers(self._n_of_type[code], size=(len(viewer), 3))
            fit = self._relevance(viewer[:, None], code, self._first_of_type[code] + drawn)
            entity = drawn[np.arange(len(viewer)), fit.argmax(axis=1)]
            pairs = pd.DataFrame({"viewer": viewer, "entity": entity}).drop_duplicates()
            if entity_type in MEMBER_TYPES:
                pairs = pairs.loc[pairs["viewer"] != pairs["entity"]]
            if entity_type == "people":  # a connection is mutual
                mirrored = pairs.rename(columns={"viewer": "entity", "entity": "viewer"})
                pairs = pd.concat([pairs, mirrored]).drop_duplicates()
            parts.append(
                pd.DataFrame(
                    {
                        "viewer_id": self._viewer_ids[pairs["viewer"]],
                        "edge_type": CURVES[entity_type].edge_type,
                        "entity_type": entity_type,
                        "entity_id": self._entity_ids[self._first_of_type[code] + pairs["entity"]],
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def tables(
        self, n_requests: int, *, random_share: float = 0.5, snapshot: pd.Timestamp | None = None
    ) -> WorldTables:
        """Return the four public tables; the parameters are those of `impressions`."""
        impressions = self.impressions(n_requests, random_share=random_share, snapshot=snapshot)
        return WorldTables(impressions, self.viewers, self.entities, self.edges)

    def impressions(
        self, n_requests: int, *, random_share: float = 0.5, snapshot: pd.Timestamp | None = None
    ) -> pd.DataFrame:
        """Return the log of page views over 30 days from 2026-01-01, one row per entity shown.

        Parameters
        ----------
        n_requests : int
            Page views, of 8 to 12 cohorts of 6 entities; at least 1.
        random_share : float, default 0.5
            Chance that a request is served by the policy "random" (a full shuffle); the others are served by
            "production", which orders cohorts by their mean raw score although the scales differ.
        snapshot : Timestamp, optional
            When the labels were read: rows whose windows (3 + 7 days) were still open then have null labels.
            By default long after the last page view, so that every row is mature.

        Returns
        -------
        DataFrame
            The impressions table. ``propensity`` is 1 / cohorts of the page under "random", null elsewhere.

        Raises
        ------
        InvalidModelInput
            When there is no request, or the share is outside [0, 1].
        """
        if n_requests < 1 or not 0.0 <= random_share <= 1.0:
            raise InvalidModelInput(
                f"World.impressions: n_requests is {n_requests} and random_share {random_share}; "
                "at least one request and a share in [0, 1] are needed."
            )
        rng = np.random.default_rng([self.seed, 2])
        chance = self._activity / self._activity.sum()
        request_viewer = rng.choice(self.n_viewers, size=n_requests, p=chance)
        at = _LOG_START + pd.to_timedelta(np.sort(rng.integers(30 * 86_400, size=n_requests)), unit="s")
        is_random = rng.random(n_requests) < random_share

        request, kind = self._draw_cohorts(rng, n_requests)
        entity_type = np.array([ENTITY_TYPES.index(t) for t in COHORT_KINDS.values()])[kind]
        viewer = request_viewer[request]
        entity = self._draw_entities(rng, viewer, kind, entity_type)
        raw_score = self._score(viewer, entity_type, entity)
        scorable = np.where(rng.random(entity.shape) < _UNSCORABLE, np.nan, raw_score)
        by_slot = np.argsort(-scorable, axis=1, kind="stable")  # NaN sorts last
        entity, raw_score, scorable = (np.take_along_axis(a, by_slot, axis=1) for a in (entity, raw_score, scorable))
        position = _place(rng, request, is_random[request], np.nanmean(scorable, axis=1))
        response, downstream = self._behave(rng, viewer, entity_type, position, raw_score)

        n_cohorts = np.bincount(request)
        topic = rng.integers(_TOPICS, size=len(kind))
        cohort_names = _names(f"{kind}:{topic}" for kind in COHORT_KINDS for topic in range(_TOPICS))
        request_names = _names(f"r{number:07d}" for number in range(n_requests))
        row = np.repeat(np.arange(len(kind)), COHORT_SIZE)
        table = pd.DataFrame(
            {
                "request_id": request_names[request[row]],
                "at": at[request[row]],
                "viewer_id": self._viewer_ids[viewer[row]],
                "policy": _names(["production", "random"])[is_random[request[row]].astype(np.int64)],
                "cohort_id": cohort_names[(kind * _TOPICS + topic)[row]],
                "cohort_kind": _names(COHORT_KINDS)[kind[row]],
                "entity_type": _names(ENTITY_TYPES)[entity_type[row]],
                "position": position[row],
                "slot": np.tile(np.arange(COHORT_SIZE), len(kind)),
                "entity_id": self._entity_ids[entity.ravel()],
                "ranker_version": _names(f"{t}-1" for t in ENTITY_TYPES)[entity_type[row]],
                "raw_score": scorable.ravel(),
                "response": response.ravel().astype(np.float64),
                "downstream": downstream.ravel().astype(np.float64),
                "propensity": np.where(is_random[request], 1.0 / n_cohorts[request], np.nan)[row],
            }
        )
        if snapshot is not None:
            table.loc[table["at"] + LABEL_WINDOW > snapshot, ["response", "downstream"]] = np.nan
        return table

    @cached_property
    def _entity_ids(self) -> npt.NDArray[np.object_]:
        made = {t: _names(f"{t}-{number:04d}" for number in range(self.n_entities)) for t in ENTITY_TYPES}
        return np.concatenate([self._viewer_ids if t in MEMBER_TYPES else made[t] for t in ENTITY_TYPES])

    def _relevance(self, viewer: Integers, entity_type: Integers | int, entity: Integers) -> Floats:
        taste: Floats = np.einsum("...i,...i->...", self._taste[viewer], self._entity_taste[entity])
        taste /= np.sqrt(_LATENT)
        relevance: Floats = 0.75 * taste + 0.55 * self._quality[entity]
        relevance += 0.1 * self._intent[viewer, entity_type]
        return relevance

    def _draw_cohorts(self, rng: np.random.Generator, n_requests: int) -> tuple[Integers, Integers]:
        shuffled = rng.random((n_requests, len(COHORT_KINDS))).argsort(axis=1)[:, :MAX_COHORTS]
        n_cohorts = rng.integers(MIN_COHORTS, MAX_COHORTS + 1, size=n_requests)
        shown = np.arange(MAX_COHORTS) < n_cohorts[:, None]
        return np.repeat(np.arange(n_requests), n_cohorts), shuffled[shown]

    def _draw_entities(
        self, rng: np.random.Generator, viewer: Integers, kind: Integers, entity_type: Integers
    ) -> Integers:
        """Take for each cohort the best six of thirteen distinct candidates, by what its kind looks at."""
        size = self._n_of_type[entity_type][:, None]
        shape = (len(kind), _CANDIDATES)
        steps = 1 + (rng.random(shape) * ((size - 1) // _CANDIDATES)).astype(np.int64)  # steps > 0: all distinct
        number = (rng.integers(size) + steps.cumsum(axis=1)) % size
        candidate = self._first_of_type[entity_type][:, None] + number
        is_member = np.isin(entity_type, [ENTITY_TYPES.index(t) for t in MEMBER_TYPES])[:, None]
        chosen_by = kind[:, None] % 3  # taste, popular, any: the order of COHORT_KINDS
        taste = np.einsum("ci,cji->cj", self._taste[viewer], self._entity_taste[candidate])
        merit = np.select([chosen_by == 0, chosen_by == 1], [taste, self._quality[candidate]], rng.random(shape))
        merit[is_member & (number == viewer[:, None])] = -np.inf
        best = np.argsort(-merit, axis=1)[:, :COHORT_SIZE]
        return np.take_along_axis(candidate, best, axis=1)

    def _score(self, viewer: Integers, entity_type: Integers, entity: Integers) -> Floats:
        relevance = self._relevance(viewer[:, None], entity_type[:, None], entity)
        raw_score = np.empty_like(relevance)
        for code, curve in enumerate(CURVES.values()):
            of_type = entity_type == code
            raw_score[of_type] = curve.raw_score(relevance[of_type])
        return raw_score

    def _behave(
        self,
        rng: np.random.Generator,
        viewer: Integers,
        entity_type: Integers,
        position: Integers,
        raw_score: Floats,
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Draw examination, response and downstream; an unscorable entity responds by its lost score."""
        truth = self.truth
        wants = np.empty_like(raw_score)
        for code, curve in enumerate(CURVES.values()):
            of_type = entity_type == code
            wants[of_type] = curve.response_probability(raw_score[of_type])
        cohort_examined = rng.random(len(viewer)) < truth.position_examination[position]
        examined = cohort_examined[:, None] & (rng.random(raw_score.shape) < truth.slot_examination)
        response = examined & (rng.random(raw_score.shape) < wants)
        interacts = truth.downstream_probability.to_numpy()[viewer, entity_type][:, None]
        return response, response & (rng.random(raw_score.shape) < interacts)


def _place(
    rng: np.random.Generator, request: Integers, is_random: npt.NDArray[np.bool_], mean_raw_score: Floats
) -> Integers:
    """Return the position of each cohort: a full shuffle, or by the mean raw score."""
    key = np.where(is_random, rng.random(len(request)), -mean_raw_score)
    order = np.lexsort((key, request))
    first = np.searchsorted(request, request)
    position = np.empty_like(request)
    position[order] = np.arange(len(request)) - first
    return position


def _names(names: Iterable[str]) -> npt.NDArray[np.object_]:
    return np.array(list(names), dtype=object)
