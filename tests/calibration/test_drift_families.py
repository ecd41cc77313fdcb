from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    CalibratorSet,
    Examination,
    PositionExamination,
    SlotExamination,
    drift_table,
    needs_recalibration,
    response_drift,
)
from calibration.drift.comparison import TypicalRow, fit_error_of, rows_to_see_change
from calibration.drift.sums import MINIMUM_VIEWERS, ResponseSums, boundary
from calibration.families import CONTINUOUS, COUNT, ResponseFamily
from calibration.response import fit_curve
from calibration.rows import CalibrationRows

PEOPLE, LETTER, VIDEO = ("people", "p1"), ("newsletter", "n1"), ("video", "v1")
FAMILIES = {"newsletter": "count", "video": "continuous"}
DAYS = 100


def drawn(
    rng: np.random.Generator, family: ResponseFamily, viewer: np.ndarray[Any, Any], rate: float, spread: float = 0.8
) -> np.ndarray[Any, Any]:
    """Counts of mean rate / 2 (gamma-Poisson) or log-normal dwell times of mean rate, viewers' own rates lognormal."""
    own = np.exp(spread * rng.normal(size=viewer.max() + 1) - spread**2 / 2)[viewer]
    if family is COUNT:
        return np.asarray(rng.poisson(0.5 * rate * own * rng.gamma(0.5, 2.0, viewer.size)), dtype=np.float64)
    return np.asarray(rate * own * np.exp(1.2 * rng.normal(size=viewer.size) - 0.72))


def looks(rng: np.random.Generator, family: ResponseFamily, n_viewers: int, rate: float = 1.0) -> ResponseSums:
    viewer = np.repeat(np.arange(n_viewers), 20)
    _, look = np.unique(rng.integers(0, DAYS, viewer.size), return_inverse=True)
    expected = np.full(viewer.size, 0.5 if family is COUNT else 1.0)
    return ResponseSums.running(look, drawn(rng, family, viewer, rate), expected, viewer, family)


def ever_excludes_unchanged(sums: ResponseSums) -> bool:
    low, high = sums.always_valid(0.05, 0.0)
    return bool(np.any((low > sums.unchanged) | (high < sums.unchanged)))


@pytest.mark.parametrize("family", [COUNT, CONTINUOUS])
def test_no_more_than_one_in_twenty_runs_ever_alarms(family: ResponseFamily) -> None:
    rng = np.random.default_rng(0)
    n_runs, alarms, repeated_tests, independent_rows, bounded = 50, 0, 0, 0, 0
    for _ in range(n_runs):
        sums = looks(rng, family, 2500)
        bounded += bool(np.any(sums.effective_viewers > MINIMUM_VIEWERS))
        alarms += ever_excludes_unchanged(sums)
        low, high = sums.one_look(0.05)
        repeated_tests += bool(np.any((low > sums.unchanged) | (high < sums.unchanged)))
        unit = sums.model_variance / sums.n if family is CONTINUOUS else 1.0
        independent_rows += bool(
            np.any(np.abs(sums.observed - sums.expected) > boundary(sums.model_variance, 0.05, unit))
        )
    assert alarms / n_runs <= 0.05
    assert bounded / n_runs > 0.8
    assert repeated_tests / n_runs > 0.2, "a fixed-sample interval, looked at daily, must alarm too often"
    assert independent_rows / n_runs > 0.1, "rows taken as independent must alarm too often"


@pytest.mark.parametrize("family", [COUNT, CONTINUOUS])
def test_changed_responses_are_found_and_the_interval_covers_them(family: ResponseFamily) -> None:
    rng, truth = np.random.default_rng(1), 0.8 if family is COUNT else -0.2
    found, covered = 0, 0
    for _ in range(25):
        sums = looks(rng, family, 3000, rate=0.8)
        found += ever_excludes_unchanged(sums)
        low, high = sums.always_valid(0.05, 0.0)
        covered += bool(np.all((low <= truth) & (high >= truth)))
    assert found >= 22
    assert covered >= 23


