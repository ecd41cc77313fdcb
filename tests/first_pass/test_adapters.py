from __future__ import annotations

import sys

import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
import xgboost
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline

import first_pass
from first_pass import (
    FunctionRanker,
    LightGBMRanker,
    OnnxRanker,
    Precomputed,
    SklearnRanker,
    StatsmodelsRanker,
    XGBoostRanker,
)
from first_pass.errors import (
    InvalidRanker,
    InvalidRawScore,
    InvalidTable,
    MissingColumn,
    MissingDependency,
    UnknownName,
)
from first_pass.testing import check_first_pass_ranker

N = 120
_rng = np.random.default_rng(5)
X = pd.DataFrame({"common": _rng.poisson(3.0, N).astype(float), "km": _rng.normal(size=N), "age": _rng.normal(size=N)})
Y = (X["common"] + X["km"] + _rng.logistic(size=N) > 3).astype(int).to_numpy()
FEATURES = list(X)
VIEWERS = X[["age"]].head(6)
ENTITIES = X[["common", "km"]].iloc[10:16].assign(entity_id=list("abcdef"))
WITH_NULL = ENTITIES.assign(km=ENTITIES["km"].where(np.arange(6) != 2))
KIND = {"entity_type": "people", "version": "pymk-7"}


def _pairs() -> pd.DataFrame:
    """Return what the model should be asked for row i of VIEWERS with row i of ENTITIES."""
    return pd.concat([ENTITIES[["common", "km"]].reset_index(drop=True), VIEWERS.reset_index(drop=True)], axis=1)


def _xgboost(**options):
    return xgboost.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, **options)


def _lightgbm():
    return lightgbm.LGBMClassifier(n_estimators=8, min_child_samples=5, n_jobs=1, verbose=-1)


MODELS = {
    "xgboost": (lambda: _xgboost().fit(X, Y), lambda m: m.predict(_pairs(), output_margin=True)),
    "xgboost booster": (
        lambda: _xgboost().fit(X, Y).get_booster(),
        lambda m: m.predict(xgboost.DMatrix(_pairs()), output_margin=True),
    ),
    "lightgbm": (lambda: _lightgbm().fit(X, Y), lambda m: m.predict(_pairs(), raw_score=True)),
    "lightgbm booster": (
        lambda: _lightgbm().fit(X, Y).booster_,
        lambda m: m.predict(_pairs(), raw_score=True),
    ),
    "logistic": (lambda: LogisticRegression().fit(X, Y), lambda m: m.decision_function(_pairs())),
    "neighbours": (lambda: KNeighborsClassifier().fit(X, Y), lambda m: m.predict_proba(_pairs())[:, 1]),
    "mlp": (
        lambda: MLPRegressor(hidden_layer_sizes=(4,), max_iter=50, solver="lbfgs", random_state=0, tol=1.0).fit(X, Y),
        lambda m: m.predict(_pairs()),
    ),
    "hist gradient boosting": (
        lambda: HistGradientBoostingClassifier(max_iter=5).fit(X, Y),
        lambda m: m.decision_function(_pairs()),
    ),
    "statsmodels": (
        lambda: sm.Logit(Y, sm.add_constant(X)).fit(disp=0),
        lambda m: m.predict(sm.add_constant(_pairs())),
    ),
    "statsmodels without a constant": (lambda: sm.OLS(Y, X).fit(), lambda m: m.predict(_pairs())),
}


@pytest.mark.parametrize("name", MODELS)
def test_ranker_gives_what_the_model_predicts(name):
    fit, predict = MODELS[name]
    model = fit()
    ranker = first_pass.ranker(model, **KIND)
    assert isinstance(ranker, first_pass.FirstPassRanker)
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, ENTITIES), predict(model), rtol=1e-6)
    check_first_pass_ranker(ranker, VIEWERS, ENTITIES)


@pytest.mark.parametrize("name", MODELS)
def test_ranker_takes_a_null_or_says_not_scorable_as_the_model_can(name):
    ranker = first_pass.ranker(MODELS[name][0](), **KIND)
    null = np.isnan(ranker.raw_scores({"age": 0.5}, WITH_NULL))
    copes = name.startswith(("xgboost", "lightgbm", "hist"))
    np.testing.assert_array_equal(null, [False, False, not copes, False, False, False])


