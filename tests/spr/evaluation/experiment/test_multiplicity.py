"""Holm by hand, Benjamini and Hochberg against scipy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

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
    np.testing.assert_allclose(adjusted, false_discovery_control(p), atol=1e-12)


def test_families_are_apart_and_what_is_not_known_does_not_count() -> None:
    p = np.array([0.01, np.nan, 0.02, 0.03, 0.001])
    family = np.array([PRIMARY, PRIMARY, PRIMARY, EXPLORATORY, GUARD_RAIL], dtype=object)
    np.testing.assert_allclose(adjust_p_values(p, family), [0.02, np.nan, 0.02, 0.03, np.nan])


def test_nothing_to_adjust_stays_nothing() -> None:
    assert adjust_p_values(np.empty(0), np.empty(0, dtype=object)).shape == (0,)
