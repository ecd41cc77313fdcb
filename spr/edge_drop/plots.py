"""Pictures of an edge-drop experiment and of its factors; matplotlib's object interface, nothing global is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from calibration.plots.axes import GREY, INK, OTHER_INK, PANELS_A_ROW, panel_grid
from spr.edge_drop.dose_response import covariance_of, power_loss
from spr.edge_drop.factors import KEEP, USE
from spr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from spr.edge_drop.adoption import PageMix
    from spr.edge_drop.dose_response import DoseResponse
    from spr.edge_drop.table import EdgeDropRows
    from spr.reorder import ImportanceFactors

    Floats = NDArray[np.float64]

_REACH = 4.0  # an interval is cut off where it goes so many times beyond the outermost mark
_MOST_DOSES = 8
_GROUPS = 6
_NORMAL = 1.959964


def forest_plot(
    factors: ImportanceFactors,
    *,
    truth: Mapping[str, float] | None = None,
    title: str = "Importance factors",
) -> Figure:
    """Draw one row per edge type: the experiment's ratio with its interval, and the factor that is served.

    Parameters
    ----------
    factors : ImportanceFactors
        Of an experiment, or chosen; without an experiment there are only the served factors.
    truth : mapping of str to float, optional
        True factors by edge type, where they are known, as in a simulation; one at or below 0 has no place on the axis.
    title : str
        Above the panel.

    Returns
    -------
    Figure
        A log axis. An open circle is the ratio before it was shrunk, the bar its interval; an arrow head says that the
        interval is unbounded or goes on outside the picture, and a bound or a ratio at or below 0 lies to the left of
        every log axis. A diamond is the factor that is served. What was kept at 1 is grey, and says why. The numbers
        stand on the right.

    Raises
    ------
    ConfigError
        When the factors name no edge type.

    Examples
    --------
    >>> from spr.reorder import ImportanceFactors
    >>> panel = forest_plot(ImportanceFactors.of({"connection": 1.4}, reference="follow")).axes[0]
    >>> [label.get_text().splitlines() for label in panel.get_yticklabels()]
    [['connection'], ['follow', '(reference = 1)']]
    """
    names = list(factors.factor)
    if factors.reference is not None and factors.reference not in names:
        names.append(factors.reference)
    if not names:
        raise ConfigError("the importance factors name no edge type, so that all are worth the same: nothing to draw")
    low, high = _limits(factors, names, truth or {})
    down = 1.75 + 0.62 * len(names)
    of_experiment = bool(factors.estimate or factors.interval)
    left = _room_for(names)
    across = left + (7.9 if of_experiment else 5.3)
    figure = Figure(figsize=(across, down))
    figure.suptitle(title, x=0.2 / across, y=1 - 0.1 / down, ha="left", va="top")
    panel = figure.add_axes((left / across, 0.62 / down, 4.3 / across, 1 - 1.5 / down))
    panel.set(xscale="log", xlim=(low, high), ylim=(len(names) - 0.45, -0.55))
    panel.axvline(1.0, color=GREY, linewidth=1, linestyle="--", zorder=1)
    for row, name in enumerate(names):
        _draw_row(panel, row, name, factors, truth or {})
    labels = [f"{name}\n(reference = 1)" if name == factors.reference else name for name in names]
    panel.set_yticks(np.arange(len(names)), labels)
    panel.tick_params(axis="y", length=0, pad=12)  # arrow heads reach over the edge
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.set_xlabel("factor" if factors.reference is None else f"factor relative to {factors.reference}, log axis")
    panel.set_xticks(_ticks(low, high))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda factor, _: f"{factor:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    heading: dict[str, Any] = {"va": "bottom", "fontsize": 9, "color": "#444444", "transform": panel.transAxes}
    panel.text(1.03, 1.0, "served", **heading)
    if of_experiment:
        panel.text(1.17, 1.0, "ratio [interval] in the experiment", **heading)
    _name_marks(figure, panel, factors, truth or {})
    return figure


def dose_response_plot(
    rows: EdgeDropRows, fit: DoseResponse, *, title: str = "What viewers lose as edges are dropped"
) -> Figure:
    """Draw one panel per edge type: mean loss at each dose, the fitted curve, and its slope at dose 0.

    Parameters
    ----------
    rows : EdgeDropRows
        What was fitted.
    fit : DoseResponse
        Of these rows.
    title : str
        Above all panels.

    Returns
    -------
    Figure
        Points are partial residuals: the fitted loss of the type plus what is left of each viewer once strata,
        covariates and the other types' doses are taken away, averaged by dose, with 95 % bars (robust, clustered where
        the rows have clusters). Above eight different doses they are averaged in six groups. Losses are of the metric,
        per viewer; each panel has its own vertical axis.

    Examples
    --------
    >>> import pandas as pd
    >>> from spr.edge_drop.dose_response import fit_dose_response
    >>> from spr.edge_drop.table import read_edge_drop
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"viewer_id": np.arange(900).astype(str), "edges_follow": 9,
    ...     "dropped_follow": rng.choice([0.0, 0.25, 0.5], 900)})
    >>> table["likes"] = 20 - 8 * table["dropped_follow"] + rng.normal(0, 1, 900)
    >>> rows = read_edge_drop(table, "likes")
    >>> [panel.get_title() for panel in dose_response_plot(rows, fit_dose_response(rows)).axes]
    ['follow']
    """
    alone = len(rows.edge_types) == 1
    figure, grid = panel_grid(len(rows.edge_types), title, height=3.6, above=0.75 if alone else 1.1)
    for number, edge_type in enumerate(rows.edge_types):
        panel = figure.add_subplot(grid[divmod(number, min(len(rows.edge_types), PANELS_A_ROW))])
        dose, slope = rows.dropped[:, number], float(fit.loss[number])
        along = np.linspace(0.0, float(dose.max()), 101)
        at, mean, half = _mean_by_dose(dose, _loss(rows, fit, number, dose) - fit.residual, rows.cluster)
        panel.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
        panel.plot(along, slope * along, color=GREY, linestyle="--", linewidth=1.4, label="slope at dose 0", zorder=2)
        panel.plot(along, _loss(rows, fit, number, along), color=OTHER_INK, linewidth=2, label="fitted curve", zorder=3)
        bars: dict[str, Any] = {"color": INK, "markersize": 5, "capsize": 3, "linewidth": 1.2, "zorder": 4}
        panel.errorbar(at, mean, half, fmt="o", label="mean at the dose, 95 %", **bars)
        panel.set_title(edge_type, fontsize=11)
        panel.set_xlabel("share of edges dropped")
        panel.grid(alpha=0.25)
        if number % PANELS_A_ROW == 0:
            panel.set_ylabel(f"{rows.metric} lost per viewer")
    if alone:
        figure.axes[0].legend(fontsize=8, frameon=False)
    else:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 1 - 0.38 / figure.get_size_inches()[1])}
        figure.legend(handles, labels, ncols=3, frameon=False, fontsize=9, **where)
    return figure


def page_mix_plot(mix: PageMix, *, title: str = "Where cohorts of each edge type stand") -> Figure:
    """Draw the page mix under the factors that are served, beside that under the new ones where they differ.

    Parameters
    ----------
    mix : PageMix
        Of :func:`spr.edge_drop.page_mix`.
    title : str
        Above all panels.

    Returns
    -------
    Figure
        Three panels, one row per edge type: share of the placements within the top, share of the first places, mean
        position.
    """
    table = mix.by_edge_type
    before_only = mix.before == mix.after
    names = [str(name) for name in table.index]
    bottom, row = (0.15, 0.5) if before_only else (0.55, 0.75)
    down = 0.85 + bottom + row * len(names)
    left = _room_for(names)
    across = left + 9.3
    figure = Figure(figsize=(across, down))
    figure.suptitle(title, y=1 - 0.1 / down, va="top")
    grid = figure.add_gridspec(
        1, 3, left=left / across, right=1 - 0.3 / across, bottom=bottom / down, top=1 - 0.75 / down, wspace=0.14
    )
    panels = (
        ("share", f"of the placements in the top {mix.within_top}"),
        ("first", "of the first places"),
        ("position", "mean position, 0 = top"),
    )
    for number, (column, name) in enumerate(panels):
        panel = figure.add_subplot(grid[number])
        _draw_mix(panel, table, column, before_only=before_only)
        panel.set_yticks(np.arange(len(names)), names if number == 0 else [""] * len(names))
        panel.set_title(name, fontsize=10)
    if not before_only:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        where: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.0)}
        figure.legend(handles, labels, ncols=2, frameon=False, fontsize=9, **where)
    return figure


def _limits(factors: ImportanceFactors, names: list[str], truth: Mapping[str, float]) -> tuple[float, float]:
    """Return the ends of the axis: 1, all marks, and the intervals as far as they are near them."""
    marks = [1.0, *(factors.factor.get(name, 1.0) for name in names)]
    marks += [
        value for part in (factors.estimate, truth) for name, value in part.items() if name in names and value > 0
    ]
    least, most = min(marks) / _REACH, max(marks) * _REACH
    bounds = [bound for name in names for bound in factors.interval.get(name, ()) if bound is not None]
    near = [*marks, *(float(np.clip(bound, least, most)) for bound in bounds if bound > 0)]
    if any(bound <= 0 for bound in bounds):
        near.append(least)
    low, high = min(near), max(near)
    room = max((high / low) ** 0.06, 1.2)
    return low / room, high * room


def _room_for(names: list[str]) -> float:
    """Return the inches that labels of rows need."""
    return max(1.5, 0.45 + 0.085 * max(map(len, names)))


def _ticks(low: float, high: float) -> Floats:
    """Return at least three round numbers inside a log axis that holds 1, and 1 among them."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    inside = np.ones(1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        ticks = np.sort(np.outer(decades, steps).ravel()).round(12)
        inside = ticks[(ticks >= low) & (ticks <= high)]
        if len(inside) >= 3:
            break
    return inside


