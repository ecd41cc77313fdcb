"""Values with intervals: their shape, differences between policies, what disagrees, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from calibration import PositionExamination
from spr.errors import InvalidModelInput
from spr.evaluation.off_policy import ESTIMATORS, LoggedPages, OffPolicyValue, evaluate_pages

N = 6


def make_pages(n_pages: int, seed: int, *, stops: float = 0.0) -> tuple[LoggedPages, float]:
    """Draw pages that are read by position, or from the top until an interaction with some probability."""
    rng = np.random.default_rng(seed)
    appeal = 0.05 + 0.45 * rng.random((n_pages, N)) ** 2
    order = rng.random((n_pages, N)).argsort(axis=1)
    best = np.argsort(-(appeal + 0.05 * rng.standard_normal((n_pages, N))), axis=1)
    rows, depth = np.arange(n_pages)[:, None], 0.9 ** np.arange(N)

    def mean(order: np.ndarray) -> np.ndarray:
        shown = appeal[rows, order]
        read = np.cumprod(np.insert(1.0 - stops * shown[:, :-1], 0, 1.0, axis=1), axis=1)
        return shown * depth * read

    would = rng.random((n_pages, N)) < appeal[rows, order]
    stopped = would & (rng.random((n_pages, N)) < stops)
    read = np.cumsum(np.insert(stopped[:, :-1], 0, False, axis=1), axis=1) == 0
    label = would & read & (rng.random((n_pages, N)) < depth)
    if stops == 0.0:
        label = rng.random((n_pages, N)) < mean(order)
    position = order.argsort(axis=1)
    pages = LoggedPages.of(
        np.repeat(np.arange(n_pages), N),
        position.ravel(),
        best.argsort(axis=1).ravel(),
        np.take_along_axis(label, position, axis=1).ravel(),
        viewer=np.repeat(np.arange(n_pages) // 3, N),
        features=appeal.reshape(-1, 1),
        importance=np.where(appeal > 0.2, 2.0, 1.0).ravel(),
    )
    return pages, float(mean(best).sum(axis=1).mean())


@pytest.fixture(scope="module")
def by_position() -> tuple[OffPolicyValue, float, LoggedPages]:
    pages, truth = make_pages(6000, 1)
    return evaluate_pages(pages, n_left_out=7), truth, pages


def test_every_estimator_is_near_the_truth_and_says_how_near(
    by_position: tuple[OffPolicyValue, float, LoggedPages],
) -> None:
    found, truth, _ = by_position
    table = found.to_pandas()
    assert table["estimator"].tolist() == list(ESTIMATORS) * 2
    assert table["measure"].tolist() == ["interactions"] * 10 + ["value"] * 10
    interactions = table.iloc[:10]
    z = (interactions["estimate"] - truth) / interactions["standard_error"]
    assert z.abs().max() < 4  # one of nine is beyond once in 1,500 logs, were they independent
    assert interactions["low"].isna().tolist() == [True] + [False] * 9  # 6,000 / 6! = 8 pages are in the new order
    assert found.chosen == {"interactions": "position_based", "value": "position_based"}
    assert table["chosen"].sum() == 2
    whole = table["estimator"] == "whole_page"
    assert ((table["low"] < table["estimate"]) & (table["estimate"] < table["high"]) | whole).all()


def test_gains_are_paired_with_what_was_logged(by_position: tuple[OffPolicyValue, float, LoggedPages]) -> None:
    found, _, pages = by_position
    table = found.to_pandas()
    np.testing.assert_allclose(table["gain"], table["estimate"] - table["logged"])
    assert table["logged"].iloc[0] == pytest.approx(pages.label.sum() / pages.n_pages)
    assert table["logged"].iloc[-1] == pytest.approx(pages.reward.sum() / pages.n_pages)
    position_based = table[table["estimator"] == "position_based"].iloc[0]
    # what makes a viewer active is in both
    assert position_based["gain_high"] - position_based["gain_low"] < position_based["high"] - position_based["low"]


def test_two_policies_are_compared_on_the_same_pages(by_position: tuple[OffPolicyValue, float, LoggedPages]) -> None:
    found, _, pages = by_position
    same = found.minus(found)
    np.testing.assert_allclose(same["difference"], 0.0)
    np.testing.assert_allclose(same["p_value"].dropna(), 1.0)
    worst = evaluate_pages(pages.ordered_by(pages.new_position.astype(float)), ["iips", "position_based"])
    difference = found.minus(worst)
    assert difference["estimator"].tolist() == ["iips", "position_based"] * 2
    assert (difference["low"] > 0).all()
    assert (difference["p_value"] < 1e-3).all()
    other, _ = make_pages(6000, 2)
    with pytest.raises(InvalidModelInput, match="not of the same logged pages"):
        found.minus(evaluate_pages(other, ["iips"]))


def test_words_say_what_to_believe(by_position: tuple[OffPolicyValue, float, LoggedPages]) -> None:
    found, _, _ = by_position
    text = str(found)
    assert "7 left out" in text
    assert "interactions: believe position_based" in text
    assert "prefer the click model 'position'" in text
    assert repr(found) == text


def test_a_cascade_is_noticed_and_said() -> None:
    pages, truth = make_pages(12_000, 3, stops=0.9)
    found = evaluate_pages(pages)
    assert found.chosen["interactions"] == "sequential"
    disagreements = found.disagreements()
    pair = disagreements[(disagreements["first"] == "sequential") & (disagreements["second"] == "position_based")].iloc[
        0
    ]
    assert pair["p_value"] < 0.01
    assert "what stands above a cohort matters" in pair["finding"]
    assert pair["finding"] in str(found)
    table = found.to_pandas().set_index("estimator").iloc[:10]
    assert abs(table.loc["sequential", "estimate"] / truth - 1) < 0.05
    assert abs(table.loc["position_based", "estimate"] / truth - 1) > 0.05


def test_no_disagreement_where_positions_are_all(by_position: tuple[OffPolicyValue, float, LoggedPages]) -> None:
    found, _, _ = by_position
    table = found.disagreements()
    assert len(table) == 8
    assert (table["p_value"] > 1e-3).all()


def test_importance_of_one_makes_value_of_interactions() -> None:
    pages, _ = make_pages(500, 4)
    found = evaluate_pages(pages.counting_interactions(), ["iips", "rips"])
    np.testing.assert_array_equal(found.estimate[0], found.estimate[1])


def test_known_examination_leaves_less_to_estimate(by_position: tuple[OffPolicyValue, float, LoggedPages]) -> None:
    found, truth, pages = by_position
    known = evaluate_pages(pages, ["position_based"], examination=PositionExamination(0.9 ** np.arange(N)))
    row, estimated = known.to_pandas().iloc[0], found.to_pandas().set_index("estimator").iloc[:10].loc["position_based"]
    assert abs(row["estimate"] - truth) < 4 * row["standard_error"]
    assert row["standard_error"] < estimated["standard_error"]


def test_pages_that_are_not_shuffles_leave_placements() -> None:
    pages, _ = make_pages(500, 5)
    other = dataclasses.replace(pages, propensity=np.where(pages.position < 3, 0.2, 1 / N))
    found = evaluate_pages(other)
    assert found.estimators == ("iips", "self_normalised_iips")
    assert found.click_models is None
    with pytest.raises(InvalidModelInput, match="fully shuffled"):
        evaluate_pages(other, ["position_based"])


def test_one_viewer_has_no_interval() -> None:
    pages = LoggedPages.of(["a", "a"], [0, 1], [0, 1], [1, 0])
    found = evaluate_pages(pages, ["iips"])
    assert found.to_pandas()["estimate"].tolist() == [2.0, 2.0]
    assert found.to_pandas()["low"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimators": ["ips"]}, "unknown estimator 'ips'"),
        ({"estimators": []}, "no estimator"),
        ({"estimators": "iips"}, 'allowed: "all"'),
        ({"level": 1.0}, "level is 1.0"),
        ({"clip": -1.0}, "above 0"),
        ({"n_folds": 1}, "2 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    pages, _ = make_pages(200, 6)
    with pytest.raises(InvalidModelInput, match=message):
        evaluate_pages(pages, **arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_a_log_without_interactions_is_refused() -> None:
    pages, _ = make_pages(50, 7)
    with pytest.raises(InvalidModelInput, match="no interaction"):
        evaluate_pages(dataclasses.replace(pages, label=np.zeros(len(pages.label))))
