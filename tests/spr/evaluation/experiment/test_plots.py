"""The forest plot draws what the comparison says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spr.evaluation import compare_arms
from spr.evaluation.experiment.plots import forest_plot


def test_every_comparison_has_a_row_and_doubts_are_written() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(n)], "segment": rng.choice(["x", "y"], n)})
    table["arm"] = rng.choice(["control", "b", "c"], n, p=[0.6, 0.3, 0.1])
    table["likes"], table["below"], table["noise"] = rng.poisson(9, n), rng.normal(-5, 1, n), rng.normal(0.01, 9, n)
    made = compare_arms(table, ["likes", "below", "noise"], most_loss={"likes": 0.05})
    figure = forest_plot(made, truth={("likes", "b"): 0.0})
    figure.canvas.draw()
    (panel,) = figure.axes
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels[:3] == ["likes, b", "likes, c", "likes, b, x"]
    assert len(labels) == len(made.to_pandas())
    written = [text.get_text() for text in panel.texts]
    assert sum("control not above 0" in text for text in written) >= 6
    assert any("passed" in text or "not certain" in text for text in written)
    assert any("sample ratio" in text.get_text() for text in figure.texts)
    low, high = panel.get_xlim()
    likes = made.to_pandas().query("metric == 'likes'")["relative"]
    assert low < likes.min() <= likes.max() < high
    assert (panel.get_legend() is not None) == ("true" in [t.get_text() for t in panel.get_legend().get_texts()])
