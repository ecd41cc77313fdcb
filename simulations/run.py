"""A run of a made network: sessions over days, pages, edges that form and what they bring to later sessions."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import pdtrik

from simulations.behaviour import COHORT_SIZE, DOWNSTREAM_WINDOW_DAYS, ENTITY_TYPES, KINDS, MAX_COHORTS
from simulations.outcomes import behave
from simulations.page_views import LOG_START, PageViews, draw_page_views
from simulations.rescoring import rescored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from first_pass import FirstPassRanker
    from simulations.outcomes import Outcomes
    from simulations.policies import Placed, Policy
    from simulations.world import World
    from spr.progress import Progress

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

CHUNK = 50_000  # requests drawn at once: about 1 GB
_DAY = 86_400
_LOOK_AHEAD = 2


@dataclass(frozen=True)
class FormedEdges:
    """Edges that responses formed, in order of the pages: parallel arrays of viewer, entity type, entity and moment.

    ``engaged_at`` is the moment of the downstream interaction, NaT where there is none, and ``action`` its kind.
    """

    viewer: Integers
    entity_type: Integers
    entity: Integers
    request_id: npt.NDArray[np.object_]
    at: npt.NDArray[np.datetime64]
    engaged_at: npt.NDArray[np.datetime64]
    action: npt.NDArray[np.object_]


@dataclass(frozen=True)
class Run:
    """What a run ended with, by viewer and in sum; V viewers, T edge types.

    Parameters
    ----------
    world : World
    period : int
        0, or one more than that of the run it came after.
    n_requests : int
    end : Timestamp
        The next run after it starts here.
    sessions : int64[V]
    engagement_by_type : float64[V, T + 1]
        Expected interactions that edges of each type brought over the run, and that no edge did.
    engagement : int64[V, 3]
        Likes, comments and reshares that came of it, drawn.
    edges, engaged : float64[V, T]
        Edges, and those with a downstream interaction, at the end.
    placements : int64[7, 12]
        Cohorts of each entity type at each position.
    expected_edges : float64[T]
        Engaged edges that the pages form, in expectation over what people do.
    expected_gain : float64[T]
        Engagement a week that these bring, by the value of each viewer's next edge when its chunk began.
    formed : tuple of FormedEdges
        By chunk.
    counters : mapping of int to (dict of str to int)
        Impressions delivered to each viewer, where a policy counts them; a run that comes after goes on from them.
    """

    world: World
    period: int
    n_requests: int
    end: pd.Timestamp
    sessions: Integers
    engagement_by_type: Floats
    engagement: Integers
    edges: Floats
    engaged: Floats
    placements: Integers
    expected_edges: Floats
    expected_gain: Floats
    formed: tuple[FormedEdges, ...]
    counters: Mapping[int, Mapping[str, int]]

    @cached_property
    def viewers(self) -> pd.DataFrame:
        """One row per viewer.

        viewer_id, sessions, likes, comments, reshares, engagement (their sum), expected_engagement, and per edge type
        formed_<t>, downstream_<t> and edges_<t> at the end.
        """
        world, types = self.world, self.world.behaviour.edge_types
        n_types = len(types)
        formed, downstream = (np.zeros((world.n_viewers, n_types), dtype=np.int64) for _ in range(2))
        for part in self.formed:
            edge_type = world.behaviour.edge_code[part.entity_type]
            np.add.at(formed, (part.viewer, edge_type), 1)
            engaged = ~np.isnat(part.engaged_at)
            np.add.at(downstream, (part.viewer[engaged], edge_type[engaged]), 1)
        columns = {"viewer_id": world.viewer_ids, "sessions": self.sessions}
        columns |= dict(zip(KINDS, self.engagement.T, strict=True))
        columns |= {
            "engagement": self.engagement.sum(axis=1),
            "expected_engagement": self.engagement_by_type.sum(axis=1),
        }
        for name, counts in (("formed", formed), ("downstream", downstream), ("edges", self.edges)):
            columns |= {f"{name}_{t}": counts[:, place] for place, t in enumerate(types)}
        return pd.DataFrame(columns)

    @cached_property
    def totals(self) -> pd.Series:
        """Sums over viewers of their columns; ``formed``, ``downstream`` and what is expected over edge types, too."""
        sums = self.viewers.drop(columns="viewer_id").sum()
        types = self.world.behaviour.edge_types
        for name in ("formed", "downstream"):
            sums[name] = sum(sums[f"{name}_{t}"] for t in types)
        sums["expected_downstream"] = self.expected_edges.sum()
        sums["expected_gain"] = self.expected_gain.sum()
        return sums

    @property
    def mix(self) -> pd.DataFrame:
        """Share of the placements at each position that is of each entity type: entity types x positions."""
        shares = self.placements / np.maximum(self.placements.sum(axis=0), 1)
        return pd.DataFrame(shares, index=pd.Index(ENTITY_TYPES, name="entity_type"))

    @cached_property
    def formed_edges(self) -> pd.DataFrame:
        """The ``edges`` table of what was formed: viewer_id, edge_type, entity_type, entity_id, at."""
        world = self.world
        edge_types = np.array(world.behaviour.edge_types, dtype=object)
        parts = [
            pd.DataFrame(
                {
                    "viewer_id": world.viewer_ids[part.viewer],
                    "edge_type": edge_types[world.behaviour.edge_code[part.entity_type]],
                    "entity_type": np.array(ENTITY_TYPES, dtype=object)[part.entity_type],
                    "entity_id": world.entity_ids[part.entity],
                    "at": pd.DatetimeIndex(part.at, tz="UTC"),
                }
            )
            for part in self.formed
        ]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def actions(self) -> pd.DataFrame:
        """The ``actions`` table: each response, and after a delay the like, comment or reshare that followed it."""
        edges = self.formed_edges
        edges["request_id"] = np.concatenate([part.request_id for part in self.formed])
        edges["action"] = "response"
        later = edges.assign(
            at=pd.DatetimeIndex(np.concatenate([part.engaged_at for part in self.formed]), tz="UTC"),
            action=np.concatenate([part.action for part in self.formed]),
        )
        table = pd.concat([edges, later[later["at"].notna()]], ignore_index=True)
        table = table.sort_values(["at", "viewer_id"], kind="stable", ignore_index=True)
        table["event_id"] = [f"e{self.period}-{number}" for number in range(len(table))]
        return table[["event_id", "viewer_id", "request_id", "at", "action", "entity_type", "entity_id"]]


def simulate(
    world: World,
    n_requests: int,
    *,
    policy: Policy,
    days: int,
    drop: Floats,
    without: tuple[str, ...],
    rankers: Sequence[FirstPassRanker],
    after: Run | None,
    log: Callable[[pd.DataFrame], object] | None,
    progress: Progress,
) -> Run:
    """Run a world; see :meth:`simulations.World.run`."""
    behaviour = world.behaviour
    period = 0 if after is None else after.period + 1
    start = LOG_START if after is None else after.end
    n_types = len(behaviour.edge_types)
    edges, engaged = (
        a.copy() for a in ((world.edge_counts, world.engaged_counts) if after is None else (after.edges, after.engaged))
    )
    waiting = _Waiting.nobody()
    counters = defaultdict(dict, {} if after is None else {viewer: dict(n) for viewer, n in after.counters.items()})
    by_type = np.zeros((world.n_viewers, n_types + 1))
    sessions = np.zeros(world.n_viewers, dtype=np.int64)
    placements = np.zeros((len(ENTITY_TYPES), MAX_COHORTS), dtype=np.int64)
    expected_edges, expected_gain = np.zeros(n_types), np.zeros(n_types)
    formed, done = [], 0
    progress("page views", 0, n_requests)
    for drawn in _draw_chunks(world, n_requests, days, period, start, without):
        views = rescored(replace(drawn, engaged=engaged.copy(), counters=counters), rankers)
        placed = policy.place(views)
        outcomes = behave(views, placed.position)
        part = _form(views, outcomes)
        edge_type = behaviour.edge_code[part.entity_type]
        np.add.at(edges, (part.viewer, edge_type), 1)
        waiting = waiting.joined_by(part, edge_type)
        waiting = _engage(views, engaged, waiting, drop, by_type)
        sessions += np.bincount(views.viewer, minlength=world.n_viewers)
        np.add.at(placements, (views.entity_type, placed.position), 1)
        of_cohort = behaviour.edge_code[views.entity_type]
        expected_edges += np.bincount(of_cohort, outcomes.expected_edges, n_types)
        expected_gain += np.bincount(of_cohort, outcomes.expected_edges * views.next_edge_value, n_types)
        formed.append(part)
        if log is not None:
            log(_impressions(views, placed, outcomes))
        done += views.n_requests
        progress("page views", done, n_requests)
    np.add.at(engaged, (waiting.viewer, waiting.edge_type), 1)
    by_type *= world.sociability[:, None] * world.spillover_factor(drop, engaged)[:, None]
    uniform = np.random.default_rng([world.seed, 6, 0, period]).random((world.n_viewers, len(KINDS)))
    return Run(
        world,
        period,
        n_requests,
        start + pd.Timedelta(days=days),
        sessions,
        by_type,
        poisson(uniform, by_type @ behaviour.kind_shares),
        edges,
        engaged,
        placements,
        expected_edges,
        expected_gain,
        tuple(formed),
        counters,
    )


def poisson(uniform: Floats, rate: Floats) -> Integers:
    """Return Poisson draws by the inverse of the distribution function: the same uniform, a higher rate, no less.

    Parameters
    ----------
    uniform : float64[...]
        In [0, 1).
    rate : float64[...]
        >= 0.

    Returns
    -------
    int64[...]

    Examples
    --------
    >>> poisson(np.array([0.1, 0.5, 0.999]), np.array([2.0, 2.0, 2.0]))
    array([0, 2, 8])
    """
    positive = rate > 0
    drawn = np.ceil(pdtrik(np.where(uniform > 0, uniform, 0.5), np.where(positive, rate, 1.0)))
    at_zero = uniform <= np.exp(-rate)  # pdtrik gives no count below 0
    return np.where(positive & ~at_zero, np.maximum(drawn, 1.0), 0.0).astype(np.int64)


def _draw_chunks(
    world: World, n_requests: int, days: int, period: int, start: pd.Timestamp, without: tuple[str, ...]
) -> Iterator[PageViews]:
    """Draw the chunks in threads, at most two ahead of what is simulated."""
    n_chunks = -(-n_requests // CHUNK)
    ends = np.arange(n_chunks + 1) * n_requests // n_chunks
    moments = np.arange(n_chunks + 1) * days * _DAY // n_chunks
    prefix = "r" if period == 0 else f"p{period}r"

    def draw(chunk: int) -> PageViews:
        return draw_page_views(
            world,
            int(ends[chunk + 1] - ends[chunk]),
            rng=np.random.default_rng([world.seed, 2, chunk, period]),
            later=np.random.default_rng([world.seed, 5, chunk, period]),
            first_number=int(ends[chunk]),
            prefix=prefix,
            start=start + pd.Timedelta(seconds=int(moments[chunk])),
            seconds=int(moments[chunk + 1] - moments[chunk]),
            without=without,
        )

    with ThreadPoolExecutor(_LOOK_AHEAD) as pool:
        ahead = [pool.submit(draw, chunk) for chunk in range(min(_LOOK_AHEAD, n_chunks))]
        for chunk in range(n_chunks):
            drawn = ahead.pop(0).result()
            if chunk + _LOOK_AHEAD < n_chunks:
                ahead.append(pool.submit(draw, chunk + _LOOK_AHEAD))
            yield drawn


def _form(views: PageViews, outcomes: Outcomes) -> FormedEdges:
    """Collect the edges that responses formed, and when and what followed."""
    # A share 1 - (1 - u)^(1/k) of the label's window: Beta(1, k), of the wanted mean and never later than the window.
    k = DOWNSTREAM_WINDOW_DAYS / views.world.behaviour.downstream_delay_days - 1.0
    delay = (1.0 - (1.0 - views.delay_uniform) ** (1.0 / k)) * DOWNSTREAM_WINDOW_DAYS * _DAY
    cohort, slot = np.nonzero(outcomes.response)
    request = views.request[cohort]
    at = views.at.tz_localize(None).to_numpy().astype("datetime64[s]")[request]
    engaged = outcomes.downstream[cohort, slot]
    engaged_at = np.where(engaged, at + delay[cohort, slot].astype("timedelta64[s]"), np.datetime64("NaT", "s"))
    shares = views.world.behaviour.kind_shares[views.world.behaviour.edge_code[views.entity_type[cohort]]]
    chosen = (views.action_uniform[cohort, slot][:, None] > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)
    action = np.array([name.removesuffix("s") for name in KINDS], dtype=object)[chosen]
    return FormedEdges(
        views.viewer[request],
        views.entity_type[cohort],
        views.entity[cohort, slot],
        views.request_id[request],
        at,
        engaged_at,
        action,
    )


@dataclass(frozen=True)
class _Waiting:
    """Edges whose downstream interaction is still to come."""

    viewer: Integers
    edge_type: Integers
    at: npt.NDArray[np.datetime64]

    @classmethod
    def nobody(cls) -> _Waiting:
        nothing = np.empty(0, dtype=np.int64)
        return cls(nothing, nothing, np.empty(0, dtype="datetime64[s]"))

    def joined_by(self, formed: FormedEdges, edge_type: Integers) -> _Waiting:
        engaged = ~np.isnat(formed.engaged_at)
        return _Waiting(
            np.concatenate([self.viewer, formed.viewer[engaged]]),
            np.concatenate([self.edge_type, edge_type[engaged]]),
            np.concatenate([self.at, formed.engaged_at[engaged]]),
        )

    def only(self, which: npt.NDArray[np.bool_]) -> _Waiting:
        return _Waiting(self.viewer[which], self.edge_type[which], self.at[which])


def _engage(views: PageViews, engaged: Floats, waiting: _Waiting, drop: Floats, by_type: Floats) -> _Waiting:
    """Add what the sessions of a chunk bring, each with the edges that were engaged by then; return who waits on."""
    behaviour = views.world.behaviour
    at = views.at.tz_localize(None).to_numpy().astype("datetime64[s]")
    now = waiting.only(waiting.at <= at[-1])
    viewer = np.concatenate([now.viewer, views.viewer])
    moment = np.concatenate([now.at, at])
    order = np.lexsort((moment, viewer))
    arrived = np.zeros((len(viewer), engaged.shape[1]))
    arrived[np.arange(len(now.viewer)), now.edge_type] = 1.0
    ordered = viewer[order]
    total = arrived[order].cumsum(axis=0)
    first = np.searchsorted(ordered, ordered)
    so_far = total - total[first] + arrived[order][first]
    is_session = order >= len(now.viewer)
    who, count = ordered[is_session], so_far[is_session]
    brought = behaviour.first_edge_engagement * behaviour.content((engaged[who] + count) * (1.0 - drop[who]))
    for place in range(engaged.shape[1]):
        by_type[:, place] += np.bincount(who, brought[:, place], len(by_type))
    by_type[:, -1] += np.bincount(who, minlength=len(by_type)) * behaviour.base_engagement
    np.add.at(engaged, (now.viewer, now.edge_type), 1)
    return waiting.only(waiting.at > at[-1])


def _impressions(views: PageViews, placed: Placed, outcomes: Outcomes) -> pd.DataFrame:
    """Return the chunk's rows of the impressions table."""
    row = np.repeat(np.arange(views.n_cohorts), COHORT_SIZE)
    table = views.to_requests()
    table.insert(3, "policy", placed.policy[views.request[row]])
    table.insert(7, "position", placed.position[row])
    return table.assign(
        response=outcomes.response.ravel().astype(np.float64),
        downstream=outcomes.downstream.ravel().astype(np.float64),
        propensity=placed.propensity[row],
    )
