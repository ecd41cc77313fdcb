"""A/A checks tell honest errors from dishonest ones; counts are tested as edge-drop's are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from spr.errors import ConfigError
from spr.evaluation import a_a_check
from spr.evaluation.experiment.checks import check_arms, count_arms
from spr.evaluation.experiment.metrics import Metric
from spr.evaluation.experiment.table import read_arms


def test_independent_members_pass_and_clusters_taken_as_members_do_not() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(60), 10)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(600)], "cluster": cluster})
    table["likes"] = rng.poisson(rng.gamma(3.0, 2.0, 60)[cluster])
    table["shown"] = 1 + rng.poisson(20, 600)
    stages: list[tuple[str, int, int]] = []
    made = a_a_check(
        table,
        ["likes", "likes/shown"],
        n_splits=300,
        rng=rng,
        progress=lambda *stage: stages.append(stage),
    )
    assert not made["suspect"].any()
    assert made.index.tolist() == ["likes", "likes/shown"]
    assert (made["low"] <= made["false_positives"]).all()
    assert stages[-1] == ("splits", 300, 300)


def test_a_metric_that_one_member_makes_is_suspect() -> None:
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(400)], "likes": 1.0 + np.arange(400) % 2})
    table.loc[7, "likes"] = 1e6
    made = a_a_check(table, ["likes"], n_splits=300, rng=np.random.default_rng(1))
    assert made["suspect"].item()
    assert made["false_positives"].item() < 0.01  # Welch's t of one outlier is about 1, in either arm


def test_splits_are_drawn_by_cluster() -> None:
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(30), 20)
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(600)], "cluster": cluster})
    table["likes"] = rng.gamma(3.0, 2.0, 30)[cluster]
    assert not a_a_check(table, ["likes"], n_splits=200, rng=rng)["suspect"].item()
    same = [
        a_a_check(table, ["likes"], n_splits=40, rng=np.random.default_rng(5))["false_positives"].item()
        for _ in range(2)
    ]
    assert same[0] == same[1]


def test_counts_are_pearsons_chi_square() -> None:
    table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(900)], "arm": ["a"] * 480 + ["b"] * 420, "y": 1.0})
    rows = read_arms(table, [Metric("y")], control="a")
    made = count_arms(rows, {"a": 2.0, "b": 2.0})
    assert made["p_value"].iloc[0] == pytest.approx(chisquare([480, 420]).pvalue)
    assert check_arms(rows, [Metric("y")]).empty


def test_bad_numbers_are_refused() -> None:
    table = pd.DataFrame({"viewer_id": ["a", "b"], "y": [1.0, 2.0]})
    for wrong in ({"alpha": 1.0}, {"n_splits": 0}):
        with pytest.raises(ConfigError, match="alpha is"):
            a_a_check(table, ["y"], rng=np.random.default_rng(0), **wrong)
