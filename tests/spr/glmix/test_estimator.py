"""The estimators' conventions: rows, weights, offsets, keys, bad input, degenerate input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from spr.errors import InvalidModelInput, NotFitted
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect, Trees

EFFECTS = [RandomEffect("member", "user", ["x", "kind"]), RandomEffect("item", "item")]
TREES = Trees(["x", "kind"], n_rounds=16, max_depth=3, subsample=0.8)


def _table(n: int = 3000, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 100, n), rng.integers(0, 60, n)
    x = rng.normal(size=n)
    margin = 0.5 * x + rng.normal(size=100)[user] + 0.7 * rng.normal(size=60)[item]
    frame = pd.DataFrame(
        {"x": x, "kind": rng.choice(["u", "v"], n), "user": [f"u{i}" for i in user], "item": item, "at": np.arange(n)}
    )
    return frame, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float)


@pytest.mark.parametrize("fixed", [TREES, Linear(["x", "kind"]), None])
def test_margins_sum_to_the_decision_function(fixed: Any) -> None:
    frame, y = _table()
    model = GLMixClassifier(fixed, EFFECTS).fit(frame, y)
    asked = pd.concat([frame.head(20), frame.head(3).assign(user="nobody", item=-1)])
    parts = model.margins(asked)
    assert list(parts.columns) == ["fixed", "member", "item", "unseen"]
    np.testing.assert_array_equal(parts.sum(axis=1), model.decision_function(asked))
    np.testing.assert_allclose(model.predict_proba(asked)[:, 1], 1 / (1 + np.exp(-model.decision_function(asked))))
    shifted = model.decision_function(asked, offset=np.full(23, 2.0))
    np.testing.assert_allclose(shifted, model.decision_function(asked) + 2.0)
    assert (parts[["member", "item"]].tail(3) == 0).all(axis=None)
    assert (parts["fixed"] == 0).all() == (fixed is None)


@pytest.mark.parametrize("time", [None, "at"])
@pytest.mark.parametrize("fixed", [TREES, Linear(["x", "kind"])])
def test_fit_does_not_depend_on_the_order_of_rows(fixed: Any, time: str | None) -> None:
    frame, y = _table()
    order = np.random.default_rng(1).permutation(len(frame))
    one = GLMixClassifier(fixed, EFFECTS, time=time).fit(frame, y)
    other = GLMixClassifier(fixed, EFFECTS, time=time).fit(frame.iloc[order], y[order])
    np.testing.assert_allclose(one.decision_function(frame), other.decision_function(frame), atol=2e-4)
    assert one.prediction_scale_ == other.prediction_scale_
    assert list(one.history_["decision"].iloc[:-1]) == list(other.history_["decision"].iloc[:-1])


def test_fit_does_not_depend_on_the_number_of_threads() -> None:
    frame, y = _table()
    one = GLMixClassifier(TREES, EFFECTS, n_threads=1).fit(frame, y)
    two = GLMixClassifier(TREES, EFFECTS, n_threads=2).fit(frame, y)
    np.testing.assert_array_equal(one.decision_function(frame), two.decision_function(frame))


@pytest.mark.parametrize("family", ["binomial", "gaussian", "poisson"])
def test_weights_equal_repeated_rows(family: str) -> None:
    frame, y = _table(800)
    weights = np.random.default_rng(2).integers(0, 3, 800)
    repeated = np.repeat(np.arange(800), weights)
    effects = [RandomEffect("member", "user", ["x"], l2=2.0), RandomEffect("item", "item", l2=1.0)]
    fixed = Linear(["x"])
    args: dict[str, Any] = {"sweeps": 30}
    model = GLMixClassifier(fixed, effects, **args) if family == "binomial" else None
    model = model or GLMixRegressor(fixed, effects, family, **args)
    weighted = clone(model).fit(frame, y, sample_weight=weights)
    plain = clone(model).fit(frame.iloc[repeated], y[repeated])
    np.testing.assert_allclose(weighted.decision_function(frame), plain.decision_function(frame), atol=2e-3)


def test_offset_is_respected_as_a_margin_already_there() -> None:
    frame, y = _table()
    offset = 1.5 * frame["x"].to_numpy()
    effects = [RandomEffect("item", "item", l2=1.0)]
    plain = GLMixClassifier(Linear(["x"], l2=0.0), effects, sweeps=20).fit(frame, y)
    given = GLMixClassifier(Linear(["x"], l2=0.0), effects, sweeps=20).fit(frame, y, offset=offset)
    assert given.fixed_.coefficients[0] == pytest.approx(plain.fixed_.coefficients[0] - 1.5, abs=2e-3)
    np.testing.assert_allclose(given.decision_function(frame, offset=offset), plain.decision_function(frame), atol=5e-3)


def test_learnt_l2_refits_the_same_effect_on_a_given_margin() -> None:
    frame, y = _table()
    model = GLMixClassifier(Linear(["x"]), [RandomEffect("member", "user", ["x"])], sweeps=20).fit(frame, y)
    again = GLMixClassifier(None, [RandomEffect("member", "user", ["x"], l2=model.learnt_l2("member"))], sweeps=20)
    again.fit(frame, y, offset=model.margins(frame)["fixed"])
    pd.testing.assert_frame_equal(again.coefficients("member"), model.coefficients("member"), atol=0.01, rtol=0.01)
    held = RandomEffect("member", "user", ["x"], l2={"x": np.inf, "intercept": 1.0})
    none = GLMixClassifier(None, [held]).fit(frame, y).coefficients("member")
    assert (none["x"] == 0).all()
    assert (none["intercept"] != 0).all()


def test_null_key_is_treated_as_unseen() -> None:
    frame, y = _table()
    frame["item"] = frame["item"].astype(float).where(frame.index % 7 > 0)
    model = GLMixClassifier(Linear(["x"]), EFFECTS[1:]).fit(frame, y)
    null = frame["item"].isna()
    assert (model.margins(frame).loc[null, "item"] == 0).all()
    assert model.coefficients("item").index.dtype == np.int64
    assert (model.margins(frame).loc[~null, "item"] != 0).all()


def test_entity_without_weight_is_unseen() -> None:
    frame, y = _table()
    model = GLMixClassifier(None, EFFECTS[1:]).fit(frame, y, sample_weight=(frame["item"] != 7).astype(float))
    assert 7 not in model.coefficients("item").index
    assert len(model.coefficients("item")) == 59


def test_validation_rows_judge_and_do_not_teach() -> None:
    frame, y = _table()
    late = frame["at"] >= 2400
    model = GLMixClassifier(TREES, EFFECTS)
    model.fit(frame[~late], y[~late], validation=(frame[late], y[late]))
    flipped = clone(model).fit(frame[~late], y[~late], validation=(frame[late], y[late], np.full(600, 2.0)))
    np.testing.assert_allclose(model.decision_function(frame), flipped.decision_function(frame), atol=1e-9)
    assert model.history_["held_out_loss"].notna().all()
    only = frame[~late]["user"].unique()
    assert set(model.coefficients("member").index) == set(only)


def test_progress_sees_every_record_of_the_history() -> None:
    frame, y = _table()
    seen: list[Any] = []
    model = GLMixClassifier(TREES, EFFECTS).fit(frame, y, progress=seen.append)
    assert [record.coordinate for record in seen] == list(model.history_["coordinate"])
    assert {"loss", "held_out_loss", "seconds", "prior_variance", "decision", "sweep"} <= set(model.history_.columns)
    assert (model.history_["seconds"] >= 0).all()


def test_fit_below_fifty_groups_says_that_nothing_was_held_out() -> None:
    frame, y = _table()
    few = frame["user"].isin([f"u{i}" for i in range(20)]).to_numpy()
    model = GLMixClassifier(Linear(["x"]), EFFECTS).fit(frame[few], y[few])
    assert "no hold-out: 20 groups < 50" in set(model.history_["decision"])
    assert model.unseen_correction_ == (0.0, 1.0)
    assert model.prediction_scale_ == {"member": 1.0, "item": 1.0}


def test_estimator_follows_scikit_learn() -> None:
    model = GLMixRegressor(TREES, EFFECTS, family="poisson", seed=3)
    copy = clone(model)
    assert copy.get_params()["family"] == "poisson"
    assert copy.get_params()["fixed"] == TREES
    with pytest.raises(NotFitted, match="call fit first"):
        copy.predict(_table(10)[0])
    frame, y = _table(400)
    assert copy.fit(frame, y) is copy
    assert (copy.predict(frame) > 0).all()


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("missing key", {"random_effects": [RandomEffect("m", "usr")]}, "unknown key column 'usr'.*Did you mean 'user'"),
    ("missing feature", {"fixed": Linear(["xx"])}, "unknown feature column 'xx' in the fixed effect"),
    ("missing time", {"time": "att"}, "unknown time column 'att'"),
    ("two names", {"random_effects": [EFFECTS[1], EFFECTS[1]]}, "two random effects are called 'item'"),
    ("nothing", {"fixed": None, "random_effects": []}, "neither a fixed effect nor a random effect"),
    ("sweeps", {"sweeps": 0}, "sweeps is 0"),
    ("variance", {"variance": "ful"}, "Did you mean 'full'"),
    ("constraint", {"fixed": Trees(["x"], monotone={"y": 1})}, "unknown feature 'y'"),
    ("monotone string", {"fixed": Trees(["kind"], monotone={"kind": 1})}, "holds strings"),
    ("l2 name", {"random_effects": [RandomEffect("m", "user", ["x"], l2={"x": 1.0})]}, "no penalty for 'intercept'"),
]


@pytest.mark.parametrize(("changed", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_fit_refuses_a_model_that_does_not_fit_the_table(changed: dict[str, Any], message: str) -> None:
    frame, y = _table(60)
    model = GLMixClassifier(Linear(["x"]), EFFECTS).set_params(**changed)
    with pytest.raises(InvalidModelInput, match=message):
        model.fit(frame, y)


BAD_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("labels", {"y": [2.0] * 60}, "60 of 60 labels are outside the support of binomial"),
    ("null label", {"y": [np.nan] + [1.0] * 59}, "1 of 60 labels"),
    ("text label", {"y": ["yes"] * 60}, "y holds values that are not numbers"),
    ("length", {"y": [1.0]}, "y: 1 values for 60 rows"),
    ("negative weight", {"sample_weight": [-1.0] * 60}, "60 of 60 are negative; first: row 0"),
    ("infinite weight", {"sample_weight": [1.0] * 59 + [np.inf]}, "NaN or infinite; first: row 59"),
    ("null weight", {"sample_weight": [np.nan] * 60}, "NaN or infinite"),
    ("no weight", {"sample_weight": [0.0] * 60}, "no row has a positive weight"),
    ("offset", {"offset": [np.nan] * 60}, "offset: 60 of 60"),
    ("groups", {"groups": [1, 2]}, "groups: 2 values for 60 rows"),
    ("array", {"X": np.zeros((60, 2))}, "X is a ndarray"),
    ("no rows", {"X": pd.DataFrame({"x": [], "user": [], "item": []}), "y": []}, "X has 0 rows"),
    ("validation", {"validation": (1,)}, "validation has 1 parts"),
]


@pytest.mark.parametrize(("changed", "message"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_fit_refuses_bad_rows(changed: dict[str, Any], message: str) -> None:
    frame, y = _table(60)
    with pytest.raises(InvalidModelInput, match=message):
        GLMixClassifier(Linear(["x"]), EFFECTS[1:]).fit(**{"X": frame, "y": y, **changed})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomEffect("m", "user", ["x", "x"]), "'x' is named twice"),
        (lambda: RandomEffect("m", "user", intercept=False), "neither features nor an intercept"),
        (lambda: RandomEffect("fixed", "user"), "reserved"),
        (lambda: RandomEffect("m", "user", l2=-1.0), "allowed: numbers >= 0"),
        (lambda: RandomEffect("m", "user", "x"), "give a list"),
        (lambda: Trees(["x", "x"]), "named twice"),
        (lambda: Trees(subsample=0.0), "subsample"),
        (lambda: Trees(n_rounds=0), "n_rounds"),
        (lambda: Trees(monotone={"x": 2}), "allowed: -1 and 1"),
        (lambda: Linear(["x"], l2=-1.0), "l2"),
    ],
)
def test_specs_refuse_nonsense(build: Any, message: str) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        build()


DEGENERATE: list[tuple[str, pd.DataFrame, list[float]]] = [
    ("one row", pd.DataFrame({"x": [1.0], "z": [1.0], "user": ["a"]}), [1.0]),
    ("one entity", pd.DataFrame({"x": np.arange(9.0), "z": 0.0, "user": ["a"] * 9}), [0, 1, 0] * 3),
    ("all 0", pd.DataFrame({"x": np.arange(9.0), "z": 1.0, "user": list("aaabbbccc")}), [0] * 9),
    ("all 1", pd.DataFrame({"x": np.arange(9.0), "z": 1.0, "user": list("aaabbbccc")}), [1] * 9),
    ("collinear", pd.DataFrame({"x": np.arange(9.0), "z": np.arange(9.0), "user": list("aaabbbccc")}), [0, 1, 1] * 3),
    ("separable", pd.DataFrame({"x": np.arange(9.0), "z": 0.0, "user": ["a"] * 9}), [0] * 4 + [1] * 5),
    ("null keys", pd.DataFrame({"x": np.arange(9.0), "z": 0.0, "user": [None] * 9}), [0, 1, 0] * 3),
    ("null features", pd.DataFrame({"x": [np.nan] * 9, "z": 0.0, "user": ["a"] * 9}), [0, 1, 0] * 3),
]


@pytest.mark.parametrize(("frame", "y"), [case[1:] for case in DEGENERATE], ids=[case[0] for case in DEGENERATE])
@pytest.mark.parametrize("fixed", [Trees(["x", "z"], n_rounds=4), Linear(["x", "z"]), Linear(["x", "z"], l2=0.0), None])
@pytest.mark.parametrize("l2", [None, 0.0])
def test_fit_stays_finite_on_degenerate_rows(frame: pd.DataFrame, y: list[float], fixed: Any, l2: float | None) -> None:
    effect = RandomEffect("member", "user", ["x", "z"], l2=l2)
    models = [GLMixClassifier(fixed, [effect], variance="diagonal")]
    models += [GLMixRegressor(fixed, [effect], family) for family in ("gaussian", "poisson")]
    for model in models:
        model.fit(frame, np.array(y, dtype=float), sample_weight=np.append(np.ones(len(y) - 1), 0.5))
        assert np.isfinite(model.decision_function(frame)).all()
        assert np.isfinite(model.coefficients("member")).all(axis=None)
