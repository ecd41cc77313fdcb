"""A picture of an A/B test; matplotlib's object interface, nothing global is touched."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from calibration.plots.axes import GREY, INK, OTHER_INK
from spr.evaluation.experiment.table import ALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from spr.evaluation.experiment.comparison import ArmComparison

    Floats = NDArray[np.float64]

_REACH = 3.0  # an interval is cut off where it goes so many times beyond the outermost estimate
_ROW, _LINE, _LETTERS = 0.34, 0.15, 15  # inches of a row and of a line of text; letters an inch


def forest_plot(
    comparison: ArmComparison,
    *,
    truth: Mapping[tuple[str, str], float] | None = None,
    title: str = "What the arms did",
) -> Figure:
    """Draw one row per metric, arm and segment: the relative difference and its interval.

    Parameters
    ----------
    comparison : ArmComparison
    truth : mapping of (metric, arm) to float, optional
        True relative differences of all members, where they are known, as in a simulation.
    title : str
        Above the panel.

    Returns
    -------
    Figure
        A dot is value / control_value - 1, the bar its interval; an arrow head says that it goes on outside the
        picture, or has no end. Filled: all members; open and grey: a segment. Numbers and the verdicts of guard-rails
        stand on the right, what casts doubt on all of it in red under the title. A metric whose control value is not
        above 0 has a row without a mark.

    Examples
    --------
    >>> import pandas as pd
    >>> from spr.evaluation import compare_arms
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(400)], "arm": ["control", "new"] * 200})
    >>> table["likes"] = rng.poisson(9, 400)
    >>> [label.get_text() for label in forest_plot(compare_arms(table, ["likes"])).axes[0].get_yticklabels()]
    ['likes']
    """
    order = comparison.comparisons["metric"].drop_duplicates().to_list()
    rows = comparison.comparisons.sort_values("metric", key=lambda names: names.map(order.index), kind="stable")
    records = rows.to_dict("records")
    one_arm = rows["arm"].nunique() == 1
    labels = [_label(row, one_arm=one_arm) for row in records]
    left = max(1.5, 0.4 + 0.085 * max(map(len, labels)))
    across = left + 6.6
    doubts = "\n".join(line for said in comparison.warnings for line in wrap(said, int(across * _LETTERS)))
    above = 0.75 + _LINE * len(doubts.splitlines())
    down = above + 0.75 + _ROW * len(records)
    figure = Figure(figsize=(across, down))
    figure.suptitle(title, x=0.2 / across, y=1 - 0.1 / down, ha="left", va="top")
    figure.text(0.2 / across, 1 - 0.42 / down, doubts, color="#a01010", fontsize=8, va="top")
    panel = figure.add_axes((left / across, 0.6 / down, 4.3 / across, 1 - (above + 0.6) / down))
    low, high = _limits(rows[["relative", "relative_low", "relative_high"]].to_numpy(dtype=np.float64), truth or {})
    panel.set(xlim=(low, high), ylim=(len(records) - 0.5, -0.5))
    panel.axvline(0.0, color=GREY, linewidth=1, linestyle="--", zorder=1)
    for place, row in enumerate(records):
        _draw_row(panel, place, row)
        known = (truth or {}).get((row["metric"], row["arm"]))
        if known is not None and row["segment"] == ALL:
            style: dict[str, Any] = {"markerfacecolor": "none", "markersize": 6, "zorder": 5}
            panel.plot(known, place, "D", color=OTHER_INK, label="true", **style)
    panel.set_yticks(np.arange(len(records)), labels)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right", "left"]].set_visible(False)
    level = f"{100 * (1 - comparison.alpha):g} % interval"
    looks = "" if comparison.planned_members is None else ", at all looks"
    panel.set_xlabel(f"change against {comparison.control!r}, {level}{looks}")
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:+.3g} %" if share else "0"))
    if truth:
        handles, names = panel.get_legend_handles_labels()
        where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.0}
        panel.legend(handles[:1], names[:1], frameon=False, fontsize=9, **where)
    return figure


def _label(row: dict[Any, Any], *, one_arm: bool) -> str:
    parts = [row["metric"]] if one_arm else [row["metric"], row["arm"]]
    return ", ".join(parts if row["segment"] == ALL else [*parts, row["segment"]])


def _limits(relative: Floats, truth: Mapping[tuple[str, str], float]) -> tuple[float, float]:
    """Return the ends of the axis: 0, truths, estimates with an interval, and the intervals as far as they are near."""
    bounded = np.isfinite(relative).all(axis=1)
    marks = np.append(relative[bounded, 0], [0.0, *truth.values()])
    room = _REACH * max(float(np.abs(marks).max()), 1e-3)
    shown = np.append(marks, np.clip(relative[bounded, 1:], -room, room))
    low, high = float(shown.min()), float(shown.max())
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _draw_row(panel: Axes, place: int, row: dict[Any, Any]) -> None:
    low, high = panel.get_xlim()
    overall = row["segment"] == ALL
    ink, words = (INK, "black") if overall else (GREY, "#6b6b6b")
    across = panel.get_yaxis_transform()
    written: dict[str, Any] = {"va": "center", "fontsize": 8, "color": words, "transform": across}
    if np.isnan(row["relative"]):
        panel.text(1.03, place, "control not above 0", **written)
        return
    least, most = max(row["relative_low"], low), min(row["relative_high"], high)
    panel.hlines(place, least, most, color=ink, linewidth=1.6, zorder=2)
    for end, bound, marker in ((least, row["relative_low"], "<"), (most, row["relative_high"], ">")):
        if end != bound:
            panel.plot(end, place, marker, color=ink, markersize=6, clip_on=False, zorder=3)
    if low <= row["relative"] <= high:
        panel.plot(row["relative"], place, "o", color=ink, markerfacecolor=ink if overall else "white", zorder=4)
    verdict = f"  {row['verdict']}" if isinstance(row["verdict"], str) else ""
    bounds = [row["relative_low"], row["relative_high"]]
    interval = "no interval" if np.isinf(bounds).any() else f"[{100 * bounds[0]:+.1f}, {100 * bounds[1]:+.1f}]"
    panel.text(1.03, place, f"{100 * row['relative']:+.1f} % {interval}{verdict}", **written)
