from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from spr.errors import InfeasibleGuarantee, InvalidRequest
from spr.reorder import ImpressionGuarantee, arrange, reorder

EDGE_TYPES = ["connection", "follow", "subscribe"]


def draw_discounts(n, rng):
    """Four non-increasing discounts: logarithmic, geometric, a cliff and random steps with ties."""
    return [
        1 / np.log2(np.arange(n) + 2),
        0.7 ** np.arange(n),
        (np.arange(n) < rng.integers(1, n + 1)).astype(float),
        np.sort(rng.integers(0, 4, n).astype(float))[::-1],
    ]


def best_by_search(value, discounts, member, minima):
    """Greatest discounted value over all pages that meet ``count of member[k] in the first p >= minima[k][p - 1]``."""
    pages = np.array(list(permutations(range(len(value)))))
    feasible = np.ones(len(pages), dtype=bool)
    for mask, minimum in zip(member, minima, strict=True):
        counts = np.cumsum(mask[pages], axis=1)[:, : len(minimum)]
        feasible &= (counts >= minimum).all(axis=1)
    assert feasible.any()
    return [(value[pages[feasible]] @ discount).max() for discount in discounts]


def prefix_minima(guarantee, n, delivered, total):
    return guarantee.minima(n, delivered=delivered, delivered_total=total)


def test_reorder_beats_no_page_that_an_exhaustive_search_finds():
    rng = np.random.default_rng(0)
    for _ in range(400):
        n = int(rng.integers(1, 7))
        value, edge = rng.integers(0, 6, n) / 4.0, rng.choice(EDGE_TYPES, n)
        top = int(rng.integers(1, n + 2))
        minimum, places = {}, min(top, n)
        for name in EDGE_TYPES:
            minimum[name] = int(rng.integers(0, min((edge == name).sum(), places) + 1))
            places -= minimum[name]
        page = reorder(value, edge, minimum, top)
        assert not page.shortfall
        discounts = draw_discounts(n, rng)
        floors = [[0] * (min(top, n) - 1) + [minimum[name]] for name in EDGE_TYPES]
        best = best_by_search(value, discounts, [edge == name for name in EDGE_TYPES], floors)
        np.testing.assert_allclose([value[page.order] @ discount for discount in discounts], best, atol=1e-12)


def test_reorder_equals_the_assignment_optimum_on_long_pages():
    rng = np.random.default_rng(1)
    for _ in range(1500):
        n, top = int(rng.integers(5, 31)), int(rng.integers(1, 13))
        value, edge = rng.normal(size=n).round(1), rng.choice(EDGE_TYPES, n, p=[0.2, 0.5, 0.3])
        split = rng.multinomial(int(rng.integers(0, min(top, n) + 1)), [0.4, 0.3, 0.3])
        minimum = {name: int(min(m, (edge == name).sum())) for name, m in zip(EDGE_TYPES, split, strict=True)}
        page = reorder(value, edge, minimum, top)
        # Step (1) of the proof turns floors into places: the best m_t of each type only above `top`.
        forbidden = np.zeros((n, n), dtype=bool)
        for name, m in minimum.items():
            forbidden[sorted(np.flatnonzero(edge == name), key=lambda i: -value[i])[:m], top:] = True
        for discount in draw_discounts(n, rng):
            gain = np.where(forbidden, -1e6, np.outer(value, discount))
            rows, columns = linear_sum_assignment(gain, maximize=True)
            assert value[page.order] @ discount == pytest.approx(gain[rows, columns].sum(), abs=1e-9)


