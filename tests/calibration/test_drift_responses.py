from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from calibration import CalibrationError, response_drift
from calibration.drift.comparison import TypicalRow, rows_to_see_change
from calibration.drift.sums import ResponseSums, boundary
from calibration.families import BINARY, CONTINUOUS, COUNT, ResponseFamily

DAYS = 200


def looks(
    rng: np.random.Generator,
    n_viewers: int,
    *,
    rate: float = 1.0,
    spread: float = 0.8,
    bias_of_fit: float = 0.0,
) -> tuple[ResponseSums, int]:
    """Draw 20 rows a viewer on random days of 200, expected rate 0.1, viewers' own rates lognormal."""
    viewer = np.repeat(np.arange(n_viewers), 20)
    own = np.exp(spread * rng.normal(size=n_viewers) - spread**2 / 2)
    response = (rng.random(viewer.size) < 0.1 * rate * own[viewer]).astype(float)
    _, look = np.unique(rng.integers(0, DAYS, viewer.size), return_inverse=True)
    expected = np.full(viewer.size, 0.1 * (1 + bias_of_fit))
    return ResponseSums.running(look, response, expected, viewer, BINARY), viewer.size


def ever_excludes_one(sums: ResponseSums, fit_error: float = 0.0) -> np.ndarray[Any, Any]:
    low, high = sums.always_valid(0.05, fit_error)
    return np.asarray((low > 1) | (high < 1))


def test_no_more_than_one_in_twenty_runs_ever_alarms_over_200_looks() -> None:
    rng = np.random.default_rng(0)
    n_runs, alarms, repeated_tests, independent_rows = 300, 0, 0, 0
    for _ in range(n_runs):
        sums, _ = looks(rng, 300)
        alarms += ever_excludes_one(sums).any()
        low, high = sums.one_look(0.05)
        repeated_tests += bool(np.any((low > 1) | (high < 1)))
        half = boundary(sums.model_variance, 0.05)
        independent_rows += bool(np.any(np.abs(sums.observed - sums.expected) > half))
    assert alarms / n_runs <= 0.05
    assert repeated_tests / n_runs > 0.2, "a fixed-sample interval, looked at daily, must alarm too often"
    assert independent_rows / n_runs > 0.1, "rows taken as independent must alarm too often"


def test_the_noise_of_the_fit_raises_no_alarm_when_it_is_allowed_for() -> None:
    rng = np.random.default_rng(1)
    found = np.zeros(2)
    for _ in range(150):
        sums, _ = looks(rng, 1000, bias_of_fit=0.04 * rng.normal())
        found += [ever_excludes_one(sums, 0.04).any(), ever_excludes_one(sums).any()]
    assert found[0] / 150 <= 0.05
    assert found[1] / 150 > 0.05