@pytest.mark.parametrize(("family", "expected"), [(COUNT, 2.0), (CONTINUOUS, -3.0)])
def test_the_announced_rows_show_the_change(family: ResponseFamily, expected: float) -> None:
    rng, change = np.random.default_rng(2), 0.1
    variance = 4.0 if family is CONTINUOUS else expected
    row = TypicalRow(family, expected, variance, dispersion=1.0)
    needed = rows_to_see_change(row, change=change * (2.0 if family is CONTINUOUS else 1.0), alpha=0.05, fit_error=0)
    assert needed is not None
    found = 0
    for _ in range(100):
        mean = expected - change * (2.0 if family is CONTINUOUS else expected)
        response = rng.poisson(mean, needed) if family is COUNT else mean + 2 * rng.normal(size=needed)
        look = np.arange(needed) * 50 // needed
        sums = ResponseSums.running(look, response.astype(float), np.full(needed, expected), np.arange(needed), family)
        found += ever_excludes_unchanged(sums)
    assert 75 <= found <= 100


@pytest.mark.parametrize("family", [COUNT, CONTINUOUS])
def test_fit_error_is_how_much_the_level_of_fits_varies(family: ResponseFamily) -> None:
    rng, n, n_fits = np.random.default_rng(12), 2000, 60
    score, levels, errors = rng.normal(size=n), [], []
    for _ in range(n_fits):
        mean = np.exp(score / 2)
        noise = rng.gamma(1.0, 1.0, n)
        response = rng.poisson(mean * noise).astype(float) if family is COUNT else 3 * mean * noise
        rows = CalibrationRows.checked(score, response, family=family)
        curve = fit_curve(rows, method="loglinear", response=family.name)
        levels.append(curve.mean_response)
        expected, viewer = curve.predict(score), np.arange(n)
        sums = ResponseSums.by_window(np.zeros(n, dtype=np.intp), response, expected, viewer, family)
        errors.append(fit_error_of(curve, TypicalRow.of_sums(sums)))
    found = np.std(levels) / (np.mean(levels) if family is COUNT else 1.0)
    assert np.mean(errors) == pytest.approx(found, rel=3 / np.sqrt(2 * n_fits))


@pytest.mark.parametrize("response", [np.full(600, 0.1), np.zeros(600)])
def test_responses_equal_to_their_expectations_but_for_rounding_have_not_drifted(
    response: np.ndarray[Any, Any],
) -> None:
    at = pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(600) // 60, unit="D")
    expected = response * (1 + 2e-16)
    drift = response_drift(at, response, expected, np.arange(600), family="continuous")
    assert not drift["drifted"].any()
    assert drift["ratio"].isna().all()
    moved = response_drift(at, response + 0.01, expected, np.arange(600), family="continuous")
    assert moved["difference"].to_numpy() == pytest.approx(0.01)
    assert moved["drifted"].iloc[-1]


def test_units_do_not_matter_and_no_unit_of_a_difference_is_special() -> None:
    rng = np.random.default_rng(3)
    n = 4000
    at = pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(n) // 400, unit="D")
    response, viewer = rng.normal(0.1, 1.0, n), np.arange(n) // 4
    one = response_drift(at, response, np.zeros(n), viewer, family="continuous", fit_error=0.01)
    other = response_drift(at, 60 * response - 500, np.full(n, -500.0), viewer, family="continuous", fit_error=0.6)
    for name in ("difference", "interval_low", "interval_high"):
        assert other[name].to_numpy() == pytest.approx(60 * one[name].to_numpy())
    assert one["drifted"].tolist() == other["drifted"].tolist()


def shown(
    rng: np.random.Generator,
    n_viewers: int,
    ranker: tuple[str, str],
    *,
    rate: float = 1.0,
    frequent: float = 0.5,
    examination: Examination | None = None,
) -> pd.DataFrame:
    """Impressions of 20 rows a viewer on 20 days; frequent viewers respond three times as often, or as long."""
    viewer = np.repeat(np.arange(n_viewers), 20)
    score, is_frequent = rng.normal(size=viewer.size), (rng.random(n_viewers) < frequent)[viewer]
    position, slot = rng.integers(0, 2, viewer.size), rng.integers(0, 2, viewer.size)
    mean = rate * np.where(is_frequent, 3.0, 1.0) * np.exp(score / 2) * 0.1
    if examination is not None:
        mean *= examination.at(position, slot)
    if ranker == PEOPLE:
        response = (rng.random(viewer.size) < np.minimum(mean, 1.0)).astype(float)
    elif ranker == LETTER:
        response = rng.poisson(mean * 10 * rng.gamma(1.0, 1.0, viewer.size)).astype(float)
    else:
        response = mean * 100 * np.exp(rng.normal(size=viewer.size) - 0.5) - 15.0
    moment = rng.integers(0, 20 * 86_400, viewer.size)
    return pd.DataFrame(
        {
            "entity_type": ranker[0],
            "ranker_version": ranker[1],
            "raw_score": score,
            "response": response,
            "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(moment, unit="s"),
            "viewer_id": viewer,
            "policy": "random",
            "position": position,
            "slot": slot,
            "activity": np.where(is_frequent, "frequent", "rare"),
        }
    )