def test_arrange_is_exact_for_minima_at_every_prefix():
    rng = np.random.default_rng(2)
    tried = 0
    while tried < 300:
        n = int(rng.integers(2, 7))
        value, edge = rng.integers(0, 8, n) / 4.0, rng.choice(EDGE_TYPES, n)
        top, total = int(rng.integers(1, n + 2)), int(rng.integers(0, 12))
        fixed = ImpressionGuarantee("fixed", "edge_type", "follow", minimum=1, within_top=int(rng.integers(1, n + 2)))
        share = ImpressionGuarantee(
            "share", "edge_type", "connection", share=float(rng.uniform(0.1, 0.9)), within_top=top
        )
        steps = np.cumsum(rng.integers(0, 2, top)).tolist()
        by_prefix = ImpressionGuarantee("prefix", "edge_type", "connection", minimum_by_prefix=steps)
        guarantees = [share] if tried % 2 else [fixed, by_prefix]
        delivered = {"share": int(rng.integers(0, total + 1))}
        page = arrange(value, {"edge_type": edge}, guarantees, delivered=delivered, delivered_total=total)
        if page.shortfall:
            continue
        tried += 1
        minima = [prefix_minima(g, n, delivered.get(g.name, 0), total) for g in guarantees]
        discounts = draw_discounts(n, rng)
        best = best_by_search(value, discounts, [edge == g.label for g in guarantees], minima)
        np.testing.assert_allclose([value[page.order] @ discount for discount in discounts], best, atol=1e-12)


def test_arrange_is_exact_for_nested_labels():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n, top = 6, int(rng.integers(2, 7))
        value = rng.integers(0, 8, n) / 4.0
        entity = rng.choice(["people", "hashtag", "company", "newsletter"], n)
        edge = np.where(entity == "people", "connection", np.where(entity == "newsletter", "subscribe", "follow"))
        inner = int(min((entity == "hashtag").sum(), rng.integers(0, 2)))
        outer = int(min((edge == "follow").sum(), rng.integers(0, 3), top))
        guarantees = [
            ImpressionGuarantee("outer", "edge_type", "follow", minimum=outer, within_top=top),
            ImpressionGuarantee("inner", "entity_type", "hashtag", minimum=inner, within_top=top),
        ]
        page = arrange(value, {"edge_type": edge, "entity_type": entity}, guarantees)
        assert not page.shortfall
        discounts = draw_discounts(n, rng)
        masks, minima = [edge == "follow", entity == "hashtag"], [g.minima(n) for g in guarantees]
        best = best_by_search(value, discounts, masks, minima)
        np.testing.assert_allclose([value[page.order] @ discount for discount in discounts], best, atol=1e-12)


def test_arrange_counts_the_inner_labels_cohorts_for_the_outer():
    value = [0.9, 0.8, 0.7, 0.2, 0.1]
    labels = {
        "entity_type": ["people", "people", "people", "company", "hashtag"],
        "edge_type": ["connection", "connection", "connection", "follow", "follow"],
    }
    inner = ImpressionGuarantee("inner", "entity_type", "hashtag", minimum=1, within_top=3)
    outer = ImpressionGuarantee("outer", "edge_type", "follow", minimum=1, within_top=3)
    page = arrange(value, labels, [outer, inner])
    assert page.order.tolist() == [0, 1, 4, 2, 3]
    assert page.reason == ["value"] * 4 + ["guarantee:inner"]


