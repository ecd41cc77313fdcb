"""What the configuration asks of a page, seen on the page: guarantees, ratios, exploration, counters."""

from __future__ import annotations

import dataclasses
import tomllib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spr
from spr.errors import ConfigError, InfeasibleGuarantee, InvalidModelInput, InvalidRequest, LedgerError
from spr.ledger import MemoryLedger
from spr.page import pages_table
from spr.progress import ignore
from spr.reorder import ImportanceFactors
from spr.tables import read_entities, read_impressions, read_viewers
from spr.training import fit_prices

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables

AT = datetime(2026, 1, 5, tzinfo=UTC)
TYPES = ("people", "hashtag", "company", "member_follow", "group", "newsletter", "event")


def _ruled(ranker: spr.SecondPassRanker, text: str) -> spr.SecondPassRanker:
    """The ranker under other guarantees and another exploration, read as TOML."""
    asked = {"guarantees": [], "exploration": {"random_share": 0.0}} | tomllib.loads(text)
    return dataclasses.replace(ranker, config=spr.Config.from_dict(ranker.config.to_dict() | asked))


def _request(request_id: str = "r1", at: datetime = AT, n: int = 14, **changes: Any) -> spr.RankingRequest:
    """Cohorts of all types in turn; the later ones have the lower raw scores."""
    cohorts = [
        spr.Cohort(f"c{i}", TYPES[i % 7], [f"e{i}"], [-0.2 * i], f"{TYPES[i % 7]}-1", cohort_kind=f"kind{i % 2}")
        for i in range(n)
    ]
    return spr.RankingRequest(request_id, at, spr.Viewer("v000001"), cohorts, **changes)


def _edge_types(page: spr.Page) -> list[str]:
    return [placement.edge_type for placement in page.placements]


# ------------------------------------------------------------------ guarantees


def test_bounds_by_prefix_hold_and_name_their_reason(ranker: spr.SecondPassRanker) -> None:
    ruled = _ruled(
        ranker,
        """
        [[guarantees]]
        name = "steps"
        edge_type = "subscribe"
        minimum_by_prefix = [1, 1, 2]
        [[guarantees]]
        name = "few"
        edge_type = "follow"
        maximum = 1
        within_top = 4
        """,
    )
    page = ruled.rank(_request())
    kinds = _edge_types(page)
    assert [kinds[:q].count("subscribe") >= m for q, m in ((1, 1), (3, 2))] == [True, True]
    assert kinds[:4].count("follow") <= 1
    assert set(page.reason) <= {"value", "guarantee:steps", "guarantee:few"}
    assert "guarantee:steps" in page.reason
    assert page.propensity is None
    assert page.optimal_for in ("every discount", "the discount")


def test_fractional_minimum_logs_its_outcomes(ranker: spr.SecondPassRanker, tmp_path: Path) -> None:
    free = _ruled(ranker, "").rank(_request())
    last = free.placements[-1].entity_type
    floor = f'[[guarantees]]\nname = "some"\nentity_type = "{last}"\nminimum = 2.3\nwithin_top = 4\n'
    ruled = _ruled(ranker, floor)
    pages = [ruled.rank(_request(f"r{i}")) for i in range(2000)]
    asked = np.array([sum(p.entity_type == last for p in page.placements[:4]) for page in pages[:400]])
    assert set(asked) == {2}  # the page has two of the type: a third is a shortfall
    short = np.mean([page.shortfall.get("some", 0) for page in pages])
    assert short == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 2000))
    one = _ruled(ranker, floor.replace("2.3", "0.3"))
    pages = [one.rank(_request(f"r{i}")) for i in range(2000)]
    drawn = next(page for page in pages if page.reason.count("guarantee:some"))
    assert (drawn.propensity_kind, len(drawn.outcomes)) == ("exact", 2)
    assert sum(probability for probability, _ in drawn.outcomes) == pytest.approx(1.0)
    lifted = drawn.reason.index("guarantee:some")
    assert drawn.placements[lifted].propensity == pytest.approx(0.3)
    found = np.mean([page.cohort_id == drawn.cohort_id for page in pages])
    assert found == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 2000))
    table = pages_table([drawn, free])
    table.to_parquet(tmp_path / "pages.parquet")
    again = pd.read_parquet(tmp_path / "pages.parquet")
    own = again[again["outcome_probability"].notna()]
    assert len(own) == len(drawn.order)
    for row in own.itertuples():
        mass = sum(p for p, at in zip(row.outcome_probability, row.outcome_position, strict=True) if at == row.position)
        assert mass == pytest.approx(row.propensity)


