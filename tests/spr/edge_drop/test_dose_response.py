from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from spr.edge_drop.checks import additivity_p_value, balance_table
from spr.edge_drop.dose_response import covariance_of, fit_dose_response, power_loss, power_loss_slope
from spr.edge_drop.table import read_edge_drop
from spr.errors import InvalidExperiment

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.spr.edge_drop.conftest import Made


@given(curvature=st.floats(0.05, 1.0), dose=st.floats(0.0, 1.0))
def test_power_loss_is_concave_in_what_remains(curvature: float, dose: float) -> None:
    loss = power_loss(np.array([0.0, dose / 2, dose]), curvature)
    assert loss[0] == 0
    assert (np.diff(loss) >= -1e-12).all()
    assert loss[2] - loss[1] >= loss[1] - loss[0] - 1e-12  # the later edges to go are missed more
    assert loss[2] >= dose - 1e-12  # slope 1 at dose 0


def test_power_loss_is_a_straight_line_at_1_and_has_its_slope_in_the_curvature() -> None:
    dose = np.linspace(0, 1, 5)
    np.testing.assert_allclose(power_loss(dose, 1.0), dose)
    small = 1e-6
    numeric = (power_loss(dose, 0.5 + small) - power_loss(dose, 0.5 - small)) / (2 * small)
    np.testing.assert_allclose(power_loss_slope(dose, 0.5), numeric, atol=1e-7)


def test_losses_of_a_curve_without_noise_are_exact() -> None:
    rng = np.random.default_rng(2)
    n = 600
    dose = rng.choice([0.0, 0.1, 0.25, 0.5], size=(n, 2))
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "edges_a": 5, "edges_b": 8})
    table["dropped_a"], table["dropped_b"] = dose.T
    table["likes"] = 20 - 3 * power_loss(dose[:, 0], 0.3) - 1.5 * power_loss(dose[:, 1], 0.3)
    fit = fit_dose_response(read_edge_drop(table, "likes"))
    np.testing.assert_allclose(fit.loss, [3.0, 1.5], rtol=1e-5)
    assert fit.curvature == pytest.approx(0.3, abs=1e-4)
    np.testing.assert_allclose(fit.residual, 0, atol=1e-6)


@pytest.mark.parametrize("clustered", [False, True])
def test_errors_are_those_of_statsmodels(make_experiment: Callable[..., Made], clustered: bool) -> None:
    table = make_experiment(800, np.random.default_rng(3)).table
    table["stratum"] = np.arange(800) % 3
    if clustered:
        table["cluster"] = np.random.default_rng(0).integers(90, size=800)
    rows = read_edge_drop(table.drop(columns="pre_likes"), "likes")
    fit = fit_dose_response(rows, "linear")
    ols = sm.OLS(rows.outcome, fit.design)
    how = {"cov_type": "cluster", "cov_kwds": {"groups": rows.cluster}} if clustered else {"cov_type": "HC1"}
    peer = ols.fit(**how)
    np.testing.assert_allclose(fit.loss, peer.params[3:6], rtol=1e-8)
    error = np.sqrt(np.diag(covariance_of(fit.influence, rows.cluster)))
    # clusters: statsmodels multiplies by (n - 1) / (n - k), here it is n / (n - k)
    np.testing.assert_allclose(error, peer.bse[3:6], rtol=1e-3 if clustered else 1e-8)


def test_forms_trade_bias_for_variance_as_they_should(make_experiment: Callable[..., Made]) -> None:
    found: dict[str, list[float]] = {"concave": [], "linear": [], "quadratic": []}
    rng = np.random.default_rng(4)
    truth = 0.0
    for _ in range(60):
        made = make_experiment(2000, rng, (1.5,))
        truth = float(made.per_edge[0]) * made.table["edges_t0"].mean()
        rows = read_edge_drop(made.table, "likes")
        for form in found:
            found[form].append(float(fit_dose_response(rows, form).loss[0]))
    bias = {form: np.mean(losses) / truth - 1 for form, losses in found.items()}
    spread = {form: np.std(losses) / truth for form, losses in found.items()}
    assert bias["linear"] > 0.08  # the large doses are overweighted
    assert abs(bias["concave"]) < 0.06
    assert spread["quadratic"] > 2.5 * spread["linear"]
    assert spread["concave"] < 1.3 * spread["linear"]


