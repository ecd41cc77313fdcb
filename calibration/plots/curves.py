"""Every curve of a set of calibrators, and of the set before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from calibration.plots.axes import COLOURS, MARKERS, QUANTILE_LABEL, amount, label_quantiles, scale_responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from calibration.calibrator_set import CalibratorSet
    from calibration.curve import ResponseCurve
    from calibration.impressions import Ranker

_LINES = ("-", (0, (7, 1.5)), "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2, 2, 2)), (0, (5, 1, 1, 1)), (0, (2, 1)))
_ORDER = ("binary", "count", "continuous")


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
        An earlier set: its curves that are not in ``calibrators``, or differ there, are drawn dashed and lighter.

    Returns
    -------
    Figure
        The quantile is on a log-odds axis, which opens both tails. Without ``before`` each curve has its line
        style and marker besides its colour; with it, colour and marker tell entity types and versions, the line
        style tells after (solid) from before (dashed, open markers). One panel for each kind of response in the
        set: rates, counts and other numbers share no axis.

    Examples
    --------
    >>> from calibration import CalibratorSet, QuantileResponseCalibrator
    >>> curve = QuantileResponseCalibrator().fit(range(60), [0, 0, 1] * 20).curve_
    >>> len(curves_plot(CalibratorSet({("people", "p1"): curve})).axes)
    1
    """
    old = {} if before is None else {key: before[key] for key in before if not _is_same(key, before, calibrators)}
    curves = [(key, calibrators[key], False) for key in calibrators] + [(key, old[key], True) for key in old]
    kinds = [kind for kind in _ORDER if any(curve.form.response == kind for _, curve, _ in curves)]
    figure = Figure(figsize=(9.0, 0.6 + 4.6 * len(kinds)), layout="constrained")
    styles = _styles([key for key, _, _ in curves])
    panels = np.atleast_1d(figure.subplots(len(kinds), 1))
    for panel, kind in zip(panels, kinds, strict=True):
        own = [each for each in curves if each[1].form.response == kind]
        for key, curve, is_old in own:
            _draw_curve(panel, curve, styles[key], is_old=is_old, is_compared=before is not None)
        label_quantiles(
            panel,
            min(curve.table.quantile[0] for _, curve, _ in own),
            max(curve.table.quantile[-1] for _, curve, _ in own),
        )
        scale_responses(panel, np.concatenate([curve.values for _, curve, _ in own]), kind)
        panel.set_ylabel("expected response" + ("" if kind == "binary" else f" ({kind})"))
        panel.grid(alpha=0.25)
        own.sort(key=lambda each: (each[0][0], each[2], each[0][1]))
        handles = [
            Line2D([], [], **_look(styles[key], is_old=is_old, is_compared=before is not None), label=_label(*each))
            for each in own
            for key, _, is_old in [each]
        ]
        panel.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            title="entity type, ranker (base rate)",
            frameon=False,
            handlelength=3.2,
            borderaxespad=0.0,
            alignment="left",
        )
    panels[0].set_title(title)
    panels[-1].set_xlabel(QUANTILE_LABEL)
    return figure


def _is_same(key: Ranker, before: CalibratorSet, after: CalibratorSet) -> bool:
    if key not in after:
        return False
    old, new = before[key], after[key]
    return old is new or (old.values.size == new.values.size and bool(np.all(old.values == new.values)))


def _styles(keys: list[Ranker]) -> Mapping[Ranker, tuple[int, int]]:
    """Number the entity type, for its colour, and the ranker, for its marker."""
    types = sorted({entity_type for entity_type, _ in keys})
    rankers = sorted(set(keys))
    return {key: (types.index(key[0]), rankers.index(key)) for key in rankers}


def _look(style: tuple[int, int], *, is_old: bool, is_compared: bool) -> dict[str, object]:
    of_type, of_ranker = style
    line: object = _LINES[of_ranker % len(_LINES)]
    if is_compared:
        line = (0, (3, 2)) if is_old else "-"
    return {
        "color": COLOURS[of_type % len(COLOURS)],
        "linestyle": line,
        "marker": MARKERS[of_ranker % len(MARKERS)],
        "markerfacecolor": "white" if is_old else COLOURS[of_type % len(COLOURS)],
        "markersize": 5.5,
        "linewidth": 1.2 if is_old else 1.6,
        "alpha": 0.65 if is_old else 1.0,
    }


def _draw_curve(
    panel: Axes, curve: ResponseCurve, style: tuple[int, int], *, is_old: bool, is_compared: bool
) -> None:
    # Drawn by quantile and not by raw score: the scores of different rankers share no scale.
    panel.plot(
        curve.table.quantile,
        curve.values,
        markevery=(style[1] % 5 / 50 + (0.04 if is_old else 0.0), 0.12),
        **_look(style, is_old=is_old, is_compared=is_compared),  # type: ignore[arg-type]
    )


def _label(key: Ranker, curve: ResponseCurve, is_old: bool) -> str:
    return f"{'before: ' if is_old else ''}{key[0]}, {key[1]}  ({amount(curve.base_rate, curve.form.response)})"
