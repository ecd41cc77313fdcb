"""What holds for every page, whatever the request."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import spr
from spr.page_settings import Guarantee
from spr.reorder import ImportanceFactors, is_random

if TYPE_CHECKING:
    from collections.abc import Sequence

Request = spr.RankingRequest
Ranker = spr.SecondPassRanker

TYPES = ("people", "hashtag", "company", "member_follow", "group", "newsletter", "event")
KINDS = ("rare", "common")
PROFILE = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])

# Extreme floats, ties and missing scores; plus the ranges in which the network's rankers really score.
raw_scores = st.one_of(
    st.floats(-6.0, 6.0),
    st.floats(0.0, 1000.0),
    st.floats(allow_nan=True, allow_infinity=False),
    st.sampled_from([None, 0.0, 0.0, 1.0, -0.0]),
)
numbers = st.one_of(st.none(), st.floats(0.0, 1e6))
embeddings = st.one_of(st.none(), st.lists(st.floats(-3.0, 3.0, width=32), min_size=8, max_size=8))
moments = st.one_of(st.none(), st.integers(0, 3000).map(lambda days: datetime(2018, 1, 1) + timedelta(days=days)))


@st.composite
def _cohorts(draw: st.DrawFn, index: int) -> spr.Cohort:
    scores = draw(st.lists(raw_scores, min_size=1, max_size=9))
    entity_type = draw(st.sampled_from(TYPES))
    features: dict[str, Sequence[Any]] = {}
    for name, values in (("popularity", numbers), ("created_at", moments), ("embedding", embeddings)):
        if draw(st.booleans()):
            features[name] = [draw(values)] * len(scores)
    return spr.Cohort(
        f"c{index}",
        entity_type,
        [f"c{index}-{slot}" for slot in range(len(scores))],
        scores,
        f"{entity_type}-1",
        cohort_kind=draw(st.sampled_from(KINDS)),
        entity_features=features,
    )


@st.composite
def requests(draw: st.DrawFn, *, request_id: str = "r") -> Request:
    """Draw a request: viewers seen and unseen, features missing and null, any counters."""
    known = {
        "tenure_days": numbers,
        "sessions_per_week": numbers,
        "is_creator": st.one_of(st.none(), st.booleans()),
        "industry": st.sampled_from([None, "software", "health", "a new one"]),
        "embedding": embeddings,
    }
    features = {name: draw(values) for name, values in known.items() if draw(st.booleans())}
    viewer_id = draw(st.sampled_from(["v000000", "v000005", "v000017", "nobody knows"]))
    cohorts = [draw(_cohorts(index)) for index in range(draw(st.integers(1, 15)))]
    return Request(
        f"{request_id}{draw(st.integers(0, 10**6))}",
        datetime(2026, 1, draw(st.integers(1, 30)), tzinfo=UTC),
        spr.Viewer(viewer_id, features),
        cohorts,
        delivered={"connection-floor": draw(st.integers(0, 60))} if draw(st.booleans()) else {},
        delivered_total=draw(st.integers(0, 200)),
    )


def _exploring(ranker: Ranker, share: float) -> Ranker:
    exploration = ranker.config.exploration.model_copy(update={"random_share": share})
    return dataclasses.replace(ranker, config=ranker.config.model_copy(update={"exploration": exploration}))


def _guaranteeing(ranker: Ranker, *guarantees: Guarantee) -> Ranker:
    return dataclasses.replace(ranker, config=ranker.config.model_copy(update={"guarantees": guarantees}))


class Rankers:
    """The session's ranker under several configurations; hypothesis prints no more of it than its name."""

    def __init__(self, shipped: Ranker) -> None:
        self.shipped = shipped
        self.deterministic = _exploring(shipped, 0.0)
        self.unbound = _guaranteeing(self.deterministic)
        self.shuffling = _exploring(shipped, 1.0)


@pytest.fixture(scope="session")
def rankers(ranker: Ranker) -> Rankers:
    # whether this log asks for a correction of unseen viewers or not, there is one
    return Rankers(dataclasses.replace(ranker, unseen_correction=(-0.25, 0.9)))


def _describe(page: spr.Page) -> tuple[object, ...]:
    """Everything a page says, floats to the last bit."""
    placed = []
    for p in page.placements:
        names = (p.position, p.cohort_id, p.cohort_kind, p.entity_type, p.edge_type, p.entity_id, p.ranker_version)
        numbers = (
            *p.raw_score,
            *p.expected_response,
            *p.margins.values(),
            p.margin,
            p.probability,
            p.importance,
            p.value,
        )
        placed.append((names, p.reason, p.propensity, [number.hex() for number in numbers]))
    return (
        page.request_id,
        page.viewer_id,
        page.policy,
        placed,
        page.propensity_kind,
        dict(page.shortfall),
        dict(page.omitted),
        page.fallbacks,
        dict(page.versions),
    )


