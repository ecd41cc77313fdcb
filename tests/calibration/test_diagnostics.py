from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from calibration import CalibrationError, expected_calibration_error, reliability_table
from calibration.diagnostics import wilson_interval


def test_wilson_interval_equals_statsmodels() -> None:
    positives, n = np.array([0.0, 1, 7, 40, 50]), np.full(5, 50.0)
    low, high = wilson_interval(positives / n, n)
    expected_low, expected_high = proportion_confint(positives, n, method="wilson")
    np.testing.assert_allclose(low, expected_low, atol=1e-12)
    np.testing.assert_allclose(high, expected_high, atol=1e-12)


def test_reliability_table_sums_bins_of_equal_mass() -> None:
    probability = np.arange(100) / 100
    table = reliability_table(probability, probability > 0.5, n_bins=4)
    np.testing.assert_array_equal(table["n"], [25.0] * 4)
    np.testing.assert_allclose(table["mean_prediction"], [0.12, 0.37, 0.62, 0.87])
    np.testing.assert_allclose(table["observed_rate"], [0.0, 0.0, 24 / 25, 1.0])


def test_reliability_table_weights_equal_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    probability, weight = rng.random(200), rng.integers(0, 3, 200)
    label = rng.random(200) < probability
    weighted = reliability_table(probability, label, sample_weight=weight)
    repeated = reliability_table(np.repeat(probability, weight), np.repeat(label, weight))
    np.testing.assert_allclose(weighted, repeated)


def test_reliability_table_leaves_out_open_rows() -> None:
    table = reliability_table([0.1, np.nan, 0.9, 0.5], [0, 1, 1, np.nan], n_bins=2)
    assert table["n"].sum() == 2


def test_intervals_cover_a_true_small_rate_at_least_nine_times_in_ten() -> None:
    rng = np.random.default_rng(1)
    tables = [reliability_table(np.full(400, 0.01), rng.random(400) < 0.01) for _ in range(300)]
    covered = [table["interval_low"][0] <= 0.01 <= table["interval_high"][0] for table in tables]
    assert 0.9 < np.mean(covered) < 1.0


def test_expected_calibration_error_measures_a_known_bias() -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.1, 0.5, 50_000)
    label = rng.random(truth.size) < truth
    assert expected_calibration_error(truth, label) < 0.01
    assert expected_calibration_error(truth + 0.1, label) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(
    ("probability", "label", "weight", "message"),
    [
        ([0.5, 1.2], [0, 1], None, "probability must be in .0, 1.; row 1 has 1.2"),
        ([0.5, 0.2], [0, -1], None, "label must be in .0, 1.; row 1 has -1"),
        ([0.5, 0.2], [0, 1], [1, np.nan], "sample_weight must be finite and >= 0; row 1 has nan"),
        ([0.5], [0, 1], None, "equally long"),
        ([np.nan], [0], None, "no row has"),
    ],
)
def test_diagnostics_refuse_bad_rows(
    probability: list[float], label: list[float], weight: list[float] | None, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        expected_calibration_error(probability, label, sample_weight=weight)
