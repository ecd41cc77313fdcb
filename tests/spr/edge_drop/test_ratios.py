from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr.edge_drop.ratios import fieller_intervals, simultaneous_critical
from spr.edge_drop.shrinkage import shrink_log_values


@given(
    a=st.floats(-5, 5),
    b=st.floats(-5, 5),
    correlation=st.floats(-0.9, 0.9),
    place=st.floats(-8, 8),
)
def test_fieller_interval_is_the_set_of_ratios_that_a_test_keeps(
    a: float, b: float, correlation: float, place: float
) -> None:
    covariance = np.array([[0.5, 0.35 * correlation], [0.35 * correlation, 0.25]])
    low, high = fieller_intervals(np.array([a, b]), covariance, 1, 1.96)[0]
    contrast = np.array([1.0, -place])
    kept = (a - place * b) ** 2 <= 1.96**2 * contrast @ covariance @ contrast
    if abs(b) > 1.96 * 0.5 + 1e-6:
        near = min(abs(place - low), abs(place - high)) < 1e-6
        assert near or kept == (low <= place <= high)
    elif abs(b) < 1.96 * 0.5 - 1e-6:
        assert (low, high) == (-np.inf, np.inf)


def test_fieller_covers_however_noisy_the_denominator_is() -> None:
    rng = np.random.default_rng(0)
    for noise, most in ((0.01, 0.957), (0.1, 0.97), (0.5, 1.0)):
        covariance = noise * np.array([[1.0, 0.3], [0.3, 1.0]])
        draws = rng.multivariate_normal(np.ones(2), covariance, 10_000)
        bounds = np.array([fieller_intervals(draw, covariance, 1, 1.959964)[0] for draw in draws])
        covered = ((bounds[:, 0] <= 1) & (bounds[:, 1] >= 1)).mean()
        assert 0.943 < covered <= most  # two rays, reported as the whole line, only add


def test_simultaneous_intervals_cover_together() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([2.0, 1.5, 1.0, 0.8])
    covariance = 0.02 * np.eye(4)
    hits = 0
    for draw in rng.multivariate_normal(truth, covariance, 1500):
        bounds = fieller_intervals(draw, covariance, 0, simultaneous_critical(draw, covariance, 0, 0.05))
        hits += bool(((bounds[:, 0] <= truth / 2.0) & (truth / 2.0 <= bounds[:, 1])).all())
    assert hits / 1500 == pytest.approx(0.95, abs=0.018)


def test_simultaneous_critical_lies_between_one_interval_and_bonferroni() -> None:
    estimate, covariance = np.array([3.0, 2.0, 2.0, 1.0]), np.diag([0.2, 0.1, 0.1, 0.1])
    together = simultaneous_critical(estimate, covariance, 0, 0.05)
    assert 1.96 < together < 2.394
    assert simultaneous_critical(estimate[:2], covariance[:2, :2], 0, 0.05) == pytest.approx(1.96, abs=1e-3)
    assert simultaneous_critical(np.zeros(3), np.eye(3), 0, 0.05) == pytest.approx(2.2414, abs=1e-3)


@given(scale=st.floats(1e-3, 1e3), order=st.permutations(range(4)))
def test_shrunk_ratios_depend_neither_on_unit_nor_on_order(scale: float, order: list[int]) -> None:
    value = np.array([3.0, 1.0, 0.4, 2.0])
    root = np.array([[0.5, 0, 0, 0], [0.1, 0.4, 0, 0], [0, 0.1, 0.3, 0], [0.2, 0, 0, 0.6]])
    covariance = root @ root.T
    one = shrink_log_values([(value, covariance)]).log_value[0]
    other = shrink_log_values([(value[order] * scale, covariance[np.ix_(order, order)] * scale**2)]).log_value[0]
    np.testing.assert_allclose(other - other[order.index(0)], (one - one[0])[order], atol=1e-4)


def test_shrinkage_leaves_what_is_sure_and_pulls_what_is_not() -> None:
    value = np.array([4.0, 2.0, 0.5])
    sure = shrink_log_values([(value, 1e-6 * np.eye(3))]).log_value[0]
    np.testing.assert_allclose(np.exp(sure), value, rtol=1e-2)
    noisy = shrink_log_values([(value, 9.0 * np.eye(3))]).log_value[0]
    assert np.ptp(noisy) < 0.35 * np.ptp(sure)
    assert (np.diff(noisy) < 0).all()
    below = shrink_log_values([(np.array([4.0, 2.0, -1.0]), np.diag([0.01, 0.01, 4.0]))]).log_value[0]
    assert np.isfinite(below).all()
    assert below[2] < below[1] < below[0]


def test_shrinkage_has_less_error_than_the_raw_ratios() -> None:
    rng = np.random.default_rng(2)
    raw, shrunk = [], []
    for _ in range(300):
        log = rng.normal(0, 0.5, 5)
        noise = np.diag(rng.uniform(0.02, 0.5, 5)) ** 2 * 2
        value = rng.multivariate_normal(np.exp(log), noise)
        if (value <= 0.02).any():
            continue
        mean = log.mean()
        raw.append(((np.log(value) - np.log(value).mean()) - (log - mean)) ** 2)
        estimate = shrink_log_values([(value, noise)]).log_value[0]
        shrunk.append(((estimate - estimate.mean()) - (log - mean)) ** 2)
    assert np.mean(shrunk) < 0.85 * np.mean(raw)


def test_groups_are_drawn_to_the_centre_and_learn_their_spread_together() -> None:
    centre = np.log([3.0, 1.0, 0.5])
    noisy = [(level * np.exp(centre) + 0.3 * np.array([1, -1, 1]), 0.3 * np.eye(3)) for level in (1.0, 4.0)]
    shrunk = shrink_log_values(noisy, centre=centre)
    for log_value in shrunk.log_value:
        off = log_value - centre
        assert np.ptp(off) < 0.35  # a level of its own is allowed, another pattern is not believed
    differing = [(np.exp(centre + shift), 1e-4 * np.eye(3)) for shift in np.random.default_rng(0).normal(0, 1, (5, 3))]
    assert shrink_log_values(differing, centre=centre).spread > 0.6


@given(seed=st.integers(0, 10_000))
def test_values_of_pure_noise_are_shrunk_without_a_failure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(7, 7))
    value = rng.normal(-0.5, 1.0, 7)
    shrunk = shrink_log_values([(value, root @ root.T + 0.1 * np.eye(7))])
    assert np.isfinite(shrunk.log_value).all()
    assert 0 < shrunk.spread < 3
