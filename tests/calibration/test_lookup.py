"""One table for a page of curves answers as each curve does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import QuantileResponseCalibrator, ResponseCurve
from calibration.errors import CalibrationWarning
from calibration.families import expit
from calibration.forms import CurveForm
from calibration.lookup import CurveLookup
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from calibration.curve import Interpolation

LARGEST = np.finfo(np.float64).max


@st.composite
def curves(draw: st.DrawFn) -> ResponseCurve:
    interpolation: Interpolation = draw(st.sampled_from(["step", "linear"]))
    wide = st.floats(-LARGEST, LARGEST) if interpolation == "step" else st.integers(-64, 64).map(lambda j: j / 8)
    scores = sorted(draw(st.lists(wide, min_size=1, max_size=8, unique=True)))
    m = len(scores)
    steps = draw(st.lists(st.sampled_from([0.0, 1e-9, 0.3, 2.0]), min_size=m, max_size=m))
    lower = np.array(scores) + 0.0  # -0.0 equals 0.0 and must not precede it
    table = QuantileTable(lower, lower.copy(), (np.arange(m) + 0.5) / m, np.ones(m))
    values = expit(-4.0 + np.cumsum(steps))
    return ResponseCurve(CurveForm("steps"), interpolation, table, values, m, 0, 0.1)


@settings(deadline=None, max_examples=200)
@given(
    drawn=st.lists(curves(), min_size=1, max_size=5),
    extra=st.lists(st.floats(-LARGEST, LARGEST) | st.floats(-9, 9), max_size=10),
)
def test_lookup_answers_as_the_curves_do(drawn: list[ResponseCurve], extra: list[float]) -> None:
    knots = np.concatenate([curve.knots for curve in drawn])
    ends = [-LARGEST, LARGEST, -np.inf, np.inf, 0.0, -0.0, np.nan]
    with np.errstate(over="ignore"):
        near = (np.nextafter(knots, np.inf), np.nextafter(knots, -np.inf))
    asked = np.concatenate([knots, *near, extra, ends])
    lookup = CurveLookup.of(drawn)
    for number, curve in enumerate(drawn):
        found, expected = lookup.answer(asked, np.full(asked.size, number)), curve.predict(asked)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(asked))
        known = ~np.isnan(asked)
        if curve.interpolation == "step":
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_array_max_ulp(found[known], expected[known], maxulp=1)
    order = np.random.default_rng(0).integers(0, len(drawn), asked.size)
    mixed = [lookup.answer(asked[[j]], order[[j]])[0] for j in range(asked.size)]
    np.testing.assert_array_equal(lookup.answer(asked, order), mixed)


@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_lookup_of_fitted_curves_is_exact_on_a_page(transforms: str) -> None:
    rng = np.random.default_rng(1)
    fitted = []
    for seed, method in enumerate(("auto", "steps", "sigmoid", "isotonic", "loglinear")):
        z = np.random.default_rng(seed).normal(size=3000)
        score = z.round(1) if method == "steps" else np.exp(z)
        fitted.append(QuantileResponseCalibrator(method, transforms).fit(score, rng.random(3000) < expit(z - 2)).curve_)
    with pytest.warns(CalibrationWarning, match="in one bin"):
        fitted.append(QuantileResponseCalibrator(n_bins=1).fit([1.0, 2.0, 3.0], [0, 1, 0]).curve_)
    number = rng.integers(0, len(fitted), 5000)
    asked = np.where(rng.random(5000) < 0.1, np.nan, rng.normal(size=5000).round(2) * 3)
    expected = [fitted[n].predict(np.array([s]))[0] for n, s in zip(number, asked, strict=True)]
    found = CurveLookup.of(fitted).answer(asked, number)
    np.testing.assert_allclose(found, expected, rtol=3e-16)
    assert CurveLookup.of(fitted).answer(np.empty(0), np.empty(0, dtype=np.intp)).shape == (0,)
