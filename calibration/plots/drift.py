"""Drift over time: responses against what was expected, and how far the scores have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from calibration.drift.scores import CUSTOMARY_MODERATE
from calibration.errors import CalibrationError
from calibration.impressions import require_columns
from calibration.plots.axes import GREY, INK, OTHER_INK, PANELS_A_ROW, panel_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (
    *("entity_type", "ranker_version", "window_start", "psi", "psi_noise", "ratio", "interval_low", "interval_high"),
    *("ratio_so_far", "so_far_low", "so_far_high", "drifted"),
)
_BAND = "#c9c9c9"


def drift_plot(table: pd.DataFrame, title: str = "Drift since the fit") -> Figure:
    """Draw each ranker's responses and scores over time.

    Parameters
    ----------
    table : DataFrame
        From ``drift_table``; at least one row.
    title : str
        Above all panels.

    Returns
    -------
    Figure
        Two panels per ranker. Above, observed over expected responses on a log axis: points with 95 % intervals are
        single windows, one in 20 of which excludes 1 by chance; line and band are all windows so far, with the
        interval that is valid at every look, drawn from where it is finite. A window whose band excludes 1 has
        a filled square on the line, and the first of them is named in the title. Below, the population stability
        index of the raw scores, a filled triangle where it exceeds its noise (band) and the customary 0.1 (dotted).

    Raises
    ------
    CalibrationError
        A missing column, or no row.

    Examples
    --------
    >>> from calibration import CalibratorSet, drift_table
    >>> rng = np.random.default_rng(0)
    >>> score = rng.random(8000)
    >>> log = pd.DataFrame({"entity_type": "people", "ranker_version": "p1", "raw_score": score,
    ...                     "response": (rng.random(8000) < 0.3 * score).astype(float), "viewer_id": np.arange(8000),
    ...                     "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(8000) // 4000, unit="D")})
    >>> figure = drift_plot(drift_table(log, CalibratorSet.fit(log)))
    >>> figure.axes[0].get_title()
    'people, p1  (no drift)'
    """
    require_columns(table, _COLUMNS)
    if table.empty:
        raise CalibrationError("the drift table has no row: no ranker of the log has both a calibrator and scores")
    rankers = list(table.groupby(["entity_type", "ranker_version"], sort=True))
    figure, grid = panel_grid(len(rankers), title, height=4.6, above=1.5)
    for number, (key, rows) in enumerate(rankers):
        cell = grid[divmod(number, min(len(rankers), PANELS_A_ROW))].subgridspec(
            2, 1, height_ratios=[5, 3], hspace=0.08
        )
        ratio = figure.add_subplot(cell[0])
        stability = figure.add_subplot(cell[1], sharex=ratio)
        ratio.tick_params(labelbottom=False)
        ordered = rows.sort_values("window_start")
        _draw_ratio(ratio, ordered)
        _draw_stability(stability, ordered)
        ratio.set_title(f"{key[0]}, {key[1]}  ({_since(ordered)})", fontsize=11)
        if number % PANELS_A_ROW == 0:
            ratio.set_ylabel("observed / expected\nresponses")
            stability.set_ylabel("PSI of the\nraw scores")
    figure.legend(
        handles=_legend(),
        loc="upper center",
        ncols=3 if len(rankers) > 1 else 2,
        frameon=False,
        fontsize=9,
        bbox_to_anchor=(0.5, 1 - 0.36 / figure.get_figheight()),
    )
    return figure


def _since(rows: pd.DataFrame) -> str:
    drifted = rows.loc[rows["drifted"].astype(bool), "window_start"]
    return "no drift" if drifted.empty else f"drifted by {drifted.iloc[0]:%Y-%m-%d}"


def _draw_ratio(panel: Axes, rows: pd.DataFrame) -> None:
    at = rows["window_start"].to_numpy()
    ratio, low, high = (rows[name].to_numpy(np.float64) for name in ("ratio", "interval_low", "interval_high"))
    so_far, below, above = (rows[name].to_numpy(np.float64) for name in ("ratio_so_far", "so_far_low", "so_far_high"))
    known = np.isfinite(above) & (below > 0)
    drawn = np.concatenate([ratio, so_far, low, high, below[known], above[known]])
    drawn = drawn[np.isfinite(drawn) & (drawn > 0.05) & (drawn < 20.0)]
    span = 1.08 * max(np.exp(np.abs(np.log(drawn)).max(initial=0.0)), 1.05)
    panel.set_yscale("log")
    panel.set_ylim(1 / span, span)
    panel.axhline(1.0, color=GREY, linewidth=1.0, linestyle="--", zorder=1)
    panel.fill_between(at, below, above, where=known, color=_BAND, alpha=0.75, linewidth=0, zorder=1)
    panel.plot(at, so_far, color=OTHER_INK, linewidth=1.8, zorder=3)
    drifted = rows["drifted"].to_numpy(bool)
    panel.plot(at[drifted], so_far[drifted], "s", color=OTHER_INK, markersize=5, zorder=4)
    some = ratio > 0
    panel.vlines(at, np.maximum(low, 1 / span), high, color=INK, linewidth=1.1, alpha=0.8, zorder=2)
    panel.plot(at[some], ratio[some], "o", color=INK, markersize=4, markerfacecolor="white", zorder=2.5)
    ticks = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0])
    if span > 1.6:
        ticks = np.array([0.1, 0.2, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0, 10.0])
    panel.set_yticks(ticks[(ticks > 1 / span) & (ticks < span)])
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.yaxis.set_minor_formatter(lambda *_: "")
    panel.grid(alpha=0.25)


def _draw_stability(panel: Axes, rows: pd.DataFrame) -> None:
    at = rows["window_start"].to_numpy()
    psi, noise = rows["psi"].to_numpy(np.float64), rows["psi_noise"].to_numpy(np.float64)
    panel.fill_between(at, 0.0, noise, color=_BAND, alpha=0.75, linewidth=0)
    panel.axhline(CUSTOMARY_MODERATE, color="black", linewidth=1.0, linestyle=":")
    panel.plot(at, psi, color=INK, linewidth=1.2)
    moved = psi > np.maximum(noise, CUSTOMARY_MODERATE)
    panel.plot(at[moved], psi[moved], "^", color=INK, markersize=6)
    panel.plot(at[~moved], psi[~moved], "^", color=INK, markersize=5, markerfacecolor="white")
    panel.set_ylim(0.0, 1.2 * max(np.nanmax(psi, initial=0.0), np.nanmax(noise, initial=0.0), CUSTOMARY_MODERATE))
    locator = AutoDateLocator(minticks=3, maxticks=6)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.grid(alpha=0.25)


def _legend() -> list[Line2D | Patch]:
    line = {"color": INK, "markerfacecolor": "white"}
    return [
        Line2D([], [], marker="o", linestyle="none", label="one window, 95 % interval", **line),  # type: ignore[arg-type]
        Line2D([], [], color=OTHER_INK, linewidth=1.8, label="all windows so far"),
        Line2D([], [], marker="s", linestyle="none", color=OTHER_INK, label="drifted: band excludes 1"),
        Patch(color=_BAND, label="always-valid interval; PSI: noise"),
        Line2D([], [], marker="^", color=INK, label="PSI (filled: scores moved)"),
        Line2D([], [], color="black", linestyle=":", label=f"customary PSI limit, {CUSTOMARY_MODERATE:g}"),
    ]
