"""Shadow scores joined to logged responses: what is kept, what is counted, what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from calibration import CalibrationError, CalibratorSet, with_shadow_scores


@pytest.fixture
def impressions() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 400
    score = rng.normal(size=n)
    return pd.DataFrame(
        {
            "request_id": [f"r{i // 4}" for i in range(n)],
            "cohort_id": np.where(np.arange(n) % 4 < 2, "a", "b"),
            "slot": np.arange(n) % 2,
            "entity_type": np.where(np.arange(n) % 4 < 2, "people", "event"),
            "ranker_version": "v1",
            "raw_score": score,
            "response": (rng.random(n) < 1 / (1 + np.exp(-score))).astype(float),
            "policy": "random",
        },
        index=np.arange(1000, 1000 + n),
    )


@pytest.fixture
def shadow(impressions: pd.DataFrame) -> pd.DataFrame:
    people = impressions[impressions["entity_type"] == "people"]
    return people[["request_id", "cohort_id", "slot"]].assign(raw_score=np.exp(people["raw_score"]))


def test_shadow_rows_take_score_and_version_and_keep_the_rest(impressions: pd.DataFrame, shadow: pd.DataFrame) -> None:
    joined = with_shadow_scores(impressions, shadow.sample(frac=1.0, random_state=1), "v2")
    people = impressions[impressions["entity_type"] == "people"]
    pd.testing.assert_frame_equal(joined, people.assign(raw_score=np.exp(people["raw_score"]), ranker_version="v2"))
    assert set(impressions["ranker_version"]) == {"v1"}


def test_shadow_of_the_same_order_gives_the_same_curve(impressions: pd.DataFrame, shadow: pd.DataFrame) -> None:
    live = CalibratorSet.fit(impressions)
    both = live.refitted(with_shadow_scores(impressions, shadow, "v2"), entity_type="people", ranker_version="v2")
    assert set(both) == {("people", "v1"), ("people", "v2"), ("event", "v1")}
    score = np.array([-1.0, 0.0, 1.0])
    assert both["people", "v2"].predict(np.exp(score)) == pytest.approx(both["people", "v1"].predict(score))


def test_shadow_rows_without_partner_are_counted(
    impressions: pd.DataFrame, shadow: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    partly = pd.concat([shadow.iloc[:150], shadow.iloc[:30].assign(slot=shadow["slot"] + 7)], ignore_index=True)
    with caplog.at_level(logging.INFO, logger="calibration.shadow"):
        assert len(with_shadow_scores(impressions, partly, "v2")) == 150
    assert "150 rows joined, 30 shadow rows without an impression, 50 impressions without a score" in caplog.text


def test_shadow_null_score_is_not_scorable(impressions: pd.DataFrame, shadow: pd.DataFrame) -> None:
    joined = with_shadow_scores(impressions, shadow.assign(raw_score=[None, *shadow["raw_score"][1:]]), "v2")
    assert np.isnan(joined["raw_score"].iloc[0])
    assert len(joined) == len(shadow)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda s: s.drop(columns="slot"), "shadow: missing slot"),
        (lambda s: pd.concat([s, s.iloc[[2]]]), r"duplicated in 1 of 201 rows; first: row 200 has request_id='r1'"),
        (lambda s: s.assign(request_id=[None, *s["request_id"][1:]]), "null in 1 of 200 rows; first: row 0"),
        (lambda s: s.assign(raw_score=[0.1, -np.inf, *s["raw_score"][2:]]), "infinite in 1 of 200.*row 1 has -inf"),
        (lambda s: s.assign(raw_score="high"), "raw_score does not hold numbers"),
        (lambda s: s.assign(slot=s["slot"] + 9), "none of 200 rows.*request_id='r0', cohort_id='a', slot=9"),
        (lambda s: s.iloc[:0], "none of 0 rows"),
        (lambda s: s.assign(request_id=np.arange(len(s))), "not of the kind|none of 200 rows"),
    ],
)
def test_shadow_broken_table_is_refused(impressions: pd.DataFrame, shadow: pd.DataFrame, spoil, sentence) -> None:
    with pytest.raises(CalibrationError, match=sentence):
        with_shadow_scores(impressions, spoil(shadow), "v2")


def test_shadow_of_two_entity_types_is_refused(impressions: pd.DataFrame) -> None:
    scores = impressions[["request_id", "cohort_id", "slot", "raw_score"]]
    with pytest.raises(CalibrationError, match="event, people"):
        with_shadow_scores(impressions, scores, "v2")


def test_shadow_impressions_with_duplicated_keys_are_refused(impressions: pd.DataFrame, shadow: pd.DataFrame) -> None:
    twice = pd.concat([impressions, impressions.iloc[[3]]])
    with pytest.raises(CalibrationError, match=r"impressions: .* duplicated in 1 of 401 rows; first: row 400"):
        with_shadow_scores(twice, shadow, "v2")
