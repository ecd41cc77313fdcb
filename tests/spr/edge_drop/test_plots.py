from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.edge_drop.dose_response import fit_dose_response
from spr.edge_drop.plots import dose_response_plot, forest_plot, page_mix_plot
from spr.edge_drop.table import read_edge_drop
from spr.errors import InvalidExperiment
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tests.spr.edge_drop.conftest import Made


def drawn(figure: Figure) -> Axes:
    figure.canvas.draw()
    return figure.axes[0]


def markers(panel: Axes) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in panel.lines:
        if line.get_marker() not in ("None", None, ""):
            found.setdefault(str(line.get_marker()), []).extend(np.asarray(line.get_xdata(), dtype=float).tolist())
    return found


def test_forest_plot_shows_estimate_served_and_truth() -> None:
    factors = ImportanceFactors(
        {"connection": 2.0, "follow": 1.0},
        "follow",
        {"connection": (1.5, 3.0), "follow": (1.0, 1.0)},
        estimate={"connection": 2.2, "follow": 1.0},
        decision={"connection": "use", "follow": "use"},
        source={"per": "edge"},
    )
    panel = drawn(forest_plot(factors, truth={"connection": 2.4, "follow": 1.0}))
    marks = markers(panel)
    assert marks["o"] == [2.2]
    assert sorted(marks["s"]) == [1.0, 2.0]
    assert sorted(marks["D"]) == [1.0, 2.4]
    assert "<" not in marks
    assert panel.get_xscale() == "log"
    assert "value of an edge, relative to follow" in panel.get_xlabel()
    assert [label.get_text() for label in panel.get_yticklabels()] == ["follow", "connection"]


def test_forest_plot_has_arrows_where_there_is_no_bound() -> None:
    factors = ImportanceFactors(
        {"a": 1.0, "b": 1.0, "c": 1.0, "d": 2.0},
        "a",
        {"a": (1.0, 1.0), "b": (None, None), "c": (-0.5, 3.0), "d": (0.9, 5000.0)},
        estimate={"b": -3.0, "c": 0.8, "d": 2.1},
        decision={"b": "kept at 1: too noisy to act on", "c": "kept at 1: too noisy to act on", "d": "use"},
    )
    panel = drawn(forest_plot(factors))
    marks = markers(panel)
    assert len(marks["<"]) == 2  # b and c
    assert len(marks[">"]) == 2  # b and d
    assert marks["o"] == [0.8, 2.1] or marks["o"] == [2.1, 0.8]  # a negative estimate has no place on a log axis
    assert sum("too noisy" in text.get_text() for text in panel.texts) == 2
    high = panel.get_xlim()[1]
    assert high < 100


def test_forest_plot_of_chosen_factors_has_no_intervals() -> None:
    panel = drawn(forest_plot(ImportanceFactors.of({"connection": 1.4, "follow": 1.0})))
    assert set(markers(panel)) == {"s"}
    assert not panel.collections


def test_dose_response_plot_draws_what_was_lost(make_experiment: Callable[..., Made]) -> None:
    made = make_experiment(20_000, np.random.default_rng(3), (2.5, 2.0, 2.0))
    rows = read_edge_drop(made.table, "likes")
    fit = fit_dose_response(rows)
    figure = dose_response_plot(rows, fit)
    drawn(figure)
    assert [panel.get_title() for panel in figure.axes] == ["t0", "t1", "t2"]
    for place, panel in enumerate(figure.axes):
        container = panel.containers[0]
        x, y = container.lines[0].get_data()
        expected = np.interp(x, *next(line for line in panel.lines if len(line.get_xdata()) == 60).get_data())
        bars = container.lines[2][0].get_segments()
        half = np.array([(bar[1, 1] - bar[0, 1]) / 2 for bar in bars])
        assert y[0] == 0
        assert (np.abs(y - expected)[1:] < 2 * half[1:] + 1e-9).all(), place
    with pytest.raises(InvalidExperiment, match="quadratic"):
        dose_response_plot(rows, fit_dose_response(rows, "quadratic"))


def test_page_mix_plot_writes_the_change() -> None:
    mix = pd.DataFrame({"share_before": [0.6, 0.4], "share_after": [0.5, 0.5]}, index=["follow", "connection"])
    panel = drawn(page_mix_plot(mix, within_top=5))
    assert [text.get_text() for text in panel.texts] == ["-10.0", "+10.0"]
    assert "top 5" in panel.get_ylabel()
