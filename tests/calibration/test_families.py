"""Binary, count and continuous responses: known truths come back, peers agree, forms fit what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import CalibrationError, QuantileResponseCalibrator
from calibration.binned import BinnedResponses
from calibration.errors import CalibrationWarning
from calibration.families import BINARY, CONTINUOUS, COUNT, ResponseFamily, expit, shifted_to_total
from calibration.forms import CurveForm
from calibration.forms.nonnegative import fit_non_negative
from calibration.quantiles import QuantileTable
from calibration.rows import CalibrationRows

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILIES = (BINARY, COUNT, CONTINUOUS)
PEERS = {
    "binary": sm.families.Binomial(),
    "count": sm.families.Poisson(),
    "continuous": sm.families.Gaussian(),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_link_variance_and_loss_belong_together(family: ResponseFamily) -> None:
    eta, step = np.linspace(-3.0, 3.0, 31), 1e-5
    mean = family.mean(eta)
    np.testing.assert_allclose(family.link(mean), eta, atol=1e-12)
    slope = (family.mean(eta + step) - family.mean(eta - step)) / (2 * step)
    np.testing.assert_allclose(slope, family.variance(mean), rtol=1e-6)  # the link is canonical
    responses, exposure = np.full(31, 0.7), np.full(31, 2.0)
    up, down = (family.loss(eta + each, responses, exposure) for each in (step, -step))
    np.testing.assert_allclose((up - down) / (2 * step), exposure * mean - responses, rtol=1e-6, atol=1e-8)


def test_means_stay_strictly_inside_for_any_eta() -> None:
    eta = np.array([-1e308, -1e3, -50.0, 50.0, 1e3, 1e308])
    for family in (BINARY, COUNT):
        mean = family.mean(eta)
        assert np.all((mean > family.lowest) & (mean < family.highest) & np.isfinite(mean))


def test_unknown_family_is_refused() -> None:
    with pytest.raises(CalibrationError, match="unknown response 'clicks'; known: binary, count, continuous"):
        ResponseFamily.named("clicks")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(deadline=None, max_examples=60)
@given(
    etas=st.lists(st.floats(-8, 8), min_size=1, max_size=20),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 9),
)
def test_shifted_to_total_reaches_any_total_and_keeps_differences(
    family: ResponseFamily, etas: list[float], share: float, seed: int
) -> None:
    eta = np.array(etas)
    exposure = np.random.default_rng(seed).uniform(0.1, 5.0, eta.size)
    total = float(share * exposure.sum()) * (1.0 if family is BINARY else 7.0)
    moved = shifted_to_total(family.mean(eta), exposure, total, family)
    assert exposure @ moved == pytest.approx(total, rel=1e-9)
    inside = (np.abs(family.link(moved)) < 29.0) if family is BINARY else np.ones(eta.size, dtype=bool)
    shift = (family.link(moved) - eta)[inside]
    np.testing.assert_allclose(shift, shift[:1].repeat(shift.size), atol=1e-3 if family is BINARY else 1e-9)


TRUTHS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], float]] = {
    # response, truth by a standard normal score, tolerance: root mean square error / standard deviation of the truth
    "counts, exponential": ("count", lambda z: np.exp(-1.0 + 0.7 * z), 0.08),
    "counts, line": ("count", lambda z: 0.2 + 3.0 * np.clip((z + 3.0) / 6.0, 0.0, 1.0), 0.12),
    "counts, step": ("count", lambda z: np.where(z < 0.7, 0.3, 2.5), 0.15),
    "counts, large": ("count", lambda z: np.exp(4.0 + 0.2 * z), 0.1),
    "numbers, line": ("continuous", lambda z: -3.0 + z, 0.06),
    "numbers, step": ("continuous", lambda z: np.where(z < 0.7, -1.0, 2.0), 0.12),
    "numbers, cube": ("continuous", lambda z: 10.0 + z**3, 0.06),
}


def _responses(response: str, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if response == "binary":
        return (rng.random(mean.size) < mean).astype(float)
    return rng.poisson(mean).astype(float) if response == "count" else mean + rng.normal(size=mean.size)


@pytest.mark.parametrize("transforms", ["rank", "all"])
@pytest.mark.parametrize("name", TRUTHS)
def test_auto_recovers_counts_and_numbers(name: str, transforms: str) -> None:
    response, truth, tolerance = TRUTHS[name]
    rng = np.random.default_rng(1)
    z, fresh = rng.normal(size=20_000), rng.normal(size=20_000)
    model = QuantileResponseCalibrator(transforms=transforms, response=response)
    model.fit(z, _responses(response, truth(z), rng))
    error = model.predict(fresh) - truth(fresh)
    assert np.sqrt(np.mean(error**2)) / np.std(truth(fresh)) < tolerance
    assert model.curve_.mean_response == pytest.approx(truth(z).mean(), rel=0.03)


@pytest.mark.parametrize("method", ["loglinear", "spline", "isotonic", "steps", "sigmoid"])
@pytest.mark.parametrize("response", ["count", "continuous"])
def test_each_method_recovers_a_truth_that_is_a_line_on_its_link(method: str, response: str) -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=20_000)
    truth = ResponseFamily.named(response).mean(0.5 + 0.5 * z)
    model = QuantileResponseCalibrator(method, response=response).fit(z, _responses(response, truth, rng))
    assert np.sqrt(np.mean((model.predict(z) - truth) ** 2)) / np.std(truth) < 0.15


@pytest.mark.parametrize("response", PEERS)
def test_a_column_is_fitted_as_statsmodels_does(response: str) -> None:
    rng = np.random.default_rng(3)
    family = ResponseFamily.named(response)
    z = rng.normal(size=3000).round(1)
    y = _responses(response, family.mean(-0.3 + 0.6 * z), rng)
    weight = rng.integers(1, 4, z.size).astype(float)
    peer = sm.GLM(y, sm.add_constant(z), family=PEERS[response], freq_weights=weight).fit()
    assert peer.params[1] > 0
    rows = CalibrationRows.checked(z, y, weight, family=family)
    binned = BinnedResponses.of(rows, QuantileTable.fit(z, weight, n_bins=100_000))
    centre = binned.table.centre
    values = fit_non_negative(centre[:, None], 1e-9 * np.eye(1), binned, family)
    np.testing.assert_allclose(values, peer.predict(sm.add_constant(centre)), rtol=1e-5, atol=1e-6)
    sigmoid = QuantileResponseCalibrator("sigmoid", response=response).fit(z, y, weight).predict(centre)
    np.testing.assert_allclose(sigmoid, peer.predict(sm.add_constant(centre)), rtol=0.01, atol=0.005)


def test_two_columns_are_fitted_as_statsmodels_does_where_both_slopes_are_positive() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=20_000).round(2)
    y = rng.poisson(np.exp(-0.5 + 0.4 * z + 0.1 * z**3 / 6)).astype(float)
    peer = sm.GLM(y, sm.add_constant(np.column_stack([z, z**3])), family=sm.families.Poisson()).fit()
    assert peer.params[1:].min() > 0
    table = QuantileTable.fit(z, n_bins=100_000)
    binned = BinnedResponses.of(CalibrationRows.checked(z, y, family=COUNT), table)
    design = np.column_stack([table.centre, table.centre**3])
    values = fit_non_negative(design, 1e-9 * np.eye(2), binned, COUNT)
    np.testing.assert_allclose(values, peer.predict(sm.add_constant(design)), rtol=1e-5)


def test_a_negative_slope_of_statsmodels_is_a_flat_curve_here() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=2000).round(1)
    y = rng.poisson(np.exp(-0.4 * z)).astype(float)
    for method in ("sigmoid", "loglinear", "spline", "isotonic", "steps"):
        values = QuantileResponseCalibrator(method, response="count").fit(z, y).curve_.values
        np.testing.assert_allclose(values, y.mean(), rtol=0.02)


def _wavy(z: np.ndarray) -> np.ndarray:
    return expit(-2.0 + 1.5 * z + 0.55 * np.sin(2.7 * z))


def test_spline_follows_a_wave_that_a_loglinear_curve_cannot() -> None:
    rng = np.random.default_rng(6)
    errors = []
    for _ in range(3):
        z = rng.normal(size=40_000)
        y = rng.random(z.size) < _wavy(z)
        fitted = [QuantileResponseCalibrator(method).fit(z, y).predict(z) for method in ("spline", "loglinear")]
        errors.append([np.mean(np.abs(each - _wavy(z))) / _wavy(z).mean() for each in fitted])
    spline, loglinear = np.mean(errors, axis=0)
    assert spline < 0.05
    assert spline < 0.6 * loglinear


def test_spline_is_straight_where_the_log_odds_are() -> None:
    table = QuantileTable.fit(np.random.default_rng(0).normal(size=4000), n_bins=200)
    truth = expit(-3.0 + 0.8 * (np.log(table.quantile) - np.log1p(-table.quantile)))
    exposure = table.weight * 1e3
    binned = BinnedResponses(table, truth * exposure, exposure, truth * exposure, exposure)
    np.testing.assert_allclose(CurveForm("spline", curvature=1000.0).fit(binned), truth, rtol=0.02)


def test_steps_are_right_on_plateaus_and_auto_finds_them() -> None:
    rng = np.random.default_rng(7)

    def error(method: str, z: np.ndarray, y: np.ndarray, truth: np.ndarray) -> float:
        found = QuantileResponseCalibrator(method).fit(z, y).predict(z)
        return float(np.mean(np.abs(found - truth)) / truth.mean())

    errors = []
    for _ in range(4):
        z = rng.normal(size=60_000)
        truth = np.select([z < 0.5, z < 1.5], [0.01, 0.05], 0.3)
        y = rng.random(z.size) < truth
        errors.append([error(method, z, y, truth) for method in ("steps", "auto", "loglinear")])
    steps, auto, loglinear = np.mean(errors, axis=0)
    assert steps < 0.06
    assert auto < 0.1
    assert loglinear > 0.15


ROWS = st.lists(st.tuples(st.integers(-5, 5), st.floats(0, 1e6), st.floats(0.01, 5.0)), min_size=1, max_size=30)


@pytest.mark.parametrize("method", ["auto", "loglinear", "spline", "isotonic", "steps", "sigmoid"])
@pytest.mark.parametrize("response", ["count", "continuous"])
@settings(deadline=None, max_examples=25)
@given(rows=ROWS, sign=st.sampled_from([1.0, -1.0]))
@pytest.mark.filterwarnings("ignore::calibration.errors.CalibrationWarning")
def test_curves_of_any_counts_and_numbers_are_monotone_and_inside(
    method: str, response: str, rows: list[tuple[int, float, float]], sign: float
) -> None:
    score, value, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    value = np.floor(value) if response == "count" else sign * value
    curve = QuantileResponseCalibrator(method, response=response).fit(score, value, weight).curve_
    assert np.all(np.diff(curve.values) >= 0)
    assert np.all(np.isfinite(curve.values))
    family = ResponseFamily.named(response)
    assert np.all((curve.values > family.lowest) & (curve.values < family.highest))
    spread = max(np.abs(value).max(), 1.0)
    assert np.all(np.abs(curve.values) <= 3 * spread)


@pytest.mark.parametrize(
    ("response", "value", "message"),
    [
        ("count", -1.0, "response must be finite and >= 0.*row 3 has -1.0"),
        ("count", np.inf, "row 3 has inf"),
        ("continuous", np.inf, "response must be finite.*row 3 has inf"),
        ("continuous", np.nan, "row 3 has nan"),
    ],
)
def test_fit_refuses_responses_outside_the_family(response: str, value: float, message: str) -> None:
    values = np.arange(8.0)
    values[3] = value
    with pytest.raises(CalibrationError, match=message):
        QuantileResponseCalibrator(response=response).fit(np.arange(8.0), values)


def test_counts_without_any_event_are_flat_and_warn() -> None:
    with pytest.warns(CalibrationWarning, match="no response above 0"):
        curve = QuantileResponseCalibrator(response="count").fit(np.arange(9.0), np.zeros(9)).curve_
    np.testing.assert_allclose(curve.values, 0.05)


def test_numbers_may_all_be_zero_or_negative_without_a_warning() -> None:
    curve = QuantileResponseCalibrator(response="continuous").fit(np.arange(9.0), np.full(9, -2.0)).curve_
    np.testing.assert_allclose(curve.values, -2.0)


@pytest.mark.parametrize("response", ["count", "continuous"])
def test_examination_of_counts_and_numbers_is_corrected(response: str) -> None:
    rng = np.random.default_rng(8)
    z = rng.normal(size=60_000)
    truth = np.exp(0.4 * z) if response == "count" else 2.0 + 0.5 * z
    examination = np.array([1.0, 0.5, 0.25])[rng.integers(0, 3, z.size)]
    seen = _responses(response, truth * examination, rng)
    model = QuantileResponseCalibrator(response=response).fit(z, seen, examination=examination)
    grid = np.array([-1.0, 0.0, 1.0])
    expected = np.exp(0.4 * grid) if response == "count" else 2.0 + 0.5 * grid
    np.testing.assert_allclose(model.predict(grid), expected, rtol=0.06)


@pytest.mark.parametrize("response", ["count", "continuous"])
def test_weights_of_counts_and_numbers_equal_repeated_rows(response: str) -> None:
    rng = np.random.default_rng(9)
    z = rng.normal(size=1500).round(1)
    y = _responses(response, np.exp(0.4 * z), rng)
    weight = rng.integers(0, 4, z.size)
    weighted, repeated = (
        QuantileResponseCalibrator(response=response).fit(*rows).predict(z)
        for rows in ((z, y, weight), (np.repeat(z, weight), np.repeat(y, weight)))
    )
    np.testing.assert_allclose(weighted, repeated, rtol=1e-8)