def test_guarantees_hold_from_their_start_to_their_end(ranker: spr.SecondPassRanker) -> None:
    ruled = _ruled(
        ranker,
        """
        [[guarantees]]
        name = "january"
        entity_type = "event"
        minimum = 2
        within_top = 2
        starts = 2026-01-04
        ends = 2026-01-06T00:00:00Z
        """,
    )
    names = [
        [guarantee.name for guarantee in ruled.rank(_request(at=AT + timedelta(days=days))).guarantees]
        for days in (-2, 0, 1, 2)
    ]
    assert names == [[], ["january"], [], []]
    assert [p.entity_type for p in ruled.rank(_request()).placements[:2]] == ["event", "event"]


def test_ratio_divides_a_share(ranker: spr.SecondPassRanker) -> None:
    ruled = _ruled(
        ranker,
        '[[guarantees]]\nname = "mix"\nratio = { connection = 1, follow = 2 }\nshare = 0.6\nwithin_top = 5\n',
    )
    assert {g.name: (g.label, round(g.share or 0, 12)) for g in ruled.guarantees} == {
        "mix:connection": ("connection", 0.2),
        "mix:follow": ("follow", 0.4),
    }
    page = ruled.rank(_request(delivered={"mix:connection": 0, "mix:follow": 10}, delivered_total=25))
    assert page.placements[0].edge_type == "connection"
    assert page.reason[0] in ("value", "guarantee:mix:connection")
    assert not [note for note in page.fallbacks if "passed over" in note]


def test_ratio_of_importance_follows_the_factors_and_says_when_they_are_old(ranker: spr.SecondPassRanker) -> None:
    ruled = _ruled(
        ranker, '[[guarantees]]\nname = "mix"\nratio = "importance"\nshare = 0.5\nwithin_top = 5\nrefresh = "30d"\n'
    )
    factors = ImportanceFactors({"connection": 2.0, "follow": 1.0, "subscribe": 1.0}, source={"date": "2026-01-01"})
    fresh = ruled.with_factors(factors)
    assert {g.label: g.share for g in fresh.guarantees} == {"connection": 0.25, "follow": 0.125, "subscribe": 0.125}
    assert not [note for note in fresh.rank(_request()).fallbacks if "factors" in note]
    (old,) = [note for note in fresh.rank(_request(at=AT + timedelta(days=40))).fallbacks if "factors" in note]
    assert old == "shares of 'mix' follow importance factors of 2026-01-01, older than 30 days"
    (undated,) = [note for note in ruled.rank(_request()).fallbacks if "factors" in note]
    assert "without a date" in undated


def test_factors_that_no_page_could_follow_are_refused(ranker: spr.SecondPassRanker) -> None:
    ruled = _ruled(
        ranker,
        """
        [[guarantees]]
        name = "mix"
        ratio = "importance"
        share = 0.6
        [[guarantees]]
        name = "floor"
        edge_type = "follow"
        share = 0.5
        """,
    )
    with pytest.raises(InfeasibleGuarantee, match=r"sum to 1\.09"):
        ruled.with_factors(ImportanceFactors.of({"connection": 98.0}))


# ------------------------------------------------------------------ exploration


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("shuffle_top", "sequential"),
        ("adjacent_swaps", "exact"),
        ("epsilon", "sequential"),
        ("plackett_luce", "sequential"),
    ],
)
def test_explored_page_keeps_its_floor_and_states_its_propensity(
    ranker: spr.SecondPassRanker, method: str, kind: str
) -> None:
    floor = '[[guarantees]]\nname = "floor"\nedge_type = "subscribe"\nminimum_by_prefix = [0, 1, 1, 2]\n'
    text = floor + f'[exploration]\nrandom_share = 0.0\nmethod = "{method}"\ndepth = 6\n'
    ruled = _ruled(ranker, text)
    pages = [ruled.rank(_request(f"r{i}")) for i in range(60)]
    for page in pages:
        kinds = _edge_types(page)
        assert "subscribe" in kinds[:2]
        assert kinds[:4].count("subscribe") >= 2
        assert (page.propensity_kind, page.shortfall, page.optimal_for) == (kind, {}, None)
        assert all(0.0 < (p.propensity or 0.0) <= 1.0 for p in page.placements)
        assert set(page.reason) <= {"value", "exploration", "guarantee:floor"}
    assert len({page.cohort_id for page in pages}) > 5
    assert any("exploration" in page.reason for page in pages)
    assert ruled.rank(_request("r7")).cohort_id == pages[7].cohort_id
    if kind == "sequential":
        estimated = _ruled(ranker, text + "draws = 50\n").rank(_request("r7"))
        assert estimated.cohort_id == pages[7].cohort_id
        assert (estimated.propensity_kind, estimated.propensity_draws) == ("monte_carlo", 50)
        assert pages_table([estimated])["propensity_draws"].eq(50).all()


