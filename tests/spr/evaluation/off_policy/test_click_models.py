"""Click models: the truth found again from expectations over all orders, and the estimators that rest on them."""

from __future__ import annotations

import dataclasses
import functools
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration import PositionExamination
from spr.errors import InvalidModelInput
from spr.evaluation.off_policy import (
    MODELS,
    LoggedPages,
    choose_click_model,
    choose_estimator,
    cross_fit_relevance,
    direct,
    doubly_robust,
    examination_weighted,
    fit_click_model,
    given_examination,
    iips,
)
from spr.evaluation.off_policy.click_kernels import average_over_orders, sum_above

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spr.evaluation.off_policy import ClickModel, PageEstimate

    Floats = NDArray[np.float64]

N, N_PAGES = 5, 12
EXAMINATION = np.array([1.0, 0.7, 0.5, 0.4, 0.35])
RNG = np.random.default_rng(3)
RELEVANCE = np.exp(RNG.normal(-1.5, 0.6, (N_PAGES, N)))
KIND = RNG.integers(0, 3, (N_PAGES, N))
ACTIVITY = np.exp(RNG.normal(0.0, 1.0, N_PAGES))  # of the page, which nothing predicts
NEW_ORDERS = [tuple(np.argsort(-of_page).tolist()) for of_page in RELEVANCE]
SLOPES = {
    "position": (0.0, 0.0, 0.0, 0.0),
    "cascade": (-0.6, 0.0, 0.0, 0.0),
    "cannibalization": (0.0, -0.3, 0.0, 0.0),
    "cascade and cannibalization": (-0.6, -0.3, 0.0, 0.0),
    "all kinds": (-0.6, -0.3, 0.2, -0.1),
    "decay by kind": (0.0, 0.0, 0.0, 0.0),
}
DECAY = np.array([0.0, -0.2, 0.1])  # of each kind, by log(1 + position)


def reward_of(name: str) -> Callable[[int, tuple[int, ...]], Floats]:
    cascade, same, *each = SLOPES[name]

    @functools.cache
    def reward(page: int, order: tuple[int, ...]) -> Floats:
        made = np.empty(N)
        for position, cohort in enumerate(order):
            above = list(order[:position])
            kinds = KIND[page, above]
            effect = cascade * RELEVANCE[page, above].sum() + same * (kinds == KIND[page, cohort]).sum()
            effect += sum(slope * (kinds == kind).sum() for kind, slope in zip((1, 2), each, strict=True))
            effect += np.log1p(position) * DECAY[KIND[page, cohort]] * (name == "decay by kind")
            made[cohort] = RELEVANCE[page, cohort] * EXAMINATION[position] * np.exp(effect)
        return ACTIVITY[page] * made

    return reward


@pytest.fixture(scope="module", params=list(SLOPES))
def known(
    request: pytest.FixtureRequest, enumerate_orders: Callable[..., tuple[LoggedPages, float]]
) -> tuple[str, LoggedPages, float, Floats]:
    name = request.param
    pages, truth = enumerate_orders(
        reward_of(name),
        NEW_ORDERS,
        features=RELEVANCE[:, :, None],
        group=np.array([f"kind {k}" for k in range(3)])[KIND],
    )
    return name, pages, truth, pages.features[:, 0]


def test_the_truth_is_found_again_from_expectations(known: tuple[str, LoggedPages, float, Floats]) -> None:
    name, pages, truth, relevance = known
    model = fit_click_model(pages, relevance, name)
    np.testing.assert_allclose(model.examination, EXAMINATION, rtol=1e-3)
    np.testing.assert_allclose(model.own_slope[:2], [1.0, 0.0], atol=1e-3)
    if "kind" not in name:  # there the kinds have numbers of their own
        np.testing.assert_allclose(model.slope, [s for s in SLOPES[name] if s], rtol=1e-3)
    assert examination_weighted(pages, model).value == pytest.approx(truth, rel=1e-4)
    assert direct(pages, model).value == pytest.approx(truth, rel=1e-4)