def _scorable(cohort: spr.Cohort) -> bool:
    return any(score is not None and not math.isnan(score) for score in cohort.raw_score)


@PROFILE
@given(request=requests())
def test_page_holds_each_scorable_cohort_once(rankers: Rankers, request: Request) -> None:
    page = rankers.shipped.rank(request)
    assert Counter(page.cohort_id) == Counter(c.cohort_id for c in request.cohorts if _scorable(c))
    assert set(page.omitted) == {c.cohort_id for c in request.cohorts if not _scorable(c)}
    assert [p.position for p in page.placements] == list(range(len(page.cohort_id)))
    sent = {c.cohort_id: c for c in request.cohorts}
    for p in page.placements:
        there = [
            (entity, score)
            for entity, score in zip(sent[p.cohort_id].entity_id, sent[p.cohort_id].raw_score, strict=True)
            if score is not None and not math.isnan(score)
        ]
        assert list(zip(p.entity_id, p.raw_score, strict=True)) == there


@PROFILE
@given(request=requests())
def test_page_parts_add_up_and_nothing_is_nan(rankers: Rankers, request: Request) -> None:
    for p in rankers.shipped.rank(request).placements:
        assert p.margin == pytest.approx(math.fsum(p.margins.values()), abs=1e-12)
        assert p.probability == pytest.approx(1.0 / (1.0 + math.exp(-p.margin)), rel=1e-12)
        assert p.value == p.probability * p.importance
        assert p.importance == {"connection": 1.4, "follow": 1.0, "subscribe": 1.2}[p.edge_type]
        assert np.isfinite([*p.raw_score, *p.expected_response, *p.margins.values(), p.value]).all()
        assert 0.0 < p.probability < 1.0
        assert all(0.0 < response < 1.0 for response in p.expected_response)


@PROFILE
@given(request=requests())
def test_page_says_which_viewers_were_unseen(rankers: Rankers, request: Request) -> None:
    intercept, slope = rankers.shipped.unseen_correction
    known = request.viewer.viewer_id in set(rankers.shipped.effects[0].keys.tolist())
    for p in rankers.shipped.rank(request).placements:
        fixed = p.margins["fixed"]
        assert p.margins["unseen"] == (0.0 if known else pytest.approx(intercept + slope * fixed - fixed, abs=1e-12))
        assert known or p.margins["member"] == 0.0


@PROFILE
@given(request=requests())
def test_page_of_the_same_request_is_identical(rankers: Rankers, request: Request) -> None:
    again = dataclasses.replace(request, cohorts=list(request.cohorts), coefficients={})
    assert _describe(rankers.shipped.rank(request)) == _describe(rankers.shipped.rank(again))


@PROFILE
@given(request=requests())
def test_page_that_is_deterministic_has_no_propensity(rankers: Rankers, request: Request) -> None:
    page = rankers.deterministic.rank(request)
    assert (page.policy, page.propensity_kind, page.propensity) == ("spr", "none", None)
    assert all(p.propensity is None for p in page.placements)


@PROFILE
@given(request=requests())
def test_page_meets_a_share_as_far_as_supply_allows(rankers: Rankers, request: Request) -> None:
    page = rankers.deterministic.rank(request)
    bears = [p.edge_type == "connection" for p in page.placements]
    total = request.delivered_total
    delivered = request.delivered.get("connection-floor", total / 4)  # a share without a counter is not behind
    missing, least = 0, 0
    for prefix in range(1, min(10, len(bears)) + 1):
        debt = min(total - 4 * delivered, 4 * 3)  # in quarters; 3 = slack + catch_up
        due = max(0, math.ceil((debt + prefix - 4) / 4))  # ceil(min(D / 4 - D_t, 3) + p / 4 - 1)
        missing = max(missing, due - sum(bears[:prefix]))
        least = max(least, due - min(prefix, sum(bears)))
    assert page.shortfall.get("connection-floor", 0) == missing == least
    _check_reasons(page)


@PROFILE
@given(request=requests())
def test_page_meets_minima_or_says_by_how_much(rankers: Rankers, request: Request) -> None:
    floors = (
        Guarantee(name="two people", entity_type="people", minimum=2, within_top=4),
        Guarantee(name="a rare kind", cohort_kind="rare", minimum=1, within_top=3),
        Guarantee(name="subscriptions", edge_type="subscribe", minimum=3, within_top=6),
    )
    page = _guaranteeing(rankers.deterministic, *floors).rank(dataclasses.replace(request, delivered={}))
    for floor in floors:
        label = floor.entity_type or floor.cohort_kind or floor.edge_type
        found = [label in (p.entity_type, p.cohort_kind, p.edge_type) for p in page.placements]
        missing = max(0, (floor.minimum or 0) - sum(found[: floor.within_top]))
        assert page.shortfall.get(floor.name, 0) == (missing if found else 0)
        # the tops nest and their minima fit, so that only supply can be short
        assert missing == max(0, (floor.minimum or 0) - sum(found))
    _check_reasons(page)


