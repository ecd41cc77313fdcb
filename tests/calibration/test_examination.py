from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import CalibrationError, PositionExamination

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


def test_fit_of_one_stratum_is_the_ratio_of_rates_where_these_fall() -> None:
    position = np.repeat([0, 1, 2], 100)
    response = np.concatenate([np.arange(100) < k for k in (40, 20, 10)])
    np.testing.assert_allclose(PositionExamination.fit(position, response).relative, [1.0, 0.5, 0.25])


def test_fit_pools_positions_whose_rates_rise() -> None:
    position = np.repeat([0, 1, 2], 100)
    response = np.concatenate([np.arange(100) < k for k in (40, 10, 20)])
    np.testing.assert_allclose(PositionExamination.fit(position, response).relative, [1.0, 0.375, 0.375])


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
    np.testing.assert_allclose(PositionExamination.fit(position, response).relative, [1.0, 1.0, 1.0, 0.5])


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
