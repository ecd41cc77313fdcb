"""Policies: who stands where on the pages of a made network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.reorder import ImportanceFactors, arrange, count_delivered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from simulations.page_views import PageViews
    from spr import SecondPassRanker
    from spr.ledger import Delivered
    from spr.reorder import ImpressionGuarantee, LabelKind

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Placed:
    """Where the cohorts of a chunk stand.

    Parameters
    ----------
    position : int64[C]
        0 = top, each position of a request once.
    propensity : float64[C]
        P(this cohort at this position) under the policy; NaN on a deterministic page.
    policy : object[R]
        Name of the policy that placed each request.
    """

    position: Integers
    propensity: Floats
    policy: npt.NDArray[np.object_]


class Policy(Protocol):
    """Places the cohorts of page views; sees requests in order of time, chunk after chunk."""

    def place(self, views: PageViews) -> Placed:
        """Return where each cohort stands."""


def _sorted(views: PageViews, value: Floats, name: str) -> Placed:
    """Place by value, highest on top; cohorts without a scorable entity last."""
    value = np.where(np.isnan(views.raw_score).all(axis=1), -np.inf, value)
    nobody = np.full(views.n_cohorts, np.nan)
    return Placed(views.position_of(-value), nobody, np.full(views.n_requests, name, dtype=object))


@dataclass(frozen=True)
class Shuffled:
    """The random policy: every order of a page's cohorts is as likely."""

    def place(self, views: PageViews) -> Placed:
        """Shuffle every page."""
        n_cohorts = np.bincount(views.request, minlength=views.n_requests)
        return Placed(
            views.position_of(views.place_uniform),
            1.0 / n_cohorts[views.request],
            np.full(views.n_requests, "random", dtype=object),
        )


@dataclass(frozen=True)
class Production:
    """Cohorts by their mean raw score, although the scales differ."""

    def place(self, views: PageViews) -> Placed:
        """Place by the mean raw score."""
        scorable = ~np.isnan(views.raw_score)
        total = np.where(scorable, views.raw_score, 0.0).sum(axis=1)
        with np.errstate(invalid="ignore"):
            return _sorted(views, total / scorable.sum(axis=1), "production")


@dataclass(frozen=True)
class PartlyShuffled:
    """A policy, but a share of the requests is shuffled: the same requests whatever the policy.

    Parameters
    ----------
    policy : Policy
    share : float
        In [0, 1].
    """

    policy: Policy
    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidModelInput(f"PartlyShuffled: share is {self.share}; allowed: 0 to 1")

    def place(self, views: PageViews) -> Placed:
        """Place by the policy, and shuffle some."""
        shown, served = Shuffled().place(views), views.request_uniform >= self.share
        placed, cohorts = self.policy.place(views.only(served)), served[views.request]
        position, propensity, policy = shown.position.copy(), shown.propensity.copy(), shown.policy.copy()
        position[cohorts], propensity[cohorts], policy[served] = placed.position, placed.propensity, placed.policy
        return Placed(position, propensity, policy)


@dataclass(frozen=True)
class ExpectedGain:
    """A second pass that knows the truth: P(a downstream interaction) x importance factor, with guarantees.

    Parameters
    ----------
    factors : ImportanceFactors, optional
        By the edge types of the world's behaviour; default: all 1.
    guarantees : sequence of ImpressionGuarantee, default ()
        On edge types; each viewer's delivered impressions are counted over the run.
    """

    factors: ImportanceFactors | None = None
    guarantees: Sequence[ImpressionGuarantee] = ()

    def value(self, views: PageViews) -> tuple[Floats, npt.NDArray[np.object_]]:
        """Return the value and the edge type of each cohort."""
        known = views.world.behaviour.edge_types
        for name in [*(self.factors.factor if self.factors else ()), *(g.label for g in self.guarantees)]:
            if name not in known:
                raise InvalidModelInput(name_unknown("edge type", name, known, "the policy ExpectedGain"))
        edge_type = np.array(known, dtype=object)[views.world.behaviour.edge_code[views.entity_type]]
        return views.probability * (self.factors or ImportanceFactors.of({})).at(edge_type), edge_type

    def place(self, views: PageViews) -> Placed:
        """Place by value, then keep the guarantees page by page."""
        value, edge_type = self.value(views)
        placed = _sorted(views, value, "expected-gain")
        if not self.guarantees:
            return placed
        position = placed.position.copy()
        ends = np.searchsorted(views.request, np.arange(views.n_requests + 1))
        for request, viewer in enumerate(views.viewer.tolist()):
            page = slice(int(ends[request]), int(ends[request + 1]))
            position[page] = self._arrange(views.counters[viewer], value[page], edge_type[page])
        return Placed(position, placed.propensity, placed.policy)

    def _arrange(self, counted: dict[str, int], value: Floats, edge_type: npt.NDArray[np.object_]) -> Integers:
        delivered = {g.name: counted.get(g.name, 0) for g in self.guarantees}
        labels: dict[LabelKind, npt.NDArray[np.object_]] = {"edge_type": edge_type}
        kept = arrange(value, labels, self.guarantees, delivered=delivered, delivered_total=counted.get("total", 0))
        position = np.empty(len(value), dtype=np.int64)
        position[kept.order] = np.arange(len(value))
        _add(count_delivered(self.guarantees, {"edge_type": edge_type[kept.order]}, len(value)), counted)
        return position


