"""An A/B test of two bundles in a made network, and the truth that no real test can see: both arms on everybody."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import statsmodels.api as sm
from pydantic import Field

import spr
from simulations.policies import Production, Ranked, Split
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.errors import ConfigError
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simulations.run import Run
    from spr.progress import Progress


class PolicyComparisonSettings(Settings):
    """What ``configs/simulations/policy_comparison.toml`` may say.

    Without bundles one ranker is fitted on the world's own log: A has all factors at 1, B the true factors, as a good
    experiment would give them.
    """

    viewers: int = Field(1_200, ge=100)
    training_requests: int = Field(12_000, ge=1000)
    requests: int = Field(12_000, ge=100)
    days: int = Field(28, ge=1)
    config: str = "network"
    bundle_a: Path | None = None
    bundle_b: Path | None = None


def fit_or_load(
    world: World, settings: PolicyComparisonSettings, progress: Progress
) -> dict[str, spr.SecondPassRanker]:
    """Return both rankers by their arm's name."""
    if settings.bundle_a is not None and settings.bundle_b is not None:
        return {"A": spr.load(settings.bundle_a), "B": spr.load(settings.bundle_b)}
    if settings.bundle_a is not None or settings.bundle_b is not None:
        raise ConfigError("policy_comparison: one bundle is named; allowed: both bundle_a and bundle_b, or neither")
    log = world.tables(settings.training_requests)
    config = spr.Config.named(settings.config).model_copy(
        update={"importance": ImportanceFactors.of({}), "guarantees": ()}
    )
    plain = spr.fit(log.impressions, log.viewers, log.entities, config=config, progress=progress)
    return {"A": plain, "B": plain.with_factors(world.truth.importance_factors())}


def metrics_of(run: Run) -> pd.DataFrame:
    """Return what is measured of each viewer: sessions, engagement, edges formed and with a downstream interaction."""
    viewers = run.viewers
    types = run.world.behaviour.edge_types
    made = pd.DataFrame({"engagement": viewers["expected_engagement"], "sessions": viewers["sessions"]})
    made["formed"] = viewers[[f"formed_{t}" for t in types]].sum(axis=1)
    made["downstream"] = viewers[[f"downstream_{t}" for t in types]].sum(axis=1)
    for t in types:
        made[f"formed_{t}"], made[f"downstream_{t}"] = viewers[f"formed_{t}"], viewers[f"downstream_{t}"]
    return made


def compare(
    world: World, rankers: dict[str, spr.SecondPassRanker], settings: PolicyComparisonSettings, progress: Progress
) -> pd.DataFrame:
    """Run the test, then each arm on everybody.

    Returns
    -------
    DataFrame
        By metric, per viewer: the arms' means in the test; the difference with its 95 % interval (robust errors,
        adjusted for activity and the metric before the test); the true difference, of all viewers under either arm.
    """
    split = Split({name: Ranked(ranker, name) for name, ranker in rankers.items()}, salt=f"ab-{settings.seed}")
    before = world.run(settings.requests, days=settings.days, policy=Production(), progress=progress)
    run = partial(world.run, settings.requests, days=settings.days, after=before, progress=progress)
    past, tested = metrics_of(before), metrics_of(run(policy=split))
    everybody = {name: metrics_of(run(policy=Ranked(ranker, name))) for name, ranker in rankers.items()}
    in_b = split.arm_of(world.viewer_ids) == "B"
    rows = {}
    for metric in tested.columns:
        if metric == "sessions":
            continue
        design = np.column_stack([np.ones(len(in_b)), in_b, world.activity, past[metric]])
        fit = sm.OLS(tested[metric].to_numpy(dtype=float), design).fit(cov_type="HC3")
        low, high = fit.conf_int()[1]
        rows[metric] = {
            "A": tested.loc[~in_b, metric].mean(),
            "B": tested.loc[in_b, metric].mean(),
            "difference": fit.params[1],
            "low": low,
            "high": high,
            "true difference": (everybody["B"][metric] - everybody["A"][metric]).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("per viewer")


def plot_comparison(table: pd.DataFrame) -> Figure:
    """Draw each difference relative to A, with its interval and the truth."""
    from calibration.plots.axes import GREY, INK, OTHER_INK, panel_grid

    figure, grid = panel_grid(1, "B - A, % of A's mean: the test's interval and the truth", width=8.0, height=4.2)
    panel = figure.add_subplot(grid[0, 0])
    place = np.arange(len(table))[::-1]
    percent = {name: 100 * table[name] / table["A"] for name in ("difference", "low", "high", "true difference")}
    panel.hlines(place, percent["low"], percent["high"], color=INK)
    panel.plot(percent["difference"], place, "o", color=INK, label="estimated, 95 % interval")
    panel.plot(percent["true difference"], place, "D", color=OTHER_INK, markerfacecolor="none", label="true")
    panel.axvline(0, color=GREY, linewidth=1)
    panel.set_yticks(place, table.index)
    panel.set_xlabel("%")
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    figure.subplots_adjust(left=0.24, bottom=0.2)
    return figure


def job(settings: PolicyComparisonSettings, progress: Progress) -> Results:
    """Fit or load, compare, and draw."""
    world = World(settings.viewers, seed=settings.seed)
    table = compare(world, fit_or_load(world, settings, progress), settings, progress)
    covered = ((table["low"] <= table["true difference"]) & (table["true difference"] <= table["high"])).sum()
    remark = f"{covered} of {len(table)} intervals hold the true difference"
    return Results({"A/B test": table}, {"policy_comparison": plot_comparison(table)}, (remark,))


if __name__ == "__main__":
    run_script("policy_comparison", PolicyComparisonSettings, job)
