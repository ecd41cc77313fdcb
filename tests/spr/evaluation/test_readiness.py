"""When enough data of an entity type has come: counts by hand, and what the section says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import spr
from spr.errors import ConfigError, TableError
from spr.evaluation.readiness import Readiness, readiness, readiness_section

CONFIG = spr.Config.parse(
    """
[entity_types]
old = { edge_type = "follow" }
new = { edge_type = "follow" }
slow = { edge_type = "connection" }
never = { edge_type = "connection" }
"""
)


def rows(entity_type: str, days: list[int], response: float | None = 1.0, policy: str = "random") -> pd.DataFrame:
    at = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(days, unit="D")
    name = [f"{entity_type}-{policy}-{response}-{i}" for i in range(len(days))]
    table = pd.DataFrame({"request_id": name, "at": at, "viewer_id": "v", "policy": policy})
    same = {"cohort_id": "c", "entity_type": entity_type, "position": 0, "slot": 0, "entity_id": "e"}
    return table.assign(
        **same, ranker_version=f"{entity_type}-1", raw_score=0.5, response=response, downstream=response and 0.0
    )


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    """Twenty days: an old type, one that came on day 16, one whose responses dried up."""
    days = list(range(20))
    return pd.concat(
        [
            rows("old", days * 6),
            rows("old", days * 30, 0.0),
            rows("old", [19] * 40, policy="spr"),
            rows("new", [16, 17, 17, 18, 19, 19]),
            rows("new", [16] * 5, 0.0),
            rows("slow", [0] * 7),
            rows("slow", [19] * 3, 0.0),
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def found(log: pd.DataFrame) -> Readiness:
    return readiness(log, CONFIG, relative_error=0.1)


def test_counts_rates_and_days_are_right(found: Readiness) -> None:
    table = found.to_pandas()
    assert list(table.index) == ["never", "new", "old", "slow"]
    assert table.loc["old", ["random_rows", "mature_rows", "responses"]].tolist() == [720, 720, 120]
    assert (table["needed"] == 100).all()
    assert table["ready"].tolist() == [False, False, True, False]
    assert table.loc["old", "responses_a_day"] == pytest.approx(6.0)
    assert table.loc["new", "responses_a_day"] == pytest.approx(5 / 3)  # in the three days since it came, not seven
    assert table.loc["slow", "responses_a_day"] == 0.0
    assert np.isnan(table.loc["never", "responses_a_day"])
    # 94 more at 5 / 3 a day are 56.4 days after day 19; the day that follows.
    assert table.loc["new", "ready_on"] == pd.Timestamp("2026-03-20") + pd.Timedelta(days=57)
    assert table["ready_on"].notna().sum() == 1
    assert table.loc["new", "first_seen"] == pd.Timestamp("2026-03-17")
    assert table["without_calibrator"].isna().all()
    assert found.by_day["old"].tolist() == list(range(6, 121, 6))
    assert found.by_day.iloc[-1].tolist() == [0, 6, 120, 7]


def test_rows_whose_windows_are_open_do_not_count(log: pd.DataFrame) -> None:
    table = readiness(pd.concat([log, rows("new", [19] * 50, None)]), CONFIG, relative_error=0.1).to_pandas()
    assert table.loc["new", ["random_rows", "mature_rows", "responses"]].tolist() == [61, 11, 6]
    labels = CONFIG.labels.model_copy(update={"snapshot": pd.Timestamp("2026-03-20", tz="UTC").to_pydatetime()})
    table = readiness(log, CONFIG.model_copy(update={"labels": labels}), relative_error=0.1).to_pandas()
    assert table.loc["new", ["random_rows", "mature_rows", "responses"]].tolist() == [11, 0, 0]
    assert table.loc["old", "responses"] == 6 * 10
    assert pd.isna(table.loc["new", "ready_on"])


def test_the_number_needed_follows_from_the_relative_error(log: pd.DataFrame) -> None:
    needed = {error: readiness(log, CONFIG, relative_error=error).table["needed"].iloc[0] for error in (0.05, 0.3)}
    assert needed == {0.05: 400, 0.3: 12}
    rng = np.random.default_rng(1)
    rates = rng.binomial(20_000, 0.02, size=4000) / 20_000  # 400 responses of 20,000 rows
    assert rates.std() / rates.mean() == pytest.approx(0.05, rel=0.05)
    for error in (0.0, 1.0):
        with pytest.raises(ConfigError, match="relative_error is"):
            readiness(log, CONFIG, relative_error=error)
    with pytest.raises(TableError, match="'policy' is missing"):
        readiness(log.drop(columns="policy"), CONFIG)


def test_the_section_says_who_is_ready_and_when_the_others_are(found: Readiness) -> None:
    section = readiness_section(found)
    first, *rest = section.sentences
    assert "100 responses" in first
    assert "10 %" in first
    assert rest == [
        "Ready: old.",
        "never is not in the log.",
        "new is not ready: 6 of 100 responses, 1.7 a day; at this rate it is on 2026-05-16.",
        "slow is not ready: 7 of 100 responses, and none in the last 7 days. Show more random pages of it.",
    ]
    (table,) = section.tables.values()
    assert table.loc["new", "ready on"] == "2026-05-16"
    (figure,) = section.figures.values()
    figure.canvas.draw()
    (panel,) = figure.axes
    lines = {line.get_label(): line for line in panel.lines}
    assert lines["old"].get_ydata()[-1] == 120
    assert any(set(line.get_ydata()) == {100} for line in panel.lines)


def test_a_log_without_random_pages_is_shown_and_nothing_is_ready(log: pd.DataFrame) -> None:
    found = readiness(log.assign(policy="spr"), CONFIG)
    assert not found.table["ready"].any()
    assert (found.table["random_rows"] == 0).all()
    section = readiness_section(found)
    for figure in section.figures.values():
        figure.canvas.draw()
