"""A replay as people look at it: pictures of ageing and of calibration, and the sections of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from spr.evaluation.ageing import (
    CALIBRATORS,
    EVERYTHING,
    METRIC_NAMES,
    NOTHING,
    PARTS,
    SELECTION_BIAS,
    WORSE_WHEN,
    Replay,
)
from spr.evaluation.report import Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_TICKS: Final = 8
_DRAWN: Final = (NOTHING, CALIBRATORS, EVERYTHING)


def ageing_plot(found: Replay, title: str = "What is lost by keeping a part") -> Figure:
    """Draw how much worse a kept part is than a fresh one, by its age.

    Parameters
    ----------
    found : Replay
    title : str
        Above the panels.

    Returns
    -------
    Figure
        A panel per metric; above 0 the kept part is worse, whichever way the metric goes. Points have 95 % intervals,
        each by itself; a filled point is worse with all parts and ages of the panel looked at at once. Marks of one age
        stand beside each other.
    """
    from calibration.plots.axes import COLOURS, GREY, MARKERS, panel_grid

    table = found.to_pandas()
    figure, grid = panel_grid(len(WORSE_WHEN), title, height=4.2, above=1.15)
    ages = np.unique(table["age_days"])
    step = 0.13 * np.diff(ages, prepend=0.0).min()
    for place, (metric, sign) in enumerate(WORSE_WHEN.items()):
        panel = figure.add_subplot(grid[place])
        panel.axhline(0.0, color=GREY, linewidth=1, linestyle="--", zorder=1)
        for number, part in enumerate(PARTS):
            rows = table[(table["metric"] == metric) & (table["part"] == part)]
            middle = sign * rows["difference"].to_numpy()
            ends = np.sort(sign * rows[["low", "high"]].to_numpy(), axis=1)
            at = rows["age_days"].to_numpy() + step * (number - (len(PARTS) - 1) / 2)
            panel.vlines(at, ends[:, 0], ends[:, 1], color=COLOURS[number], linewidth=1.3)
            panel.plot(at, middle, color=COLOURS[number], linewidth=0.7, alpha=0.5)
            style: dict[str, Any] = {
                "marker": MARKERS[number],
                "linestyle": "none",
                "color": COLOURS[number],
                "markersize": 6,
            }
            worse = rows["worse"].to_numpy(bool)
            panel.plot(at[worse], middle[worse], **style)
            panel.plot(at[~worse], middle[~worse], markerfacecolor="white", label=part, **style)
        panel.set_title(METRIC_NAMES[metric], fontsize=11)
        panel.set_ylabel("kept - fresh" if sign > 0 else "fresh - kept")
        panel.set_xlabel("age of what is kept, days")
        panel.set_xticks(ages[:: -(-len(ages) // _MOST_TICKS)])
        panel.grid(alpha=0.25)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    down = figure.get_figheight()
    figure.legend(
        handles,
        labels,
        loc="upper center",
        ncols=len(PARTS),
        frameon=False,
        fontsize=9,
        bbox_to_anchor=(0.5, 1 - 0.36 / down),
        title="above 0 = kept is worse; filled = worse with all of the panel looked at at once",
        title_fontsize=9,
    )
    return figure


def calibration_plot(found: Replay, title: str = "Observed over predicted interactions") -> Figure:
    """Draw, per entity type, how far predictions are off over time with and without refits.

    Parameters
    ----------
    found : Replay
    title : str
        Above the panels.

    Returns
    -------
    Figure
        Log axes; 1 = calibrated, above it too few interactions were predicted. Bars are 95 % intervals, cut off at the
        panel's edge; a period without interactions of the type has no point.
    """
    from matplotlib.ticker import NullLocator

    from calibration.plots.axes import COLOURS, GREY, MARKERS, PANELS_A_ROW, panel_grid

    table = found.calibration_table()
    types = sorted(table["entity_type"].unique())
    figure, grid = panel_grid(len(types), title, height=3.0, above=1.0)
    cuts = found.periods.index
    width = 0.09 * np.diff(cuts.to_numpy()).min()
    drawn = table[table["option"].isin(_DRAWN)]
    positive = drawn.loc[drawn["ratio"] > 0, "ratio"]
    low, high = min(0.5, positive.min() / 1.2), max(2.0, positive.max() * 1.2)
    for place, entity_type in enumerate(types):
        panel = figure.add_subplot(grid[divmod(place, min(len(types), PANELS_A_ROW))])
        panel.axhline(1.0, color=GREY, linewidth=1, linestyle="--", zorder=1)
        for number, option in enumerate(_DRAWN):
            rows = drawn[(drawn["entity_type"] == entity_type) & (drawn["option"] == option) & (drawn["ratio"] > 0)]
            at = rows["cut"].to_numpy() + width * (number - 1)
            panel.vlines(at, rows["low"].to_numpy(), rows["high"].to_numpy(), color=COLOURS[number], linewidth=1.3)
            panel.plot(
                at,
                rows["ratio"].to_numpy(),
                marker=MARKERS[number],
                color=COLOURS[number],
                linewidth=0.7,
                markersize=5,
                label=option,
            )
        panel.set_yscale("log")
        panel.set_ylim(low, high)
        panel.set_yticks([tick for tick in (0.1, 0.2, 0.5, 0.7, 1.0, 1.4, 2.0, 5.0, 10.0) if low < tick < high])
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_title(entity_type, fontsize=11)
        if place % PANELS_A_ROW == 0:
            panel.set_ylabel("observed / predicted")
        _label_cuts(panel, cuts)
        panel.grid(alpha=0.25)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    down = figure.get_figheight()
    figure.legend(
        handles, labels, loc="upper center", ncols=3, frameon=False, fontsize=9, bbox_to_anchor=(0.5, 1 - 0.36 / down)
    )
    return figure


def replay_sections(found: Replay) -> list[Section]:
    """Show a replay as sections of a report: ageing, metrics over time, calibration, and the match with actions.

    Parameters
    ----------
    found : Replay

    Returns
    -------
    list of Section
    """
    ageing = {
        f"{name}, kept - fresh; * = worse, with all of this table looked at at once": found.ageing_table(metric)
        for metric, name in METRIC_NAMES.items()
    }
    metrics = found.metrics_table().rename(columns=lambda name: METRIC_NAMES.get(name, name.replace("_", " ")))
    return [
        Section(
            "How fast the parts grow old",
            [
                "A part that was kept since the first cut, against a fresh one on the same random pages; everything "
                "else is alike. Intervals are by a bootstrap over viewers and hold the fits as they came out.",
                *found.sentences(),
            ],
            ageing,
            {"ageing": ageing_plot(found)},
        ),
        Section(
            "Metrics over time",
            ["On random pages: probabilities at the logged position, orders at the reference position."],
            {"Metrics by cut and option": metrics, "Periods": found.periods},
        ),
        Section(
            "Calibration by entity type",
            ["Observed over predicted interactions at the logged position; 1 is calibrated."],
            {},
            {"calibration": calibration_plot(found)},
        ),
        Section(
            "What was acted on",
            ["Mean rank of the cohorts that were acted on, 1 = top.", SELECTION_BIAS],
            {"Mean rank of what was acted on": _mean_ranks(found.match_table())},
        ),
    ]


def _mean_ranks(match: pd.DataFrame) -> pd.DataFrame:
    numbers = match[["mean_rank", "low", "high"]].to_numpy()
    text = [f"{mean:.2f}" if np.isnan(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in numbers]
    return match.assign(text=text, cut=match["cut"].dt.strftime("%Y-%m-%d %H:%M")).pivot_table(
        index=["pages", "cut", "acted_on"], columns="order", values="text", aggfunc="first", sort=False
    )


def _label_cuts(panel: Axes, cuts: pd.Index) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]  # matplotlib
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # matplotlib
    span = cuts[-1] - cuts[0]
    panel.set_xlim(cuts[0] - 0.15 * span, cuts[-1] + 0.15 * span)
