from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
import pytest

from calibration import CalibratorSet, QuantileResponseCalibrator, reliability_table
from calibration.plots import curves_plot, reliability_plot


def _calibrators(n_types: int) -> CalibratorSet:
    rng = np.random.default_rng(0)
    curves = {}
    for number in range(n_types):
        raw_score = rng.normal(size=400)
        response = rng.random(400) < 0.1 * (number + 1) / n_types
        curves[f"type{number}", "v1"] = QuantileResponseCalibrator().fit(raw_score, response).curve_
    return CalibratorSet(curves)


@pytest.mark.parametrize("n_tables", [1, 3, 7])
def test_reliability_plot_draws_points_at_the_tables_rates(n_tables: int) -> None:
    rng = np.random.default_rng(1)
    probability = rng.beta(1, 20, 2000)
    table = reliability_table(probability, rng.random(2000) < probability)
    figure = reliability_plot({f"type {number}": table for number in range(n_tables)}, title="Held-out rows")
    figure.savefig(BytesIO(), format="png", dpi=30)
    panel = figure.axes[0]
    assert len(figure.axes) == 2 * n_tables
    assert figure.get_suptitle() == "Held-out rows"
    assert "type 0" in panel.get_title()
    drawn = np.column_stack(panel.lines[1].get_data())
    seen = table[table["observed_rate"] > 0]
    np.testing.assert_allclose(drawn, seen[["mean_prediction", "observed_rate"]])


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_reliability_plot_survives_bins_without_any_or_only_responses(label: float) -> None:
    table = reliability_table(np.linspace(0.01, 0.2, 50), np.full(50, label))
    reliability_plot({"odd": table}).savefig(BytesIO(), format="png", dpi=30)


@pytest.mark.parametrize("n_types", [1, 8])
def test_curves_plot_names_each_ranker(n_types: int) -> None:
    figure = curves_plot(_calibrators(n_types))
    figure.savefig(BytesIO(), format="png", dpi=30)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == n_types
    assert all(label.startswith("type") and "v1" in label for label in labels)
    styles = {(line.get_linestyle(), line.get_marker(), line.get_color()) for line in figure.axes[0].lines}
    assert len(styles) == n_types


def test_plots_touch_no_global_figure() -> None:
    curves_plot(_calibrators(1))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