def _draw_row(panel: Axes, row: int, name: str, factors: ImportanceFactors, truth: Mapping[str, float]) -> None:
    kept = factors.decision.get(name, USE) != USE
    ink, low, high = GREY if kept else INK, *panel.get_xlim()
    estimate, served = factors.estimate.get(name), factors.factor.get(name, 1.0)
    is_reference = name == factors.reference
    if name in factors.interval and not is_reference:
        least, most = factors.interval[name]
        ends = (low if least is None or least < low else least, high if most is None or most > high else most)
        panel.hlines(row, *ends, color=ink, linewidth=1.6, zorder=2)
        for bound, marker, cut in ((ends[0], "<", ends[0] == low), (ends[1], ">", ends[1] == high)):
            size = 8 if cut else 9
            panel.plot(bound, row, marker if cut else "|", color=ink, markersize=size, clip_on=False, zorder=3)
    if estimate is not None and not is_reference:
        marker = "o" if estimate > low else "<"
        style: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.6, "markersize": 8, "zorder": 4}
        panel.plot(max(estimate, low), row, marker, color=ink, clip_on=False, **style)
    below = 0.21 if factors.estimate else 0.0
    panel.plot(served, row + below, "s" if is_reference else "D", color=ink, markersize=6, clip_on=False, zorder=5)
    if truth.get(name, 0.0) > 0:
        panel.plot(truth[name], row - 0.22, "x", color="black", markersize=7, markeredgewidth=1.8, zorder=6)
    words: dict[str, Any] = {"va": "center", "fontsize": 9, "color": "#6b6b6b" if kept else "black"}
    across = panel.get_yaxis_transform()
    panel.text(1.03, row, f"{served:.3g}", transform=across, fontweight="bold", **words)
    if is_reference or not (name in factors.interval or estimate is not None):
        return
    said = _ratio_in_words(estimate, factors.interval.get(name))
    panel.text(1.17, row, f"{said}\n{factors.decision[name]}" if kept else said, transform=across, **words)