def _check_reasons(page: spr.Page) -> None:
    """A cohort that stands higher than by value names a guarantee, any other says value."""
    value = np.array([p.value for p in page.placements])
    by_value = sorted(range(len(value)), key=lambda i: (-value[i], page.order[i]))  # ties as they were sent
    for p in page.placements:
        lifted = p.position < by_value.index(p.position)
        assert p.reason.startswith("guarantee:") if lifted else p.reason == "value"


@PROFILE
@given(request=requests(), scale=st.one_of(st.sampled_from([0.5, 4.0]), st.floats(1e-3, 1e3)))
def test_page_order_ignores_the_scale_of_the_factors(rankers: Rankers, request: Request, scale: float) -> None:
    factors = {edge: factor * scale for edge, factor in rankers.deterministic.factors.factor.items()}
    before = rankers.deterministic.rank(request)
    after = rankers.deterministic.with_factors(ImportanceFactors.of(factors)).rank(request)
    value = {p.cohort_id: p.value for p in before.placements}
    # Position by position the same value: only cohorts that tie to the last bits may change places.
    assert [value[c] for c in after.cohort_id] == pytest.approx([value[c] for c in before.cohort_id], rel=1e-14)
    if math.frexp(scale)[0] == 0.5:
        assert after.cohort_id == before.cohort_id
    assert after.shortfall == before.shortfall


@PROFILE
@given(request=requests())
def test_page_of_equal_factors_without_guarantees_is_in_order_of_probability(
    rankers: Rankers, request: Request
) -> None:
    page = rankers.unbound.with_factors(ImportanceFactors.of({})).rank(dataclasses.replace(request, delivered={}))
    probability = [p.probability for p in page.placements]
    assert probability == sorted(probability, reverse=True)
    assert set(page.reason) <= {"value"}


@PROFILE
@given(request=requests(), data=st.data())
def test_raised_raw_scores_never_lower_their_cohort(rankers: Rankers, request: Request, data: st.DataObject) -> None:
    request = dataclasses.replace(request, delivered={})
    which = data.draw(st.integers(0, len(request.cohorts) - 1))
    cohort = request.cohorts[which]
    floor = data.draw(st.floats(-10.0, 1000.0))
    some = data.draw(st.lists(st.booleans(), min_size=cohort.size, max_size=cohort.size))
    raised = [
        max(score, floor) if up and score is not None and not math.isnan(score) else score
        for score, up in zip(cohort.raw_score, some, strict=True)
    ]
    cohorts = [*request.cohorts]
    cohorts[which] = dataclasses.replace(cohort, raw_score=raised)
    before, after = rankers.unbound.rank(request), rankers.unbound.rank(dataclasses.replace(request, cohorts=cohorts))
    old, new = ({p.cohort_id: p for p in page.placements} for page in (before, after))
    for cohort_id, placement in old.items():
        if cohort_id == cohort.cohort_id:
            assert new[cohort_id].margin >= placement.margin
            assert new[cohort_id].position <= placement.position
        else:
            assert new[cohort_id].margin == placement.margin


@PROFILE
@given(request=requests())
def test_random_page_is_a_shuffle_with_exact_propensities(rankers: Rankers, request: Request) -> None:
    page = rankers.shuffling.rank(request)
    n = len(page.cohort_id)
    assert (page.policy, page.propensity_kind) == ("random", "exact")
    assert sorted(page.cohort_id) == sorted(c.cohort_id for c in request.cohorts if _scorable(c))
    assert [p.propensity for p in page.placements] == [1 / max(n, 1)] * n  # a page may be empty
    assert set(page.reason) <= {"random"}
    assert page.shortfall == {}
    # the order may know the request id and nothing of what is on the page
    stranger = dataclasses.replace(request, viewer=spr.Viewer("another"), delivered={}, delivered_total=0)
    assert rankers.shuffling.rank(stranger).cohort_id == page.cohort_id


