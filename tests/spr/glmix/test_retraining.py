"""Warm start, locked coordinates, update order, the best sweep, incremental training, near-line updates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, MixedModel, NearlineUpdater, RandomEffect, Trees

EFFECTS = [RandomEffect("member", "user", ["x"], l2=2.0), RandomEffect("item", "item", l2=1.0)]


def _table(n: int = 4000, seed: int = 0, family: str = "binomial") -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99)
    intercept, slope, worth = truth.normal(size=80), 0.5 * truth.normal(size=80), 0.7 * truth.normal(size=30)
    user, item, x = rng.integers(0, 80, n), rng.integers(0, 30, n), rng.normal(size=n)
    margin = -0.3 + 0.5 * x + intercept[user] + slope[user] * x + worth[item]
    frame = pd.DataFrame({"x": x, "user": [f"u{i:02d}" for i in user], "item": item})
    if family == "gaussian":
        return frame, margin + rng.normal(size=n)
    return frame, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float)


def test_warm_start_is_where_it_ended_and_needs_fewer_sweeps() -> None:
    frame, y = _table()
    cold = GLMixClassifier(None, EFFECTS, sweeps=30).fit(frame, y)
    warm = GLMixClassifier(None, EFFECTS, sweeps=30).fit(frame, y, start=cold)
    np.testing.assert_allclose(warm.decision_function(frame), cold.decision_function(frame), atol=2e-3)
    assert warm.history_["sweep"].max() < cold.history_["sweep"].max()
    assert warm.history_["sweep"].max() <= 2


@pytest.mark.parametrize("fixed", [Linear(["x"]), Trees(["x"], n_rounds=8, max_depth=2)])
def test_locked_coordinates_stay_as_they_are(fixed: Linear | Trees) -> None:
    frame, y = _table()
    first = GLMixClassifier(fixed, EFFECTS).fit(frame, y)
    later, labels = _table(seed=1)
    later["user"] = later["user"].where(later.index % 50 > 0, "new")
    second = GLMixClassifier(fixed, EFFECTS).fit(later, labels, start=first, locked=["fixed", "item"])
    pd.testing.assert_frame_equal(second.coefficients("item"), first.coefficients("item"))
    np.testing.assert_array_equal(second.margins(frame)["fixed"], first.margins(frame)["fixed"])
    assert "new" in second.coefficients("member").index
    moved = second.coefficients("member").loc[first.coefficients("member").index] - first.coefficients("member")
    assert (moved.abs() > 1e-4).any(axis=None)
    assert set(second.history_["coordinate"]) <= {"fixed", "member", "unseen"}


def test_entities_without_new_rows_keep_their_coefficients() -> None:
    frame, y = _table()
    first = GLMixClassifier(None, EFFECTS).fit(frame, y)
    some = (frame["user"] < "u40").to_numpy()
    second = GLMixClassifier(None, EFFECTS).fit(frame[some], y[some], start=first, locked=["item"])
    absent = [key for key in first.coefficients("member").index if key >= "u40"]
    pd.testing.assert_frame_equal(second.coefficients("member").loc[absent], first.coefficients("member").loc[absent])


def test_missing_coordinate_tables_and_foreign_coordinates_are_errors() -> None:
    frame, y = _table(500)
    only = GLMixClassifier(None, EFFECTS[:1]).fit(frame, y)
    model = GLMixClassifier(None, EFFECTS)
    with pytest.raises(InvalidModelInput, match="locked coordinate 'item' are missing from start; it has: member"):
        model.fit(frame, y, start=only, locked=["item"])
    with pytest.raises(InvalidModelInput, match="no start to take it from"):
        model.fit(frame, y, locked=["item"])
    with pytest.raises(InvalidModelInput, match="has no posterior"):
        model.fit(frame, y, start=only, forgetting=1.0)
    with pytest.raises(InvalidModelInput, match="no start whose posterior"):
        model.fit(frame, y, forgetting=1.0)
    with pytest.raises(InvalidModelInput, match="forgetting is 0"):
        model.fit(frame, y, start=only, forgetting=0)
    with pytest.raises(InvalidModelInput, match="the model to start from has key 'user' and columns"):
        GLMixClassifier(None, [RandomEffect("member", "user")]).fit(frame, y, start=only)


def test_update_order_is_kept_and_checked() -> None:
    frame, y = _table(1000)
    model = GLMixClassifier(Linear(["x"]), EFFECTS, update_order=["item", "fixed", "member"]).fit(frame, y)
    first = model.history_[model.history_["sweep"] == 1]
    assert list(first["coordinate"])[:3] == ["item", "fixed", "member"]
    with pytest.raises(InvalidModelInput, match="unknown coordinate 'items' in update_order"):
        GLMixClassifier(None, EFFECTS, update_order=["member", "items"]).fit(frame, y)
    with pytest.raises(InvalidModelInput, match="must name each of"):
        GLMixClassifier(None, EFFECTS, update_order=["member"]).fit(frame, y)


def test_last_sweeps_go_back_to_the_one_that_validation_likes_best() -> None:
    frame, y = _table(1500)
    other, labels = _table(1500, seed=1)
    # penalties far too weak: each sweep fits the training rows better and the validation rows worse
    weak = [RandomEffect("member", "user", ["x"], l2=1e-3), RandomEffect("item", "item", l2=1e-3)]
    model = GLMixClassifier(None, weak, sweeps=12).fit(frame, y, validation=(other, labels))
    final = model.history_[(model.history_["stage"] == "final") & (model.history_["coordinate"] == "item")]
    assert final["held_out_loss"].iloc[-1] == pytest.approx(final["held_out_loss"].min())
    best = np.mean(np.logaddexp(0, (1 - 2 * labels) * model.decision_function(other)))
    assert best == pytest.approx(final["held_out_loss"].min(), abs=1e-6)


@pytest.mark.parametrize("variance", ["full", "diagonal"])
def test_incremental_training_ends_near_the_batch_fit(variance: str) -> None:
    frame, y = _table(8000, family="gaussian")
    member = [RandomEffect("member", "user", ["x"], l2=2.0)]

    def fit(rows: slice, start: object = None) -> GLMixRegressor:
        model = GLMixRegressor(None, member, sweeps=6, variance=variance)
        return model.fit(frame[rows], y[rows], start=start, forgetting=None if start is None else 1.0)

    batch = fit(slice(None)).coefficients("member")
    model = fit(slice(0, 4000))
    for first in range(4000, 8000, 1000):
        model = fit(slice(first, first + 1000), model)
    parts, half = model.coefficients("member"), fit(slice(0, 4000)).coefficients("member")
    error = np.abs(parts - batch).max(axis=None)
    assert error < (0.02 if variance == "full" else 0.1)  # a diagonal forgets how intercept and slope hang together
    assert error < 0.2 * np.abs(half - batch).max(axis=None)


def test_forgetting_follows_a_member_who_changes() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"key": np.repeat(["a", "b"], 300)})
    before, after = rng.normal(1.0, 1.0, 600), rng.normal(-1.0, 1.0, 600)
    effect = [RandomEffect("member", "key", l2=0.1)]
    old = GLMixRegressor(None, effect, variance="full").fit(frame, before)
    keeps, forgets = (
        GLMixRegressor(None, effect, variance="full").fit(frame, after, start=old, forgetting=share)
        for share in (1.0, 0.1)
    )
    assert abs(keeps.coefficients("member").loc["a", "intercept"]) < 0.25
    assert forgets.coefficients("member").loc["a", "intercept"] < -0.7


@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_nearline_batches_end_near_the_batch_fit(family: str) -> None:
    frame, y = _table(6000, family=family)
    kind = GLMixClassifier if family == "binomial" else GLMixRegressor
    first = kind(Linear(["x"]), EFFECTS, variance="full").fit(frame[:3000], y[:3000])
    # the same fixed effect and items, all rows at once
    batch = kind(Linear(["x"]), EFFECTS, variance="full", sweeps=20)
    batch.fit(frame, y, start=first, locked=["fixed", "item"])
    updater = NearlineUpdater(first, "member")
    for start in range(3000, 6000, 50):
        updater.update(frame[start : start + 50], y[start : start + 50])
    ended = updater.updated_model()
    gap = np.abs(ended.margins(frame)["member"] - batch.margins(frame)["member"])
    moved = np.abs(first.margins(frame)["member"] - batch.margins(frame)["member"])
    assert np.sqrt((gap**2).mean()) < 0.05
    assert np.sqrt((gap**2).mean()) < 0.15 * np.sqrt((moved**2).mean())


def test_nearline_gaussian_batches_are_the_batch_fit_itself() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"key": rng.integers(0, 20, 2000), "x": rng.normal(size=2000) + 1.0})  # correlated with 1
    y = 0.5 * frame["x"].to_numpy() + rng.normal(size=20)[frame["key"]] + rng.normal(size=2000)
    effect = [RandomEffect("member", "key", ["x"], l2=1.5)]
    first = GLMixRegressor(None, effect, variance="full", sweeps=3).fit(frame[:1000], y[:1000])
    batch = GLMixRegressor(None, effect, variance="full", sweeps=3).fit(frame, y).coefficients("member")
    updater = NearlineUpdater(first, "member")
    for start in range(1000, 2000, 25):
        updater.update(frame[start : start + 25], y[start : start + 25])
    ended = updater.updated_model().effects["member"].table()
    np.testing.assert_allclose(ended, batch, atol=2e-4)  # least squares: the recursion is exact up to float32


def test_nearline_moves_only_whom_it_touches_and_knows_new_members() -> None:
    frame, y = _table()
    model = GLMixClassifier(Linear(["x"]), EFFECTS, variance="full").fit(frame, y)
    updater = NearlineUpdater(model, "member", forgetting=0.9)
    rows = pd.DataFrame({"x": [0.1, 0.2, 0.3], "user": ["u03", "brand new", None], "item": [1, 2, 3]})
    touched = updater.update(rows, [1.0, 0.0, 1.0])
    assert touched.keys.tolist() == ["brand new", "u03"]
    ended = updater.updated_model()
    before, after = model.coefficients("member"), ended.effects["member"].table()
    rest = before.index.drop("u03")
    pd.testing.assert_frame_equal(after.loc[rest], before.loc[rest])
    assert (after.loc["u03"] != before.loc["u03"]).any()
    assert touched.variance is not None
    assert touched.variance[0].sum() > touched.variance[1].sum()  # a new member is known less well


def test_nearline_refuses_what_it_cannot_update() -> None:
    frame, y = _table(500)
    bare = GLMixClassifier(None, EFFECTS).fit(frame, y)
    with pytest.raises(InvalidModelInput, match=r"fit the model with variance='full'"):
        NearlineUpdater(bare, "member")
    model = GLMixClassifier(None, EFFECTS, variance="diagonal").fit(frame, y)
    with pytest.raises(InvalidModelInput, match="unknown random effect 'members'"):
        NearlineUpdater(model, "members")
    with pytest.raises(InvalidModelInput, match=r"forgetting is 1\.5"):
        NearlineUpdater(model, "member", forgetting=1.5)
    dropped = GLMixClassifier(None, [RandomEffect("member", "user", l2=np.inf)], variance="full").fit(frame, y)
    with pytest.raises(InvalidModelInput, match="was dropped in fit"):
        NearlineUpdater(dropped, "member")
    updater = NearlineUpdater(model, "member")
    with pytest.raises(InvalidModelInput, match="outside the support"):
        updater.update(frame[:3], [0.0, 1.0, 2.0])
    with pytest.raises(InvalidModelInput, match="holds int, but held str"):
        updater.update(frame[:3].assign(user=[1, 2, 3]), [0.0, 1.0, 1.0])
    pd.testing.assert_frame_equal(updater.updated_model().effects["member"].table(), model.coefficients("member"))
    assert isinstance(updater.updated_model(), MixedModel)
