"""A season in which one ranker's scores move and another's responses fall: who must be refitted, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field, model_validator

from calibration import CalibratorSet, drift_table, needs_recalibration
from simulations.behaviour import ENTITY_TYPES
from simulations.policies import PartlyShuffled, Production
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.errors import name_unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spr.progress import Progress


def _known(name: str) -> str:
    if name not in ENTITY_TYPES:
        raise ValueError(name_unknown("entity type", name, ENTITY_TYPES))
    return name


EntityTypeName = Annotated[str, AfterValidator(_known)]


class CalibrationDriftSettings(Settings):
    """What ``configs/simulations/calibration_drift.toml`` may say."""

    viewers: int = Field(3_000, ge=100)
    requests_a_week: int = Field(16_000, ge=100)
    weeks: int = Field(5, ge=2)
    from_week: int = Field(2, ge=1)
    responses_fall: dict[EntityTypeName, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=lambda: {"event": 0.3}
    )
    candidates_improve: dict[EntityTypeName, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=lambda: {"people": 0.8}
    )
    random_share: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _drift_begins_in_time(self) -> CalibrationDriftSettings:
        if self.from_week > self.weeks:
            raise ValueError(f"from_week is {self.from_week}, but there are {self.weeks} weeks")
        return self


@dataclass(frozen=True)
class Week:
    """What a week's log said of each ranker, and how far predictions were off with and without refits."""

    status: pd.Series
    error_kept: pd.Series
    error_refitted: pd.Series
    refitted: tuple[str, ...]


def make_log(world: World, settings: CalibrationDriftSettings) -> list[pd.DataFrame]:
    """Return one log per week, the first to fit on; from ``from_week`` on scores and responses drift.

    A share of the responses of a falling type is lost, whatever the score: its curve is wrong. Of an improving type, so
    large a share of the entities in the lower half of the scores is not shown any more: its scores move, and its curve
    stays right.
    """
    logs: list[pd.DataFrame] = []
    run, rng = None, np.random.default_rng([settings.seed, 9])
    policy = PartlyShuffled(Production(), settings.random_share)
    for week in range(settings.weeks + 1):
        chunks: list[pd.DataFrame] = []
        run = world.run(settings.requests_a_week, policy=policy, days=7, after=run, log=chunks.append)
        log = pd.concat(chunks, ignore_index=True)
        if week >= settings.from_week:
            for name, share in settings.responses_fall.items():
                lost = (log["entity_type"] == name) & (rng.random(len(log)) < share)
                log.loc[lost, ["response", "downstream"]] = 0.0
            for name, share in settings.candidates_improve.items():
                poor = (log["entity_type"] == name) & (
                    log["raw_score"] < log.loc[log["entity_type"] == name, "raw_score"].median()
                )
                log = log[~(poor & (rng.random(len(log)) < share))]
        logs.append(log.reset_index(drop=True))
    return logs


def follow(logs: list[pd.DataFrame], progress: Progress) -> tuple[list[Week], pd.DataFrame]:
    """Ask every week who has to be refitted, refit them on that week, and keep score beside never refitting."""
    kept = refitted = CalibratorSet.fit(logs[0])
    since: list[pd.DataFrame] = []
    weeks, total = [], len(logs) - 1
    for number, log in enumerate(logs[1:]):
        progress("weeks", number, total)
        errors = [_error(log, calibrators) for calibrators in (kept, refitted)]
        since.append(log)
        report = needs_recalibration(pd.concat(since, ignore_index=True), refitted)
        needed = [key for key, verdict in report.verdicts.items() if verdict.needed]
        for entity_type, version in needed:
            refitted = refitted.refitted(log, entity_type=entity_type, ranker_version=version)
        if needed:
            since = []
        status = pd.Series({key[0]: verdict.status for key, verdict in report.verdicts.items()})
        weeks.append(Week(status, errors[0], errors[1], tuple(key[0] for key in needed)))
    progress("weeks", total, total)
    return weeks, drift_table(pd.concat(logs[1:], ignore_index=True), kept, every="week")


def _error(log: pd.DataFrame, calibrators: CalibratorSet) -> pd.Series:
    """Return observed over expected responses - 1 by entity type, at the logged positions of the random policy."""
    rows = log[(log["policy"] == "random") & log["raw_score"].notna()].copy()
    rows["expected"] = calibrators.predict_table(rows, at_logged_place=True)
    sums = rows.groupby("entity_type")[["response", "expected"]].sum()
    return sums["response"] / sums["expected"] - 1


def plot_weeks(drift: pd.DataFrame) -> Figure:
    """Draw responses and scores of each ranker against the first fit."""
    from calibration.plots import drift_plot

    return drift_plot(drift, "Drift since the first fit, week by week")


def job(settings: CalibrationDriftSettings, progress: Progress) -> Results:
    """Make the season, follow it, and draw."""
    world = World(settings.viewers, seed=settings.seed)
    progress("log", 0, 1)
    logs = make_log(world, settings)
    progress("log", 1, 1)
    weeks, drift = follow(logs, progress)
    numbers = range(1, len(weeks) + 1)
    status = pd.DataFrame({f"week {n}": week.status for n, week in zip(numbers, weeks, strict=True)})
    errors = pd.DataFrame(
        {
            "never refitted: mean |error| %": [100 * week.error_kept.abs().mean() for week in weeks],
            "refitted when asked: mean |error| %": [100 * week.error_refitted.abs().mean() for week in weeks],
            "refitted after the week": [", ".join(week.refitted) or "-" for week in weeks],
        },
        index=pd.Index([f"week {n}" for n in numbers], name="week"),
    )
    tables = {"what the log said": status.rename_axis("entity_type"), "observed over expected responses": errors}
    return Results(tables, {"calibration_drift": plot_weeks(drift)})


if __name__ == "__main__":
    run_script("calibration_drift", CalibrationDriftSettings, job)
