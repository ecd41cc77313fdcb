"""The curve as a record: written and read bit by bit, moved to other base rates, asked for what it warns of."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import CalibrationError, QuantileResponseCalibrator, ResponseCurve
from calibration.base_rate import estimate_base_rate
from calibration.families import expit
from calibration.forms import CurveForm
from calibration.quantiles import QuantileTable
from calibration.rows import CalibrationRows

FORM = asdict(CurveForm("loglinear"))


def _curve(response: str = "binary", seed: int = 0, n: int = 20_000, **parameters: object) -> ResponseCurve:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    draws = {
        "binary": rng.random(n) < expit(-2.0 + z),
        "count": rng.poisson(np.exp(-0.5 + 0.7 * z)),
        "continuous": 3.0 + z + rng.normal(size=n),
    }
    model = QuantileResponseCalibrator(response=response, **parameters)
    return model.fit(z, draws[response]).curve_


@pytest.mark.parametrize("transforms", ["rank", "all"])
@pytest.mark.parametrize("method", ["auto", "loglinear", "spline", "isotonic", "steps", "sigmoid"])
@pytest.mark.parametrize("response", ["binary", "count", "continuous"])
def test_curve_survives_a_dict_bit_by_bit(method: str, transforms: str, response: str) -> None:
    curve = _curve(response, n=3000, method=method, transforms=transforms).shifted(0.1)
    raw_score = np.append(np.random.default_rng(9).normal(size=1000), np.nan)
    again = ResponseCurve.from_dict(curve.to_dict())
    np.testing.assert_array_equal(again.predict(raw_score), curve.predict(raw_score))
    assert again.to_dict() == curve.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [0.2, 0.1, 0.3]}, "must not decrease; bin 1 has 0.1 after 0.2"),
        ({"values": [0.0, 0.1, 0.3]}, r"inside \(0, 1\)"),
        ({"values": [0.1, 0.1, 1.0]}, r"inside \(0, 1\)"),
        ({"values": [0.1, 0.1, float("nan")]}, r"inside \(0, 1\)"),
        ({"values": [0.1, 0.1]}, "2 values for 3 bins"),
        ({"values": [0.1, "0.2", 0.3]}, r"values\[1\] of a curve is '0.2'"),
        ({"values": [0.1, True, 0.3]}, r"values\[1\] of a curve is True"),
        ({"values": "0.1"}, "values of a curve is '0.1', a str"),
        ({"lower": [1.0, 1.0, 3.0]}, "strictly increasing"),
        ({"centre": [1.0, 2.0, float("inf")]}, "finite"),
        ({"quantile": [0.1, 0.5, 1.0]}, r"inside \(0, 1\)"),
        ({"weight": [1.0, 0.0, 1.0]}, "> 0"),
        ({"lower": []}, "equally long"),
        ({"interpolation": "cubic"}, "known: linear, step"),
        ({"n_rows": 0}, "count rows"),
        ({"n_positive": 9}, "count rows"),
        ({"n_rows": 3.5}, "n_rows of a curve is 3.5"),
        ({"base_rate": float("nan")}, "base_rate is nan"),
        ({"base_rate": -0.1}, "base_rate at least 0"),
        ({"base_rate": True}, "base_rate of a curve is True"),
        ({"shift": float("inf")}, "shift inf"),
        ({"shift": "0"}, "shift of a curve is '0'"),
        ({"form": "isotonic"}, "form of a curve is 'isotonic'"),
        ({"form": {"method": "isotonic"}}, "a form has the fields"),
        ({"form": {**FORM, "method": "shrunken"}}, "unknown method 'shrunken'"),
        ({"extra": 1}, "unknown: .*extra"),
    ],
)
def test_curve_from_dict_refuses_what_to_dict_never_wrote(change: dict[str, object], message: str) -> None:
    content = QuantileResponseCalibrator().fit([1.0, 2.0, 3.0], [0, 0, 1]).curve_.to_dict()
    with pytest.raises(CalibrationError, match=message):
        ResponseCurve.from_dict({**content, **change})
    del content["quantile"]
    with pytest.raises(CalibrationError, match=r"missing: .*quantile"):
        ResponseCurve.from_dict(content)


@pytest.mark.parametrize("response", ["binary", "count", "continuous"])
@settings(deadline=None, max_examples=40)
@given(shift=st.floats(-5, 5), more=st.floats(-5, 5))
def test_shifts_add_up_and_are_undone(response: str, shift: float, more: float) -> None:
    table = QuantileTable.fit([1.0, 2.0, 3.0])
    curve = ResponseCurve(CurveForm("steps", "rank", response), "step", table, np.array([0.1, 0.1, 0.4]), 9, 2, 0.2)
    both = curve.shifted(shift).shifted(more)
    np.testing.assert_allclose(both.values, curve.shifted(shift + more).values, rtol=1e-9, atol=1e-12)
    assert both.base_rate == pytest.approx(curve.shifted(shift + more).base_rate, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(both.shifted(-shift - more).values, curve.values, rtol=1e-9)
    assert np.all(np.diff(both.values) >= 0)


def test_at_base_rate_is_exact_under_label_shift() -> None:
    rng = np.random.default_rng(1)
    old, new = rng.random(300_000) < 0.1, rng.random(300_000) < 0.3
    score_old, score_new = rng.normal(1.5 * old), rng.normal(1.5 * new)
    curve = QuantileResponseCalibrator().fit(score_old, old).curve_
    estimate = estimate_base_rate(curve.predict(score_new), curve.base_rate)
    assert estimate == pytest.approx(0.3, rel=0.03)
    moved = curve.at_base_rate(estimate)
    truth = expit(np.log(3 / 7) + 1.5 * score_new - 1.5**2 / 2)

    def error(each: ResponseCurve) -> float:
        return float(np.mean(np.abs(each.predict(score_new) - truth)) / truth.mean())

    assert error(moved) < 0.04
    assert error(curve) > 0.4
    assert moved.base_rate == pytest.approx(estimate)
    assert moved.predict(score_new).mean() == pytest.approx(new.mean(), rel=0.03)
    np.testing.assert_allclose(moved.at_base_rate(curve.base_rate).values, curve.values, rtol=1e-9)


@pytest.mark.parametrize("truth", [0.005, 0.05, 0.6])
def test_estimate_base_rate_recovers_a_known_rate(truth: float) -> None:
    rng = np.random.default_rng(2)
    score = rng.normal(2.0 * (rng.random(400_000) < truth))
    old_curve = expit(np.log(1 / 9) + 2.0 * score - 2.0)
    assert estimate_base_rate(np.append(old_curve, np.nan), 0.1) == pytest.approx(truth, rel=0.06)


def test_at_base_rate_multiplies_counts_and_moves_numbers() -> None:
    count, number = _curve("count"), _curve("continuous")
    np.testing.assert_allclose(count.at_base_rate(2 * count.base_rate).values, 2 * count.values, rtol=1e-9)
    np.testing.assert_allclose(number.at_base_rate(number.base_rate - 9).values, number.values - 9, rtol=1e-9)


@pytest.mark.parametrize(
    ("response", "base_rate"),
    [("binary", 0.0), ("binary", 1.0), ("binary", np.nan), ("count", 0.0), ("count", np.inf), ("continuous", np.inf)],
)
def test_at_base_rate_refuses_what_is_outside(response: str, base_rate: float) -> None:
    with pytest.raises(CalibrationError, match=r"base_rate is .*; it must be inside"):
        _curve(response, n=200).at_base_rate(base_rate)


@pytest.mark.parametrize(
    ("rates", "base_rate", "message"),
    [
        ([], 0.1, "0 rows"),
        ([np.nan], 0.1, "0 rows"),
        ([0.2, 1.0], 0.1, "found 1.0"),
        ([0.2, 0.0], 0.1, "found 0.0"),
        ([0.2], 0.0, r"base_rate \(0.0\)"),
        ([0.2], float("nan"), r"base_rate \(nan\)"),
    ],
)
def test_estimate_base_rate_refuses(rates: list[float], base_rate: float, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        estimate_base_rate(rates, base_rate)


def test_negative_sampling_is_undone() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=400_000)
    truth = expit(-4.0 + 1.2 * z)
    clicked = rng.random(z.size) < truth
    kept = clicked | (rng.random(z.size) < 0.1)
    fresh = rng.normal(size=20_000)
    expected = expit(-4.0 + 1.2 * fresh)

    def error(rate: float, method: str) -> float:
        model = QuantileResponseCalibrator(method, negative_sampling_rate=rate)
        found = model.fit(z[kept], clicked[kept]).predict(fresh)
        return float(np.mean(np.abs(found - expected)) / expected.mean())

    for method in ("auto", "loglinear", "spline", "isotonic", "steps", "sigmoid"):
        assert error(0.1, method) < 0.12
    assert error(1.0, "auto") > 2.0
    curve = QuantileResponseCalibrator(negative_sampling_rate=0.1).fit(z[kept], clicked[kept]).curve_
    assert curve.base_rate == pytest.approx(clicked.mean(), rel=0.02)
    assert curve.mean_response == pytest.approx(clicked.mean(), rel=0.03)
    # as many rows as tell as much: 1 / positives + 1 / negatives as in the sample
    positives, negatives = clicked.sum(), (kept & ~clicked).sum()
    told = (1 / positives + 0.1 / negatives) / (1 / positives + 1 / negatives)
    assert curve.table.weight.sum() == pytest.approx(told * z.size, rel=0.02)


def test_negative_sampling_is_undone_where_examination_is_corrected() -> None:
    rng = np.random.default_rng(11)
    z = rng.normal(size=400_000)
    examination = np.array([1.0, 0.5, 0.25])[rng.integers(0, 3, z.size)]
    clicked = rng.random(z.size) < expit(-1.0 + z) * examination
    kept = clicked | (rng.random(z.size) < 0.1)
    model = QuantileResponseCalibrator(negative_sampling_rate=0.1)
    model.fit(z[kept], clicked[kept], examination=examination[kept])
    grid = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    np.testing.assert_allclose(model.predict(grid), expit(-1.0 + grid), rtol=0.07)
    assert model.curve_.base_rate == pytest.approx(clicked.sum() / examination.sum(), rel=0.02)
    rows = CalibrationRows.checked(z[kept], clicked[kept], None, examination[kept])
    shares = CalibrationRows.checked([1.0, 2.0, 3.0], [0.0, 0.25, 1.0], [2.0, 4.0, 1.0]).of_population(0.1)
    told = (1 / 2 + 1 / 50) / (1 / 2 + 1 / 5)
    np.testing.assert_allclose(shares.weight, told * np.array([20.0, 31.0, 1.0]))
    np.testing.assert_allclose(shares.response_sum, told * np.array([0.0, 1.0, 1.0]))
    with pytest.raises(CalibrationError, match="negative_sampling_rate is 0"):
        rows.of_population(0.0)


def test_warnings_are_empty_for_ordinary_rows() -> None:
    for response in ("binary", "count", "continuous"):
        assert _curve(response, n=500).warnings == ()


def test_estimated_base_rate_is_the_maximum_of_the_likelihood_where_scores_hardly_tell() -> None:
    rng = np.random.default_rng(8)
    responds = rng.random(20_000) < 0.5
    score = rng.normal(0.03 * responds)
    odds = 1 / 9 * np.exp(0.03 * score - 0.03**2 / 2)
    found = estimate_base_rate(odds / (1 + odds), 0.1)

    def log_likelihood(rate: float) -> float:
        return float(np.log(rate * 9 * odds + 1 - rate).sum())

    grid = np.linspace(0.001, 0.999, 999)
    assert found == pytest.approx(grid[np.argmax([log_likelihood(rate) for rate in grid])], abs=0.001)


@pytest.mark.parametrize("method", ["auto", "loglinear", "spline", "isotonic", "steps", "sigmoid"])
def test_counts_in_other_units_give_the_same_curve(method: str) -> None:
    rng = np.random.default_rng(12)
    z = rng.normal(size=3000)
    seconds = rng.poisson(np.exp(4.0 + 0.3 * z)).astype(float)
    model = QuantileResponseCalibrator(method, response="count")
    grid = np.linspace(-2.0, 2.0, 21)
    usual = model.fit(z, seconds).predict(grid)
    assert np.mean(np.abs(usual / np.exp(4.0 + 0.3 * grid) - 1.0)) < 0.1
    np.testing.assert_allclose(model.fit(z, 1e12 * seconds).predict(grid), 1e12 * usual, rtol=1e-6)
