"""Several curves of one ranker beside what was observed: for choosing a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from calibration.diagnostics.reliability import reliability_table
from calibration.errors import CalibrationError
from calibration.plots.axes import (
    GREY,
    INK,
    OTHER_INK,
    PANELS_A_ROW,
    QUANTILE_LABEL,
    label_quantiles,
    panel_grid,
    response_name,
    scale_responses,
)
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from calibration.curve import ResponseCurve

    Floats = NDArray[np.float64]

_FEWEST_ROWS = 40
_MARGIN = 2.0  # of the odds of a quantile


class _Observed(NamedTuple):
    quantile: Floats
    mean: Floats
    low: Floats
    high: Floats


def comparison_plot(
    curves: Mapping[str, ResponseCurve],
    raw_score: ArrayLike,
    response: ArrayLike,
    *,
    examination: ArrayLike | None = None,
    viewer: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    n_bins: int = 16,
    title: str = "Curves of one ranker, and what was observed",
) -> Figure:
    """Draw each curve of one ranker in a panel of its own, over the same observed bins.

    Parameters
    ----------
    curves : mapping of name to ResponseCurve
        Of one ranker and one response family, for instance one per method; at least one. Names are the panels' titles.
    raw_score, response : float[n]
        Rows to hold the curves against, best those that they were not fitted on; rows with a NaN are left out.
    examination : float[n], optional
        Relative examination in (0, 1]; observed means are divided by that of their bin. Default 1.
    viewer : any[n], optional
        Whose row it is, for the intervals. Default: all rows are independent.
    truth : float[n], optional
        The true expected response of each row, where it is known: drawn dotted.
    n_bins : int
        Observed bins; half of them resolve the best and the worst scores, none has fewer than 40 rows.
    title : str
        Above all panels.

    Returns
    -------
    Figure
        Points with 95 % intervals; a bin without a response is an open triangle on the lower edge. The quantile
        is among the scores of the first curve's fit, on a log-odds axis.

    Raises
    ------
    CalibrationError
        No curve, curves of several families, unequal lengths, or no row left.

    Examples
    --------
    >>> from calibration import QuantileResponseCalibrator
    >>> score, response = np.arange(900.0), np.arange(900) % 30 < np.arange(900) / 60
    >>> curves = {m: QuantileResponseCalibrator(method=m).fit(score, response).curve_ for m in ("spline", "sigmoid")}
    >>> [panel.get_title() for panel in comparison_plot(curves, score, response).axes]
    ['spline', 'sigmoid']
    """
    # a fitted calibrator is as good as its curve
    curves = {name: getattr(curve, "curve_", curve) for name, curve in curves.items()}
    families = sorted({curve.form.response for curve in curves.values()})
    if len(families) != 1:
        raise CalibrationError(f"curves of one response family are compared; found {', '.join(families) or 'none'}")
    kind, table = families[0], next(iter(curves.values())).table
    rows = _rows(raw_score, response, examination, viewer, truth)
    points = _observe(rows, table, kind, n_bins)
    true = None if truth is None else _truth(rows, table)
    # A little beyond the observed bins: the far tails would squeeze everything else.
    odds = points.quantile[[0, -1]] / (1 - points.quantile[[0, -1]]) * (1 / _MARGIN, _MARGIN)
    lowest, highest = odds / (1 + odds)
    centre = np.concatenate(
        [points.mean, points.high, *(np.interp(points.quantile, c.table.quantile, c.values) for c in curves.values())]
    )

    figure, grid = panel_grid(len(curves), title, height=3.7, above=1.15)
    for number, (name, curve) in enumerate(curves.items()):
        panel = figure.add_subplot(grid[divmod(number, min(len(curves), PANELS_A_ROW))])
        panel.plot(curve.table.quantile, curve.values, color=OTHER_INK, linewidth=1.8, label="curve", zorder=3)
        if true is not None:
            panel.plot(*true, color="black", linestyle=":", linewidth=1.6, label="truth", zorder=4)
        some = (points.mean > 0) | (kind == "continuous")
        panel.plot(points.quantile[some], points.mean[some], "o", color=INK, markersize=4.5, label="observed, 95 %")
        label_quantiles(panel, lowest, highest)
        scale_responses(panel, centre, kind)
        floor = panel.get_ylim()[0]
        panel.vlines(points.quantile, np.maximum(points.low, floor), points.high, color=INK, linewidth=1.1, alpha=0.7)
        panel.plot(
            points.quantile[~some],
            np.full(np.count_nonzero(~some), floor),
            "v",
            color=INK,
            markerfacecolor="white",
            clip_on=False,
        )
        panel.set_title(name, fontsize=11)
        panel.grid(alpha=0.25, color=GREY)
        if number % PANELS_A_ROW == 0:
            panel.set_ylabel(response_name(kind))
    figure.supxlabel(QUANTILE_LABEL, fontsize=10, y=0.12 / figure.get_figheight())
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper center",
        ncols=3,
        frameon=False,
        bbox_to_anchor=(0.5, 1 - 0.36 / figure.get_figheight()),
    )
    return figure


def _rows(
    raw_score: ArrayLike,
    response: ArrayLike,
    examination: ArrayLike | None,
    viewer: ArrayLike | None,
    truth: ArrayLike | None,
) -> pd.DataFrame:
    scores = np.asarray(raw_score, dtype=np.float64)
    columns = {"response": response, "examination": examination, "viewer": viewer, "truth": truth}
    rows = pd.DataFrame({"raw_score": scores})
    for name, values in columns.items():
        given = np.ones(scores.size) if values is None else np.asarray(values)
        if given.shape != scores.shape:
            raise CalibrationError(f"{name} has shape {given.shape}, raw_score {scores.shape}; they must be equal")
        rows[name] = np.arange(scores.size) if name == "viewer" and values is None else given
    usable = np.isfinite(scores) & ~pd.isna(rows["response"]).to_numpy()
    rows = rows.loc[usable].astype({"response": np.float64})
    if rows.empty:
        raise CalibrationError(f"no row among {scores.size:,} has both a raw score and a response")
    return rows


def _observe(rows: pd.DataFrame, table: QuantileTable, kind: str, n_bins: int) -> _Observed:
    scores = rows["raw_score"].to_numpy()
    bins = QuantileTable.fit(scores, n_bins=n_bins, tails=0.5).assign(scores)
    rows = rows.assign(quantile=table.quantile[table.assign(scores)])
    counts = np.bincount(bins)
    first = int(np.searchsorted(counts.cumsum(), _FEWEST_ROWS))
    last = counts.size - 1 - int(np.searchsorted(counts[::-1].cumsum(), _FEWEST_ROWS))
    bins = np.clip(bins, first, last) if first < last else np.zeros_like(bins)
    found = []
    for _, part in rows.groupby(bins):
        # One bin a call: the table gives its mean and an interval that knows of viewers.
        mean = reliability_table(
            np.full(len(part), 0.5), part["response"], 1, cluster=part["viewer"], response=kind
        ).iloc[0]
        examined = part["examination"].mean()
        own = mean[["observed_rate", "interval_low", "interval_high"]] / examined
        found.append([part["quantile"].mean(), *own.fillna(mean["observed_rate"] / examined)])
    return _Observed(*np.array(found).T)


def _truth(rows: pd.DataFrame, table: QuantileTable) -> tuple[Floats, Floats]:
    scores = rows["raw_score"].to_numpy()
    fine = QuantileTable.fit(scores, n_bins=200, tails=0.5)
    means = rows.assign(quantile=table.quantile[table.assign(scores)]).groupby(fine.assign(scores)).mean()
    return means["quantile"].to_numpy(), means["truth"].to_numpy()
