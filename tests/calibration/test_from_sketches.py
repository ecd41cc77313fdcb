"""Sets fitted on summaries answer as sets fitted on rows, and refuse what would make them answer otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    CalibrationSettings,
    CalibratorSet,
    Examination,
    PositionExamination,
    QuantileSketch,
    needs_recalibration,
)

POSITION = PositionExamination(np.array([1.0, 0.6, 0.3]))


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    n = 60_000
    score, position, frequent = rng.normal(size=n), rng.integers(0, 3, n), rng.random(n) < 0.4
    rate = POSITION.at(position) / (1.0 + np.exp(2.0 - score - frequent))
    return pd.DataFrame(
        {
            "entity_type": "people",
            "ranker_version": "p1",
            "at": pd.Timestamp("2026-05-01"),
            "viewer_id": rng.integers(0, 3000, n),
            "position": position,
            "activity": np.where(frequent, "frequent", "rare"),
            "raw_score": score,
            "response": (rng.random(n) < rate).astype(float),
        }
    )


def _sketches(log: pd.DataFrame) -> dict[tuple[str, str, str], QuantileSketch]:
    found: dict[tuple[str, str, str], QuantileSketch] = {}
    for part in np.array_split(np.arange(len(log)), 5):  # five files
        for name, rows in log.iloc[part].groupby("activity"):
            own = found.setdefault(("people", "p1", str(name)), QuantileSketch())
            own.update(rows["raw_score"], rows["response"], examination=POSITION.at(rows["position"]))
    return found


def test_summaries_of_segments_answer_as_their_rows_do(log: pd.DataFrame) -> None:
    examination, settings = Examination(POSITION), CalibrationSettings(segment="activity")
    summed = CalibratorSet.from_sketches(_sketches(log), settings, examination=examination)
    exact = CalibratorSet.fit(log, segment="activity", examination=examination)
    assert summed.to_frame()["n_rows"].tolist() == exact.to_frame()["n_rows"].tolist()
    for at_logged_place in (False, True):
        one, other = (each.predict_table(log, at_logged_place=at_logged_place) for each in (summed, exact))
        assert np.mean(np.abs(one / other - 1.0)) < 1e-3
    assert not needs_recalibration(log, summed).needed
    refitted = summed.refitted(log, entity_type="people", ranker_version="p1")
    assert set(refitted.segments) == set(summed.segments)
    np.testing.assert_allclose(refitted.predict_table(log), exact.predict_table(log), rtol=1e-9)


def test_what_would_be_lost_is_refused(log: pd.DataFrame) -> None:
    examination = Examination(POSITION)
    with pytest.raises(CalibrationError, match="is of a segment; name its column"):
        CalibratorSet.from_sketches(_sketches(log), examination=examination)
    with pytest.raises(CalibrationError, match="was updated with an examination; pass it here, too"):
        CalibratorSet.from_sketches(_sketches(log), CalibrationSettings(segment="activity"))
    rates = CalibrationSettings(negative_sampling_rate={"people": 0.1})
    ranker = ("people", "p1")
    sketch = QuantileSketch().update([0.0, 1.0], [0.0, 1.0])
    with pytest.raises(CalibrationError, match="negative sampling cannot be undone"):
        CalibratorSet.from_sketches({ranker: sketch}, rates)
    with pytest.raises(CalibrationError, match=r"a sketch's key is .*found 'people'"):
        CalibratorSet.from_sketches({"people": sketch})
    with pytest.raises(CalibrationError, match="has no row to learn from"):
        CalibratorSet.from_sketches({ranker: QuantileSketch()})
    for response in ([0.0, 7.0], [0.0, -1.0], [0.5, 2.0]):
        with pytest.raises(CalibrationError, match=r"responses of 'people' must be in \[0, 1\]"):
            CalibratorSet.from_sketches({ranker: QuantileSketch().update([0.0, 1.0], response)})
    counts = CalibrationSettings(response={"people": "count"})
    assert CalibratorSet.from_sketches({ranker: QuantileSketch().update([0.0, 1.0], [0.0, 7.0])}, counts)
    with pytest.raises(CalibrationError, match="must be finite and >= 0"):
        CalibratorSet.from_sketches({ranker: QuantileSketch().update([0.0, 1.0], [2.0, -0.5])}, counts)


def test_a_version_is_one_whether_written_as_number_or_text(log: pd.DataFrame) -> None:
    mixed = log.iloc[:2000].assign(ranker_version=np.where(np.arange(2000) % 2, 1, 0).astype(object))
    mixed.iloc[::4, mixed.columns.get_loc("ranker_version")] = "0"
    calibrators = CalibratorSet.fit(mixed)
    assert {key: curve.n_rows for key, curve in calibrators.curves.items()} == {
        ("people", "0"): 1000,
        ("people", "1"): 1000,
    }
    assert not np.isnan(calibrators.predict_table(mixed)).any()
    again = calibrators.refitted(mixed, entity_type="people", ranker_version="1")
    assert again["people", "1"].n_rows == 1000


def test_a_pooled_prior_needs_a_type_of_its_kind(log: pd.DataFrame) -> None:
    calibrators = CalibratorSet.fit(log, response={"podcast": "count"})
    with pytest.raises(CalibrationError, match="no other type has count responses to pool: people"):
        calibrators.prior("podcast")
