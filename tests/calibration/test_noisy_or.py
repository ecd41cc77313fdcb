from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calibration import SlotExamination, noisy_or

RESPONSES = arrays(np.float64, (3, 5), elements=st.floats(0.001, 0.9))
CURVES = st.lists(st.floats(0.2, 1.0), min_size=5, max_size=5).map(
    lambda steps: SlotExamination(np.cumprod([1.0, *steps[1:]]))
)
SLOTS = np.arange(5)


@settings(deadline=None, max_examples=100)
@given(responses=RESPONSES, curve=CURVES, slot=st.integers(0, 4), share=st.floats(0.05, 1.0))
def test_noisy_or_is_inside_the_unit_interval_and_increases(
    responses: np.ndarray, curve: SlotExamination, slot: int, share: float
) -> None:
    examined = curve.at(SLOTS)
    before = noisy_or(responses, examined)
    assert ((before > 0) & (before < 1)).all()
    higher = responses.copy()
    higher[:, slot] += share * (1.0 - higher[:, slot])
    assert (noisy_or(higher, examined) > before).all()


@settings(deadline=None, max_examples=50)
@given(responses=RESPONSES, curve=CURVES)
def test_noisy_or_without_correction_is_one_minus_the_product(responses: np.ndarray, curve: SlotExamination) -> None:
    plain = 1.0 - np.prod(1.0 - responses, axis=1)
    np.testing.assert_allclose(noisy_or(responses), plain)
    np.testing.assert_array_equal(noisy_or(responses, np.ones(5)), noisy_or(responses))
    assert (noisy_or(responses, curve.at(SLOTS)) <= plain + 1e-12).all()


@settings(deadline=None, max_examples=50)
@given(responses=RESPONSES, curve=CURVES, seed=st.integers(0, 99))
def test_noisy_or_is_largest_in_the_order_of_responses(
    responses: np.ndarray, curve: SlotExamination, seed: int
) -> None:
    # So a higher raw score, which moves its entity to an earlier slot, never lowers its cohort.
    ordered = -np.sort(-responses, axis=1)
    shuffled = np.random.default_rng(seed).permuted(ordered, axis=1)
    assert (noisy_or(ordered, curve.at(SLOTS)) >= noisy_or(shuffled, curve.at(SLOTS)) - 1e-12).all()


def test_noisy_or_leaves_out_slots_without_a_response() -> None:
    responses = np.array([[0.5, np.nan, 0.4], [np.nan, np.nan, np.nan]])
    examined = np.array([1.0, 0.9, 0.5])
    np.testing.assert_allclose(noisy_or(responses, examined), [1.0 - 0.5 * 0.8, np.nan])
    np.testing.assert_allclose(noisy_or(responses, np.tile(examined, (2, 1))), [0.6, np.nan])
    np.testing.assert_array_equal(noisy_or(np.array([[3.0, 0.2]]), np.array([1.0, 0.5])), [1.0])
