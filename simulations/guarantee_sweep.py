"""What an impression guarantee costs as its share grows: promised to each viewer, or to the population."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from simulations.importance_sweep import top_shares
from simulations.policies import ExpectedGain
from simulations.script import Results, Settings, require_edge_type, run_script
from simulations.world import World
from spr.reorder import ImpressionGuarantee, learn_prices

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from simulations.page_views import PageViews
    from simulations.policies import Placed
    from simulations.run import Run
    from spr.progress import Progress
    from spr.reorder import LearntPrices

NAME, POPULATION = "floor", "per population"
_REGULAR = 10  # pages: with fewer, one impression is much of a share


class GuaranteeSweepSettings(Settings):
    """What ``configs/simulations/guarantee_sweep.toml`` may say."""

    viewers: int = Field(600, ge=100)
    requests: int = Field(18_000, ge=100)
    edge_type: str = "follow"
    reference: str = "follow"
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), min_length=1)
    within_top: int = Field(4, ge=1)
    slacks: tuple[Annotated[float, Field(ge=1)], ...] = Field((1.0, 2.0), min_length=1)

    def floor(self, share: float, **terms: Any) -> tuple[ImpressionGuarantee, ...]:
        """Return the guarantee of a share; none for a share of 0."""
        if share == 0:
            return ()
        return (
            ImpressionGuarantee(NAME, "edge_type", self.edge_type, share=share, within_top=self.within_top, **terms),
        )


@dataclass(frozen=True)
class _Remembering:
    """A policy whose pages prices are learnt from."""

    policy: ExpectedGain
    pages: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.object_]]] = field(
        default_factory=list
    )

    def place(self, views: PageViews) -> Placed:
        value, edge_type = self.policy.value(views)
        before = int(self.pages[-1][1][-1]) + 1 if self.pages else 0
        self.pages.append((value, before + views.request, edge_type))
        return self.policy.place(views)

    def learn(self, floor: tuple[ImpressionGuarantee, ...]) -> LearntPrices:
        value, page, edge_type = (np.concatenate(column) for column in zip(*self.pages, strict=True))
        return learn_prices(value, page, {"edge_type": edge_type}, floor)


def sweep(settings: GuaranteeSweepSettings, progress: Progress) -> pd.DataFrame:
    """Run the world once for each form of the guarantee and each share; the runs are paired.

    Returns
    -------
    DataFrame
        By form (a promise to each viewer with each slack, or one of the population) and share: the price, learnt from
        the run by value alone; the share ``delivered`` above ``within_top``; what a viewer who was there for at least
        ten pages misses of the share, in % of the viewer's impressions, on average and at worst; downstream
        interactions and gain that the pages are expected to make, and what of them is lost to the guarantee, in %.
    """
    world = World(settings.viewers, seed=settings.seed)
    require_edge_type(settings.edge_type, world)
    factors = world.truth.importance_factors(reference=settings.reference)
    # A share of the population at no price changes no page, and has the impressions counted.
    by_value = _Remembering(ExpectedGain(factors, settings.floor(1.0, scope="population", price=0.0)))
    free = world.run(settings.requests, policy=by_value)
    forms: dict[str, dict[str, Any]] = {f"per viewer, slack {slack:g}": {"slack": slack} for slack in settings.slacks}
    forms[POPULATION] = {"scope": "population"}
    rows: dict[tuple[str, float], dict[str, float]] = {}
    for done, share in enumerate(settings.shares):
        progress("shares", done, len(settings.shares))
        learnt = by_value.learn(settings.floor(share))
        for form, terms in forms.items():
            floor = learnt.on(settings.floor(share, **terms))
            run = world.run(settings.requests, policy=ExpectedGain(factors, floor)) if floor else free
            rows[form, share] = {"price": learnt.price.get(NAME, 0.0), **_measure(run, free, share, settings)}
    progress("shares", len(settings.shares), len(settings.shares))
    table = pd.DataFrame.from_dict({key: rows[key] for key in sorted(rows, key=lambda key: list(forms).index(key[0]))})
    return table.T.rename_axis(["form", "share"])


def _measure(run: Run, free: Run, share: float, settings: GuaranteeSweepSettings) -> dict[str, float]:
    regular = [n for n in run.counters.values() if n["total"] >= _REGULAR * settings.within_top]
    missing = [max(0.0, share - n.get(NAME, 0) / n["total"]) for n in regular]
    return {
        "delivered": top_shares(run, settings.within_top)[settings.edge_type],
        "viewers miss %": 100 * float(np.mean(missing)) if missing else np.nan,
        "worst viewer misses %": 100 * max(missing, default=np.nan),
        "downstream": run.totals["expected_downstream"],
        "gain": run.totals["expected_gain"],
        "downstream lost %": 100 * (1 - run.totals["expected_downstream"] / free.totals["expected_downstream"]),
        "gain lost %": 100 * (1 - run.totals["expected_gain"] / free.totals["expected_gain"]),
    }


def supply(settings: GuaranteeSweepSettings) -> float:
    """Return the share that a guarantee of everything delivers: there are no more cohorts of the type."""
    world = World(settings.viewers, seed=settings.seed)
    run = world.run(settings.requests, policy=ExpectedGain(guarantees=settings.floor(1.0)))
    return top_shares(run, settings.within_top)[settings.edge_type]


def plot_sweep(table: pd.DataFrame, most: float, settings: GuaranteeSweepSettings) -> Figure:
    """Draw what each form costs and what viewers miss, against the share; ``most`` is the supply."""
    from calibration.plots.axes import COLOURS, GREY, MARKERS, panel_grid

    figure, grid = panel_grid(
        3, f"A floor of {settings.edge_type} in the top {settings.within_top}: what it costs, and who goes short"
    )
    cost, kept, missed = (figure.add_subplot(grid[0, place]) for place in range(3))
    forms = list(dict.fromkeys(table.index.get_level_values("form")))
    for place, form in enumerate(forms):
        of_form = table.loc[form]
        share = 100 * of_form.index
        drawn = (
            (cost, of_form["gain lost %"]),
            (kept, 100 * of_form["delivered"]),
            (missed, of_form["viewers miss %"]),
        )
        for panel, y in drawn:
            panel.plot(share, y, color=COLOURS[place], marker=MARKERS[place], markersize=5, label=form)
    top = 100 * max(settings.shares)
    kept.plot([0, top], [0, top], color=GREY, linestyle=":", linewidth=1)
    kept.annotate(
        "as asked", (0.5 * top, 0.5 * top), xytext=(6, -8), textcoords="offset points", fontsize=8, color=GREY
    )
    if most < max(settings.shares):
        kept.axhline(100 * most, color=GREY, linewidth=1)
        kept.annotate(
            "all there is", (0, 100 * most), xytext=(2, 3), textcoords="offset points", fontsize=8, color=GREY
        )
    cost.set_ylabel("gain in engagement lost, % of pages by value")
    kept.set_ylabel("delivered to all viewers, % of impressions")
    missed.set_ylabel("missing per viewer, mean, % of impressions")
    for panel in (cost, kept, missed):
        panel.set_xlabel("floor, % of impressions")
        panel.set_ylim(None if (table["gain lost %"] < 0).any() and panel is cost else 0, None)
    cost.legend(frameon=False, loc="upper left")
    return figure


def job(settings: GuaranteeSweepSettings, progress: Progress) -> Results:
    """Sweep, and draw."""
    table = sweep(settings, progress)
    most = supply(settings)
    remarks = (
        f"supply: {settings.edge_type} can have {100 * most:.1f} % of the placements in the top {settings.within_top}",
        f"missing: of viewers with at least {_REGULAR} pages; a promise to a viewer may lag by its slack",
    )
    return Results({"guarantee sweep": table}, {"guarantee_sweep": plot_sweep(table, most, settings)}, remarks)


if __name__ == "__main__":
    run_script("guarantee_sweep", GuaranteeSweepSettings, job)
