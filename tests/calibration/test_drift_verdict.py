from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    CalibratorSet,
    Examination,
    PositionExamination,
    drift_table,
    needs_recalibration,
)
from calibration.drift.windows import COLUMNS

PEOPLE, EVENT = ("people", "p1"), ("event", "e1")


def shown(
    rng: np.random.Generator,
    n_viewers: int,
    *,
    ranker: tuple[str, str] = PEOPLE,
    rate: float = 1.0,
    mean_score: float = 0.0,
    spread: float = 0.5,
    days: int = 20,
) -> pd.DataFrame:
    """Impressions of 20 rows a viewer; P(response) = rate * viewer's own * 0.15 * exp(score / 2), capped."""
    viewer = np.repeat(np.arange(n_viewers), 20)
    score = mean_score + rng.normal(size=viewer.size)
    own = np.exp(spread * rng.normal(size=n_viewers) - spread**2 / 2)[viewer]
    probability = np.minimum(rate * own * 0.15 * np.exp(score / 2), 1.0)
    moment = rng.integers(0, days * 86_400, viewer.size)
    return pd.DataFrame(
        {
            "entity_type": ranker[0],
            "ranker_version": ranker[1],
            "raw_score": score,
            "response": (rng.random(viewer.size) < probability).astype(float),
            "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(moment, unit="s"),
            "viewer_id": viewer.astype(str),
            "policy": "random",
            "position": 0,
        }
    )


@pytest.fixture(scope="module")
def calibrators() -> CalibratorSet:
    rng = np.random.default_rng(0)
    return CalibratorSet.fit(pd.concat([shown(rng, 2500), shown(rng, 2500, ranker=EVENT)]))


