from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.edge_drop.table import read_edge_drop
from spr.errors import InvalidExperiment, TableError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def table() -> pd.DataFrame:
    n = 60
    return pd.DataFrame(
        {
            "viewer_id": [f"v{i}" for i in range(n)],
            "dropped_follow": np.tile([0.0, 0.5], n // 2),
            "edges_follow": 4,
            "downstream_edges_follow": 1,
            "dropped_subscribe": np.tile([0.0, 0.0, 0.25], n // 3),
            "edges_subscribe": 2,
            "downstream_edges_subscribe": 2,
            "likes": np.arange(n),
            "pre_likes": np.arange(n)[::-1],
            "comments": 1,
            "pre_comments": 2,
        }
    )


def test_every_form_of_the_table_is_read_alike(table: pd.DataFrame, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    read = [read_edge_drop(t, "likes") for t in (table, tmp_path / "t.csv", tmp_path / "t.parquet")]
    for other in read[1:]:
        np.testing.assert_array_equal(other.dropped, read[0].dropped)
        np.testing.assert_array_equal(other.covariates, read[0].covariates)
        assert list(other.viewer_id) == list(read[0].viewer_id)
    assert read[0].edge_types == ("follow", "subscribe")
    assert read[0].has_pre
    assert read[0].covariates.mean() == pytest.approx(0)


def test_metrics_are_summed_by_their_weights(table: pd.DataFrame) -> None:
    rows = read_edge_drop(table, {"likes": 1.0, "comments": 3.0})
    np.testing.assert_allclose(rows.outcome, table["likes"] + 3.0)
    np.testing.assert_allclose(rows.covariates[:, 0], table["pre_likes"] - table["pre_likes"].mean())
    assert rows.metric == "1 likes + 3 comments"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropped_follow": 1.5}, r"dropped_follow is outside \[0, 1\] in 60 of 60 rows; first: viewer_id='v0'"),
        ({"dropped_follow": -0.1}, r"dropped_follow is outside \[0, 1\]"),
        ({"dropped_follow": np.nan}, "dropped_follow is outside"),
        ({"edges_follow": -1}, "edges_follow is negative in 60"),
        ({"edges_follow": "many"}, "edges_follow is not a number"),
        ({"likes": np.inf}, "likes is null or infinite"),
        ({"downstream_edges_follow": 5}, "downstream_edges_follow is more than edges_follow in 60"),
        ({"viewer_id": "v1"}, "viewer_id is not unique in 59 of 60 rows"),
        ({"viewer_id": None}, "viewer_id is null"),
        ({"cluster": None}, "cluster is null"),
    ],
)
def test_what_breaks_the_contract_is_refused(table: pd.DataFrame, change: dict[str, object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_edge_drop(table.assign(**change), "likes")


@pytest.mark.parametrize("column", ["viewer_id", "likes", "edges_subscribe"])
def test_a_missing_column_is_named(table: pd.DataFrame, column: str) -> None:
    with pytest.raises(TableError, match=f"column '{column}' is missing"):
        read_edge_drop(table.drop(columns=column), "likes")


def test_unknown_edge_types_and_tables_without_any_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(TableError, match="Did you mean 'follow'"):
        read_edge_drop(table, "likes", edge_types=["folow"])
    with pytest.raises(TableError, match="no column dropped_"):
        read_edge_drop(table[["viewer_id", "likes"]], "likes")
    with pytest.raises(InvalidExperiment, match="weights"):
        read_edge_drop(table, {})


def test_viewers_without_a_metric_are_left_out_and_counted(table: pd.DataFrame) -> None:
    table["likes"] = table["likes"].astype(float)
    table.loc[:4, "likes"] = np.nan
    rows = read_edge_drop(table, "likes")
    assert rows.n == 55
    assert rows.notes == ("5 of 60 viewers have no likes and are left out",)
    table.loc[:44, "likes"] = np.nan
    with pytest.raises(InvalidExperiment, match="15 viewers have a metric"):
        read_edge_drop(table, "likes")


def test_an_unknown_pre_period_is_an_indicator_of_its_own(table: pd.DataFrame) -> None:
    table["pre_likes"] = table["pre_likes"].astype(float)
    table.loc[:4, "pre_likes"] = np.nan
    rows = read_edge_drop(table, "likes")
    assert rows.covariates.shape == (60, 2)
    assert (rows.covariates[:5, 1] > 0).all()
    np.testing.assert_allclose(rows.covariates[:5, 0], 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"edges_subscribe": 0, "downstream_edges_subscribe": 0}, "none of 60 viewers had an edge of it"),
        ({"dropped_subscribe": 0.0}, "none of 60 viewers lost an edge of it"),
        ({"dropped_subscribe": 0.5}, "all of 60 viewers lost edges of it, none is a control"),
    ],
)
def test_a_type_that_cannot_be_valued_is_left_out_and_said(
    table: pd.DataFrame, change: dict[str, float], why: str
) -> None:
    rows = read_edge_drop(table.assign(**change), "likes")
    assert rows.edge_types == ("follow",)
    assert rows.notes == (f"subscribe is left out: {why}",)
    with pytest.raises(InvalidExperiment, match=why):
        read_edge_drop(table.assign(**change), "likes", edge_types=["subscribe"])


def test_columns_in_the_wrong_role_are_refused_and_a_lost_dose_is_said(table: pd.DataFrame) -> None:
    for metric in ("dropped_follow", "edges_follow", "pre_likes"):
        with pytest.raises(InvalidExperiment, match="is from before the experiment"):
            read_edge_drop(table, metric)
    for covariate in ("likes", "dropped_follow"):
        with pytest.raises(InvalidExperiment, match="is a metric or a dose"):
            read_edge_drop(table, "likes", covariates=[covariate])
    rows = read_edge_drop(table.drop(columns="dropped_follow"), "likes")
    assert rows.notes == ("follow is left out: the table has edges_follow and no dropped_follow",)
