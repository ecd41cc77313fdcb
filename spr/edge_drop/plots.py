"""Pictures of an edge-drop experiment: factors with their intervals, losses by dose, the page mix before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from calibration.plots.axes import COLOURS, GREY, INK, OTHER_INK, panel_grid
from spr.edge_drop.dose_response import covariance_of, power_loss
from spr.errors import InvalidExperiment

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spr.edge_drop.dose_response import DoseResponse
    from spr.edge_drop.table import EdgeDropRows
    from spr.reorder import ImportanceFactors

_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_WIDEST = 12.0  # an interval is cut off, with an arrow, so far beyond the marks


def forest_plot(
    factors: ImportanceFactors, *, truth: Mapping[str, float] | None = None, title: str = "Importance factors"
) -> Figure:
    """Draw the importance factor of each edge type with its interval.

    Parameters
    ----------
    factors : ImportanceFactors
        Chosen ones have a served factor only; those of an experiment have an estimate and an interval, too.
    truth : mapping of str to float, optional
        True factors, where a made network knows them.
    title : str

    Returns
    -------
    Figure
        One row per edge type on a log axis: a circle for the unshrunk estimate with its simultaneous 95 % interval (an
        arrow where it is unbounded, not positive or too wide), a filled square for what is served, an open diamond for
        the truth. What was kept at 1 is grey and says so.
    """
    edge_types = sorted(factors.factor, key=lambda t: factors.factor[t])
    figure, grid = panel_grid(1, title, width=8.6, height=1.5 + 0.55 * len(edge_types))
    panel = figure.add_subplot(grid[0, 0])
    marks = [*factors.factor.values(), *(truth or {}).values(), *(e for e in factors.estimate.values() if e > 0)]
    bounds = [b for pair in factors.interval.values() for b in pair if b is not None and b > 0]
    low, high = min(marks), max(marks)
    low = max(min([low, *bounds]), low / _WIDEST) / 1.25
    high = min(max([high, *bounds]), high * _WIDEST) * 1.25
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    for place, edge_type in enumerate(edge_types):
        kept = factors.decision.get(edge_type, "use") != "use"
        ink = GREY if kept else INK
        if edge_type in factors.interval and edge_type != factors.reference:
            _draw_interval(panel, place, factors.interval[edge_type], (low, high), ink)
        estimate = factors.estimate.get(edge_type)
        if estimate is not None and low < estimate < high and edge_type != factors.reference:
            panel.plot(estimate, place, "o", color=ink, markerfacecolor="white", markersize=7, zorder=3)
        panel.plot(factors.factor[edge_type], place, "s", color=ink, markersize=6, zorder=4)
        if truth is not None and edge_type in truth:
            panel.plot(truth[edge_type], place, "D", color=OTHER_INK, markerfacecolor="none", markersize=9, zorder=5)
        said = "reference" if edge_type == factors.reference else factors.decision.get(edge_type, "") if kept else ""
        if said:
            panel.annotate(said, (0.99, place), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                           xytext=(0, 4), textcoords="offset points", fontsize=8, color=GREY)  # fmt: skip
    panel.axvline(1.0, color=GREY, linewidth=1, linestyle=":")
    panel.set_yticks(range(len(edge_types)), edge_types)
    panel.set_ylim(-0.6, len(edge_types) - 0.3)
    _label_ratio_axis(panel)
    per = {"downstream_edge": "value of an edge with a downstream interaction", "edge": "value of an edge"}
    against = f", relative to {factors.reference}" if factors.reference else ""
    panel.set_xlabel(f"{per.get(factors.source.get('per', ''), 'factor')}{against}")
    handles = [Line2D([], [], color=INK, marker="s", linestyle="none", label="served")]
    if factors.estimate:
        handles.insert(
            0, Line2D([], [], color=INK, marker="o", markerfacecolor="white", label="estimate, 95 % all at once")
        )
    if truth is not None:
        handles.append(
            Line2D([], [], color=OTHER_INK, marker="D", markerfacecolor="none", linestyle="none", label="truth")
        )
    panel.legend(handles=handles, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)
    _make_room(figure, edge_types)
    return figure


def _draw_interval(
    panel: Axes, place: int, interval: tuple[float | None, float | None], limits: tuple[float, float], ink: str
) -> None:
    low, high = interval
    left = limits[0] * 1.02 if low is None or low < limits[0] else low
    right = limits[1] / 1.02 if high is None or high > limits[1] else high
    panel.hlines(place, left, right, color=ink, linewidth=1.6)
    if left != low:
        panel.plot(left, place, "<", color=ink, markersize=7)
    if right != high:
        panel.plot(right, place, ">", color=ink, markersize=7)


def _label_ratio_axis(panel: Axes) -> None:
    low, high = panel.get_xlim()
    panel.set_xticks([tick for tick in _TICKS if low <= tick <= high])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())


def _make_room(figure: Figure, names: list[str]) -> None:
    """Leave the names of rows as much space as they need."""
    figure.subplots_adjust(left=min(0.1 + 0.011 * max(len(name) for name in names), 0.4))


def dose_response_plot(
    rows: EdgeDropRows,
    fit: DoseResponse,
    *,
    title: str = "Loss by share dropped: means with 95 % intervals, the fitted curve, dotted its slope at 0",
) -> Figure:
    """Draw what viewers lose at each dose of each edge type, beside the fitted curve.

    Parameters
    ----------
    rows : EdgeDropRows
    fit : DoseResponse
        Of these rows, not quadratic.
    title : str

    Returns
    -------
    Figure
        A panel per type: mean loss of the metric per viewer at each dose, covariates and the other types' losses taken
        out, with 95 % intervals; the fitted curve; dotted, the slope at 0, which is what an edge is valued by.

    Raises
    ------
    InvalidExperiment
        Of a quadratic fit, which has no curve in common.
    """
    if np.isnan(fit.curvature):
        raise InvalidExperiment("a quadratic fit has no curve in common; draw a concave or linear one")
    figure, grid = panel_grid(len(rows.edge_types), title, width=3.7, height=3.4)
    for place, edge_type in enumerate(rows.edge_types):
        panel = figure.add_subplot(grid[divmod(place, 3)])
        dose = rows.dropped[:, place]
        doses = np.unique(dose)
        # The part of a viewer's outcome that its dose of this type explains, and what nothing does.
        own = fit.loss[place] * power_loss(dose, fit.curvature) - fit.residual
        natural = own[dose == 0]
        loss, error = np.zeros(len(doses)), np.zeros(len(doses))
        for at, level in enumerate(doses[1:], start=1):
            some = own[dose == level]
            loss[at] = some.mean() - natural.mean()
            error[at] = np.sqrt(sum(covariance_of((part - part.mean())[:, None])[0, 0] for part in (some, natural)))
        panel.errorbar(100 * doses, loss, yerr=1.96 * error, fmt="o", color=INK, markersize=5, capsize=3)
        line = np.linspace(0.0, doses.max(), 60)
        panel.plot(100 * line, fit.loss[place] * power_loss(line, fit.curvature), color=OTHER_INK)
        panel.plot(100 * line, fit.loss[place] * line, color=GREY, linestyle=":")
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.set_title(edge_type, fontsize=10)
        panel.set_xlabel("% of the edges dropped")
        if place % 3 == 0:
            panel.set_ylabel(f"{rows.metric} lost per viewer")
    return figure


def page_mix_plot(
    mix: pd.DataFrame, *, within_top: int, title: str = "Page mix under the old and the new factors"
) -> Figure:
    """Draw the share of each edge type among the placements, before and after.

    Parameters
    ----------
    mix : DataFrame
        ``table`` of a :class:`spr.edge_drop.adoption.PageMix`.
    within_top : int
        Positions that it is counted on.
    title : str

    Returns
    -------
    Figure
        A pair of bars per edge type, in per cent, with the change written above.
    """
    figure, grid = panel_grid(1, title, width=max(4.5, 1.5 + 1.4 * len(mix)), height=3.6)
    panel = figure.add_subplot(grid[0, 0])
    place = np.arange(len(mix))
    for shift, column, ink, hatch in ((-0.2, "share_before", COLOURS[0], ""), (0.2, "share_after", COLOURS[1], "//")):
        panel.bar(place + shift, 100 * mix[column], 0.38, color=ink, hatch=hatch, edgecolor="white",
                  label=column.removeprefix("share_"))  # fmt: skip
    for at, (_, row) in enumerate(mix.iterrows()):
        top = 100 * max(row["share_before"], row["share_after"])
        panel.annotate(f"{100 * (row['share_after'] - row['share_before']):+.1f}", (at, top), xytext=(0, 3),
                       textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    panel.set_xticks(place, mix.index)
    panel.set_ylabel(f"% of the placements in the top {within_top}")
    panel.margins(y=0.15)
    panel.legend(frameon=False)
    return figure
