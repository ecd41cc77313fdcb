from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import CalibrationError, Examination, PositionExamination, SlotExamination
from calibration.forms.isotonic import pool_adjacent_violators

TRUE_CURVE = np.array([1.0, 0.82, 0.68, 0.55, 0.5, 0.5, 0.4, 0.3])


def test_fit_recovers_a_known_curve_within_three_hundredths() -> None:
    rng = np.random.default_rng(0)
    position = rng.integers(0, 8, 400_000)
    response = rng.random(position.size) < 0.1 * TRUE_CURVE[position]
    estimate = PositionExamination.fit(position, response).relative
    np.testing.assert_allclose(estimate, TRUE_CURVE, atol=0.03)


def test_fit_compares_strata_with_themselves_only() -> None:
    # The type with the high rate stands low on the page more often: pooled rates would even rise.
    rng = np.random.default_rng(1)
    stratum = rng.integers(0, 2, 400_000)
    position = np.where(stratum == 1, rng.integers(3, 8, stratum.size), rng.integers(0, 8, stratum.size))
    response = rng.random(stratum.size) < np.array([0.05, 0.3])[stratum] * TRUE_CURVE[position]
    names = np.array(["hashtag", "people"])[stratum]
    stratified = PositionExamination.fit(position, response, stratum=names).relative
    pooled = PositionExamination.fit(position, response).relative
    np.testing.assert_allclose(stratified, TRUE_CURVE, atol=0.05)
    assert np.abs(pooled - TRUE_CURVE).max() > 0.3


def test_fit_of_many_rows_is_the_ratio_of_rates_where_these_fall() -> None:
    position = np.repeat([0, 1, 2, 3], 100_000)
    response = np.concatenate([np.arange(100_000) < k for k in (40_000, 38_000, 10_000, 9_900)])
    fitted = PositionExamination.fit(position, response).relative
    np.testing.assert_allclose(fitted, [1.0, 0.95, 0.25, 0.2475], rtol=0.001)


def test_fit_pools_positions_whose_rates_rise() -> None:
    position = np.repeat([0, 1, 2], 10_000)
    response = np.concatenate([np.arange(10_000) < k for k in (4000, 1000, 2000)])
    fitted = PositionExamination.fit(position, response).relative
    assert fitted[1] == fitted[2]
    np.testing.assert_allclose(fitted, [1.0, 0.375, 0.375], atol=0.01)


def test_fit_on_a_small_log_is_nearer_the_truth_than_the_ratio_of_rates() -> None:
    truth = 1.0 / np.sqrt(1.0 + np.arange(20))
    fitted_error, ratio_error = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        position = rng.integers(0, truth.size, 2000)
        response = rng.random(position.size) < 0.1 * truth[position]
        shown = np.bincount(position).astype(float)
        rate = -pool_adjacent_violators(-np.bincount(position, response) / shown, shown)
        ratio_error.append(np.sqrt(np.mean((rate / rate[0] - truth) ** 2)))
        fitted = PositionExamination.fit(position, response).relative
        fitted_error.append(np.sqrt(np.mean((fitted - truth) ** 2)))
    assert np.mean(fitted_error) < 0.85 * np.mean(ratio_error)


def test_fit_of_a_handful_of_responses_leaves_no_place_unseen() -> None:
    position = np.tile(np.arange(20), 5)
    response = np.isin(np.arange(100), [0, 21, 49])  # one at each of the positions 0, 1 and 9
    relative = PositionExamination.fit(position, response).relative
    assert relative[1] > 0.5
    assert relative[-1] > 0.03


def test_uncertainty_is_of_the_size_of_the_error_and_resamples_whole_viewers() -> None:
    rng = np.random.default_rng(3)
    viewer = np.repeat(np.arange(1200), 8)
    position = rng.integers(0, 8, viewer.size)
    rate = rng.choice([0.05, 0.5], 1200)[viewer]
    response = rng.random(viewer.size) < rate * TRUE_CURVE[position]
    fitted = PositionExamination.fit(position, response, viewer=viewer, n_resamples=25)
    uncertainty = fitted.uncertainty
    assert uncertainty is not None
    assert uncertainty.standard_error[0] == 0
    assert np.all(np.abs(fitted.relative - TRUE_CURVE) <= 3 * uncertainty.standard_error)
    assert np.all((uncertainty.lower <= fitted.relative) & (fitted.relative <= uncertainty.upper))
    assert list(fitted.to_frame().columns) == ["relative", "standard_error", "lower", "upper"]
    copies = PositionExamination.fit(
        *(np.tile(a, 4) for a in (position, response)), viewer=np.tile(viewer, 4), n_resamples=25
    )
    assert copies.uncertainty is not None  # four copies of a viewer's rows are still one viewer
    np.testing.assert_allclose(copies.uncertainty.standard_error[1:], uncertainty.standard_error[1:], rtol=0.6)


def test_uncertainty_is_not_saved_and_needs_viewers() -> None:
    position, response = np.tile([0, 1], 50), np.ones(100)
    fitted = PositionExamination.fit(position, response, viewer=np.arange(100) % 7, n_resamples=5)
    assert fitted.to_dict() == {"relative": fitted.relative.tolist()}
    with pytest.raises(CalibrationError, match="give viewer"):
        PositionExamination.fit(position, response, n_resamples=5)
    with pytest.raises(CalibrationError, match="at least 2 viewers"):
        PositionExamination.fit(position, response, viewer=np.zeros(100), n_resamples=5)


