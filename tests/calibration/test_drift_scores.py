from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calibration import CalibrationError, QuantileTable, kolmogorov_smirnov, population_stability_index

SCORES = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(reference=SCORES, scores=SCORES)
def test_stability_index_is_never_negative_and_ignores_a_shared_distortion(
    reference: list[float], scores: list[float]
) -> None:
    found = population_stability_index(reference, scores)
    distorted = population_stability_index(np.exp(np.array(reference) / 5), np.exp(np.array(scores) / 5))
    assert found.value >= 0
    assert distorted == found
    assert 0 <= found.p_value <= 1
    same = population_stability_index(reference, reference)
    assert (same.value, same.p_value) == (0.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(reference=SCORES, scores=SCORES)
def test_kolmogorov_smirnov_ignores_a_shared_distortion(reference: list[float], scores: list[float]) -> None:
    found = kolmogorov_smirnov(reference, scores)
    assert kolmogorov_smirnov(np.array(reference) ** 3, np.array(scores) ** 3) == found
    assert 0 <= found.statistic <= 1
    assert kolmogorov_smirnov(reference, reference).statistic == 0


def test_kolmogorov_smirnov_equals_scipy_where_every_score_has_a_bin() -> None:
    rng = np.random.default_rng(0)
    reference, scores = rng.normal(size=800), rng.normal(0.1, 1, 700)
    ours = kolmogorov_smirnov(reference, scores)
    theirs = stats.ks_2samp(reference, scores, method="asymp")
    # Below each reference score only, not also just above it: one row of either side may be missed.
    assert ours.statistic == pytest.approx(theirs.statistic, abs=1 / 700 + 1e-12)
    in_many_bins = kolmogorov_smirnov(QuantileTable.fit(reference, n_bins=100), scores)
    assert ours.statistic - 0.01 - 1e-12 <= in_many_bins.statistic <= ours.statistic


def test_stability_index_equals_its_definition() -> None:
    reference = np.arange(10_000.0)
    scores = np.concatenate([np.arange(0, 5000, 1.0), np.arange(5000, 10_000, 2.0)])
    q, p = np.repeat([2 / 15, 1 / 15], 5), np.full(10, 0.1)
    found = population_stability_index(reference, scores)
    assert found.value == pytest.approx(np.sum((q - p) * np.log(q / p)), rel=1e-3)
    assert found.customary == "moderate"
    assert found.noise == pytest.approx((1 / 10_000 + 1 / 7500) * stats.chi2.isf(0.05, 9))


def test_a_known_shift_is_measured() -> None:
    rng = np.random.default_rng(0)
    reference, scores = rng.normal(size=100_000), rng.normal(0.5, 1, 100_000)
    # Jeffreys divergence of two unit normals is shift^2; ten cells keep most of it.
    assert population_stability_index(reference, scores).value == pytest.approx(0.25, rel=0.15)
    test = kolmogorov_smirnov(reference, scores)
    assert test.statistic == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=0.01)
    assert test.p_value < 1e-6


@pytest.mark.parametrize(("n_viewers", "rows_per_viewer", "shared"), [(2000, 1, 0.0), (100, 20, 0.3)])
def test_clustered_rows_do_not_raise_false_alarms(n_viewers: int, rows_per_viewer: int, shared: float) -> None:
    rng = np.random.default_rng(1)
    viewer = np.repeat(np.arange(n_viewers), rows_per_viewer)

    def draw() -> Any:
        of_viewer = rng.normal(size=n_viewers)[viewer]
        return np.sqrt(shared) * of_viewer + np.sqrt(1 - shared) * rng.normal(size=viewer.size)

    alarms = np.zeros(3)
    for _ in range(300):
        table, scores = QuantileTable.fit(draw()), draw()
        stability = population_stability_index(table, scores, cluster=viewer)
        assert (stability.value > stability.noise) == (stability.p_value < 0.05)
        alarms += [
            stability.p_value < 0.05,
            kolmogorov_smirnov(table, scores, cluster=viewer).p_value < 0.05,
            population_stability_index(table, scores).p_value < 0.05,
        ]
    assert np.all(alarms[:2] / 300 <= 0.08)
    if rows_per_viewer > 1:
        assert alarms[2] / 300 > 0.2, "rows taken as independent must alarm too often, or nothing is tested here"


def test_design_effect_of_repeated_rows_is_their_number() -> None:
    rng = np.random.default_rng(2)
    scores, viewer = np.repeat(rng.normal(size=500), 4), np.repeat(np.arange(500), 4)
    reference = rng.normal(size=2000)
    assert population_stability_index(reference, scores, cluster=viewer).n_effective == pytest.approx(500, rel=0.05)
    assert kolmogorov_smirnov(reference, scores, cluster=viewer).n_effective == pytest.approx(500, rel=0.1)


def test_scores_below_the_reference_count_and_missing_ones_do_not() -> None:
    assert kolmogorov_smirnov([1.0, 1.0], [0.0, np.nan, 0.0]).statistic == 1.0
    assert population_stability_index([1.0, 2.0], [1.0, np.nan, 2.0]).n == 2
    assert population_stability_index([1.0, 1.0], [0.0]).value == 0, "one cell holds everything"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0], [np.inf]), {}, "raw_score must be finite.*row 0 has inf"),
        (([-np.inf], [1.0]), {}, "reference must be finite.*row 0 has -inf"),
        (([1.0], [np.nan]), {}, "raw_score has no score among 1 rows"),
        (([1.0], [[1.0]]), {}, "shape .1, 1."),
        (([1.0], ["high"]), {}, "raw_score does not hold numbers"),
        (([1.0], [1.0, 2.0]), {"cluster": ["a"]}, "cluster has 1 values for 2 scores"),
        (([1.0], [1.0, 2.0]), {"cluster": ["a", None]}, "cluster must not be null; first: row 1"),
        (([1.0], [1.0, 2.0]), {"cluster": ["a", "a"]}, "at least 2"),
        (([1.0], [1.0]), {"alpha": 1.0}, "alpha is 1.0"),
        (([1.0], [1.0]), {"n_cells": 1}, "n_cells is 1"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[Any, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        population_stability_index(*arguments, **options)
