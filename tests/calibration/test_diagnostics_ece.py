from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, ndtr

from calibration import debiased_calibration_error, expected_calibration_error, smooth_calibration_error
from calibration.quantiles import QuantileTable, sum_by_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibration.diagnostics import Estimate


def _draw(
    rng: np.random.Generator, n: int, per_viewer: int, correlation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    viewer = np.repeat(np.arange(n // per_viewer), per_viewer)
    truth = expit(logit(0.1) + 0.8 * rng.normal(size=n))
    shared, own = rng.normal(size=n)[viewer], rng.normal(size=n)
    label = ndtr(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own) < truth
    return truth, label.astype(float), viewer


def _true_error(prediction: np.ndarray, truth: np.ndarray) -> float:
    bins = QuantileTable.fit(prediction, n_bins=10).assign(prediction)
    return float(np.abs(sum_by_group(bins, truth - prediction)).sum() / truth.size)


def _sharpen(truth: np.ndarray) -> np.ndarray:
    return np.asarray(expit(logit(0.1) + 1.5 * (logit(truth) - logit(0.1))))


def test_expected_calibration_error_measures_a_known_bias() -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.1, 0.5, 50_000)
    label = rng.random(truth.size) < truth
    assert expected_calibration_error(truth, label) < 0.01
    assert expected_calibration_error(truth + 0.1, label) == pytest.approx(0.1, abs=0.005)
    assert expected_calibration_error(100 * truth, 100.0 * label, response="count") < 1.0


@pytest.mark.parametrize(
    ("distort", "n", "per_viewer", "correlation"),
    [
        (lambda truth: truth, 2000, 1, 0.0),
        (lambda truth: truth, 2000, 10, 0.5),
        (lambda truth: np.minimum(1.4 * truth, 1), 4000, 10, 0.5),
        (_sharpen, 4000, 1, 0.0),
    ],
    ids=["calibrated", "calibrated, clustered", "shifted, clustered", "too sharp"],
)
def test_interval_covers_the_true_error_and_contains_the_estimate(
    distort: Callable[[np.ndarray], np.ndarray], n: int, per_viewer: int, correlation: float
) -> None:
    rng = np.random.default_rng(0)
    covered, smooth_covered = [], []
    for number in range(80):
        truth, label, viewer = _draw(rng, n, per_viewer, correlation)
        prediction, cluster = distort(truth), viewer if per_viewer > 1 else None
        error = debiased_calibration_error(prediction, label, cluster=cluster)
        assert 0 <= error.low <= error.estimate <= error.high
        covered.append(error.low <= _true_error(prediction, truth) <= error.high)
        if number < 30:
            smooth = smooth_calibration_error(prediction, label, cluster=cluster)
            assert 0 <= smooth.low <= smooth.estimate <= smooth.high
            smooth_covered.append(smooth.low <= smooth_calibration_error(prediction, truth).estimate <= smooth.high)
    assert np.mean(covered) > 0.88
    assert np.mean(smooth_covered) > 0.85


def test_debiasing_takes_noise_off_and_leaves_errors() -> None:
    rng = np.random.default_rng(1)
    noise, plain, far = [], [], []
    for _ in range(60):
        truth, label, _ = _draw(rng, 2000, 1, 0.0)
        noise.append(debiased_calibration_error(truth, label).estimate)
        plain.append(expected_calibration_error(truth, label))
        doubled = np.minimum(2 * truth, 1)
        far.append(debiased_calibration_error(doubled, label).estimate - _true_error(doubled, truth))
    assert np.mean(noise) < 0.45 * np.mean(plain)
    assert np.mean(far) == pytest.approx(0, abs=0.003)


def test_error_of_a_count_scales_with_its_unit() -> None:
    rng = np.random.default_rng(3)
    truth = rng.uniform(1, 4, 5000)
    label = rng.poisson(truth)
    small = debiased_calibration_error(truth * 1.2, label, response="count")
    large = debiased_calibration_error(truth * 12, label * 10, response="count")
    assert large.estimate == pytest.approx(10 * small.estimate)
    assert small.low < _true_error(truth * 1.2, truth) < small.high


@pytest.mark.parametrize("measure", [debiased_calibration_error, smooth_calibration_error])
def test_order_of_rows_and_repetition_do_not_matter(measure: Callable[..., Estimate]) -> None:
    rng = np.random.default_rng(4)
    truth, label, viewer = _draw(rng, 1000, 10, 0.3)
    prediction = np.minimum(1.3 * truth, 1)
    for cluster in (None, viewer):
        expected = measure(prediction, label, cluster=cluster)
        order = rng.permutation(label.size)
        shuffled = measure(prediction[order], label[order], cluster=None if cluster is None else cluster[order])
        np.testing.assert_allclose(_numbers(shuffled), _numbers(expected), rtol=1e-4)
        weight = rng.integers(1, 4, label.size)
        again = np.repeat(np.arange(label.size), weight)
        weighted = measure(prediction, label, sample_weight=weight, cluster=cluster)
        repeated = measure(prediction[again], label[again], cluster=None if cluster is None else cluster[again])
        np.testing.assert_allclose(_numbers(weighted), _numbers(repeated), rtol=1e-4)


def test_viewers_widen_the_intervals() -> None:
    truth, label, viewer = _draw(np.random.default_rng(5), 4000, 20, 0.6)
    prediction = np.minimum(1.5 * truth, 1)
    for measure in (debiased_calibration_error, smooth_calibration_error):
        by_row, by_viewer = measure(prediction, label), measure(prediction, label, cluster=viewer)
        assert by_viewer.high - by_viewer.low > 1.3 * (by_row.high - by_row.low)


def test_each_row_its_own_viewer_is_independence() -> None:
    truth, label, viewer = _draw(np.random.default_rng(6), 3000, 1, 0.0)
    prediction = np.minimum(1.3 * truth, 1)
    alone = debiased_calibration_error(prediction, label, cluster=viewer)
    np.testing.assert_allclose(_numbers(alone), _numbers(debiased_calibration_error(prediction, label)), rtol=1e-6)
    smooth = smooth_calibration_error(prediction, label, cluster=viewer)
    np.testing.assert_allclose(_numbers(smooth), _numbers(smooth_calibration_error(prediction, label)), rtol=0.1)


@pytest.mark.parametrize("gap", [0.02, 0.2])
def test_smooth_error_of_one_prediction_is_its_gap(gap: float) -> None:
    # All residuals have one sign, so no bandwidth cancels any.
    assert smooth_calibration_error(np.full(50, 0.5), np.full(50, 0.5 + gap)).estimate == pytest.approx(gap, abs=1e-6)


def test_smooth_error_solves_its_definition() -> None:
    # By quadrature of reflected Gaussians, without a grid of cells or cosines.
    rng = np.random.default_rng(7)
    prediction = rng.beta(1, 3, 300)
    label = (rng.random(300) < prediction**1.5).astype(float)
    width = smooth_calibration_error(prediction, label).estimate
    place = (np.arange(4000) + 0.5) / 4000
    images = np.concatenate([side * prediction + 2 * shift for shift in range(-2, 3) for side in (1, -1)])
    residual = np.tile(label - prediction, 10)
    density = np.exp(-0.5 * ((place[:, None] - images) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    assert np.abs(density @ residual / 300).mean() == pytest.approx(width, rel=1e-3)


def test_smooth_error_is_resolved_at_small_rates() -> None:
    rng = np.random.default_rng(8)
    truth = rng.beta(1, 500, 20_000)
    error = smooth_calibration_error(1.5 * truth, truth)
    assert error.estimate == pytest.approx(0.5 * truth.mean(), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0]), st.integers(0, 3)), min_size=1, max_size=30))
def test_errors_are_ordered_and_in_range(rows: list[tuple[float, float, int]]) -> None:
    probability, label, cluster = (np.array(column) for column in zip(*rows, strict=True))
    plain = expected_calibration_error(probability, label)
    shift = abs(np.mean(label - probability))
    smooth = smooth_calibration_error(probability, label, cluster=cluster)
    debiased = debiased_calibration_error(probability, label, cluster=cluster)
    # What is left at any smoothing is the mean residual.
    assert shift - 1e-9 <= plain <= 1 + 1e-9
    assert shift - 1e-6 <= smooth.estimate <= 1 + 1e-6
    for error in (smooth, debiased):
        assert 0 <= error.low <= error.estimate <= error.high


def test_perfect_predictions_have_no_error() -> None:
    for measure in (debiased_calibration_error, smooth_calibration_error):
        error = measure([0.0, 1.0, 1.0, 0.0], [0, 1, 1, 0])
        assert _numbers(error) == (0.0, 0.0, 0.0)


def _numbers(error: Estimate) -> tuple[float, float, float]:
    return error.estimate, error.low, error.high
