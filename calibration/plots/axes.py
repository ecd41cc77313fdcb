"""Panels, ink and axes that the pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.gridspec import GridSpec
    from numpy.typing import NDArray

INK, GREY, OTHER_INK = "#1b4f72", "#8a8a8a", "#b0531c"
COLOURS = ("#1b4f72", "#b0531c", "#3d7a3d", "#7a4a94", "#8a6d00", "#a8275a", "#2a8c8c", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PANELS_A_ROW = 3
QUANTILE_LABEL = "quantile of the raw score among its ranker's scores"
_QUANTILES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def panel_grid(
    n_panels: int, title: str, *, width: float = 4.2, height: float = 4.8, above: float = 0.75
) -> tuple[Figure, GridSpec]:
    """Return a titled figure and a grid of at most three panels a row; sizes in inches."""
    n_columns = min(n_panels, PANELS_A_ROW)
    n_rows = -(-n_panels // n_columns)
    across, down = width * n_columns, 0.6 + height * n_rows
    figure = Figure(figsize=(across, down))
    figure.suptitle(title, y=1 - 0.12 / down, va="top")
    # Margins in inches: constrained_layout cannot place rows of unequal heights beside an empty cell.
    grid = figure.add_gridspec(
        n_rows,
        n_columns,
        left=0.95 / across,
        right=1 - 0.25 / across,
        bottom=0.6 / down,
        top=1 - above / down,
        wspace=0.32,
        hspace=0.34,
    )
    return figure, grid


def response_name(response: str) -> str:
    """Return what the mean of a response of this family is called on an axis."""
    return "response rate" if response == "binary" else "responses a row" if response == "count" else "mean response"


def amount(value: float, response: str) -> str:
    """Write a mean response: a percentage where it is a rate."""
    return f"{100 * value:.3g} %" if response == "binary" else f"{value:.3g}"


def label_log_axes(panel: Axes, response: str = "binary", *, vertical: bool = True) -> None:
    """Label the log axes of a panel with a few round numbers that lie inside it."""
    for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
        if axis.get_scale() != "log" or (axis is panel.yaxis and not vertical):
            continue
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        steps = (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 12 else (1.0, 2.0, 5.0)
        ticks = np.sort(np.outer(decades, steps).ravel())
        inside = ticks[(ticks >= low) & (ticks <= high)]
        axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value, response)))
        axis.set_ticks(inside if inside.size else np.array([np.sqrt(low * high)]))
        axis.set_minor_locator(NullLocator())


def label_quantiles(panel: Axes, lowest: float, highest: float) -> None:
    """Give a panel a log-odds axis of quantiles, which opens both tails."""
    if lowest >= highest:  # a single bin
        lowest, highest = lowest / 2, (1 + highest) / 2
    panel.set_xscale("logit")
    panel.set_xlim(lowest, highest)
    inside = [tick for tick in _QUANTILES if lowest <= tick <= highest] or [(lowest + highest) / 2]
    panel.set_xticks(inside)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda quantile, _: f"{quantile:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(axis="x", labelsize=8)


def scale_responses(panel: Axes, values: NDArray[np.float64], response: str) -> None:
    """Scale the vertical axis to mean responses: a log axis, unless some may be 0 or negative by nature."""
    if response == "continuous":
        return
    drawn = values[np.isfinite(values) & (values > 0)]
    panel.set_yscale("log")
    if drawn.size:
        highest = drawn.max() * 1.3
        panel.set_ylim(drawn.min() / 1.3, min(highest, 1.0) if response == "binary" else highest)
    label_log_axes(panel, response)
