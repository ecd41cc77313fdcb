"""Posterior variances: intervals that cover, draws for Thompson sampling that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect

SIZES = (2, 8, 32, 128)
UNSEEN = 10_000


def _labels(family: str, margin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if family == "binomial":
        return (rng.random(margin.size) < 1 / (1 + np.exp(-margin))).astype(float)
    return rng.poisson(np.exp(margin)).astype(float) if family == "poisson" else margin + rng.normal(size=margin.size)


def _model(family: str, **options: Any) -> Any:
    effects = [RandomEffect("member", "key", ["x"])]
    if family == "binomial":
        return GLMixClassifier(Linear(["x"]), effects, **options)
    return GLMixRegressor(Linear(["x"]), effects, family=family, **options)


@pytest.mark.parametrize("base", [-1.2, -0.4])
@pytest.mark.parametrize("family", ["binomial", "gaussian", "poisson"])
def test_intervals_cover_the_truth(family: str, base: float) -> None:
    rng = np.random.default_rng(7)
    key = np.repeat(np.arange(2000), 20)
    x, intercept, slope = rng.normal(size=key.size), rng.normal(size=2000), 0.5 * rng.normal(size=2000)
    y = _labels(family, base + 0.5 * x + intercept[key] + slope[key] * x, rng)
    if family == "binomial":
        assert 0.2 < y.mean() < 0.5
    model = _model(family, variance="full").fit(pd.DataFrame({"x": x, "key": key}), y)
    table = model.coefficients("member", variance=True)
    for column, truth in (("intercept", intercept), ("x", slope)):
        half = 1.96 * np.sqrt(table[f"{column}_variance"])
        covered = ((table[column] - truth).abs() <= half).mean()
        assert 0.92 <= covered <= 0.98, (column, covered)
        # an interval that covers because it is the prior's would say nothing
        assert half.mean() < 1.96 * (0.75 if column == "intercept" else 0.47)


@pytest.fixture(scope="module", params=["binomial", "gaussian"])
def uneven(request: pytest.FixtureRequest) -> Any:
    """Entities of 2, 8, 32 and 128 rows, 60 of each; x has a mean of 1.5, so slope and intercept are correlated."""
    rng = np.random.default_rng(3)
    key = np.repeat(np.arange(240), np.tile(SIZES, 60))
    x = 1.5 + rng.normal(size=key.size)
    margin = -1.0 + 0.3 * x + rng.normal(size=240)[key] + 0.5 * rng.normal(size=240)[key] * x
    frame = pd.DataFrame({"x": x, "key": key})
    return _model(request.param, variance="full").fit(frame, _labels(request.param, margin, rng))


def _draws(model: Any, frame: pd.DataFrame, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([model.sample_margins(frame, rng=rng) for _ in range(count)])


def test_draws_vary_less_the_more_rows_an_entity_has(uneven: Any) -> None:
    known = pd.DataFrame({"x": 1.5, "key": np.arange(240)})
    frame = pd.concat([known, pd.DataFrame({"x": 1.5, "key": UNSEEN + np.arange(60)})])
    spread = _draws(uneven, frame, 300).std(axis=0)
    by_size = spread[:240].reshape(60, 4).mean(axis=0)
    assert (by_size[1:] < 0.8 * by_size[:-1]).all()
    assert spread[240:].mean() > 1.1 * by_size[0]
    prior = uneven.model_.prior_variance["member"]
    expected = np.sqrt(prior["intercept"] + 1.5**2 * prior["x"])
    assert spread[240:].mean() == pytest.approx(expected, rel=0.03)


def test_draws_are_around_the_posterior_mean(uneven: Any) -> None:
    frame = pd.DataFrame({"x": np.tile([-1.0, 2.0], 240), "key": np.repeat(np.arange(240), 2)})
    draws = _draws(uneven, frame, 400)
    error = (draws.mean(axis=0) - uneven.decision_function(frame)) / (draws.std(axis=0) / 20)
    assert np.abs(error).max() < 4.5
    assert np.square(error).mean() == pytest.approx(1.0, abs=0.25)
    unseen = pd.DataFrame({"x": [-1.0, 2.0], "key": UNSEEN})
    draws = _draws(uneven, unseen, 2000)
    fixed = uneven.margins(unseen)["fixed"].to_numpy()
    np.testing.assert_allclose(draws.mean(axis=0), fixed, atol=4.5 * draws.std() / 2000**0.5)


def test_draws_follow_the_full_covariance(uneven: Any) -> None:
    key = 3  # 128 rows
    rows = pd.DataFrame({"x": [0.0, 1.0, 1.5], "key": key})
    draws = _draws(uneven, rows, 4000)
    effect = uneven.random_effects_["member"]
    covariance = effect.covariance[effect.position(key)].astype(float)
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.5
    coefficients = np.column_stack([draws[:, 1] - draws[:, 0], draws[:, 0]])
    np.testing.assert_allclose(np.cov(coefficients.T), covariance, rtol=0.1)
    exact = np.sqrt(np.array([1.5, 1.0]) @ covariance @ [1.5, 1.0])
    assert draws[:, 2].std() == pytest.approx(exact, rel=0.05)
    apart = np.sqrt(np.diag(covariance) @ np.square([1.5, 1.0]))
    assert exact < 0.8 * apart  # what diagonal variances would give


def test_draws_match_the_closed_form_of_a_gaussian_mean() -> None:
    rng = np.random.default_rng(2)
    key = np.repeat(np.arange(40), np.tile(SIZES, 10))
    effect = RandomEffect("member", "key", l2=0.5)
    model = GLMixRegressor(None, [effect], variance="full", sweeps=20)
    model.fit(pd.DataFrame({"key": key}), rng.normal(size=40)[key] + rng.normal(size=key.size))
    draws = _draws(model, pd.DataFrame({"key": np.arange(40)}), 2000)
    exact = np.sqrt(model.residual_variance_ / (np.tile(SIZES, 10) + 0.5))
    np.testing.assert_allclose(draws.std(axis=0), exact, rtol=0.08)
    np.testing.assert_allclose((draws.std(axis=0) / exact).mean(), 1.0, rtol=0.01)
    unseen = _draws(model, pd.DataFrame({"key": UNSEEN + np.arange(40)}), 200)
    assert unseen.std() == pytest.approx(np.sqrt(model.residual_variance_ / 0.5), rel=0.05)


def test_rows_of_an_entity_share_its_draw(uneven: Any) -> None:
    # a line in x for each entity, known or not: third differences along x are 0
    keys = np.repeat([0, 1, UNSEEN, UNSEEN + 1], 4)
    frame = pd.DataFrame({"x": np.tile(np.arange(4.0), 4), "key": keys})
    drawn = uneven.sample_margins(frame, rng=np.random.default_rng(0)).reshape(4, 4)
    np.testing.assert_allclose(np.diff(drawn, n=2, axis=1), 0.0, atol=1e-5)
    random = drawn - uneven.margins(frame)["fixed"].to_numpy().reshape(4, 4)
    assert len(np.unique(random[:, 0].round(6))) == 4  # and each entity has its own


def test_draws_are_seeded_and_do_not_depend_on_the_order_of_rows(uneven: Any) -> None:
    rng = np.random.default_rng(1)
    keys = rng.choice([*range(240), *range(UNSEEN, UNSEEN + 40)], 500)
    frame = pd.DataFrame({"x": rng.normal(size=500), "key": keys})
    order = rng.permutation(500)
    one = uneven.sample_margins(frame, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(one, uneven.sample_margins(frame, rng=np.random.default_rng(5)))
    np.testing.assert_array_equal(one[order], uneven.sample_margins(frame.iloc[order], rng=np.random.default_rng(5)))
    assert (one != uneven.sample_margins(frame, rng=np.random.default_rng(6))).all()


def test_null_key_is_not_drawn(uneven: Any) -> None:
    frame = pd.DataFrame({"x": [0.5, 0.5], "key": [np.nan, 3.0]})
    drawn = uneven.sample_margins(frame, rng=np.random.default_rng(0))
    assert drawn[0] == uneven.margins(frame)["fixed"].iloc[0]
    assert drawn[1] != drawn[0]


def test_draws_need_variances() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=400), "key": np.repeat(np.arange(40), 10)})
    model = _model("gaussian").fit(frame, rng.normal(size=400))
    for draw in (model.sample_margins, model.model_.sample_margins):
        with pytest.raises(
            InvalidModelInput, match="coefficients of 'member' have no variances; fit with variance='full'"
        ):
            draw(frame, rng=rng)
    with pytest.raises(InvalidModelInput, match="variances were not fitted"):
        model.coefficients("member", variance=True)
