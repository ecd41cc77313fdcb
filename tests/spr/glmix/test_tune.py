"""Tuning: splits that hold what they promise, searches that repeat and find what is better, input that is refused."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput, MissingDependency
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect, Trees, evaluate, tune
from spr.glmix.search_space import Choices, Range, default_space

MEMBER = RandomEffect("member", "user", l2=1000.0)


def _table(n: int = 4000, n_users: int = 150, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of members with an effect of variance 1 each, so that a penalty of 1 is the true one."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, n_users, n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "user": user, "at": rng.permutation(n)})
    margin = 0.5 * frame["x"] + rng.normal(size=n_users)[user]
    return frame, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float)


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, np.ndarray]:
    return _table()


def test_tune_comes_near_the_best_of_a_grid_and_far_from_the_worst(data: Any) -> None:
    X, y = data
    model = GLMixClassifier(Linear(["x"]), [MEMBER], time="at", sweeps=3)
    found = tune(model, X, y, space={"member.l2": (0.01, 1000.0, "log")}, n_trials=16, seed=1)
    train, late = np.flatnonzero(~found.validation_rows), np.flatnonzero(found.validation_rows)

    def loss(l2: float) -> float:
        one = GLMixClassifier(Linear(["x"]), [RandomEffect("member", "user", l2=l2)], time="at", sweeps=3)
        one.fit(X.iloc[train], y[train])
        return float(evaluate(one, X.iloc[late], y[late], "log_loss").iloc[0])

    grid = {l2: loss(l2) for l2 in (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1000.0)}
    assert found.best_value < min(grid.values()) + 0.001
    assert found.best_value < max(grid.values()) - 0.03
    assert 0.3 < found.best_params["member.l2"] < 10.0
    assert found.trials.loc[0].to_list() == pytest.approx([1000.0, grid[1000.0]])
    assert found.best_value == found.trials["value"].min()


def test_trees_are_tuned_towards_the_interaction_that_is_there() -> None:
    rng = np.random.default_rng(2)
    X = pd.DataFrame(rng.normal(size=(3000, 3)), columns=list("abc"))
    y = 2.0 * np.sign(X["a"] * X["b"]) + rng.normal(size=3000)
    model = GLMixRegressor(Trees(n_rounds=30, max_depth=1, learning_rate=0.3))
    found = tune(model, X, y, space={"fixed.max_depth": (1, 4), "fixed.learning_rate": (0.05, 0.5)}, n_trials=8)
    assert found.metric.name == "rmse"
    assert found.best_params["fixed.max_depth"] >= 2
    assert found.best_value < 1.3 < 2.0 < found.trials.loc[0, "value"]
    assert found.best_model.fixed.max_depth == found.best_params["fixed.max_depth"]
    assert found.best_model.predict(X.head()).shape == (5,)
    assert model.fixed.max_depth == 1
    assert not hasattr(model, "fixed_")


@pytest.mark.parametrize("metric", ["log_loss", "auc:user"])
def test_two_runs_give_the_same_trials_in_any_order_of_rows(data: Any, metric: str) -> None:
    X, y = data
    model = GLMixClassifier(None, [MEMBER], sweeps=2)
    space = {"member.l2": (0.1, 100.0, "log"), "sweeps": [1, 2]}
    one, two = (tune(model, X, y, space=space, metric=metric, n_trials=6, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one.trials, two.trials, check_exact=True)
    pd.testing.assert_frame_equal(
        one.best_model.coefficients("member"), two.best_model.coefficients("member"), check_exact=True
    )
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = tune(model, X.iloc[order], y[order], space=space, metric=metric, n_trials=6, seed=3)
    np.testing.assert_array_equal(shuffled.validation_rows, one.validation_rows[order])
    pd.testing.assert_frame_equal(one.trials, shuffled.trials, rtol=1e-6)
    other = tune(model, X, y, space=space, metric=metric, n_trials=6, seed=4)
    assert not one.trials.iloc[1:].equals(other.trials.iloc[1:])


def test_a_larger_metric_is_better_where_it_says_so(data: Any) -> None:
    X, y = data
    model = GLMixClassifier(Linear(["x"]), [MEMBER], sweeps=2)
    found = tune(model, X, y, space={"member.l2": [1.0, float("inf")]}, metric="auc", n_trials=5)
    assert found.best_params == {"member.l2": 1.0}
    assert found.best_value == found.trials["value"].max() > found.trials["value"].min()


def test_choices_may_be_anything_a_parameter_takes(data: Any) -> None:
    X, y = data
    space = {"member.l2": [None, {"intercept": 2.0}], "fixed.features": [["z"], ["x", "z"]]}
    found = tune(GLMixClassifier(Linear(["z"]), [MEMBER], sweeps=2), X, y, space=space, n_trials=8)
    assert found.best_params["fixed.features"] == ["x", "z"]
    assert found.best_model.fixed.features == ["x", "z"]
    assert set(map(str, found.trials["member.l2"])) == {"1000.0", "None", "{'intercept': 2.0}"}


def test_validation_by_time_is_later_than_all_training(data: Any) -> None:
    X, y = data
    X = X.assign(at=pd.to_datetime("2026-01-01") + pd.to_timedelta(X["at"] // 100, unit="h"))
    found = tune(GLMixClassifier(None, [MEMBER], time="at", sweeps=1), X, y, n_trials=1, validation_share=0.3)
    late = found.validation_rows
    assert X["at"][~late].max() < X["at"][late].min()
    assert late.mean() == pytest.approx(0.3, abs=0.03)


def test_validation_by_group_takes_groups_whole(data: Any) -> None:
    X, y = data
    page = X["at"] // 10
    weight = np.where(X["x"] > 2.0, 0.0, 1.0)
    space = {"member.l2": [1.0]}
    found = tune(
        GLMixClassifier(None, [MEMBER], sweeps=1), X, y, space=space, groups=page, sample_weight=weight, n_trials=2
    )
    assert set(page[found.validation_rows]).isdisjoint(page[~found.validation_rows])
    assert found.validation_rows.mean() == pytest.approx(0.2, abs=0.03)
    by_key = tune(GLMixClassifier(Linear(["x"]), [MEMBER], sweeps=2), X, y, validation="group", n_trials=1)
    assert set(X["user"][by_key.validation_rows]).isdisjoint(X["user"][~by_key.validation_rows])
    assert "member.l2" not in by_key.best_params  # which those rows could not judge
    assert "fixed.l2" in by_key.best_params


def test_validation_rows_do_not_teach_and_weights_and_offsets_follow_their_rows(data: Any) -> None:
    X, y = data
    judging = X["at"].to_numpy() >= 3000
    rng = np.random.default_rng(5)
    weight, offset = rng.choice([0.0, 1.0, 3.0], len(X)), rng.normal(size=len(X))
    model = GLMixClassifier(Linear(["x"]), [MEMBER], sweeps=2)
    found = tune(
        model, X, y, space={"sweeps": [2]}, validation=judging, sample_weight=weight, offset=offset, n_trials=1
    )
    model.fit(X[~judging], y[~judging], sample_weight=weight[~judging], offset=offset[~judging])
    held = (X[judging], y[judging], "log_loss", weight[judging], offset[judging])
    assert found.best_value == evaluate(model, *held)["log_loss"]
    whole = model.fit(X, y, sample_weight=weight, offset=offset)
    np.testing.assert_array_equal(found.best_model.decision_function(X), whole.decision_function(X))


def test_the_default_space_lies_around_the_model() -> None:
    model = GLMixClassifier(Trees(["x"]), [RandomEffect("member", "user"), RandomEffect("item", "item", l2=10.0)])
    space = default_space(model)
    assert set(space) == {
        "fixed.max_depth",
        "fixed.n_rounds",
        "fixed.learning_rate",
        "member.l2",
        "item.l2",
        "sweeps",
    }
    assert space["item.l2"] == (0.1, 1000.0, "log")
    assert space["member.l2"][0] is None
    assert space["fixed.max_depth"][0] <= 6 <= space["fixed.max_depth"][1]


def test_the_given_settings_are_told_to_the_search_where_the_space_has_them() -> None:
    assert Range(0.1, 10.0, log=True, whole=False).drawn_as(1.0) == 1.0
    assert Range(0.1, 10.0, log=True, whole=False).drawn_as(20.0) is None
    assert Range(0.1, 10.0, log=True, whole=False).drawn_as(None) is None
    assert Choices([None, 1.0]).drawn_as(None) == 0
    assert Choices([None, 1.0]).drawn_as({"intercept": 1.0}) is None


def test_rows_are_split_by_what_is_hashable_in_them(data: Any) -> None:
    X, y = data
    X = X.assign(embedding=[[1.0, 2.0]] * len(X), user=[None if i < 20 else f"u{i}" for i in X["user"]])
    model = GLMixClassifier(Linear(["x"]), [RandomEffect("member", "user")], sweeps=1)
    found = tune(model, X.set_index(X.index + 7), y, n_trials=2)
    assert found.validation_rows.mean() == pytest.approx(0.2, abs=0.01)
    grouped = tune(model, X, y, validation="group", n_trials=1)  # rows without a member train
    assert not grouped.validation_rows[X["user"].isna()].any()


def test_the_default_space_can_be_searched(data: Any) -> None:
    X, y = data
    model = GLMixClassifier(Trees(["x", "z"], n_rounds=10), [RandomEffect("member", "user")], time="at")
    found = tune(model, X[:1500], y[:1500], n_trials=4)
    assert list(found.trials.columns) == [*default_space(model), "value"]
    assert found.trials["value"].notna().all()


def test_progress_is_told_and_nobody_elses_logging_is_touched(data: Any, capfd: Any) -> None:
    X, y = data
    root, level = logging.getLogger(), logging.getLogger("optuna").level
    before = (root.level, list(root.handlers))
    told: list[tuple[str, int, int]] = []
    model = GLMixClassifier(None, [MEMBER], sweeps=1)
    tune(model, X, y, space={"sweeps": (1, 2)}, n_trials=3, progress=lambda *step: told.append(step))
    assert told == [("trials", i, 3) for i in range(4)] + [("fit on all rows", 0, 1), ("fit on all rows", 1, 1)]
    assert "".join(capfd.readouterr()) == ""
    assert (root.level, list(root.handlers)) == before
    assert logging.getLogger("optuna").level in (level, logging.INFO)  # INFO is what optuna itself sets, if only now


def test_a_missing_optuna_says_how_to_get_it(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r"pip install 'spr\[tune\]'"):
        tune(GLMixClassifier(None, [MEMBER]), X, y)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"space": {"member.l3": (1, 2)}}, "unknown parameter 'member.l3' in the space; known: .*Did you mean"),
        ({"space": {"member.key": ["x"]}}, "unknown parameter 'member.key'"),
        ({"space": {}}, "the space is empty"),
        ({"space": {"member.l2": (2.0, 1.0)}}, r"the range \(2.0, 1.0\) is empty"),
        ({"space": {"member.l2": (1.0, 1.0)}}, "is empty"),
        ({"space": {"member.l2": (0.0, 1.0, "log")}}, "low > 0 on a log scale"),
        ({"space": {"member.l2": []}}, "list of choices is empty"),
        ({"space": {"member.l2": (1.0, 2.0, "lin")}}, r"allowed: \(low, high\)"),
        ({"space": {"member.l2": 3.0}}, r"allowed: \(low, high\)"),
        ({"space": {"member.l2": (1.0, float("inf"))}}, "inf in"),
        ({"space": {"member.l2": [-1.0]}}, "l2 holds -1.0"),
        ({"space": {"fixed.l2": (-1.0, 1.0)}}, "l2 is -1.0"),
        ({"space": {"fixed.features": (1, 2)}}, "is not a number; give a list"),
        ({"space": {"sweeps": (1.0, 2.0)}}, "allowed: integers"),
        ({"space": {"sweeps": (0, 2)}}, "sweeps is 0"),
        ({"space": {"member.l2": (1.0, 2.0)}, "validation": "group"}, "no validation row has a key of 'member'"),
        ({"metric": "aoc"}, "unknown evaluator 'aoc'"),
        ({"metric": "auc:users"}, "unknown column 'users'.*Did you mean 'user'"),
        ({"metric": "poisson_loss"}, "of poisson models"),
        ({"metric": "auc:at"}, "is not defined on the"),
        ({"validation": "times"}, "unknown validation 'times'"),
        ({"validation": "time"}, "needs the model's time column"),
        ({"validation": np.zeros(4000, dtype=bool)}, "no validation rows"),
        ({"validation": np.ones(4000, dtype=bool)}, "no training rows"),
        ({"validation": np.zeros(10, dtype=bool)}, "one for each of 4000 rows"),
        ({"validation": "group", "groups": np.zeros(4000)}, "no validation rows.*fewer than two groups"),
        ({"groups": np.zeros(3)}, "groups has shape"),
        ({"validation_share": 1.0}, "validation_share is 1.0"),
        ({"n_trials": 0}, "n_trials is 0"),
        ({"sample_weight": np.zeros(4000)}, "no validation rows with a positive weight"),
    ],
)
def test_bad_input_is_refused_before_any_fit(
    data: Any, asked: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = data
    monkeypatch.setattr(GLMixClassifier, "fit", lambda *_, **__: pytest.fail("a fit before the check"))
    with pytest.raises(InvalidModelInput, match=message):
        tune(GLMixClassifier(Linear(["x"]), [MEMBER]), X, y, **asked)


def test_times_that_are_all_the_same_split_nothing(data: Any) -> None:
    X, y = data
    with pytest.raises(InvalidModelInput, match="their times are all the same"):
        tune(GLMixClassifier(None, [MEMBER], time="at"), X.assign(at=0), y)
    with pytest.raises(InvalidModelInput, match="allowed: GLMixClassifier or GLMixRegressor"):
        tune(MEMBER, X, y)
