"""A made network whose truth is known: viewers, entities, page views, and what would have happened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from simulations.behaviour import COHORT_SIZE, ENTITY_TYPES, KINDS, MAX_COHORTS, Behaviour
from simulations.page_views import LOG_START, names
from simulations.policies import PartlyShuffled, Production
from simulations.response_curves import CURVES
from simulations.run import Run, poisson, simulate
from simulations.truth import WorldTruth
from spr.errors import InvalidModelInput, TableError, UnknownEntityType, name_unknown
from spr.progress import ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from first_pass import FirstPassRanker
    from simulations.policies import Policy
    from spr.progress import Progress

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

MEMBER_TYPES = ("people", "member_follow")  # entities of these types are viewers themselves
MIN_COHORTS = 8
LABEL_WINDOW = pd.Timedelta(days=10)  # 3 days for the response + 7 for the downstream interaction, as in the config

_INDUSTRIES = ("software", "health", "finance", "education", "design", "manufacturing")
_LATENT = 8
_EDGES_PER_TYPE = 6.0
_DOWNSTREAM_LOG_ODDS = (-0.2, -1.2, -0.8, -0.4, -1.6, 0.2, -1.0)  # by entity type
_EDGE_TYPES = ("connection", "follow", "subscribe")


@dataclass(frozen=True)
class WorldTables:
    """The public tables of a made network (DESIGN section 3)."""

    impressions: pd.DataFrame
    viewers: pd.DataFrame
    entities: pd.DataFrame
    edges: pd.DataFrame


class World:
    """A made network of seven entity types that answers what would have happened.

    Viewers have a latent intent per entity type, which moves P(downstream | response) and is no feature, so
    that only a per-viewer effect can learn it. Activity is heavy-tailed. Seven first-pass rankers score on
    seven different scales; what a raw score is worth is ``world.truth``. Edges that form on a page bring content to
    later sessions, each further edge of a type less than the one before.

    Every draw belongs to a request, a cohort or an entity and none to a position or a policy: two runs that differ in
    one intervention (a policy, factors, a guarantee, dropped edges, an entity type that is not there) are paired.

    Parameters
    ----------
    n_viewers : int, default 2000
        At least 20; viewers are also the entities of types ``people`` and ``member_follow``.
    seed : int, default 0
        Same arguments and seed, same tables.
    n_entities : int, default 300
        Of each entity type that is not a member; at least 20.
    behaviour : Behaviour, optional
        What edges bring, how pages are read, how types compete.
    cohorts_per_page : (int, int), default (8, 12)
        Fewest and most; 12 at most.

    Raises
    ------
    InvalidModelInput
        When there are too few viewers or entities to fill a cohort, or pages that cannot be.

    Examples
    --------
    >>> world = World(n_viewers=100, seed=1)
    >>> tables = world.tables(n_requests=50)
    >>> sorted(tables.impressions["entity_type"].unique())
    ['company', 'event', 'group', 'hashtag', 'member_follow', 'newsletter', 'people']
    >>> world.truth.downstream_probability.shape
    (100, 7)

    What would a policy that knows the truth have gained?

    >>> from simulations.policies import ExpectedGain, Production
    >>> better, now = (world.run(500, policy=policy) for policy in (ExpectedGain(), Production()))
    >>> print((better.totals["expected_downstream"] / now.totals["expected_downstream"]).round(1))
    1.2
    """

    def __init__(
        self,
        n_viewers: int = 2000,
        *,
        seed: int = 0,
        n_entities: int = 300,
        behaviour: Behaviour | None = None,
        cohorts_per_page: tuple[int, int] = (MIN_COHORTS, MAX_COHORTS),
    ) -> None:
        for name, count in (("n_viewers", n_viewers), ("n_entities", n_entities)):
            if count < 20:
                raise InvalidModelInput(f"World: {name} is {count}; at least 20 are needed to fill cohorts.")
        if not 1 <= cohorts_per_page[0] <= cohorts_per_page[1] <= MAX_COHORTS:
            raise InvalidModelInput(f"World: cohorts_per_page is {cohorts_per_page}; allowed: 1 to {MAX_COHORTS}")
        self.n_viewers = n_viewers
        self.seed = seed
        self.n_entities = n_entities
        self.behaviour = behaviour or Behaviour()
        self.cohorts_per_page = cohorts_per_page
        rng = np.random.default_rng([seed, 0])
        self.viewer_ids = names(f"v{number:06d}" for number in range(n_viewers))
        self.taste = rng.standard_normal((n_viewers, _LATENT))
        self.activity: Floats = np.minimum(rng.pareto(1.3, n_viewers) + 0.15, 15.0)
        edge_intent = rng.standard_normal((n_viewers, len(_EDGE_TYPES)))
        type_intent = rng.standard_normal((n_viewers, len(ENTITY_TYPES)))
        edge_of_type = [_EDGE_TYPES.index(CURVES[entity_type].edge_type) for entity_type in ENTITY_TYPES]
        self.intent: Floats = 1.0 * edge_intent[:, edge_of_type] + 1.2 * type_intent
        self._industry = rng.integers(len(_INDUSTRIES), size=n_viewers)
        self._is_creator = rng.random(n_viewers) < 0.2
        self._tenure_days = rng.gamma(1.5, 600.0, n_viewers)
        self._industry_taste = rng.normal(0.0, 0.4, (len(_INDUSTRIES), len(ENTITY_TYPES)))
        n_of_type = [n_viewers if t in MEMBER_TYPES else n_entities for t in ENTITY_TYPES]
        self.n_of_type = np.array(n_of_type)
        self.first_of_type = np.concatenate([[0], np.cumsum(n_of_type)])[:-1]
        self.member_codes = [ENTITY_TYPES.index(t) for t in MEMBER_TYPES]
        self.quality = rng.standard_normal(sum(n_of_type))
        self.entity_taste = rng.standard_normal((sum(n_of_type), _LATENT))
        self._viewer_noise = rng.standard_normal((n_viewers, _LATENT))
        self._entity_noise = rng.standard_normal(sum(n_of_type))
        self._created_days = rng.exponential(400.0, sum(n_of_type))
        self.sociability: Floats = np.random.default_rng([seed, 3, 1]).lognormal(0.0, 0.5, n_viewers)

    @cached_property
    def truth(self) -> WorldTruth:
        """What is known about this world: response curves, probabilities, examination, what edges are worth."""
        newcomer = np.exp(-self._tenure_days / 300.0)
        log_odds = (
            np.array(_DOWNSTREAM_LOG_ODDS)
            + self._industry_taste[self._industry]
            + np.outer(newcomer, np.linspace(1.5, -1.5, len(ENTITY_TYPES)))
            + np.outer(self._is_creator, np.linspace(-0.8, 0.8, len(ENTITY_TYPES)))
            + self.intent
        )
        index = pd.Index(self.viewer_ids, name="viewer_id")
        return WorldTruth(
            downstream_probability=pd.DataFrame(expit(log_odds), index=index, columns=list(ENTITY_TYPES)),
            position_examination=1.0 / np.sqrt(1.0 + np.arange(MAX_COHORTS)),
            slot_examination=np.power(0.9, np.arange(COHORT_SIZE)),
            world=self,
        )

    @cached_property
    def viewers(self) -> pd.DataFrame:
        """One row per viewer: numeric, boolean and categorical features, a noisy embedding of the taste."""
        return pd.DataFrame(
            {
                "viewer_id": self.viewer_ids,
                "tenure_days": self._tenure_days,
                "sessions_per_week": self.activity,
                "is_creator": self._is_creator,
                "industry": names(_INDUSTRIES)[self._industry],
                "embedding": (self.taste + 0.5 * self._viewer_noise).round(4).tolist(),
            }
        )

    @cached_property
    def entities(self) -> pd.DataFrame:
        """One row per entity: noisy popularity, age and taste embedding."""
        return pd.DataFrame(
            {
                "entity_type": np.repeat(names(ENTITY_TYPES), self.n_of_type),
                "entity_id": self.entity_ids,
                "popularity": np.exp(self.quality + 0.5 * self._entity_noise),
                "created_at": LOG_START - pd.to_timedelta(self._created_days.round(3), unit="D"),
                "embedding": self.entity_taste.round(4).tolist(),
            }
        )

    @cached_property
    def entity_ids(self) -> npt.NDArray[np.object_]:
        """Ids of the entities of all types, one type after the other."""
        made = {t: names(f"{t}-{number:04d}" for number in range(self.n_entities)) for t in ENTITY_TYPES}
        return np.concatenate([self.viewer_ids if t in MEMBER_TYPES else made[t] for t in ENTITY_TYPES])

    @cached_property
    def edge_pairs(self) -> tuple[tuple[Integers, Integers], ...]:
        """Viewer and number of the entity of each edge that stands when the log starts, by entity type."""
        rng = np.random.default_rng([self.seed, 1])
        made = []
        for code, entity_type in enumerate(ENTITY_TYPES):
            pull = np.sqrt(self.activity) * np.exp(0.5 * self.intent[:, code])
            degree = rng.poisson(_EDGES_PER_TYPE * pull / pull.mean())
            viewer = np.repeat(np.arange(self.n_viewers), degree)
            drawn = rng.integers(self.n_of_type[code], size=(len(viewer), 3))
            fit = self.relevance(viewer[:, None], code, self.first_of_type[code] + drawn)
            entity = drawn[np.arange(len(viewer)), fit.argmax(axis=1)]
            if entity_type in MEMBER_TYPES:
                other = viewer != entity
                viewer, entity = viewer[other], entity[other]
            if entity_type == "people":  # a connection is mutual
                viewer, entity = np.concatenate([viewer, entity]), np.concatenate([entity, viewer])
            first = np.unique(viewer * int(self.n_of_type[code]) + entity, return_index=True)[1]
            first.sort()
            made.append((viewer[first], entity[first]))
        return tuple(made)

    @cached_property
    def edges(self) -> pd.DataFrame:
        """The edges that stand when the log starts: more for active viewers, more of what they are after."""
        parts = [
            pd.DataFrame(
                {
                    "viewer_id": self.viewer_ids[viewer],
                    "edge_type": self.behaviour.edge_type_of[entity_type],
                    "entity_type": entity_type,
                    "entity_id": self.entity_ids[self.first_of_type[code] + entity],
                }
            )
            for code, (entity_type, (viewer, entity)) in enumerate(zip(ENTITY_TYPES, self.edge_pairs, strict=True))
        ]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def edge_counts(self) -> Floats:
        """Edges of each viewer and edge type when the log starts, float64[V, T]."""
        return self._of_edge_types(self._degrees)

    @cached_property
    def engaged_counts(self) -> Floats:
        """Of these, edges with a downstream interaction: by P(downstream | response) of its viewer, float64[V, T]."""
        rng = np.random.default_rng([self.seed, 3, 2])
        return self._of_edge_types(rng.binomial(self._degrees, self.truth.downstream_probability.to_numpy()))

    @cached_property
    def _degrees(self) -> Integers:
        return np.column_stack([np.bincount(viewer, minlength=self.n_viewers) for viewer, _ in self.edge_pairs])

    def _of_edge_types(self, counts: Integers) -> Floats:
        summed = np.zeros((self.n_viewers, len(self.behaviour.edge_types)))
        for place, code in enumerate(self.behaviour.edge_code):
            summed[:, code] += counts[:, place]
        return summed

    def relevance(self, viewer: Integers, entity_type: Integers | int, entity: Integers) -> Floats:
        """Return how well entities suit viewers, about standard normal; the arguments broadcast."""
        taste: Floats = np.einsum("...i,...i->...", self.taste[viewer], self.entity_taste[entity])
        taste /= np.sqrt(_LATENT)
        relevance: Floats = 0.75 * taste + 0.55 * self.quality[entity]
        relevance += 0.1 * self.intent[viewer, entity_type]
        return relevance

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
        chunks: list[pd.DataFrame] = []
        self.run(n_requests, policy=PartlyShuffled(Production(), random_share), log=chunks.append)
        table = chunks[0] if len(chunks) == 1 else pd.concat(chunks, ignore_index=True)
        if snapshot is not None:
            table.loc[table["at"] + LABEL_WINDOW > snapshot, ["response", "downstream"]] = np.nan
        return table

    def run(
        self,
        n_requests: int,
        *,
        policy: Policy | None = None,
        days: int = 30,
        drop: pd.DataFrame | None = None,
        without: Sequence[str] = (),
        rankers: Sequence[FirstPassRanker] = (),
        after: Run | None = None,
        log: Callable[[pd.DataFrame], object] | None = None,
        progress: Progress = ignore,
    ) -> Run:
        """Run the network for some days: sessions, pages, edges that form, and what they bring to later sessions.

        Parameters
        ----------
        n_requests : int
            Page views, each a session of its viewer; at least 1.
        policy : Policy, optional
            Default: production, with 5 % of the requests shuffled; see :mod:`simulations.policies`.
        days : int, default 30
            Over which the sessions are spread; at least 1.
        drop : DataFrame, optional
            viewer_id and ``dropped_<edge type>`` in [0, 1]: the share of the viewer's edges whose content is hidden;
            0 for a viewer or type that is not there.
        without : sequence of str, default ()
            Entity types that are not there (yet): their cohorts are left off the pages.
        rankers : sequence of FirstPassRanker, optional
            In service instead of the world's own, each for its entity type; see :mod:`simulations.rescoring`.
        after : Run, optional
            A run of this world that this one goes on from: its edges stay, time goes on.
        log : callable, optional
            Receives the impressions table of each chunk of at most 50,000 page views; default: no table is made.
        progress : callable, optional
            See :mod:`spr.progress`.

        Returns
        -------
        Run

        Raises
        ------
        InvalidModelInput, UnknownEntityType, TableError
            When a number, a name or a share is not allowed.

        Examples
        --------
        >>> world = World(n_viewers=200, seed=1)
        >>> drop = pd.DataFrame({"viewer_id": world.viewers["viewer_id"], "dropped_connection": 0.5})
        >>> lost = world.run(600).totals - world.run(600, drop=drop).totals
        >>> lost[["expected_engagement", "formed"]].round().tolist()
        [164.0, 0.0]
        """
        if n_requests < 1 or days < 1:
            raise InvalidModelInput(f"World.run: {n_requests} requests over {days} days; at least 1 of each is needed")
        for name in without:
            if name not in ENTITY_TYPES:
                raise UnknownEntityType(name_unknown("entity type", name, ENTITY_TYPES, "World.run"))
        if after is not None and after.world is not self:
            raise InvalidModelInput("World.run: `after` is a run of another world")
        return simulate(
            self,
            n_requests,
            policy=policy or PartlyShuffled(Production()),
            days=days,
            drop=self._dropped(drop),
            without=tuple(without),
            rankers=rankers,
            after=after,
            log=log,
            progress=progress,
        )

    def edge_drop(
        self, assignment: pd.DataFrame, *, days: int = 28, pre_days: int = 28, rng: np.random.Generator | int
    ) -> pd.DataFrame:
        """Run an edge-drop experiment: what the viewers did before, and while a share of their edges was hidden.

        No page is shown, and so no edge forms; otherwise sessions and engagement are those of :meth:`run`.

        Parameters
        ----------
        assignment : DataFrame
            viewer_id and ``dropped_<edge type>`` in [0, 1]; further columns (stratum, cluster, segment) are kept. A
            viewer that is there twice is two viewers who are alike.
        days, pre_days : int, default 28
            Length of the experiment and of the period before it.
        rng : Generator or int
            The same number and the same rows, the same viewers in the same mood, whatever their doses.

        Returns
        -------
        DataFrame
            The edge_drop table: the assignment, edges_<t>, downstream_edges_<t>, and for sessions, likes, comments,
            reshares and engagement (their sum) ``pre_<metric>`` and ``<metric>``.

        Raises
        ------
        TableError, InvalidModelInput
            When a viewer is unknown, a share not allowed, or there is no day.

        Examples
        --------
        >>> world = World(n_viewers=100, seed=1)
        >>> drop = pd.DataFrame({"viewer_id": world.viewers["viewer_id"], "dropped_follow": 0.25})
        >>> world.edge_drop(drop, rng=1)[["edges_follow", "pre_engagement", "engagement"]].shape
        (100, 3)
        """
        if days < 1 or pre_days < 1:
            raise InvalidModelInput(
                f"World.edge_drop: {pre_days} days before, {days} in it; at least 1 of each is needed"
            )
        rng, behaviour = np.random.default_rng(rng), self.behaviour
        who, drop = self._numbers(assignment), self._shares(assignment)
        columns: dict[str, object] = {str(c): assignment[c].to_numpy() for c in assignment.columns}
        for place, t in enumerate(behaviour.edge_types):
            columns[f"dropped_{t}"] = drop[:, place]
            columns[f"edges_{t}"] = self.edge_counts[who, place].astype(np.int64)
            columns[f"downstream_edges_{t}"] = self.engaged_counts[who, place].astype(np.int64)
        hidden = self.spillover_factor(self._dropped(assignment), self.engaged_counts)[who]
        for prefix, length, dose, factor in (("pre_", pre_days, np.zeros(1), np.ones(1)), ("", days, drop, hidden)):
            expected = self.activity[who] * length / 7
            if behaviour.activity_noise > 0:
                shape = behaviour.activity_noise**-2
                expected = expected * rng.gamma(shape, 1.0 / shape, len(who))
            sessions = poisson(rng.random(len(who)), expected)
            brought = behaviour.first_edge_engagement * behaviour.content(self.engaged_counts[who] * (1.0 - dose))
            by_type = np.column_stack([brought, np.full(len(who), behaviour.base_engagement)])
            rate = (sessions * self.sociability[who] * factor)[:, None] * (by_type @ behaviour.kind_shares)
            engagement = poisson(rng.random((len(who), len(KINDS))), rate)
            columns[f"{prefix}sessions"] = sessions
            columns |= {f"{prefix}{kind}": engagement[:, place] for place, kind in enumerate(KINDS)}
            columns[f"{prefix}engagement"] = engagement.sum(axis=1)
        return pd.DataFrame(columns)

    def spillover_factor(self, drop: Floats, engaged: Floats) -> Floats:
        """Return what is left of each viewer's engagement where its connections lost some of theirs, float64[V]."""
        behaviour = self.behaviour
        if behaviour.spillover == 0 or not drop.any():
            return np.ones(self.n_viewers)
        weight = behaviour.first_edge_engagement
        full = behaviour.content(engaged) @ weight
        loss = (full - behaviour.content(engaged * (1.0 - drop)) @ weight) / (behaviour.base_engagement + full)
        viewer, other = self.edge_pairs[ENTITY_TYPES.index("people")]
        total = np.bincount(viewer, loss[other], self.n_viewers)
        return np.asarray(
            1.0 - behaviour.spillover * total / np.maximum(np.bincount(viewer, minlength=self.n_viewers), 1)
        )

    @cached_property
    def _viewer_index(self) -> pd.Index:
        return pd.Index(self.viewer_ids)

    def _numbers(self, assignment: pd.DataFrame) -> Integers:
        if "viewer_id" not in assignment:
            raise TableError(f"assignment: column 'viewer_id' is missing; found: {', '.join(map(str, assignment))}")
        numbers = self._viewer_index.get_indexer(pd.Index(assignment["viewer_id"]))
        if (numbers < 0).any():
            first = assignment["viewer_id"].iloc[int((numbers < 0).argmax())]
            raise TableError(f"assignment: {(numbers < 0).sum():,} viewers are not of this world; first: {first!r}")
        return numbers

    def _dropped(self, assignment: pd.DataFrame | None) -> Floats:
        """Return the dropped shares of all viewers, float64[V, T]."""
        dropped = np.zeros((self.n_viewers, len(self.behaviour.edge_types)))
        if assignment is not None:
            dropped[self._numbers(assignment)] = self._shares(assignment)
        return dropped

    def _shares(self, assignment: pd.DataFrame) -> Floats:
        """Return the dropped shares of each row, float64[n, T]."""
        types = self.behaviour.edge_types
        shares = np.zeros((len(assignment), len(types)))
        for column in [str(c) for c in assignment.columns if str(c).startswith("dropped_")]:
            edge_type = column.removeprefix("dropped_")
            if edge_type not in types:
                raise TableError(f"assignment: {name_unknown('edge type', edge_type, types)}")
            share = pd.to_numeric(assignment[column], errors="coerce").to_numpy(dtype=np.float64)
            outside = ~((share >= 0) & (share <= 1))
            if outside.any():
                raise TableError(f"assignment: {column} is outside [0, 1] or null in {outside.sum():,} rows")
            shares[:, types.index(edge_type)] = share
        return shares