def test_a_model_without_what_matters_is_biased_and_doubly_robust_repairs_a_wrong_one(
    enumerate_orders: Callable[..., tuple[LoggedPages, float]],
) -> None:
    pages, truth = enumerate_orders(reward_of("cascade"), NEW_ORDERS)
    relevance = np.ones(len(pages.label))
    assert abs(examination_weighted(pages, fit_click_model(pages, relevance)).value / truth - 1.0) > 0.01
    pages, truth = enumerate_orders(reward_of("position"), NEW_ORDERS)
    wrong = given_examination(pages, relevance, PositionExamination(np.array([1.0, 0.2])))
    assert abs(direct(pages, wrong).value / truth - 1.0) > 0.05
    assert doubly_robust(pages, wrong).value == pytest.approx(truth, rel=1e-9)


def test_given_examination_is_taken_as_it_is(enumerate_orders: Callable[..., tuple[LoggedPages, float]]) -> None:
    pages, truth = enumerate_orders(reward_of("position"), NEW_ORDERS)
    model = given_examination(pages, np.ones(len(pages.label)), PositionExamination(EXAMINATION))
    found = examination_weighted(pages, model)
    assert found.value == pytest.approx(truth, rel=1e-9)
    assert found.influence.sum() == pytest.approx(0.0, abs=1e-6)


def test_means_over_orders_are_those_of_brute_force() -> None:
    relevance, group, offset = RELEVANCE[0], KIND[0].astype(np.int64), np.array([0, N])
    terms, slope = np.array([0, 1, 3, 6, 7]), np.array([-0.8, 0.4, -0.3, 0.2, -0.1])
    mean, gradient = average_over_orders(
        offset,
        np.arange(N),
        np.zeros(N, dtype=np.int64),
        relevance,
        group,
        3,
        EXAMINATION,
        np.arange(N),
        terms,
        slope,
        N,
    )

    def brute(slope: Floats) -> Floats:
        total = np.zeros(N)
        orders = list(permutations(range(N)))
        for order in orders:
            above = sum_above(offset, np.array(order), relevance, group, 3)[:, terms]
            total[list(order)] += EXAMINATION * np.exp(above[list(order)] @ slope)
        return total / len(orders)

    np.testing.assert_allclose(mean, brute(slope), rtol=1e-12)
    for i in range(len(slope)):
        step = np.eye(len(slope))[i] * 1e-6
        numeric = (np.log(brute(slope + step)) - np.log(brute(slope - step))) / 2e-6
        np.testing.assert_allclose(gradient[:, N + i], numeric, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :N].sum(axis=1), 1.0)