def test_thompson_needs_variances_and_explores_unsure_viewers_more(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, tmp_path: Path
) -> None:
    text = '[exploration]\nrandom_share = 0.0\nmethod = "thompson"\ndraws = 40\n'
    with pytest.raises(ConfigError, match=r"thompson needs the variances .* 'member' has none; fit with"):
        _ruled(ranker, text)
    asked = {"guarantees": [], "exploration": tomllib.loads(text)["exploration"]}
    config = spr.Config.from_dict(ranker.config.to_dict() | asked)
    fitted = spr.fit(small_tables.impressions, small_tables.viewers, small_tables.entities, config=config)
    fitted.save(tmp_path / "bundle")
    loaded = spr.load(tmp_path / "bundle")
    requests = [_request(f"r{i}") for i in range(30)]
    pages = [loaded.rank(request) for request in requests]
    for page, request in zip(pages, requests, strict=True):
        assert (page.propensity_kind, page.propensity_draws) == ("monte_carlo", 40)
        assert all(1 / 41 <= (p.propensity or 0.0) <= 1.0 for p in page.placements)
        assert page.cohort_id == fitted.rank(request).cohort_id
    assert len({page.cohort_id for page in pages}) > 1
    (effect,) = fitted.effects
    assert effect.variance is not None
    sure = dataclasses.replace(effect, variance=np.zeros_like(effect.variance))
    settled = fitted.with_coefficients(sure)
    known = spr.Viewer(str(effect.keys[0]))
    ranked = [settled.rank(dataclasses.replace(request, viewer=known)) for request in requests]
    assert len({page.cohort_id for page in ranked}) == 1
    assert all(p.propensity == 1.0 for p in ranked[0].placements)


def test_thompson_without_coefficients_of_viewers_serves_the_page_by_value(ranker: spr.SecondPassRanker) -> None:
    text = '[exploration]\nrandom_share = 0.0\nmethod = "thompson"\n'
    asked = {"guarantees": [], "exploration": tomllib.loads(text)["exploration"]}
    config = spr.Config.from_dict(ranker.config.to_dict() | asked)
    page = dataclasses.replace(ranker, config=config, effects=()).rank(_request())  # as where training leaves them out
    assert "not explored: no coefficients of viewers to draw" in page.fallbacks
    assert (page.propensity_kind, set(page.reason)) == ("none", {"value"})


@pytest.mark.parametrize("method", ["shuffle_top", "adjacent_swaps"])
def test_a_page_whose_labels_cross_says_that_it_is_not_explored(ranker: spr.SecondPassRanker, method: str) -> None:
    crossing = (
        '[[guarantees]]\nname = "kind"\ncohort_kind = "kind1"\nminimum = 2\nwithin_top = 3\n'
        '[[guarantees]]\nname = "type"\nedge_type = "subscribe"\nminimum = 2\nwithin_top = 3\n'
    )
    page = _ruled(ranker, crossing + f'[exploration]\nrandom_share = 0.0\nmethod = "{method}"\n').rank(_request())
    assert "not explored: labels of guarantees cross or nest" in page.fallbacks
    assert (page.propensity_kind, page.shortfall) == ("none", {})


def test_random_pages_are_neither_guaranteed_nor_explored(ranker: spr.SecondPassRanker) -> None:
    ruled = _ruled(
        ranker,
        '[exploration]\nrandom_share = 1.0\nmethod = "epsilon"\n'
        '[[guarantees]]\nname = "floor"\nedge_type = "connection"\nshare = 0.5\n',
    )
    page = ruled.rank(_request(delivered_total=100))
    assert (page.policy, set(page.reason), page.shortfall, page.guarantees) == ("random", {"random"}, {}, ())
    assert page.count_delivered().total == 0


