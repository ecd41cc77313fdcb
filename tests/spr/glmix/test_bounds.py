"""Bounds per entity: active and passive rows, few rows, few features; down-sampled negatives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect


def _table(n: int = 4000, n_keys: int = 50, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    key = rng.integers(0, n_keys, n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "key": key})
    margin = rng.normal(size=n_keys)[key] + 0.5 * frame["x"].to_numpy()
    return frame, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float)


def test_max_rows_keeps_that_many_and_rescales_their_weights() -> None:
    frame, y = _table()
    effect = RandomEffect("member", "key", ["x"], l2=1.0, max_rows=20)
    model = GLMixClassifier(None, [effect], sweeps=20).fit(frame, y)
    # the kept rows at n / kept are what an entity learns from: find them by who changes the answer
    counts = frame["key"].value_counts()
    changed = {}
    for row in frame.index[frame["key"] == 0]:
        flipped = y.copy()
        flipped[row] = 1 - y[row]
        other = GLMixClassifier(None, [effect], sweeps=20).fit(frame[frame["key"] == 0], flipped[frame["key"] == 0])
        changed[row] = not np.allclose(other.coefficients("member").loc[0], model.coefficients("member").loc[0])
    kept = [row for row, moved in changed.items() if moved]
    assert len(kept) == 20
    plain = GLMixClassifier(None, [RandomEffect("member", "key", ["x"], l2=1.0)], sweeps=20)
    plain.fit(frame.loc[kept], y[kept], sample_weight=np.full(20, counts[0] / 20))
    np.testing.assert_allclose(plain.coefficients("member").loc[0], model.coefficients("member").loc[0], atol=1e-5)


def test_max_rows_does_not_depend_on_the_order_of_rows_and_scores_passive_rows() -> None:
    frame, y = _table()
    effect = RandomEffect("member", "key", max_rows=40)
    order = np.random.default_rng(1).permutation(len(frame))
    one = GLMixClassifier(Linear(["x"]), [effect]).fit(frame, y)
    other = GLMixClassifier(Linear(["x"]), [effect]).fit(frame.iloc[order], y[order])
    np.testing.assert_allclose(one.decision_function(frame), other.decision_function(frame), atol=1e-4)
    assert (one.margins(frame)["member"] != 0).all()


def test_min_rows_leaves_small_entities_without_coefficients() -> None:
    frame, y = _table()
    few = np.concatenate([np.flatnonzero(frame["key"] > 0), np.flatnonzero(frame["key"] == 0)[:4]])
    model = GLMixClassifier(None, [RandomEffect("member", "key", min_rows=5)]).fit(frame.iloc[few], y[few])
    assert 0 not in model.coefficients("member").index
    assert len(model.coefficients("member")) == 49
    assert (model.margins(frame[frame["key"] == 0])["member"] == 0).all()


def test_max_features_keeps_those_with_the_most_support() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    frame = pd.DataFrame({"key": rng.integers(0, 60, n)})
    for column, share in (("often", 0.9), ("seldom", 0.2), ("sometimes", 0.5)):
        frame[column] = rng.normal(size=n) * (rng.random(n) < share)
    y = frame["often"] + frame["seldom"] + frame["sometimes"] + rng.normal(size=n)
    effect = RandomEffect("member", "key", ["seldom", "often", "sometimes"], l2=1.0, max_features=2)
    table = GLMixRegressor(None, [effect]).fit(frame, y).coefficients("member")
    assert (table["seldom"] == 0).all()
    assert (table[["often", "sometimes", "intercept"]] != 0).all(axis=None)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_negative_share_keeps_probabilities(family: str) -> None:
    rng = np.random.default_rng(0)
    n = 60_000
    frame = pd.DataFrame({"x": rng.normal(size=n), "key": rng.integers(0, 200, n)})
    margin = -3 + frame["x"].to_numpy() + 0.7 * rng.normal(size=200)[frame["key"]]
    rate = 1 / (1 + np.exp(-margin)) if family == "binomial" else np.exp(margin)
    y = (rng.random(n) < rate).astype(float) if family == "binomial" else rng.poisson(rate).astype(float)
    effects = [RandomEffect("member", "key")]
    whole, part = (
        GLMixClassifier(Linear(["x"]), effects, negative_share=share)
        if family == "binomial"
        else GLMixRegressor(Linear(["x"]), effects, family="poisson", negative_share=share)
        for share in (1.0, 0.2)
    )
    whole.fit(frame, y)
    part.fit(frame, y)
    assert part.fixed_.intercept == pytest.approx(whole.fixed_.intercept, abs=0.12)
    assert part.fixed_.coefficients[0] == pytest.approx(whole.fixed_.coefficients[0], abs=0.08)
    response = part.predict_proba(frame)[:, 1] if family == "binomial" else part.predict(frame)
    assert response.mean() == pytest.approx(y.mean(), rel=0.03)
    assert len(part.held_out_groups_) == n


def test_offset_corrects_a_log_whose_negatives_were_sampled_before() -> None:
    rng = np.random.default_rng(1)
    n, share = 60_000, 0.1
    x = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(3 - x))).astype(float)
    kept = (y == 1) | (rng.random(n) < share)
    frame = pd.DataFrame({"x": x})
    model = GLMixClassifier(Linear(["x"], l2=0.0))
    model.fit(frame[kept], y[kept], offset=np.full(kept.sum(), -np.log(share)))
    assert model.fixed_.intercept == pytest.approx(-3, abs=0.08)
    assert model.predict_proba(frame)[:, 1].mean() == pytest.approx(y.mean(), rel=0.03)


def test_negative_share_is_refused_for_gaussian_and_out_of_range() -> None:
    frame, y = _table(200)
    with pytest.raises(InvalidModelInput, match="no negative in a gaussian model"):
        GLMixRegressor(Linear(["x"]), negative_share=0.5).fit(frame, y)
    with pytest.raises(InvalidModelInput, match="negative_share is 0"):
        GLMixClassifier(Linear(["x"]), negative_share=0).fit(frame, y)
    with pytest.raises(InvalidModelInput, match="max_rows is 0"):
        RandomEffect("member", "key", max_rows=0)
    with pytest.raises(InvalidModelInput, match="max_rows 2 is below min_rows 3"):
        RandomEffect("member", "key", max_rows=2, min_rows=3)