def test_xgboost_ranker_passes_nulls_on_as_missing():
    model = _xgboost().fit(X, Y)
    pairs = _pairs().assign(km=WITH_NULL["km"].to_numpy())
    ranker = XGBoostRanker(model, **KIND)
    expected = model.predict(pairs, output_margin=True)
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, WITH_NULL), expected, rtol=1e-6)


def test_xgboost_ranker_stops_where_the_wrapper_stopped():
    model = _xgboost(early_stopping_rounds=1, learning_rate=1.0).fit(
        X[:60], Y[:60], eval_set=[(X[60:], Y[60:])], verbose=False
    )
    assert model.best_iteration < 7
    expected = model.predict(_pairs(), output_margin=True)
    assert not np.allclose(expected, model.get_booster().predict(xgboost.DMatrix(_pairs()), output_margin=True))
    np.testing.assert_allclose(XGBoostRanker(model, **KIND).raw_scores_batch(VIEWERS, ENTITIES), expected, rtol=1e-6)


def test_boosted_rankers_give_probabilities_when_asked():
    for ranker, model in ((XGBoostRanker, _xgboost()), (LightGBMRanker, _lightgbm())):
        expected = model.fit(X, Y).predict_proba(_pairs())[:, 1]
        raw_score = ranker(model, margin=False, **KIND).raw_scores_batch(VIEWERS, ENTITIES)
        np.testing.assert_allclose(raw_score, expected, rtol=1e-6)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosted_rankers_read_categories_by_name(library):
    kinds = np.array(["rock", "jazz", "folk", "soul"])
    kind = np.random.default_rng(1).choice(kinds, 400)
    data = pd.DataFrame({"km": np.random.default_rng(2).normal(size=400), "kind": pd.Categorical(kind)})
    target = np.select([kind == "rock", kind == "jazz", kind == "folk"], [3.0, -1.0, 1.0], 7.0) + data["km"]
    if library == "xgboost":
        model = xgboost.XGBRegressor(n_estimators=30, enable_categorical=True, n_jobs=1, max_cat_to_onehot=1)
    else:
        model = lightgbm.LGBMRegressor(n_estimators=30, n_jobs=1, verbose=-1)
    model.fit(data, target)
    expected = model.predict(pd.DataFrame({"km": 0.0, "kind": pd.Categorical(kinds, data["kind"].cat.categories)}))
    assert len({round(float(each), 1) for each in expected}) == 4
    ranker = first_pass.ranker(model, **KIND)
    for order in ([0, 1, 2, 3], [3, 1], [2]):
        raw_score = ranker.raw_scores({"km": 0.0}, pd.DataFrame({"kind": kinds[order]}))
        np.testing.assert_allclose(raw_score, expected[order], rtol=1e-5)


def test_xgboost_ranker_refuses_gblinear_and_says_what_to_do():
    model = xgboost.XGBRegressor(booster="gblinear", n_estimators=2, n_jobs=1).fit(X, Y)
    with pytest.raises(InvalidRanker, match="gblinear, allowed: gbtree, dart; wrap a function"):
        XGBoostRanker(model, **KIND)


def test_ranker_of_several_classes_is_refused():
    model = _xgboost().fit(X, np.arange(N) % 3)
    with pytest.raises(InvalidRawScore, match=r"shape \(6, 3\)"):
        first_pass.ranker(model, **KIND).raw_scores({"age": 1.0}, ENTITIES)


@pytest.mark.parametrize("fit", [_xgboost, _lightgbm, LinearRegression])
def test_model_fitted_on_an_array_needs_features_in_the_order_of_training(fit):
    model = fit().fit(X.to_numpy(), Y)
    with pytest.raises(InvalidRanker, match=r"does not remember its feature names; give features"):
        first_pass.ranker(model, **KIND)
    with pytest.raises(InvalidRanker, match="2 features given, the model reads 3"):
        first_pass.ranker(model, features=["common", "km"], **KIND)
    ranker = first_pass.ranker(model, features=FEATURES, **KIND)
    named = first_pass.ranker(fit().fit(X, Y), **KIND)
    np.testing.assert_allclose(
        ranker.raw_scores({"age": 1.0}, ENTITIES), named.raw_scores({"age": 1.0}, ENTITIES), rtol=1e-6
    )