SHARES = [
    {"connection": 0.25, "follow": 0.5, "subscribe": 0.1},
    {"connection": 0.5, "follow": 0.5},
    {"connection": 1 / 3, "follow": 1 / 3, "subscribe": 1 / 3},
    {"connection": 0.3},
    {"connection": 0.07, "follow": 0.9},
]


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("slack", [1.0, 2.0])
def test_arrange_keeps_the_deficit_within_the_slack_wherever_the_viewer_leaves(shares, slack):
    rng = np.random.default_rng(4)
    top = 6
    guarantees = [
        ImpressionGuarantee(name, "edge_type", name, share=share, within_top=top, slack=slack)
        for name, share in shares.items()
    ]
    edge = np.repeat([*shares, "other"], top)
    preference = {name: float(rng.normal()) for name in shares} | {"other": 3.0}
    delivered, total = dict.fromkeys(shares, 0), 0
    for _ in range(200):
        value = np.array([preference[name] for name in edge]) + rng.normal(size=len(edge))
        page = arrange(value, {"edge_type": edge}, guarantees, delivered=delivered, delivered_total=total)
        assert not page.shortfall
        for cohort in page.order[: rng.integers(1, top + 1)]:
            total += 1
            if edge[cohort] in delivered:
                delivered[edge[cohort]] += 1
            deficit = max(shares[name] * total - delivered[name] for name in shares)
            assert deficit <= slack + 1e-5
    if sum(shares.values()) < 0.9:  # else there is hardly room for what the values ask for
        others = total - sum(delivered.values())
        assert others > 0.5 * (1 - sum(shares.values())) * total  # floors are met no earlier than they must be


def test_arrange_keeps_the_deficit_of_nested_shares_within_the_slack():
    rng = np.random.default_rng(5)
    top = 5
    entity_types = ["people", "hashtag", "company", "newsletter"]
    edge_of = {"people": "connection", "hashtag": "follow", "company": "follow", "newsletter": "subscribe"}
    shares = {"connection": 0.25, "follow": 0.6, "hashtag": 0.35}
    guarantees = [
        ImpressionGuarantee(
            name, "entity_type" if name == "hashtag" else "edge_type", name, share=share, within_top=top
        )
        for name, share in shares.items()
    ]
    entity = np.repeat(entity_types, top)
    edge = np.array([edge_of[name] for name in entity])
    delivered, total = dict.fromkeys(shares, 0), 0
    for _ in range(200):
        value = rng.normal(size=len(entity)) + 3 * (entity == "newsletter") + (entity == "company")
        labels = {"edge_type": edge, "entity_type": entity}
        page = arrange(value, labels, guarantees, delivered=delivered, delivered_total=total)
        for cohort in page.order[: rng.integers(1, top + 1)]:
            total += 1
            for name in {str(edge[cohort]), str(entity[cohort])} & set(shares):
                delivered[name] += 1
            assert max(shares[name] * total - delivered[name] for name in shares) <= 1 + 1e-5


def test_arrange_keeps_one_deficit_small_while_another_label_has_no_cohorts():
    rng = np.random.default_rng(6)
    shares = {"connection": 0.3, "follow": 0.4, "subscribe": 0.2}
    guarantees = [ImpressionGuarantee(n, "edge_type", n, share=s, within_top=4) for n, s in shares.items()]
    edge = ["follow"] * 4 + ["subscribe"] * 4 + ["other"] * 4
    delivered, total = dict.fromkeys([*shares, "other"], 0), 0
    for _ in range(40):
        value = rng.random(12) + np.repeat([0, 0, 1], 4)
        page = arrange(value, {"edge_type": edge}, guarantees, delivered=delivered, delivered_total=total)
        for cohort in page.order[: rng.integers(1, 5)]:
            total += 1
            delivered[edge[cohort]] += 1
            assert max(shares[name] * total - delivered[name] for name in ["follow", "subscribe"]) <= 1 + 1e-5
    assert page.shortfall["connection"] > 0
    assert set(page.shortfall) == {"connection"}


def test_arrange_serves_early_what_would_fall_due_together():
    shares = {"connection": 0.25, "follow": 0.5}
    guarantees = [ImpressionGuarantee(n, "edge_type", n, share=s, within_top=4) for n, s in shares.items()]
    edge = ["other"] * 4 + ["connection"] * 2 + ["follow"] * 2
    value = [0.9, 0.8, 0.7, 0.6, 0.2, 0.1, 0.4, 0.3]
    page = arrange(value, {"edge_type": edge}, guarantees)
    # After 5 impressions a connection (5 * 0.25 > 1) and a second follow (5 * 0.5 > 2) are due, with one place left.
    placed = [edge[cohort] for cohort in page.order[:4]]
    assert placed.count("follow") == 2
    assert placed.count("connection") == 0


