"""Drift over time: responses against what was expected, and how far the scores have moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from calibration.columns import require_columns
from calibration.drift.scores import CUSTOMARY_MODERATE
from calibration.errors import CalibrationError
from calibration.plots.axes import GREY, INK, OTHER_INK, PANELS_A_ROW, panel_grid

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_COLUMNS = (
    *("entity_type", "ranker_version", "window_start", "psi", "psi_noise", "ratio", "interval_low", "interval_high"),
    *("ratio_so_far", "so_far_low", "so_far_high", "drifted"),
)
_BAND = "#c9c9c9"
# The widest range, as highest / lowest, that each choice of ticks has room for.
_TICKS = {
    2.0: (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0),
    4.0: (0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0),
    10.0: (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 7.0, 10.0),
    np.inf: (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
}


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
        interval that is valid at every look, drawn from where it is finite. Both run off the panel where they are
        wide. A window whose band excludes 1 has a filled square on the line; the title names the first. Below, the
        population stability index of the raw scores, a filled triangle where it exceeds its noise (band) and the
        customary 0.1 (dotted). Continuous responses have no ratio: there it is the mean difference, on a linear axis.

    Raises
    ------
    CalibrationError
        A missing column, or no row.

    Examples
    --------
    >>> import pandas as pd
    >>> from calibration import CalibratorSet, drift_table
    >>> rng = np.random.default_rng(0)
    >>> score = rng.random(8000)
    >>> log = pd.DataFrame({"entity_type": "people", "ranker_version": "p1", "raw_score": score,
    ...                     "response": (rng.random(8000) < 0.3 * score).astype(float), "viewer_id": np.arange(8000),
    ...                     "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(8000) // 4000, unit="D")})
    >>> figure = drift_plot(drift_table(log, CalibratorSet.fit(log)))
    >>> figure.axes[0].get_title().splitlines()
    ['people, p1', 'responses: no drift']
    """
    require_columns(table, _COLUMNS, "a drift_table")
    if table.empty:
        raise CalibrationError("the drift table has no row: no ranker of the log has both a calibrator and scores")
    rankers = list(table.groupby(["entity_type", "ranker_version"], sort=True))
    is_mixed = len({_is_difference(rows) for _, rows in rankers}) > 1
    width = 6.4 if len(rankers) == 1 else 4.2
    figure, grid = panel_grid(len(rankers), title, width=width, height=4.6, above=1.75)
    for number, (key, rows) in enumerate(rankers):
        cell = grid[divmod(number, min(len(rankers), PANELS_A_ROW))].subgridspec(
            2, 1, height_ratios=[5, 3], hspace=0.08
        )
        ratio = figure.add_subplot(cell[0])
        stability = figure.add_subplot(cell[1], sharex=ratio)
        ratio.tick_params(labelbottom=False)
        ordered = rows.sort_values("window_start")
        _draw_responses(ratio, ordered)
        _draw_stability(stability, ordered)
        ratio.set_title(f"{key[0]}, {key[1]}\n{_since(ordered)}", fontsize=11)
        if number % PANELS_A_ROW == 0 or is_mixed:
            of_difference, of_ratio = "observed - expected,\nmean of a row", "observed / expected\nresponses"
            ratio.set_ylabel(of_difference if _is_difference(ordered) else of_ratio)
        if number % PANELS_A_ROW == 0:
            stability.set_ylabel("PSI of the\nraw scores")
    figure.legend(
        handles=_legend(),
        loc="upper center",
        ncols=3 if len(rankers) > 2 else 2,
        frameon=False,
        fontsize=9,
        bbox_to_anchor=(0.5, 1 - 0.36 / figure.get_figheight()),
    )
    return figure


def _since(rows: pd.DataFrame) -> str:
    drifted = rows.loc[rows["drifted"].astype(bool), "window_start"]
    return "responses: " + ("no drift" if drifted.empty else f"drift seen on {drifted.iloc[0]:%Y-%m-%d}")


def _is_difference(rows: pd.DataFrame) -> bool:
    return "response" in rows and bool((rows["response"] == "continuous").all())


def _draw_responses(panel: Axes, rows: pd.DataFrame) -> None:
    what, unchanged, positive = ("difference", 0.0, False) if _is_difference(rows) else ("ratio", 1.0, True)
    at = rows["window_start"].to_numpy()
    columns = (what, "interval_low", "interval_high", f"{what}_so_far", "so_far_low", "so_far_high")
    alone, low, high, so_far, below, above = (rows[name].to_numpy(np.float64) for name in columns)
    known = np.isfinite(above)
    lowest, highest = _limits(
        np.concatenate([alone, so_far]),
        np.concatenate([low, high, below[known], above[known]]),
        unchanged,
        is_log=positive,
    )
    if positive:
        panel.set_yscale("log")
    panel.set_ylim(lowest, highest)
    panel.axhline(unchanged, color=GREY, linewidth=1.0, linestyle="--", zorder=1)
    panel.fill_between(at, below, above, where=known, color=_BAND, alpha=0.75, linewidth=0, zorder=1)
    panel.plot(at, so_far, color=OTHER_INK, linewidth=1.8, zorder=3)
    drifted = rows["drifted"].to_numpy(bool)
    panel.plot(at[drifted], so_far[drifted], "s", color=OTHER_INK, markersize=5, zorder=4)
    panel.vlines(at, np.maximum(low, lowest), high, color=INK, linewidth=1.1, alpha=0.8, zorder=2)
    some = alone > 0 if positive else np.isfinite(alone)
    panel.plot(at[some], alone[some], "o", color=INK, markersize=4, markerfacecolor="white", zorder=2.5)
    if positive:
        ticks = next(ticks for widest, ticks in _TICKS.items() if highest / lowest <= widest)
        panel.set_yticks([tick for tick in ticks if lowest < tick < highest])
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.yaxis.set_minor_locator(NullLocator())
    panel.grid(alpha=0.25)


def _limits(points: Floats, ends: Floats, unchanged: float, *, is_log: bool) -> tuple[float, float]:
    """Hold all points and most ends of intervals: those of the first, small windows would squeeze the rest."""
    points, ends = (each[np.isfinite(each) & ((each > 0) | (not is_log))] for each in (points, ends))
    if is_log:
        points, ends = np.log(points), np.log(ends)
    middle = np.log(unchanged) if is_log else unchanged
    far = np.quantile(ends, [0.05, 0.95]) if ends.size else np.full(2, middle)
    low = min(points.min(initial=middle), far[0], middle)
    high = max(points.max(initial=middle), far[1], middle)
    margin = max(0.06 * (high - low), 0.05 if is_log else 1e-9)
    low, high = low - margin, high + margin
    return (float(np.exp(low)), float(np.exp(high))) if is_log else (float(low), float(high))


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
    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]  # matplotlib
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # matplotlib
    panel.grid(alpha=0.25)


def _legend() -> list[Line2D | Patch]:
    line = {"color": INK, "markerfacecolor": "white"}
    return [
        Line2D([], [], marker="o", linestyle="none", label="one window, 95 % interval", **line),  # type: ignore[arg-type]  # a dict of several
        Line2D([], [], color=OTHER_INK, linewidth=1.8, label="all windows so far"),
        Line2D([], [], marker="s", linestyle="none", color=OTHER_INK, label="drifted: band is off the dashed line"),
        Patch(color=_BAND, label="always-valid interval; PSI: noise"),
        Line2D([], [], marker="^", color=INK, label="PSI (filled: scores moved)"),
        Line2D([], [], color="black", linestyle=":", label=f"customary PSI limit, {CUSTOMARY_MODERATE:g}"),
    ]
