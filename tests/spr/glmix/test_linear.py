"""The linear fixed effect: optimality, peers, normalisation, sparse rows, warm starts, degenerate and bad input."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import sparse
from sklearn.linear_model import ElasticNet, LogisticRegression, PoissonRegressor

from spr.errors import InvalidModelInput
from spr.glmix import FittedLinear, GLMixClassifier, GLMixRegressor, Linear, RandomEffect
from spr.glmix import linear as linear_module
from spr.glmix.encoding import Encoding
from spr.glmix.families import Family
from spr.glmix.linear import LinearDescent
from spr.glmix.sparse import fold_features

FAMILIES = ["binomial", "gaussian", "poisson"]
NAMES = ["a", "b", "c", "d", "e"]


def _problem(family: str, n: int = 600, seed: int = 0) -> dict[str, Any]:
    """Columns of unlike scale and mean, one mostly 0; weights, some of them 0; an offset."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 5)) * [1.0, 5.0, 0.1, 1.0, 1.0] + [0.0, 3.0, 1.0, 0.0, 0.0]
    rows[:, 3] *= rng.random(n) < 0.2
    rows = rows.astype(np.float32)
    rest = 0.3 * rng.normal(size=n)
    margin = rows @ np.array([0.6, -0.1, 1.0, 0.8, 0.0]) - 0.8 + rest
    labels = {
        "binomial": lambda: (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float),
        "gaussian": lambda: margin + rng.normal(size=n),
        "poisson": lambda: rng.poisson(np.exp(margin)).astype(float),
    }[family]()
    return {"rows": rows, "labels": labels, "weights": rng.integers(0, 4, n).astype(float), "rest": rest}


def _fit(spec: Linear, family: str, problem: dict[str, Any], names: list[str] = NAMES) -> FittedLinear:
    descent = LinearDescent(spec, names, problem["rows"], Family.named(family), 0.0)
    descent.advance(problem["labels"], problem["weights"], problem["rest"])
    descent.advance(problem["labels"], problem["weights"], problem["rest"])  # from there, nothing moves
    assert descent.iterations <= 3
    fitted = descent.fitted()
    np.testing.assert_allclose(descent.margin, fitted.margin(problem["rows"]), rtol=1e-9, atol=1e-9)
    return fitted


def _scales(normalization: str | None, problem: dict[str, Any]) -> np.ndarray:
    rows, weights = problem["rows"].astype(float), problem["weights"]
    if normalization == "max_magnitude":
        return np.abs(rows[weights > 0]).max(axis=0)
    mean = np.average(rows, axis=0, weights=weights)
    sd = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weights))
    return np.ones(rows.shape[1]) if normalization is None else sd


def _check_optimal(spec: Linear, family: str, problem: dict[str, Any], fitted: FittedLinear, tol: float) -> None:
    """Hold the Karush-Kuhn-Tucker conditions, a column's gradient measured per unit of weight and spread."""
    rows, weights, b = problem["rows"].astype(float), problem["weights"], fitted.coefficients
    margins = rows @ b + fitted.intercept + problem["rest"]
    slope = weights * (Family.named(family).response(margins) - problem["labels"])
    scale, total = _scales(spec.normalization, problem), weights.sum()
    assert abs(slope.sum()) / total < tol
    smooth = rows.T @ slope + spec.l2 * scale**2 * b
    for j, name in enumerate(NAMES):
        low, high = spec.bounds.get(name, (-np.inf, np.inf))
        assert low <= b[j] <= high
        l1, allowed = spec.l1 * scale[j], tol * total * _scales("standardize", problem)[j]
        right = smooth[j] + (l1 if b[j] >= 0 else -l1)  # the slope of the objective towards larger b, and smaller
        left = smooth[j] + (l1 if b[j] > 0 else -l1)
        assert right >= -allowed or b[j] == high, name
        assert left <= allowed or b[j] == low, name


BOUNDS = {"a": (-np.inf, 0.2), "b": (0.0, np.inf), "c": (0.5, 0.9), "d": (0.3, 0.3)}