# ------------------------------------------------------------------ counters

SHARES = """
[[guarantees]]
name = "people"
edge_type = "connection"
share = 0.3
within_top = 5
[[guarantees]]
name = "events"
entity_type = "event"
share = 0.2
within_top = 5
"""


def test_shares_hold_over_the_pages_of_a_viewer_who_leaves_early(ranker: spr.SecondPassRanker) -> None:
    ruled, ledger = _ruled(ranker, SHARES), MemoryLedger()
    rng = np.random.default_rng(0)
    had = {"people": 0, "events": 0, "total": 0}
    for i in range(40):
        at = AT + timedelta(hours=i)
        request = ruled.resolve(_request(f"r{i}", at=at), ledger=ledger)
        assert dict(request.delivered) == {name: had[name] for name in ("people", "events")}
        assert request.delivered_total == had["total"]
        page, seen = ruled.rank(request), int(rng.integers(0, 8))
        assert page.shortfall == {}
        delivered = page.count_delivered(seen)
        assert delivered.total == min(seen, 5)
        assert ledger.record(page.request_id, page.viewer_id, page.at, delivered.counts, delivered.total)
        for placement in page.placements[: min(seen, 5)]:
            had["total"] += 1
            had["people"] += placement.edge_type == "connection"
            had["events"] += placement.entity_type == "event"
            assert 0.3 * had["total"] - had["people"] <= 1 + 1e-9
            assert 0.2 * had["total"] - had["events"] <= 1 + 1e-9
    assert had["total"] > 100


def test_resolve_with_a_ledger_that_is_away_still_serves_a_page(ranker: spr.SecondPassRanker) -> None:
    class Away(MemoryLedger):
        def delivered(self, viewer_id: str, at: datetime) -> Any:
            raise LedgerError(f"no ledger at /nowhere for {viewer_id} at {at}")

    ruled = _ruled(ranker, SHARES)
    request = _request(delivered={"people": 2}, delivered_total=9)
    page = ruled.rank(ruled.resolve(request, ledger=Away()))
    assert f"counters not read: LedgerError: no ledger at /nowhere for v000001 at {AT}" in page.fallbacks
    assert page.cohort_id == ruled.rank(request).cohort_id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"viewer": spr.Viewer("v" * 600)}, "InvalidRequest: viewer_id"),
        ({"at": datetime(1960, 1, 1)}, "InvalidRequest: delivered: at is 1960"),
    ],
)
def test_resolve_loses_no_page_that_rank_would_serve(
    ranker: spr.SecondPassRanker, change: dict[str, Any], said: str
) -> None:
    ruled, request = _ruled(ranker, SHARES), dataclasses.replace(_request(), **change)
    page = ruled.rank(ruled.resolve(request, ledger=MemoryLedger()))
    assert any(said in sentence for sentence in page.fallbacks)
    assert page.cohort_id == ruled.rank(request).cohort_id


def test_resolve_reads_any_moment_that_rank_reads(ranker: spr.SecondPassRanker) -> None:
    ruled, ledger = _ruled(ranker, SHARES), MemoryLedger()
    ledger.record("r0", "v000001", AT, {"people": 1, "events": 0}, 4)
    for at in ("2026-01-05T01:00:00", np.datetime64("2026-01-05T01:00:00"), pd.Timestamp("2026-01-05T03", tz="CET")):
        resolved = ruled.resolve(dataclasses.replace(_request(), at=at), ledger=ledger)
        assert (resolved.delivered, resolved.delivered_total) == ({"people": 1, "events": 0}, 4)