def test_ten_percent_lower_rates_are_found_with_the_announced_rows() -> None:
    rng = np.random.default_rng(2)
    row = TypicalRow(BINARY, expected=0.1, variance=0.09, dispersion=1.0)
    needed = rows_to_see_change(row, change=0.1, alpha=0.05, fit_error=0.0)
    assert needed is not None
    found, first = 0, []
    for _ in range(100):
        sums, _ = looks(rng, needed // 20 + 1, rate=0.9, spread=0.0)
        out = ever_excludes_one(sums)
        found += out.any()
        first += [sums.n[np.argmax(out)]] if out.any() else []
    assert 0.75 <= found / 100 <= 1.0
    assert np.median(first) < 0.75 * needed, "half of the runs are decided well before"


def test_very_active_viewers_one_by_one_raise_no_alarm() -> None:
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(150):
        viewer = np.repeat(np.arange(100), 300)
        own = np.exp(0.8 * rng.normal(size=100) - 0.32)[viewer]
        response = (rng.random(viewer.size) < 0.1 * own).astype(float)
        _, day = np.unique(rng.integers(0, 50, 100), return_inverse=True)
        sums = ResponseSums.running(day[viewer], response, np.full(viewer.size, 0.1), viewer, BINARY)
        alarms += ever_excludes_one(sums).any()
        assert sums.effective_viewers[-1] == pytest.approx(100)
    assert alarms / 150 <= 0.06


def test_the_interval_covers_a_rate_that_did_change() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        sums, _ = looks(rng, 400, rate=0.7)
        low, high = sums.always_valid(0.05, 0.0)
        covered += bool(np.all((low <= 0.7) & (high >= 0.7)))
    assert covered >= 95


def test_one_look_covers_at_its_level() -> None:
    rng = np.random.default_rng(4)
    window, viewer = np.repeat(np.arange(1000), 400), np.repeat(np.arange(20_000), 20)
    expected = np.full(window.size, 0.02)
    sums = ResponseSums.by_window(window, (rng.random(window.size) < 0.016).astype(float), expected, viewer, BINARY)
    low, high = sums.one_look(0.05)
    assert 0.93 <= np.mean((low <= 0.8) & (high >= 0.8)) <= 0.99


@pytest.mark.parametrize("family", [BINARY, COUNT, CONTINUOUS])
def test_running_sums_equal_those_computed_anew(family: ResponseFamily) -> None:
    rng = np.random.default_rng(5)
    n = 400
    look, viewer = rng.permutation(np.arange(n) % 10), rng.integers(0, 30, n)
    response, expected = rng.random(n), rng.uniform(0.1, 0.9, n)
    running = ResponseSums.running(look, response, expected, viewer, family)
    for last in (0, 4, 9):
        rows = look <= last
        anew = ResponseSums.by_window(np.zeros(rows.sum(), int), response[rows], expected[rows], viewer[rows], family)
        for name in (
            "n",
            "n_viewers",
            "effective_viewers",
            "observed",
            "expected",
            "model_variance",
            "viewer_variance",
        ):
            assert getattr(running, name)[last] == pytest.approx(getattr(anew, name)[0]), name


def test_boundary_is_the_normal_mixture_at_its_tightest_where_planned() -> None:
    variance = np.geomspace(1, 1e6, 4001)
    relative = boundary(variance, 0.05) / np.sqrt(variance)
    assert variance[np.argmin(relative)] == pytest.approx(1000, rel=0.02)
    assert relative.min() > norm.isf(0.025)


def test_response_drift_sums_by_day_and_week_and_leaves_out_open_rows() -> None:
    at = pd.to_datetime(
        ["2026-05-05 09:00", "2026-05-04 10:00", "2026-05-05 08:00", "2026-05-12 00:00", "2026-05-13 00:00"]
    )
    table = response_drift(at, [1, 0, 1, 0, np.nan], [0.5, 0.5, 0.5, 0.5, 0.5], ["a", "b", "a", "c", "d"])
    assert table["at"].tolist() == list(pd.to_datetime(["2026-05-04 10:00", "2026-05-05 09:00", "2026-05-12 00:00"]))
    assert table["n"].tolist() == [1, 3, 4]
    assert table["n_viewers"].tolist() == [1, 2, 3]
    assert table["observed"].tolist() == [0, 2, 2]
    assert table["ratio"].tolist() == [0, 4 / 3, 1]
    assert not table["drifted"].any()
    assert len(response_drift(at, np.ones(5), np.ones(5), np.arange(5), every="week")) == 2
    zoned = response_drift(at.tz_localize("Asia/Tokyo"), np.ones(5), np.ones(5), np.arange(5))
    assert str(zoned["at"].dt.tz) == "UTC"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": ["2026-05-01", "2026-05-02"]}, "at must hold datetimes; found"),
        ({"at": pd.to_datetime(["2026-05-01", None])}, "at must not be null; first: row 1"),
        ({"response": [0, 1.5]}, "response must be in .0, 1., or NaN; row 1 has 1.5"),
        ({"response": ["no", "yes"]}, "response does not hold numbers"),
        ({"response": [np.nan, np.nan]}, "no row among 2"),
        ({"expected": [0.1, 0.0]}, r"expected must be in \(0, 1\], or NaN; row 1 has 0.0"),
        ({"expected": [0.1]}, "expected has shape .1,. for 2 moments"),
        ({"viewer": ["a", None]}, "viewer must not be null; first: row 1"),
        ({"viewer": ["a"]}, "viewer has 1 values for 2 moments"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"every": "hour"}, "unknown every 'hour'; known: day, week"),
        ({"fit_error": -1.0}, "fit_error is -1.0"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "at": pd.to_datetime(["2026-05-01", "2026-05-02"]),
        "response": [0, 1],
        "expected": [0.1, 0.2],
        "viewer": ["a", "b"],
    }
    with pytest.raises(CalibrationError, match=message):
        response_drift(**{**good, **change})
