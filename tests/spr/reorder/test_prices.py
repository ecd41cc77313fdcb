"""Prices against the linear program that they are the duals of; steered pages keep their promise at every prefix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from spr.errors import InvalidRequest
from spr.reorder import ImpressionGuarantee, arrange, learn_prices

TYPES = np.array(["a", "b", "c"], dtype=object)


def _floors(*shares: float, top: int = 4, **terms: float) -> tuple[ImpressionGuarantee, ...]:
    return tuple(
        ImpressionGuarantee(label, "edge_type", label, share=share, within_top=top, **terms)
        for label, share in zip(TYPES, shares, strict=False)
    )


def _population(seed: int, pages: int = 60, n: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = TYPES[rng.integers(0, 3, pages * n)]
    value = rng.beta(2, 8, pages * n) * np.where(label == "a", 0.5, 1.0)
    return value, np.repeat(np.arange(pages), n), label


@pytest.mark.parametrize("seed", range(5))
def test_prices_are_the_duals_of_the_linear_program(seed: int) -> None:
    value, page, label = _population(seed)
    floors, places = _floors(0.4, 0.35), 4 * 60
    learnt = learn_prices(value, page, {"edge_type": label}, floors)
    on_page = (page[None, :] == np.arange(60)[:, None]).astype(float)
    counts = np.array([label == g.label for g in floors], dtype=float)
    program = linprog(
        -value,
        A_ub=np.vstack([on_page, -counts]),
        b_ub=np.concatenate([np.full(60, 4.0), [-g.share * places for g in floors]]),
        bounds=(0, 1),
        method="highs",
    )
    price = np.array([learnt.price[g.name] for g in floors])
    # Any prices bound the optimum from above (weak duality); the right ones touch it.
    priced = value + price @ counts
    best = np.sort(priced.reshape(60, 9), axis=1)[:, -4:].sum() - price @ [g.share * places for g in floors]
    assert best >= -program.fun - 1e-9
    assert best == pytest.approx(-program.fun, rel=2e-3)
    for g in floors:
        assert learnt.delivered[g.name] >= g.share - 2 / places  # labels may tie for a place
        if learnt.price[g.name] > 0:
            assert learnt.delivered[g.name] == pytest.approx(g.share, abs=3 / places)


def test_a_floor_that_holds_anyway_costs_nothing_and_one_above_supply_gets_what_there_is() -> None:
    value, page, label = _population(0)
    learnt = learn_prices(value, page, {"edge_type": label}, _floors(0.01, 0.9))
    supply = sum(min((label[page == p] == "b").sum(), 4) for p in range(60)) / (4 * 60)
    assert learnt.price["a"] == 0.0
    assert learnt.short == ("b",)
    assert supply - 2 / (4 * 60) <= learnt.delivered["b"] <= supply < 0.9
    none = learn_prices(value, page, {"edge_type": ["d"] * len(value)}, _floors(0.3))
    assert (none.price, none.short) == ({"a": 0.0}, ("a",))
    assert learn_prices([], [], {"edge_type": []}, _floors(0.2)).price == {}


def test_prices_do_not_depend_on_the_order_of_the_cohorts_and_scale_with_the_values() -> None:
    value, page, label = _population(3)
    floors = _floors(0.4, 0.35)
    learnt = learn_prices(value, page, {"edge_type": label}, floors)
    order = np.random.default_rng(0).permutation(len(value))
    shuffled = learn_prices(value[order], page[order], {"edge_type": label[order]}, floors)
    doubled = learn_prices(2 * value, page, {"edge_type": label}, floors)
    for name, price in learnt.price.items():
        assert shuffled.price[name] == pytest.approx(price, abs=1e-9)
        assert doubled.price[name] == pytest.approx(2 * price, rel=0.05)
    priced = learnt.on((*floors, ImpressionGuarantee("own", "edge_type", "c", share=0.1, within_top=4, price=0.5)))
    assert [g.price for g in priced] == [*learnt.price.values(), 0.5]


@pytest.mark.parametrize(
    ("value", "page", "labels", "sentence"),
    [
        ([0.1, np.nan], [0, 0], {"edge_type": ["a", "b"]}, "1 of them not finite"),
        ([0.1, 0.2], [0], {"edge_type": ["a", "b"]}, "pages of shape"),
        ([0.1, 0.2], [0, 0], {"edge_type": ["a"]}, "found 1 of them"),
        ([0.1, 0.2], [0, 0], {"entity_type": ["a", "b"]}, "needs the edge_type .* found none"),
    ],
)
def test_bad_input_is_named(value: list[float], page: list[int], labels: dict, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        learn_prices(value, page, labels, _floors(0.2))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    slack=st.sampled_from([1.0, 1.5, 2.0]),
    prices=st.lists(st.floats(0.0, 2.0), min_size=3, max_size=3),
    scope=st.sampled_from(["viewer", "population"]),
)
def test_the_promise_holds_under_any_price(seed: int, slack: float, prices: list[float], scope: str) -> None:
    rng = np.random.default_rng(seed)
    label = np.repeat(TYPES, 5)
    floors = tuple(
        ImpressionGuarantee(
            g.name, g.label_kind, g.label, share=g.share, within_top=5, slack=slack, price=price, scope=scope
        )
        for g, price in zip(_floors(0.3, 0.4, 0.2), prices, strict=True)
    )
    had, total = dict.fromkeys("abc", 0), 0
    for _ in range(12):
        value = rng.random(15)
        page = arrange(value, {"edge_type": label}, floors, delivered=had, delivered_total=total)
        assert sorted(page.order.tolist()) == list(range(15))
        seen = int(rng.integers(0, 6))
        for cohort in page.order[:seen]:
            had[label[cohort]], total = had[label[cohort]] + 1, total + 1
            if scope == "viewer":
                assert all(g.share * total - had[g.label] <= slack + 1e-9 for g in floors)
        below = value[page.order[5:]]
        assert (np.diff(below) <= 0).all()  # only the set above within_top follows prices
        if scope == "population":
            assert (np.diff(value[page.order[:5]]) <= 0).all()
            priced = value + np.array([dict(zip("abc", prices, strict=True))[edge] for edge in label])
            assert set(page.order[:5]) == set(np.argsort(-priced, kind="stable")[:5])


def test_steered_viewers_keep_more_than_forced_ones() -> None:
    rng = np.random.default_rng(1)
    label = np.repeat(TYPES, 6)
    value = 1 / (1 + np.exp(2 - np.repeat([0.3, -0.5, 0.2], 6) - rng.normal(size=(15, 30, 1, 18)) * 0.8))[:, :, 0]
    discount = np.where(np.arange(18) < 6, 1 / np.log2(np.arange(18) + 2), 0)
    free = _floors(0.25, 0.5, 0.1, top=6)
    learnt = learn_prices(
        value.ravel(), np.repeat(np.arange(15 * 30), 18), {"edge_type": np.tile(label, 15 * 30)}, free
    )
    kept = {}
    for how, floors in (("forced", free), ("steered", learnt.on(free))):
        kept[how] = 0.0
        for viewer in value:
            had, total = dict.fromkeys("abc", 0), 0
            for page_value in viewer:
                page = arrange(page_value, {"edge_type": label}, floors, delivered=had, delivered_total=total)
                kept[how] += page_value[page.order] @ discount
                for cohort in page.order[:6]:
                    had[label[cohort]], total = had[label[cohort]] + 1, total + 1
                    assert all(g.share * total - had[g.label] <= 1 + 1e-9 for g in floors)
    assert kept["steered"] > 1.08 * kept["forced"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_prices_of_nested_labels_are_the_duals_whatever_their_order(order: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    pages, n, top = 80, 8, 3
    value, page = rng.beta(2, 8, pages * n), np.repeat(np.arange(pages), n)
    entity = np.array(["x", "y", "z", "z"], dtype=object)[rng.integers(0, 4, pages * n)]
    edge = np.where(entity == "z", "other", "outer")
    value = np.where(entity == "x", 0.4 * value, value)
    both = (
        ImpressionGuarantee("outer", "edge_type", "outer", share=0.6, within_top=top),
        ImpressionGuarantee("inner", "entity_type", "x", share=0.5, within_top=top),
    )
    learnt = learn_prices(value, page, {"edge_type": edge, "entity_type": entity}, [both[i] for i in order])
    on_page = (page[None, :] == np.arange(pages)[:, None]).astype(float)
    counts = np.array([edge == "outer", entity == "x"], dtype=float)
    program = linprog(
        -value,
        A_ub=np.vstack([on_page, -counts]),
        b_ub=np.concatenate([np.full(pages, float(top)), [-0.6 * pages * top, -0.5 * pages * top]]),
        bounds=(0, 1),
        method="highs",
    )
    price = np.array([learnt.price["outer"], learnt.price["inner"]])
    priced = np.sort((value + price @ counts).reshape(pages, n), axis=1)[:, -top:]
    assert priced.sum() - price @ [0.6 * pages * top, 0.5 * pages * top] == pytest.approx(-program.fun, rel=2e-3)


def test_prices_of_values_that_are_all_alike_are_found() -> None:
    floor = ImpressionGuarantee("f", "edge_type", "b", share=0.5, within_top=1)
    learnt = learn_prices([0.5] * 4, [0, 0, 1, 1], {"edge_type": ["a", "b", "a", "b"]}, [floor])
    assert learnt.short == ()
    assert learnt.price["f"] == pytest.approx(0.0, abs=1e-5)
    assert learnt.delivered["f"] >= 0.5


def test_a_given_price_stays_and_the_others_are_learnt_beside_it() -> None:
    value, page, label = _population(2)
    free, given = _floors(0.4, 0.35)
    given = replace(given, price=0.3)
    learnt = learn_prices(value, page, {"edge_type": label}, [free, given])
    alone = learn_prices(value + 0.3 * (label == "b"), page, {"edge_type": label}, [free])
    assert learnt.price["b"] == 0.3
    assert learnt.price["a"] == pytest.approx(alone.price["a"], rel=1e-3)


def test_floors_that_no_prices_hold_together_are_named() -> None:
    # Two places; a and b are on the same pages only, where they would need three of them.
    label = np.tile(np.array(["a", "a", "b", "b", "c", "c", "c", "c"], dtype=object), 20)
    value, page = np.random.default_rng(0).random(160), np.repeat(np.arange(40), 4)
    learnt = learn_prices(value, page, {"edge_type": label}, _floors(0.4, 0.4, top=2))
    assert learnt.short
    assert all(np.isfinite(price) for price in learnt.price.values())
