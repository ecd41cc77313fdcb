"""Pictures of factors, of doses and of the page mix: what is drawn is what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from calibration.plots.axes import GREY, INK
from spr.edge_drop.adoption import PageMix
from spr.edge_drop.dose_response import fit_dose_response
from spr.edge_drop.factors import KEEP
from spr.edge_drop.plots import dose_response_plot, forest_plot, page_mix_plot
from spr.edge_drop.table import EdgeDropRows, read_edge_drop
from spr.errors import ConfigError
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spr.edge_drop.dose_response import Form

FACTORS = ImportanceFactors(
    {"connection": 1.5, "follow": 1.0, "subscribe": 1.0, "join": 0.6},
    "follow",
    interval={"connection": (1.1, 2.0), "follow": (1.0, 1.0), "subscribe": (None, None), "join": (-0.2, 1.4)},
    estimate={"connection": 1.6, "follow": 1.0, "subscribe": -0.4, "join": 0.5},
    decision={"connection": "use", "follow": "use", "subscribe": KEEP, "join": "use"},
)


def _words(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.axes[0].texts)


def _marks(figure: Figure, row: int) -> dict[str, float]:
    """Return where each marker of a row stands; the served factor and the truth are drawn a little off the row."""
    lines = [line for line in figure.axes[0].lines if len(line.get_ydata()) == 1]
    return {
        str(line.get_marker()): float(line.get_xdata()[0])
        for line in lines
        if abs(float(line.get_ydata()[0]) - row) < 0.3
    }


def _cut(figure: Figure) -> None:
    """Draw, and make sure that no word is cut off at the edge of the picture."""
    figure.canvas.draw()
    width, height = figure.bbox.size
    texts = [*figure.texts, *(text for panel in figure.axes for text in panel.texts), *figure.axes[0].get_yticklabels()]
    if figure._suptitle is not None:
        texts.append(figure._suptitle)
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y1 <= height, text.get_text()


def test_forest_plot_shows_estimate_interval_and_served_factor() -> None:
    figure = forest_plot(FACTORS, truth={"connection": 1.7})
    marks = _marks(figure, 0)
    assert (marks["o"], marks["D"], marks["x"], marks["|"]) == (1.6, 1.5, 1.7, 2.0)
    assert "1.6 [1.1, 2]" in _words(figure)
    assert figure.axes[0].get_xscale() == "log"
    _cut(figure)


def test_forest_plot_unbounded_and_not_positive_are_arrows_and_numbers() -> None:
    figure = forest_plot(FACTORS)
    low, high = figure.axes[0].get_xlim()
    assert _marks(figure, 2)["<"] == low
    assert _marks(figure, 2)[">"] == high
    assert _marks(figure, 3)["<"] == low
    assert _marks(figure, 3)["|"] == 1.4
    assert "-0.4 [unbounded]" in _words(figure)
    assert "0.5 [-0.2, 1.4]" in _words(figure)


def test_forest_plot_kept_at_1_is_said_and_grey() -> None:
    figure = forest_plot(FACTORS)
    drawn = [line for line in figure.axes[0].lines if line.get_marker() == "D" and len(line.get_ydata())]
    colours = {round(float(line.get_ydata()[0])): line.get_color() for line in drawn}
    assert colours[0] == colours[3] == INK
    assert colours[2] == GREY
    assert KEEP in _words(figure)
    assert len([text for text in figure.axes[0].texts if KEEP in text.get_text()]) == 1


def test_forest_plot_marks_the_reference() -> None:
    figure = forest_plot(FACTORS)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [label for label in labels if "reference" in label] == ["follow\n(reference = 1)"]
    assert _marks(figure, 1) == {"s": 1.0}


def test_forest_plot_an_interval_far_beyond_the_marks_is_cut_off() -> None:
    factors = ImportanceFactors({"a": 2.0}, interval={"a": (0.5, 5000.0)}, estimate={"a": 2.0})
    figure = forest_plot(factors)
    assert figure.axes[0].get_xlim()[1] < 20
    assert ">" in _marks(figure, 0)
    assert "[0.5, 5e+03]" in _words(figure)


@pytest.mark.parametrize("factor", [{"a": 1.0}, {"a": 1.02, "b": 1.05}, {"a": 0.001, "b": 0.003}, {"a": 400.0}])
def test_forest_plot_has_ticks_at_every_scale(factor: dict[str, float]) -> None:
    figure = forest_plot(ImportanceFactors.of(factor), truth={"a": 0.0})
    low, high = figure.axes[0].get_xlim()
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) >= 2
    assert ((ticks >= low) & (ticks <= high)).all()
    _cut(figure)


def test_forest_plot_long_names_are_not_cut() -> None:
    _cut(forest_plot(ImportanceFactors.of({"connection_request_accepted_by_a_member": 2.0, "b": 1.0})))


def test_forest_plot_without_an_edge_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="name no edge type"):
        forest_plot(ImportanceFactors.of({}))


def _rows(n: int = 4000, *, cluster: bool = False, doses: str = "few") -> EdgeDropRows:
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "pre_likes": rng.poisson(30, n)})
    likes = table["pre_likes"] + rng.normal(0, 2, n)
    for edge_type, loss in (("follow", 8.0), ("join", 3.0)):
        dose = rng.choice([0, 0, 0, 0.1, 0.25, 0.5], n) if doses == "few" else np.maximum(rng.uniform(-0.5, 0.5, n), 0)
        table[f"dropped_{edge_type}"], table[f"edges_{edge_type}"] = dose, 10
        likes -= loss * (1 - np.sqrt(1 - dose)) / 0.5
    if cluster:
        table["cluster"] = np.arange(n) // 4
        likes += np.repeat(rng.normal(0, 6, n // 4), 4)
    return read_edge_drop(table.assign(likes=likes), "likes")


def _points(figure: Figure, panel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dose, mean and half the interval as drawn."""
    (bars,) = figure.axes[panel].containers
    segments = np.array(bars.lines[2][0].get_segments())
    return bars.lines[0].get_xdata(), bars.lines[0].get_ydata(), (segments[:, 1, 1] - segments[:, 0, 1]) / 2


