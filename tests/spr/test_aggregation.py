from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spr.aggregation import AGGREGATIONS

RESPONSES = arrays(np.float64, (4, 5), elements=st.floats(0.0, 1.0) | st.just(np.nan))


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
@given(responses=RESPONSES, raised=st.floats(0.0, 0.5))
@settings(deadline=None, max_examples=50)
def test_aggregation_never_falls_when_a_response_rises(name: str, responses: np.ndarray, raised: float) -> None:
    aggregate = AGGREGATIONS[name]
    higher = responses.copy()
    higher[:, 2] += raised
    before, after = aggregate(responses), aggregate(higher)
    there = ~np.isnan(before)
    assert (after[there] >= before[there] - 1e-12).all()


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_aggregation_of_one_row_is_the_same_beside_others(name: str) -> None:
    responses = np.random.default_rng(0).uniform(size=(200, 6))
    together = AGGREGATIONS[name](responses)
    alone = np.concatenate([AGGREGATIONS[name](row[None, :]) for row in responses])
    assert (together == alone).all()


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_aggregation_without_responses_is_null(name: str) -> None:
    assert np.isnan(AGGREGATIONS[name](np.full((1, 3), np.nan))).all()


def test_noisy_or_counts_above_one_are_certain() -> None:
    assert AGGREGATIONS["noisy_or"](np.array([[3.0, 0.2]]))[0] == 1.0


def test_log_sum_exp_of_large_counts_is_finite() -> None:
    found = AGGREGATIONS["log_sum_exp"](np.array([[1e4, 1e4], [2.0, np.nan]]))
    assert found == pytest.approx([1e4 + np.log(2.0), 2.0])
