"""Evaluators by name: they equal the plain formulas, entity by entity too, and refuse what they cannot read."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from spr.errors import InvalidModelInput, NotFitted
from spr.glmix import Evaluator, GLMixClassifier, GLMixRegressor, Linear, RandomEffect, evaluate
from spr.metrics import GroupMean, log_loss, normalized_cross_entropy, precision_at_k, top1_rate

NAMES = ["log_loss", "normalized_cross_entropy", "auc", "rmse", "auc:user", "weighted_auc:user", "precision@3:user"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user = rng.integers(0, 60, 1200)
    x = rng.normal(size=1200)
    margin = x + rng.normal(size=60)[user]
    y = (rng.random(1200) < 1 / (1 + np.exp(-margin))).astype(float)
    return pd.DataFrame({"x": x, "user": user, "y": y, "weight": rng.choice([0.0, 1.0, 2.0], 1200)})


@pytest.fixture(scope="module")
def model(rows: pd.DataFrame) -> GLMixClassifier:
    return GLMixClassifier(Linear(["x"]), [RandomEffect("member", "user")]).fit(rows, rows["y"])


def test_evaluate_equals_the_plain_formulas(rows: pd.DataFrame, model: GLMixClassifier) -> None:
    found = evaluate(model, rows, rows["y"], NAMES)
    y, p, s = rows["y"], model.predict_proba(rows)[:, 1], model.decision_function(rows)
    assert list(found.index) == NAMES
    assert found["log_loss"] == pytest.approx(log_loss(y, p))
    assert found["normalized_cross_entropy"] == pytest.approx(normalized_cross_entropy(y, p))
    assert found["auc"] == pytest.approx(roc_auc_score(y, s))
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((y - p) ** 2)))
    each = rows.assign(s=s).groupby("user")
    by_user = each.apply(lambda part: roc_auc_score(part["y"], part["s"]), include_groups=False)
    assert found["auc:user"] == pytest.approx(by_user.mean())
    assert found["weighted_auc:user"] == pytest.approx(np.average(by_user, weights=each.size()))
    top = each.apply(lambda part: part.nlargest(3, "s")["y"].mean(), include_groups=False)
    assert found["precision@3:user"] == pytest.approx(top.mean())


def test_evaluate_of_regressors_is_of_the_expected_response(rows: pd.DataFrame) -> None:
    count = np.random.default_rng(1).poisson(np.exp(0.3 * rows["x"]))
    regressor = GLMixRegressor(Linear(["x"]), family="poisson").fit(rows, count)
    found = evaluate(regressor, rows, count, ["poisson_loss", "rmse"], sample_weight=rows["weight"])
    m = regressor.decision_function(rows)
    assert found["poisson_loss"] == pytest.approx(np.average(np.exp(m) - count * m, weights=rows["weight"]))
    assert found["rmse"] == pytest.approx(np.sqrt(np.average((count - np.exp(m)) ** 2, weights=rows["weight"])))


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_weight_change_nothing(rows: pd.DataFrame, model: GLMixClassifier, name: str) -> None:
    kept = rows[rows["weight"] > 0]
    one = evaluate(model, rows, rows["y"], name, sample_weight=rows["weight"])
    other = evaluate(model, kept, kept["y"], name, sample_weight=kept["weight"])
    assert one[name] == pytest.approx(other[name], abs=1e-12)


def test_offset_moves_the_margin(rows: pd.DataFrame, model: GLMixClassifier) -> None:
    shifted = evaluate(model, rows, rows["y"], ["log_loss", "auc"], offset=np.full(len(rows), 3.0))
    plain = evaluate(model, rows, rows["y"], ["log_loss", "auc"])
    assert shifted["log_loss"] > plain["log_loss"] + 0.5
    assert shifted["auc"] == pytest.approx(plain["auc"])


def test_group_mean_counts_the_groups_it_leaves_out() -> None:
    y, m = [0, 1, 1, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    user = ["a", "a", "b", "b", "c", "c"]
    assert Evaluator.named("auc:user").group_mean(y, m, user) == GroupMean(mean=0.75, groups=2, left_out=1)
    unweighted = [1, 0, 1, 1, 1, 1]  # without its positive, "a" has one label
    assert Evaluator.named("auc:user").group_mean(y, m, user, weight=unweighted) == GroupMean(0.5, 1, 2)
    assert Evaluator.named("weighted_auc:user").group_mean(y, m, user, weight=[3, 3, 1, 1, 1, 1]).mean == 0.875
    nobody = ["a", "a", None, None, "c", "c"]
    assert Evaluator.named("auc:user").group_mean(y, m, nobody) == GroupMean(mean=0.75, groups=2, left_out=0)
    assert np.isnan(Evaluator.named("auc:user").evaluate([1, 1], [0.1, 0.2], groups=["a", "a"]))


def test_precision_at_k_of_ties_is_the_expectation_over_their_orders() -> None:
    y, s = np.array([1.0, 0.0, 1.0, 0.0, 0.0]), np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    for k in (1, 2, 3, 4, 5, 7):
        orders = [np.array([0, *middle, 4]) for middle in itertools.permutations([1, 2, 3])]
        expected = np.mean([y[order][:k].sum() / k for order in orders])
        assert precision_at_k(y, s, np.zeros(5), k).mean == pytest.approx(expected)


def test_precision_at_one_is_the_rate_at_the_top(rows: pd.DataFrame) -> None:
    order_by = rows["x"].round(1)
    assert precision_at_k(rows["y"], order_by, rows["user"], 1).mean == pytest.approx(
        top1_rate(rows["y"], order_by, rows["user"]).mean
    )


def test_precision_at_k_weighs_rows_and_groups() -> None:
    y, s, user = [1, 0, 0, 1], [4.0, 3.0, 2.0, 1.0], ["a", "a", "a", "b"]
    assert precision_at_k(y, s, user, 2) == GroupMean(0.5, 2, 0)
    assert precision_at_k(y, s, user, 2, average="rows").mean == 0.5
    assert precision_at_k(y, s, user, 2, weight=[3, 1, 1, 1]).mean == pytest.approx((0.75 + 0.5) / 2)
    assert precision_at_k(y, s, user, 2, weight=[3, 1, 1, 0]) == GroupMean(0.75, 1, 1)
    assert precision_at_k(y, s, user, 2, weight=[3, 1, 1, 1], average="rows").mean == pytest.approx(
        (5 * 0.75 + 0.5) / 6
    )


@pytest.mark.parametrize("name", ["aoc", "precision@5", "precision@0:user", "auc:", "weighted_rmse", "rmse:user"])
def test_unknown_names_list_what_is_known(name: str) -> None:
    with pytest.raises(InvalidModelInput, match=r"unknown evaluator .*known: auc, auc:<column>, log_loss"):
        Evaluator.named(name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, X: evaluate(model, X, X["y"], "auc:usr"), "unknown column 'usr' in evaluator"),
        (lambda model, X: evaluate(model, X, X["y"], "poisson_loss"), "of poisson models, and this one is binomial"),
        (lambda model, X: evaluate(model, X, X["y"] * 3, "auc"), "label is 3.0"),
        (lambda model, X: evaluate(model, X, X["y"][:5], "auc"), "y: 5 values for 1200 rows"),
        (lambda model, X: evaluate(model, X, X["y"], "auc", sample_weight=-X["weight"]), "weight is -"),
        (lambda model, X: evaluate(model, X.assign(user=None), X["y"], "auc:x", offset=X["y"] / 0), "offset"),
        (lambda _, X: Evaluator.named("auc:user").evaluate(X["y"], X["x"]), "needs groups: the column 'user'"),
        (lambda *_: Evaluator.named("auc:user").group_mean([0, 1], [1, 2], [None, None]), "no row with a weight"),
        (lambda *_: Evaluator.named("auc").group_mean([0, 1], [1, 2], [1, 1]), "is over all rows"),
        (lambda _, X: precision_at_k(X["y"], X["x"], X["user"], 0), "k is 0"),
    ],
)
def test_bad_input_is_refused(rows: pd.DataFrame, model: GLMixClassifier, call: Any, message: str) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        call(model, rows)


def test_a_model_must_be_fitted(rows: pd.DataFrame) -> None:
    with pytest.raises(NotFitted):
        evaluate(GLMixClassifier(Linear(["x"])), rows, rows["y"], "auc")
