"""Inverse propensity and the pseudo-inverse: exact over all orders where they say so, and biased elsewhere."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spr.errors import InvalidModelInput
from spr.evaluation.off_policy import LoggedPages, iips, pseudo_inverse, rips, self_normalised_iips, whole_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spr.evaluation.off_policy import PageEstimate

    Floats = NDArray[np.float64]

NEW_ORDERS = [(2, 0, 3, 1), (0, 1, 2), (3, 2, 1, 0), (1, 0)]
TABLE = np.random.default_rng(0).random((len(NEW_ORDERS), 4, 4))  # by page, cohort and position


def separable(page: int, order: tuple[int, ...]) -> Floats:
    """Any function of cohort and position."""
    reward = np.empty(len(order))
    reward[list(order)] = TABLE[page, list(order), np.arange(len(order))]
    return reward


def cascade(page: int, order: tuple[int, ...]) -> Floats:
    """What stands above matters, pair by pair and in its order; what stands below does not."""
    reward, read = np.empty(len(order)), 1.0
    for position, cohort in enumerate(order):
        reward[cohort] = read * TABLE[page, cohort, position]
        read *= 1.0 - TABLE[page, cohort, 0]
    return reward


def anything(page: int, order: tuple[int, ...]) -> Floats:
    """The whole order matters."""
    rng = np.random.default_rng([page, *order])
    return np.asarray(rng.random(len(order)))


@pytest.mark.parametrize(
    ("estimator", "reward"),
    [
        (whole_page, anything),
        (whole_page, cascade),
        (iips, separable),
        (self_normalised_iips, separable),
        (pseudo_inverse, separable),
        (lambda pages: rips(pages, fewest_pages=0), cascade),
        (lambda pages: rips(pages, fewest_pages=0), separable),
    ],
)
def test_estimators_are_exact_over_all_orders_where_their_assumption_holds(
    estimator: Callable[[LoggedPages], PageEstimate],
    reward: Callable[[int, tuple[int, ...]], Floats],
    enumerate_orders: Callable[..., tuple[LoggedPages, float]],
) -> None:
    # The pages have one length each time: self-normalised weights are exact within a length.
    for page, new_order in enumerate(NEW_ORDERS):
        pages, truth = enumerate_orders(lambda _, order, page=page: reward(page, order), [new_order])
        found = estimator(pages)
        assert found.value == pytest.approx(truth, rel=1e-12)
        assert found.influence.sum() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("estimator", [whole_page, iips, pseudo_inverse])
def test_lengths_may_differ(
    estimator: Callable[[LoggedPages], PageEstimate], enumerate_orders: Callable[..., tuple[LoggedPages, float]]
) -> None:
    pages, truth = enumerate_orders(separable, NEW_ORDERS)
    assert estimator(pages).value == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("estimator", [iips, pseudo_inverse])
def test_a_cascade_biases_what_supposes_none(
    estimator: Callable[[LoggedPages], PageEstimate], enumerate_orders: Callable[..., tuple[LoggedPages, float]]
) -> None:
    pages, truth = enumerate_orders(cascade, NEW_ORDERS[:1])
    assert abs(estimator(pages).value / truth - 1.0) > 0.01


def test_the_pseudo_inverse_is_that_of_the_second_moment(
    enumerate_orders: Callable[..., tuple[LoggedPages, float]],
) -> None:
    n, new_order = 4, NEW_ORDERS[0]
    orders = list(permutations(range(n)))
    matrices = np.array([np.eye(n)[list(order)].ravel() for order in orders])  # [position, cohort]
    moment = matrices.T @ matrices / len(orders)
    weight = np.eye(n)[list(new_order)].ravel() @ np.linalg.pinv(moment) @ matrices.T
    pages, _ = enumerate_orders(lambda _, order: np.full(n, 0.25 * (hash(order) % 7)), [new_order])
    page_reward = pages.sum_by_page(pages.label)
    assert pseudo_inverse(pages).value == pytest.approx(float((weight * page_reward).mean()), rel=1e-9)


def test_iips_takes_the_marginal_propensities_of_another_policy() -> None:
    # The logged page is (0, 1, 2) with probability 0.7 and (1, 0, 2) with 0.3; the new page is (1, 0, 2).
    orders = [(0, 1, 2)] * 7 + [(1, 0, 2)] * 3
    position = np.array([np.argsort(order) for order in orders])
    marginal = np.where(position == [0, 1, 2], [0.7, 0.7, 1.0], [0.3, 0.3, 1.0])
    label = TABLE[0][np.arange(3), position]
    pages = LoggedPages.of(
        np.repeat(np.arange(10), 3),
        position.ravel(),
        np.tile(np.argsort((1, 0, 2)), 10),
        label.ravel(),
        propensity=marginal.ravel(),
    )
    assert not pages.uniform
    assert iips(pages).value == pytest.approx(TABLE[0, 1, 0] + TABLE[0, 0, 1] + TABLE[0, 2, 2])
    for estimator in (whole_page, rips, pseudo_inverse):
        with pytest.raises(InvalidModelInput, match="fully shuffled"):
            estimator(pages)


def test_clipping_only_lowers_by_what_it_cuts(enumerate_orders: Callable[..., tuple[LoggedPages, float]]) -> None:
    pages, truth = enumerate_orders(separable, NEW_ORDERS)
    assert iips(pages, clip=4.0).value == pytest.approx(truth)  # no weight is larger
    weight = np.where(pages.new_position == pages.position, 1.0 / pages.propensity, 0.0)
    cut = pages.sum_by_page(np.maximum(weight - 2.5, 0.0) * pages.label).mean()
    assert iips(pages, clip=2.5).value == pytest.approx(truth - cut)
    for estimator in (whole_page, iips, self_normalised_iips, rips):
        with pytest.raises(InvalidModelInput, match="above 0"):
            estimator(pages, clip=0.0)


def test_effective_pages_tell_how_much_agrees() -> None:
    n, rng = 5, np.random.default_rng(1)
    position = rng.random((4000, n)).argsort(axis=1)
    pages = LoggedPages.of(
        np.repeat(np.arange(4000), n), position.ravel(), np.tile(np.arange(n), 4000), np.ones(4000 * n)
    )
    assert iips(pages).effective_pages == pytest.approx(4000 / n, rel=0.05)
    assert whole_page(pages).effective_pages == pytest.approx(4000 / 120, rel=0.5)
    assert pseudo_inverse(pages).effective_pages < iips(pages).effective_pages


def test_without_any_agreement_there_is_no_estimate() -> None:
    pages = LoggedPages.of(["a", "a", "b", "b"], [0, 1, 0, 1], [1, 0, 1, 0], [1, 0, 0, 1])
    for estimator in (whole_page, self_normalised_iips, rips):
        found = estimator(pages)
        assert np.isnan(found.value)
        assert found.effective_pages == 0.0
    assert iips(pages).value == 0.0


def test_a_page_of_one_cohort_is_itself() -> None:
    pages = LoggedPages.of(["a"], [0], [0], [1.0])
    for estimator in (whole_page, iips, self_normalised_iips, rips, pseudo_inverse):
        assert estimator(pages).value == 1.0