@PROFILE
@given(data=st.data())
def test_rank_equals_rank_table(rankers: Rankers, data: st.DataObject) -> None:
    drawn = [data.draw(requests(request_id=f"{i}-")) for i in range(data.draw(st.integers(1, 3)))]
    # entities and viewers stand in one table for all requests, so each request has its own
    drawn = [
        dataclasses.replace(
            request,
            cohorts=[dataclasses.replace(c, entity_id=[f"{i}-{e}" for e in c.entity_id]) for c in request.cohorts],
        )
        for i, request in enumerate(drawn)
    ]
    first = {request.viewer.viewer_id: request.viewer for request in reversed(drawn)}
    drawn = [dataclasses.replace(request, viewer=first[request.viewer.viewer_id]) for request in drawn]
    pages = list(rankers.shipped.rank_pages(*_tabulate(drawn)))
    assert [page.request_id for page in pages] == [request.request_id for request in drawn]
    for request, page in zip(drawn, pages, strict=True):
        assert _describe(page) == _describe(rankers.shipped.rank(request))


def _tabulate(drawn: list[Request]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Write requests as the tables that the offline path reads; what was not sent has no row."""
    rows: list[dict[str, Any]] = []
    # a row that is on no page: a column that is null throughout is tested beside the ranker
    entities: list[dict[str, Any]] = [{"entity_type": "people", "entity_id": "none", "embedding": [0.0] * 8}]
    for request in drawn:
        for cohort in request.cohorts:
            for slot in range(cohort.size):
                rows.append(
                    {
                        "request_id": request.request_id,
                        "at": request.at,
                        "viewer_id": request.viewer.viewer_id,
                        "cohort_id": cohort.cohort_id,
                        "cohort_kind": cohort.cohort_kind,
                        "entity_type": cohort.entity_type,
                        "slot": slot,
                        "entity_id": cohort.entity_id[slot],
                        "ranker_version": cohort.ranker_version,
                        "raw_score": cohort.raw_score[slot],
                        "delivered_connection-floor": request.delivered.get("connection-floor", np.nan),
                        "delivered_total": request.delivered_total,
                    }
                )
                if cohort.entity_features:
                    own = {name: values[slot] for name, values in cohort.entity_features.items()}
                    entities.append({"entity_type": cohort.entity_type, "entity_id": cohort.entity_id[slot], **own})
    viewers: list[dict[str, Any]] = [{"viewer_id": "none", "embedding": [0.0] * 8}]
    viewers += [{"viewer_id": r.viewer.viewer_id, **r.viewer.features} for r in drawn if r.viewer.features]
    entity_columns = ["entity_type", "entity_id", "popularity", "created_at", "embedding"]
    viewer_columns = ["viewer_id", "tenure_days", "sessions_per_week", "is_creator", "industry", "embedding"]
    kinds = {"popularity": "float64", "created_at": "datetime64[us]", "tenure_days": "float64"}
    kinds |= {"sessions_per_week": "float64", "is_creator": "boolean", "industry": "object", "embedding": "object"}
    return (
        pd.DataFrame(rows).astype({"raw_score": "float64"}),
        _typed(viewers, viewer_columns, kinds).drop_duplicates("viewer_id"),
        _typed(entities, entity_columns, kinds),
    )


def _typed(rows: list[dict[str, Any]], columns: list[str], kinds: dict[str, str]) -> pd.DataFrame:
    made = pd.DataFrame({c: pd.Series([row.get(c) for row in rows], dtype=kinds.get(c, "object")) for c in columns})
    return made.astype({c: kinds[c] for c in columns if c in kinds})


def test_random_pages_have_their_share(rankers: Rankers) -> None:
    cohorts = [spr.Cohort(f"c{i}", "event", ["e"], [0.1 * i], "event-1") for i in range(3)]
    some = _exploring(rankers.unbound, 0.3)
    policies = []
    for number in range(500):
        request = Request(f"page-{number}", datetime(2026, 1, 5), spr.Viewer("nobody knows"), cohorts)
        policies.append(some.rank(request).policy == "random")
        assert policies[-1] == is_random(request.request_id, 0.3, some.config.exploration.salt)
    assert np.mean(policies) == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 500))
    share = np.mean([is_random(f"page-{i}", 0.05, rankers.shipped.config.exploration.salt) for i in range(20_000)])
    assert share == pytest.approx(
        rankers.shipped.config.exploration.random_share, abs=4 * math.sqrt(0.05 * 0.95 / 20_000)
    )


def test_random_pages_put_each_cohort_everywhere(rankers: Rankers) -> None:
    cohorts = [spr.Cohort(f"c{i}", "event", ["e"], [0.1 * i], "event-1") for i in range(4)]
    counts = np.zeros((4, 4))
    for number in range(600):
        request = Request(f"page-{number}", datetime(2026, 1, 5), spr.Viewer("nobody knows"), cohorts)
        counts[np.arange(4), rankers.shuffling.rank(request).order] += 1
    # each cell is binomial(600, 1/4): sd 10.6
    assert np.abs(counts - 150).max() < 45