def _drawn(n_pages: int, name: str, seed: int) -> tuple[LoggedPages, Floats]:
    rng = np.random.default_rng(seed)
    which, position = rng.integers(0, N_PAGES, n_pages), rng.random((n_pages, N)).argsort(axis=1)
    reward = reward_of(name)
    mean = np.array([reward(int(w), tuple(np.argsort(p))) for w, p in zip(which, position, strict=True)])
    label = rng.random((n_pages, N)) < np.minimum(mean, 1.0)
    pages = LoggedPages.of(
        np.repeat(np.arange(n_pages), N),
        position.ravel(),
        np.array([np.argsort(NEW_ORDERS[w]) for w in which]).ravel(),
        label.ravel(),
        viewer=np.repeat(np.arange(n_pages) // 2, N),
        group=KIND[which].ravel(),
        features=RELEVANCE[which].reshape(-1, 1),
        importance=np.repeat(rng.random(n_pages) + 0.5, N),
    )
    return pages, pages.features[:, 0]


@pytest.mark.parametrize("estimator", [examination_weighted, direct])
def test_influence_is_what_one_more_page_does(estimator: Callable[[LoggedPages, ClickModel], PageEstimate]) -> None:
    """One more page of P moves the estimate by its influence / P, the fit of the click model included."""
    name, n_pages = "cascade and cannibalization", 4000
    pages, relevance = _drawn(n_pages, name, 5)
    found = estimator(pages, fit_click_model(pages, relevance, name))
    for page in np.argsort(-np.abs(found.influence))[[0, 5, 500, 3000]].tolist():
        order = np.append(np.arange(n_pages), page)
        rows = np.concatenate([np.arange(pages.offset[p], pages.offset[p + 1]) for p in order])
        more = LoggedPages.of(
            np.repeat(np.arange(len(order)), N),
            pages.position[rows],
            pages.new_position[rows],
            pages.label[rows],
            group=pages.group[rows],
            importance=pages.importance[rows],
        )
        again = fit_click_model(more, relevance[rows], name)
        moved = (estimator(more, again).value - found.value) * len(order)
        assert moved == pytest.approx(found.influence[page], rel=0.02, abs=0.002)


@pytest.mark.parametrize("name", ["position", "cascade", "cannibalization"])
def test_held_out_viewers_choose_the_click_model_of_the_world(name: str) -> None:
    pages, relevance = _drawn(12_000, name, 7)
    models = {model: fit_click_model(pages, relevance, model) for model in MODELS}
    found = choose_click_model(models, pages.viewer)
    assert found.chosen == name
    assert found.table.loc["position", "gain"] == 0.0


def test_relevance_is_predicted_for_viewers_that_did_not_teach_it() -> None:
    pages, relevance = _drawn(6000, "position", 8)
    found, fold = cross_fit_relevance(pages), pages.folds(5)[pages.page]
    assert np.corrcoef(np.log(found), np.log(relevance))[0, 1] > 0.8
    # Interactions of the first fold reach the predictions of the others, and not its own. Nothing is left out by lot
    # where more than a quarter of the rows has an interaction.
    active = dataclasses.replace(pages, label=np.maximum(pages.label, np.arange(len(fold)) % 2))
    altered = dataclasses.replace(active, label=np.where(fold == 0, 1.0, active.label))
    before, after = cross_fit_relevance(active), cross_fit_relevance(altered)
    np.testing.assert_allclose(before[fold == 0], after[fold == 0])
    assert (after[fold == 1] > before[fold == 1]).all()


def test_relevance_without_features_or_interactions_is_the_mean() -> None:
    place = np.tile(np.arange(2), 50)
    pages = LoggedPages.of(np.repeat(np.arange(50), 2), place, place, np.tile([1.0, 0.0], 50))
    np.testing.assert_allclose(cross_fit_relevance(pages), 0.5)
    none = LoggedPages.of(np.repeat(np.arange(50), 2), place, place, np.zeros(100), features=np.ones((100, 1)))
    assert (cross_fit_relevance(none) > 0).all()
    with pytest.raises(InvalidModelInput, match="2 or more"):
        cross_fit_relevance(pages, n_folds=1)


def test_what_cannot_be_fitted_is_refused() -> None:
    place = np.tile(np.arange(2), 3)
    none = LoggedPages.of(np.repeat(np.arange(3), 2), place, place, np.zeros(6))
    with pytest.raises(InvalidModelInput, match="no interaction"):
        fit_click_model(none, np.ones(6))
    with pytest.raises(InvalidModelInput, match="known: position"):
        fit_click_model(none, np.ones(6), "cascading")


def test_the_choice_needs_evidence_against_the_stronger_assumption() -> None:
    names = ["doubly_robust", "iips", "position_based", "sequential"]
    covariance = np.diag([0.04, 0.05, 0.01, 0.02]) ** 2
    choose = choose_estimator
    close, far = np.array([1.0, 1.0, 1.09, 1.3]), np.array([1.0, 1.0, 1.17, 1.3])
    assert choose(names, close, covariance, click_model="position")[0] == "position_based"  # type: ignore[index]  # there is one
    chosen, reason = choose(names, far, covariance, click_model="position")  # type: ignore[misc]  # there is one
    assert chosen == "doubly_robust"
    assert "position_based differ" in reason
    assert choose(names, close, covariance, click_model="cascade")[0] == "sequential"  # type: ignore[index]  # there is one
    assert choose(["rips"], np.array([1.0]), np.eye(1), click_model="position") is None


def test_iips_and_doubly_robust_agree_with_a_right_model_and_the_latter_has_less_variance() -> None:
    pages, relevance = _drawn(4000, "position", 9)
    plain, robust = iips(pages), doubly_robust(pages, fit_click_model(pages, relevance))
    difference = plain.influence - robust.influence
    assert abs(plain.value - robust.value) < 4 * difference.std() / np.sqrt(pages.n_pages)
    assert robust.influence.std() < plain.influence.std()