def test_features_that_are_not_the_models_are_refused_and_their_order_is_the_models():
    model = LinearRegression().fit(X, Y)
    with pytest.raises(InvalidRanker, match="trained on"):
        SklearnRanker(model, features=["common", "km", "height"], **KIND)
    assert SklearnRanker(model, features=FEATURES[::-1], **KIND).features == tuple(FEATURES)


def test_text_in_a_numeric_feature_is_refused():
    entities = ENTITIES.assign(km="far")
    for model in (_xgboost().fit(X, Y), _lightgbm().fit(X, Y), LinearRegression().fit(X.to_numpy(), Y)):
        ranker = first_pass.ranker(model, features=FEATURES, **KIND)
        with pytest.raises(InvalidTable, match=r"feature 'km' must be numeric.*'far'"):
            ranker.raw_scores({"age": 1.0}, entities)


def test_numeric_feature_may_be_boolean_nullable_or_none():
    model = _xgboost().fit(X, Y)
    entities = pd.DataFrame({"common": pd.array([1, None], dtype="Int64"), "km": [True, False]})
    expected = model.predict(pd.DataFrame({"common": [1, np.nan], "km": [1.0, 0.0], "age": np.nan}), output_margin=True)
    np.testing.assert_allclose(
        first_pass.ranker(model, **KIND).raw_scores({"age": None}, entities), expected, rtol=1e-6
    )


def test_sklearn_ranker_takes_the_method_asked_for():
    model = LogisticRegression().fit(X, Y)
    raw_score = SklearnRanker(model, method="predict_proba", **KIND).raw_scores_batch(VIEWERS, ENTITIES)
    np.testing.assert_allclose(raw_score, model.predict_proba(_pairs())[:, 1])
    with pytest.raises(InvalidRanker, match="LinearRegression has predict, asked for predict_proba"):
        SklearnRanker(LinearRegression().fit(X, Y), method="predict_proba", **KIND)


def test_sklearn_ranker_passes_nulls_to_a_pipeline_that_imputes():
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, Y)
    ranker = SklearnRanker(model, accepts_null=True, **KIND)
    expected = model.decision_function(_pairs().assign(km=WITH_NULL["km"].to_numpy()))
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, WITH_NULL), expected)


def test_statsmodels_ranker_reads_a_formula():
    data = X.assign(y=Y, side=np.where(X["km"] > 0, "left", "right"))
    model = smf.logit("y ~ common * age + C(side)", data).fit(disp=0)
    ranker = first_pass.ranker(model, features=["common", "age", "side"], **KIND)
    entities = data[["common", "side"]].iloc[10:16]
    expected = model.predict(entities.reset_index(drop=True).assign(age=VIEWERS["age"].to_numpy()))
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, entities), expected)
    check_first_pass_ranker(ranker, VIEWERS, entities)


def test_statsmodels_ranker_puts_the_constant_where_training_had_it():
    X_last = sm.add_constant(X, prepend=False).to_numpy()
    model = sm.GLM(Y, X_last, family=sm.families.Binomial()).fit()
    ranker = StatsmodelsRanker(model, features=FEATURES, **KIND)
    expected = model.predict(np.column_stack([_pairs(), np.ones(6)]))
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, ENTITIES), expected)


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory):
    model = LogisticRegression().fit(X.to_numpy(np.float32), Y)
    path = tmp_path_factory.mktemp("onnx") / "people.onnx"
    path.write_bytes(to_onnx(model, X.to_numpy(np.float32)[:1], options={"zipmap": False}).SerializeToString())
    return path, model


def _onnx_session(model, sample, **options):
    network = to_onnx(model, sample, **options).SerializeToString()
    return onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("opened", [True, False])
def test_onnx_ranker_gives_what_the_network_was_made_from(onnx_path, opened):
    path, model = onnx_path
    network = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) if opened else path
    ranker = first_pass.ranker(network, features=FEATURES, **KIND)
    assert isinstance(ranker, OnnxRanker)
    expected = model.predict_proba(_pairs().to_numpy())[:, 1]
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, ENTITIES), expected, rtol=1e-5)
    check_first_pass_ranker(ranker, VIEWERS, WITH_NULL)


def test_onnx_ranker_reads_one_input_per_feature_and_one_column_out():
    model = LinearRegression().fit(X, Y)
    pipeline = make_pipeline(SimpleImputer(), model).fit(X, Y)
    session = _onnx_session(pipeline, X.astype(np.float32)[:1])
    assert len(session.get_inputs()) == 3
    ranker = first_pass.ranker(session, **KIND)
    np.testing.assert_allclose(ranker.raw_scores_batch(VIEWERS, ENTITIES), pipeline.predict(_pairs()), rtol=1e-4)


