"""What stands above: counted by hand, and the weighted shuffle against all subsets and scipy's distributions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_hypergeom, nchypergeom_fisher
from statsmodels.discrete.conditional_models import ConditionalLogit

from spr import Config
from spr.errors import TableError
from spr.evaluation.arrangements import fit_weights, read_arrangements, weighted_shuffle
from spr.tables import read_impressions

CONFIG = Config.parse(
    '[entity_types]\na = { edge_type = "connection" }\nb = { edge_type = "follow" }\nc = { edge_type = "follow" }\n'
)
ITSELF = {"a": "a", "b": "b", "c": "c"}


def page(request: str, types: str, *, policy: str = "random", response: float | None = 1.0) -> pd.DataFrame:
    """One cohort of two entities for each letter, top first; each has a response."""
    rows = [
        {
            "request_id": request,
            "at": pd.Timestamp("2026-01-02", tz="UTC"),
            "viewer_id": f"viewer of {request}",
            "policy": policy,
            "cohort_id": f"{letter}{place}",
            "entity_type": letter,
            "position": place,
            "slot": slot,
            "entity_id": f"e{slot}",
            "ranker_version": "1",
            "raw_score": 0.5,
            "response": response,
            "downstream": 0.0 if response is not None else None,
        }
        for place, letter in enumerate(types)
        for slot in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_what_stands_above_is_counted() -> None:
    log = pd.concat([page("p", "abca"), page("q", "cb"), page("r", "bbbb", policy="spr")])
    found = read_arrangements(read_impressions(log, CONFIG), ITSELF, "response")
    assert found.types == ("a", "b", "c")
    assert found.type_code.tolist() == [0, 1, 2, 0, 2, 1]
    assert found.above.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert found.others.tolist() == [[1, 1, 1], [2, 0, 1], [2, 1, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]]
    assert found.count.tolist() == [2.0] * 6
    assert found.page.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.place.tolist() == [0, 1, 2, 3, 0, 1]


def test_edge_types_are_one_type() -> None:
    edge_type = {name: kind.edge_type for name, kind in CONFIG.entity_types.items()}
    found = read_arrangements(read_impressions(page("p", "abc"), CONFIG), edge_type, "response")
    assert found.types == ("connection", "follow")
    assert found.above.tolist() == [[0, 0], [1, 0], [1, 1]]


def test_an_open_entity_leaves_its_cohort_open_and_above_the_others() -> None:
    log = page("p", "abc")
    log.loc[1, "response"] = None
    found = read_arrangements(read_impressions(log, CONFIG), ITSELF, "response")
    assert np.isnan(found.count).tolist() == [True, False, False]
    assert found.above[2].tolist() == [1, 1, 0]


def test_cohorts_that_are_not_scorable_are_not_shuffled() -> None:
    log = page("p", "abc")
    log.loc[log["entity_type"] == "b", "raw_score"] = None
    found = read_arrangements(read_impressions(log, CONFIG), ITSELF, "response")
    assert found.types == ("a", "c")
    assert found.above.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (page("p", "abc", policy="spr"), "no page of policy 'random'"),
        (page("p", "a"), "no page of policy 'random' has two cohorts"),
        (page("p", "ab", response=None), "response is null on all pages"),
    ],
)
def test_a_log_that_tells_nothing_is_refused(log: pd.DataFrame, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_arrangements(read_impressions(log, CONFIG), ITSELF, "response")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any),
    st.integers(0, 12),
    st.integers(0, 2**32 - 1),
)
def test_the_weighted_shuffle_equals_all_subsets(others: list[int], place: int, seed: int) -> None:
    place = min(place, sum(others))
    log_weight = np.random.default_rng(seed).normal(0, 1.5, len(others))
    kinds = np.repeat(np.arange(len(others)), others)
    above = np.array(
        [np.bincount(kinds[list(chosen)], minlength=len(others)) for chosen in combinations(range(len(kinds)), place)]
    )
    weight = np.exp(above @ log_weight)
    mean = weight @ above / weight.sum()
    second = np.einsum("i,ij,ik->jk", weight, above, above) / weight.sum()
    log_mean, found, covariance = weighted_shuffle(np.array([others]), np.array([place]), log_weight)
    assert log_mean[0] == pytest.approx(np.log(weight.mean()), abs=1e-10)
    assert found[0] == pytest.approx(mean, abs=1e-10)
    assert covariance[0] == pytest.approx(second - np.outer(mean, mean), abs=1e-9)


def test_the_weighted_shuffle_of_long_pages_equals_scipy() -> None:
    others, place = np.array([[60, 90, 50]]), np.array([80])
    log_mean, mean, covariance = weighted_shuffle(others, place, np.zeros(3))
    plain = multivariate_hypergeom(m=others[0], n=80)
    assert log_mean[0] == pytest.approx(0.0, abs=1e-12)
    assert mean[0] == pytest.approx(plain.mean(), rel=1e-10)
    assert covariance[0] == pytest.approx(plain.cov(), abs=1e-9)
    two = nchypergeom_fisher(150, 60, 80, np.exp(0.7))
    _, mean, covariance = weighted_shuffle(np.array([[60, 90]]), place, np.array([0.7, 0.0]))
    assert mean[0, 0] == pytest.approx(two.mean(), rel=1e-9)
    assert covariance[0, 0, 0] == pytest.approx(two.var(), rel=1e-7)


def test_weights_are_those_of_a_conditional_logit_over_all_arrangements() -> None:
    rng = np.random.default_rng(1)
    others, place = rng.multinomial(4, [0.4, 0.3, 0.3], size=250), rng.integers(1, 4, size=250)
    chosen, design, group, above = [], [], [], []
    for number, (of_type, top) in enumerate(zip(others, place, strict=True)):
        kinds = np.repeat(np.arange(3), of_type)
        arrangements = np.array([np.bincount(kinds[list(c)], minlength=3) for c in combinations(range(4), top)])
        weight = np.exp(arrangements @ [0.6, -0.4, 0.0])
        true = rng.choice(len(arrangements), p=weight / weight.sum())
        above.append(arrangements[true])
        chosen += [float(i == true) for i in range(len(arrangements))]
        design += list(arrangements[:, :2])
        group += [number] * len(arrangements)
    model = ConditionalLogit(np.array(chosen), np.array(design, dtype=float), groups=np.array(group))
    ours, _, information = fit_weights(np.sum(above, axis=0).astype(float), others, place, np.ones(250))
    theirs = model.fit(disp=0)  # their optimiser stops early, so that their gradient is asked as well
    assert model.score((ours - ours[2])[:2]) == pytest.approx(0.0, abs=1e-4)
    assert (ours - ours[2])[:2] == pytest.approx(theirs.params, abs=1e-3)
    assert ours.sum() == pytest.approx(0.0, abs=1e-10)
    contrast = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    spread = np.diag(contrast @ np.linalg.pinv(information, rcond=1e-9) @ contrast.T)
    assert np.sqrt(spread) == pytest.approx(theirs.bse, rel=1e-3)


def test_weights_of_labels_on_one_side_run_away_and_leave_no_information() -> None:
    others, place = np.tile([2, 2], (30, 1)), np.full(30, 2)
    weights, at_zero, information = fit_weights(np.array([60.0, 0.0]), others, place, np.ones(30))
    assert weights[0] - weights[1] > 15
    assert information[0, 0] < 1e-5 * at_zero[0, 0]
