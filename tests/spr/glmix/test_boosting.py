"""Boosting in blocks: margins that are those served, out-of-fold margins, going on, the intercept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from spr.errors import InvalidModelInput
from spr.glmix import FittedTrees, Trees
from spr.glmix.boosting import TreesDescent, derivatives_into
from spr.glmix.encoding import Encoding
from spr.glmix.families import Family

BINOMIAL = Family.named("binomial")
N = 3000


def _data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, 3)).astype(np.float32)
    rows[rng.random(N) < 0.1, 1] = np.nan
    labels = (rng.random(N) < 1 / (1 + np.exp(-rows[:, 0] - np.sin(3 * rows[:, 2])))).astype(float)
    return rows, labels


def _descent(rows: np.ndarray, *, watch: np.ndarray | None = None, n_blocks: int = 2, **args: Any) -> TreesDescent:
    more = {name: args.pop(name) for name in ("groups", "start") if name in args}
    spec = Trees(**{"n_rounds": 20, "max_depth": 3, **args})
    encoding = Encoding(tuple(f"x{i}" for i in range(rows.shape[1])), {})
    hashes = np.random.default_rng(9).integers(0, 2**63, len(rows)).astype(np.uint64)
    watch = np.zeros(len(rows)) if watch is None else watch
    return TreesDescent(spec, encoding, rows, hashes, watch, -0.2, BINOMIAL, n_blocks, **more)


@pytest.mark.parametrize("name", ["binomial", "gaussian", "poisson"])
def test_derivatives_into_agrees_with_the_family(name: str) -> None:
    rng = np.random.default_rng(0)
    family, n = Family.named(name), 20_000
    margins = np.append(4 * rng.normal(size=n - 4), [-80.0, 80.0, -200.0, 200.0]).astype(np.float32)
    labels, weights = rng.integers(0, 2, n).astype(np.float32), rng.random(n).astype(np.float32)
    gradient, hessian = np.empty_like(margins), np.empty_like(margins)
    derivatives_into(family, labels, margins, weights, gradient, hessian)
    first, second = family.derivatives(*(a.astype(float) for a in (labels, margins, weights)))
    np.testing.assert_allclose(gradient, first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hessian, second, rtol=1e-5, atol=1e-6)


def test_boosting_equals_xgboost_with_its_own_objective() -> None:
    rows, labels = _data()
    offset = 0.5 * np.random.default_rng(1).normal(size=N)
    descent = _descent(rows)
    for _ in range(2):
        descent.advance(labels, np.ones(N), offset)
    data = xgboost.QuantileDMatrix(rows, labels, base_margin=(offset - 0.2).astype(np.float32), nthread=1)
    parameters = {"objective": "binary:logistic", "base_score": 0.5, "max_depth": 3, "learning_rate": 0.1, "nthread": 1}
    theirs = xgboost.train(parameters, data, 20).predict(data, output_margin=True)
    np.testing.assert_allclose(descent.margin + offset, theirs, atol=1e-4)


@pytest.mark.parametrize("subsample", [1.0, 0.7])
def test_margin_is_that_of_the_trees_served_on_every_row(subsample: float) -> None:
    rows, labels = _data()
    draw = np.random.default_rng(2).random(N)
    weights, watch = np.where(draw > 0.3, 1.0, 0.0), np.where(draw < 0.1, 1.0, 0.0)
    descent = _descent(rows, watch=watch, subsample=subsample, n_rounds=200, early_stopping_rounds=3, n_blocks=4)
    decisions = []
    for _ in range(4):
        decisions.append(descent.advance(labels, weights, np.zeros(N)))
        if descent._rounds == descent.fitted().n_rounds:
            np.testing.assert_allclose(descent.margin, descent.fitted().margin(rows), atol=1e-5)
    assert "stopped after" in " ".join(decisions)
    descent.finish()
    np.testing.assert_allclose(descent.margin, descent.fitted().margin(rows), atol=1e-5)
    assert descent.advance(labels, weights, np.zeros(N)) == ""


def test_rows_without_weight_teach_nothing() -> None:
    rows, labels = _data()
    weights = (np.arange(N) % 3 > 0).astype(float)
    wrong = np.where(weights > 0, labels, 1 - labels)
    one, other = _descent(rows), _descent(rows)
    one.advance(labels, weights, np.zeros(N))
    other.advance(wrong, weights, np.zeros(N))
    np.testing.assert_array_equal(one.margin, other.margin)
    with pytest.raises(InvalidModelInput, match="1000 rows have a weight that had none"):
        one.advance(labels, np.ones(N), np.zeros(N))


def test_matrix_is_filled_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = _data()
    rows = np.round(rows, 1)  # few values: the bins do not depend on how a sketch is merged
    weights = (np.arange(N) % 3 > 0).astype(float)
    whole, chunked = _descent(rows), _descent(rows)
    whole.advance(labels, weights, np.zeros(N))
    monkeypatch.setattr("spr.glmix.boosting._CHUNK", 700)
    chunked.advance(labels, weights, np.zeros(N))
    np.testing.assert_allclose(chunked.margin, whole.margin, atol=1e-5)


def test_shift_intercept_moves_every_margin() -> None:
    rows, labels = _data()
    watch = (np.arange(N) % 10 == 0).astype(float)
    descent = _descent(rows, watch=watch, out_of_fold=2)
    descent.advance(labels, 1 - watch, np.zeros(N))
    margin, effects, best = descent.margin, descent.margin_for_effects, descent._best_margin
    descent.shift_intercept(0.75)
    np.testing.assert_allclose(descent.margin, margin + 0.75)
    np.testing.assert_allclose(descent.margin_for_effects, effects + 0.75)
    np.testing.assert_allclose(descent._best_margin, best + 0.75)
    descent.advance(labels, 1 - watch, np.full(N, -0.75))  # what was moved in here was taken off elsewhere
    descent.finish()
    assert descent.fitted().intercept == pytest.approx(0.55)
    np.testing.assert_allclose(descent.margin, descent.fitted().margin(rows), atol=1e-5)
    unmoved = _descent(rows, watch=watch, out_of_fold=2)
    for _ in range(2):
        unmoved.advance(labels, 1 - watch, np.zeros(N))
    unmoved.finish()
    np.testing.assert_allclose(descent.margin - 0.75, unmoved.margin, atol=1e-4)


@pytest.mark.parametrize("out_of_fold", [0, 2])
def test_start_is_kept_and_gone_on_from(out_of_fold: int) -> None:
    rows, labels = _data()
    first = _descent(rows)
    first.advance(labels, np.ones(N), np.zeros(N))
    start = first.fitted()
    new_rows, new_labels = _data(seed=5)  # other bins: what the trees say on them must be exact all the same
    locked = _descent(new_rows, start=start)
    np.testing.assert_array_equal(locked.margin, start.margin(new_rows))
    assert locked._main is None
    locked.shift_intercept(1.0)
    assert locked.fitted().n_rounds == 10
    np.testing.assert_allclose(locked.fitted().margin(new_rows), start.margin(new_rows) + 1.0)
    watch = (np.arange(N) % 5 == 0).astype(float)
    descent = _descent(new_rows, start=start, watch=watch, out_of_fold=out_of_fold)
    for _ in range(2):
        descent.advance(new_labels, 1 - watch, np.zeros(N))
    descent.finish()
    fitted = descent.fitted()
    assert 10 < fitted.n_rounds <= 30
    np.testing.assert_allclose(descent.margin, fitted.margin(new_rows), atol=1e-5)
    old = FittedTrees(fitted.features, fitted.intercept, fitted.booster[:10])
    np.testing.assert_allclose(old.margin(rows), start.margin(rows), atol=1e-6)
    ones = np.ones(N)
    assert BINOMIAL.mean_loss(new_labels, descent.margin, ones) < BINOMIAL.mean_loss(new_labels, locked.margin, ones)


def test_start_that_finds_no_better_round_stays_as_it_was() -> None:
    rows, labels = _data()
    first = _descent(rows)
    first.advance(labels, np.ones(N), np.zeros(N))
    start, watch = first.fitted(), (np.arange(N) % 2 == 0).astype(float)
    random = np.random.default_rng(0).integers(0, 2, N).astype(float)
    taught = np.where(watch > 0, labels, random)  # what teaches misleads, what is watched is right
    descent = _descent(rows, start=start, watch=watch, early_stopping_rounds=5, learning_rate=1.0, out_of_fold=2)
    assert "kept 10" in descent.advance(taught, 1 - watch, np.zeros(N))
    assert descent.fitted().n_rounds == 10
    np.testing.assert_allclose(descent.margin, start.margin(rows), atol=1e-6)
    np.testing.assert_allclose(descent.margin_for_effects, start.margin(rows), atol=1e-6)


def test_start_over_other_columns_is_refused() -> None:
    rows, labels = _data()
    first = _descent(rows)
    first.advance(labels, np.ones(N), np.zeros(N))
    with pytest.raises(InvalidModelInput, match="the trees to start from read"):
        _descent(rows[:, :2], start=first.fitted())


def _fingerprints() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """300 entities of 20 rows, effects of sd 1.2, and a column that tells entities apart and means nothing."""
    rng = np.random.default_rng(3)
    key = np.repeat(np.arange(300), 20)
    effect = 1.2 * rng.normal(size=300)
    rows = np.column_stack([rng.normal(size=300)[key], rng.normal(size=key.size)]).astype(np.float32)
    labels = (rng.random(key.size) < 1 / (1 + np.exp(-effect[key] - rows[:, 1]))).astype(float)
    hashes = np.random.default_rng(4).integers(0, 2**63, 300).astype(np.uint64)
    return rows, labels, key, hashes[key]


def test_out_of_fold_margins_leave_the_effects_their_variance() -> None:
    rows, labels, key, groups = _fingerprints()
    descent = _descent(rows, groups=groups, out_of_fold=3, n_rounds=100, max_depth=6)
    for _ in range(2):
        descent.advance(labels, np.ones(key.size), np.zeros(key.size))

    def spread(margin: np.ndarray) -> float:
        """Return the excess of entities' mean residuals over chance, in log-odds: the intercepts' sd squared."""
        p = 1 / (1 + np.exp(-margin))
        score, curvature = np.bincount(key, labels - p), np.bincount(key, p * (1 - p))
        return float(((score**2).sum() - curvature.sum()) / (curvature**2).sum())

    truth = spread(rows[:, 1].astype(float))
    assert truth > 0.8
    assert spread(descent.margin) < 0.4 * truth
    assert spread(descent.margin_for_effects) > 0.7 * truth


def test_out_of_fold_margins_know_nothing_of_their_group() -> None:
    rows, labels, key, groups = _fingerprints()
    one, other = (_descent(rows, groups=groups, out_of_fold=3) for _ in range(2))
    flipped = np.where(key == 7, 1 - labels, labels)
    one.advance(labels, np.ones(key.size), np.zeros(key.size))
    other.advance(flipped, np.ones(key.size), np.zeros(key.size))
    np.testing.assert_array_equal(one.margin_for_effects[key == 7], other.margin_for_effects[key == 7])
    assert (one.margin[key == 7] != other.margin[key == 7]).any()


def test_out_of_fold_margins_are_only_for_rows_that_teach() -> None:
    rows, labels, key, groups = _fingerprints()
    watch = (key < 30).astype(float)
    descent = _descent(rows, groups=groups, out_of_fold=2, watch=watch)
    assert "out-of-fold margins of 2 folds" in descent.advance(labels, 1 - watch, np.zeros(key.size))
    np.testing.assert_array_equal(descent.margin_for_effects[key < 30], descent.margin[key < 30])
    assert (descent.margin_for_effects != descent.margin)[key >= 30].mean() > 0.9
    single = _descent(rows, groups=np.zeros(key.size, dtype=np.uint64), out_of_fold=2)
    assert "no out-of-fold margins" in single.advance(labels, np.ones(key.size), np.zeros(key.size))
    assert single.margin_for_effects is single.margin
    with pytest.raises(InvalidModelInput, match="out_of_fold is 1"):
        Trees(out_of_fold=1)


def test_shap_sums_to_the_margin() -> None:
    rows, labels = _data()
    descent = _descent(rows)
    descent.advance(labels, np.ones(N), np.zeros(N))
    trees = descent.fitted()
    shares = trees.shap(rows[:200])
    assert shares.shape == (200, 4)
    np.testing.assert_allclose(shares.sum(axis=1), trees.margin(rows[:200]), atol=1e-5)
    assert np.ptp(shares[:, -1]) < 1e-6
    assert np.abs(shares[:, 0]).mean() > 5 * np.abs(shares[:, 1]).mean()
