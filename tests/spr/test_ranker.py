"""Requests as services send them, good and bad; resolving; replacing one part."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spr
from spr.errors import InvalidRequest, SPRError, UnknownEntityType, UnknownRankerVersion
from spr.page_settings import Guarantee
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simulations.world import WorldTables


def _cohort(cohort_id: str = "c", entity_type: str = "people", **changes: Any) -> spr.Cohort:
    sent: dict[str, Any] = {"entity_id": ["e0", "e1"], "raw_score": [-1.0, -2.0], "ranker_version": f"{entity_type}-1"}
    return spr.Cohort(cohort_id, entity_type, **(sent | changes))


def _request(*cohorts: spr.Cohort, viewer: spr.Viewer | None = None, **changes: Any) -> spr.RankingRequest:
    seen_by = viewer or spr.Viewer("nobody knows")
    return spr.RankingRequest("r1", datetime(2026, 1, 5, tzinfo=UTC), seen_by, cohorts, **changes)


def _describe(page: spr.Page) -> str:
    """Everything a page says but its versions; the repr of a float keeps every bit."""
    parts = (page.policy, page.placements, dict(page.shortfall), dict(page.omitted), page.fallbacks)
    return repr(parts)


def _accepting_priors(ranker: spr.SecondPassRanker) -> spr.SecondPassRanker:
    calibration = ranker.config.calibration.model_copy(update={"unknown_version": "prior"})
    return dataclasses.replace(ranker, config=ranker.config.model_copy(update={"calibration": calibration}))


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("cohorts", "changes", "error", "named"),
    [
        ([_cohort(entity_type="peple")], {}, UnknownEntityType, ["'peple'", "'r1'", "people"]),
        ([_cohort(ranker_version="people-2")], {}, UnknownRankerVersion, ["'people-2'", "'r1'", "people-1"]),
        (
            [_cohort(ranker_version=["people-1", "people-2"])],
            {},
            UnknownRankerVersion,
            ["'people-2'", "'r1'", "people-1"],
        ),
        ([_cohort(raw_score=[0.0, math.inf])], {}, InvalidRequest, ["'c'", "'r1'", "infinite", "slot 1"]),
        (
            [_cohort("a"), _cohort("b", raw_score=[-math.inf, 0.0])],
            {},
            InvalidRequest,
            ["'b'", "'r1'", "infinite", "slot 0"],
        ),
        ([], {}, InvalidRequest, ["'r1'", "no cohorts"]),
        ([_cohort(entity_id=[], raw_score=[])], {}, InvalidRequest, ["'c'", "'r1'", "empty"]),
        ([_cohort(), _cohort()], {}, InvalidRequest, ["'c'", "'r1'", "twice"]),
        ([_cohort(raw_score=[1.0])], {}, InvalidRequest, ["'c'", "'r1'", "raw_score"]),
        ([_cohort(ranker_version=["people-1"])], {}, InvalidRequest, ["'c'", "'r1'", "ranker_version"]),
        ([_cohort(entity_features={"popularity": [1.0]})], {}, InvalidRequest, ["'c'", "'r1'", "popularity"]),
        ([_cohort()], {"delivered": {"connection-floor": -1}}, InvalidRequest, ["'connection-floor'", "-1"]),
        ([_cohort()], {"delivered_total": -1}, InvalidRequest, ["delivered_total", "-1"]),
    ],
)
def test_rank_bad_request_is_refused_by_name(
    ranker: spr.SecondPassRanker,
    cohorts: list[spr.Cohort],
    changes: dict[str, Any],
    error: type[SPRError],
    named: list[str],
) -> None:
    with pytest.raises(error) as refusal:
        ranker.rank(_request(*cohorts, **changes))
    assert [name for name in named if name not in str(refusal.value)] == []
    assert isinstance(refusal.value, SPRError)


@pytest.mark.parametrize(
    ("cohort", "named"),
    [
        (_cohort(raw_score=[0.0, "high"]), "raw.score"),
        (_cohort(raw_score=[0.0, 10**400]), "raw.score"),
        (_cohort(entity_features={"popularity": [1.0, "high"]}), "popularity"),
        (_cohort(entity_features={"popularity": ["high", "low"]}), "popularity"),
        (_cohort(entity_features={"created_at": ["2020-01-01", "2020-01-02"]}), "created_at"),
        (_cohort(entity_features={"embedding": [0.1, 0.2]}), "embedding"),
        (_cohort(entity_features={"embedding": [[0.1] * 3, [0.2] * 3]}), "embedding"),
        (_cohort(entity_features={"embedding": [[0.1] * 3, [0.2] * 8]}), "embedding"),
    ],
)
def test_rank_cohort_of_a_wrong_kind_is_refused_by_name(
    ranker: spr.SecondPassRanker, cohort: spr.Cohort, named: str
) -> None:
    viewer = spr.Viewer("v000000", {"embedding": [0.1] * 8})
    with pytest.raises(InvalidRequest, match=named):
        ranker.rank(_request(cohort, viewer=viewer))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tenure_days", "long"),
        ("tenure_days", [1.0, 2.0]),
        ("tenure_days", {"days": 3}),
        ("tenure_days", math.inf),
        ("tenure_days", 1e300),  # infinite as the float32 that trees read; tables refuse it too
        ("industry", 3.0),
        ("embedding", [0.1] * 3),
        ("embedding", 0.1),
    ],
)
def test_rank_viewer_feature_of_a_wrong_kind_is_refused_by_name(
    ranker: spr.SecondPassRanker, name: str, value: Any
) -> None:
    with pytest.raises(InvalidRequest, match=name):
        ranker.rank(_request(_cohort(), viewer=spr.Viewer("v000000", {name: value})))


@pytest.mark.parametrize("name", ["tenure_days", "is_creator", "industry", "embedding", "unheard of"])
@pytest.mark.parametrize("scored", [False, True])
def test_rank_null_viewer_feature_is_as_if_it_were_missing(
    ranker: spr.SecondPassRanker, name: str, scored: bool
) -> None:
    features = {"embedding": [[0.1] * 8, [0.3] * 8]} if scored else {}
    cohort = _cohort(entity_features=features)
    missing = ranker.rank(_request(cohort, viewer=spr.Viewer("v000000", {})))
    null = ranker.rank(_request(cohort, viewer=spr.Viewer("v000000", {name: None})))
    assert _describe(null) == _describe(missing)


@pytest.mark.parametrize("name", ["popularity", "created_at", "embedding", "unheard of"])
def test_rank_null_entity_feature_is_as_if_it_were_missing(ranker: spr.SecondPassRanker, name: str) -> None:
    viewer = spr.Viewer("v000000", {"embedding": [0.1] * 8})
    missing = ranker.rank(_request(_cohort(), viewer=viewer))
    null = ranker.rank(_request(_cohort(entity_features={name: [None, None]}), viewer=viewer))
    assert _describe(null) == _describe(missing)


@pytest.mark.parametrize("entities", ["none", "of others", "no rows"])
@pytest.mark.parametrize("viewers", ["of others", "no rows"])
def test_rank_table_without_feature_rows_equals_rank_without_features(
    ranker: spr.SecondPassRanker,
    small_tables: WorldTables,
    logged_request: Callable[[str], spr.RankingRequest],
    viewers: str,
    entities: str,
) -> None:
    rows = small_tables.impressions
    rows = rows[rows["request_id"] == rows["request_id"].iloc[0]]
    request = logged_request(rows["request_id"].iloc[0])
    bare = dataclasses.replace(
        request,
        viewer=spr.Viewer(request.viewer.viewer_id),
        cohorts=[dataclasses.replace(cohort, entity_features={}) for cohort in request.cohorts],
    )
    one_viewer = small_tables.viewers.iloc[:1].assign(viewer_id="another")
    one_entity = small_tables.entities.iloc[:1].assign(entity_id="another")
    entity_table = {"none": None, "of others": one_entity, "no rows": one_entity.iloc[:0]}[entities]
    viewer_table = {"of others": one_viewer, "no rows": one_viewer.iloc[:0]}[viewers]
    page = next(ranker.rank_pages(rows, viewer_table, entity_table))
    assert _describe(page) == _describe(ranker.rank(bare))


@pytest.mark.parametrize("name", ["tenure_days", "is_creator", "industry", "embedding"])
def test_rank_table_null_viewer_column_is_as_if_it_were_missing(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, name: str
) -> None:
    rows = small_tables.impressions.iloc[:300]
    null = small_tables.viewers.assign(**{name: pd.Series([None] * len(small_tables.viewers), dtype=object)})
    missing = small_tables.viewers.drop(columns=name)
    pages = (ranker.rank_pages(rows, viewers, small_tables.entities) for viewers in (null, missing))
    assert [*map(_describe, next(pages))] == [*map(_describe, next(pages))]


@pytest.mark.parametrize("name", ["popularity", "created_at", "embedding"])
def test_rank_table_null_entity_column_is_as_if_it_were_missing(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, name: str
) -> None:
    rows = small_tables.impressions.iloc[:300]
    null = small_tables.entities.assign(**{name: pd.Series([None] * len(small_tables.entities), dtype=object)})
    missing = small_tables.entities.drop(columns=name)
    pages = (ranker.rank_pages(rows, small_tables.viewers, entities) for entities in (null, missing))
    assert [*map(_describe, next(pages))] == [*map(_describe, next(pages))]


# ------------------------------------------------------------------ what is served all the same


def test_rank_unscorable_cohort_is_omitted_by_name(ranker: spr.SecondPassRanker) -> None:
    page = ranker.rank(_request(_cohort("a"), _cohort("b", raw_score=[None, math.nan])))
    assert page.cohort_id == ("a",)
    assert dict(page.omitted) == {"b": "no scorable entity"}


def test_rank_page_without_any_scorable_cohort_is_empty(ranker: spr.SecondPassRanker) -> None:
    cohorts = [_cohort(name, raw_score=[None, math.nan]) for name in ("a", "b")]
    for number in range(60):  # 0.95^60: one of them is a random page
        page = ranker.rank(dataclasses.replace(_request(*cohorts), request_id=f"r{number}"))
        assert (page.cohort_id, page.placements) == ((), ())
        assert set(page.omitted) == {"a", "b"}
        assert page.shortfall == {}


def test_rank_never_seen_viewer_gets_the_correction(ranker: spr.SecondPassRanker) -> None:
    intercept, slope = -0.25, 0.9
    corrected = dataclasses.replace(ranker, unseen_correction=(intercept, slope))
    for placement in corrected.rank(_request(_cohort("a"), _cohort("b", "event"))).placements:
        margins = placement.margins
        assert margins["member"] == 0.0
        assert margins["unseen"] == pytest.approx(intercept + (slope - 1.0) * margins["fixed"], abs=1e-12)
        assert placement.margin == pytest.approx(intercept + slope * margins["fixed"], abs=1e-12)


def test_rank_seen_viewer_has_the_margin_of_his_coefficients(ranker: spr.SecondPassRanker) -> None:
    (effect,) = ranker.effects
    viewer_id = str(effect.keys[int(np.abs(effect.matrix).sum(axis=1).argmax())])
    own = dict(zip(effect.columns, np.asarray(effect.lookup(viewer_id), dtype=np.float64), strict=True))
    page = ranker.rank(_request(_cohort("a"), _cohort("b", "event"), viewer=spr.Viewer(viewer_id)))
    for placement in page.placements:
        hot = (f"entity_type={placement.entity_type}", f"edge_type={placement.edge_type}", "intercept")
        assert placement.margins["member"] == pytest.approx(sum(own.get(c, 0.0) for c in hot), abs=1e-6)
        assert placement.margins["member"] != 0.0
        assert placement.margins["unseen"] == 0.0


def test_rank_unknown_version_falls_back_on_the_prior_where_configured(ranker: spr.SecondPassRanker) -> None:
    lenient = _accepting_priors(ranker)
    page = lenient.rank(_request(_cohort("new", ranker_version="people-2", raw_score=[5.0, None]), _cohort("old")))
    (note,) = [note for note in page.fallbacks if "people-2" in note]
    assert "prior" in note
    by_id = {placement.cohort_id: placement for placement in page.placements}
    assert by_id["new"].expected_response == (ranker.calibrators.prior("people"),)
    alone = ranker.rank(_request(_cohort("old")))
    assert by_id["old"].margins == alone.placements[0].margins
    assert not any("prior" in note for note in lenient.rank(_request(_cohort("old"))).fallbacks)


def test_rank_unknown_version_of_every_cohort_is_served_from_the_prior(ranker: spr.SecondPassRanker) -> None:
    page = _accepting_priors(ranker).rank(_request(_cohort(ranker_version="people-2")))
    assert page.placements[0].expected_response == (ranker.calibrators.prior("people"),) * 2
    assert "people-2" in page.to_pandas()["fallbacks"].iloc[0]


def test_rank_type_without_calibrator_takes_the_pooled_prior_where_configured(ranker: spr.SecondPassRanker) -> None:
    curves = {key: curve for key, curve in ranker.calibrators.curves.items() if key[0] != "event"}
    without = ranker.with_calibrators(dataclasses.replace(ranker.calibrators, curves=curves))
    request = _request(_cohort("e", entity_type="event"), _cohort("old"))
    with pytest.raises(UnknownRankerVersion, match="event"):
        without.rank(request)
    page = _accepting_priors(without).rank(request)
    version = next(version for entity_type, version in ranker.calibrators if entity_type == "event")
    assert f"event {version}: no calibrator, pooled prior of types whose responses are alike" in page.fallbacks
    by_id = {placement.cohort_id: placement for placement in page.placements}
    assert set(by_id["e"].expected_response) == {without.calibrators.prior("event")}
    assert by_id["old"].margins == ranker.rank(_request(_cohort("old"))).placements[0].margins


def test_rank_guarantee_lifts_what_is_due_and_says_so(ranker: spr.SecondPassRanker) -> None:
    floor = Guarantee(name="event-floor", entity_type="event", minimum=1, within_top=1)
    held = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"guarantees": (floor,)}))
    people = [_cohort(f"p{i}", raw_score=[2.0, 2.0]) for i in range(3)]
    event = _cohort("e", "event", raw_score=[-0.99, -0.99])
    by_value = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"guarantees": ()}))
    assert by_value.rank(_request(*people, event)).cohort_id[-1] == "e"
    page = held.rank(_request(*people, event))
    assert (page.cohort_id[0], page.reason[0]) == ("e", "guarantee:event-floor")
    assert set(page.reason[1:]) == {"value"}
    assert page.shortfall == {}
    assert held.rank(_request(*people)).shortfall == {"event-floor": 1}


def test_rank_page_says_that_its_viewer_was_unseen(ranker: spr.SecondPassRanker) -> None:
    known = spr.Viewer(str(ranker.effects[0].keys[0]))
    assert ranker.rank(_request(_cohort(), viewer=known)).fallbacks == ()
    (note,) = ranker.rank(_request(_cohort())).fallbacks
    assert "viewer" in note


def test_rank_counter_of_a_retired_guarantee_is_passed_over_by_name(ranker: spr.SecondPassRanker) -> None:
    known = spr.Viewer(str(ranker.effects[0].keys[0]))
    cohorts = [_cohort("a"), _cohort("b", "event", raw_score=[0.5, 0.5])]
    page = ranker.rank(_request(*cohorts, viewer=known, delivered={"retired floor": 3}, delivered_total=8))
    (note,) = page.fallbacks
    assert "'retired floor'" in note
    without = ranker.rank(_request(*cohorts, viewer=known, delivered_total=8))
    assert (page.cohort_id, page.reason) == (without.cohort_id, without.reason)


@pytest.mark.parametrize("counters", [{"delivered": {"connection-floor": -1}}, {"delivered_total": -1}])
def test_rank_negative_counter_is_refused_on_random_pages_too(
    ranker: spr.SecondPassRanker, counters: dict[str, Any]
) -> None:
    exploration = ranker.config.exploration.model_copy(update={"random_share": 1.0})
    shuffling = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"exploration": exploration}))
    with pytest.raises(InvalidRequest, match="delivered"):
        shuffling.rank(_request(_cohort(), **counters))


# ------------------------------------------------------------------ resolve


class _Store:
    """A key-value store of coefficients."""

    def __init__(self, rows: dict[str, NDArray[np.float32]]) -> None:
        self.rows = rows

    def lookup(self, key: str) -> NDArray[np.float32] | None:
        return self.rows.get(key)


def test_resolve_takes_coefficients_of_the_store(ranker: spr.SecondPassRanker) -> None:
    (effect,) = ranker.effects
    doubled = _Store({str(key): 2.0 * row for key, row in zip(effect.keys, effect.matrix, strict=True)})
    request = _request(_cohort("a"), _cohort("b", "event"), viewer=spr.Viewer(str(effect.keys[0])))
    own = ranker.rank(request)
    stored = ranker.rank(ranker.resolve(request, {"member": doubled}))
    assert {p.cohort_id: p.margins["member"] for p in stored.placements} == pytest.approx(
        {p.cohort_id: 2.0 * p.margins["member"] for p in own.placements}, abs=1e-9
    )
    assert any(p.margins["member"] != 0.0 for p in own.placements)


def test_resolve_key_without_coefficients_is_unseen(ranker: spr.SecondPassRanker) -> None:
    corrected = dataclasses.replace(ranker, unseen_correction=(-0.25, 0.9))
    request = _request(_cohort(), viewer=spr.Viewer(str(ranker.effects[0].keys[0])))
    placement = corrected.rank(corrected.resolve(request, {"member": _Store({})})).placements[0]
    stranger = corrected.rank(_request(_cohort())).placements[0]
    assert placement.margins == stranger.margins
    assert placement.margins["unseen"] != 0.0


def test_resolve_store_makes_an_unseen_viewer_seen(ranker: spr.SecondPassRanker) -> None:
    store = _Store({"nobody knows": ranker.effects[0].matrix[0]})
    placement = ranker.rank(ranker.resolve(_request(_cohort()), {"member": store})).placements[0]
    known = ranker.rank(_request(_cohort(), viewer=spr.Viewer(str(ranker.effects[0].keys[0])))).placements[0]
    assert placement.margins == known.margins


def test_resolve_request_replays_to_the_same_page(
    ranker: spr.SecondPassRanker, logged_request: Callable[[str], spr.RankingRequest], small_tables: WorldTables
) -> None:
    for request_id in small_tables.impressions["request_id"].unique()[:20]:
        request = logged_request(request_id)
        resolved = ranker.resolve(request)
        assert set(resolved.coefficients) == {"member"}
        # a resolved request does not look anything up: another bundle's coefficients change nothing
        forgetful = ranker.with_coefficients(
            dataclasses.replace(ranker.effects[0], matrix=ranker.effects[0].matrix * 0)
        )
        page = ranker.rank(request)
        assert _describe(ranker.rank(resolved)) == _describe(page)
        assert _describe(forgetful.rank(resolved)) == _describe(page)
        assert ranker.resolve(resolved) == resolved


@pytest.mark.parametrize("row", [np.ones(3, np.float32), np.ones(200, np.float32), np.full(10, np.nan, np.float32)])
def test_rank_coefficients_that_do_not_fit_are_refused_by_name(
    ranker: spr.SecondPassRanker, row: NDArray[np.float32]
) -> None:
    with pytest.raises(SPRError, match="member"):
        ranker.rank(_request(_cohort(), coefficients={"member": row}))


def test_rank_coefficients_of_an_unknown_effect_are_refused_by_name(ranker: spr.SecondPassRanker) -> None:
    row = ranker.effects[0].matrix[0]
    with pytest.raises(SPRError, match=r"'membr'.*member"):
        ranker.rank(_request(_cohort(), coefficients={"membr": row}))


# ------------------------------------------------------------------ replacing one part

PARTS = ("config", "calibrators", "features", "trees", "factors", "coefficients_member")


def _changed(before: spr.SecondPassRanker, after: spr.SecondPassRanker) -> set[str]:
    assert before.versions["bundle"] != after.versions["bundle"]
    return {part for part in PARTS if before.versions[part] != after.versions[part]}


def test_with_factors_touches_nothing_else(ranker: spr.SecondPassRanker) -> None:
    factors = ImportanceFactors.of({"subscribe": 100.0})
    other = ranker.with_factors(factors)
    assert other.factors is factors
    assert all(getattr(other, part) is getattr(ranker, part) for part in ("config", "calibrators", "features", "trees"))
    assert other.effects is ranker.effects
    assert _changed(ranker, other) == {"factors"}
    cohorts = [_cohort("a"), _cohort("b", "event", raw_score=[-0.9, -0.9])]
    assert other.rank(_request(*cohorts)).cohort_id[0] == "b"


def test_with_calibrators_touches_nothing_else(ranker: spr.SecondPassRanker) -> None:
    people, event = ("people", "people-1"), ("event", "event-1")
    swapped = {**ranker.calibrators.curves, people: ranker.calibrators[event]}
    new = dataclasses.replace(ranker.calibrators, curves=swapped)
    other = ranker.with_calibrators(new)
    assert other.calibrators is new
    assert all(getattr(other, part) is getattr(ranker, part) for part in ("config", "factors", "features", "trees"))
    assert other.effects is ranker.effects
    assert _changed(ranker, other) == {"calibrators"}


def test_with_coefficients_touches_nothing_else(ranker: spr.SecondPassRanker) -> None:
    (effect,) = ranker.effects
    halved = dataclasses.replace(effect, matrix=effect.matrix * np.float32(0.5))
    other = ranker.with_coefficients(halved)
    assert other.effects == (halved,)
    assert all(
        getattr(other, part) is getattr(ranker, part)
        for part in ("config", "calibrators", "factors", "features", "trees")
    )
    assert _changed(ranker, other) == {"coefficients_member"}
    request = _request(_cohort(), viewer=spr.Viewer(str(effect.keys[0])))
    before, after = (r.rank(request).placements[0].margins for r in (ranker, other))
    assert after["member"] == pytest.approx(before["member"] / 2, abs=1e-9)
    assert after["fixed"] == before["fixed"]


def test_with_coefficients_of_an_unknown_effect_is_refused(ranker: spr.SecondPassRanker) -> None:
    stranger = dataclasses.replace(ranker.effects[0], name="membr")
    with pytest.raises(SPRError, match=r"'membr'.*'member'"):
        ranker.with_coefficients(stranger)


def test_with_coefficients_over_other_features_is_refused(ranker: spr.SecondPassRanker) -> None:
    effect = ranker.effects[0]
    renamed = dataclasses.replace(effect, features=tuple(f"another {name}" for name in effect.features))
    with pytest.raises(SPRError, match="another"):
        ranker.with_coefficients(renamed)


def test_versions_depend_on_content_alone(ranker: spr.SecondPassRanker) -> None:
    copied = dataclasses.replace(ranker)
    assert copied.versions == ranker.versions
    assert json.loads(json.dumps(dict(copied.versions))) == dict(ranker.versions)
    moved = dataclasses.replace(ranker, unseen_correction=(0.125, 1.0))
    assert moved.versions["bundle"] != ranker.versions["bundle"]
