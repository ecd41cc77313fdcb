"""A new entity type arrives without a history: how long until its ranker can be trained, and what a guarantee does."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

import spr
from simulations.behaviour import ENTITY_TYPES
from simulations.policies import PartlyShuffled, Production, Ranked
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.errors import ConfigError, name_unknown
from spr.page_settings import Guarantee

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simulations.run import Run
    from spr.progress import Progress


class NewEntityTypeSettings(Settings):
    """What ``configs/simulations/new_entity_type.toml`` may say."""

    viewers: int = Field(600, ge=100)
    training_requests: int = Field(12_000, ge=1000)
    requests_a_day: int = Field(200, ge=50)
    days: int = Field(21, ge=1)
    newcomer: str = "group"
    within_top: int = Field(1, ge=1)
    responses_needed: int = Field(400, ge=1)


def fit_without(world: World, settings: NewEntityTypeSettings, progress: Progress) -> tuple[spr.SecondPassRanker, Run]:
    """Fit a ranker on a log in which the newcomer is not there; its versions take the prior of the other types."""
    chunks: list[pd.DataFrame] = []
    before = world.run(
        settings.training_requests,
        policy=PartlyShuffled(Production(), 0.5),
        without=[settings.newcomer],
        log=chunks.append,
    )
    config = spr.Config.named("network")
    calibration = config.calibration.model_copy(update={"unknown_version": "prior"})
    config = config.model_copy(update={"calibration": calibration, "guarantees": ()})
    fitted = spr.fit(pd.concat(chunks), world.viewers, world.entities, config=config, progress=progress)
    return fitted, before


def follow(
    world: World,
    ranker: spr.SecondPassRanker,
    before: Run,
    settings: NewEntityTypeSettings,
    progress: Progress,
    stage: str,
) -> pd.DataFrame:
    """Serve day after day, and count what the newcomer's ranker could learn from.

    Returns
    -------
    DataFrame
        By day: the newcomer's ``share`` of the placements in the top, its ``responses`` so far, ``random`` responses of
        them on shuffled pages, and downstream interactions of all types so far.
    """
    policy, run = Ranked(ranker), before
    rows, seen, code = [], np.zeros(3), ENTITY_TYPES.index(settings.newcomer)
    for day in range(settings.days):
        progress(stage, day, settings.days)
        chunks: list[pd.DataFrame] = []
        run = world.run(settings.requests_a_day, policy=policy, days=1, after=run, log=chunks.append)
        of_newcomer = chunks[0][chunks[0]["entity_type"] == settings.newcomer]
        random = of_newcomer["policy"] == "random"
        seen += [of_newcomer["response"].sum(), of_newcomer.loc[random, "response"].sum(), run.totals["downstream"]]
        top = run.placements[:, : settings.within_top]
        rows.append([top[code].sum() / top.sum(), *seen])
    progress(stage, settings.days, settings.days)
    columns = ["share", "responses", "random", "downstream"]
    return pd.DataFrame(rows, columns=columns, index=pd.RangeIndex(1, settings.days + 1, name="day"))


def plot_arrival(followed: dict[str, pd.DataFrame], settings: NewEntityTypeSettings) -> Figure:
    """Draw what the newcomer's ranker could learn from, and where the newcomer stands."""
    from matplotlib.ticker import MaxNLocator

    from calibration.plots.axes import COLOURS, GREY, MARKERS, panel_grid

    figure, grid = panel_grid(2, f"{settings.newcomer} arrives", width=5.6)
    learnt, share = (figure.add_subplot(grid[0, place]) for place in range(2))
    for place, (name, days) in enumerate(followed.items()):
        for panel, values in ((learnt, days["responses"]), (share, 100 * days["share"])):
            panel.plot(days.index, values, color=COLOURS[place], marker=MARKERS[place], markersize=4, label=name)
    learnt.axhline(settings.responses_needed, color=GREY, linestyle=":", linewidth=1)
    learnt.annotate(
        "enough to train its ranker",
        (1, settings.responses_needed),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=8,
        color=GREY,
    )
    learnt.set_ylabel("responses so far")
    share.set_ylabel(f"% of the placements in the top {settings.within_top}")
    for panel in (learnt, share):
        panel.set_xlabel("day")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(0, None)
    share.legend(frameon=False)
    return figure


def job(settings: NewEntityTypeSettings, progress: Progress) -> Results:
    """Fit without the newcomer, let it arrive twice, and draw."""
    if settings.newcomer not in ENTITY_TYPES:
        raise ConfigError(name_unknown("entity type", settings.newcomer, ENTITY_TYPES, "newcomer"))
    world = World(settings.viewers, seed=settings.seed)
    ranker, before = fit_without(world, settings, progress)
    floor = Guarantee(name="newcomer", entity_type=settings.newcomer, minimum=1, within_top=settings.within_top)
    guaranteed = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"guarantees": (floor,)}))
    followed = {
        name: follow(world, own, before, settings, progress, name)
        for name, own in (("without a guarantee", ranker), (f"one in the top {settings.within_top}", guaranteed))
    }
    rows = {}
    for name, days in followed.items():
        enough = days.index[days["responses"] >= settings.responses_needed]
        rows[name] = {
            "days until trainable": str(enough[0]) if len(enough) else f"more than {settings.days}",
            "responses": days["responses"].iloc[-1],
            "of them on random pages": days["random"].iloc[-1],
            "downstream of all types": days["downstream"].iloc[-1],
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
    return Results({f"{settings.newcomer} arrives": table}, {"new_entity_type": plot_arrival(followed, settings)})


if __name__ == "__main__":
    run_script("new_entity_type", NewEntityTypeSettings, job)