@st.composite
def pages(draw):
    n = draw(st.integers(0, 12))
    value = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.5]), min_size=n, max_size=n))
    entity = draw(st.lists(st.sampled_from(["people", "hashtag", "company"]), min_size=n, max_size=n))
    edge = ["connection" if name == "people" else "follow" for name in entity]
    top = draw(st.integers(1, 8))
    total = draw(st.integers(0, 60))
    guarantees, delivered = [], {}
    labels = [
        ("edge_type", "connection"),
        ("edge_type", "follow"),
        ("entity_type", "hashtag"),
        ("entity_type", "event"),
    ]
    for kind, label in draw(st.lists(st.sampled_from(labels), max_size=4)):
        name = f"g{len(guarantees)}"
        if draw(st.booleans()):
            within = draw(st.integers(1, 8))
            guarantees.append(
                ImpressionGuarantee(name, kind, label, minimum=draw(st.integers(0, within)), within_top=within)
            )
        else:
            share = draw(st.floats(0.05, 1.0))
            guarantees.append(ImpressionGuarantee(name, kind, label, share=share, within_top=top))
            delivered[name] = draw(st.integers(0, total))
    return np.array(value), {"edge_type": edge, "entity_type": entity}, guarantees, delivered, total


@settings(deadline=None, max_examples=300)
@given(pages())
def test_arrange_places_every_cohort_once_and_says_what_is_missing(drawn):
    value, labels, guarantees, delivered, total = drawn
    page = arrange(value, labels, guarantees, delivered=delivered, delivered_total=total)
    assert sorted(page.order.tolist()) == list(range(len(value)))
    for g in guarantees:
        placed = np.cumsum([labels[g.label_kind][cohort] == g.label for cohort in page.order], dtype=int)
        minima = prefix_minima(g, len(value), delivered.get(g.name, 0), total)
        missing = (minima - placed[: len(minima)]).max(initial=0)
        assert page.shortfall.get(g.name, 0) == missing
    assert 0 not in page.shortfall.values()


@settings(deadline=None, max_examples=200)
@given(pages())
def test_arrange_lifts_only_for_a_reason(drawn):
    value, labels, guarantees, delivered, total = drawn
    page = arrange(value, labels, guarantees, delivered=delivered, delivered_total=total)
    by_value = np.argsort(-value, kind="stable")
    rank, position = np.argsort(by_value), np.argsort(page.order)
    label_of = {g.name: (g.label_kind, g.label) for g in guarantees}
    assert set(page.lifted) == set(np.flatnonzero(position < rank).tolist())
    for cohort, name in page.lifted.items():
        kind, label = label_of[name]
        assert labels[kind][cohort] == label
        assert page.reason[cohort] == f"guarantee:{name}"
    assert [page.reason[c] for c in by_value if c not in page.lifted] == ["value"] * (len(value) - len(page.lifted))


@settings(deadline=None, max_examples=100)
@given(pages(), st.integers(-20, 20))
def test_arrange_ignores_the_scale_of_values(drawn, exponent):
    value, labels, guarantees, delivered, total = drawn
    counters = {"delivered": delivered, "delivered_total": total}
    one = arrange(value, labels, guarantees, **counters)
    other = arrange(value * 2.0**exponent, labels, guarantees, **counters)
    assert one.order.tolist() == other.order.tolist()


def test_arrange_without_guarantees_sorts_by_value_and_keeps_ties():
    page = arrange([0.5, 0.9, 0.5, 0.5], {}, [])
    assert page.order.tolist() == [1, 0, 2, 3]
    assert page.reason == ["value"] * 4


