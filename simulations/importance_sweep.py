"""What moves when one importance factor moves: the page mix, downstream interactions, and value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field, PositiveFloat

from simulations.policies import ExpectedGain, OptimalPage
from simulations.script import Results, Settings, require_edge_type, run_script
from simulations.world import World
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simulations.run import Run
    from spr.progress import Progress


class ImportanceSweepSettings(Settings):
    """What ``configs/simulations/importance_sweep.toml`` may say."""

    viewers: int = Field(5_000, ge=100)
    requests: int = Field(40_000, ge=100)
    edge_type: str = "connection"
    reference: str = "follow"
    multiples: tuple[PositiveFloat, ...] = Field((0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 10.0), min_length=1)
    top: int = Field(3, ge=1)


def sweep(settings: ImportanceSweepSettings, progress: Progress) -> pd.DataFrame:
    """Run the world once for each multiple of the true factor; the runs are paired.

    Returns
    -------
    DataFrame
        By multiple: the factor, downstream interactions and gain in engagement that the pages are expected to make, the
        latter as a share of the optimal page's, and ``top_<edge type>``, its share of the placements at the top.
    """
    world = World(settings.viewers, seed=settings.seed)
    true = world.truth.importance_factors(reference=settings.reference).factor
    require_edge_type(settings.edge_type, world)
    best = world.run(settings.requests, policy=OptimalPage()).totals["expected_gain"]
    rows = {}
    for done, multiple in enumerate(settings.multiples):
        progress("runs", done, len(settings.multiples))
        factors = {t: factor * (multiple if t == settings.edge_type else 1.0) for t, factor in true.items()}
        run = world.run(settings.requests, policy=ExpectedGain(ImportanceFactors.of(factors)))
        rows[multiple] = {
            "factor": factors[settings.edge_type],
            "downstream": run.totals["expected_downstream"],
            "gain": run.totals["expected_gain"],
            "of optimal": run.totals["expected_gain"] / best,
            **{f"top_{t}": share for t, share in top_shares(run, settings.top).items()},
        }
    progress("runs", len(settings.multiples), len(settings.multiples))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("multiple of the truth")


def top_shares(run: Run, top: int) -> dict[str, float]:
    """Return the share of each edge type among the placements at the first positions of a run."""
    behaviour = run.world.behaviour
    counts = np.bincount(behaviour.edge_code, run.placements[:, :top].sum(axis=1), len(behaviour.edge_types))
    return dict(zip(behaviour.edge_types, (counts / counts.sum()).tolist(), strict=True))


def plot_sweep(table: pd.DataFrame, settings: ImportanceSweepSettings) -> Figure:
    """Draw the mix at the top, and what it makes of downstream interactions and gain."""
    from calibration.plots.axes import COLOURS, GREY, INK, MARKERS, panel_grid

    figure, grid = panel_grid(
        2, f"The importance factor of {settings.edge_type}, as a multiple of its truth", width=5.6
    )
    mix, trade = (figure.add_subplot(grid[0, place]) for place in range(2))
    shares = [column for column in table.columns if column.startswith("top_")]
    for place, column in enumerate(shares):
        mix.plot(
            table.index,
            100 * table[column],
            color=COLOURS[place],
            marker=MARKERS[place],
            label=column.removeprefix("top_"),
        )
    mix.set_xscale("log")
    mix.set_xticks(table.index, [f"{multiple:g}" for multiple in table.index], fontsize=8)
    mix.minorticks_off()
    mix.set_xlabel("factor / true factor")
    mix.set_ylabel(f"% of the placements in the top {settings.top}")
    mix.set_ylim(0, None)
    mix.legend(frameon=False)
    trade.plot(table["downstream"], 100 * table["of optimal"], color=INK, marker="o")
    for multiple, row in table.iterrows():
        trade.annotate(
            f"{multiple:g}",
            (row["downstream"], 100 * row["of optimal"]),
            xytext=(6, -3),
            textcoords="offset points",
            fontsize=8,
        )
    if 1.0 in table.index:
        trade.axhline(100 * float(table["of optimal"][1.0]), color=GREY, linestyle=":", linewidth=1)
    trade.set_xlabel("downstream interactions that the pages make")
    trade.set_ylabel("gain in engagement, % of the optimal page's")
    trade.margins(0.12)
    return figure


def job(settings: ImportanceSweepSettings, progress: Progress) -> Results:
    """Sweep, and draw."""
    table = sweep(settings, progress)
    best = table["gain"].idxmax()
    lost = 100 * (1 - table["gain"].min() / table["gain"].max())
    remark = f"most gain at {best:g} x the true factor; the worst of the sweep gives up {lost:.1f} % of it"
    return Results({"importance sweep": table}, {"importance_sweep": plot_sweep(table, settings)}, (remark,))


if __name__ == "__main__":
    run_script("importance_sweep", ImportanceSweepSettings, job)