@pytest.mark.parametrize("newcomer", ["deployed", "starts"])
def test_a_share_that_begins_has_no_debt_for_the_pages_before_it(ranker: spr.SecondPassRanker, newcomer: str) -> None:
    old = '[[guarantees]]\nname = "people"\nedge_type = "connection"\nshare = 0.2\nwithin_top = 5\n'
    new = '[[guarantees]]\nname = "tags"\nentity_type = "hashtag"\nshare = 0.3\nwithin_top = 5\nprice = "off"\n'
    begin = AT + timedelta(hours=40)
    before = _ruled(ranker, old if newcomer == "deployed" else old + new + f"starts = {begin:%Y-%m-%dT%H:%M:%SZ}\n")
    after = _ruled(ranker, old + new) if newcomer == "deployed" else before
    ledger, tags, had = MemoryLedger(), 0, 0
    for i in range(80):
        at = AT + timedelta(hours=i)
        ruled = after if at >= begin else before
        page = ruled.rank(ruled.resolve(_request(f"r{i}", at=at), ledger=ledger))
        assert page.shortfall == {}
        seen = page.count_delivered()
        ledger.record(page.request_id, page.viewer_id, page.at, seen.counts, seen.total)
        if at >= begin:
            had += seen.total
            tags += sum(placement.entity_type == "hashtag" for placement in page.placements[:5])
            assert had * 0.3 - tags <= 1 + 1e-9
    by_value = sum(p.entity_type == "hashtag" for p in before.rank(_request("r")).placements[:5])
    assert by_value == 0  # so that what stands there is the share's doing
    assert tags <= 0.3 * had + 2
    assert after.rank(_request(at=begin, delivered={"people": 40}, delivered_total=200)).shortfall == {}


def test_a_share_of_the_population_without_a_price_says_so(ranker: spr.SecondPassRanker) -> None:
    text = '[[guarantees]]\nname = "tags"\nentity_type = "hashtag"\nshare = 0.3\nscope = "population"\nwithin_top = 2\n'
    ruled = _ruled(ranker, text)
    (sentence,) = [said for said in ruled.rank(_request()).fallbacks if "price" in said]
    assert "share 'tags' of the population has no price, and changes nothing" in sentence
    priced = ruled.with_prices({"tags": 10.0}).rank(_request())
    assert not any("price" in said for said in priced.fallbacks)
    assert [p.entity_type for p in priced.placements[:2]] == ["hashtag", "hashtag"]
    with pytest.raises(InvalidModelInput, match=r"unknown share 'tag'; known: tags\. Did you mean 'tags'"):
        ruled.with_prices({"tag": 1.0})


def test_prices_are_learnt_for_the_shares_that_are_in_force_together(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_impressions(small_tables.impressions, ranker.config)
    viewers, entities = read_viewers(small_tables.viewers), read_entities(small_tables.entities)
    last = rows["at"].max()
    turn = f"{last + timedelta(days=10):%Y-%m-%dT%H:%M:%SZ}"
    events = '[[guarantees]]\nname = "events"\nentity_type = "event"\nshare = 0.3\nwithin_top = 4\n'
    groups = '[[guarantees]]\nname = "groups"\nentity_type = "group"\nshare = 0.35\nwithin_top = 4\n'
    people = '[[guarantees]]\nname = "people"\nentity_type = "people"\nshare = 0.6\nwithin_top = 4\n'
    ended = f"ends = {last - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}\n"

    def learn(text: str) -> dict[str, float]:
        return fit_prices(_ruled(ranker, text), rows, viewers, entities, ignore)

    alone = learn(events) | learn(groups)
    in_turn = learn(events + f"ends = {turn}\n" + groups + f"starts = {turn}\n")
    assert in_turn == pytest.approx(alone)
    assert all(price > 0 for price in in_turn.values())
    together = learn(events + groups)
    assert any(together[name] > 1.01 * alone[name] for name in together)
    assert learn(people + ended + events) == pytest.approx({"events": alone["events"]})
    assert not caplog.records
    assert learn(people).keys() == {"people"}
    assert "guarantee 'people' asks for 0.6 of impressions; pages have 0." in caplog.text


def test_a_price_keeps_its_meaning_under_other_factors(ranker: spr.SecondPassRanker) -> None:
    text = '[[guarantees]]\nname = "events"\nentity_type = "event"\nshare = 0.3\nscope = "population"\n'
    (written,) = _ruled(ranker, text + "price = 0.02\n").with_factors(ImportanceFactors.of({})).guarantees
    factors = ImportanceFactors.of(dict.fromkeys(ranker.config.edge_types, 10.0))
    (scaled,) = _ruled(ranker, text + "price = 0.02\n").with_factors(factors).guarantees
    (learnt,) = _ruled(ranker, text).with_prices({"events": 0.02}).with_factors(factors).guarantees
    assert (written.price, scaled.price, learnt.price) == (0.02, pytest.approx(0.2), pytest.approx(0.2))


def test_count_delivered_refuses_a_negative_position(ranker: spr.SecondPassRanker) -> None:
    with pytest.raises(InvalidRequest, match="seen is -1"):
        _ruled(ranker, SHARES).rank(_request()).count_delivered(-1)