def test_examination_multiplies_the_parts_it_has() -> None:
    position, slot = PositionExamination(np.array([1.0, 0.5])), SlotExamination(np.array([1.0, 0.8]))
    np.testing.assert_allclose(Examination(position, slot).at([0, 1], [1, 1]), [0.8, 0.4])
    np.testing.assert_array_equal(Examination(position).at([0, 1], None), [1.0, 0.5])
    np.testing.assert_array_equal(Examination().at(None, [0, 1]), [1.0, 1.0])
    assert Examination(slot=slot).columns == ("slot",)
    for examination in (Examination(position, slot), Examination(position), Examination()):
        again = Examination.from_dict(json.loads(json.dumps(examination.to_dict())))
        assert again.to_dict() == examination.to_dict()
    with pytest.raises(CalibrationError, match="the slot of each row is needed"):
        Examination(position, slot).at([0], None)
    with pytest.raises(CalibrationError, match="must be equal"):
        Examination(position, slot).at([0], [0, 1])


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"position": None},
        {"position": [1.0], "slot": None},
        {"position": {"relative": ["1.0"]}, "slot": None},
        {"position": {"relative": "1"}, "slot": None},
        {"position": None, "slot": {"relative": [1.0, 2.0]}},
    ],
)
def test_examination_refuses_what_it_did_not_write(content: object) -> None:
    with pytest.raises(CalibrationError, match="examination"):
        Examination.from_dict(content)


def test_fit_weights_equal_repeated_rows() -> None:
    rng = np.random.default_rng(2)
    position, stratum = rng.integers(0, 5, 900), rng.integers(0, 3, 900)
    response, weight = rng.random(900) < 0.3, rng.integers(0, 4, 900)
    weighted = PositionExamination.fit(position, response, weight, stratum)
    repeated = PositionExamination.fit(
        np.repeat(position, weight), np.repeat(response, weight), None, np.repeat(stratum, weight)
    )
    np.testing.assert_allclose(weighted.relative, repeated.relative, rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 1.0]), st.integers(0, 2)), max_size=40),
)
def test_fit_is_a_valid_curve_for_any_rows(rows: list[tuple[int, float, int]]) -> None:
    position, response, stratum = (np.array(c) for c in zip(*rows, (0, 1.0, 0), strict=True))
    relative = PositionExamination.fit(position, response, stratum=stratum).relative
    assert relative[0] == 1.0
    assert np.all((relative > 0) & (relative <= 1))
    assert np.all(np.diff(relative) <= 0)
    assert relative.size == position.max() + 1


def test_fit_gives_positions_without_rows_the_value_above_them() -> None:
    position = np.repeat([0, 3], 10)
    response = np.concatenate([np.ones(10), np.arange(10) < 5])
    relative = PositionExamination.fit(position, response).relative
    assert relative[0] == relative[1] == relative[2] == 1.0
    assert 0.5 < relative[3] < 0.9  # 5 of 10 against 10 of 10: few, so not taken at their word


def test_at_takes_the_last_value_beyond_the_table() -> None:
    np.testing.assert_array_equal(
        PositionExamination(np.array([1.0, 0.5])).at(np.array([0.0, 1.0, 40.0])), [1, 0.5, 0.5]
    )
    np.testing.assert_array_equal(PositionExamination.constant().at([3, 0]), [1.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 0]), "no row at position 0"),
        (([0, 1], [0, 0]), "no response at any position"),
        (([0, -1], [1, 0]), "row 1 has -1"),
        (([0, 0.5], [1, 0]), "row 1 has 0.5"),
        (([0, np.nan], [1, 0]), "row 1 has nan"),
        (([0, 1], [1, np.nan]), "response must be finite and >= 0; row 1 has nan"),
        (([0, 1], [1, 0], [1, -2]), "sample_weight must be finite and >= 0; row 1 has -2"),
        (([0, 1], [1]), "equally long"),
        (([], []), "at least one row"),
    ],
)
def test_fit_refuses_bad_rows(arguments: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        PositionExamination.fit(*arguments)


def test_examination_is_frozen_and_leaves_the_callers_array_alone() -> None:
    mine = np.array([1.0, 0.5])
    examination = PositionExamination(mine)
    mine[1] = 0.4
    assert examination.relative[1] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        examination.relative[1] = 0.4


@pytest.mark.parametrize("relative", [[0.9, 0.5], [1.0, 0.5, 0.6], [1.0, 0.0], [1.0, np.nan], []])
def test_examination_refuses_what_is_not_a_curve(relative: list[float]) -> None:
    with pytest.raises(CalibrationError, match="relative examination must be"):
        PositionExamination(np.array(relative))


def test_position_examination_does_not_depend_on_units_and_no_stratum_outvotes_another() -> None:
    rng = np.random.default_rng(21)
    position, stratum = rng.integers(0, 4, 20_000), rng.integers(0, 2, 20_000)
    examined = np.array([1.0, 0.7, 0.5, 0.4])[position]
    clicks = (rng.random(20_000) < 0.2 * examined).astype(float)
    alone = PositionExamination.fit(position, clicks).relative
    np.testing.assert_allclose(PositionExamination.fit(position, 1000.0 * clicks).relative, alone, rtol=1e-9)
    np.testing.assert_allclose(PositionExamination.fit(position, 0.001 * clicks).relative, alone, rtol=1e-9)
    # seconds of those who looked, seldom and long: few tell little, however large their sum is
    looked = rng.random(20_000) < np.where(stratum == 1, 0.002 * examined, 0.2 * examined)
    mixed = looked * np.where(stratum == 1, 3000.0, 1.0)
    both = PositionExamination.fit(position, mixed, stratum=stratum).relative
    own = PositionExamination.fit(position[stratum == 0], mixed[stratum == 0]).relative
    np.testing.assert_allclose(both, own, atol=0.03)
