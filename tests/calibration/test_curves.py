"""The curve families on bins: log-linear, shrinkage, isotonic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from calibration.isotonic import fit_isotonic, pool_adjacent_violators
from calibration.loglinear import (
    RIDGE,
    _increasing_transforms,
    _non_negative_newton,
    binned_log_loss,
    expit,
    fit_loglinear,
    logit,
)
from calibration.quantiles import QuantileTable
from calibration.response import fit_values
from calibration.shrinkage import shrink_to_curve

BINS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=2, max_size=40)


def _bins(counts: list[tuple[int, int]]) -> tuple[QuantileTable, np.ndarray, np.ndarray]:
    positives, negatives = np.array(counts, dtype=float).T
    table = QuantileTable.fit(np.arange(positives.size, dtype=float))
    return table, positives, positives + negatives


@pytest.mark.parametrize("method", ["loglinear", "shrunken", "isotonic"])
@settings(deadline=None, max_examples=60)
@given(counts=BINS)
def test_fit_values_is_monotone_and_inside_for_any_counts(method: str, counts: list[tuple[int, int]]) -> None:
    table, positives, exposure = _bins(counts)
    for transforms in ("rank", "all"):
        values = fit_values(table, positives, exposure, method=method, transforms=transforms)
        assert np.all((values > 0) & (values < 1))
        assert np.all(np.diff(values) >= 0)


@pytest.mark.parametrize("method", ["loglinear", "shrunken", "isotonic"])
def test_fit_values_survives_more_responses_than_expected_examinations(method: str) -> None:
    table = QuantileTable.fit(np.arange(6.0))
    exposure = np.full(6, 5.0)
    values = fit_values(table, np.array([0.0, 1, 2, 3, 9, 8]), exposure, method=method, transforms="rank")
    assert np.all((values > 0) & (values < 1) & np.isfinite(values))


def test_pool_adjacent_violators_matches_the_textbook_min_max_formula() -> None:
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=12), rng.integers(1, 5, 12).astype(float)

    def mean(first: int, last: int) -> float:
        return float(np.average(values[first : last + 1], weights=weight[first : last + 1]))

    expected = [max(min(mean(a, b) for b in range(j, 12)) for a in range(j + 1)) for j in range(12)]
    np.testing.assert_allclose(pool_adjacent_violators(values, weight), expected)


def test_isotonic_keeps_separated_bins_and_replaces_exact_zeros_and_ones() -> None:
    quantile = np.array([0.1, 0.3, 0.5, 0.9])
    values = fit_isotonic(quantile, np.array([0.0, 2.0, 5.0, 10.0]), np.full(4, 10.0))
    np.testing.assert_allclose(values, [0.5 / 11, 0.2, 0.5, 1 - 0.5 / 11])


def test_isotonic_pseudo_count_never_passes_the_next_block() -> None:
    # One unseen row below a thousand rows of rate 1 %: (1/2) / 2 would be 25 times the better rows' rate.
    values = fit_isotonic(np.array([0.01, 0.5]), np.array([0.0, 10.0]), np.array([1.0, 1000.0]))
    np.testing.assert_allclose(values, [0.01, 0.01])


def test_isotonic_joins_pooled_blocks_at_their_centres() -> None:
    quantile = np.array([0.1, 0.2, 0.5, 0.8, 0.9])
    positives = np.array([2.0, 2, 2, 8, 8])
    values = fit_isotonic(quantile, positives, np.full(5, 10.0))
    low, high = quantile[:3].mean(), quantile[3:].mean()
    np.testing.assert_allclose(values, np.interp(quantile, [low, high], [0.2, 0.8]))


def test_isotonic_predicts_bins_without_exposure_from_their_neighbours() -> None:
    quantile = np.array([0.1, 0.4, 0.5, 0.9])
    values = fit_isotonic(quantile, np.array([1.0, 0, 0, 6.0]), np.array([10.0, 0, 0, 10.0]))
    np.testing.assert_allclose(values, np.interp(quantile, [0.1, 0.9], [0.1, 0.6]))


@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_loglinear_recovers_a_curve_of_its_own_family_exactly_on_expected_counts(transforms: str) -> None:
    table = QuantileTable.fit(np.random.default_rng(0).normal(size=4000), n_bins=200)
    truth = expit(-3.0 + 0.4 * np.log(table.quantile) - 0.7 * np.log1p(-table.quantile))
    exposure = table.weight * 1e4  # so many rows that the ridge does not count
    np.testing.assert_allclose(fit_loglinear(table, truth * exposure, exposure, transforms), truth, rtol=1e-3)


def test_loglinear_minimises_its_loss_as_well_as_lbfgs() -> None:
    rng = np.random.default_rng(3)
    table = QuantileTable.fit(rng.beta(1, 9, size=500), n_bins=100)
    truth = 0.5 * table.centre
    positives = rng.binomial(table.weight.astype(int), truth).astype(float)
    design = _increasing_transforms(table, "all")
    assert design.shape[1] == 9  # three of ranks, two of any score, four of a score in [0, 1]

    def loss(parameters: np.ndarray) -> float:
        log_odds = parameters[0] + design @ parameters[1:]
        penalty = RIDGE / 2 * float(parameters[1:] @ parameters[1:])
        return float(binned_log_loss(log_odds, positives, table.weight).sum()) + penalty

    intercept, slopes = _non_negative_newton(design, positives, table.weight)
    assert slopes.min() >= 0
    bounds = [(None, None)] + [(0, None)] * design.shape[1]
    peer = minimize(loss, np.zeros(1 + design.shape[1]), method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000})
    assert loss(np.append(intercept, slopes)) <= peer.fun + 1e-6


def test_loglinear_is_flat_when_responses_fall_with_the_score() -> None:
    table = QuantileTable.fit(np.arange(50.0))
    positives = np.linspace(9.0, 1.0, 50)
    np.testing.assert_allclose(fit_loglinear(table, positives, np.full(50, 10.0)), 0.5)


def test_loglinear_leaves_out_transforms_that_overflow() -> None:
    table = QuantileTable.fit(np.array([-1.7e308, -1.0, 0.0, 1.0, 1.7e308]))
    values = fit_loglinear(table, np.array([0.0, 1, 1, 2, 3]), np.full(5, 4.0), "all")
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) >= 0)


def test_binned_log_loss_of_examined_rows_is_smallest_at_responses_per_examination() -> None:
    grid = np.linspace(0.01, 0.99, 99)
    losses = [binned_log_loss(logit(np.array([p])), np.array([30.0]), np.array([100.0]))[0] for p in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(0.30)


def test_shrinkage_leaves_a_curve_that_fits_alone() -> None:
    table = QuantileTable.fit(np.arange(200.0))
    smooth = expit(np.linspace(-3.0, 0.0, 200))
    exposure = np.full(200, 100.0)
    np.testing.assert_array_equal(shrink_to_curve(smooth, table, smooth * exposure, exposure), smooth)


def test_shrinkage_is_stronger_the_fewer_the_rows() -> None:
    table = QuantileTable.fit(np.arange(100.0))
    smooth, step = np.full(100, 0.1), np.where(np.arange(100) < 50, 0.05, 0.15)

    def distance_left(rows_per_bin: float) -> float:
        exposure = np.full(100, rows_per_bin)
        return float(np.abs(shrink_to_curve(smooth, table, step * exposure, exposure) - step).mean())

    few, some, many = distance_left(5.0), distance_left(50.0), distance_left(5000.0)
    assert few > some > many
    assert few > 0.03
    assert many < 0.004
