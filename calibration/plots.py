"""Pictures of calibration; matplotlib's object interface, so that nothing global is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes

    from calibration.calibrator_set import CalibratorSet

_INK, _GREY = "#1b4f72", "#8a8a8a"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PANELS_A_ROW = 3
_percent = FuncFormatter(lambda rate, _: f"{100 * rate:.3g} %")


def reliability_plot(
    tables: Mapping[str, pd.DataFrame], title: str = "Reliability: observed against predicted"
) -> Figure:
    """Draw one panel per table: observed rates with intervals, the diagonal, and where predictions lie.

    Parameters
    ----------
    tables : mapping of name to DataFrame
        Each from ``reliability_table``; at least one.
    title : str
        Above all panels.

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
    n_columns = min(len(tables), _PANELS_A_ROW)
    n_rows = -(-len(tables) // n_columns)
    width, height = 4.2 * n_columns, 0.6 + 4.8 * n_rows  # inches
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.12 / height, va="top")
    # Margins in inches: constrained_layout cannot place rows of unequal heights beside an empty cell.
    grid = figure.add_gridspec(
        n_rows,
        n_columns,
        left=0.8 / width,
        right=1 - 0.25 / width,
        bottom=0.55 / height,
        top=1 - 0.75 / height,
        wspace=0.32,
        hspace=0.3,
    )
    for number, (name, table) in enumerate(tables.items()):
        cell = grid[divmod(number, n_columns)].subgridspec(2, 1, height_ratios=[4, 1], hspace=0.06)
        panel = figure.add_subplot(cell[0])
        density = figure.add_subplot(cell[1], sharex=panel)
        panel.tick_params(labelbottom=False)
        _draw_reliability(panel, table)
        _draw_density(density, table)
        panel.set_title(f"{name}  (n = {table['n'].sum():,.0f})", fontsize=11)
        panel.set_ylabel("observed rate")
        density.set_ylabel("rows")
        density.set_xlabel("predicted rate")
    return figure


def curves_plot(calibrators: CalibratorSet, title: str = "Expected response by quantile of the raw score") -> Figure:
    """Draw every curve of a set: expected response against the quantile of the raw score.

    Parameters
    ----------
    calibrators : CalibratorSet
    title : str

    Returns
    -------
    Figure
        The quantile is on a log-odds axis, which opens both tails; each curve has its line style and marker
        besides its colour.

    Examples
    --------
    >>> from calibration import CalibratorSet, QuantileResponseCalibrator
    >>> curve = QuantileResponseCalibrator().fit(range(60), [0, 0, 1] * 20).curve_
    >>> len(curves_plot(CalibratorSet({("people", "p1"): curve})).axes)
    1
    """
    figure = Figure(figsize=(8.6, 5.0), layout="constrained")
    panel = figure.add_subplot()
    for number, (entity_type, version) in enumerate(calibrators):
        curve = calibrators[entity_type, version]
        # drawn by quantile and not by raw score: the scores of different rankers share no scale
        panel.plot(
            curve.table.quantile,
            curve.values,
            linestyle=_LINES[number % len(_LINES)],
            marker=_MARKERS[number % len(_MARKERS)],
            markevery=(number % 5 / 50, 0.1),
            markersize=5,
            linewidth=1.6,
            label=f"{entity_type}, {version}  ({curve.base_rate:.2%})",
        )
    panel.set_xscale("logit")
    panel.set_yscale("log")
    ticks = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    lowest = min(calibrators[key].table.quantile[0] for key in calibrators)
    highest = max(calibrators[key].table.quantile[-1] for key in calibrators)
    panel.set_xlim(lowest, highest)
    panel.set_xticks([tick for tick in ticks if lowest <= tick <= highest] or [0.5])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda quantile, _: f"{quantile:g}"))
    panel.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    _label_rates(panel)
    panel.set_xlabel("quantile of the raw score among its ranker's scores")
    panel.set_ylabel("expected response")
    panel.set_title(title)
    panel.grid(alpha=0.25)
    figure.legend(loc="outside right center", title="entity type, ranker (base rate)", frameon=False)
    return figure


def _draw_reliability(panel: Axes, table: pd.DataFrame) -> None:
    predicted = table["mean_prediction"].to_numpy()
    observed = table["observed_rate"].to_numpy()
    drawn = np.concatenate([predicted, observed, table["interval_high"].to_numpy()])
    lowest = drawn[drawn > 0].min(initial=1.0) / 1.6
    highest = min(1.0, drawn.max() * 1.25)
    low = np.maximum(table["interval_low"].to_numpy(), lowest)
    panel.plot([lowest, highest], [lowest, highest], color=_GREY, linewidth=1, linestyle="--", zorder=1)
    panel.vlines(predicted, low, table["interval_high"], color=_INK, linewidth=1.2, alpha=0.7)
    some = observed > 0
    panel.plot(predicted[some], observed[some], "o", color=_INK, markersize=5)
    none = np.full(np.count_nonzero(~some), lowest)
    panel.plot(predicted[~some], none, "v", color=_INK, markerfacecolor="white", clip_on=False)
    panel.set(xscale="log", yscale="log", xlim=(lowest, highest), ylim=(lowest, highest))
    panel.grid(alpha=0.25)
    _label_rates(panel)


def _draw_density(panel: Axes, table: pd.DataFrame) -> None:
    left, right = panel.get_xlim()
    edges = np.append(np.maximum(table["lowest_prediction"].to_numpy(), left), right)
    edges[-1] = max(edges[-2] * 1.05, min(right, 2 * table["mean_prediction"].iloc[-1] - edges[-2]))
    width = np.maximum(np.log(edges[1:] / edges[:-1]), 1e-3)
    density = table["n"].to_numpy() / table["n"].sum() / width
    panel.bar(edges[:-1], density, width=np.diff(edges), align="edge", color=_INK, alpha=0.35, edgecolor=_INK)
    panel.set_xlim(left, right)
    panel.set_yticks([])
    _label_rates(panel, vertical=False)


def _label_rates(panel: Axes, *, vertical: bool = True) -> None:
    """Label a log axis with a few round percentages that lie inside it."""
    for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
        if axis.get_scale() != "log" or (axis is panel.yaxis and not vertical):
            continue
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        steps = (1.0,) if high / low > 300 else (1.0, 3.0) if high / low > 30 else (1.0, 2.0, 5.0)
        ticks = np.sort(np.outer(decades, steps).ravel())
        inside = ticks[(ticks >= low) & (ticks <= high)]
        axis.set_major_formatter(_percent)
        axis.set_ticks(inside if inside.size else np.array([np.sqrt(low * high)]))
        axis.set_ticks([], minor=True)