@pytest.fixture(scope="module")
def calibrators() -> CalibratorSet:
    rng = np.random.default_rng(4)
    log = pd.concat([shown(rng, 3000, ranker) for ranker in (PEOPLE, LETTER, VIDEO)])
    return CalibratorSet.fit(log, response=FAMILIES, segment="activity", method="loglinear")


def test_three_families_in_one_log(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(5)
    same = pd.concat([shown(rng, 2500, ranker) for ranker in (PEOPLE, LETTER, VIDEO)])
    report = needs_recalibration(same, calibrators)
    assert {key: verdict.status for key, verdict in report.verdicts.items()} == dict.fromkeys(
        (PEOPLE, LETTER, VIDEO), "stable"
    )
    assert [report[key].response for key in (PEOPLE, LETTER, VIDEO)] == ["binary", "count", "continuous"]

    report = needs_recalibration(
        pd.concat([shown(rng, 2500, ranker, rate=0.75) for ranker in (PEOPLE, LETTER, VIDEO)]), calibrators
    )
    people, letter, video = (report[key] for key in (PEOPLE, LETTER, VIDEO))
    assert {each.status for each in (people, letter, video)} == {"responses_drifted"}
    for each in (people, letter):
        assert each.ratio == pytest.approx(0.75, abs=0.05)
        assert each.interval_low < each.ratio < each.interval_high < 1
        assert np.isnan(each.difference)
        assert np.isnan(each.response_sd)
        assert "% below what was expected (always-valid 98.33 % interval" in each.reasons[0]
    assert np.isnan(video.ratio)
    assert video.difference == pytest.approx((video.observed - video.expected) / video.n_responses)
    assert video.difference == pytest.approx(-0.25 * 20 * np.exp(1 / 8), abs=1.0)
    assert video.interval_low < video.difference < video.interval_high < 0
    for words in ("below what was expected on average", "% of their standard deviation (always-valid 98.33 %"):
        assert words in video.reasons[0]
    assert report.to_frame()["response"].tolist() == ["count", "binary", "continuous"]


def test_the_tolerance_of_a_difference_is_in_standard_deviations(calibrators: CalibratorSet) -> None:
    log = shown(np.random.default_rng(6), 2500, VIDEO, rate=0.75)
    verdict = needs_recalibration(log, calibrators)[VIDEO]
    assert verdict.response_sd == pytest.approx(log["response"].std(), rel=1e-3)
    relative = abs(verdict.difference) / verdict.response_sd
    kept = needs_recalibration(log, calibrators, tolerance=1.01 * relative)[VIDEO]
    assert kept.status == "stable"
    assert kept.reasons[1].startswith("that is within the tolerance of ")
    assert kept.reasons[1].endswith(" % of the responses' standard deviation")
    assert needs_recalibration(log, calibrators, tolerance=0.99 * relative).needed


def test_too_few_rows_and_viewers_of_each_family(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(7)
    for ranker, unit in ((LETTER, "10 % with"), (VIDEO, "10 % of the responses' standard deviation with")):
        few = needs_recalibration(shown(rng, 30, ranker, rate=3.0), calibrators)[ranker]
        assert (few.status, few.interval_high) == ("too_few_rows", np.inf)
        assert few.interval_low == (0.0 if ranker == LETTER else -np.inf)
        assert "too few viewers to tell" in few.reasons[1]
        open_rows = shown(rng, 50, ranker).assign(response=np.nan)
        nothing = needs_recalibration(open_rows, calibrators)[ranker]
        assert (nothing.status, nothing.n_responses) == ("too_few_rows", 0)
        assert f"show a change of {unit} 80 % power" in nothing.reasons[-1]
        assert np.isnan([nothing.ratio, nothing.difference, nothing.interval_low, nothing.response_sd]).all()


def test_a_table_of_three_families(calibrators: CalibratorSet) -> None:
    rng = np.random.default_rng(8)
    log = pd.concat([shown(rng, 2500, ranker, rate=0.75) for ranker in (PEOPLE, LETTER, VIDEO)])
    table, report = drift_table(log, calibrators, every="week"), needs_recalibration(log, calibrators, alpha=0.15)
    is_difference = table["response"] == "continuous"
    for ratio, difference in (("ratio", "difference"), ("ratio_so_far", "difference_so_far")):
        assert table[ratio].isna().tolist() == is_difference.tolist()
        assert table[difference].isna().tolist() == (~is_difference).tolist()
    for ranker in (PEOPLE, LETTER, VIDEO):
        last = table[table["entity_type"] == ranker[0]].iloc[-1]
        assert last["drifted"]
        so_far = last["difference_so_far"] if ranker == VIDEO else last["ratio_so_far"]
        verdict = report[ranker]
        found = verdict.difference if ranker == VIDEO else verdict.ratio
        assert (last["so_far_low"], so_far, last["so_far_high"]) == pytest.approx(
            (verdict.interval_low, found, verdict.interval_high)
        )
    every_open = drift_table(log.assign(response=np.nan), calibrators)
    assert every_open[["ratio", "difference"]].isna().all(axis=None)
    assert not every_open["drifted"].any()


@pytest.mark.parametrize("ranker", [PEOPLE, LETTER, VIDEO])
def test_more_frequent_viewers_are_no_drift_where_curves_know_them(
    calibrators: CalibratorSet, ranker: tuple[str, str]
) -> None:
    log = shown(np.random.default_rng(9), 2500, ranker, frequent=0.9)
    assert not needs_recalibration(log, calibrators).needed
    pooled = replace(calibrators, segments={})
    assert needs_recalibration(log, pooled)[ranker].status == "responses_drifted"


def test_examination_of_positions_and_slots_is_allowed_for() -> None:
    rng = np.random.default_rng(10)
    both = Examination(PositionExamination(np.array([1.0, 0.6])), SlotExamination(np.array([1.0, 0.5])))
    fitted = CalibratorSet.fit(shown(rng, 2500, LETTER, examination=both), response=FAMILIES, examination=both)
    log = shown(rng, 2500, LETTER, examination=both)
    later = log[(log["slot"] == 1) | (log["position"] == 1)]
    verdict = needs_recalibration(later, fitted)[LETTER]
    assert verdict.ratio == pytest.approx(1.0, abs=0.05)
    assert not verdict.needed
    uncorrected = replace(fitted, examination=None)
    assert needs_recalibration(later, uncorrected)[LETTER].ratio < 0.6
    with pytest.raises(CalibrationError, match="missing slot"):
        needs_recalibration(later.drop(columns="slot"), fitted)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("count", {"response": [0, -1]}, "response must be finite and >= 0, or NaN; row 1 has -1.0"),
        ("count", {"response": [0, np.inf]}, "response must be finite and >= 0, or NaN; row 1 has inf"),
        ("count", {"expected": [3.0, 0.0]}, "expected must be finite and > 0, or NaN; row 1 has 0.0"),
        ("continuous", {"response": [-np.inf, 0]}, "response must be finite, or NaN; row 0 has -inf"),
        ("continuous", {"expected": [0.0, np.inf]}, "expected must be finite, or NaN; row 1 has inf"),
        ("binary", {"response": [0, 2]}, r"response must be in \[0, 1\], or NaN; row 1 has 2.0"),
        ("gaussian", {}, "unknown response 'gaussian'; known: binary, count, continuous"),
    ],
)
def test_bad_input_of_each_family_is_refused(family: str, change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "at": pd.to_datetime(["2026-05-01", "2026-05-02"]),
        "response": [0, 1],
        "expected": [0.1, 0.2],
        "viewer": ["a", "b"],
    }
    with pytest.raises(CalibrationError, match=message):
        response_drift(**{**good, **change}, family=family)


@pytest.mark.parametrize(("ranker", "response"), [(PEOPLE, 3.0), (LETTER, -1.0), (VIDEO, np.inf)])
def test_bad_logs_of_each_family_are_refused(
    calibrators: CalibratorSet, ranker: tuple[str, str], response: float
) -> None:
    log = shown(np.random.default_rng(11), 1, ranker).iloc[:2].assign(response=[0.0, response])
    for judge in (needs_recalibration, drift_table):
        with pytest.raises(CalibrationError, match=rf"response must be .*row 1 has {response}"):
            judge(log, calibrators)
