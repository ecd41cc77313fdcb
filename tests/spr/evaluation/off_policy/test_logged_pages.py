"""Logged pages: any order of rows gives the same pages, and what is no page is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import InvalidModelInput
from spr.evaluation.off_policy import LoggedPages, iips, logged_value

GOOD: dict[str, Any] = {
    "page": ["a", "a", "a", "b", "b"],
    "position": [2, 0, 1, 0, 1],
    "new_position": [0, 1, 2, 1, 0],
    "label": [1.0, 0.0, 1.0, 0.0, 1.0],
    "viewer": ["v", "v", "v", "w", "w"],
    "group": ["people", "event", "people", "event", "people"],
    "features": np.arange(10.0).reshape(5, 2),
    "importance": [1.0, 2.0, 3.0, 4.0, 5.0],
}


def test_rows_are_sorted_and_know_where_they_were() -> None:
    pages = LoggedPages.of(**GOOD)
    assert pages.offset.tolist() == [0, 3, 5]
    assert pages.row.tolist() == [1, 2, 0, 3, 4]
    assert pages.position.tolist() == [0, 1, 2, 0, 1]
    assert pages.new_order.tolist() == [2, 0, 1, 4, 3]
    assert pages.reward.tolist() == [0.0, 3.0, 1.0, 0.0, 5.0]
    assert pages.sum_by_page(pages.reward).tolist() == [4.0, 5.0]
    np.testing.assert_allclose(pages.propensity, [1 / 3] * 3 + [1 / 2] * 2)
    assert logged_value(pages.counting_interactions()).value == 1.5


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_the_rows_does_not_matter(order: list[int]) -> None:
    pages = LoggedPages.of(**{name: np.asarray(values)[order] for name, values in GOOD.items()})
    same = LoggedPages.of(**GOOD)
    assert iips(pages).value == pytest.approx(iips(same).value)
    assert sorted(pages.lottery) == sorted(same.lottery)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": [2, 0, 0, 0, 1]}, "position is not 0, 1"),
        ({"position": [3, 0, 1, 0, 1]}, "position is not 0, 1"),
        ({"new_position": [0, 1, 2, 1, 2]}, "new_position is not 0, 1.* on 1 of 2 pages"),
        ({"position": [2, 0.5, 1, 0, 1]}, "whole number"),
        ({"label": [1.0, -1.0, 0.0, 0.0, 0.0]}, "label is -1.0 in row 1"),
        ({"label": [1.0, np.nan, 0.0, 0.0, 0.0]}, "label is nan"),
        ({"label": [1.0]}, "one per row"),
        ({"viewer": ["v", "w", "v", "w", "w"]}, "two viewers"),
        ({"viewer": ["v", "v", "v", None, None]}, "viewer is null in 2"),
        ({"page": ["a", "a", "a", None, None]}, "page is null in 2"),
        ({"group": ["a", None, "a", "a", "a"]}, "group is null in 1"),
        ({"features": np.full((5, 1), np.inf)}, "not infinite"),
        ({"features": np.zeros(5)}, "features have shape"),
        ({"importance": [1.0, np.inf, 1.0, 1.0, 1.0]}, "importance is inf"),
        ({"propensity": [0.5, 0.0, 0.5, 0.5, 0.5]}, "propensity is 0.0 in row 1"),
        ({"propensity": [0.5, 1.5, 0.5, 0.5, 0.5]}, "above 0, at most 1"),
    ],
)
def test_what_is_no_log_of_pages_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        LoggedPages.of(**(GOOD | change))


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidModelInput, match="no rows"):
        LoggedPages.of([], [], [], [])


def test_another_order_by_value_puts_nulls_last_and_keeps_ties() -> None:
    pages = LoggedPages.of(**GOOD)
    assert pages.ordered_by([0.1, np.nan, 0.1, 0.0, 0.5]).new_position.tolist() == [0, 2, 1, 1, 0]
    with pytest.raises(InvalidModelInput, match="one each"):
        pages.ordered_by([1.0])


def test_a_viewer_is_in_one_fold_whatever_the_log() -> None:
    ids = np.array([f"v{i}" for i in range(400)])
    place = np.zeros(400, dtype=int)
    one = LoggedPages.of(np.arange(400), place, place, place, viewer=ids)
    other = LoggedPages.of(np.arange(200), place[:200], place[:200], place[:200], viewer=ids[::-2])
    assert (
        dict(zip(ids[::-2], other.folds(5), strict=True)).items() <= dict(zip(ids, one.folds(5), strict=True)).items()
    )
    assert np.bincount(one.folds(5), minlength=5).min() > 40