@dataclass(frozen=True)
class OptimalPage:
    """The page with the largest expected gain in engagement, knowing each viewer's intents and edges.

    Every cohort by expected engaged edges times what one more is worth to this viewer. Exact under examination by
    position without cannibalization, since then the gain of a cohort does not depend on what stands above it.
    """

    def place(self, views: PageViews) -> Placed:
        """Place by the expected gain of each cohort at the top."""
        edges = (views.world.truth.slot_examination_at_top * views.response_probability).sum(axis=1)
        return _sorted(views, edges * views.downstream_probability * views.next_edge_value, "optimal")


@dataclass(frozen=True)
class Ranked:
    """A fitted ranker, as a service would call it.

    Parameters
    ----------
    ranker : SecondPassRanker
        Its random policy and guarantees hold; each viewer's delivered impressions are counted over the run.
    name : str, default "spr"
        Of its pages that are not random.
    """

    ranker: SecondPassRanker
    name: str = "spr"

    def place(self, views: PageViews) -> Placed:
        """Rank every page; where guarantees count over sessions, each viewer's first sessions before the later ones."""
        placed = Placed(
            np.full(views.n_cohorts, -1, dtype=np.int64),
            np.full(views.n_cohorts, np.nan),
            np.full(views.n_requests, self.name, dtype=object),
        )
        counting = any(guarantee.share is not None for guarantee in self.ranker.guarantees)
        session = _session_number(views.viewer) if counting else np.zeros(views.n_requests, dtype=np.int64)
        for turn in range(int(session.max(initial=0)) + 1):
            self._rank(views, session == turn, placed)
        return placed

    def _rank(self, views: PageViews, turn: npt.NDArray[np.bool_], placed: Placed) -> None:
        some, world = views.only(turn), views.world
        shares = [g.name for g in self.ranker.guarantees if g.share is not None]
        cohorts, requests = np.flatnonzero(turn[views.request]), np.flatnonzero(turn)
        table = some.to_requests()
        counters = [views.counters[viewer] for viewer in some.viewer.tolist()]
        n_rows = np.bincount(some.request, minlength=some.n_requests) * some.entity.shape[1]
        for name in ("total", *shares):
            table[f"delivered_{name}"] = np.repeat([counted.get(name, 0) for counted in counters], n_rows)
        pages = self.ranker.rank_pages(table, world.viewers, world.entities)
        for page, request, counted in zip(pages, requests, counters, strict=True):
            batch, order = page.values.batch, page.order
            # What is not on the page (no scorable entity) stands below it.
            own = np.arange(batch.cohort_offset[page.request], batch.cohort_offset[page.request + 1])
            below = np.setdiff1d(own, order)
            placed.position[cohorts[np.concatenate([order, below])]] = np.arange(len(own))
            if page.propensity is not None:
                placed.propensity[cohorts[order]] = page.propensity
            if page.policy == "random":
                placed.policy[request] = "random"
                continue
            _add(page.count_delivered(), counted)


def _add(delivered: Delivered, counted: dict[str, int]) -> None:
    for name, count in (*delivered.counts.items(), ("total", delivered.total)):
        counted[name] = counted.get(name, 0) + count


@dataclass(frozen=True)
class Split:
    """Several policies, each for its own viewers: an A/B test.

    Parameters
    ----------
    arms : mapping of str to Policy
        By name, which their pages carry unless they are random; equal shares of viewers.
    salt : str
        Viewers are dealt out by a salted hash of their id.
    """

    arms: Mapping[str, Policy]
    salt: str

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise InvalidModelInput(f"Split: {len(self.arms)} arms; at least two are needed")

    def arm_of(self, viewer_ids: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """Return the arm of each viewer, object[V]."""
        names = list(self.arms)

        def code(viewer: str) -> int:
            digest = hashlib.blake2b(f"{len(self.salt)}:{self.salt}{viewer}".encode(), digest_size=8).digest()
            return int.from_bytes(digest, "big") * len(names) >> 64

        return np.array([names[code(viewer)] for viewer in viewer_ids], dtype=object)

    def place(self, views: PageViews) -> Placed:
        """Place each page by the arm of its viewer."""
        arm = self.arm_of(views.world.viewer_ids)[views.viewer]
        position, propensity = np.empty(views.n_cohorts, dtype=np.int64), np.full(views.n_cohorts, np.nan)
        shown = arm.copy()
        for name, policy in self.arms.items():
            mine = arm == name
            placed, cohorts = policy.place(views.only(mine)), mine[views.request]
            position[cohorts], propensity[cohorts] = placed.position, placed.propensity
            shown[mine] = np.where(placed.policy == "random", placed.policy, name)
        return Placed(position, propensity, shown)


def _session_number(viewer: Integers) -> Integers:
    """Return how many earlier requests of its viewer there are before each request."""
    order = np.argsort(viewer, kind="stable")
    ordered = viewer[order]
    start = np.searchsorted(ordered, ordered)
    number = np.empty_like(order)
    number[order] = np.arange(len(viewer)) - start
    return number
