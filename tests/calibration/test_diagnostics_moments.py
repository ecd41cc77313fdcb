from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit, ndtr
from scipy.stats import kstest

from calibration import CalibrationError, calibration_test


def _draw(
    rng: np.random.Generator, n_viewers: int, per_viewer: int, base_rate: float, correlation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated predictions; labels of a viewer depend through a shared normal that leaves each rate as it is."""
    viewer = np.repeat(np.arange(n_viewers), per_viewer)
    truth = expit(logit(base_rate) + 0.8 * rng.normal(size=viewer.size) + 0.5 * rng.normal(size=n_viewers)[viewer])
    shared, own = rng.normal(size=n_viewers)[viewer], rng.normal(size=viewer.size)
    label = ndtr(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own) < truth
    return truth, label.astype(float), viewer


@pytest.mark.parametrize(
    ("n_viewers", "per_viewer", "base_rate", "correlation", "clustered"),
    [
        (3000, 1, 0.1, 0.0, False),
        (400, 10, 0.1, 0.5, True),
        (15_000, 1, 0.005, 0.0, False),
        (1500, 10, 0.005, 0.3, True),
    ],
)
def test_p_values_are_uniform_where_predictions_are_calibrated(
    n_viewers: int, per_viewer: int, base_rate: float, correlation: float, clustered: bool
) -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        truth, label, viewer = _draw(rng, n_viewers, per_viewer, base_rate, correlation)
        p_values.append(calibration_test(truth, label, cluster=viewer if clustered else None).p_value)
    assert kstest(p_values, "uniform").pvalue > 0.005
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.085


def test_ignoring_viewers_rejects_calibrated_predictions() -> None:
    rng = np.random.default_rng(1)
    draws = [_draw(rng, 400, 10, 0.1, 0.5) for _ in range(100)]
    assert np.mean([calibration_test(truth, label).p_value < 0.05 for truth, label, _ in draws]) > 0.12


@pytest.mark.parametrize("distortion", ["slope", "shift"])
def test_power_against_slope_and_shift(distortion: str) -> None:
    rng = np.random.default_rng(2)
    rejected = []
    for _ in range(50):
        truth, label, viewer = _draw(rng, 2000, 10, 0.1, 0.1)
        distorted = expit(logit(0.1) + (logit(truth) - logit(0.1)) / 0.8) if distortion == "slope" else truth / 1.1
        rejected.append(calibration_test(distorted, label, cluster=viewer).p_value < 0.05)
    assert np.mean(rejected) > 0.85


@pytest.mark.parametrize("response", ["count", "continuous"])
def test_other_responses(response: str) -> None:
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(300):
        viewer = np.repeat(np.arange(300), 5)
        truth = rng.uniform(1.0, 5.0, viewer.size)
        factor = rng.gamma(4.0, 0.25, 300)[viewer]
        label = (
            rng.poisson(truth * factor) if response == "count" else truth + factor + rng.normal(size=viewer.size) - 1
        )
        p_values.append(calibration_test(truth, label, cluster=viewer, response=response).p_value)
    assert kstest(p_values, "uniform").pvalue > 0.005
    assert calibration_test(truth * 1.2, label, cluster=viewer, response=response).p_value < 1e-3


def test_order_of_rows_names_of_viewers_and_repetition_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    truth, label, viewer = _draw(rng, 200, 10, 0.1, 0.3)
    expected = calibration_test(truth, label, cluster=viewer).statistic
    order = rng.permutation(truth.size)
    named = np.array([f"viewer {number}" for number in rng.permutation(200)])[viewer]
    assert calibration_test(truth[order], label[order], cluster=named[order]).statistic == pytest.approx(expected)
    weight = rng.integers(0, 3, truth.size)
    repeated = np.repeat(np.arange(truth.size), weight)
    for groups in (None, viewer):
        weighted = calibration_test(truth, label, sample_weight=weight, cluster=groups)
        again = calibration_test(truth[repeated], label[repeated], cluster=None if groups is None else groups[repeated])
        assert weighted.statistic == pytest.approx(again.statistic)
        assert weighted.p_value == pytest.approx(again.p_value)


def test_one_bin_is_the_square_of_a_z_score() -> None:
    label = np.array([1.0] * 30 + [0.0] * 70)
    test = calibration_test(np.full(100, 0.2), label)
    assert test.degrees_of_freedom == 1
    assert test.statistic == pytest.approx(10**2 / (100 * 0.2 * 0.8))


def test_certain_predictions_that_come_true_are_no_evidence() -> None:
    assert calibration_test([0.0, 1.0, 0.0], [0, 1, 0]).p_value == 1.0


def test_certain_predictions_that_fail_are_refuted() -> None:
    assert calibration_test(np.zeros(1000), np.arange(1000) < 500).p_value < 1e-6


def test_too_few_viewers_are_refused() -> None:
    with pytest.raises(CalibrationError, match="more than 2 independent clusters or rows for its 2 bins; found 2"):
        calibration_test([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], n_bins=2, cluster=["a", "b", "a", "b"])
