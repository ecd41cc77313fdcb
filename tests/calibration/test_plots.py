from __future__ import annotations

import sys
from io import BytesIO
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from calibration import CalibrationError, CalibratorSet, QuantileResponseCalibrator, drift_table, reliability_table
from calibration.plots import comparison_plot, curves_plot, drift_plot, reliability_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox


def _calibrators(n_types: int, *, version: str = "v1", level: float = 0.1, response: str = "binary") -> CalibratorSet:
    rng = np.random.default_rng(0)
    curves = {}
    for number in range(n_types):
        raw_score = rng.normal(size=400)
        labels = rng.random(400) < level * (number + 1) / n_types
        fitted = QuantileResponseCalibrator(response=response).fit(raw_score, labels)
        curves[f"type{number}", version] = fitted.curve_
    return CalibratorSet(curves)


def _log(n_types: int, n_days: int, level: float = 1.0) -> pd.DataFrame:
    rng, n = np.random.default_rng(1), 300 * n_days
    parts = []
    for number in range(n_types):
        raw_score = rng.random(n)
        parts.append(
            pd.DataFrame(
                {
                    "entity_type": f"type{number}",
                    "ranker_version": "v1",
                    "raw_score": raw_score,
                    "response": (rng.random(n) < 0.4 * level * raw_score).astype(float),
                    "at": pd.Timestamp("2026-05-28") + pd.to_timedelta(np.arange(n) // 300, unit="D"),
                    "viewer_id": np.arange(n) // 2,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Draw the figure; return every text that is drawn, with the box it takes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden: set[int] = set()
    for panel in figure.axes:
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            for minor in (False, True):
                places, labels = axis.get_ticklocs(minor=minor), axis.get_ticklabels(minor=minor)
                hidden |= {id(label) for place, label in zip(places, labels, strict=False) if not low <= place <= high}
                hidden |= {id(label) for label in labels[len(places) :]}
    drawn = [each for each in figure.findobj(Text) if isinstance(each, Text) and id(each) not in hidden]
    return [
        (each.get_text(), each.get_window_extent(canvas.get_renderer()))
        for each in drawn
        if each.get_visible() and each.get_text().strip()
    ]


def _assert_texts_are_apart_and_inside(figure: Figure) -> None:
    texts = _texts(figure)
    for (one, first), (other, second) in combinations(texts, 2):
        overlap_x = min(first.x1, second.x1) - max(first.x0, second.x0)
        overlap_y = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(overlap_x, overlap_y) <= 1.0, f"{one!r} and {other!r} overlap"
    for text, box in texts:
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= figure.bbox.y1 + 1, text


@pytest.mark.parametrize("n_tables", [1, 3, 7])
def test_reliability_plot_draws_points_at_the_tables_rates(n_tables: int) -> None:
    rng = np.random.default_rng(1)
    probability = rng.beta(1, 20, 2000)
    table = reliability_table(probability, rng.random(2000) < probability)
    figure = reliability_plot({f"type {number}": table for number in range(n_tables)}, title="Held-out rows")
    panel = figure.axes[0]
    assert len(figure.axes) == 2 * n_tables
    assert figure.get_suptitle() == "Held-out rows"
    assert "type 0" in panel.get_title()
    drawn = np.column_stack(panel.lines[1].get_data())
    seen = table[table["observed_rate"] > 0]
    np.testing.assert_allclose(drawn, seen[["mean_prediction", "observed_rate"]])
    _assert_texts_are_apart_and_inside(figure)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_reliability_plot_survives_bins_without_any_or_only_responses(label: float) -> None:
    table = reliability_table(np.linspace(0.01, 0.2, 50), np.full(50, label))
    reliability_plot({"odd": table}).savefig(BytesIO(), format="png", dpi=30)


def test_reliability_plot_of_counts_goes_beyond_one_and_names_no_rate() -> None:
    rng = np.random.default_rng(2)
    expected = rng.gamma(2.0, 2.0, 3000)
    figure = reliability_plot(
        {"posts": reliability_table(expected, rng.poisson(expected), response="count")}, response="count"
    )
    panel = figure.axes[0]
    assert panel.get_ylim()[1] > 5
    assert "rate" not in panel.get_ylabel()
    assert not any("%" in text for text, _ in _texts(figure))
    _assert_texts_are_apart_and_inside(figure)


@pytest.mark.parametrize("n_types", [1, 8])
def test_curves_plot_names_each_ranker(n_types: int) -> None:
    figure = curves_plot(_calibrators(n_types))
    panel = figure.axes[0]
    legend = panel.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == n_types
    assert all(label.startswith("type") and "v1" in label for label in labels)
    in_grey = {(str(line._dash_pattern), line.get_marker()) for line in panel.lines}
    assert len(in_grey) == n_types
    _assert_texts_are_apart_and_inside(figure)


def test_curves_plot_gives_counts_a_panel_of_their_own() -> None:
    counts = _calibrators(1, version="posts", level=0.9, response="count")
    figure = curves_plot(CalibratorSet({**_calibrators(2).curves, **counts.curves}))
    assert [len(panel.lines) for panel in figure.axes] == [2, 1]
    assert "count" in figure.axes[1].get_ylabel()
    _assert_texts_are_apart_and_inside(figure)


@pytest.mark.parametrize("n_types", [1, 7])
def test_curves_plot_draws_before_dashed_and_after_solid(n_types: int) -> None:
    before, after = _calibrators(n_types), _calibrators(n_types, level=0.2)
    figure = curves_plot(after, "Two sets", before=before)
    assert len(figure.axes) == n_types
    for panel, key in zip(figure.axes, after, strict=True):
        old, new = panel.lines
        assert (old.get_linestyle(), new.get_linestyle()) == ("--", "-")
        np.testing.assert_array_equal(old.get_ydata(), before[key].values)
        np.testing.assert_array_equal(new.get_ydata(), after[key].values)
    _assert_texts_are_apart_and_inside(figure)


def test_curves_plot_draws_an_unchanged_curve_once_and_a_new_version_beside_it() -> None:
    before, newer = _calibrators(2), _calibrators(1, version="v2", level=0.3)
    figure = curves_plot(CalibratorSet({**before.curves, **newer.curves}), before=before)
    legends = [[text.get_text().split("  ")[0] for text in panel.get_legend().get_texts()] for panel in figure.axes]
    assert legends == [["unchanged: v1", "after: v2"], ["unchanged: v1"]]


@pytest.mark.parametrize("n_types", [1, 2, 4])
def test_drift_plot_draws_ratio_and_stability_of_each_ranker(n_types: int) -> None:
    log = _log(n_types, 12)
    table = drift_table(_log(n_types, 10, level=0.6), CalibratorSet.fit(log))
    assert table["drifted"].any()
    figure = drift_plot(table)
    assert len(figure.axes) == 2 * n_types
    rows = table[table["entity_type"] == "type0"]
    ratio, stability = figure.axes[:2]
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in (*ratio.lines, *stability.lines)]
    for column in ("ratio", "ratio_so_far", "psi"):
        assert any(line.size == len(rows) and np.allclose(line, rows[column]) for line in lines), column
    first = rows.loc[rows["drifted"], "window_start"].iloc[0]
    assert f"{first:%Y-%m-%d}" in ratio.get_title()
    low, high = ratio.get_ylim()
    assert low < rows["ratio"].min()
    assert high > max(rows["ratio"].max(), 1.0)
    _assert_texts_are_apart_and_inside(figure)


def test_drift_plot_of_continuous_responses_draws_the_difference() -> None:
    log = _log(2, 8)
    table = drift_table(log, CalibratorSet.fit(log))
    kind = np.where(table["entity_type"] == "type0", "continuous", "binary")
    table = table.assign(response=kind, difference=table["ratio"] - 1, difference_so_far=table["ratio_so_far"] - 1)
    of_difference = kind == "continuous"
    table.loc[of_difference, ["ratio", "ratio_so_far"]] = np.nan
    ends = ["interval_low", "interval_high", "so_far_low", "so_far_high"]
    table.loc[of_difference, ends] = table.loc[of_difference, ends] - 1
    figure = drift_plot(table)
    difference, ratio = figure.axes[0], figure.axes[2]
    assert (difference.get_yscale(), ratio.get_yscale()) == ("linear", "log")
    assert "observed - expected" in difference.get_ylabel()
    low, high = difference.get_ylim()
    assert low < 0 < high
    _assert_texts_are_apart_and_inside(figure)


def test_drift_plot_survives_windows_without_responses_and_few_viewers() -> None:
    log = _log(1, 12)
    later = _log(1, 4)
    later.loc[later.index[-600:], "response"] = np.nan
    table = drift_table(later.iloc[::20], CalibratorSet.fit(log))
    assert np.isinf(table["so_far_high"]).any()
    _assert_texts_are_apart_and_inside(drift_plot(table))


def test_drift_plot_refuses_a_table_without_rows_or_columns() -> None:
    table = drift_table(_log(1, 3), CalibratorSet.fit(_log(1, 3)))
    with pytest.raises(CalibrationError, match="no row"):
        drift_plot(table.iloc[:0])
    with pytest.raises(CalibrationError, match="psi_noise"):
        drift_plot(table.drop(columns="psi_noise"))


@pytest.mark.parametrize("response", ["binary", "count", "continuous"])
def test_comparison_plot_draws_each_curve_over_the_same_bins(response: str) -> None:
    rng, n = np.random.default_rng(3), 6000
    raw_score = rng.normal(size=n)
    truth = 1 / (1 + np.exp(2 - raw_score))
    draws = {
        "binary": (rng.random(n) < truth).astype(float),
        "count": rng.poisson(3 * truth).astype(float),
        "continuous": truth - 0.3 + rng.normal(size=n),
    }
    methods = ("loglinear", "spline", "isotonic", "steps")
    labels = draws[response]
    curves = {
        method: QuantileResponseCalibrator(method, response=response).fit(raw_score, labels).curve_
        for method in methods
    }
    figure = comparison_plot(curves, raw_score, labels, truth=truth, viewer=np.arange(n) // 3, title="One ranker")
    assert tuple(panel.get_title() for panel in figure.axes) == methods
    for panel, curve in zip(figure.axes, curves.values(), strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), curve.values)
    dots = [np.column_stack(panel.lines[2].get_data()) for panel in figure.axes]
    assert all(np.array_equal(dots[0], others) for others in dots[1:])
    _assert_texts_are_apart_and_inside(figure)


def test_comparison_plot_divides_by_examination_and_leaves_open_rows_out() -> None:
    rng, n = np.random.default_rng(4), 20_000
    raw_score, examined = rng.normal(size=n), np.where(np.arange(n) % 2, 1.0, 0.5)
    labels = (rng.random(n) < 0.2 * examined).astype(float)
    labels[:100] = np.nan
    curve = QuantileResponseCalibrator().fit(raw_score[100:], labels[100:], examination=examined[100:]).curve_
    figure = comparison_plot({"auto": curve}, raw_score, labels, examination=examined, n_bins=4)
    rates = np.asarray(figure.axes[0].lines[1].get_ydata(), dtype=float)
    np.testing.assert_allclose(rates, 0.2, atol=0.06)


def test_comparison_plot_refuses_curves_of_two_families_and_unequal_lengths() -> None:
    rate, count = _calibrators(1), _calibrators(1, response="count")
    both = {"rate": rate["type0", "v1"], "count": count["type0", "v1"]}
    with pytest.raises(CalibrationError, match="one response family"):
        comparison_plot(both, [1.0], [1.0])
    with pytest.raises(CalibrationError, match="response has shape"):
        comparison_plot({"rate": rate["type0", "v1"]}, [1.0, 2.0], [1.0])


def test_plots_touch_no_global_figure() -> None:
    curves_plot(_calibrators(1))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
