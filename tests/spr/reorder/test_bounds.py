"""Every per-page form against an exhaustive search, and on long pages against the assignment optimum."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from spr.errors import InfeasibleGuarantee, InvalidRequest
from spr.reorder import ImpressionGuarantee, arrange, check_guarantees

ENTITY_TYPES = ["people", "hashtag", "company", "newsletter"]
EDGE_TYPE = {"people": "connection", "hashtag": "follow", "company": "follow", "newsletter": "subscribe"}
PAGES = {n: np.array(list(permutations(range(n)))) for n in range(1, 7)}
LABELS = {
    "edge_type": ["connection", "follow", "subscribe"],
    "entity_type": ENTITY_TYPES,
    "cohort_kind": ["trending", "near"],
}

DISCOUNTS = [
    lambda n: 1 / np.log2(np.arange(n) + 2),
    lambda n: 0.6 ** np.arange(n),
    *[lambda n, cliff=cliff: (np.arange(n) < cliff).astype(float) for cliff in range(1, 7)],
]


@st.composite
def bounds(draw, kinds, n, *, lower=True, upper=True):
    """A guarantee of any form on one of the kinds."""
    kind = draw(st.sampled_from(kinds))
    label = draw(st.sampled_from(LABELS[kind]))
    top = draw(st.integers(1, n + 1))
    forms = ["minimum", "minimum_by_prefix"] * lower + ["maximum", "maximum_by_prefix"] * upper
    form = draw(st.sampled_from(forms))
    if form in ("minimum", "maximum"):
        terms = {form: draw(st.integers(form == "minimum", min(top, 3))), "within_top": top}
    else:
        steps = np.cumsum(draw(st.lists(st.integers(0, 1), min_size=top, max_size=top)))
        terms = {form: tuple(steps.tolist())}
    return kind, label, terms


@st.composite
def problems(draw, kinds, **forms):
    n = draw(st.integers(1, 6))
    value = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))) / 4.0
    entity = draw(st.lists(st.sampled_from(ENTITY_TYPES), min_size=n, max_size=n))
    kind = draw(st.lists(st.sampled_from(LABELS["cohort_kind"]), min_size=n, max_size=n))
    labels = {"entity_type": entity, "edge_type": [EDGE_TYPE[e] for e in entity], "cohort_kind": kind}
    drawn = draw(st.lists(bounds(kinds, n, **forms), min_size=1, max_size=3))
    guarantees = tuple(
        ImpressionGuarantee(f"g{i}", kind, label, **terms) for i, (kind, label, terms) in enumerate(drawn)
    )
    return value, labels, guarantees


def tables(n, labels, guarantees):
    """Member masks, and minima (no more than there is) and maxima at every prefix of the page."""
    member = np.array([[label == g.label for label in labels[g.label_kind]] for g in guarantees])
    low, high = np.zeros((len(guarantees), n), dtype=int), np.tile(np.arange(1, n + 1), (len(guarantees), 1))
    for row, g in enumerate(guarantees):
        minima, maxima = g.minima(n), g.maxima(n)
        low[row, : len(minima)], high[row, : len(maxima)] = minima, maxima
        low[row] = np.minimum(np.maximum.accumulate(low[row]), member[row].sum())
    return member, low, high


def check_against_search(problem, *, always=None):
    value, labels, guarantees = problem
    n = len(value)
    member, low, high = tables(n, labels, guarantees)
    counts = np.cumsum(member[:, PAGES[n]], axis=2)  # guarantee, page, prefix
    feasible = ((counts >= low[:, None, :]) & (counts <= high[:, None, :])).all(axis=(0, 2))
    page = arrange(value, labels, guarantees)
    assert sorted(page.order.tolist()) == list(range(n))
    if not feasible.any():
        return page
    own = np.cumsum(member[:, page.order], axis=1)
    assert (own >= low).all()
    assert (own <= high).all()
    if always is not None:
        assert page.optimal_for == always
    for discount in DISCOUNTS:
        best = (value[PAGES[n][feasible]] @ discount(n)).max()
        if page.optimal_for == "every discount":
            assert value[page.order] @ discount(n) == pytest.approx(best, abs=1e-12)
        else:
            made = arrange(value, labels, guarantees, discount=discount(n))
            own = np.cumsum(member[:, made.order], axis=1)
            assert (own >= low).all()
            assert (own <= high).all()
            assert value[made.order] @ discount(n) == pytest.approx(best, abs=1e-12)
    return page


MANY = settings(deadline=None, max_examples=1500)
SOME = settings(deadline=None, max_examples=150)


@MANY
@given(problems(["edge_type"], upper=False))
def test_minima_at_every_prefix_are_exact_for_every_discount(problem):
    check_against_search(problem, always="every discount")


@MANY
@given(problems(["entity_type"], lower=False))
def test_maxima_at_every_prefix_are_exact_for_every_discount(problem):
    check_against_search(problem, always="every discount")


@MANY
@given(problems(["edge_type"]))
def test_minima_and_maxima_at_every_prefix_are_exact(problem):
    check_against_search(problem)


@SOME
@given(problems(["edge_type", "entity_type"], upper=False))
def test_minima_of_nested_labels_are_exact(problem):
    check_against_search(problem)


@SOME
@given(problems(["edge_type", "entity_type"]))
def test_minima_and_maxima_of_nested_labels_are_exact(problem):
    check_against_search(problem)


@SOME
@given(problems(["edge_type", "entity_type", "cohort_kind"]))
def test_bounds_of_crossing_labels_are_exact(problem):
    check_against_search(problem)


@settings(deadline=None, max_examples=400)
@given(problems(["edge_type", "entity_type"], upper=False), st.integers(1, 6), st.data())
def test_minima_and_maxima_within_one_top_are_exact_for_every_discount(problem, top, data):
    value, labels, _ = problem
    chosen = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["edge_type", "entity_type"]), st.integers(0, 2), st.integers(0, 2)),
            min_size=1,
            max_size=3,
        )
    )
    guarantees = []
    for i, (kind, low, more) in enumerate(chosen):
        label = data.draw(st.sampled_from(LABELS[kind]))
        low = min(low, top)
        guarantees.append(
            ImpressionGuarantee(f"g{i}", kind, label, minimum=low, maximum=min(low + more, top), within_top=top)
        )
    if top <= len(value):  # on a shorter page the bounds fall on its end, where maxima bind on nothing
        check_against_search((value, labels, tuple(guarantees)), always="every discount")


def test_minima_and_maxima_equal_the_assignment_optimum_on_long_pages():
    rng = np.random.default_rng(5)
    tried = assigned = 0
    while tried < 1500:
        n, top = int(rng.integers(8, 41)), int(rng.integers(3, 13))
        edge = rng.choice(LABELS["edge_type"], n, p=[0.3, 0.5, 0.2])
        value = rng.normal(size=n).round(1)
        guarantees = []
        for label in LABELS["edge_type"]:
            steps = np.cumsum(rng.random(top) < 0.25)
            room = np.minimum(steps + rng.integers(0, 3), np.arange(1, top + 1))
            cap = np.maximum.accumulate(np.maximum(steps, room))
            guarantees.append(
                ImpressionGuarantee(
                    label,
                    "edge_type",
                    label,
                    minimum_by_prefix=tuple(steps.tolist()),
                    maximum_by_prefix=tuple(cap.tolist()) if rng.random() < 0.7 else None,
                )
            )
        discount = np.sort(rng.random(n))[::-1]
        member, low, high = tables(n, {"edge_type": edge}, guarantees)
        gain, position = np.outer(value, discount), np.arange(1, n + 1)
        for row in range(len(guarantees)):
            for j, cohort in enumerate(sorted(np.flatnonzero(member[row]), key=lambda i: -value[i]), start=1):
                first = int(np.argmax(high[row] >= j)) + 1 if high[row, -1] >= j else n + 1
                last = int(np.argmax(low[row] >= j)) + 1 if low[row, -1] >= j else n
                gain[cohort, (position < first) | (position > last)] = -1e6
        rows, columns = linear_sum_assignment(gain, maximize=True)
        best = gain[rows, columns].sum()
        if best < -1e5:
            continue
        tried += 1
        page = arrange(value, {"edge_type": edge}, guarantees, discount=discount)
        assigned += page.optimal_for == "the discount"
        own = np.cumsum(member[:, page.order], axis=1)
        assert (own >= low).all()
        assert (own <= high).all()
        assert value[page.order] @ discount == pytest.approx(best, abs=1e-12)
    assert 100 < assigned < 1400  # both the greedy path and the assignment were tried


def test_a_maximum_that_no_page_keeps_is_exceeded_and_said():
    cap = ImpressionGuarantee("cap", "edge_type", "follow", maximum=1, within_top=3)
    page = arrange([0.9, 0.8, 0.7, 0.1], {"edge_type": ["follow"] * 3 + ["connection"]}, [cap])
    assert page.order.tolist() == [0, 3, 1, 2]
    assert page.shortfall == {"cap": 1}  # three of four are of the label: the third position has no other


def test_crossing_labels_lack_as_little_as_possible():
    guarantees = [
        ImpressionGuarantee("near", "cohort_kind", "near", minimum=2, within_top=2),
        ImpressionGuarantee("people", "entity_type", "people", minimum=2, within_top=2),
    ]
    labels = {"cohort_kind": ["near", "near", "far", "far"], "entity_type": ["people", "event", "people", "event"]}
    page = arrange([0.1, 0.2, 0.3, 0.4], labels, guarantees)
    assert page.optimal_for == "the discount"
    assert sum(page.shortfall.values()) == 1
    assert 0 in page.order[:2]


def test_minimum_by_prefix_is_read_from_the_issue():
    follow = ImpressionGuarantee("follow", "edge_type", "follow", minimum_by_prefix=[0, 1, 1, 2])
    page = arrange([5, 4, 3, 2, 1], {"edge_type": ["connection"] * 3 + ["follow"] * 2}, [follow])
    assert page.order.tolist() == [0, 3, 1, 4, 2]
    assert page.reason == ["value", "value", "value", "guarantee:follow", "guarantee:follow"]


def test_fractional_minima_need_a_draw():
    some = ImpressionGuarantee("some", "edge_type", "follow", minimum=0.3, within_top=1)
    for uniform in (None, 1.0, -0.1, float("nan")):
        with pytest.raises(InvalidRequest, match="draw in"):
            arrange([1.0], {"edge_type": ["follow"]}, [some], uniform=uniform)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.floats(0, 1.4).map(lambda x: round(x, 3)), min_size=1, max_size=3), st.data())
def test_fractional_minima_hold_in_expectation_and_never_exceed_the_top(minima, data):
    top = int(np.ceil(sum(minima))) or 1
    names = LABELS["edge_type"][: len(minima)]
    guarantees = [
        ImpressionGuarantee(name, "edge_type", name, minimum=m, within_top=top)
        for name, m in zip(names, minima, strict=True)
        if m > 0 and m <= top
    ]
    if len(guarantees) < len(minima):
        return
    check_guarantees(guarantees)
    edge = np.repeat([*names, "other"], 4)
    value = np.where(edge == "other", 9.0, 1.0) + np.array(data.draw(st.permutations(range(len(edge))))) / 100
    page = arrange(value, {"edge_type": edge}, guarantees, uniform=data.draw(st.floats(0, 0.999)))
    outcomes = page.outcomes or (type("O", (), {"probability": 1.0, "order": page.order})(),)
    assert len(outcomes) <= len(minima) + 1
    assert sum(o.probability for o in outcomes) == pytest.approx(1.0, abs=1e-12)
    assert any((o.order == page.order).all() for o in outcomes)
    for name, m in zip(names, minima, strict=True):
        within = [(edge[o.order[:top]] == name).sum() for o in outcomes]
        assert max(within) <= np.ceil(m)
        expected = sum(o.probability * w for o, w in zip(outcomes, within, strict=True))
        assert expected == pytest.approx(m, abs=1e-9)  # all other cohorts are worth more, so no more than is asked


def test_discount_that_rises_is_refused():
    nested = [
        ImpressionGuarantee("inner", "entity_type", "hashtag", minimum=1, within_top=3),
        ImpressionGuarantee("outer", "edge_type", "follow", minimum=1, within_top=1),
    ]
    labels = {"entity_type": ["event", "event", "hashtag", "company"], "edge_type": ["s", "s", "follow", "follow"]}
    with pytest.raises(InvalidRequest, match="never rise"):
        arrange([4, 3, 1, 2], labels, nested, discount=[0.1, 0.2, 0.3, 0.4])
    # what is best depends on the discount: the better of the outer label on top, or one that serves both
    assert arrange([4, 3, 1, 2], labels, nested, discount=[1, 0, 0, 0]).order[0] == 3
    assert arrange([4, 3, 1, 2], labels, nested, discount=[1, 1, 1, 0]).order.tolist()[:3] == [2, 0, 1]


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"minimum_by_prefix": (0, 1, 0)}, "never less than before"),
        ({"minimum_by_prefix": (2,)}, "at most 1"),
        ({"minimum": 2, "maximum": 1}, "at least 2 and at most 1"),
        ({"minimum_by_prefix": (0, 1), "maximum_by_prefix": (1, 0)}, "at least 1 and at most 0"),
        ({"share": 0.5, "maximum": 4}, "more than maximum=4"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(terms, message):
    with pytest.raises(InfeasibleGuarantee, match=message):
        ImpressionGuarantee("g", "edge_type", "follow", **terms)
