"""Holm's, and Benjamini and Hochberg's, by their definitions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spr.evaluation.experiment.multiplicity import EXPLORATORY, GUARD_RAIL, PRIMARY, adjust_p_values

p_values = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


@given(p_values)
def test_holm_is_its_definition(p: list[float]) -> None:
    adjusted = adjust_p_values(np.array(p), np.full(len(p), PRIMARY, dtype=object))
    worst = 0.0
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        worst = max(worst, min((len(p) - rank) * p[place], 1.0))
        assert np.isclose(adjusted[place], worst)


@given(p_values)
def test_exploratory_ones_are_benjamini_and_hochbergs(p: list[float]) -> None:
    adjusted = adjust_p_values(np.array(p), np.full(len(p), EXPLORATORY, dtype=object))
    least = 1.0
    for place in np.argsort(p, kind="stable")[::-1]:
        least = min(least, p[place] * len(p) / sum(other <= p[place] for other in p))
        assert np.isclose(adjusted[place], least)


def test_families_are_apart_and_what_is_not_known_does_not_count() -> None:
    p = np.array([0.01, np.nan, 0.02, 0.03, 0.001])
    family = np.array([PRIMARY, PRIMARY, PRIMARY, EXPLORATORY, GUARD_RAIL], dtype=object)
    np.testing.assert_allclose(adjust_p_values(p, family), [0.02, np.nan, 0.02, 0.03, np.nan])


def test_nothing_to_adjust_stays_nothing() -> None:
    assert adjust_p_values(np.empty(0), np.empty(0, dtype=object)).shape == (0,)
