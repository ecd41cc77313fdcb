"""Plans: standard errors against simulated experiments, sizes against their definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from spr.edge_drop.experiment import EdgeDropExperiment
from spr.edge_drop.plan import PilotFigures, plan_experiment
from spr.errors import ConfigError, TableError

TYPES = ("a", "b", "c")
PILOT = PilotFigures({"a": 3.0, "b": 2.0, "c": 1.5}, {"a": 6.0, "b": 4.0, "c": 6.0}, residual_sd=5.0)


def cells_of(experiment: EdgeDropExperiment) -> tuple[np.ndarray, np.ndarray]:
    planned = experiment.dose_distribution.iloc[:, 0]
    size = len(experiment.edge_types)
    if experiment.design == "factorial":
        doses = np.array(list(itertools.product(planned.index, repeat=size)))
        return doses, np.array([np.prod(chance) for chance in itertools.product(planned, repeat=size)])
    dosed = [dose * np.eye(size)[t] for t in range(size) for dose in experiment.doses]
    share = (1 - experiment.natural_share) / len(dosed)
    return np.vstack([np.zeros(size), *dosed]), np.array([experiment.natural_share, *[share] * len(dosed)])


@pytest.mark.parametrize("design", ["factorial", "one_arm_per_type"])
def test_a_linear_analysis_has_the_planned_error(design: Any) -> None:
    experiment = EdgeDropExperiment(TYPES, "s", design=design)
    rng = np.random.default_rng(0)
    n, rate = 8000, np.array([6.0, 4.0, 6.0])
    plan = plan_experiment(
        experiment,
        PilotFigures(
            {"a": 6.0, "b": 4.0, "c": 3.0},
            {"a": 6.0, "b": 4.0, "c": 6.0},
            residual_sd=5.0,
            count_covariance=pd.DataFrame(np.diag(40 / rate), index=TYPES, columns=TYPES),
        ),
        reference="a",
        curvature=1.0,
        curvature_sd=0.0,
    )
    doses, chance = cells_of(experiment)
    logs = []
    for _ in range(600):
        dose = doses[rng.choice(len(doses), n, p=chance)]
        y = 20 - dose @ [6.0, 4.0, 3.0] + rng.normal(0, 5, n)
        # Counts vary forty times as much as a Poisson's, so that their noise is a part of the error worth seeing.
        counts = rng.normal(rate, np.sqrt(40 * rate / n))
        slopes = -np.linalg.lstsq(np.column_stack([np.ones(n), dose]), y, rcond=None)[0][1:]
        value = slopes / counts
        logs.append(np.log(value[1:] / value[0]))
    planned = plan.at([n])["se_log_factor"].to_numpy()
    assert np.std(logs, axis=0) == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize("design", ["factorial", "one_arm_per_type"])
def test_a_concave_analysis_has_the_planned_error(design: Any) -> None:
    experiment = EdgeDropExperiment(TYPES, "s", design=design)
    n, rng = 40_000 if design == "factorial" else 120_000, np.random.default_rng(1)
    plan = plan_experiment(experiment, PILOT, reference="c")
    doses, chance = cells_of(experiment)
    weight = np.sqrt(n * chance) / 5.0
    loss = np.array([3.0, 2.0, 1.5])

    def fitted(beta: np.ndarray) -> np.ndarray:
        return beta[0] - ((1 - (1 - doses) ** beta[4]) / beta[4]) @ beta[1:4]

    truth = fitted(np.array([10.0, *loss, 0.5]))
    found = []
    for _ in range(400):
        mean = truth + rng.normal(size=len(doses)) / weight
        belief = 0.5 + 0.5 * rng.normal()  # what the prior is centred on varies as it says

        def residual(beta: np.ndarray, mean: np.ndarray = mean, belief: float = belief) -> np.ndarray:
            return np.append((mean - fitted(beta)) * weight, (beta[4] - belief) / 0.5)

        start = np.array([10.0, *loss, 0.5])
        found.append(least_squares(residual, start, bounds=([-np.inf] * 4 + [0.02], np.inf)).x)
    losses = np.stack(found)[:, 1:4]
    logs = np.log(losses[:, :2] / losses[:, 2:])
    planned = plan.at([n])
    assert np.std(logs, axis=0) == pytest.approx(planned["se_log_factor"].to_numpy(), rel=0.1)
    # The factors are 3 / 6 over 1.5 / 6 and 2 / 4 over 1.5 / 6.
    assert planned["factor"].to_list() == pytest.approx([2.0, 2.0])


def test_bounded_is_the_power_of_the_reference_and_power_against_1_that_of_the_factor() -> None:
    experiment = EdgeDropExperiment(TYPES, "s")
    plan = plan_experiment(experiment, PILOT, reference="c", curvature=1.0, curvature_sd=0.0)
    n, rng = 800, np.random.default_rng(3)
    dose_variance = np.var(np.repeat([0, 0.1, 0.25, 0.5], [3, 1, 1, 1]))
    sd = 5.0 / np.sqrt(n * dose_variance)
    seen = np.abs(rng.normal(1.5, sd, 20_000) / sd) > 2.2414  # two ratios at once
    assert plan.at([n])["bounded"].iloc[0] == pytest.approx(seen.mean(), abs=0.015)
    large = plan.at([20_000]).set_index("edge_type").loc["a"]
    drawn = rng.normal(np.log(2), large["se_log_factor"], 20_000)
    assert large["power_against_1"] == pytest.approx((abs(drawn) > 1.96 * large["se_log_factor"]).mean(), abs=0.015)


def test_the_required_viewers_are_the_fewest_that_do() -> None:
    plan = plan_experiment(EdgeDropExperiment(TYPES, "s"), PILOT, reference="c", precision=0.3)
    at, before = plan.at([plan.viewers]), plan.at([plan.viewers - 1])
    assert (at["half_width"] <= 0.3).all()
    assert (at["bounded"] >= 0.8).all()
    assert (before["half_width"] > 0.3).any() or (before["bounded"] < 0.8).any()
    assert plan.by_type["viewers_for_precision"].max() == plan.viewers
    told = int(plan.by_type.loc["a", "viewers_to_tell_from_1"])
    power = plan.at([told - 1, told]).query("edge_type == 'a'")["power_against_1"].to_list()
    assert power[0] < 0.8 <= power[1]
    assert plan.table["viewers"].nunique() == 6


def test_with_a_coarse_precision_the_reference_decides() -> None:
    plan = plan_experiment(EdgeDropExperiment(TYPES, "s"), PILOT, reference="c", precision=50.0)
    assert plan.at([plan.viewers])["bounded"].iloc[0] == pytest.approx(0.8, abs=0.01)
    assert plan.by_type["viewers_for_precision"].max() < plan.viewers


def test_a_factorial_needs_fewer_viewers_than_one_arm_per_type() -> None:
    types = tuple("abcdefg")
    pilot = PilotFigures(dict.fromkeys(types, 2.0), dict.fromkeys(types, 5.0), 5.0)
    required = [
        plan_experiment(EdgeDropExperiment(types, "s", design=design), pilot, reference="a").viewers
        for design in ("factorial", "one_arm_per_type")
    ]
    assert required[0] < required[1] / 3


def test_curvature_costs_the_ratios_of_a_factorial_nothing() -> None:
    experiment = EdgeDropExperiment(TYPES, "s")
    known, free = (plan_experiment(experiment, PILOT, reference="c", curvature_sd=sd).at([50_000]) for sd in (0.0, 2.0))
    assert free["se_log_factor"].to_numpy() == pytest.approx(known["se_log_factor"].to_numpy())
    assert (free["bounded"] < known["bounded"]).all()


def test_a_factor_of_one_cannot_be_told_from_1() -> None:
    pilot = PilotFigures({"a": 2.0, "b": 1.0}, {"a": 4.0, "b": 2.0}, 5.0)
    plan = plan_experiment(EdgeDropExperiment(("a", "b"), "s"), pilot, reference="a")
    assert plan.by_type["viewers_to_tell_from_1"].isna().all()


def test_pilot_figures_of_a_table_recover_what_made_it() -> None:
    rng = np.random.default_rng(4)
    n = 20_000
    stratum = rng.integers(0, 3, n)
    pre = rng.normal(20, 6, n)
    edges = rng.poisson(10, (n, 2))
    table = pd.DataFrame(
        {
            "likes": 0.7 * pre + 5 * stratum + rng.normal(0, 4, n),
            "pre_likes": pre,
            "stratum": stratum.astype(str),
            "dropped_a": 0.0,
            "edges_a": edges[:, 0],
            "edges_b": edges[:, 1],
            "downstream_edges_a": rng.binomial(edges[:, 0], 0.4),
            "downstream_edges_b": rng.binomial(edges[:, 1], 0.1),
        }
    )
    figures = PilotFigures.of_table(table, "likes", {"a": 0.3, "b": 0.1})
    assert figures.residual_sd == pytest.approx(4.0, rel=0.02)
    assert figures.loss == pytest.approx({"a": 3.0, "b": 1.0}, rel=0.02)
    assert figures.downstream_edges == pytest.approx({"a": 4.0, "b": 1.0}, rel=0.03)
    # A binomial part of a Poisson is a Poisson, whose relative variance is 1 over its mean.
    assert figures.count_covariance is not None
    assert np.diag(figures.count_covariance) == pytest.approx([0.25, 1.0], rel=0.06)
    raw = PilotFigures.of_table(table.drop(columns=["pre_likes", "stratum"]), "likes", {"a": 0.3})
    assert raw.residual_sd == pytest.approx(np.std(table["likes"]), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"likes": [np.nan, *range(9)]}, "likes is null or infinite in 1 of 10"),
        ({"dropped_a": 0.1}, "dropped_a is not 0 in 10 of 10"),
        ({"downstream_edges_a": 0}, "downstream_edges_a is 0 for every viewer"),
    ],
)
def test_a_pilot_table_that_cannot_tell_is_refused(change: dict[str, Any], message: str) -> None:
    table = pd.DataFrame({"likes": range(10), "edges_a": 3, "downstream_edges_a": 1}).assign(**change)
    with pytest.raises((TableError, ConfigError)) as error:
        PilotFigures.of_table(table, "likes", {"a": 0.3})
    assert message in str(error.value)


def test_a_pilot_table_without_a_column_or_with_too_few_rows_is_refused() -> None:
    table = pd.DataFrame({"likes": range(10), "edges_a": 3})
    with pytest.raises(TableError, match="unknown column 'downstream_edges_a'"):
        PilotFigures.of_table(table, "likes", {"a": 0.3})
    with pytest.raises(TableError, match="1 viewers; more than 1"):
        PilotFigures.of_table(table.assign(downstream_edges_a=1).head(1), "likes", {"a": 0.3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": "d"}, "unknown reference 'd' in the experiment"),
        ({"precision": 0.0}, "precision is 0.0"),
        ({"power": 1.0}, "power is 1.0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"curvature": 0.0}, "curvature is 0.0"),
        ({"curvature_sd": -1.0}, "curvature_sd is -1.0"),
        ({"experiment": EdgeDropExperiment(("a", "z"), "s")}, "unknown edge type 'z'"),
        ({"experiment": EdgeDropExperiment(("a",), "s"), "reference": "a"}, "at least two"),
    ],
)
def test_a_plan_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"experiment": EdgeDropExperiment(TYPES, "s"), "pilot": PILOT, "reference": "c"} | arguments
    with pytest.raises(ConfigError) as error:
        plan_experiment(**given)
    assert message in str(error.value)


def test_figures_that_cannot_be_and_sizes_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(ConfigError, match="loss of 'a' is 0"):
        PilotFigures({"a": 0.0}, {"a": 1.0}, 1.0)
    with pytest.raises(ConfigError, match="residual_sd is nan"):
        PilotFigures({"a": 1.0}, {"a": 1.0}, float("nan"))
    with pytest.raises(ConfigError, match="unknown edge type 'a' in downstream_edges"):
        PilotFigures({"a": 1.0}, {}, 1.0)
    with pytest.raises(ConfigError, match="unknown edge type 'a' in count_covariance"):
        PilotFigures({"a": 1.0}, {"a": 1.0}, 1.0, pd.DataFrame({"b": [1.0]}, index=["b"]))
    hopeless = PilotFigures({"a": 1e-9, "b": 1e-9}, {"a": 1.0, "b": 1.0}, 1.0)
    plan = plan_experiment(EdgeDropExperiment(("a", "b"), "s"), hopeless, reference="a")
    with pytest.raises(ConfigError, match="viewers would be needed"):
        _ = plan.viewers
    with pytest.raises(ConfigError, match="viewers holds 1"):
        plan.at([1])
