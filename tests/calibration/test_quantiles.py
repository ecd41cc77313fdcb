from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import CalibrationError, QuantileTable

SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=60)


def test_table_of_distinct_scores_has_equal_masses_and_mid_ranks() -> None:
    table = QuantileTable.fit(np.random.default_rng(0).permutation(1000.0 + np.arange(1000)), n_bins=10)
    np.testing.assert_array_equal(table.weight, np.full(10, 100.0))
    np.testing.assert_allclose(table.quantile, np.arange(10) / 10 + 0.05)
    np.testing.assert_array_equal(table.lower, 1000.0 + 100 * np.arange(10))
    np.testing.assert_array_equal(table.centre, 1000.0 + 100 * np.arange(10) + 49)


def test_table_gives_tied_scores_the_mid_rank_of_their_mass() -> None:
    table = QuantileTable.fit([0.0] * 60 + list(range(1, 41)), n_bins=1000)
    assert table.quantile[0] == pytest.approx(0.3)
    assert table.weight[0] == 60
    assert table.at([0.0])[0] == pytest.approx(0.3)


@settings(deadline=None, max_examples=60)
@given(scores=SCORES, n_bins=st.integers(1, 30))
def test_table_keeps_ties_together_and_loses_no_mass(scores: list[int], n_bins: int) -> None:
    raw_score = np.array(scores, dtype=float)
    table = QuantileTable.fit(raw_score, n_bins=n_bins)
    assert table.lower.size <= n_bins
    bins = table.assign(raw_score)
    np.testing.assert_allclose(np.bincount(bins, minlength=table.weight.size), table.weight)
    assert np.isin(table.lower, raw_score).all()
    assert np.isin(table.centre, raw_score).all()
    assert np.all(np.diff(bins[np.argsort(raw_score)]) >= 0)


def test_tails_resolve_the_best_and_the_worst_scores() -> None:
    scores = np.random.default_rng(0).permutation(100_000.0 + np.arange(100_000))
    even, tailed = QuantileTable.fit(scores, n_bins=1000), QuantileTable.fit(scores, n_bins=1000, tails=0.5)
    assert even.weight[[0, -1]].max() == 100
    assert tailed.weight[[0, -1]].max() <= 2
    assert tailed.weight.max() < 2.1 * even.weight.max()
    assert np.count_nonzero(tailed.quantile > 0.999) > 20 * np.count_nonzero(even.quantile > 0.999)
    assert 500 < tailed.lower.size <= 1000
    np.testing.assert_allclose(tailed.weight, tailed.weight[::-1], atol=2.0)


def test_tails_of_one_cut_evenly_in_the_log_odds() -> None:
    table = QuantileTable.fit(np.arange(1_000_000.0), n_bins=100, tails=1.0)
    edge = np.cumsum(table.weight)[:-1] / 1e6
    inner = (edge > 0.001) & (edge < 0.999)
    step = np.diff(np.log(edge[inner]) - np.log1p(-edge[inner]))
    np.testing.assert_allclose(step, 2 * np.log(2e6) / 100, rtol=0.02)


@settings(deadline=None, max_examples=60)
@given(scores=SCORES, n_bins=st.integers(1, 30), tails=st.floats(0, 1))
def test_tails_lose_no_mass_and_follow_a_distortion(scores: list[int], n_bins: int, tails: float) -> None:
    raw_score = np.array(scores, dtype=float)
    table = QuantileTable.fit(raw_score, n_bins=n_bins, tails=tails)
    assert table.lower.size <= n_bins
    assert table.weight.sum() == raw_score.size
    distorted = QuantileTable.fit(np.exp(raw_score), n_bins=n_bins, tails=tails)
    np.testing.assert_array_equal(table.quantile, distorted.quantile)
    np.testing.assert_array_equal(np.exp(table.lower), distorted.lower)
    doubled = QuantileTable.fit(np.repeat(raw_score, 2), n_bins=n_bins, tails=tails)
    weighted = QuantileTable.fit(raw_score, np.full(raw_score.size, 2.0), n_bins=n_bins, tails=tails)
    np.testing.assert_array_equal(doubled.weight, weighted.weight)


@pytest.mark.parametrize("tails", [-0.1, 1.1, float("nan")])
def test_table_refuses_tails_outside(tails: float) -> None:
    with pytest.raises(CalibrationError, match=r"tails is .* must be in"):
        QuantileTable.fit([1.0, 2.0], tails=tails)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 4)), min_size=1, max_size=40))
def test_table_weights_equal_repeated_rows(rows: list[tuple[int, int]]) -> None:
    scores, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    weighted = QuantileTable.fit(scores, weights, n_bins=7)
    repeated = QuantileTable.fit(np.repeat(scores, weights.astype(int)), n_bins=7)
    for name in ("lower", "centre", "quantile", "weight"):
        np.testing.assert_array_equal(getattr(weighted, name), getattr(repeated, name))


def test_table_follows_a_distortion_of_the_scores_bin_by_bin() -> None:
    rng = np.random.default_rng(1)
    fitted, fresh = rng.normal(size=3000), rng.normal(size=3000)
    table, distorted = QuantileTable.fit(fitted), QuantileTable.fit(np.exp(3 * fitted))
    np.testing.assert_array_equal(table.quantile, distorted.quantile)
    np.testing.assert_array_equal(np.exp(3 * table.centre), distorted.centre)
    np.testing.assert_array_equal(table.assign(fresh), distorted.assign(np.exp(3 * fresh)))


@pytest.mark.parametrize("weight", [[1.0, 1e-20, 1e-20], [1e-20, 1e-20, 1.0], [1e-300, 1.0, 1e30], [1e30, 1.0, 1e-300]])
def test_table_survives_weights_that_vanish_beside_the_others(weight: list[float]) -> None:
    table = QuantileTable.fit([1.0, 2.0, 3.0], weight)
    assert np.all((table.quantile > 0) & (table.quantile < 1))


def test_table_at_is_flat_outside_and_keeps_nan() -> None:
    table = QuantileTable.fit([1.0, 2.0, 3.0])
    answer = table.at([-1e9, 1.0, 3.0, 1e9, np.nan])
    assert answer[0] == answer[1] == table.quantile[0]
    assert answer[2] == answer[3] == table.quantile[-1]
    assert np.isnan(answer[4])


@pytest.mark.parametrize(
    ("raw_score", "weight", "n_bins", "message"),
    [
        ([], None, 10, "not empty"),
        ([1.0, np.nan], None, 10, "finite raw scores"),
        ([1.0, np.inf], None, 10, "finite raw scores"),
        ([1.0, 2.0], [1.0, 0.0], 10, "weights > 0"),
        ([1.0, 2.0], [1.0], 10, "equally long"),
        ([1.0, 2.0], None, 0, "n_bins is 0"),
    ],
)
def test_table_refuses_bad_input(raw_score: list[float], weight: list[float] | None, n_bins: int, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        QuantileTable.fit(raw_score, weight, n_bins=n_bins)


def test_table_is_immutable() -> None:
    table = QuantileTable.fit([1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        table.lower[0] = 5.0
