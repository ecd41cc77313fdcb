from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from spr.multiplicity import holm


@settings(deadline=None, max_examples=15)  # statsmodels runs the garbage collector each time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 4))
def test_holm_equals_statsmodels_and_passes_over_what_was_not_tested(p_value, missing):
    adjusted = holm(np.array([np.nan] * missing + p_value))
    assert np.isnan(adjusted[:missing]).all()
    assert adjusted[missing:] == pytest.approx(multipletests(p_value, method="holm")[1])


def test_holm_of_nothing_is_nothing():
    assert len(holm(np.array([]))) == 0
    assert np.isnan(holm(np.full(3, np.nan))).all()