def test_each_kind_of_verdict(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(1)
    log = pd.concat(
        [
            shown(rng, 2500, rate=0.8),
            shown(rng, 2500, ranker=EVENT),
            shown(rng, 50, ranker=("people", "p2")),
        ]
    )
    report = needs_recalibration(log, calibrators)
    assert report.needed
    assert list(report) == [EVENT, PEOPLE, ("people", "p2")]
    people, event, unknown = report[PEOPLE], report[EVENT], report["people", "p2"]
    assert (people.status, people.needed) == ("responses_drifted", True)
    assert (event.status, event.needed) == ("stable", False)
    assert (unknown.status, unknown.needed) == ("no_calibrator", True)
    assert people.ratio == pytest.approx(0.8, abs=0.04)
    assert people.interval_low < 0.8 < people.interval_high < 1
    assert event.interval_low < 1 < event.interval_high
    assert event.rows_needed is not None
    assert event.rows_needed <= event.n_responses == 50_000
    for figure in ("% below what was expected (always-valid 97.5 % interval", "50,000 rows", "from 2026-05-01"):
        assert figure in people.reasons[0]
    assert "no calibrator (1,000 rows from 2026-05-01" in unknown.reasons[0]
    assert any(reason.startswith("people p2: this version") for reason in report.reasons)


def test_scores_that_moved_along_a_true_curve_are_only_noted(calibrators: CalibratorSet) -> None:
    log = shown(np.random.default_rng(2), 2500, mean_score=0.5)
    verdict = needs_recalibration(log, calibrators)[PEOPLE]
    assert (verdict.status, verdict.needed) == ("scores_moved", False)
    assert verdict.mean_quantile == pytest.approx(0.64, abs=0.02)
    assert verdict.ks_p_value < 0.01
    assert "raw scores moved: PSI 0.2" in verdict.reasons[-1]


def test_too_few_rows_say_how_many_are_needed(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(3)
    verdict = needs_recalibration(shown(rng, 100), calibrators)[PEOPLE]
    assert verdict.status == "too_few_rows"
    assert verdict.rows_needed is not None
    assert 10_000 < verdict.rows_needed < 50_000
    assert f"2,000 with a known response; about {verdict.rows_needed:,} show a change of 10 %" in verdict.reasons[-1]
    open_rows = needs_recalibration(shown(rng, 50).assign(response=np.nan), calibrators)[PEOPLE]
    assert (open_rows.status, open_rows.n_scores, open_rows.n_responses) == ("too_few_rows", 1000, 0)
    assert np.isnan(open_rows.ratio)
    verdict = needs_recalibration(shown(rng, 30, rate=5.0), calibrators)[PEOPLE]
    assert (verdict.status, verdict.interval_low, verdict.interval_high) == ("too_few_rows", 0.0, np.inf)
    assert "% above what was expected, 600 rows of 30 viewers" in verdict.reasons[0]
    assert "too few viewers to tell: they are worth 30 equal ones, and it takes 50" in verdict.reasons[1]
    little = CalibratorSet.fit(shown(rng, 50))
    verdict = needs_recalibration(shown(rng, 2500), little)[PEOPLE]
    assert (verdict.status, verdict.rows_needed) == ("too_few_rows", None)
    assert "whose own noise hides a change of 10 %" in verdict.reasons[-1]


def test_a_drift_within_the_tolerance_is_kept(calibrators: CalibratorSet) -> None:
    log = shown(np.random.default_rng(4), 2500, rate=0.8)
    verdict = needs_recalibration(log, calibrators, tolerance=0.3)[PEOPLE]
    assert (verdict.status, verdict.reasons[1]) == ("stable", "that is within the tolerance of 30 %")


def test_asked_every_fourth_day_it_seldom_calls_for_a_fit_without_drift() -> None:
    rng = np.random.default_rng(5)
    n_runs, alarms, found = 12, 0, 0
    for _ in range(n_runs):
        fitted = CalibratorSet.fit(shown(rng, 400), method="loglinear")
        log, lower = shown(rng, 800), shown(rng, 800, rate=0.7)
        until = [pd.Timestamp("2026-05-01") + pd.Timedelta(days=day) for day in range(4, 21, 4)]
        alarms += any(needs_recalibration(log[log["at"] < day], fitted).needed for day in until)
        found += needs_recalibration(lower, fitted).needed
    assert alarms <= 1
    assert found >= 10


def test_only_rows_like_those_of_the_fit_are_compared() -> None:
    rng = np.random.default_rng(6)
    fitted = CalibratorSet.fit(shown(rng, 500), examination=Examination(PositionExamination(np.array([1.0, 0.5]))))
    random_rows = shown(rng, 500)
    thinned = random_rows["response"] * (rng.random(len(random_rows)) < 0.5)
    second = random_rows.assign(position=1, response=thinned)
    ranked = shown(rng, 500, rate=2.0, mean_score=2.0).assign(policy="ranked")
    verdict = needs_recalibration(pd.concat([second, ranked]), fitted)[PEOPLE]
    assert (verdict.n_logged, verdict.n_scores, verdict.n_responses) == (20_000, 10_000, 10_000)
    assert verdict.ratio == pytest.approx(1.0, abs=0.12)
    assert verdict.psi < 0.02
    without_policy = needs_recalibration(second.drop(columns="policy"), fitted)[PEOPLE]
    assert without_policy.ratio == verdict.ratio


def test_report_as_a_frame(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(7)
    report = needs_recalibration(pd.concat([shown(rng, 30), shown(rng, 30, ranker=("new", "n1"))]), calibrators)
    frame = report.to_frame()
    assert list(frame.columns[:4]) == ["entity_type", "ranker_version", "needed", "response"]
    assert frame["needed"].tolist() == [True, False]
    assert frame["rows_needed"].isna().tolist() == [True, False]
    assert len(report) == 2
    with pytest.raises(CalibrationError, match=r"no row of .'event', 'e1'. in the log; it has: new n1, people p1"):
        report[EVENT]


def test_drift_table_follows_a_change_in_time(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(8)
    early, late = shown(rng, 1500, days=14), shown(rng, 1500, days=14, rate=0.6, mean_score=1.0)
    late["at"] += pd.Timedelta(days=14)
    late["viewer_id"] += "b"
    log = pd.concat([early, late, shown(rng, 10, ranker=("new", "n1"))])
    table = drift_table(log, calibrators, every="week")
    assert tuple(table.columns) == COLUMNS
    assert table["window_start"].is_monotonic_increasing
    assert (table["window_start"].dt.day_of_week == 0).all()
    assert set(table["entity_type"]) == {"people"}
    assert table["n_responses"].sum() == 60_000
    first, last = table.iloc[0], table.iloc[-1]
    assert first["mean_quantile"] == pytest.approx(0.5, abs=0.03)
    assert last["mean_quantile"] > 0.7
    assert first["psi"] < 0.1 < 0.5 < last["psi"]
    assert last["ks_p_value"] < 0.001
    assert last["interval_low"] < 0.6 < last["interval_high"] < 0.8
    assert not first["drifted"]
    assert last["drifted"]
    verdict = needs_recalibration(log[log["entity_type"] == "people"], calibrators)[PEOPLE]
    assert (last["so_far_low"], last["ratio_so_far"], last["so_far_high"]) == pytest.approx(
        (verdict.interval_low, verdict.ratio, verdict.interval_high)
    )


def test_drift_table_keeps_windows_whose_responses_are_open(calibrators: CalibratorSet) -> None:
    log = shown(np.random.default_rng(9), 100, days=4)
    log.loc[log["at"] >= pd.Timestamp("2026-05-03"), "response"] = np.nan
    table = drift_table(log, calibrators)
    assert table["n_responses"].gt(0).tolist() == [True, True, False, False]
    assert table["ratio"].isna().tolist() == [False, False, True, True]
    assert table["drifted"].dtype == bool
    assert table["psi"].notna().all()
    all_open = drift_table(log.assign(response=np.nan), calibrators)
    assert all_open["n_responses"].eq(0).all()
    assert drift_table(log.assign(ranker_version="p9"), calibrators).empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "viewer_id"}, "missing viewer_id"),
        ({"raw_score": [0.1, np.inf], "response": [0.0, np.nan]}, "raw_score must be finite.*row 1 has inf"),
        ({"response": [0.0, 3.0]}, "response must be in .0, 1.*row 1 has 3.0"),
        ({"at": ["yesterday", "today"]}, "at must hold datetimes"),
        ({"at": [pd.Timestamp("2026-05-01"), pd.NaT]}, "at must not be null; first: row 1"),
        ({"viewer_id": [None, "a"]}, "viewer_id must not be null; first: row 0"),
        ({"entity_type": ["people", None]}, "entity_type or ranker_version is null; first: row 1"),
    ],
)
def test_bad_logs_are_refused(calibrators: CalibratorSet, change: dict[str, Any], message: str) -> None:
    log = shown(np.random.default_rng(10), 1).iloc[:2]
    log = log.drop(columns=change["drop"]) if "drop" in change else log.assign(**change)
    for judge in (needs_recalibration, drift_table):
        with pytest.raises(CalibrationError, match=message):
            judge(log, calibrators)


def test_empty_logs_and_bad_options_are_refused(calibrators: CalibratorSet) -> None:
    log = shown(np.random.default_rng(11), 1)
    with pytest.raises(CalibrationError, match="the log has no row"):
        needs_recalibration(log.iloc[:0], calibrators)
    with pytest.raises(CalibrationError, match=r"tolerance is -0.1"):
        needs_recalibration(log, calibrators, tolerance=-0.1)
    with pytest.raises(CalibrationError, match="alpha is 2"):
        needs_recalibration(log, calibrators, alpha=2)
    with pytest.raises(CalibrationError, match="unknown every 'month'"):
        drift_table(log, calibrators, every="month")
