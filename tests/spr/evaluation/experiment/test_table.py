"""The contract of the table: what is refused, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from spr.errors import ConfigError, InvalidExperiment, TableError
from spr.evaluation.experiment.metrics import Metric
from spr.evaluation.experiment.table import read_arms

if TYPE_CHECKING:
    from pathlib import Path

LIKES, RATE = Metric("likes"), Metric("likes", "shown")


def members(**columns: Any) -> pd.DataFrame:
    table = {
        "viewer_id": ["a", "b", "c", "d"],
        "arm": ["new", "control", "new", "control"],
        "likes": [1.0, 2.0, 0.0, 5.0],
        "shown": [9, 9, 0, 4],
    }
    return pd.DataFrame(table | columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"viewer_id": ["a", "a", "b", "c"]}, "viewer_id is not unique in 1 of 4 rows; first: 'a'"),
        ({"viewer_id": [1, 2, 3, 4]}, "viewer_id is not text in 4 of 4 rows"),
        ({"viewer_id": ["a", None, "b", "c"]}, "viewer_id is null in 1 of 4 rows"),
        ({"arm": ["new", None, "new", "control"]}, "arm is null in 1 of 4 rows; first: viewer_id='b'"),
        ({"likes": [1.0, np.inf, 0.0, 1.0]}, "likes is infinite in 1 of 4 rows; first: viewer_id='b'"),
        ({"likes": ["x", "y", "z", "w"]}, "likes is not a number"),
        ({"shown": [1, -2, 3, 4]}, "shown is negative, and the denominator of a ratio in 1 of 4 rows"),
        ({"pre_likes": [1.0, -np.inf, 3.0, 4.0]}, "pre_likes is infinite"),
        ({"cluster": ["x", "y", None, "y"]}, "cluster is null in 1 of 4 rows"),
        ({"segment": ["x", "y", None, "y"]}, "segment is null in 1 of 4 rows"),
        ({"segment": ["all", "y", "all", "y"]}, "a segment is called 'all'"),
        ({"arm": ["new", "old", "new", "old"]}, "unknown arm 'control' in control; known: new, old"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_with_the_first_row(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_arms(members(**columns), [RATE], control="control")


def test_missing_columns_and_rows_are_refused() -> None:
    with pytest.raises(TableError, match="column 'likes' is missing"):
        read_arms(members().drop(columns="likes"), [LIKES], control="control")
    with pytest.raises(TableError, match="no rows"):
        read_arms(members().iloc[:0], [LIKES], control="control")
    with pytest.raises(InvalidExperiment, match="all 4 members are in 'control'"):
        read_arms(members(arm="control"), [LIKES], control="control")


def test_an_outcome_is_no_covariate_and_a_past_no_metric() -> None:
    with pytest.raises(ConfigError, match="the covariate 'likes'"):
        read_arms(members(), [LIKES], control="control", covariates=["likes"])
    for column in ("pre_likes", "arm", "", "segment"):
        with pytest.raises(ConfigError, match="holds the column"):
            Metric.parse(f"likes/{column}")
    with pytest.raises(ConfigError, match="2 slashes"):
        Metric.parse("a/b/c")


def test_members_count_when_their_window_has_closed_whatever_happened() -> None:
    table = members(entered_at=["2026-03-01", "2026-03-02", "2026-03-08", "2026-03-09"])
    rows = read_arms(table, [LIKES], control="control", outcome_window="7D", snapshot="2026-03-09")
    assert rows.known(LIKES).tolist() == [True, True, False, False]
    for given in ({"snapshot": "2026-03-09"}, {"outcome_window": "7D"}):
        with pytest.raises(ConfigError, match="both, or neither"):
            read_arms(table, [LIKES], control="control", **given)
    with pytest.raises(TableError, match="no time"):
        read_arms(table, [LIKES], control="control", outcome_window="a week", snapshot="2026-03-09")
    table.loc[2, "entered_at"] = None
    with pytest.raises(TableError, match="entered_at is null in 1 of 4"):
        read_arms(table, [LIKES], control="control", outcome_window="7D", snapshot="2026-03-09")


def test_a_ratio_leaves_out_whom_either_column_is_null_for() -> None:
    table = members(likes=[1.0, None, 0.0, 5.0], shown=[9, 9, None, 4])
    rows = read_arms(table, [RATE, LIKES], control="control")
    assert rows.known(RATE).tolist() == [True, False, False, True]
    assert rows.known(LIKES).tolist() == [True, False, True, True]


def test_clusters_were_assigned_where_each_is_in_one_arm() -> None:
    whole = read_arms(members(cluster=["x", "y", "x", "z"]), [LIKES], control="control")
    torn = read_arms(members(cluster=["x", "x", "y", "z"]), [LIKES], control="control")
    assert whole.assigned_clusters
    assert not torn.assigned_clusters
    assert whole.n_units == torn.n_units == 3


def test_a_file_is_read_as_the_table_is(tmp_path: Path) -> None:
    members().to_parquet(tmp_path / "t.parquet")
    rows = read_arms(tmp_path / "t.parquet", [LIKES], control="control")
    np.testing.assert_array_equal(rows.arm, read_arms(members(), [LIKES], control="control").arm)
    assert rows.arms == ("control", "new")
