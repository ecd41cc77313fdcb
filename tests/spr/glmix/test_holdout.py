from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.glmix.holdout import salted_hashes, split, split_by_validation


def _grouped(n_groups: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(n_groups), rows)
    return salted_hashes(groups, 0), np.tile(np.arange(rows), n_groups)


def test_split_holds_out_a_tenth_of_groups_whole_and_the_latest_rows_of_the_others() -> None:
    groups, time = _grouped(200, 20)
    held = split(groups, time, np.ones(groups.size, dtype=bool))
    assert len(np.unique(groups[held.groups])) == 20
    assert held.groups.sum() == 20 * 20
    assert held.rows.sum() == 180 * 3
    assert time[held.rows].min() == 17
    assert not np.isin(groups[held.training | held.rows], groups[held.groups]).any()


def test_split_rounds_small_groups_by_lot_so_that_the_share_holds() -> None:
    groups, time = _grouped(2000, 3)
    held = split(groups, time, np.ones(groups.size, dtype=bool))
    assert 0.12 < held.rows.sum() / (~held.groups).sum() < 0.18
    assert np.isin(groups[held.rows], groups[held.training]).all()


def test_split_keeps_ties_of_time_together() -> None:
    groups, time = _grouped(100, 20)
    held = split(groups, time // 4, np.ones(groups.size, dtype=bool))
    keys = groups + (time // 4).astype(np.uint64)
    assert not np.isin(keys[held.rows], keys[held.training]).any()


def test_split_without_time_or_anything_else_to_tell_rows_apart_says_so() -> None:
    groups, time = _grouped(100, 5)
    held = split(groups, time * 0, np.ones(groups.size, dtype=bool))
    assert not held.rows.any()
    assert "cannot be told apart" in held.reason


def test_split_holds_nothing_out_below_fifty_groups() -> None:
    groups, time = _grouped(49, 20)
    held = split(groups, time, np.ones(groups.size, dtype=bool))
    assert held.training.all()
    assert held.reason == "no hold-out: 49 groups < 50"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(50, 120))
def test_split_follows_the_rows_when_they_are_permuted(seed: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    groups = salted_hashes(rng.integers(0, n_groups, 600), 3)
    time, active = rng.random(600), rng.random(600) < 0.9
    order = rng.permutation(600)
    one, other = split(groups, time, active), split(groups[order], time[order], active[order])
    np.testing.assert_array_equal(one.training[order], other.training)
    np.testing.assert_array_equal(one.rows[order], other.rows)
    assert (one.training.astype(int) + one.groups + one.rows == 1).all()


def test_split_by_validation_replaces_rows_and_brings_its_unseen_groups() -> None:
    groups, time = _grouped(100, 4)
    chosen = split(groups, time, np.ones(groups.size, dtype=bool))
    everything = np.concatenate([groups, groups[:4], salted_hashes(np.array([999, 999]), 0)])
    validation = np.arange(everything.size) >= groups.size
    padded = type(chosen)(
        *(np.append(part, np.zeros(6, bool)) for part in (chosen.training, chosen.groups, chosen.rows)), ""
    )
    held = split_by_validation(everything, validation, padded)
    assert held.training.sum() == groups.size
    assert np.flatnonzero(held.rows).tolist() == [400, 401, 402, 403]
    assert np.flatnonzero(held.groups).tolist() == [404, 405]
