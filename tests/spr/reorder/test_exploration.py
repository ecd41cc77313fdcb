"""Exploration within guarantees: what a page may become, and the propensity that is stated for it."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import ConfigError
from spr.reorder import ImpressionGuarantee, PageBounds, PageExploration, explore, reordering

ENTITY_TYPES = ["people", "hashtag", "company", "newsletter"]
EDGE_TYPE = {"people": "connection", "hashtag": "follow", "company": "follow", "newsletter": "subscribe"}
PAGES = {n: np.array(list(permutations(range(n)))) for n in range(1, 6)}
METHODS = ["shuffle_top", "adjacent_swaps", "epsilon", "plackett_luce"]
MANY = settings(deadline=None, max_examples=300)


@st.composite
def explorations(draw, methods=METHODS, **terms):
    disturbance = draw(st.sampled_from([0.05, 0.5, 1.0]))
    temperature = draw(st.sampled_from([0.1, 1.0, 3.0]))
    return PageExploration(
        draw(st.sampled_from(methods)), draw(st.integers(1, 7)), disturbance, temperature=temperature, **terms
    )


@st.composite
def requests(draw, *, fractional=True):
    """Bounds and values of a request: nested labels, minima, maxima and shares, fractional minima in some."""
    n = draw(st.integers(1, 5))
    value = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))) / 4.0
    entity = draw(st.lists(st.sampled_from(ENTITY_TYPES), min_size=n, max_size=n))
    labels = {"entity_type": entity, "edge_type": [EDGE_TYPE[e] for e in entity]}
    guarantees, delivered, total = [], {}, draw(st.integers(0, 20))
    forms = ["minimum", "minimum_by_prefix", "maximum", "share", *["fraction"] * fractional]
    for form in draw(st.lists(st.sampled_from(forms), max_size=3)):
        name, top = f"g{len(guarantees)}", draw(st.integers(1, 5))
        kind = draw(
            st.sampled_from(["edge_type", "entity_type"] if form not in ("share", "fraction") else ["edge_type"])
        )
        label = draw(st.sampled_from(sorted(set(labels[kind]))))
        terms = {
            "minimum": {"minimum": draw(st.integers(0, min(top, 2))), "within_top": top},
            "maximum": {"maximum": draw(st.integers(0, 2)), "within_top": top},
            "minimum_by_prefix": {"minimum_by_prefix": tuple(range(top))},
            "share": {"share": draw(st.sampled_from([0.2, 0.5])), "within_top": 4},
            "fraction": {"minimum": draw(st.sampled_from([0.3, 0.5])), "within_top": 3},
        }[form]
        guarantees.append(ImpressionGuarantee(name, kind, label, **terms))
        delivered[name] = draw(st.integers(0, total))
    return PageBounds(n, labels, guarantees, delivered, total), value


def kept_by(page):
    """Every order of ranks that keeps the settled bounds of a page."""
    pages = PAGES[len(page.order)]
    counts = np.cumsum(page.member[:, pages], axis=2)
    last = min(page.minima.shape[1] - 1, pages.shape[1])
    low, high = page.minima[:, None, 1 : last + 1], page.maxima[:, None, 1 : last + 1]
    counts = counts[:, :, :last]
    return pages[((low <= counts) & (counts <= high)).all(axis=(0, 2))]


def probability_of(order, page, exploration):
    """Probability of each placement given those above it, by the definition of the method, over all pages kept."""
    kept, depth = kept_by(page), exploration.depth
    value, chances = np.maximum(page.value, 0.0), []
    for p in range(len(order)):
        follows = kept[(kept[:, :p] == order[:p]).all(axis=1)]
        open_ranks = sorted(set(follows[:, p]))
        best = open_ranks[0] if open_ranks else None
        if order[p] not in open_ranks:
            chances.append(0.0)
        elif p >= depth:
            chances.append(float(order[p] == best))
        elif exploration.method == "epsilon":
            drawn = exploration.disturbance / len(open_ranks)
            chances.append(drawn + (1 - exploration.disturbance) * (order[p] == best))
        else:
            weight = value ** (1 / exploration.temperature)
            if exploration.method == "shuffle_top":
                weight = np.isin(np.arange(len(value)), page.order[:depth]).astype(float)
            total = weight[open_ranks].sum()
            chances.append(weight[order[p]] / total if total > 0 else 1 / len(open_ranks))
    return np.array(chances)


def shortfalls(bounds, value):
    """What each draw of fractional minima falls short of without exploration."""
    pages = bounds.bound(value, 0.0)
    return [page.named_shortfall(pages.plan) for page in pages.pages]


@MANY
@given(requests(), explorations(), st.integers(0, 10**6))
def test_an_explored_page_holds_each_cohort_once_and_misses_no_more(request, exploration, number):
    bounds, value = request
    made = explore(bounds, value, exploration, f"r{number}", "salt")
    assert sorted(made.order.tolist()) == list(range(len(value)))
    assert made.shortfall in shortfalls(bounds, value)
    if made.kind == "none":
        return
    assert made.propensity.shape == value.shape
    assert (made.propensity > 0).all()
    assert (made.propensity <= 1 + 1e-12).all()


@MANY
@given(requests(fractional=False), explorations(), st.integers(0, 10**6))
def test_an_explored_page_keeps_every_settled_bound(request, exploration, number):
    bounds, value = request
    page = bounds.bound(value).pages[0]
    made = explore(bounds, value, exploration, f"r{number}", "salt")
    if page.unsettled:
        assert made.kind == "none"
        return
    ranks = np.argsort(page.by_value)[made.order]
    assert (kept_by(page) == ranks).all(axis=1).any()


@MANY
@given(requests(), explorations(["shuffle_top", "epsilon", "plackett_luce"]), st.integers(0, 10**6))
def test_sequential_propensities_multiply_to_the_probability_of_the_page(request, exploration, number):
    bounds, value = request
    made = explore(bounds, value, exploration, f"r{number}", "salt")
    if made.kind == "none":
        return
    pages = bounds.bound(value, 0.0)
    joint = np.zeros(len(value))
    for probability, page in zip(pages.probability, pages.pages, strict=True):
        ranks = np.argsort(page.by_value)[made.order]
        joint += probability * np.cumprod(probability_of(ranks, page, exploration))
    if made.kind == "sequential":
        np.testing.assert_allclose(np.cumprod(made.propensity), joint, atol=1e-12)
    else:
        assert (made.kind, exploration.method) == ("exact", "shuffle_top")
        assert joint[-1] > 0


def marginals(bounds, value, exploration):
    """Probability of each cohort at each position, summed over every page that the method can make."""
    n, pages = len(value), bounds.bound(value, 0.0)
    table = np.zeros((n, n))
    for mass, page in zip(pages.probability, pages.pages, strict=True):
        if exploration.method == "adjacent_swaps":
            made = swapped_pages(page, exploration)
        else:
            made = [(order, probability_of(order, page, exploration).prod()) for order in PAGES[n]]
        for order, probability in made:
            table[page.by_value[order], np.arange(n)] += mass * probability
    return table


def swapped_pages(page, exploration):
    """Every page of swapped neighbours and its probability, where a swap that leaves the bounds is not made."""
    kept = {tuple(order) for order in kept_by(page).tolist()}
    depth = min(exploration.depth, len(page.order))
    for first in (0, 1):
        made = [(page.order.tolist(), 0.5)]
        for p in range(first, depth - 1, 2):
            alone = page.order.tolist()
            alone[p], alone[p + 1] = alone[p + 1], alone[p]
            chance = exploration.disturbance if tuple(alone) in kept else 0.0
            both = [
                ([*order[:p], order[p + 1], order[p], *order[p + 2 :]], probability * chance)
                for order, probability in made
            ]
            made = [(order, probability * (1 - chance)) for order, probability in made] + both
        yield from ((np.array(order), probability) for order, probability in made)


@MANY
@given(requests(), explorations(["adjacent_swaps", "shuffle_top"]), st.integers(0, 10**6))
def test_exact_propensities_are_the_marginals_of_all_pages(request, exploration, number):
    bounds, value = request
    made = explore(bounds, value, exploration, f"r{number}", "salt")
    if made.kind == "exact":
        table = marginals(bounds, value, exploration)
        np.testing.assert_allclose(table.sum(axis=0), 1.0, atol=1e-12)
        np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-12)
        np.testing.assert_allclose(made.propensity, table[made.order, np.arange(len(value))], atol=1e-12)
    elif made.kind == "sequential":
        assert exploration.method == "shuffle_top"


@settings(deadline=None, max_examples=40)
@given(requests(), explorations(["epsilon", "plackett_luce"], draws=400), st.integers(0, 10**6))
def test_estimated_propensities_are_near_the_marginals(request, exploration, number):
    bounds, value = request
    made = explore(bounds, value, exploration, f"r{number}", "salt")
    if made.kind == "none":
        return
    assert (made.kind, made.draws) == ("monte_carlo", 400)
    marginal = marginals(bounds, value, exploration)[made.order, np.arange(len(value))].clip(0.0, 1.0)
    assert (abs(made.propensity - marginal) < 5 * np.sqrt(marginal * (1 - marginal) / 400) + 2 / 401).all()


def test_a_request_is_explored_in_one_way_and_another_salt_in_another():
    bounds, value = PageBounds(12, {}, (), {}, 0), np.linspace(1.0, 0.1, 12)
    for method in METHODS:
        exploration = PageExploration(method, depth=12, epsilon=0.5, temperature=1.0)
        orders = [explore(bounds, value, exploration, f"r{i}", "a").order.tolist() for i in range(30)]
        again = [explore(bounds, value, exploration, f"r{i}", "a").order.tolist() for i in range(30)]
        other = [explore(bounds, value, exploration, f"r{i}", "b").order.tolist() for i in range(30)]
        assert orders == again
        assert orders != other
        assert len({tuple(order) for order in orders}) > 10


def test_positions_below_the_depth_stay_as_by_value():
    bounds, value = PageBounds(8, {}, (), {}, 0), np.linspace(1.0, 0.1, 8)
    for method in ["shuffle_top", "adjacent_swaps"]:
        for i in range(40):
            made = explore(bounds, value, PageExploration(method, depth=3), f"r{i}", "salt")
            assert made.order[3:].tolist() == [3, 4, 5, 6, 7]
            assert made.propensity[3:].tolist() == [1.0] * 5


def test_the_reason_names_what_moved_and_what_a_guarantee_placed():
    labels = {"edge_type": ["connection"] * 3 + ["follow"]}
    floor = ImpressionGuarantee("floor", "edge_type", "follow", minimum=1, within_top=1)
    bounds, value = PageBounds(4, labels, (floor,), {}, 0), np.array([0.9, 0.8, 0.7, 0.1])
    for i in range(30):
        made = explore(bounds, value, PageExploration("shuffle_top", depth=4), f"r{i}", "salt")
        assert made.order[0] == 3
        assert made.reason[3] == "guarantee:floor"
        without = reordering(bounds.bound(value)).order
        expected = {int(c) for c in made.order[made.order != without]} - {3}
        assert {c for c in range(4) if made.reason[c] == "exploration"} == expected


def test_thompson_makes_the_page_of_the_first_draw_and_estimates_from_the_others():
    bounds, value = PageBounds(2, {}, (), {}, 0), np.array([0.5, 0.4])
    sampled = np.array([[0.1, 0.2]] + [[0.1, 0.2]] * 3 + [[0.3, 0.2]] * 6)
    made = explore(bounds, value, PageExploration("thompson", draws=9), "r1", "salt", sampled)
    assert made.order.tolist() == [1, 0]
    assert made.propensity.tolist() == [0.4, 0.4]  # 3 of 9 draws, and this page
    assert (made.kind, made.draws, made.reason) == ("monte_carlo", 9, ["exploration", "exploration"])
    with pytest.raises(ConfigError, match=r"draws \+ 1"):
        explore(bounds, value, PageExploration("thompson", draws=9), "r1", "salt")


def test_crossing_labels_leave_the_page_without_exploration():
    labels = {"edge_type": ["follow", "follow", "connection", "connection"], "cohort_kind": ["a", "b", "a", "b"]}
    guarantees = (
        ImpressionGuarantee("f", "edge_type", "follow", minimum=1, within_top=2),
        ImpressionGuarantee("b", "cohort_kind", "b", minimum=1, within_top=2),
    )
    bounds, value = PageBounds(4, labels, guarantees, {}, 0), np.array([0.4, 0.3, 0.2, 0.1])
    made = explore(bounds, value, PageExploration("epsilon"), "r1", "salt")
    assert (made.propensity, made.kind) == (None, "none")
    assert made.order.tolist() == reordering(bounds.bound(value)).order.tolist()


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"method": "softmax"}, "softmax.*shuffle_top"),
        ({"method": "epsilon", "depth": 0}, "depth=0; allowed: 1 or more"),
        ({"method": "epsilon", "epsilon": 0.0}, r"epsilon=0\.0; allowed: above 0"),
        ({"method": "adjacent_swaps", "epsilon": 1.5}, r"epsilon=1\.5; allowed"),
        ({"method": "plackett_luce", "temperature": 0.0}, r"temperature=0\.0; allowed: a finite"),
        ({"method": "plackett_luce", "temperature": float("inf")}, "temperature=inf; allowed: a finite"),
        ({"method": "epsilon", "draws": -1}, "draws=-1; allowed: 0 or more"),
    ],
)
def test_impossible_settings_are_refused(terms, message):
    with pytest.raises(ConfigError, match=message):
        PageExploration(**terms)


def test_a_page_of_nested_guarantees_with_a_maximum_is_not_drawn():
    # Whether "follow" may stand first depends on which of its entity types is still to come.
    entity = ["hashtag", "people", "hashtag", "company", "people"]
    labels = {"entity_type": entity, "edge_type": [EDGE_TYPE[e] for e in entity]}
    inner = ImpressionGuarantee("inner", "entity_type", "hashtag", minimum=2, within_top=4)
    outer = ImpressionGuarantee("outer", "edge_type", "follow", maximum_by_prefix=(0, 1, 1))
    apart = ImpressionGuarantee("apart", "edge_type", "connection", maximum=1, within_top=2)
    value = np.array([0.6, 0.5, 1.0, 1.0, 0.9])
    for guarantees, kind in (((inner, outer), "none"), ((inner, apart), "sequential")):
        bounds = PageBounds(5, labels, guarantees, {}, 0)
        for i in range(30):
            made = explore(bounds, value, PageExploration("plackett_luce", depth=3, temperature=1.0), f"r{i}", "s")
            assert (made.kind, made.shortfall) == (kind, {})


def test_sequential_propensities_of_drawn_minima_do_not_underflow():
    n = 250
    some = ImpressionGuarantee("some", "edge_type", "b", minimum=0.5, within_top=10)
    bounds = PageBounds(n, {"edge_type": ["a", "b"] * (n // 2)}, [some], {}, 0)
    made = explore(bounds, np.linspace(1, 0, n), PageExploration("epsilon", depth=n, epsilon=1.0), "r1", "s")
    assert (made.propensity > 0).all()
    np.testing.assert_allclose(made.propensity[10:], 1 / (n - np.arange(10, n)))


def test_plackett_luce_near_temperature_0_is_the_order_by_value():
    value, labels = np.array([1.0, 0.4, 0.3, 0.2, 0.1, 0.0]), {}
    bounds = PageBounds(len(value), labels, (), {}, 0)
    for i in range(20):
        made = explore(bounds, value, PageExploration("plackett_luce", temperature=1e-3), f"r{i}", "s")
        assert made.order.tolist() == [0, 1, 2, 3, 4, 5]
        np.testing.assert_allclose(made.propensity, 1.0)
