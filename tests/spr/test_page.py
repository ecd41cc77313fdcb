"""The pages table: what stands on a page, as columns."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import spr
from spr.page import pages_table

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables

COLUMNS = [
    "request_id",
    "at",
    "viewer_id",
    "policy",
    "position",
    "cohort_id",
    "cohort_kind",
    "entity_type",
    "edge_type",
    "margin_fixed",
    "margin_member",
    "margin_unseen",
    "margin",
    "probability",
    "importance",
    "value",
    "reason",
    "propensity",
    "propensity_kind",
    "propensity_draws",
    "outcome_probability",
    "outcome_position",
    "optimal_for",
    "shortfall",
    "fallbacks",
    "version_bundle",
    "version_config",
    "version_calibrators",
    "version_features",
    "version_trees",
    "version_factors",
    "version_coefficients_member",
    "version_prices",
    "entity_id",
    "raw_score",
    "expected_response",
    "ranker_version",
]


@pytest.fixture(scope="module")
def requests(small_tables: WorldTables) -> pd.DataFrame:
    rows = small_tables.impressions
    return rows[rows["request_id"].isin(rows["request_id"].unique()[:150])]


@pytest.fixture(scope="module")
def pages(ranker: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables) -> pd.DataFrame:
    return ranker.rank_table(requests, small_tables.viewers, small_tables.entities)


def test_pages_table_has_the_contract_columns(pages: pd.DataFrame) -> None:
    assert list(pages) == COLUMNS


def test_pages_table_has_one_row_per_placement(pages: pd.DataFrame, requests: pd.DataFrame) -> None:
    scorable = requests[requests["raw_score"].notna()]
    shown = scorable.groupby(["request_id", "cohort_id"]).size()
    placed = pages.set_index(["request_id", "cohort_id"]).sort_index()
    assert placed.index.is_unique
    assert set(placed.index) == set(shown.index)
    assert (placed["entity_id"].map(len) == shown.sort_index()).all()
    positions = pages.groupby("request_id", sort=False)["position"].agg(list)
    assert all(found == list(range(len(found))) for found in positions)
    assert pages["request_id"].drop_duplicates().tolist() == requests["request_id"].drop_duplicates().tolist()


def test_pages_table_tells_random_pages_apart(pages: pd.DataFrame) -> None:
    shuffled = pages["policy"] == "random"
    assert 0 < pages.loc[shuffled, "request_id"].nunique() < 30  # of 150, 5 % expected
    assert set(pages["policy"]) == {"random", "spr"}
    assert (pages.loc[shuffled, "reason"] == "random").all()
    assert (pages.loc[shuffled, "propensity_kind"] == "exact").all()
    n = pages.groupby("request_id")["position"].transform("size")
    np.testing.assert_array_equal(pages.loc[shuffled, "propensity"], 1.0 / n[shuffled])
    assert pages.loc[~shuffled, "propensity"].isna().all()  # null, never 1
    assert (pages.loc[~shuffled, "propensity_kind"] == "none").all()
    assert pages.loc[shuffled, "shortfall"].isna().all()


def test_pages_table_parts_add_up(pages: pd.DataFrame) -> None:
    margins = pages[["margin_fixed", "margin_member", "margin_unseen"]]
    np.testing.assert_allclose(margins.sum(axis=1), pages["margin"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(1 / (1 + np.exp(-pages["margin"])), pages["probability"], rtol=1e-12)
    np.testing.assert_array_equal(pages["probability"] * pages["importance"], pages["value"])


def test_pages_table_goes_through_parquet(pages: pd.DataFrame, tmp_path: Path) -> None:
    pages.to_parquet(tmp_path / "pages.parquet", index=False)
    again = pd.read_parquet(tmp_path / "pages.parquet")
    assert list(again) == COLUMNS
    np.testing.assert_array_equal(again["value"], pages["value"])
    assert again["entity_id"].map(list).tolist() == pages["entity_id"].tolist()


def test_pages_table_counters_of_the_table_reach_the_guarantee(
    ranker: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    starved = requests.assign(**{"delivered_connection-floor": 0, "delivered_total": 400})
    page_tables = ranker.rank_table(starved, small_tables.viewers, small_tables.entities)
    served = page_tables[page_tables["policy"] != "random"]
    first = served[served["position"] == 0].set_index("request_id")
    supplied = served[served["edge_type"] == "connection"]["request_id"].unique()
    assert len(supplied) > 50
    assert (first.loc[supplied, "edge_type"] == "connection").all()
    short = served.drop_duplicates("request_id")["shortfall"].map(lambda text: json.loads(text or "{}"))
    for (_, page), found in zip(served.groupby("request_id", sort=False), short, strict=True):
        n_supplied = int((page["edge_type"] == "connection").sum())
        # of a debt of 100 one page owes slack + catch_up = 3
        missing = [math.ceil(3 + p / 4 - 1) - min(p, n_supplied) for p in range(1, min(10, len(page)) + 1)]
        assert found.get("connection-floor", 0) == max(missing)


def test_pages_table_names_a_counter_that_was_passed_over(
    ranker: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    page_tables = ranker.rank_table(requests.assign(**{"delivered_retired floor": 0}), small_tables.viewers)
    served = page_tables[page_tables["policy"] != "random"]
    assert served["fallbacks"].str.contains("'retired floor'").all()


def test_pages_table_of_empty_pages_keeps_its_columns(ranker: spr.SecondPassRanker) -> None:
    cohort = spr.Cohort("c", "people", ["e0"], [math.nan], "people-1")
    page = ranker.rank(spr.RankingRequest("r1", datetime(2026, 1, 5), spr.Viewer("v"), [cohort]))
    table = pages_table([page])
    assert len(table) == 0
    assert {"request_id", "cohort_id", "position", "value"} <= set(table)