def test_onnx_ranker_chooses_an_output_by_name(onnx_path):
    path, model = onnx_path
    ranker = OnnxRanker(path, features=FEATURES, output="label", **KIND)
    np.testing.assert_array_equal(ranker.raw_scores_batch(VIEWERS, ENTITIES), model.predict(_pairs().to_numpy()))
    with pytest.raises(UnknownName, match=r"unknown output 'probs'.*known: label, probabilities"):
        OnnxRanker(path, features=FEATURES, output="probs", **KIND)


def test_onnx_ranker_refuses_a_network_it_cannot_read(onnx_path):
    with pytest.raises(InvalidRanker, match="zipmap"):
        OnnxRanker(_onnx_session(onnx_path[1], X.to_numpy(np.float32)[:1]), features=FEATURES, **KIND)
    with pytest.raises(InvalidRanker, match="1 features given, the model reads 3"):
        OnnxRanker(onnx_path[0], features=["km"], **KIND)


def test_onnx_ranker_without_onnxruntime_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r"pip install 'spr\[onnx\]'"):
        OnnxRanker("people.onnx", features=FEATURES, **KIND)


def test_function_ranker_needs_features():
    with pytest.raises(InvalidRanker, match="a function needs features"):
        first_pass.ranker(lambda pairs: pairs["km"], **KIND)
    ranker = first_pass.ranker(lambda pairs: -pairs["km"], features=["km"], **KIND)
    assert isinstance(ranker, FunctionRanker)
    np.testing.assert_array_equal(ranker.raw_scores({}, ENTITIES), -ENTITIES["km"])


def test_precomputed_reads_a_column_of_the_entities():
    ranker = Precomputed(column="km", **KIND)
    np.testing.assert_array_equal(ranker.raw_scores({}, WITH_NULL), WITH_NULL["km"])
    check_first_pass_ranker(ranker, VIEWERS, WITH_NULL)
    with pytest.raises(MissingColumn, match="'raw_score' is missing"):
        Precomputed(**KIND).raw_scores({}, ENTITIES)


def test_precomputed_looks_pairs_up_and_leaves_the_rest_unscorable():
    table = pd.DataFrame({"viewer_id": ["u", "v", "v"], "entity_id": ["a", "a", "b"], "raw_score": [1.0, 2.0, None]})
    ranker = first_pass.ranker(table, **KIND)
    np.testing.assert_array_equal(ranker.raw_scores({"viewer_id": "v"}, ENTITIES), [2.0] + [np.nan] * 5)
    viewers = pd.DataFrame({"viewer_id": ["u", "v", "w"]})
    entities = pd.DataFrame({"entity_id": ["a", "a", "a"]})
    np.testing.assert_array_equal(ranker.raw_scores_batch(viewers, entities), [1.0, 2.0, np.nan])
    check_first_pass_ranker(ranker, viewers, ENTITIES)


@pytest.mark.parametrize(
    ("table", "error", "found"),
    [
        (
            {"viewer_id": ["u", "u"], "entity_id": ["a", "a"], "raw_score": [1.0, 2.0]},
            InvalidTable,
            "repeat a key",
        ),
        ({"viewer_id": ["u"], "entity_id": [3], "raw_score": [1.0]}, InvalidTable, "entity_id must be a string"),
        ({"viewer_id": ["u"], "entity_id": ["a"], "score": [1.0]}, MissingColumn, "Did you mean 'score'"),
        ({"viewer_id": ["u"], "entity_id": ["a"], "raw_score": ["x"]}, InvalidTable, "must be numeric"),
    ],
)
def test_precomputed_refuses_a_table_it_cannot_read(table, error, found):
    with pytest.raises(error, match=found):
        first_pass.ranker(pd.DataFrame(table), **KIND)


def test_ranker_refuses_what_no_adapter_takes():
    with pytest.raises(InvalidRanker, match=r"no adapter takes a builtins\.int"):
        first_pass.ranker(3, **KIND)
    with pytest.raises(InvalidRanker, match="takes no features"):
        first_pass.ranker(pd.DataFrame(), features=["km"], **KIND)
