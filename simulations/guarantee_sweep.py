"""What an impression guarantee costs: value and downstream interactions as its share grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pandas as pd
from pydantic import Field

from simulations.importance_sweep import top_shares
from simulations.policies import ExpectedGain
from simulations.script import Results, Settings, require_edge_type, run_script
from simulations.world import World
from spr.reorder import ImpressionGuarantee

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spr.progress import Progress


class GuaranteeSweepSettings(Settings):
    """What ``configs/simulations/guarantee_sweep.toml`` may say."""

    viewers: int = Field(2_000, ge=100)
    requests: int = Field(12_000, ge=100)
    edge_type: str = "connection"
    reference: str = "follow"
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), min_length=1)
    within_top: int = Field(4, ge=1)
    slacks: tuple[Annotated[float, Field(ge=1)], ...] = Field((1.0, 3.0), min_length=1)


def sweep(settings: GuaranteeSweepSettings, progress: Progress) -> pd.DataFrame:
    """Run the world once for each share and slack; the runs are paired.

    Returns
    -------
    DataFrame
        By slack and share: the share delivered above ``within_top``, downstream interactions and gain that the pages
        are expected to make, and what of them is lost to the guarantee, in %.
    """
    world = World(settings.viewers, seed=settings.seed)
    require_edge_type(settings.edge_type, world)
    factors = world.truth.importance_factors(reference=settings.reference)
    free = world.run(settings.requests, policy=ExpectedGain(factors))
    rows: dict[tuple[float, float], dict[str, float]] = {}
    total = len(settings.shares) * len(settings.slacks)
    for slack in settings.slacks:
        for share in settings.shares:
            progress("runs", len(rows), total)
            guarantee = (
                ImpressionGuarantee(
                    "floor", "edge_type", settings.edge_type, share=share, within_top=settings.within_top, slack=slack
                )
                if share > 0
                else None
            )
            policy = ExpectedGain(factors, (guarantee,) if guarantee else ())
            run = world.run(settings.requests, policy=policy) if guarantee else free
            rows[slack, share] = {
                "delivered": top_shares(run, settings.within_top)[settings.edge_type],
                "downstream": run.totals["expected_downstream"],
                "gain": run.totals["expected_gain"],
                "downstream lost %": 100 * (1 - run.totals["expected_downstream"] / free.totals["expected_downstream"]),
                "gain lost %": 100 * (1 - run.totals["expected_gain"] / free.totals["expected_gain"]),
            }
    progress("runs", total, total)
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["slack", "share"])
    return table


def supply(settings: GuaranteeSweepSettings) -> float:
    """Return the share that a guarantee of everything delivers: there are no more cohorts of the type."""
    world = World(settings.viewers, seed=settings.seed)
    all_of_it = ImpressionGuarantee("all", "edge_type", settings.edge_type, share=1.0, within_top=settings.within_top)
    run = world.run(settings.requests, policy=ExpectedGain(guarantees=(all_of_it,)))
    return top_shares(run, settings.within_top)[settings.edge_type]


def plot_sweep(table: pd.DataFrame, most: float, settings: GuaranteeSweepSettings) -> Figure:
    """Draw what is delivered, and what it costs; ``most`` is the supply."""
    from calibration.plots.axes import COLOURS, GREY, MARKERS, panel_grid

    figure, grid = panel_grid(
        2, f"A guarantee of {settings.edge_type} in the top {settings.within_top}, per viewer", width=5.6
    )
    kept, cost = (figure.add_subplot(grid[0, place]) for place in range(2))
    for place, slack in enumerate(settings.slacks):
        of_slack = table.loc[slack]
        delivered = 100 * of_slack["delivered"]
        for panel, x, y in ((kept, 100 * of_slack.index, delivered), (cost, delivered, of_slack["gain lost %"])):
            panel.plot(x, y, color=COLOURS[place], marker=MARKERS[place], label=f"slack {slack:g}")
    top = 100 * max(*settings.shares, most)
    kept.plot([0, top], [0, top], color=GREY, linestyle=":", linewidth=1)
    kept.axhline(100 * most, color=GREY, linewidth=1)
    kept.annotate("all there is", (0, 100 * most), xytext=(2, 3), textcoords="offset points", fontsize=8, color=GREY)
    kept.set_xlabel("% guaranteed")
    kept.set_ylabel("% delivered, all viewers")
    kept.set_ylim(0, None)
    kept.legend(frameon=False, loc="lower right")
    cost.set_xlabel("% delivered")
    cost.set_ylabel("% of the gain in engagement lost")
    cost.legend(frameon=False)
    return figure


def job(settings: GuaranteeSweepSettings, progress: Progress) -> Results:
    """Sweep, and draw."""
    table = sweep(settings, progress)
    most = supply(settings)
    remark = (
        f"supply: {settings.edge_type} can have {100 * most:.1f} % of the placements in the top {settings.within_top}"
    )
    return Results({"guarantee sweep": table}, {"guarantee_sweep": plot_sweep(table, most, settings)}, (remark,))


if __name__ == "__main__":
    run_script("guarantee_sweep", GuaranteeSweepSettings, job)
