from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from calibration import CalibrationError, QuantileResponseCalibrator
from calibration.errors import CalibrationWarning
from calibration.families import expit

if TYPE_CHECKING:
    from collections.abc import Callable

RANK_METHODS = ("auto", "loglinear", "spline", "isotonic", "steps")
METHODS = (*RANK_METHODS, "sigmoid")
CONFIGURATIONS = [(method, transforms) for method in METHODS for transforms in ("rank", "all")]

TRUTHS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], float]] = {
    # raw score, true expected response, tolerance of auto: mean |estimate - truth| / base rate at 20,000 rows
    "margin": (lambda z: z, lambda z: expit(-3.5 + z), 0.09),
    "skewed": (lambda z: np.exp(2 * z), lambda z: expit(-5 + 2 * z), 0.09),
    "probability": (lambda z: expit(2 * z - 2), lambda z: 0.5 * expit(2 * z - 2), 0.09),
    "counts": (lambda z: np.floor(np.exp(z)), lambda z: expit(-4 + 0.8 * np.floor(np.exp(z)).clip(0, 4)), 0.09),
    "plateaus": (lambda z: z, lambda z: np.select([z < 0.5, z < 1.5], [0.01, 0.03], 0.15), 0.25),
    "no signal": (lambda z: z, lambda z: np.full(z.shape, 0.02), 0.12),
}


