"""A ranker beside its baselines: what is compared, on which rows, and what the intervals say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.errors import TableError, UnknownRankerVersion
from spr.evaluation import SPR, Comparison, compare
from spr.evaluation.comparison import FIXED_ONLY, SHOWN
from spr.tables import read_impressions

if TYPE_CHECKING:
    import spr
    from simulations.world import WorldTables

BASELINES = (
    "entity-type prior",
    "mean raw score",
    "mean calibrated response",
    "XGBoost",
    "XGBoost, no viewer columns",
    "XGBoost + viewer intercept",
)


@pytest.fixture(scope="module")
def held_out(small_tables: WorldTables) -> pd.DataFrame:
    """Pages of the last week, in part of viewers that the ranker never saw; its own rows are fine for these tests."""
    rows = small_tables.impressions
    late = rows[rows["at"] >= pd.Timestamp("2026-01-23", tz="UTC")]
    new = late["viewer_id"].isin(late["viewer_id"].unique()[::4])
    return late.assign(viewer_id=late["viewer_id"].mask(new, "new " + late["viewer_id"]))


@pytest.fixture(scope="module")
def alone(ranker: spr.SecondPassRanker, held_out: pd.DataFrame, small_tables: WorldTables) -> Comparison:
    return compare(ranker, held_out, small_tables.viewers, small_tables.entities, n_replicates=40)


@pytest.fixture(scope="module")
def full(ranker: spr.SecondPassRanker, held_out: pd.DataFrame, small_tables: WorldTables) -> Comparison:
    frequency = {
        str(viewer): "often" if i % 2 else "rarely" for i, viewer in enumerate(small_tables.viewers["viewer_id"])
    }
    return compare(
        ranker,
        held_out,
        small_tables.viewers,
        small_tables.entities,
        train=small_tables.impressions,
        frequency=frequency,
        n_replicates=40,
    )


def test_compare_without_train_is_with_the_fixed_effect_alone(alone: Comparison) -> None:
    assert list(alone.predictions) == [SPR, FIXED_ONLY]


def test_compare_with_train_adds_the_baselines_by_name(full: Comparison) -> None:
    assert list(full.predictions) == [SPR, FIXED_ONLY, *BASELINES]
    for prediction in full.predictions.values():
        probability = np.asarray(prediction.probability)
        assert probability.shape == (len(full.frame),)
        assert ((probability > 0) & (probability < 1)).all()
        assert np.isfinite(np.asarray(prediction.order_by)).all()


def test_compare_counts_mature_cohorts_of_the_random_policy(
    alone: Comparison, ranker: spr.SecondPassRanker, held_out: pd.DataFrame
) -> None:
    rows = read_impressions(held_out, ranker.config)
    rows = rows[(rows["policy"] == "random") & rows["raw_score"].notna()]
    label = rows.groupby(["request_id", "cohort_id"])["downstream"].max()
    assert len(alone.frame) == len(label)
    assert alone.frame["label"].sum() == label.sum()
    assert set(alone.frame["request_id"]) == set(rows["request_id"])
    assert list(alone.frame) == ["request_id", "viewer_id", "entity_type", "label", "segment"]


def test_compare_labels_of_other_policies_do_not_matter(
    alone: Comparison, ranker: spr.SecondPassRanker, held_out: pd.DataFrame, small_tables: WorldTables
) -> None:
    other = held_out["policy"] != "random"
    changed = held_out.assign(downstream=held_out["downstream"].mask(other, 1.0))
    again = compare(ranker, changed, small_tables.viewers, small_tables.entities, n_replicates=40)
    pd.testing.assert_frame_equal(again.metrics.to_pandas(), alone.metrics.to_pandas())


def test_compare_segments_viewers_by_whether_they_were_seen(alone: Comparison) -> None:
    new = alone.frame["viewer_id"].str.startswith("new ")
    assert set(alone.frame.loc[new, "segment"]) == {"unseen"}
    assert set(alone.frame.loc[~new, "segment"]) == {"seen"}
    assert new.any()


def test_compare_segments_viewers_by_the_given_frequency(full: Comparison) -> None:
    new = full.frame["viewer_id"].str.startswith("new ")
    assert set(full.frame.loc[new, "segment"]) == {"unseen"}
    assert set(full.frame.loc[~new, "segment"]) == {"often", "rarely"}
    segments = full.difference_table().index.get_level_values("segment")
    assert set(segments) == {"all", "often", "rarely", "unseen"}


def test_compare_probabilities_are_at_the_logged_position_and_order_at_the_top(
    alone: Comparison, ranker: spr.SecondPassRanker, held_out: pd.DataFrame, small_tables: WorldTables
) -> None:
    rows = held_out[held_out["policy"] == "random"]
    pages = ranker.rank_table(rows, small_tables.viewers, small_tables.entities)
    margin = pages.set_index(["request_id", "cohort_id"])["margin"].sort_index()
    placed = rows.drop_duplicates(["request_id", "cohort_id"]).set_index(["request_id", "cohort_id"])["position"]
    ordered = read_impressions(rows, ranker.config)
    ordered = ordered[ordered["raw_score"].notna()].drop_duplicates(["request_id", "cohort_id"])
    key = pd.MultiIndex.from_frame(ordered[["request_id", "cohort_id"]])
    at_top = margin.reindex(key).to_numpy()
    np.testing.assert_allclose(np.asarray(alone.predictions[SPR].order_by), at_top, rtol=0, atol=1e-6)
    position = placed.reindex(key).to_numpy()
    lowered = np.log(alone.predictions[SPR].probability / (1 - np.asarray(alone.predictions[SPR].probability))) - at_top
    _, slope = ranker.unseen_correction
    expected = ranker.trees.position_margin(12)[position]
    expected *= np.where(alone.frame["segment"] == "unseen", slope, 1.0)
    np.testing.assert_allclose(lowered, expected, rtol=0, atol=1e-4)


def test_compare_intervals_hold_their_estimates(full: Comparison) -> None:
    rows = full.metrics.to_pandas()
    rows = rows[rows["metric"].isin(["normalized_cross_entropy", "ndcg", "auc"]) & rows["estimate"].notna()]
    inside = (rows["low"] <= rows["estimate"]) & (rows["estimate"] <= rows["high"])
    assert inside.mean() > 0.95
    assert (rows["low"] < rows["high"]).mean() > 0.95


def test_compare_table_shows_estimates_with_intervals(full: Comparison) -> None:
    table = full.table()
    assert list(table) == list(SHOWN)
    assert not any("=" in segment for segment in table.index.get_level_values("segment"))
    cell = table["ndcg"]["all", SPR]
    assert re.fullmatch(r"0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", cell)


def test_compare_stars_are_differences_without_zero(full: Comparison) -> None:
    table = full.difference_table()
    assert {name for _, name in table.index} == {f"{SPR} - {other}" for other in (FIXED_ONLY, *BASELINES)}
    rows = full.differences()
    rows = rows[rows["metric"].isin(list(table)) & ~rows["segment"].str.startswith("entity_type=")]
    found = [
        table[metric][segment.removeprefix("segment="), prediction].endswith("*")
        for segment, prediction, metric in zip(rows["segment"], rows["prediction"], rows["metric"], strict=True)
    ]
    assert found == ((rows["low"] > 0) | (rows["high"] < 0)).tolist()
    assert {True, False} == set(found)


def test_compare_a_better_ranker_is_told_from_a_poor_one(full: Comparison) -> None:
    nce = full.differences()
    nce = nce[(nce["segment"] == "all") & (nce["metric"] == "normalized_cross_entropy")].set_index("prediction")
    for poor in ("entity-type prior", "mean raw score"):
        assert nce["high"][f"{SPR} - {poor}"] < 0.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[rows["policy"] != "random"],
        lambda rows: rows.assign(downstream=np.nan),
        lambda rows: rows.assign(raw_score=np.nan),
    ],
    ids=["no random row", "no mature row", "no scorable row"],
)
def test_compare_without_rows_to_judge_on_is_refused(
    ranker: spr.SecondPassRanker, held_out: pd.DataFrame, small_tables: WorldTables, spoil: object
) -> None:
    assert callable(spoil)
    with pytest.raises(TableError, match="random"):
        compare(ranker, spoil(held_out), small_tables.viewers, n_replicates=10)


def test_compare_version_without_calibrator_is_refused_by_name(
    ranker: spr.SecondPassRanker, held_out: pd.DataFrame, small_tables: WorldTables
) -> None:
    with pytest.raises(UnknownRankerVersion, match="people-9"):
        compare(
            ranker,
            held_out.assign(ranker_version=held_out["ranker_version"].replace("people-1", "people-9")),
            small_tables.viewers,
            n_replicates=10,
        )
