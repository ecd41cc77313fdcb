from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import InvalidModelInput
from spr.glmix.families import Family, expected_derivatives_at

LABELS = {"binomial": [0.0, 1.0], "gaussian": [-1.5, 2.0], "poisson": [0.0, 3.0]}


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(LABELS)), st.integers(0, 1), st.floats(-6, 6))
def test_family_derivatives_are_those_of_the_loss(name: str, label: int, margin: float) -> None:
    family, step = Family.named(name), 1e-4
    labels = np.full(3, LABELS[name][label])
    around = margin + np.array([-step, 0.0, step])
    losses = family.losses(labels, around)
    gradient, hessian = family.derivatives(labels, around, np.ones(3))
    assert gradient[1] == pytest.approx((losses[2] - losses[0]) / (2 * step), rel=1e-4, abs=1e-5)
    assert hessian[1] == pytest.approx((gradient[2] - gradient[0]) / (2 * step), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", sorted(LABELS))
@pytest.mark.parametrize("margin", [-2.0, 0.3])
@pytest.mark.parametrize("spread", [0.0, 0.2, 1.5])
def test_expected_derivatives_are_those_of_a_normal_margin(name: str, margin: float, spread: float) -> None:
    family, label = Family.named(name), LABELS[name][1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    margins = margin + np.sqrt(spread) * nodes
    gradient, hessian = family.derivatives(np.full(60, label), margins, weights / weights.sum())
    first, second = expected_derivatives_at(family.code, label, margin, spread)
    # exact for gaussian and poisson; MacKay's approximation of the logistic is good to about 0.01
    assert first == pytest.approx(gradient.sum(), abs=0.01 if name == "binomial" else 1e-6)
    assert second == pytest.approx(hessian.sum(), abs=0.012 if name == "binomial" else 1e-6)


@pytest.mark.parametrize("name", sorted(LABELS))
def test_family_intercept_reproduces_the_weighted_mean(name: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200).astype(float)
    weights, offset = rng.random(200), rng.normal(size=200)
    family = Family.named(name)
    constant = family.intercept(labels, weights, offset)
    assert family.response(offset + constant) @ weights == pytest.approx(labels @ weights, rel=1e-6)


@pytest.mark.parametrize(("name", "label"), [("binomial", 0.0), ("binomial", 1.0), ("poisson", 0.0)])
def test_family_intercept_is_finite_at_the_edge_of_the_support(name: str, label: float) -> None:
    constant = Family.named(name).intercept(np.full(10, label), np.ones(10), np.linspace(-3, 3, 10))
    assert np.isfinite(constant)


@pytest.mark.parametrize(("name", "label"), [("binomial", 0.5), ("gaussian", np.inf), ("poisson", -1.0)])
def test_family_check_labels_refuses_what_lies_outside_the_support(name: str, label: float) -> None:
    with pytest.raises(InvalidModelInput, match=f"1 of 2 labels are outside the support of {name}.*row 1"):
        Family.named(name).check_labels(np.array([1.0, label]))


def test_family_named_suggests_the_known_name() -> None:
    with pytest.raises(InvalidModelInput, match="Did you mean 'poisson'"):
        Family.named("poison")
