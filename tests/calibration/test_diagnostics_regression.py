from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from calibration import CalibrationError, calibration_in_the_large, calibration_line


def _rows(seed: int, n_clusters: int = 300, slope: float = 0.8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n_clusters), 8)
    prediction = expit(rng.normal(-2.0, 0.8, cluster.size))
    truth = expit(0.2 + slope * logit(prediction))
    threshold = np.where(rng.random(cluster.size) < 0.5, rng.random(n_clusters)[cluster], rng.random(cluster.size))
    return prediction, (threshold < truth).astype(float), cluster


@pytest.mark.parametrize("response", ["binary", "count", "continuous"])
@pytest.mark.parametrize("clustered", [False, True])
def test_calibration_line_equals_statsmodels(response: str, clustered: bool) -> None:
    prediction, label, cluster = _rows(0)
    weight = np.random.default_rng(1).integers(1, 3, label.size) if clustered else np.ones(label.size, int)
    link = {"binary": logit, "count": np.log, "continuous": np.asarray}[response](prediction)
    family = {"binary": sm.families.Binomial(), "count": sm.families.Poisson(), "continuous": sm.families.Gaussian()}
    repeated = np.repeat(np.arange(label.size), weight)
    model = sm.GLM(label[repeated], sm.add_constant(link[repeated]), family=family[response])
    groups = {"groups": cluster[repeated]} if clustered else {"groups": np.arange(repeated.size)}
    # Of statsmodels' correction c / (c - 1) * (n - 1) / (n - 2) only the first factor is ours.
    fit = model.fit(cov_type="cluster", cov_kwds=groups, tol=1e-12, use_t=True)
    n = repeated.size
    error = fit.bse / np.sqrt((n - 1) / (n - 2))
    line = calibration_line(prediction, label, weight, cluster=cluster if clustered else None, response=response)
    for estimate, expected, width in zip((line.intercept, line.slope), fit.params, error, strict=True):
        assert estimate.estimate == pytest.approx(expected, rel=1e-6, abs=1e-8)
        quantile = 1.96793 if clustered else 1.9606
        assert estimate.high - estimate.estimate == pytest.approx(quantile * width, rel=2e-4)


def test_slope_and_ratio_cover_the_truth_under_clustering() -> None:
    slopes, ratios, naive = [], [], []
    for seed in range(200):
        prediction, label, cluster = _rows(seed, 150)
        expected = expit(0.2 + 0.8 * logit(prediction)).mean() / prediction.mean()
        slope = calibration_line(prediction, label, cluster=cluster).slope
        ratio = calibration_in_the_large(prediction, label, cluster=cluster)
        rough = calibration_in_the_large(prediction, label)
        slopes.append(slope.low <= 0.8 <= slope.high)
        ratios.append(ratio.low <= expected <= ratio.high)
        naive.append(rough.low <= expected <= rough.high)
    assert 0.9 < np.mean(slopes) < 0.99
    assert 0.9 < np.mean(ratios) < 0.99
    assert np.mean(naive) < np.mean(ratios)


def test_calibration_in_the_large_by_hand() -> None:
    assert calibration_in_the_large([2.0, 4.0], [3.0, 6.0], response="count").estimate == 1.5
    difference = calibration_in_the_large([-1.0, 1.0, 0.0], [0.0, 2.0, 4.0], response="continuous")
    # Residuals 1, 1, 4: standard error sqrt(3) / sqrt(3) = 1, Student's quantile at 2 degrees 4.303.
    assert difference.estimate == pytest.approx(2.0)
    assert difference.high == pytest.approx(2.0 + 4.302653)
    nothing = calibration_in_the_large([0.1, 0.2], [0, 0])
    assert nothing.estimate == 0.0
    assert np.isnan(nothing.high)
    assert np.isnan(calibration_in_the_large([0.1, 0.2], [1, 0], cluster=["v", "v"]).low)


def test_line_survives_far_starts_and_tiny_rates() -> None:
    rng = np.random.default_rng(3)
    prediction = np.concatenate([np.full(50_000, 1e-4), np.full(1000, 0.9)])
    label = (rng.random(prediction.size) < prediction).astype(float)
    line = calibration_line(prediction, label)
    rates = label[:50_000].mean(), label[50_000:].mean()
    assert line.slope.estimate == pytest.approx((logit(rates[1]) - logit(rates[0])) / (logit(0.9) - logit(1e-4)))


@pytest.mark.parametrize(
    ("prediction", "label", "response", "message"),
    [
        ([0.0, 0.5, 0.2], [0, 1, 0], "binary", r"inside \(0, 1\); found 0.0"),
        ([0.0, 5.0, 2.0], [0, 1, 4], "count", "> 0; found 0.0"),
        ([0.3, 0.3, 0.3], [0, 1, 0], "binary", "all are equal"),
        ([0.3, 0.4, 0.5], [1, 1, 1], "binary", "all are 1"),
        ([0.3, 0.4, 0.5, 0.6], [0, 0, 1, 1], "binary", "separate the labels"),
    ],
)
def test_line_refuses_what_has_no_slope(
    prediction: list[float], label: list[float], response: str, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibration_line(prediction, label, response=response)


def test_ratio_to_nothing_is_refused() -> None:
    with pytest.raises(CalibrationError, match="all predictions are 0"):
        calibration_in_the_large([0.0, 0.0], [0, 1])