def test_arrange_relaxes_the_lowest_value_where_places_are_short():
    guarantees = [
        ImpressionGuarantee("c", "edge_type", "connection", minimum=1, within_top=1),
        ImpressionGuarantee("f", "edge_type", "follow", minimum=1, within_top=1),
    ]
    page = arrange([0.9, 0.2, 0.1], {"edge_type": ["subscribe", "connection", "follow"]}, guarantees)
    assert page.order.tolist() == [1, 0, 2]
    assert page.shortfall == {"f": 1}


def test_arrange_serves_an_overdue_share_at_the_next_places():
    guarantees = [
        ImpressionGuarantee("c", "edge_type", "connection", share=0.5, within_top=4),
        ImpressionGuarantee("f", "edge_type", "follow", share=0.5, within_top=4),
    ]
    labels = {"edge_type": ["subscribe"] * 3 + ["connection", "follow"]}
    page = arrange([0.9, 0.8, 0.7, 0.2, 0.1], labels, guarantees, delivered={"c": 2, "f": 2}, delivered_total=6)
    assert page.order.tolist() == [3, 4, 0, 1, 2]
    assert page.shortfall == {"c": 1, "f": 1}  # the second of each is owed, and the page holds one


def test_reorder_reports_short_supply_and_unknown_types():
    page = reorder([0.3, 0.9], ["connection", "follow"], {"connection": 2, "event": 1})
    assert page.shortfall == {"connection": 1, "event": 1}
    assert page.order.tolist() == [1, 0]


def test_reorder_of_an_empty_page_owes_nothing():
    page = reorder([], [], {"connection": 2})
    assert page.order.tolist() == []
    assert page.shortfall == {}  # no prefix, so nothing was due at one; the caller refuses empty requests


@pytest.mark.parametrize(
    ("value", "edge", "message"),
    [
        ([0.1, float("nan")], ["a", "b"], "index 1 is nan"),
        ([0.1, float("inf")], ["a", "b"], "index 1 is inf"),
        ([0.1, 0.2], ["a"], "1 entries for 2 values"),
        ([[0.1]], ["a"], "shape"),
    ],
)
def test_reorder_refuses_values_it_cannot_order(value, edge, message):
    with pytest.raises(InvalidRequest, match=message):
        reorder(value, edge, {"connection": 2})


@pytest.mark.parametrize(
    ("minimum", "top"),
    [({"a": 2, "b": 2}, 3), ({"a": -1}, 3), ({"a": 1.5}, 3), ({"a": True}, 3), ({"a": 1}, 0), ({"a": 1}, 2.0)],
)
def test_reorder_refuses_minima_no_page_could_meet(minimum, top):
    with pytest.raises(InfeasibleGuarantee):
        reorder([0.1, 0.2], ["a", "b"], minimum, top)


@pytest.mark.parametrize("counters", [{"delivered": {"g": -1}}, {"delivered_total": float("nan")}])
def test_arrange_refuses_impossible_counters(counters):
    guarantee = ImpressionGuarantee("g", "edge_type", "a", share=0.5)
    with pytest.raises(InvalidRequest, match="delivered"):
        arrange([0.1], {"edge_type": ["a"]}, [guarantee], **counters)


def test_arrange_refuses_shares_within_different_tops():
    guarantees = [
        ImpressionGuarantee("a", "edge_type", "a", share=0.2, within_top=2),
        ImpressionGuarantee("b", "edge_type", "b", share=0.2, within_top=3),
    ]
    with pytest.raises(InfeasibleGuarantee, match=r"tops \[2, 3\]"):
        arrange([0.1], {"edge_type": ["a"]}, guarantees)


def test_arrange_names_the_label_kind_that_is_missing():
    guarantee = ImpressionGuarantee("g", "cohort_kind", "a", minimum=1)
    with pytest.raises(InvalidRequest, match="'g' needs the cohort_kind"):
        arrange([0.1], {"edge_type": ["a"]}, [guarantee])


