"""Reliability: observed against predicted, with intervals and where predictions lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError
from calibration.plots.axes import GREY, INK, PANELS_A_ROW, label_log_axes, panel_grid, response_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def reliability_plot(
    tables: Mapping[str, pd.DataFrame],
    title: str = "Reliability: observed against predicted",
    *,
    response: str = "binary",
) -> Figure:
    """Draw one panel per table: observed rates with intervals, the diagonal, and where predictions lie.

    Parameters
    ----------
    tables : mapping of name to DataFrame
        Each from ``reliability_table``; at least one.
    title : str
        Above all panels.
    response : {"binary", "count"}
        What the tables' responses are: rates, labelled in per cent, or numbers of events.

    Returns
    -------
    Figure
        Points and 95 % intervals per bin on log axes, where small rates are legible and equal distances from
        the diagonal are equal relative errors. A bin whose observed rate is 0 stands on the lower edge as
        an open triangle. Bars below: each bin's share of the rows over the width it covers (a density).

    Examples
    --------
    >>> from calibration.diagnostics import reliability_table
    >>> table = reliability_table([0.1, 0.1, 0.5, 0.5], [0, 1, 0, 1], n_bins=2)
    >>> len(reliability_plot({"people": table}).axes)
    2
    """
    if hasattr(tables, "columns"):
        raise CalibrationError("tables must map names to reliability tables: {'people': reliability_table(...)}")
    figure, grid = panel_grid(len(tables), title)
    for number, (name, table) in enumerate(tables.items()):
        cell = grid[divmod(number, min(len(tables), PANELS_A_ROW))].subgridspec(2, 1, height_ratios=[4, 1], hspace=0.06)
        panel = figure.add_subplot(cell[0])
        density = figure.add_subplot(cell[1], sharex=panel)
        panel.tick_params(labelbottom=False)
        _draw_reliability(panel, table, response)
        _draw_density(density, table, response)
        panel.set_title(f"{name}  (n = {table['n'].sum():,.0f})", fontsize=11)
        panel.set_ylabel(f"observed {response_name(response)}")
        density.set_ylabel("rows")
        density.set_xlabel(f"predicted {response_name(response)}")
    return figure


def _draw_reliability(panel: Axes, table: pd.DataFrame, response: str) -> None:
    predicted = table["mean_prediction"].to_numpy()
    observed = table["observed_rate"].to_numpy()
    above = table["interval_high"].fillna(table["observed_rate"]).to_numpy()
    drawn = np.concatenate([predicted, observed, above])
    lowest = drawn[drawn > 0].min(initial=1.0) / 1.6
    highest = drawn.max() * 1.25
    highest = min(1.0, highest) if response == "binary" else max(highest, 2 * lowest)
    low = np.maximum(table["interval_low"].fillna(table["observed_rate"]).to_numpy(), lowest)
    panel.plot([lowest, highest], [lowest, highest], color=GREY, linewidth=1, linestyle="--", zorder=1)
    panel.vlines(predicted, low, above, color=INK, linewidth=1.2, alpha=0.7)
    some = observed > 0
    panel.plot(predicted[some], observed[some], "o", color=INK, markersize=5)
    none = np.full(np.count_nonzero(~some), lowest)
    panel.plot(predicted[~some], none, "v", color=INK, markerfacecolor="white", clip_on=False)
    panel.set(xscale="log", yscale="log", xlim=(lowest, highest), ylim=(lowest, highest))
    panel.grid(alpha=0.25)
    label_log_axes(panel, response)


def _draw_density(panel: Axes, table: pd.DataFrame, response: str) -> None:
    left, right = panel.get_xlim()
    edges = np.append(np.maximum(table["lowest_prediction"].to_numpy(), left), right)
    edges[-1] = max(edges[-2] * 1.05, min(right, 2 * table["mean_prediction"].iloc[-1] - edges[-2]))
    width = np.maximum(np.log(edges[1:] / edges[:-1]), 1e-3)
    density = table["n"].to_numpy() / table["n"].sum() / width
    panel.bar(edges[:-1], density, width=np.diff(edges), align="edge", color=INK, alpha=0.35, edgecolor=INK)
    panel.set_xlim(left, right)
    panel.set_yticks([])
    label_log_axes(panel, response, vertical=False)