@pytest.mark.parametrize("form", ["concave", "quadratic"])
def test_dose_response_plot_points_lie_on_the_true_losses(form: Form) -> None:
    rows = _rows()
    figure = dose_response_plot(rows, fit_dose_response(rows, form))
    for panel, loss in ((0, 8.0), (1, 3.0)):
        dose, mean, half = _points(figure, panel)
        assert dose == pytest.approx([0.0, 0.1, 0.25, 0.5])
        assert np.abs(mean - loss * (1 - np.sqrt(1 - dose)) / 0.5).max() < 2.0 * half.max()
        curve = next(line for line in figure.axes[panel].lines if line.get_label() == "fitted curve")
        at = np.interp(dose, curve.get_xdata(), curve.get_ydata())
        assert np.abs(at - mean).max() < 2.0 * half.max()
        assert at[0] == 0.0
    assert figure.axes[0].get_title() == "follow"


def test_dose_response_plot_the_slope_is_tangent_at_dose_0() -> None:
    rows = _rows()
    fit = fit_dose_response(rows)
    slope, curve = (
        next(line for line in dose_response_plot(rows, fit).axes[0].lines if line.get_label() == label)
        for label in ("slope at dose 0", "fitted curve")
    )
    step = slope.get_xdata()[1]
    assert slope.get_ydata()[1] == pytest.approx(fit.loss[0] * step)
    assert curve.get_ydata()[1] == pytest.approx(slope.get_ydata()[1], rel=0.01)
    assert curve.get_ydata()[-1] > slope.get_ydata()[-1]


def test_dose_response_plot_bars_allow_for_clusters() -> None:
    rows = _rows(cluster=True)
    clustered = _points(dose_response_plot(rows, fit_dose_response(rows)), 0)[2]
    alone = EdgeDropRows(**{**vars(rows), "cluster": None})
    assert clustered[0] > 1.2 * _points(dose_response_plot(alone, fit_dose_response(alone)), 0)[2][0]


def test_dose_response_plot_many_doses_are_averaged_in_groups() -> None:
    rows = _rows(doses="many")
    dose, mean, half = _points(dose_response_plot(rows, fit_dose_response(rows)), 0)
    assert len(dose) == 7
    assert np.abs(mean - 8.0 * (1 - np.sqrt(1 - dose)) / 0.5).max() < 2.0 * half.max()


def _mix(after: ImportanceFactors) -> PageMix:
    before = ImportanceFactors.of({"connection": 1.0})
    columns = {
        f"{column}_{side}": [low, high]
        for column in ("share", "first", "position")
        for side, low, high in (("before", 0.25, 0.75), ("after", 0.4, 0.6))
    }
    table = pd.DataFrame(columns, index=pd.Index(["connection", "follow"], name="edge_type"))
    return PageMix(table, table, before, after, 5, 10, 4, 0, 0.01)


def test_page_mix_plot_shows_both_sides_with_numbers() -> None:
    figure = page_mix_plot(_mix(ImportanceFactors.of({"connection": 2.0})))
    assert len(figure.axes) == 3
    assert [text.get_text() for text in figure.axes[0].texts] == ["25.0 %", "75.0 %", "40.0 %", "60.0 %"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["0.25", "0.75", "0.40", "0.60"]
    assert "top 5" in figure.axes[0].get_title()
    _cut(figure)


def test_page_mix_plot_of_the_same_factors_has_one_side() -> None:
    figure = page_mix_plot(_mix(ImportanceFactors.of({"connection": 1.0})))
    assert len(figure.axes[0].patches) == 2
    assert not figure.legends
