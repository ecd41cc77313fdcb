"""A hundred thousand pages of one request: logged propensities are frequencies, under exploration and guarantees."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from spr.reorder import (
    ImpressionGuarantee,
    PageBounds,
    PageExploration,
    explore,
    reordering,
    shuffle_propensity,
    shuffled,
)
from spr.reorder.random_policy import first_uniform

N, LEVEL = 100_000, 1e-3  # of each test, over all its cells
VALUE = np.array([0.9, 0.8, 0.6, 0.5, 0.3, 0.2])
LABELS = {
    "edge_type": ["connection", "connection", "subscribe", "follow", "follow", "subscribe"],
    "entity_type": ["people", "people", "event", "hashtag", "company", "newsletter"],
}
FLOORS = (
    ImpressionGuarantee("floor", "edge_type", "follow", minimum=1, within_top=3),
    ImpressionGuarantee("inner", "entity_type", "company", minimum_by_prefix=(0, 0, 0, 0, 1)),
    ImpressionGuarantee("share", "edge_type", "subscribe", share=0.25, within_top=4),
)
CAP = (ImpressionGuarantee("cap", "edge_type", "connection", maximum=1, within_top=2),)
GUARANTEES = {
    "none": (),
    "floors": FLOORS,
    "floors and a cap": (*FLOORS, *CAP),
    "fractions": (*FLOORS[::2], ImpressionGuarantee("some", "edge_type", "subscribe", minimum=0.4, within_top=2)),
}


def page_of(guarantees):
    return PageBounds(len(VALUE), LABELS, GUARANTEES[guarantees], {"share": 9}, 40)


def p_value(counts, expected):
    """Chi-square of counts against what is expected; rare cells are taken together."""
    counts, expected = np.asarray(counts, dtype=float), np.asarray(expected, dtype=float)
    common = expected >= 5
    pooled = np.append(counts[common], counts[~common].sum()), np.append(expected[common], expected[~common].sum())
    counts, expected = (cells[pooled[1] > 0] for cells in pooled)
    if len(counts) < 2:
        return 1.0
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def draw(make):
    """Count the cohorts at each position, and keep what was logged for each placement: one value, or it is wrong."""
    n = len(VALUE)
    count, logged = np.zeros((n, n)), np.full((n, n), np.nan)
    for i in range(N):
        made = make(f"r{i}")
        assert made.kind == "exact"
        before = logged[made.order, np.arange(n)]
        assert ((made.propensity == before) | np.isnan(before)).all()
        logged[made.order, np.arange(n)] = made.propensity
        count[made.order, np.arange(n)] += 1
    return count, np.nan_to_num(logged)


def check_marginals(count, logged):
    n = len(count)
    assert (abs(logged.sum(axis=0) - 1) < 2e-4).all()  # what was never drawn in 1e5 pages is rarer than that
    p_values = np.array([p_value(count[:, p], N * logged[:, p]) for p in range(n)])
    assert p_values.min() > LEVEL / n, p_values
    deviation = abs(count - N * logged) / np.sqrt(np.maximum(N * logged * (1 - logged), 1.0))
    assert deviation.max() < 4.5, deviation  # of each cohort at each position; 1e-5 of a normal, n * n cells


@pytest.mark.parametrize(
    ("method", "guarantees"),
    [
        ("adjacent_swaps", "none"),
        ("adjacent_swaps", "floors"),
        ("adjacent_swaps", "floors and a cap"),
        ("adjacent_swaps", "fractions"),
        ("shuffle_top", "none"),
    ],
)
def test_exact_propensities_are_the_frequencies(method, guarantees):
    bounds, exploration = page_of(guarantees), PageExploration(method, depth=5, epsilon=0.4)
    count, logged = draw(lambda request: explore(bounds, VALUE, exploration, request, "salt"))
    assert ((logged > 0) & (logged < 1)).sum() >= 8  # else there was nothing to test
    check_marginals(count, logged)
    one, other = np.argwhere((logged[:, 1] > 0.02) & (logged[:, 1] < 0.98))[:2, 0]
    wrong = logged.copy()
    wrong[one, 1], wrong[other, 1] = logged[one, 1] * 1.1, logged[other, 1] - 0.1 * logged[one, 1]
    with pytest.raises(AssertionError):
        check_marginals(count, wrong)


def test_drawn_minima_have_the_frequencies_of_their_outcomes():
    some = tuple(
        ImpressionGuarantee(name, "edge_type", name, minimum=minimum, within_top=top)
        for name, minimum, top in (("subscribe", 1.4, 4), ("follow", 1.3, 4))
    )
    bounds = PageBounds(len(VALUE), LABELS, (*some, *CAP), {}, 0)
    count, logged = draw(lambda request: reordering(bounds.bound(VALUE, first_uniform(request, "salt", b"rounding"))))
    outcomes = reordering(bounds.bound(VALUE, 0.5)).outcomes
    assert len(outcomes) == 3
    check_marginals(count, logged)


def test_random_pages_have_the_propensity_of_a_shuffle():
    n, count = 8, np.zeros((8, 8))
    for i in range(N):
        count[shuffled(n, f"r{i}", "salt"), np.arange(n)] += 1
    check_marginals(count, np.tile(shuffle_propensity(n), (n, 1)))


@pytest.mark.parametrize("guarantees", GUARANTEES)
@pytest.mark.parametrize("method", ["epsilon", "plackett_luce", "shuffle_top"])
def test_sequential_propensities_multiply_to_the_frequencies_of_pages(method, guarantees):
    if (method, guarantees) == ("shuffle_top", "none"):
        return  # exact, above
    bounds = page_of(guarantees)
    exploration = PageExploration(method, depth=5, epsilon=0.6, temperature=0.7)
    pages, logged = Counter(), {}
    for i in range(N):
        made = explore(bounds, VALUE, exploration, f"r{i}", "salt")
        assert made.kind == "sequential"
        page = tuple(made.order.tolist())
        pages[page] += 1
        joint = float(made.propensity.prod())
        assert logged.setdefault(page, joint) == joint
    orders, n = np.array(list(pages)), len(VALUE)
    count, joint = np.array(list(pages.values()), dtype=float), np.array([logged[page] for page in pages])
    assert len(pages) >= 10
    assert joint.sum() == pytest.approx(1.0, abs=5e-3)  # rare pages may not have been drawn

    def fits(joint):
        of_placement = np.zeros((2, n, n))
        for order, *masses in zip(orders, count, N * joint, strict=True):
            for table, mass in zip(of_placement, masses, strict=True):
                table[order, np.arange(n)] += mass
        p_values = [p_value(count, N * joint), *(p_value(*of_placement[:, :, p]) for p in range(n))]
        return min(p_values) > LEVEL / len(p_values)

    assert fits(joint)
    shown = np.array([[joint[orders[:, p] == cohort].sum() for p in range(n)] for cohort in range(n)])
    cohort, position = np.unravel_index(abs(shown - 0.5).argmin(), shown.shape)
    wrong = joint * np.where(orders[:, position] == cohort, 1.05, 1.0)
    assert not fits(wrong / wrong.sum() * joint.sum())


def sample_values(request):
    """Draws of the values, of a seed for each request: the stand-in for coefficients drawn from their posterior."""
    rng = np.random.default_rng(int(request[1:]))
    return VALUE + 0.15 * rng.normal(size=(11, len(VALUE)))


@pytest.mark.parametrize("method", ["epsilon", "plackett_luce", "thompson"])
def test_estimated_propensities_come_from_the_distribution_of_the_pages(method):
    bounds, n = page_of("fractions"), len(VALUE)
    exploration = PageExploration(method, depth=5, epsilon=0.6, temperature=0.7, draws=10)
    placed, hits = np.zeros((n, n)), np.zeros((n, n))
    for i in range(N):
        request = f"r{i}"
        sampled = sample_values(request) if method == "thompson" else None
        made = explore(bounds, VALUE, exploration, request, "salt", sampled)
        assert (made.kind, made.draws) == ("monte_carlo", 10)
        cells = made.order, np.arange(n)
        placed[cells] += 1
        hits[cells] += made.propensity * 11 - 1

    def smallest(hits):
        tried, p_values = 10 * placed, []
        for cell in np.argwhere((placed > 50) & (placed < N)):
            c, p = cell
            table = [[placed[c, p], N - placed[c, p]], [hits[c, p], tried[c, p] - hits[c, p]]]
            if np.min(table) >= 5:
                p_values.append(chi2_contingency(table, correction=False).pvalue)
        assert len(p_values) >= 4
        return min(p_values) * len(p_values)

    assert smallest(hits) > LEVEL
    assert smallest(hits * 0.97) < LEVEL
