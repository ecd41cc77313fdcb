"""A table's rows are answered by their ranker and segment, at the reference place or where they were shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calibration import CalibrationError, CalibratorSet, Examination, PositionExamination, UnknownCalibrator


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 8000
    score, position = rng.normal(size=n), rng.integers(0, 3, n)
    frequent = rng.random(n) < 0.4
    rate = np.array([1.0, 0.7, 0.5])[position] / (1.0 + np.exp(1.5 - score - frequent))
    return pd.DataFrame(
        {
            "entity_type": np.where(np.arange(n) % 2, "people", "event"),
            "ranker_version": "v1",
            "position": position,
            "activity": np.where(frequent, "frequent", "rare"),
            "raw_score": np.where(np.arange(n) % 2, score, np.exp(score)),
            "response": (rng.random(n) < rate).astype(float),
        },
        index=rng.permutation(n),
    )


def test_rows_are_answered_as_a_page_is(log: pd.DataFrame) -> None:
    calibrators = CalibratorSet.fit(log, segment="activity")
    asked = log.iloc[:400].copy()
    asked.iloc[3, asked.columns.get_loc("activity")] = None
    asked.iloc[5, asked.columns.get_loc("activity")] = "never seen"
    asked.iloc[7, asked.columns.get_loc("raw_score")] = np.nan
    keys = [
        (row.entity_type, row.ranker_version, row.activity)
        if isinstance(row.activity, str)
        else (row.entity_type, row.ranker_version)
        for row in asked.itertuples()
    ]
    page = calibrators.predict(asked["raw_score"].to_numpy(), np.arange(400), keys)
    answer = calibrators.predict_table(asked)
    np.testing.assert_array_equal(answer, page)
    assert np.flatnonzero(np.isnan(answer)).tolist() == [7]


def test_at_the_logged_place_answers_meet_responses(log: pd.DataFrame) -> None:
    examination = Examination(PositionExamination(np.array([1.0, 0.7, 0.5])))
    calibrators = CalibratorSet.fit(log, examination=examination)
    at_place = calibrators.predict_table(log, at_logged_place=True)
    reference = calibrators.predict_table(log)
    np.testing.assert_allclose(at_place / reference, np.array([1.0, 0.7, 0.5])[log["position"]])
    for _, rows in log.assign(at_place=at_place).groupby("position"):
        assert rows["at_place"].mean() == pytest.approx(rows["response"].mean(), rel=0.08)


def test_what_is_missing_is_named(log: pd.DataFrame) -> None:
    calibrators = CalibratorSet.fit(log, examination=Examination(PositionExamination(np.array([1.0, 0.5]))))
    with pytest.raises(UnknownCalibrator, match="'event', 'v9'"):
        calibrators.predict_table(log.assign(ranker_version="v9"))
    with pytest.raises(CalibrationError, match="missing raw_score"):
        calibrators.predict_table(log.drop(columns="raw_score"))
    with pytest.raises(CalibrationError, match="missing position"):
        calibrators.predict_table(log.drop(columns="position"), at_logged_place=True)
    bare = PositionExamination(np.array([1.0, 0.5]))
    with pytest.raises(CalibrationError, match=r"is a PositionExamination; .*Examination\(position=..., slot=...\)"):
        CalibratorSet.fit(log, examination=bare)
