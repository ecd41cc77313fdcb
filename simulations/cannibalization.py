"""What promoting one edge type does to the others: the response of type a as type b is promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from simulations.behaviour import ENTITY_TYPES, Behaviour
from simulations.policies import ExpectedGain
from simulations.script import Results, Settings, run_script
from simulations.world import World
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spr.progress import Progress


class CannibalizationSettings(Settings):
    """What ``configs/simulations/cannibalization.toml`` may say."""

    viewers: int = Field(5_000, ge=100)
    requests: int = Field(40_000, ge=100)
    promotion: float = Field(3.0, gt=1)
    strengths: dict[str, dict[str, float]] = Field(
        default_factory=lambda: {
            "company": {"hashtag": 0.4},
            "member_follow": {"people": 0.5},
            "event": {"group": -0.3},
        }
    )


def response_change(world: World, settings: CannibalizationSettings, progress: Progress, stage: str) -> pd.DataFrame:
    """Promote each entity type in turn, and compare the responses of all with those before.

    Returns
    -------
    DataFrame
        Rows: the type promoted; columns: the change of a type's responses, as a share. The runs are paired: what stands
        where it stood is answered as it was.
    """
    before = _responses(world, settings, None)
    rows = {}
    for done, promoted in enumerate(ENTITY_TYPES):
        progress(stage, done, len(ENTITY_TYPES))
        rows[promoted] = _responses(world, settings, promoted) / before - 1
    progress(stage, len(ENTITY_TYPES), len(ENTITY_TYPES))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("promoted")


def _responses(world: World, settings: CannibalizationSettings, promoted: str | None) -> pd.Series:
    factors = {} if promoted is None else {world.behaviour.edge_type_of[promoted]: settings.promotion}
    run = world.run(settings.requests, policy=ExpectedGain(ImportanceFactors.of(factors)))
    codes = np.concatenate([part.entity_type for part in run.formed])
    return pd.Series(np.bincount(codes, minlength=len(ENTITY_TYPES)), index=ENTITY_TYPES, dtype=float)


def plot_changes(matrices: dict[str, pd.DataFrame], settings: CannibalizationSettings) -> Figure:
    """Draw each matrix: red is less, blue is more, with the figures in it."""
    from matplotlib.figure import Figure

    from spr.evaluation.heat_map import draw_heat_map

    title = f"Responses as one entity type is promoted (factor x {settings.promotion:g}), % of before"
    figure = Figure(figsize=(6.4 * len(matrices), 6.2), layout="constrained")
    figure.suptitle(title)
    others = [matrix.to_numpy()[~np.eye(len(matrix), dtype=bool)] for matrix in matrices.values()]
    limit = 100 * max(float(np.abs(np.concatenate(others)).max()), 0.01)
    for place, (name, matrix) in enumerate(matrices.items()):
        panel = figure.add_subplot(1, len(matrices), place + 1)
        change = 100 * matrix
        draw_heat_map(panel, change, change.map("{:+.0f}".format), limit=limit)
        panel.set_xlabel("responses of")
        panel.set_ylabel("promoted")
        panel.set_title(name, fontsize=10)
    return figure


def job(settings: CannibalizationSettings, progress: Progress) -> Results:
    """Promote in a world where types only compete for places, and in one where they take responses from each other."""
    own = {name: name for name in ENTITY_TYPES}
    per_edge = dict.fromkeys(ENTITY_TYPES, 0.06)
    matrices = {}
    for name, strengths in (
        ("competition for places only", {}),
        ("with cannibalization and synergy", settings.strengths),
    ):
        behaviour = Behaviour(edge_type_of=own, engagement_per_edge=per_edge, cannibalization=strengths)
        world = World(settings.viewers, seed=settings.seed, behaviour=behaviour)
        matrices[name] = response_change(world, settings, progress, name)
    plain, full = matrices.values()
    remarks = []
    for below, of in settings.strengths.items():
        for above, strength in of.items():
            at = ENTITY_TYPES.index(above), ENTITY_TYPES.index(below)
            places, all_in_all = (100 * matrix.to_numpy()[at] for matrix in (plain, full))
            remarks.append(
                f"{below} under {above} (times exp(-{strength:g}) a cohort above): {places:+.1f} % by places alone, "
                f"{all_in_all:+.1f} % in all"
            )
    tables = {name: (100 * matrix).round(1) for name, matrix in matrices.items()}
    return Results(tables, {"cannibalization": plot_changes(matrices, settings)}, tuple(remarks))


if __name__ == "__main__":
    run_script("cannibalization", CannibalizationSettings, job)
