"""The estimator among scikit-learn's own tools: pipelines, clones, searches, pickles, its checks."""

from __future__ import annotations

import pickle
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks

from calibration import CalibrationError, QuantileResponseCalibrator
from calibration.calibrator import NotFitted
from calibration.families import expit

if TYPE_CHECKING:
    from collections.abc import Callable

PARAMETERS = {
    "method": "isotonic",
    "transforms": "all",
    "response": "count",
    "negative_sampling_rate": 1.0,
    "n_bins": 7,
}


def _rows(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    return score, (rng.random(n) < expit(-2.0 + score)).astype(float)


def test_parameters_are_read_set_and_cloned() -> None:
    model = QuantileResponseCalibrator(**PARAMETERS)
    assert model.get_params() == PARAMETERS
    assert clone(model).get_params() == PARAMETERS
    assert model.set_params(n_bins=9, method="steps").get_params() == {**PARAMETERS, "n_bins": 9, "method": "steps"}
    with pytest.raises(ValueError, match="Invalid parameter 'bins'"):
        model.set_params(bins=3)
    score, response = _rows(200)
    fitted = model.fit(score, response)
    assert fitted is model
    assert fitted.curve_.values.size <= 9
    assert not hasattr(clone(fitted), "curve_")
    assert QuantileResponseCalibrator().get_params() == {
        "method": "auto",
        "transforms": "rank",
        "response": "binary",
        "negative_sampling_rate": 1.0,
        "n_bins": 1000,
    }


def test_a_clone_fits_alike() -> None:
    score, response = _rows()
    model = QuantileResponseCalibrator().fit(score, response)
    np.testing.assert_array_equal(clone(model).fit(score, response).predict(score), model.predict(score))


def test_a_column_of_a_pipeline_is_answered_as_a_vector() -> None:
    score, response = _rows()
    model = QuantileResponseCalibrator()
    pipeline = make_pipeline(StandardScaler(), model).fit(score[:, None], response)
    answer = pipeline.predict(score[:, None])
    assert answer.shape == score.shape
    np.testing.assert_array_equal(answer, clone(model).fit(score, response).predict(score))
    log = make_pipeline(FunctionTransformer(np.log), model).fit(np.exp(score)[:, None], response)
    np.testing.assert_allclose(log.predict(np.exp(score)[:, None]), answer, rtol=0.02)
    assert model.fit(score[:, None], response).predict(score[:, None]).shape == score.shape
    with pytest.raises(CalibrationError, match="one-dimensional"):
        model.fit(np.column_stack([score, score]), response)


def test_a_frame_of_one_column_is_a_column() -> None:
    score, response = _rows(500)
    frame = pd.DataFrame({"raw_score": score})
    found = QuantileResponseCalibrator().fit(frame, pd.Series(response)).predict(frame)
    np.testing.assert_array_equal(found, QuantileResponseCalibrator().fit(score, response).predict(score))


def test_text_is_refused_as_text() -> None:
    with pytest.raises(CalibrationError, match="raw_score does not hold numbers"):
        QuantileResponseCalibrator().fit(["a", "b"], [0, 1])


@pytest.mark.parametrize("is_column", [True, False])
def test_grid_search_finds_the_method_that_fits(*, is_column: bool) -> None:
    rng = np.random.default_rng(1)
    score = rng.normal(size=6000)
    response = (rng.random(6000) < np.where(score < 1.0, 0.01, 0.6)).astype(float)
    grid = {"method": ["loglinear", "sigmoid", "steps"]}
    search = GridSearchCV(QuantileResponseCalibrator(), grid, scoring="neg_mean_squared_error", cv=4)
    search.fit(score[:, None] if is_column else score, response)
    assert search.best_params_ == {"method": "steps"}
    assert search.predict(score).shape == score.shape
    assert search.best_estimator_.curve_.method == "steps"


def test_cross_val_predict_answers_every_row() -> None:
    score, response = _rows()
    answer = cross_val_predict(QuantileResponseCalibrator(), score, response, cv=3)
    assert np.mean(answer) == pytest.approx(response.mean(), rel=0.02)


@pytest.mark.parametrize("method", ["auto", "sigmoid"])
def test_a_pickle_answers_alike(method: str) -> None:
    score, response = _rows()
    model = QuantileResponseCalibrator(method).fit(score, response)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301  # written one call before
    asked = np.append(np.linspace(-5.0, 5.0, 501), np.nan)
    np.testing.assert_array_equal(again.predict(asked), model.predict(asked))
    assert again.get_params() == model.get_params()
    assert again.curve_.to_dict() == model.curve_.to_dict()


def test_unfitted_is_an_error_of_both_libraries() -> None:
    assert issubclass(NotFitted, CalibrationError)
    assert issubclass(NotFitted, NotFittedError)
    for error in (NotFitted, CalibrationError, NotFittedError, ValueError, AttributeError):
        with pytest.raises(error, match="not fitted; call fit"):
            QuantileResponseCalibrator().predict([1.0])
    model = pickle.loads(pickle.dumps(QuantileResponseCalibrator()))  # noqa: S301  # written one call before
    with pytest.raises(NotFitted):
        model.predict([1.0])


def test_check_estimator_passes_as_it_does_for_its_own_isotonic_regression() -> None:
    # estimators of one vector have no generated data: both are asked what needs none, and warned about
    for model in (QuantileResponseCalibrator(), IsotonicRegression()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkipTestWarning)
            results = estimator_checks.check_estimator(model, on_skip=None)
        assert all(result["status"] == "passed" for result in results)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_estimators_unfitted,
    ],
    ids=lambda check: str(check.__name__),
)
def test_checks_that_need_no_table_pass(check: Callable[[str, Any], None]) -> None:
    check("QuantileResponseCalibrator", QuantileResponseCalibrator())


class OfOneColumn(QuantileResponseCalibrator):
    """Reads the first column, so that checks which make tables can run."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> OfOneColumn:
        super().fit(np.asarray(X)[:, 0], np.asarray(y) > np.mean(y), sample_weight)
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(np.asarray(X)[:, 0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array = False, True
        return tags


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_dict_unchanged,
        estimator_checks.check_dont_overwrite_parameters,
        estimator_checks.check_estimators_overwrite_params,
        estimator_checks.check_estimators_pickle,
        estimator_checks.check_fit_idempotent,
        estimator_checks.check_methods_sample_order_invariance,
        estimator_checks.check_methods_subset_invariance,
        estimator_checks.check_sample_weights_list,
        estimator_checks.check_sample_weights_not_overwritten,
        estimator_checks.check_readonly_memmap_input,
    ],
    ids=lambda check: str(check.__name__),
)
def test_checks_that_make_tables_pass_on_their_first_column(check: Callable[[str, Any], None]) -> None:
    check("OfOneColumn", OfOneColumn())
