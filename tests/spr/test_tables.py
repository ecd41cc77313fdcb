from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from spr import Config, tables
from spr.errors import TableError


def broken(frame: pd.DataFrame, column: str, value: object, row: int = 3) -> pd.DataFrame:
    frame = frame.copy()
    values = list(frame[column])
    values[row] = value
    frame[column] = pd.Series(values, index=frame.index)
    return frame


def test_impressions_are_sorted_and_uniform(impressions: pd.DataFrame, config: Config) -> None:
    rows = tables.read_impressions(impressions.sample(frac=1, random_state=0), config)
    assert rows["cohort_id"].tolist() == ["c-people"] * 2 + ["c-tags"] * 2 + ["c-people"] * 2 + ["c-tags"] * 2
    assert rows["slot"].tolist() == [0, 1] * 4
    assert rows["at"].dtype == "datetime64[us]"
    assert rows["cohort_kind"].tolist() == rows["cohort_id"].tolist()


def test_impressions_input_is_not_changed(impressions: pd.DataFrame, config: Config) -> None:
    before = impressions.copy(deep=True)
    tables.read_impressions(impressions, config)
    pd.testing.assert_frame_equal(impressions, before)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_impressions_from_file_equal_the_frame(
    impressions: pd.DataFrame, config: Config, tmp_path, suffix: str
) -> None:
    path = tmp_path / f"impressions{suffix}"
    if suffix == ".csv":
        impressions.to_csv(path, index=False)
    else:
        impressions.to_parquet(path)
    pd.testing.assert_frame_equal(
        tables.read_impressions(path, config), tables.read_impressions(impressions, config), check_dtype=False
    )


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        (
            "raw_score",
            np.inf,
            r"raw_score is infinite in 1 of 8 rows; first: request_id='r1', cohort_id='c-tags', slot=1",
        ),
        ("entity_type", "peple", r"entity_type is not one of people, hashtag in 1 of 8"),
        ("response", -1.0, "response is negative"),
        ("response", np.inf, "response is infinite"),
        ("downstream", 0.5, "downstream is neither 0 nor 1"),
        ("slot", -1, "slot is negative"),
        ("slot", 0.5, "slot is not a whole number"),
        ("slot", 0, r"\(request_id, cohort_id, slot\) is not unique in 1 of 8"),
        ("viewer_id", None, "viewer_id is null in 1 of 8"),
        ("viewer_id", "eve", r"viewer_id differs inside one \(request_id\)"),
        ("position", 5, r"position differs inside one \(request_id, cohort_id\)"),
        ("context_hour", 10.0, "context_hour differs inside one"),
        ("at", "yesterday-ish", "at is not a timestamp"),
        ("raw_score", "high", "raw_score is not a number"),
    ],
)
def test_impressions_broken_rule_is_named_with_count_and_first_row(
    impressions: pd.DataFrame, config: Config, column: str, value: object, sentence: str
) -> None:
    with pytest.raises(TableError, match=sentence):
        tables.read_impressions(broken(impressions.astype({column: object}), column, value), config)


def test_impressions_missing_column_suggests_the_near_one(impressions: pd.DataFrame, config: Config) -> None:
    with pytest.raises(TableError, match=r"column 'raw_score' is missing.*Is it 'rawscore'\?"):
        tables.read_impressions(impressions.rename(columns={"raw_score": "rawscore"}), config)


def test_impressions_null_raw_score_is_allowed(impressions: pd.DataFrame, config: Config) -> None:
    rows = tables.read_impressions(broken(impressions, "raw_score", None), config)
    assert rows["raw_score"].isna().sum() == 1


def test_impressions_empty_or_absent_is_refused(impressions: pd.DataFrame, config: Config, tmp_path) -> None:
    with pytest.raises(TableError, match="no rows"):
        tables.read_impressions(impressions.head(0), config)
    with pytest.raises(TableError, match="no file at"):
        tables.read_impressions(tmp_path / "absent.parquet", config)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TableError, match=r"neither \.parquet nor \.csv"):
        tables.read_impressions(tmp_path / "notes.txt", config)


def test_labels_are_null_until_mature_whatever_happened(impressions: pd.DataFrame, config: Config) -> None:
    labels = config.labels.model_copy(update={"snapshot": datetime(2026, 1, 12, tzinfo=UTC)})
    rows = tables.read_impressions(impressions, config.model_copy(update={"labels": labels}))
    mature = rows["request_id"] == "r1"  # 2 January + 3 days + 7 days = 12 January; r2 is of 5 January
    assert rows.loc[mature, ["response", "downstream"]].notna().all().all()
    assert rows.loc[~mature, ["response", "downstream"]].isna().all().all()


def test_viewers_duplicates_are_refused_unless_at_other_times() -> None:
    viewers = pd.DataFrame({"viewer_id": ["ann", "ann"], "age": [1.0, 2.0]})
    with pytest.raises(TableError, match=r"viewers: \(viewer_id\) is not unique"):
        tables.read_viewers(viewers)
    assert len(tables.read_viewers(viewers.assign(at=["2026-01-01", "2026-01-02"]))) == 2


def test_viewers_infinite_feature_is_refused() -> None:
    with pytest.raises(TableError, match="age is infinite in 1 of 2 rows; first: viewer_id='bob'"):
        tables.read_viewers(pd.DataFrame({"viewer_id": ["ann", "bob"], "age": [1.0, -np.inf]}))