def test_adjustment_by_the_pre_period_takes_variance_away_and_no_bias_in(make_experiment: Callable[..., Made]) -> None:
    rng = np.random.default_rng(5)
    with_pre, without, truth = [], [], np.zeros(3)
    for _ in range(50):
        made = make_experiment(2000, rng)
        truth = made.per_edge
        for table, found in ((made.table, with_pre), (made.table.drop(columns="pre_likes"), without)):
            rows = read_edge_drop(table, "likes")
            found.append(fit_dose_response(rows, "concave").loss / rows.edges.mean(axis=0))
    assert np.var(with_pre, axis=0)[0] < 0.55 * np.var(without, axis=0)[0]
    error = np.std(with_pre, axis=0) / np.sqrt(50)
    assert (np.abs(np.mean(with_pre, axis=0) - truth) < 3.5 * error + 0.05 * truth).all()


def test_one_dose_above_0_gives_a_straight_line() -> None:
    n = 200
    dose = np.tile([0.0, 0.5], n // 2)
    table = pd.DataFrame(
        {"viewer_id": np.arange(n).astype(str), "edges_a": 5, "dropped_a": dose, "likes": 9 - 4 * dose}
    )
    fit = fit_dose_response(read_edge_drop(table, "likes"))
    assert fit.form == "linear"
    assert fit.loss[0] == pytest.approx(4.0)


def test_types_dropped_together_cannot_be_told_apart() -> None:
    n = 200
    dose = np.tile([0.0, 0.1, 0.5, 0.25], n // 4)
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "edges_a": 5, "edges_b": 2, "likes": np.arange(n)})
    table["dropped_a"] = table["dropped_b"] = dose
    with pytest.raises(InvalidExperiment, match="a, b cannot be told apart"):
        fit_dose_response(read_edge_drop(table, "likes"))


def test_one_cluster_has_no_error() -> None:
    with pytest.raises(InvalidExperiment, match="one cluster"):
        covariance_of(np.ones((5, 1)), np.zeros(5, dtype=np.int64))


def test_balance_is_uniform_under_random_assignment_and_finds_a_broken_one(
    make_experiment: Callable[..., Made],
) -> None:
    rng = np.random.default_rng(6)
    p_values = np.concatenate(
        [balance_table(read_edge_drop(make_experiment(1500, rng).table, "likes"))["p_value"] for _ in range(60)]
    )
    assert 0.02 < (p_values < 0.05).mean() < 0.1
    table = make_experiment(1500, rng).table
    heavy = table["pre_likes"] > table["pre_likes"].median()
    table.loc[heavy & (rng.random(1500) < 0.4), "dropped_t1"] = 0.5
    assert balance_table(read_edge_drop(table, "likes"))["p_value"].min() < 1e-6


def test_additivity_is_doubted_only_where_losses_do_not_add() -> None:
    rng = np.random.default_rng(7)
    p_values = {True: [], False: []}
    for _ in range(80):
        n = 1500
        dose = rng.choice([0.0, 0.1, 0.25, 0.5], size=(n, 2), p=[0.5, *[1 / 6] * 3])
        table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "edges_a": 5, "edges_b": 8})
        table["dropped_a"], table["dropped_b"] = dose.T
        loss = 4 * power_loss(dose[:, 0], 0.5) + 3 * power_loss(dose[:, 1], 0.5)
        for adds in (True, False):
            together = 0.0 if adds else 12 * dose[:, 0] * dose[:, 1]
            table["likes"] = 20 - loss - together + rng.normal(0, 1, n)
            rows = read_edge_drop(table, "likes")
            p_values[adds].append(additivity_p_value(rows, fit_dose_response(rows)))
    assert np.mean(np.array(p_values[True]) < 0.05) < 0.15
    assert np.mean(np.array(p_values[False]) < 0.05) > 0.9
