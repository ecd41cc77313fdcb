"""Learnt prior variances against the truth that made the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect, descent
from spr.glmix.families import Family

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SLOPES = [RandomEffect("member", "key", ["x"])]


def _slopes(seed: int, n_keys: int, rows: int) -> tuple[pd.DataFrame, Floats]:
    """Intercepts of variance 1 and slopes of variance 0.25; binomial rates of 0.4 on average."""
    rng = np.random.default_rng(seed)
    key = np.repeat(np.arange(n_keys), rows)
    x = rng.normal(size=key.size)
    margin = -0.5 + 0.5 * x + rng.normal(size=n_keys)[key] + 0.5 * rng.normal(size=n_keys)[key] * x
    return pd.DataFrame({"x": x, "key": key}), margin


def _labels(family: str, margin: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(1000 + seed)
    if family == "binomial":
        return (rng.random(margin.size) < 1 / (1 + np.exp(-margin))).astype(np.float64)
    if family == "poisson":
        return rng.poisson(np.exp(margin)).astype(np.float64)
    return margin + rng.normal(size=margin.size)


def _model(family: str, fixed: Linear, effects: list[RandomEffect]) -> Any:
    if family == "binomial":
        return GLMixClassifier(fixed, effects)
    return GLMixRegressor(fixed, effects, family=family)


def _ratios(family: str, n_keys: int, rows: int, seeds: int) -> Floats:
    """Learnt over true variance of slope and intercept, averaged over seeds."""
    out = []
    for seed in range(seeds):
        frame, margin = _slopes(seed, n_keys, rows)
        y = _labels(family, margin, seed)
        if family == "binomial":
            assert 0.2 < y.mean() < 0.5
        learnt = _model(family, Linear(["x"]), SLOPES).fit(frame, y).prior_variance_["member"]
        out.append([learnt["x"] / 0.25, learnt["intercept"]])
    return np.mean(out, axis=0)


@pytest.mark.parametrize(
    ("family", "rows", "tolerance"),
    [
        ("binomial", 20, 0.2),
        ("poisson", 20, 0.2),
        ("gaussian", 20, 0.1),
        ("binomial", 5, 0.5),
        ("poisson", 5, 0.5),
        ("gaussian", 5, 0.1),
    ],
)
def test_fit_recovers_prior_variances(family: str, rows: int, tolerance: float) -> None:
    assert _ratios(family, 2000, rows, 2) == pytest.approx(1.0, rel=tolerance)


@pytest.mark.parametrize(("family", "n_keys"), [("binomial", 20_000), ("poisson", 2000)])
def test_simulation_takes_bias_off_learnt_variances(family: str, n_keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    corrected = _ratios(family, n_keys, 5, 2)
    found: list[list[Floats]] = []

    def nothing(_family: Any, effects: Any, *_: Any) -> list[Floats]:
        found.append([np.zeros(len(effect.columns)) for effect in effects])
        return found[-1]

    monkeypatch.setattr(descent, "learn_from_simulation", nothing)
    alone = _ratios(family, n_keys, 5, 2)
    assert len(found) == 2
    assert np.abs(np.log(corrected)).mean() < 0.75 * np.abs(np.log(alone)).mean()
    assert (corrected > alone).all()  # 0/1 labels and counts bias variances low


@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_learnt_variances_do_not_depend_on_the_order_of_rows(family: str) -> None:
    frame, margin = _slopes(0, 400, 10)
    y = _labels(family, margin, 0)
    order = np.random.default_rng(1).permutation(len(frame))
    one = _model(family, Linear(["x"]), SLOPES).fit(frame, y)
    other = _model(family, Linear(["x"]), SLOPES).fit(frame.iloc[order], y[order])
    for column, variance in one.prior_variance_["member"].items():
        assert other.prior_variance_["member"][column] == pytest.approx(variance, rel=1e-4)
    assert one.prediction_scale_ == other.prediction_scale_


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_fit_recovers_the_variances_of_crossed_effects(family: str) -> None:
    out = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        user, item, x = rng.integers(0, 2000, 40_000), rng.integers(0, 1000, 40_000), rng.normal(size=40_000)
        margin = -0.5 + 0.3 * x + rng.normal(size=2000)[user] + 0.7 * rng.normal(size=1000)[item]
        model = _model(family, Linear(["x"]), [RandomEffect("user", "user"), RandomEffect("item", "item")])
        model.fit(pd.DataFrame({"x": x, "user": user, "item": item}), _labels(family, margin, seed))
        out.append([model.prior_variance_[name]["intercept"] for name in ("user", "item")])
    assert np.mean(out, axis=0) / [1.0, 0.49] == pytest.approx(1.0, rel=0.2)


def _departments() -> Floats:
    """Learnt sd over true sd of 28 departments, where instructors teach in one or two of them; five seeds."""
    out = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        home, other = rng.integers(0, 28, (2, 1100))
        who = np.repeat(np.arange(1100), 60)
        elsewhere = (rng.random(1100) < 0.2)[who] & (rng.random(who.size) < 0.3)
        where = np.where(elsewhere, other[who], home[who])
        effect = rng.normal(size=28)
        effect = 0.15 * (effect - effect.mean()) / effect.std()
        x = rng.normal(size=who.size)
        y = 3 + 0.3 * x + effect[where] + 0.5 * rng.normal(size=1100)[who] + 1.2 * rng.normal(size=who.size)
        effects = [RandomEffect("instructor", "who"), RandomEffect("department", "where")]
        model = GLMixRegressor(Linear(["x"]), effects).fit(pd.DataFrame({"x": x, "who": who, "where": where}), y)
        learnt = model.prior_variance_
        out.append([learnt["department"]["intercept"] ** 0.5 / 0.15, learnt["instructor"]["intercept"] ** 0.5 / 0.5])
    return np.mean(out, axis=0)


def test_small_effect_confounded_with_a_large_one_keeps_its_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    together = _departments()
    assert together == pytest.approx(1.0, rel=0.15)
    monkeypatch.setattr(descent, "pair_small_effects", lambda _: {})
    apart = _departments()
    assert together[0] > 1.25 * apart[0]  # the instructors take up what the departments do


def _years(seed: int, family: str, centre: float) -> tuple[pd.DataFrame, Floats]:
    """A year that is all but the intercept, in units that put 1 at its middle (or around `centre`)."""
    rng = np.random.default_rng(seed)
    key = np.repeat(np.arange(300), 40)
    year = centre * (1.0 + 0.001 * rng.integers(-3, 4, key.size))
    return pd.DataFrame({"year": year, "key": key}), _labels(family, 0.3 + 0.8 * rng.normal(size=300)[key], seed)


@pytest.mark.parametrize("centre", [1.0, 2020.0])
@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_collinear_columns_do_no_harm(family: str, centre: float) -> None:
    frame, y = _years(0, family, centre)
    test = np.arange(len(y)) % 40 >= 30
    losses = {}
    for name, features in (("with", ["year"]), ("without", [])):
        model = _model(family, Linear(["year"]), [RandomEffect("member", "key", features)])
        model.fit(frame[~test], y[~test])
        margin = model.decision_function(frame[test])
        losses[name] = Family.named(family).mean_loss(y[test], margin, np.ones(int(test.sum())))
        if features:
            history = model.history_[model.history_["coordinate"] == "member"]
    assert losses["with"] == pytest.approx(losses["without"], rel=0.005)
    # what both columns add to a margin together is learnt, and stands still: no sweep throws it back
    spread = [
        variance["intercept"] + centre**2 * variance["year"]
        for variance in history.query("stage == 'final'")["prior_variance"]
    ]
    assert 0.4 < spread[-1] < 0.9  # the truth is 0.64
    assert max(spread) < 1.3 * min(spread)
