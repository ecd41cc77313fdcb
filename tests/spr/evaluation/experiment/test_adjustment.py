"""The estimator against scipy, statsmodels and matrices written out; errors against what they are of."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import block_diag, fractional_matrix_power
from scipy.stats import ttest_ind

from spr.evaluation.experiment.adjustment import ArmEstimates, estimate_arms
from spr.evaluation.experiment.effects import compare_with_control
from spr.evaluation.experiment.sequential import OneLook


def of_members(
    y: np.ndarray, arm: np.ndarray, z: np.ndarray | None = None, x: np.ndarray | None = None
) -> ArmEstimates:
    n = len(y)
    x = np.empty((n, 0)) if x is None else x - x.mean(axis=0)
    return estimate_arms(y, np.ones(n) if z is None else z, arm, int(arm.max()) + 1, x, np.arange(n), n)


def variance_of_difference(terms: np.ndarray) -> float:
    return float(((terms[:, 1] - terms[:, 0]) ** 2).sum())


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 30))
def test_a_mean_without_a_past_is_welchs_test(seed: int, n_control: int, n_new: int) -> None:
    rng = np.random.default_rng(seed)
    control, new = rng.gamma(2.0, 3.0, n_control), rng.gamma(2.0, 5.0, n_new)
    made = of_members(np.append(control, new), np.repeat([0, 1], [n_control, n_new]))
    effect = compare_with_control(made, 1, OneLook(), 0.05)
    welch = ttest_ind(new, control, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert effect.difference == pytest.approx(new.mean() - control.mean())
    assert effect.p_value == pytest.approx(welch.pvalue, rel=1e-6)
    assert effect.df == pytest.approx(welch.df)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))


def test_adjusted_means_are_lins_regression_with_hc2_errors() -> None:
    rng = np.random.default_rng(0)
    n = 60
    arm, x = rng.integers(2, size=n), rng.normal(5.0, [1.0, 1000.0], (n, 2))
    y = 3 + x @ [1.0, 0.002] + arm * (1 + 0.5 * x[:, 0]) + rng.normal(0, 1 + arm, n)
    made = of_members(y, arm, x=x)
    centred = x - x.mean(axis=0)
    fit = sm.OLS(y, np.column_stack([np.ones(n), arm, centred, arm[:, None] * centred])).fit(cov_type="HC2")
    assert made.value[1] - made.value[0] == pytest.approx(fit.params[1])
    assert made.value[0] == pytest.approx(fit.params[0])
    assert variance_of_difference(made.own) == pytest.approx(fit.bse[1] ** 2)
    assert made.df == pytest.approx(np.bincount(arm) - 3)


def test_the_errors_of_clusters_are_cr2_written_out_as_matrices() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, 14)
    unit = np.repeat(np.arange(14), sizes)
    arm = (unit % 2).astype(np.int64)
    y = rng.normal(size=14)[unit] + rng.normal(size=len(unit))
    made = estimate_arms(y, np.ones(len(y)), arm, 2, np.empty((len(y), 0)), unit, 14)
    for k in (0, 1):
        rows = arm == k
        n = rows.sum()
        residual = y[rows] - y[rows].mean()
        groups = unit[rows]
        hat = np.full((n, n), 1.0 / n)
        variance = 0.0
        for g in np.unique(groups):
            own = groups == g
            correction = fractional_matrix_power(np.eye(own.sum()) - hat[np.ix_(own, own)], -0.5)
            variance += (correction @ residual[own]).sum() ** 2 / n**2
        assert (made.own[:, k] ** 2).sum() == pytest.approx(variance)


def test_cr2_of_a_mean_is_unbiased_with_few_unequal_clusters() -> None:
    rng = np.random.default_rng(2)
    sizes = np.array([1, 2, 3, 4, 20])
    unit = np.repeat(np.arange(5), sizes)
    n = len(unit)
    # Independent members: the working model under which CR2 is unbiased.
    estimates = [
        estimate_arms(rng.normal(size=n), np.ones(n), np.zeros(n, dtype=int), 1, np.empty((n, 0)), unit, 5)
        for _ in range(4000)
    ]
    variance = np.array([(made.own**2).sum() for made in estimates])
    assert abs(variance.mean() - 1 / n) < 3 * variance.std() / np.sqrt(4000)


def test_the_variance_of_a_ratio_is_the_delta_methods() -> None:
    rng = np.random.default_rng(3)
    n = 5000
    z = 1.0 + rng.poisson(9, n)
    y = rng.binomial(z.astype(int), rng.beta(2, 8, n)).astype(float)
    made = of_members(y, np.zeros(n, dtype=int), z=z)
    covariance = np.cov(y, z)
    r = y.sum() / z.sum()
    delta = (covariance[0, 0] - 2 * r * covariance[0, 1] + r**2 * covariance[1, 1]) / z.mean() ** 2 / n
    assert made.value[0] == pytest.approx(r)
    assert (made.terms**2).sum() == pytest.approx(delta, rel=2e-3)  # HC2 divides by 1 - share, delta does not


def test_adjusted_ratios_take_away_what_the_linearised_regression_takes_away() -> None:
    rng = np.random.default_rng(4)
    n = 20_000
    activity, rate = rng.gamma(2.0, 5.0, n), rng.beta(2, 8, n)
    z, past_z = 1 + rng.poisson(activity[:, None], (n, 2)).T
    y, past_y = rng.binomial(z, rate).astype(float), rng.binomial(past_z, rate).astype(float)
    x = np.column_stack([past_y, past_z])
    raw, adjusted = (of_members(y, np.zeros(n, dtype=int), z=z.astype(float), x=past) for past in (None, x))
    linear = y - y.mean() / z.mean() * z
    rho2 = sm.OLS(linear, sm.add_constant(x)).fit().rsquared
    assert rho2 > 0.2
    assert (adjusted.own**2).sum() / (raw.own**2).sum() == pytest.approx(1 - rho2, rel=0.01)


def test_terms_are_the_error_of_each_value_and_of_both_together() -> None:
    rng = np.random.default_rng(5)
    n, n_times = 400, 1500
    values, stated = [], []
    for _ in range(n_times):
        x, arm = rng.normal(size=n), rng.integers(2, size=n)
        made = of_members(10 + x * (1 + arm) + rng.normal(size=n), arm, x=x[:, None])
        values.append(made.value)
        stated.append(made.terms.T @ made.terms)
    seen, said = np.cov(np.array(values).T), np.mean(stated, axis=0)
    # A sample covariance of normals has the variance (s_ij^2 + s_ii s_jj) / times.
    error = np.sqrt((seen**2 + np.outer(np.diag(seen), np.diag(seen))) / n_times)
    assert (np.abs(said - seen) < 3.5 * error).all()
    assert said[0, 1] > 5 * error[0, 1]  # the shared past


def test_the_relative_interval_holds_the_ratios_that_are_not_rejected() -> None:
    rng = np.random.default_rng(9)
    arm, x = np.arange(12) % 2, rng.normal(size=(12, 1))
    made = of_members(rng.normal(5, 2, 12) + x[:, 0], arm, x=x)
    effect = compare_with_control(made, 1, OneLook(), 0.1)
    critical = OneLook().critical(0.1, 12, effect.df)
    (control, value), (of_control, of_value) = made.value, made.terms.T
    for bound in (effect.relative_low, effect.relative_high):
        error = np.sqrt(((of_value - (1 + bound) * of_control) ** 2).sum())
        assert abs(value - (1 + bound) * control) == pytest.approx(critical * error)
    assert effect.relative_low < value / control - 1 < effect.relative_high


@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_the_order_of_members_and_the_units_of_columns_do_not_matter(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    arm, x = np.arange(n) % 3, rng.normal(size=(n, 1))
    unit = np.repeat(np.arange(20), 2)
    y, z = rng.gamma(2.0, 1.0, n), 1.0 + rng.poisson(3, n)
    made = estimate_arms(y, z, arm, 3, x - x.mean(), unit, 20)
    order = rng.permutation(n)
    shuffled = estimate_arms(scale * y[order], z[order], arm[order], 3, 7 * (x - x.mean())[order], unit[order], 20)
    np.testing.assert_allclose(shuffled.value, scale * made.value)
    np.testing.assert_allclose(shuffled.terms, scale * made.terms, atol=1e-10 * scale)
    np.testing.assert_allclose(shuffled.df, made.df)


def test_a_column_twice_or_a_constant_adjusts_as_it_does_once() -> None:
    rng = np.random.default_rng(6)
    x, arm = rng.normal(size=(200, 1)), rng.integers(2, size=200)
    y = x[:, 0] + rng.normal(size=200)
    once, twice = of_members(y, arm, x=x), of_members(y, arm, x=np.column_stack([x, x, np.ones(200)]))
    np.testing.assert_allclose(twice.value, once.value)
    np.testing.assert_allclose(twice.terms, once.terms, atol=1e-12)
    np.testing.assert_allclose(twice.df, once.df)


def test_clusters_of_unequal_size_are_worth_fewer_and_members_all() -> None:
    rng = np.random.default_rng(7)
    sizes = np.array([2] * 10 + [60])
    unit = np.repeat(np.arange(11), sizes)
    n = len(unit)
    alike = 5 + rng.normal(size=11)[unit]
    made = estimate_arms(alike, np.ones(n), np.zeros(n, dtype=int), 1, np.empty((n, 0)), unit, 11)
    assert made.df[0] < 1  # nearly all of the variance is the large one's
    assert of_members(alike, np.zeros(n, dtype=int)).df[0] == pytest.approx(n - 1)
    independent = estimate_arms(rng.normal(size=n), np.ones(n), np.zeros(n, dtype=int), 1, np.empty((n, 0)), unit, 11)
    assert made.df[0] < independent.df[0] + 1e-9


def test_an_arm_without_members_or_denominators_has_no_value() -> None:
    y, z = np.array([1.0, 2.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0])
    made = estimate_arms(y, z, np.array([0, 0, 1, 1]), 3, np.empty((4, 0)), np.arange(4), 4)
    assert np.isnan(made.value[1:]).all()
    assert made.members.tolist() == [2, 2, 0]
    effect = compare_with_control(made, 1, OneLook(), 0.05)
    assert np.isnan(effect.p_value)
    assert (effect.low, effect.high) == (-np.inf, np.inf)


def test_block_diagonal_clusters_that_straddle_arms_take_the_smaller_arms_degrees_of_freedom() -> None:
    rng = np.random.default_rng(8)
    unit, arm = np.repeat(np.arange(12), 4), np.tile([0, 0, 0, 1], 12)
    shared = block_diag(*[np.ones((4, 1))] * 12) @ rng.normal(size=12)
    made = estimate_arms(shared + rng.normal(0, 0.1, 48), np.ones(48), arm, 2, np.empty((48, 0)), unit, 12)
    effect = compare_with_control(made, 1, OneLook(), 0.05)
    assert effect.df == pytest.approx(made.df.min())
    # What a cluster shares is in both arms and cancels: the errors must say so.
    assert effect.standard_error < 0.2 * np.sqrt((made.own**2).sum())
