"""Fractional minima against what systematic sampling promises: exact expectations, whole neighbours, few outcomes."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.reorder.rounding import round_minima

# Hundredths, thirds, and what a division of a share leaves.
FRACTIONS = st.fractions(min_value=0, max_value=4, max_denominator=100)


@settings(deadline=None, max_examples=500)
@given(st.lists(FRACTIONS, max_size=8))
def test_the_draw_keeps_each_minimum_in_expectation_and_every_sum_of_neighbours_whole(minima: list[Fraction]) -> None:
    end, rounded = round_minima([float(m) for m in minima])
    probability = np.diff(end, prepend=0.0)
    assert rounded.shape == (len(end), len(minima))
    assert len(end) <= len(minima) + 1
    assert end[-1] == 1.0
    assert (probability > 0).all()
    assert probability @ rounded == pytest.approx([float(m) for m in minima], abs=1e-9)
    for first in range(len(minima)):
        for last in range(first + 1, len(minima) + 1):
            whole, taken = sum(minima[first:last]), rounded[:, first:last].sum(axis=1)
            assert floor(whole) <= taken.min() <= taken.max() <= ceil(whole)


@settings(deadline=None, max_examples=200)
@given(st.lists(FRACTIONS, min_size=1, max_size=6))
def test_outcomes_follow_the_draw_exactly(minima: list[Fraction]) -> None:
    end, rounded = round_minima([float(m) for m in minima])
    sums = [sum(minima[:t], Fraction(0)) for t in range(len(minima) + 1)]
    for before, after, outcome in zip([0.0, *end], end, rounded, strict=False):
        uniform = Fraction(before + after) / 2
        assert outcome.tolist() == [floor(s + uniform) - floor(r + uniform) for r, s in pairwise(sums)]


def test_whole_minima_have_one_outcome() -> None:
    for minima in ([], [0.0], [2.0, 0.0, 1.0], [0.1 + 0.2 + 0.7]):
        end, rounded = round_minima(minima)
        assert end.tolist() == [1.0]
        assert rounded.tolist() == [[round(m) for m in minima]]
