"""A new entity type arrives without a history: how long until its ranker can be trained, and what that brings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

import spr
from simulations.behaviour import ENTITY_TYPES
from simulations.newcomer import compare, train, uninformed_ranker
from simulations.policies import PartlyShuffled, Production, Ranked
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.errors import ConfigError, name_unknown
from spr.page_settings import Guarantee

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from first_pass import FirstPassRanker
    from simulations.run import Run
    from spr.progress import Progress

_COLUMNS = ["placements", "top", "responses", "random", "downstream", "of_all"]


class NewEntityTypeSettings(Settings):
    """What ``configs/simulations/new_entity_type.toml`` may say."""

    viewers: int = Field(600, ge=100)
    training_requests: int = Field(12_000, ge=1000)
    requests_a_day: int = Field(400, ge=50)
    days: int = Field(21, ge=2)
    random_share: float = Field(0.2, gt=0, le=1)
    newcomer: str = "newsletter"
    within_top: int = Field(1, ge=1)
    responses_needed: int = Field(200, ge=20)


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
    exploration = config.exploration.model_copy(update={"random_share": settings.random_share})
    changed = {"calibration": calibration, "exploration": exploration, "guarantees": ()}
    config = config.model_copy(update=changed)
    fitted = spr.fit(pd.concat(chunks), world.viewers, world.entities, config=config, progress=progress)
    return fitted, before


@dataclass(frozen=True)
class Followed:
    """Days of a newcomer.

    Parameters
    ----------
    counts : DataFrame
        By day, of the newcomer: ``placements`` within the top, of ``top`` placements there; ``responses``; ``random``
        ones of them, on shuffled pages; ``downstream`` interactions, and those of all types (``of_all``).
    log : tuple of DataFrame
        The impressions of each day.
    runs : tuple of Run
        Of each day.
    """

    counts: pd.DataFrame
    log: tuple[pd.DataFrame, ...]
    runs: tuple[Run, ...]

    def day_when(self, n_responses: int) -> int | None:
        """Return the first day by whose end there were so many responses on shuffled pages; None = never."""
        enough = self.counts.index[self.counts["random"].cumsum() >= n_responses]
        return int(enough[0]) if len(enough) else None


def follow(
    world: World,
    ranker: spr.SecondPassRanker,
    first_pass: FirstPassRanker,
    after: Run,
    settings: NewEntityTypeSettings,
    progress: Progress,
    stage: str,
    first_day: int = 1,
) -> Followed:
    """Serve day after day until the last, with a first-pass ranker for the newcomer, and count."""
    policy, run, days = Ranked(ranker), after, range(first_day, settings.days + 1)
    log: list[pd.DataFrame] = []
    runs, rows, code = [], [], ENTITY_TYPES.index(settings.newcomer)
    for done, _ in enumerate(days):
        progress(stage, done, len(days))
        run = world.run(settings.requests_a_day, policy=policy, days=1, rankers=[first_pass], after=run, log=log.append)
        runs.append(run)
        mine = log[-1][log[-1]["entity_type"] == settings.newcomer]
        random = mine["policy"] == "random"
        top = run.placements[:, : settings.within_top]
        counts = (mine["response"].sum(), mine.loc[random, "response"].sum(), mine["downstream"].sum())
        rows.append([top[code].sum(), top.sum(), *counts, log[-1]["downstream"].sum()])
    progress(stage, len(days), len(days))
    return Followed(pd.DataFrame(rows, columns=_COLUMNS, index=pd.Index(days, name="day")), tuple(log), tuple(runs))


def trained_arm(
    world: World,
    ranker: spr.SecondPassRanker,
    start: Followed,
    day: int,
    settings: NewEntityTypeSettings,
    progress: Progress,
    stage: str,
) -> tuple[Followed, pd.DataFrame]:
    """Train the newcomer's ranker at the end of a day, put it into service, and follow the days that are left.

    Returns
    -------
    (Followed, DataFrame)
        The days after, and what :func:`simulations.newcomer.compare` says of the ranker on them.
    """
    calibrators = ranker.calibrators
    own, curves = train(world, pd.concat(start.log[:day]), settings.newcomer, calibrators)
    later = follow(
        world, ranker.with_calibrators(curves), own, start.runs[day - 1], settings, progress, stage, first_day=day + 1
    )
    prior = calibrators.prior(settings.newcomer)
    return later, compare(world, pd.concat(later.log), settings.newcomer, own, curves, prior)


def arrive(
    world: World, ranker: spr.SecondPassRanker, before: Run, settings: NewEntityTypeSettings, progress: Progress
) -> tuple[dict[str, Followed], pd.DataFrame, pd.DataFrame, pd.DataFrame | None]:
    """Let the newcomer arrive with and without a guarantee, and train its ranker as soon as there is enough to learn.

    Returns
    -------
    followed : dict of str to Followed
        By policy; those with a ranker of its own from the first day of it.
    arrival, service : DataFrame
        Until there was enough; and the days after it, with and without a ranker of its own.
    scores : DataFrame or None
        How good its raw scores are, without the guarantee; None where there was never enough.
    """
    floor = Guarantee(name="newcomer", entity_type=settings.newcomer, minimum=1, within_top=settings.within_top)
    guaranteed = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"guarantees": (floor,)}))
    arms = {"without a guarantee": ranker, f"one in the top {settings.within_top}": guaranteed}
    followed: dict[str, Followed] = {}
    arrival: dict[str, dict[str, object]] = {}
    service: dict[str, dict[str, object]] = {}
    scores = None
    for name, own in arms.items():
        start = follow(world, own, uninformed_ranker(settings.newcomer), before, settings, progress, name)
        day = start.day_when(settings.responses_needed)
        followed[name] = start
        arrival[name] = {
            "days until trainable": f"more than {settings.days}" if day is None else str(day),
            "random responses": int(start.counts["random"].sum()),
            "responses": int(start.counts["responses"].sum()),
            "downstream of all types": int(start.counts["of_all"].sum()),
        }
        if day is None or day == settings.days:
            continue
        trained = f"{name}, trained"
        later, compared = trained_arm(world, own, start, day, settings, progress, trained)
        scores = compared if scores is None else scores
        followed[trained] = later
        for label, counts in ((f"{name}, uninformed", start.counts.loc[day + 1 :]), (trained, later.counts)):
            total = counts.sum()
            service[label] = {
                f"% of the top {settings.within_top}": 100 * total["placements"] / total["top"],
                "responses": int(total["responses"]),
                "downstream": int(total["downstream"]),
                "downstream of all types": int(total["of_all"]),
            }
    return followed, _by_policy(arrival), _by_policy(service), scores


def _by_policy(rows: dict[str, dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def plot_arrival(followed: dict[str, Followed], settings: NewEntityTypeSettings) -> Figure:
    """Draw what the newcomer's ranker could learn from, and where the newcomer stands."""
    from matplotlib.ticker import MaxNLocator

    from calibration.plots.axes import COLOURS, GREY, MARKERS, panel_grid

    figure, grid = panel_grid(2, f"{settings.newcomer} arrives", width=5.6)
    learnt, share = (figure.add_subplot(grid[0, place]) for place in range(2))
    random = next(iter(followed.values())).counts["random"].cumsum()  # the same for all: no guarantee is kept there
    learnt.plot(random.index, random, color=GREY, marker="o", markersize=4)
    for place, (name, arm) in enumerate(followed.items()):
        days, at_top = arm.counts.index, 100 * arm.counts["placements"] / arm.counts["top"]
        share.plot(days, at_top, color=COLOURS[place], marker=MARKERS[place], markersize=4, label=name)
    learnt.axhline(settings.responses_needed, color=GREY, linestyle=":", linewidth=1)
    learnt.annotate(
        "enough to train its ranker",
        (settings.days, settings.responses_needed),
        xytext=(0, -12),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=GREY,
    )
    learnt.set_ylabel("responses on random pages so far")
    share.set_ylabel(f"% of the placements in the top {settings.within_top}")
    for panel in (learnt, share):
        panel.set_xlabel("day")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(0, None)
    share.legend(frameon=False)
    return figure


def job(settings: NewEntityTypeSettings, progress: Progress) -> Results:
    """Fit without the newcomer, let it arrive, train its ranker, and draw."""
    if settings.newcomer not in ENTITY_TYPES:
        raise ConfigError(name_unknown("entity type", settings.newcomer, ENTITY_TYPES, "newcomer"))
    world = World(settings.viewers, seed=settings.seed)
    ranker, before = fit_without(world, settings, progress)
    followed, arrival, service, scores = arrive(world, ranker, before, settings, progress)
    tables = {f"{settings.newcomer} arrives": arrival}
    remarks = ["Only shuffled pages teach without bias, and a guarantee is off there: it brings responses, not those."]
    if scores is None:
        remarks.append("There were never enough: its ranker was not trained.")
    else:
        tables |= {"after it was trained": service, "raw scores on later random pages": scores}
    return Results(tables, {"new_entity_type": plot_arrival(followed, settings)}, tuple(remarks))


if __name__ == "__main__":
    run_script("new_entity_type", NewEntityTypeSettings, job)