def _worst_deficit(guarantees, labels, top, leave, pages, rng):
    """Greatest deficit above the slack over the pages of a viewer who leaves where ``leave`` says."""
    shares = [g for g in guarantees if g.share is not None]
    had, total, worst = dict.fromkeys((g.name for g in shares), 0), 0, -np.inf
    n = len(next(iter(labels.values())))
    for _ in range(pages):
        page = arrange(rng.random(n), labels, guarantees, delivered=had, delivered_total=total)
        for cohort in page.order[: leave(rng)][:top]:
            total += 1
            for g in shares:
                had[g.name] += labels[g.label_kind][cohort] == g.label
                worst = max(worst, g.share * total - had[g.name] - g.slack)
    return worst


@pytest.mark.parametrize("seed", range(12))
def test_arrange_keeps_nested_shares_within_the_slack_wherever_a_schedule_exists(seed):
    rng = np.random.default_rng(seed)
    top = int(rng.integers(1, 6))
    part = rng.dirichlet(np.ones(3)) * rng.uniform(0.7, 1.0)
    guarantees = [
        ImpressionGuarantee(f"e{i}", "edge_type", f"e{i}", share=float(p), within_top=top) for i, p in enumerate(part)
    ]
    guarantees += [
        ImpressionGuarantee(
            f"x{i}", "entity_type", f"x{i}", share=float(part[i] * rng.uniform(0.2, 0.95)), within_top=top
        )
        for i in range(2)
    ]
    edge = np.repeat(["e0", "e1", "e2"], 2 * top)
    entity = np.array([f"x{name[1]}" if i % 2 else f"y{name[1]}" for i, name in enumerate(edge)])
    labels = {"edge_type": edge.tolist(), "entity_type": entity.tolist()}
    assert _worst_deficit(guarantees, labels, top, lambda rng: rng.integers(1, top + 1), 60, rng) < 1e-5


def test_arrange_serves_a_nested_share_that_would_crowd_a_later_impression():
    shares = {"e0": ("edge_type", 0.45), "e1": ("edge_type", 0.4), "x": ("entity_type", 0.25)}
    guarantees = [ImpressionGuarantee(n, k, n, share=s, within_top=1) for n, (k, s) in shares.items()]
    labels = {"edge_type": ["e0"] * 4 + ["e1"] * 2 + ["e2"] * 2, "entity_type": ["x", "y"] * 2 + ["z"] * 4}
    assert _worst_deficit(guarantees, labels, 1, lambda _: 1, 300, np.random.default_rng(0)) < 1e-5


@pytest.mark.parametrize(("minimum", "share"), [(1, 0.35), (1, 0.55), (2, 0.35), (3, 0.25)])
def test_arrange_keeps_a_share_beside_a_minimum_that_the_next_page_begins_with(minimum, share):
    guarantees = [
        ImpressionGuarantee("a", "edge_type", "a", minimum=minimum, within_top=minimum),
        ImpressionGuarantee("b", "edge_type", "b", share=share, within_top=10),
    ]
    labels = {"edge_type": ["a"] * 12 + ["b"] * 12 + ["c"] * 12}
    assert _worst_deficit(guarantees, labels, 10, lambda _: 10, 100, np.random.default_rng(1)) < 1e-5


def test_a_page_whose_labels_the_prices_chose_says_so():
    labels, terms = {"edge_type": ["a", "a", "b"]}, {"share": 0.1, "within_top": 2}
    dear = ImpressionGuarantee("f", "edge_type", "b", price=0.5, **terms)
    page = arrange([0.9, 0.8, 0.7], labels, [dear])
    assert (page.order.tolist(), page.optimal_for) == ([0, 2, 1], "the prices")
    cheap = arrange([0.9, 0.8, 0.2], labels, [ImpressionGuarantee("f", "edge_type", "b", price=0.0, **terms)])
    assert (cheap.order.tolist(), cheap.optimal_for) == ([0, 1, 2], "every discount")