def _ratio_in_words(estimate: float | None, interval: tuple[float | None, float | None] | None) -> str:
    ratio = "not known" if estimate is None else f"{estimate:.3g}"
    if interval is None:
        return ratio
    if interval == (None, None):
        return f"{ratio} [unbounded]"
    low, high = ("unbounded" if bound is None else f"{bound:.3g}" for bound in interval)
    return f"{ratio} [{low}, {high}]"


def _name_marks(figure: Figure, panel: Axes, factors: ImportanceFactors, truth: Mapping[str, float]) -> None:
    """Put a legend of the marks that are there under the title."""
    marks = []
    if factors.estimate:
        style: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.6}
        marks += panel.plot([], [], "o-", color=INK, label="ratio in the experiment, interval", **style)
    marks += panel.plot([], [], "D", color=INK, label="factor that is served")
    if truth:
        marks += panel.plot([], [], "x", color="black", markeredgewidth=1.8, label="truth")
    if any(made != USE for made in factors.decision.values()):
        marks += panel.plot([], [], "D", color=GREY, label=KEEP.split(":")[0])
    across, down = figure.get_size_inches()
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.1 / across, 1 - 0.33 / down)}
    figure.legend(handles=marks, ncols=len(marks), frameon=False, fontsize=9, handletextpad=0.4, **where)