@pytest.mark.parametrize("normalization", [None, "standardize", "max_magnitude", "standard_deviation"])
@pytest.mark.parametrize("bounds", [{}, BOUNDS], ids=["free", "bounded"])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 5.0), (30.0, 0.0), (20.0, 3.0), (1e5, 0.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_advance_meets_the_conditions_of_an_optimum(
    family: str, l1: float, l2: float, bounds: dict[str, Any], normalization: Any
) -> None:
    problem = _problem(family)
    spec = Linear(NAMES, l1=l1, l2=l2, bounds=bounds, normalization=normalization)
    fitted = _fit(spec, family, problem)
    _check_optimal(spec, family, problem, fitted, 1e-5)
    if l1 == 1e5 and not bounds:
        assert (fitted.coefficients == 0).all()


@pytest.mark.parametrize("bounds", [{}, BOUNDS], ids=["free", "bounded"])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 5.0), (20.0, 3.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_advance_meets_them_with_more_columns_than_a_hessian_holds(
    family: str, l1: float, l2: float, bounds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = _problem(family)
    spec = Linear(NAMES, l1=l1, l2=l2, bounds=bounds, normalization="max_magnitude")
    by_glum = _fit(spec, family, problem)
    monkeypatch.setattr(linear_module, "_MOST_COLUMNS", 0)
    fitted = _fit(spec, family, problem)
    _check_optimal(spec, family, problem, fitted, 1e-5)
    np.testing.assert_allclose(fitted.margin(problem["rows"]), by_glum.margin(problem["rows"]), atol=2e-4)
    np.testing.assert_array_equal(fitted.coefficients == 0, by_glum.coefficients == 0)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_advance_lets_columns_enter_a_warm_started_lasso(family: str) -> None:
    problem = _problem(family)
    spec = Linear(NAMES, l1=40.0, l2=0.0)
    descent = LinearDescent(spec, NAMES, problem["rows"], Family.named(family), 0.0)
    true_rest = problem["rest"]
    hidden = true_rest + problem["rows"].astype(float) @ np.array([0.6, -0.1, 1.0, 0.8, 0.0])  # nothing left to learn
    descent.advance(problem["labels"], problem["weights"], hidden)
    assert (descent.fitted().coefficients == 0).sum() >= 3
    descent.advance(problem["labels"], problem["weights"], true_rest)
    _check_optimal(spec, family, problem, descent.fitted(), 1e-5)


def test_advance_agrees_with_scikit_learn() -> None:
    problem = _problem("binomial")
    problem["rest"] = np.zeros(600)
    rows, weights = problem["rows"].astype(float), problem["weights"]
    peer = LogisticRegression(C=1 / 3.0, tol=1e-10, max_iter=5000).fit(rows, problem["labels"], weights)
    fitted = _fit(Linear(NAMES, l2=3.0), "binomial", problem)
    np.testing.assert_allclose(fitted.coefficients, peer.coef_[0], atol=1e-5)
    assert fitted.intercept == pytest.approx(peer.intercept_[0], abs=1e-5)

    problem = _problem("gaussian")
    weights = problem["weights"]
    labels, total = problem["labels"] - problem["rest"], weights.sum()
    net = ElasticNet(alpha=(20.0 + 3.0) / total, l1_ratio=20.0 / 23.0, tol=1e-12, max_iter=100_000)
    net.fit(rows, labels, sample_weight=weights)
    fitted = _fit(Linear(NAMES, l1=20.0, l2=3.0), "gaussian", problem)
    np.testing.assert_allclose(fitted.coefficients, net.coef_, atol=1e-5)

    problem = _problem("poisson")
    problem["rest"] = np.zeros(600)
    weights = problem["weights"]
    counts = PoissonRegressor(alpha=3.0 / weights.sum(), tol=1e-10, max_iter=5000).fit(rows, problem["labels"], weights)
    fitted = _fit(Linear(NAMES, l2=3.0), "poisson", problem)
    np.testing.assert_allclose(fitted.coefficients, counts.coef_, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_advance_without_penalty_agrees_with_statsmodels(family: str) -> None:
    problem = _problem(family)
    taught = problem["weights"] > 0
    peer = sm.GLM(
        problem["labels"][taught],
        sm.add_constant(problem["rows"][taught].astype(float)),
        family={"binomial": sm.families.Binomial, "gaussian": sm.families.Gaussian, "poisson": sm.families.Poisson}[
            family
        ](),
        offset=problem["rest"][taught],
        freq_weights=problem["weights"][taught],
    ).fit(tol=1e-12)
    fitted = _fit(Linear(NAMES, l2=0.0), family, problem)
    np.testing.assert_allclose([fitted.intercept, *fitted.coefficients], peer.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("l1", [0.0, 15.0])
@pytest.mark.parametrize("normalization", ["standardize", "max_magnitude", "standard_deviation"])
@pytest.mark.parametrize("family", FAMILIES)
def test_normalization_is_undone(family: str, normalization: Any, l1: float) -> None:
    problem = _problem(family)
    fitted = _fit(Linear(NAMES, l1=l1, l2=2.0, normalization=normalization), family, problem)
    rows, scale = problem["rows"].astype(float), _scales(normalization, problem)
    centre = np.average(rows, axis=0, weights=problem["weights"]) if normalization == "standardize" else 0.0
    by_hand = {**problem, "rows": ((rows - centre) / scale).astype(np.float32)}
    scaled = _fit(Linear(NAMES, l1=l1, l2=2.0), family, by_hand)
    np.testing.assert_allclose(fitted.coefficients * scale, scaled.coefficients, atol=1e-5)
    np.testing.assert_allclose(fitted.margin(problem["rows"]), scaled.margin(by_hand["rows"]), atol=1e-4)


def test_normalization_leaves_no_unit_behind() -> None:
    problem = _problem("binomial")
    for normalization in ("standardize", "max_magnitude"):
        spec = Linear(NAMES, l1=5.0, l2=5.0, normalization=normalization)
        plain = _fit(spec, "binomial", problem)
        units = np.array([1e-3, 1e3, 8.0, 1.0, 0.5], dtype=np.float32)
        other = _fit(spec, "binomial", {**problem, "rows": problem["rows"] * units})
        np.testing.assert_allclose(other.coefficients * units, plain.coefficients, rtol=1e-4, atol=1e-6)


def test_rows_without_weight_teach_nothing() -> None:
    problem = _problem("poisson")
    fitted = _fit(Linear(NAMES), "poisson", problem)
    wild = {**problem, "rows": problem["rows"].copy(), "labels": problem["labels"].copy()}
    idle = problem["weights"] == 0
    wild["rows"][idle] = 1e4
    wild["labels"][idle] = 1e6
    assert idle.sum() > 50
    np.testing.assert_array_equal(_fit(Linear(NAMES), "poisson", wild).coefficients, fitted.coefficients)


def _sparse_table(n: int, d: int, density: float, seed: int = 0) -> tuple[pd.DataFrame, sparse.csc_matrix]:
    rng = np.random.default_rng(seed)
    matrix = sparse.random(n, d, density=density, format="csc", random_state=rng, data_rvs=rng.standard_normal)
    return pd.DataFrame.sparse.from_spmatrix(matrix, columns=[f"f{i}" for i in range(d)]), matrix


@pytest.mark.parametrize("spec", [{"l2": 2.0}, {"l1": 6.0, "normalization": "standardize"}, {"bounds": {"f1": (0, 1)}}])
@pytest.mark.parametrize("family", FAMILIES)
def test_fit_of_sparse_columns_equals_that_of_dense(family: str, spec: dict[str, Any]) -> None:
    frame, matrix = _sparse_table(400, 30, 0.08)
    rng = np.random.default_rng(1)
    frame["age"], frame["kind"] = rng.normal(size=400), rng.choice(["u", "v", "w"], 400)
    margin = matrix @ rng.normal(size=30) + 0.5 * frame["age"].to_numpy() + (frame["kind"] == "u").to_numpy()
    y = {
        "binomial": (rng.random(400) < 1 / (1 + np.exp(-margin))).astype(float),
        "gaussian": margin + rng.normal(size=400),
        "poisson": rng.poisson(np.exp(margin - 1)).astype(float),
    }[family]
    dense = frame.assign(**{name: frame[name].sparse.to_dense() for name in frame.columns[:30]})
    fixed = Linear(list(frame.columns), **spec)
    model: Any = GLMixClassifier(fixed) if family == "binomial" else GLMixRegressor(fixed, family=family)
    expected = model.fit(dense, y).fixed_
    found = model.fit(frame, y)
    np.testing.assert_allclose(found.fixed_.coefficients, expected.coefficients, atol=1e-4)
    np.testing.assert_allclose(found.decision_function(frame), model.fit(dense, y).decision_function(dense), atol=1e-5)
    found = model.fit(frame, y)
    assert found.fixed_.features == expected.features
    np.testing.assert_allclose(found.decision_function(frame), found.decision_function(dense), atol=1e-9)


def test_fit_of_sparse_columns_moves_with_random_effects() -> None:
    frame, matrix = _sparse_table(3000, 20, 0.1)
    rng = np.random.default_rng(2)
    key = np.repeat(np.arange(100), 30)
    margin = matrix @ rng.normal(size=20) + rng.normal(size=100)[key]
    y = (rng.random(3000) < 1 / (1 + np.exp(-margin))).astype(float)
    frame["user"] = key
    effect = RandomEffect("user", "user", l2=1.0)
    dense = frame.assign(**{name: frame[name].sparse.to_dense() for name in frame.columns[:20]})
    model = GLMixClassifier(Linear(list(frame.columns[:20])), [effect])
    sparsely = model.fit(frame, y, validation=(frame.iloc[:300], y[:300])).decision_function(frame)
    densely = model.fit(dense, y, validation=(dense.iloc[:300], y[:300])).decision_function(frame)
    np.testing.assert_allclose(sparsely, densely, atol=5e-3)


@pytest.mark.parametrize("l1", [0.0, 2.0])
def test_fit_of_many_sparse_columns_never_makes_them_dense(l1: float) -> None:
    frame, matrix = _sparse_table(5000, 20_000, 0.001)
    rng = np.random.default_rng(3)
    y = (rng.random(5000) < 1 / (1 + np.exp(-(matrix @ rng.normal(size=20_000))))).astype(float)
    spec = Linear(list(frame.columns), l1=l1, l2=0.5)
    tracemalloc.start()
    encoding = Encoding.learn(frame, spec.features, "a test")
    rows = encoding.linear_rows(frame, "a test")
    descent = LinearDescent(spec, encoding.names, rows, Family.named("binomial"), 0.0)
    descent.advance(y, np.ones(5000), np.zeros(5000))
    hashes = np.zeros(5000, dtype=np.uint64)
    fold_features(hashes, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * 4 * 5000 * 20_000  # of the dense float32 matrix
    fitted = descent.fitted()
    slope = 1 / (1 + np.exp(-fitted.margin(rows))) - y
    smooth = matrix.T @ slope + 0.5 * fitted.coefficients
    active = fitted.coefficients != 0
    assert np.abs(smooth[active] + l1 * np.sign(fitted.coefficients[active])).max() < 1e-2
    assert (np.abs(smooth[~active]) <= l1 + 1e-2).all()
    assert active.mean() < 0.3 or l1 == 0


def test_linear_rows_are_sparse_for_many_levels() -> None:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"city": [f"c{i}" for i in rng.integers(0, 200, 2000)], "x": rng.normal(size=2000)})
    frame.loc[3, "city"] = None
    encoding = Encoding.learn(frame, ["city", "x"], "a test")
    rows = encoding.linear_rows(frame, "a test")
    assert sparse.issparse(rows)
    np.testing.assert_array_equal(rows.toarray(), encoding.matrix(frame, "a test"))
    y = (rng.random(2000) < 0.3).astype(float)
    model = GLMixClassifier(Linear(["city", "x"])).fit(frame, y)
    assert np.isfinite(model.decision_function(frame.assign(city="nowhere"))).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("l1", [0.0, 20.0])
def test_advance_from_the_last_fit_takes_three_iterations_at_most(family: str, l1: float) -> None:
    problem = _problem(family, n=5000)
    descent = LinearDescent(Linear(NAMES, l1=l1), NAMES, problem["rows"], Family.named(family), 0.0)
    for sweep in range(4):
        rest = problem["rest"] * (1 - 0.2**sweep)
        descent.advance(problem["labels"], problem["weights"], rest)
        assert sweep == 0 or descent.iterations <= 3
    again = descent.fitted()
    descent.advance(problem["labels"], problem["weights"], rest)
    assert descent.iterations <= 1
    np.testing.assert_allclose(descent.fitted().coefficients, again.coefficients, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("normalization", [None, "standardize"])
def test_shift_intercept_moves_intercept_and_margin(normalization: Any) -> None:
    problem = _problem("binomial")
    descent = LinearDescent(
        Linear(NAMES, normalization=normalization), NAMES, problem["rows"], Family.named("binomial"), 0.0
    )
    descent.advance(problem["labels"], problem["weights"], problem["rest"])
    before, margin = descent.fitted(), descent.margin
    kept = margin.copy()
    descent.shift_intercept(0.75)
    assert descent.fitted().intercept == pytest.approx(before.intercept + 0.75)
    np.testing.assert_allclose(descent.margin, margin + 0.75)
    np.testing.assert_array_equal(margin, kept)  # who held the margin holds what it was
    np.testing.assert_allclose(descent.fitted().margin(problem["rows"]), descent.margin, atol=1e-9)
    descent.advance(problem["labels"], problem["weights"], problem["rest"] - 0.75)
    np.testing.assert_allclose(descent.fitted().coefficients, before.coefficients, atol=1e-6)
    assert descent.fitted().intercept == pytest.approx(before.intercept + 0.75, abs=1e-6)


@pytest.mark.parametrize("normalization", [None, "standardize", "max_magnitude"])
def test_start_begins_at_a_fitted_model_found_by_name(normalization: Any) -> None:
    problem, family = _problem("binomial"), Family.named("binomial")
    spec = Linear(NAMES, normalization=normalization)
    fitted = _fit(spec, "binomial", problem)
    turned = FittedLinear(fitted.features[::-1], fitted.intercept, fitted.coefficients[::-1])
    descent = LinearDescent(spec, NAMES, problem["rows"], family, 0.0, start=turned)
    np.testing.assert_allclose(descent.margin, fitted.margin(problem["rows"]), atol=1e-9)
    descent.advance(problem["labels"], problem["weights"], problem["rest"])
    assert descent.iterations <= 1
    np.testing.assert_allclose(descent.fitted().coefficients, fitted.coefficients, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [(NAMES[:4], "unknown feature 'e'"), ([*NAMES, "f"], "'f', which is no feature"), (list("abcdE"), "'e'")],
)
def test_start_refuses_other_features(features: list[str], message: str) -> None:
    start = FittedLinear(tuple(features), 0.0, np.zeros(len(features)))
    with pytest.raises(InvalidModelInput, match=message):
        LinearDescent(Linear(NAMES), NAMES, _problem("binomial")["rows"], Family.named("binomial"), 0.0, start=start)


DEGENERATE: dict[str, tuple[list[list[float]], list[float]]] = {
    "separable": ([[x, 0.0] for x in range(40)], [0.0] * 20 + [1.0] * 20),
    "all 0": ([[x, 1.0] for x in range(40)], [0.0] * 40),
    "all 1": ([[x, 1.0] for x in range(40)], [1.0] * 40),
    "collinear": ([[x, 2 * x] for x in range(40)], [0.0, 1.0, 1.0, 0.0] * 10),
    "constant": ([[3.0, 1e6]] * 40, [0.0, 1.0] * 20),
    "one constant": ([[3.0, x] for x in range(40)], [0.0, 1.0] * 20),
    "empty": ([[np.nan, 0.0]] * 40, [0.0, 1.0] * 20),
    "wide units": ([[1e-9 * x, 1e9 * (x % 7)] for x in range(40)], [0.0, 1.0, 1.0, 0.0] * 10),
    "one row": ([[1.0, 2.0]], [1.0]),
}


@pytest.mark.parametrize("wide", [False, True], ids=["glum", "wide"])
@pytest.mark.parametrize("made", [np.asarray, sparse.csc_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize(("values", "labels"), DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_advance_stays_finite_on_degenerate_rows(
    family: str, values: Any, labels: Any, made: Any, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wide:
        monkeypatch.setattr(linear_module, "_MOST_COLUMNS", 0)
    rows, y = np.array(values, dtype=np.float32), np.array(labels)
    for penalty in ({"l2": 0.0}, {"l2": 1.0}, {"l1": 1.0, "l2": 0.0}):
        for normalization in (None, "standardize", "max_magnitude", "standard_deviation"):
            for bounds in ({}, {"x": (0.0, 1.0), "z": (-np.inf, 0.5)}):
                spec = Linear(["x", "z"], bounds=bounds, normalization=normalization, **penalty)
                descent = LinearDescent(spec, ["x", "z"], made(rows), Family.named(family), 0.0)
                for shift in (0.0, 0.3):
                    descent.advance(y, np.ones(y.size), np.full(y.size, shift))
                assert np.isfinite(descent.margin).all()
                low, high = descent.fitted().coefficients
                assert not bounds or (0 <= low <= 1 and high <= 0.5)


def test_separable_labels_keep_a_steep_slope() -> None:
    rows = np.arange(40, dtype=np.float32)[:, None]
    problem = {"rows": rows, "labels": (rows[:, 0] >= 20) * 1.0, "weights": np.ones(40), "rest": np.zeros(40)}
    fitted = _fit(Linear(["x"], l2=0.0), "binomial", problem, ["x"])
    assert fitted.coefficients[0] > 2
    assert -fitted.intercept / fitted.coefficients[0] == pytest.approx(19.5, abs=0.05)


def test_one_label_keeps_bounds_that_exclude_zero() -> None:
    problem = _problem("binomial")
    problem["labels"][:] = 1.0
    fitted = _fit(Linear(NAMES, bounds={"a": (0.5, 1.0)}), "binomial", problem)
    assert fitted.coefficients.tolist() == [0.5, 0, 0, 0, 0]


def test_small_units_and_rare_labels_are_not_shrunk_without_penalty() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=100_000)
    y = (rng.random(100_000) < 1 / (1 + np.exp(6.5 - x))).astype(float)
    exact = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-12).params[1]
    rows = np.column_stack([x * 1e-5, rng.normal(size=x.size)]).astype(np.float32)
    problem = {"rows": rows[:, :1], "labels": y, "weights": np.ones(x.size), "rest": np.zeros(x.size)}
    fitted = _fit(Linear(["x"], l2=0.0), "binomial", problem, ["x"])
    assert fitted.coefficients[0] * 1e-5 == pytest.approx(exact, rel=1e-4)


def test_bounds_of_a_string_column_hold_for_its_levels() -> None:
    rng = np.random.default_rng(6)
    frame = pd.DataFrame({"kind": rng.choice(["u", "v", "w"], 3000), "x": rng.normal(size=3000)})
    margin = frame["kind"].map({"u": -1.0, "v": 0.0, "w": 1.0}) + frame["x"]
    y = (rng.random(3000) < 1 / (1 + np.exp(-margin))).astype(float)
    bounds = {"kind": (-0.1, 0.1), "kind=w": (0.3, 0.4), "x": (-np.inf, 0.4)}
    fitted = GLMixClassifier(Linear(["kind", "x"], bounds=bounds)).fit(frame, y).fixed_
    found = dict(zip(fitted.features, fitted.coefficients, strict=True))
    assert found["kind=u"] == pytest.approx(-0.1)
    assert -0.1 <= found["kind=v"] <= 0.1
    assert 0.3 <= found["kind=w"] <= 0.4
    assert found["x"] == 0.4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"l1": -1.0}, "l1 is -1.0"),
        ({"l2": np.inf}, "l2 is inf"),
        ({"l1": np.nan}, "l1 is nan"),
        ({"features": "a"}, "give a list"),
        ({"features": ["a", "a"]}, "named twice"),
        ({"normalization": "standardise"}, "unknown normalization 'standardise'.*Did you mean 'standardize'"),
        ({"bounds": {"aa": (0, 1)}}, "unknown feature 'aa' in the bounds of Linear"),
        ({"bounds": {"z=u": (0, 1)}}, "unknown feature 'z=u'"),
        ({"bounds": {"a": (1, 0)}}, "lower <= upper"),
        ({"bounds": {"a": (np.nan, 0)}}, "lower <= upper"),
        ({"bounds": {"a": (np.inf, np.inf)}}, "lower <= upper"),
        ({"bounds": {"a": (0, 1, 2)}}, r"a pair \(lower, upper\)"),
        ({"bounds": {"a": 1.0}}, r"a pair \(lower, upper\)"),
        ({"bounds": {"a": ("low", 1.0)}}, r"a pair \(lower, upper\)"),
    ],
)
def test_linear_refuses_nonsense(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        Linear(**{"features": NAMES, **changed})


def test_fit_refuses_bounds_of_a_level_that_is_not_there() -> None:
    frame = pd.DataFrame({"kind": ["u", "v"] * 30})
    with pytest.raises(InvalidModelInput, match=r"'kind=x' in the bounds of Linear.*Did you mean 'kind="):
        GLMixClassifier(Linear(["kind"], bounds={"kind=x": (0, 1)})).fit(frame, [0, 1, 1] * 20)


def test_sparse_matrix_reads_what_matrix_reads() -> None:
    frame = pd.DataFrame(
        {
            "zero": pd.arrays.SparseArray([0.0, 2.0, np.nan, 0.0], fill_value=0.0),
            "null": pd.arrays.SparseArray([np.nan, 2.0, 0.0, -1.0]),
            "one": pd.arrays.SparseArray([1.0, 1.0, 0.0, 3.0], fill_value=1.0),
            "block": pd.arrays.SparseArray([0.0, 5.0, 6.0, 0.0], fill_value=0.0, kind="block"),
            "flag": pd.arrays.SparseArray([True, False, False, True]),
            "count": pd.arrays.SparseArray([0, 3, 0, 0]),
            "dense": [1.5, np.nan, 0.0, 4.0],
            "kind": ["v", None, "u", "v"],
        }
    )
    encoding = Encoding.learn(frame, list(frame.columns), "a test")
    found = encoding.linear_rows(frame, "a test")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), np.nan_to_num(encoding.matrix(frame, "a test")))
    assert (found.data != 0).all()


def test_sparse_matrix_refuses_what_matrix_refuses() -> None:
    frame = pd.DataFrame({"x": pd.arrays.SparseArray([0.0, np.inf, 1e300], fill_value=0.0)})
    encoding = Encoding.learn(frame, ["x"], "a test")
    with pytest.raises(InvalidModelInput, match=r"'x' of a test is infinite.*in 2 of"):
        encoding.sparse_matrix(frame, "a test")
    with pytest.raises(InvalidModelInput, match="is not numeric, but was in fit"):
        encoding.sparse_matrix(pd.DataFrame({"x": ["old"]}), "a test")
    with pytest.raises(InvalidModelInput, match="unknown feature column 'x'"):
        encoding.linear_rows(pd.DataFrame({"y": [1.0]}), "a test")
