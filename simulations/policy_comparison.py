"""An A/B test of two bundles in a made network, and the truth that no real test can see: both arms on everybody."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

import spr
from simulations.policies import Production, Ranked, Split
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.errors import ConfigError
from spr.evaluation import ArmComparison, compare_arms
from spr.evaluation.experiment.plots import forest_plot
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
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
) -> tuple[ArmComparison, pd.Series]:
    """Run the test, then each arm on everybody.

    Returns
    -------
    tested : ArmComparison
        B against A by metric, per viewer, adjusted for activity and the metric before the test.
    truth : Series
        By metric, the true difference: of all viewers under either arm.
    """
    split = Split({name: Ranked(ranker, name) for name, ranker in rankers.items()}, salt=f"ab-{settings.seed}")
    before = world.run(settings.requests, days=settings.days, policy=Production(), progress=progress)
    run = partial(world.run, settings.requests, days=settings.days, after=before, progress=progress)
    past, tested = metrics_of(before), metrics_of(run(policy=split))
    everybody = {name: metrics_of(run(policy=Ranked(ranker, name))) for name, ranker in rankers.items()}
    metrics = [name for name in tested.columns if name != "sessions"]
    table = tested[metrics].join(past[metrics].add_prefix("pre_"))
    table = table.assign(viewer_id=world.viewer_ids, arm=split.arm_of(world.viewer_ids), activity=world.activity)
    made = compare_arms(table, metrics, control="A", primary=metrics[:1], covariates=["activity"])
    return made, (everybody["B"] - everybody["A"]).mean()[metrics]


def job(settings: PolicyComparisonSettings, progress: Progress) -> Results:
    """Fit or load, compare, and draw."""
    world = World(settings.viewers, seed=settings.seed)
    made, truth = compare(world, fit_or_load(world, settings, progress), settings, progress)
    found = made.to_pandas().set_index("metric").rename_axis("per viewer")
    table = found[["raw_control_value", "raw_value", "difference", "low", "high"]]
    table = table.rename(columns={"raw_control_value": "A", "raw_value": "B"}).assign(**{"true difference": truth})
    covered = ((table["low"] <= truth) & (truth <= table["high"])).sum()
    remarks = (*made.warnings, *made.notes, f"{covered} of {len(table)} intervals hold the true difference")
    relative = {(metric, "B"): truth[metric] / found.loc[metric, "control_value"] for metric in table.index}
    figure = forest_plot(made, truth=relative, title="B against A: the test and the truth")
    return Results({"A/B test": table}, {"policy_comparison": figure}, remarks)


if __name__ == "__main__":
    run_script("policy_comparison", PolicyComparisonSettings, job)