def _loss(rows: EdgeDropRows, fit: DoseResponse, place: int, dose: Floats) -> Floats:
    """Return the fitted loss of one edge type at some doses."""
    if fit.form != "quadratic":
        return np.asarray(fit.loss[place] * power_loss(dose, fit.curvature))
    size = len(rows.edge_types)
    coefficient = np.linalg.lstsq(fit.design, rows.outcome - fit.residual, rcond=None)[0]
    # After the levels: slopes, squares, and the products of both with each covariate.
    start = fit.design.shape[1] - 2 * size * (1 + rows.covariates.shape[1])
    return np.asarray(fit.loss[place] * dose + coefficient[start + size + place] * dose**2)


def _mean_by_dose(dose: Floats, loss: Floats, cluster: NDArray[np.int64] | None) -> tuple[Floats, Floats, Floats]:
    """Return dose, mean loss and half its 95 % interval, of each dose or of groups of them."""
    levels, group = np.unique(dose, return_inverse=True)
    if len(levels) > _MOST_DOSES:
        cuts = np.quantile(dose[dose > 0], np.linspace(0, 1, _GROUPS + 1)[1:-1])
        group = np.where(dose > 0, 1 + np.searchsorted(cuts, dose), 0)
    at, mean, half = [], [], []
    for number in np.unique(group):
        here = group == number
        at.append(dose[here].mean())
        mean.append(loss[here].mean())
        influence = here * (loss - mean[-1]) / here.mean()
        half.append(_NORMAL * np.sqrt(covariance_of(influence[:, None], cluster)[0, 0]))
    return np.array(at), np.array(mean), np.array(half)


def _draw_mix(panel: Axes, table: pd.DataFrame, column: str, *, before_only: bool) -> None:
    rows = np.arange(len(table))
    sides = (
        {"before": (0.0, "factors served now")}
        if before_only
        else {
            "before": (-0.2, "factors served now"),
            "after": (0.2, "new factors"),
        }
    )
    most = max(float(table[f"{column}_{side}"].max()) for side in sides)
    for side, (shift, label) in sides.items():
        values = table[f"{column}_{side}"].to_numpy()
        fill: dict[str, Any] = (
            {"color": "#d9d9d9", "edgecolor": "#555555"} if side == "before" else {"color": INK, "edgecolor": INK}
        )
        panel.barh(rows + shift, values, height=0.36, label=label, **fill)
        for row, value in zip(rows, values, strict=True):
            said = f"{value:.2f}" if column == "position" else f"{100 * value:.1f} %"
            panel.text(value + 0.015 * most, row + shift, said, va="center", fontsize=8)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlim(0, 1.24 * most)
    panel.set_xticks([])
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
