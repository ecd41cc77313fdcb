"""Every curve of a set of calibrators, and beside those of the set before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from calibration.plots.axes import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    OTHER_INK,
    PANELS_A_ROW,
    QUANTILE_LABEL,
    amount,
    label_quantiles,
    panel_grid,
    scale_responses,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from calibration.calibrator_set import CalibratorSet
    from calibration.curve import ResponseCurve
    from calibration.impressions import Ranker

_LINES = ("-", (0, (7, 1.5)), "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2, 2, 2)), (0, (5, 1, 1, 1)), (0, (2, 1)))
_KINDS = ("binary", "count", "continuous")
_LOWEST = 0.005  # the worst scores are hardly shown, and on a log axis they would take half of the picture


def curves_plot(
    calibrators: CalibratorSet,
    title: str = "Expected response by quantile of the raw score",
    *,
    before: CalibratorSet | None = None,
) -> Figure:
    """Draw every curve of a set: expected response against the quantile of the raw score.

    Parameters
    ----------
    calibrators : CalibratorSet
    title : str
    before : CalibratorSet, optional
        An earlier set to compare with. Its curves that are not in ``calibrators``, or differ there, are drawn
        dashed and lighter, with open markers.

    Returns
    -------
    Figure
        The quantile is on a log-odds axis, which opens both tails, from 0.005 on. Without ``before``: all curves in
        one panel, each with its line style and marker besides its colour; one panel for each kind of response,
        since rates, counts and other numbers share no axis. With ``before``: one panel per entity type, the axes the
        same for all types of a kind.

    Examples
    --------
    >>> from calibration import CalibratorSet, QuantileResponseCalibrator
    >>> curve = QuantileResponseCalibrator().fit(range(60), [0, 0, 1] * 20).curve_
    >>> first, second = (CalibratorSet({("people", version): curve}) for version in ("p1", "p2"))
    >>> len(curves_plot(first).axes)
    1
    >>> [text.get_text() for text in curves_plot(second, before=first).axes[0].get_legend().get_texts()]
    ['before: p1  (33.3 %)', 'after: p2  (33.3 %)']
    """
    return _together(calibrators, title) if before is None else _compared(calibrators, before, title)


def _together(calibrators: CalibratorSet, title: str) -> Figure:
    kinds = [kind for kind in _KINDS if any(calibrators[key].form.response == kind for key in calibrators)]
    figure = Figure(figsize=(9.0, 0.6 + 4.4 * len(kinds)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(kinds), 1))
    for panel, kind in zip(panels, kinds, strict=True):
        own = {key: calibrators[key] for key in calibrators if calibrators[key].form.response == kind}
        for number, ((entity_type, version), curve) in enumerate(own.items()):
            # Drawn by quantile and not by raw score: the scores of different rankers share no scale.
            panel.plot(
                curve.table.quantile,
                curve.values,
                color=COLOURS[number % len(COLOURS)],
                linestyle=_LINES[number % len(_LINES)],
                marker=MARKERS[number % len(MARKERS)],
                markevery=(number % 5 / 50, 0.1),
                markersize=5,
                linewidth=1.6,
                label=f"{entity_type}, {version}  ({amount(curve.base_rate, kind)})",
            )
        _scale(panel, list(own.values()), kind)
        # Beside the panel: curves that rise leave no corner free for seven names.
        panel.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            title=f"entity type, ranker ({'base rate' if kind == 'binary' else 'mean response'})",
            frameon=False,
            handlelength=3.6,
            borderaxespad=0.0,
            alignment="left",
        )
        panel.set_ylabel("expected response" + ("" if kind == "binary" else f" ({kind})"))
    panels[0].set_title(title)
    panels[-1].set_xlabel(QUANTILE_LABEL)
    return figure


def _compared(after: CalibratorSet, before: CalibratorSet, title: str) -> Figure:
    types = sorted({*after.entity_types, *before.entity_types})
    figure, grid = panel_grid(len(types), title, height=3.7)
    of_kind: dict[str, list[ResponseCurve]] = {}
    for curves in (after, before):
        for key in curves:
            of_kind.setdefault(curves[key].form.response, []).append(curves[key])
    for number, entity_type in enumerate(types):
        panel = figure.add_subplot(grid[divmod(number, min(len(types), PANELS_A_ROW))])
        drawn = [("before", key, before[key]) for key in before if not _is_kept(key, before, after)]
        drawn += [("unchanged" if _is_kept(key, before, after) else "after", key, after[key]) for key in after]
        drawn = [each for each in drawn if each[1][0] == entity_type]
        for place, (when, key, curve) in enumerate(drawn):
            _draw_compared(panel, when, key, curve, place)
        kind = drawn[0][2].form.response
        _scale(panel, of_kind[kind], kind)
        panel.legend(loc="lower right", frameon=False, fontsize=8, handlelength=2.8)
        panel.set_title(entity_type, fontsize=11)
        if number % PANELS_A_ROW == 0:
            panel.set_ylabel("expected response")
    figure.supxlabel(QUANTILE_LABEL, fontsize=10, y=0.12 / figure.get_figheight())
    return figure


def _is_kept(key: Ranker, before: CalibratorSet, after: CalibratorSet) -> bool:
    if key not in before or key not in after:
        return False
    old, new = before[key], after[key]
    return old is new or (np.array_equal(old.values, new.values) and np.array_equal(old.knots, new.knots))


def _draw_compared(panel: Axes, when: str, key: Ranker, curve: ResponseCurve, place: int) -> None:
    colour = {"before": GREY, "unchanged": INK, "after": OTHER_INK}[when]
    panel.plot(
        curve.table.quantile,
        curve.values,
        color=colour,
        linestyle=(0, (4, 2)) if when == "before" else "-",
        marker=MARKERS[place % len(MARKERS)],
        markerfacecolor="white" if when == "before" else colour,
        markevery=(place % 5 / 40, 0.14),
        markersize=5,
        linewidth=1.4 if when == "before" else 1.7,
        label=f"{when}: {key[1]}  ({amount(curve.base_rate, curve.form.response)})",
    )


def _scale(panel: Axes, curves: Sequence[ResponseCurve], kind: str) -> None:
    lowest = min(curve.table.quantile[0] for curve in curves)
    highest = max(curve.table.quantile[-1] for curve in curves)
    start = _LOWEST if lowest < _LOWEST < highest else lowest
    label_quantiles(panel, start, highest)
    shown = [curve.values[curve.table.quantile >= start] for curve in curves]
    at_start = [np.interp([start], curve.table.quantile, curve.values) for curve in curves]
    scale_responses(panel, np.concatenate([*shown, *at_start]), kind)
    panel.grid(alpha=0.25)
