"""An edge-drop experiment in a made network: design, run, importance factors, and the truth beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from simulations.policies import ExpectedGain
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.edge_drop import EdgeDropExperiment, sample_ratio_check
from spr.edge_drop.dose_response import Form, fit_dose_response
from spr.edge_drop.experiment import Design
from spr.edge_drop.plots import dose_response_plot, forest_plot
from spr.edge_drop.table import read_edge_drop
from spr.edge_drop.values import values_of

if TYPE_CHECKING:
    from spr.edge_drop import FactorEstimates
    from spr.edge_drop.table import EdgeDropRows
    from spr.progress import Progress
    from spr.reorder import ImportanceFactors

_FORMS: tuple[Form, ...] = ("linear", "quadratic", "concave")


class EdgeDropSettings(Settings):
    """What ``configs/simulations/edge_drop.toml`` may say."""

    viewers: int = Field(60_000, ge=1000)
    days: int = Field(28, ge=1)
    doses: tuple[float, ...] = (0.1, 0.25, 0.5)
    natural_share: float = 0.5
    design: Design = "factorial"
    metric: dict[str, float] = Field(default_factory=lambda: {"engagement": 1.0})
    reference: str = "follow"
    per: Literal["downstream_edge", "edge"] = "downstream_edge"
    page_views: int = Field(20_000, ge=100)


@dataclass(frozen=True)
class Ran:
    """An experiment that ran in a made network."""

    world: World
    experiment: EdgeDropExperiment
    table: pd.DataFrame
    rows: EdgeDropRows
    estimates: FactorEstimates


def run_experiment(settings: EdgeDropSettings, progress: Progress) -> Ran:
    """Design an experiment, run it in a world, and estimate the factors.

    Parameters
    ----------
    settings : EdgeDropSettings
    progress : callable

    Returns
    -------
    Ran
    """
    progress("experiment", 0, 3)
    world = World(settings.viewers, seed=settings.seed)
    experiment = EdgeDropExperiment(
        world.behaviour.edge_types,
        salt=f"edge-drop-{settings.seed}",
        doses=settings.doses,
        natural_share=settings.natural_share,
        design=settings.design,
    )
    assignment = experiment.assign(world.viewers, stratum="sessions_per_week")
    progress("experiment", 1, 3)
    table = world.edge_drop(assignment, days=settings.days, pre_days=settings.days, rng=settings.seed)
    progress("experiment", 2, 3)
    rows = read_edge_drop(table, settings.metric)
    estimates = values_of(rows).factors(settings.per, reference=settings.reference)
    progress("experiment", 3, 3)
    return Ran(world, experiment, table, rows, estimates)


def forms_table(ran: Ran, days: int) -> pd.DataFrame:
    """Return the value per edge by each form of the curve, with its standard error, beside the truth."""
    truth = ran.world.truth.edge_values()["value_per_edge"] * days / 7
    columns = {"truth": truth.reindex(list(ran.rows.edge_types))}
    for form in _FORMS:
        values = values_of(ran.rows, form=form).to_pandas()
        columns[form], columns[f"{form} error"] = values["value"], values["standard_error"]
    return pd.DataFrame(columns)


def value_lost(ran: Ran, settings: EdgeDropSettings, progress: Progress) -> pd.DataFrame:
    """Serve pages with the true, the estimated and no factors: what they are expected to make, in the same moods.

    Returns
    -------
    DataFrame
        By factors: downstream interactions, gain in engagement, % of the true factors' gain that is lost.
    """
    true = ran.world.truth.importance_factors(reference=settings.reference, per=settings.per)
    ways: dict[str, ImportanceFactors | None] = {"true": true, "estimated": ran.estimates.to_factors(), "none": None}
    rows = {}
    for done, (name, factors) in enumerate(ways.items()):
        progress("pages", done, len(ways))
        totals = ran.world.run(settings.page_views, policy=ExpectedGain(factors)).totals
        rows[name] = {"downstream": totals["expected_downstream"], "gain": totals["expected_gain"]}
    progress("pages", len(ways), len(ways))
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("factors")
    gain = table["gain"].to_numpy()
    return table.assign(**{"gain lost %": 100 * (1 - gain / gain[0])})


def job(settings: EdgeDropSettings, progress: Progress) -> Results:
    """Run the experiment, check it, and hold everything against the truth."""
    ran = run_experiment(settings, progress)
    true = ran.world.truth.importance_factors(reference=settings.reference, per=settings.per)
    factors = ran.estimates.to_pandas()
    factors.insert(0, "truth", [true.factor[t] for t in factors.index])
    values, ratio = ran.estimates.values, sample_ratio_check(ran.table, ran.experiment)
    tables = {
        "importance factors": factors,
        "value per edge by form of the curve": forms_table(ran, settings.days),
        "what pages make of the factors": value_lost(ran, settings, progress),
    }
    truth_plot = forest_plot(ran.estimates.to_factors(), truth=true.factor, title="Importance factors and their truth")
    curves = dose_response_plot(ran.rows, fit_dose_response(ran.rows))
    remarks = (
        f"{values.n_viewers:,} viewers; curvature {values.curvature:.2f} ± {values.curvature_error:.2f}; pre-period "
        f"and strata take away {100 * values.pre_correlation**2:.0f} % of the variance",
        f"sample ratio: smallest p {np.nanmin(ratio['p_value']):.3f}; doses against the past: smallest p "
        f"{values.balance['p_value'].min():.3f}; additivity: p {values.additivity_p_value:.3f}",
        *values.notes,
    )
    return Results(tables, {"factors": truth_plot, "dose_response": curves}, remarks)


if __name__ == "__main__":
    run_script("edge_drop", EdgeDropSettings, job)