def _world(name: str, seed: int, n: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score, rate, _ = TRUTHS[name]
    z = rng.normal(size=n)
    truth = rate(z)
    return score(z), (rng.random(n) < truth).astype(float), truth


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_auto_recovers_known_truth(name: str, transforms: str) -> None:
    errors = []
    for seed in range(4):
        raw_score, response, truth = _world(name, seed)
        answer = QuantileResponseCalibrator(transforms=transforms).fit(raw_score, response).predict(raw_score)
        errors.append(np.mean(np.abs(answer - truth)) / truth.mean())
    assert np.mean(errors) < TRUTHS[name][2]


@pytest.mark.parametrize("method", [*METHODS[1:], "beta"])
def test_each_method_recovers_a_smooth_truth(method: str) -> None:
    raw_score, response, truth = _world("margin", 1)
    if method == "beta":
        raw_score = expit(raw_score)  # log s - log(1 - s) is the margin again
    answer = QuantileResponseCalibrator(method).fit(raw_score, response).predict(raw_score)
    assert np.mean(np.abs(answer - truth)) / truth.mean() < 0.15


def test_auto_shrinks_where_it_can_and_follows_steps_where_it_must() -> None:
    smooth = QuantileResponseCalibrator().fit(*_world("margin", 0)[:2]).curve_
    assert smooth.form.method == "loglinear"
    assert smooth.form.is_shrunken
    rng = np.random.default_rng(0)
    z = rng.normal(size=60_000)
    cliff = (rng.random(z.size) < np.where(z < 1.0, 0.002, 0.5)).astype(float)
    assert QuantileResponseCalibrator().fit(z, cliff).curve_.method in ("isotonic", "steps")


def test_mean_expected_response_is_the_base_rate() -> None:
    raw_score, response, _ = _world("skewed", 2)
    for method, transforms in CONFIGURATIONS:
        curve = QuantileResponseCalibrator(method, transforms).fit(raw_score, response).curve_
        assert curve.mean_response == pytest.approx(response.mean(), rel=0.03)
        assert curve.base_rate == pytest.approx(response.mean(), rel=1e-12)


ROWS = st.lists(
    st.tuples(st.floats(-1e300, 1e300), st.sampled_from([0.0, 0.0, 1.0, 0.5]), st.sampled_from([1.0, 0.3, 7.0])),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize(("method", "transforms"), CONFIGURATIONS)
@settings(deadline=None, max_examples=25)
@given(rows=ROWS, asked=st.lists(st.floats(-1e301, 1e301), min_size=1, max_size=30))
def test_predict_is_monotone_and_inside_for_any_rows(
    method: str, transforms: str, rows: list[tuple[float, float, float]], asked: list[float]
) -> None:
    raw_score, response, weight = (np.array(column) for column in zip(*rows, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # few rows may be of one score or without a response
        fitted = QuantileResponseCalibrator(method, transforms).fit(raw_score, response, weight)
    answer = fitted.predict(np.sort(np.concatenate([asked, raw_score])))
    assert np.all((answer > 0) & (answer < 1))
    assert np.all(np.diff(answer) >= -1e-15)


@pytest.mark.parametrize(("method", "transforms"), CONFIGURATIONS)
def test_weights_equal_repeated_rows(method: str, transforms: str) -> None:
    raw_score, response, _ = _world("counts", 3, n=2000)
    weight = np.random.default_rng(0).integers(0, 4, raw_score.size)
    model = QuantileResponseCalibrator(method, transforms)
    weighted = clone(model).fit(raw_score, response, sample_weight=weight).predict(raw_score)
    repeated = clone(model).fit(np.repeat(raw_score, weight), np.repeat(response, weight)).predict(raw_score)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9)


@pytest.mark.parametrize(("method", "transforms"), CONFIGURATIONS)
def test_degenerate_rows_have_the_stated_answers(method: str, transforms: str) -> None:
    model = QuantileResponseCalibrator(method, transforms)
    scores = np.arange(9.0)
    with pytest.warns(CalibrationWarning, match="no response above 0 in 9 rows"):
        none = clone(model).fit(scores, np.zeros(9))
    np.testing.assert_allclose(none.predict([-5.0, 4.0, 50.0]), 0.5 / 10)
    with pytest.warns(CalibrationWarning, match="every one of 9 rows has a response"):
        every = clone(model).fit(scores, np.ones(9))
    np.testing.assert_allclose(every.predict([-5.0, 4.0, 50.0]), 1 - 0.5 / 10)
    with pytest.warns(CalibrationWarning, match="all 40 rows are in one bin"):
        tied = clone(model).fit(np.full(40, 3.0), np.arange(40) < 10)
    np.testing.assert_allclose(tied.predict([0.0, 3.0, 9.0]), 0.25)
    five = clone(model).fit([3.0, 1.0, 2.0, 5.0, 4.0], [0, 0, 1, 1, 0]).predict(np.linspace(0, 6, 99))
    assert np.all((five > 0) & (five < 1) & (np.diff(five, prepend=0.0) >= 0))


DISTORTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": lambda s: np.exp(3 * s),
    "sigmoid": lambda s: expit(2 * s - 3),
    "cube": lambda s: s**3 + 1e-3 * s,
    "kink": lambda s: np.where(s < 1, 0.01 * s, 10 * s - 9.99),
}


@pytest.mark.parametrize("method", RANK_METHODS)
@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_rank_only_answers_are_unchanged_by_a_distorted_ranker_on_new_scores(method: str, distortion: str) -> None:
    raw_score, response, _ = _world("margin", 4)
    fresh = np.random.default_rng(99).normal(size=5000)
    distort = DISTORTIONS[distortion]
    original = QuantileResponseCalibrator(method).fit(raw_score, response).predict(fresh)
    refitted = QuantileResponseCalibrator(method).fit(distort(raw_score), response).predict(distort(fresh))
    np.testing.assert_array_equal(original, refitted)


def test_curves_of_scores_are_joined_by_lines_and_of_ranks_by_steps() -> None:
    raw_score, response, _ = _world("margin", 5)
    lines = QuantileResponseCalibrator("loglinear", "all").fit(raw_score, response).curve_
    steps = QuantileResponseCalibrator("loglinear", "rank").fit(raw_score, response).curve_
    assert QuantileResponseCalibrator("sigmoid", "rank").fit(raw_score, response).curve_.interpolation == "linear"
    between = np.linspace(lines.knots[500], lines.knots[501], 4)[1:3]
    assert lines.interpolation == "linear"
    assert np.diff(lines.predict(between))[0] > 0
    assert steps.interpolation == "step"
    assert set(steps.predict(np.linspace(-9, 9, 20_000))) <= set(steps.values.tolist())


def test_examination_is_corrected_without_bias() -> None:
    rng = np.random.default_rng(6)
    estimates = []
    for _ in range(15):
        z = rng.normal(size=30_000)
        truth = expit(-2.5 + 0.8 * z)
        examination = np.array([1.0, 0.6, 0.3])[rng.integers(0, 3, z.size)]
        response = (rng.random(z.size) < truth * examination).astype(float)
        corrected = QuantileResponseCalibrator().fit(z, response, examination=examination)
        ignored = QuantileResponseCalibrator().fit(z, response)
        grid = np.array([-1.0, 0.0, 1.0])
        estimates.append(corrected.predict(grid) / expit(-2.5 + 0.8 * grid))
        assert ignored.curve_.mean_response < 0.75 * truth.mean()
        assert corrected.curve_.mean_response == pytest.approx(truth.mean(), rel=0.06)
    np.testing.assert_allclose(np.mean(estimates, axis=0), 1.0, atol=0.06)


def test_predict_keeps_shape_and_nan_and_is_flat_outside() -> None:
    raw_score, response, _ = _world("margin", 7, n=2000)
    for method, transforms in CONFIGURATIONS:
        fitted = QuantileResponseCalibrator(method, transforms).fit(raw_score, response)
        asked = np.array([[np.nan, -1e9, raw_score.min()], [raw_score.max(), 1e9, np.nan]])
        answer = fitted.predict(asked)
        assert answer.shape == (2, 3)
        assert answer.dtype == np.float64
        np.testing.assert_array_equal(np.isnan(answer), np.isnan(asked))
        assert answer[0, 1] == answer[0, 2]
        assert answer[1, 0] == answer[1, 1]
        assert fitted.predict([]).shape == (0,)


def test_fit_drops_and_counts_rows_that_cannot_count() -> None:
    raw_score, response, _ = _world("margin", 8, n=500)
    fitted = QuantileResponseCalibrator().fit(
        np.append(raw_score, [np.nan, 3.0]), np.append(response, [1.0, 1.0]), np.append(np.ones(500), [1.0, 0.0])
    )
    assert fitted.n_dropped_ == 2
    assert fitted.curve_.n_rows == 500
    assert fitted.curve_.n_positive == response.sum()
    np.testing.assert_array_equal(
        fitted.predict(raw_score), QuantileResponseCalibrator().fit(raw_score, response).predict(raw_score)
    )


def _with(values: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = values.astype(float)
    changed[row] = value
    return changed


GOOD = np.arange(8.0)
LABEL = (GOOD > 4).astype(float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((_with(GOOD, 3, np.inf), LABEL), "raw_score must be a finite number.*1 of 8 rows; first: row 3 has inf"),
        ((GOOD, _with(LABEL, 2, 1.5)), r"response must be in \[0, 1\].*row 2 has 1.5"),
        ((GOOD, _with(LABEL, 2, -0.5)), "row 2 has -0.5"),
        ((GOOD, _with(LABEL, 5, np.nan)), "row 5 has nan"),
        ((GOOD, LABEL[:7]), "response has 7 values for 8 raw scores"),
        ((GOOD, LABEL, _with(np.ones(8), 1, -1.0)), "sample_weight must be finite.*row 1 has -1.0"),
        ((GOOD, LABEL, _with(np.ones(8), 1, np.inf)), "row 1 has inf"),
        ((GOOD, LABEL, np.ones(3)), "sample_weight has 3 values"),
        ((GOOD, LABEL, np.zeros(8)), "no row to learn from"),
        ((GOOD, LABEL, None, _with(np.ones(8), 6, 0.0)), r"examination must be in \(0, 1\].*row 6 has 0.0"),
        ((GOOD, LABEL, None, _with(np.ones(8), 6, 1.1)), "row 6 has 1.1"),
        ((np.full(8, np.nan), LABEL), "no row to learn from"),
        (([], []), "no row to learn from"),
        ((GOOD.reshape(2, 4), LABEL), "one-dimensional"),
        ((["a", "b"], [0, 1]), "does not hold numbers"),
    ],
)
def test_fit_refuses_bad_rows_by_name_row_and_value(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        QuantileResponseCalibrator().fit(*arguments)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"method": "isotnic"},
            "unknown method 'isotnic'; known: auto, loglinear, spline, isotonic, steps, sigmoid, beta",
        ),
        ({"method": "shrunken"}, "unknown method 'shrunken'"),
        ({"method": "beta"}, r"needs raw scores in \[0, 1\]; they are between 0.0 and 7.0"),
        ({"response": "clicks"}, "unknown response 'clicks'; known: binary, count, continuous"),
        ({"negative_sampling_rate": 0.0}, "negative_sampling_rate is 0.0"),
        ({"negative_sampling_rate": 1.5}, "negative_sampling_rate is 1.5"),
        ({"negative_sampling_rate": float("nan")}, "negative_sampling_rate is nan"),
        ({"negative_sampling_rate": 0.5, "response": "count"}, "1 unless the response is binary .it is count"),
        ({"transforms": "some"}, "unknown transforms 'some'; known: all, rank"),
        ({"n_bins": 0}, "n_bins is 0"),
    ],
)
def test_fit_refuses_bad_parameters(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        QuantileResponseCalibrator(**parameters).fit(GOOD, LABEL)
