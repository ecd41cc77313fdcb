"""Effects nested in effects, and the moves between coordinates that leave every margin as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect
from spr.glmix.centring import Centring

if TYPE_CHECKING:
    from spr.glmix.effect_descent import EffectDescent
    from spr.glmix.linear import LinearDescent

SEGMENT = RandomEffect("segment", "segment")
VIEWER = RandomEffect("viewer", "viewer", parent="segment")


def _nested(seed: int, n_segments: int, n_viewers: int, *, segment_sd: float = 0.7) -> tuple[pd.DataFrame, Any, Any]:
    """Viewers of sd 0.8 in segments whose effects have mean 0 and exactly `segment_sd`; 8 rows a viewer."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=n_segments)
    effect = segment_sd * (effect - effect.mean()) / effect.std()
    segment_of = np.arange(n_viewers) % n_segments
    viewer = np.repeat(np.arange(n_viewers), 8)
    frame = pd.DataFrame({"x": rng.normal(size=viewer.size), "viewer": viewer, "segment": segment_of[viewer]})
    margin = 0.3 + 0.5 * frame["x"].to_numpy() + effect[segment_of[viewer]] + 0.8 * rng.normal(size=n_viewers)[viewer]
    return frame, margin, effect


def _model(family: str, effects: list[RandomEffect], seed: int, margin: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(1000 + seed)
    if family == "binomial":
        return GLMixClassifier(Linear(["x"]), effects), (rng.random(margin.size) < 1 / (1 + np.exp(-margin))) * 1.0
    return GLMixRegressor(Linear(["x"]), effects), margin + rng.normal(size=margin.size)


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_unseen_viewer_takes_the_effect_of_its_segment(family: str) -> None:
    frame, margin, effect = _nested(0, 20, 2000)
    model, y = _model(family, [SEGMENT, VIEWER], 0, margin)
    model.fit(frame, y)
    unseen = pd.DataFrame({"x": 0.0, "viewer": -1 - np.arange(20), "segment": np.arange(20)})
    parts = model.margins(unseen)
    assert (parts["viewer"] == 0).all()
    np.testing.assert_array_equal(parts["segment"], model.coefficients("segment")["intercept"].astype(float))
    # 100 viewers a segment: the mean of 100 effects of sd 0.8 is off by 0.08
    assert np.corrcoef(parts["segment"], effect)[0, 1] > 0.97
    assert np.abs(parts["segment"] - effect).max() < 0.35
    # what is left to the viewers has no mean of its own within a segment
    left = model.coefficients("viewer")["intercept"].groupby(np.arange(2000) % 20).mean()
    assert left.abs().max() < 0.05
    nowhere = model.margins(unseen.head(1).assign(segment=99))
    assert (nowhere[["segment", "viewer"]] == 0).all(axis=None)


@pytest.mark.parametrize("n_segments", [10, 40])
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_fit_recovers_the_sd_of_segments(family: str, n_segments: int) -> None:
    learnt = []
    for seed in range(2):
        frame, margin, _ = _nested(seed, n_segments, 2000)
        model, y = _model(family, [SEGMENT, VIEWER], seed, margin)
        variance = model.fit(frame, y).prior_variance_
        learnt.append([variance["segment"]["intercept"] ** 0.5, variance["viewer"]["intercept"] ** 0.5])
    assert np.array(learnt)[:, 0] == pytest.approx(0.7, rel=0.35)
    assert np.array(learnt)[:, 1] == pytest.approx(0.8, rel=0.15)


def test_fit_refuses_a_viewer_in_two_segments() -> None:
    frame, margin, _ = _nested(0, 10, 60)
    frame.loc[3, "segment"] = 9
    with pytest.raises(
        InvalidModelInput, match="'viewer' is not nested in 'segment': 0 stands under two values of 'seg"
    ):
        GLMixRegressor(Linear(["x"]), [SEGMENT, VIEWER]).fit(frame, margin)


def test_fit_refuses_an_unknown_parent() -> None:
    frame, margin, _ = _nested(0, 10, 60)
    orphan = RandomEffect("viewer", "viewer", parent="segmnt")
    with pytest.raises(InvalidModelInput, match=r"unknown parent 'segmnt' in random effect 'viewer'.*'segment'"):
        GLMixRegressor(Linear(["x"]), [SEGMENT, orphan]).fit(frame, margin)
    with pytest.raises(InvalidModelInput, match="its own parent"):
        RandomEffect("viewer", "viewer", parent="viewer")


def _aged(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Age is constant within a member and lies on one side of 0; x is not constant, and has random slopes too."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(600), rng.integers(4, 16, 600))
    age = (2.0 + rng.normal(size=600))[member]
    x = 1.0 + rng.normal(size=member.size)
    margin = 0.4 + 0.5 * age - 0.3 * x + rng.normal(size=600)[member] + 0.5 * rng.normal(size=600)[member] * x
    return pd.DataFrame({"age": age, "x": x, "member": member}), margin + rng.normal(size=member.size)


def test_linear_beside_random_effects_is_generalised_least_squares() -> None:
    frame, y = _aged()
    model = GLMixRegressor(Linear(["age", "x"], l2=0.0), [RandomEffect("member", "member", ["x"])]).fit(frame, y)
    variance, residual = model.prior_variance_["member"], model.residual_variance_
    prior = np.diag([variance["x"], variance["intercept"]])
    left, right = np.zeros((3, 3)), np.zeros(3)
    for rows in frame.groupby("member").indices.values():
        x = frame["x"].to_numpy()[rows]
        design = np.column_stack([frame["age"].to_numpy()[rows], x, np.ones(len(rows))])
        random = design[:, 1:]
        weighted = np.linalg.solve(random @ prior @ random.T + residual * np.eye(len(rows)), design)
        left += design.T @ weighted
        right += weighted.T @ y[rows]
    exact = np.linalg.solve(left, right)
    errors = np.sqrt(np.diag(np.linalg.inv(left)))
    found = np.array([*model.fixed_.coefficients, model.fixed_.intercept])
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert (np.abs(found - exact) < 0.1 * errors).all()
    assert (np.abs(found - [0.5, -0.3, 0.4]) < 3 * errors).all()


@pytest.mark.parametrize("l2", [0.0, 20.0])
def test_centring_lowers_the_penalties_and_leaves_margins(l2: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gains: list[float] = []
    move, begin = Centring.move, Centring.__init__
    parts: dict[Centring, tuple[LinearDescent, EffectDescent]] = {}

    def start(self: Centring, fixed: LinearDescent, rows: Any, effect: EffectDescent) -> None:
        begin(self, fixed, rows, effect)
        parts[self] = fixed, effect

    def penalty(fixed: LinearDescent, effect: EffectDescent, dispersion: float) -> float:
        own = (effect.coefficients[effect.seen] ** 2 @ effect.precision(dispersion)).sum()
        return float(own + fixed.ridge() @ fixed.coefficients**2)

    def watched(self: Centring, total: np.ndarray, dispersion: float) -> None:
        fixed, effect = parts[self]
        before, sums = total.copy(), fixed.margin + effect.margin()
        high, moved = penalty(fixed, effect, dispersion), fixed.margin.copy()
        move(self, total, dispersion)
        seen = effect.seen[effect.codes]  # a held-out entity has no coefficient that could take the other side
        np.testing.assert_allclose(total[seen], before[seen], atol=1e-5)
        np.testing.assert_allclose((fixed.margin + effect.margin())[seen], sums[seen], atol=1e-5)
        gains.append(high - penalty(fixed, effect, dispersion))
        assert gains[-1] > -1e-6 * high
        if len(gains) == 1:
            assert np.abs(fixed.margin - moved).max() > 1e-3  # it did move something

    monkeypatch.setattr(Centring, "__init__", start)
    monkeypatch.setattr(Centring, "move", watched)
    frame, y = _aged()
    GLMixRegressor(Linear(["age", "x"], l2=l2), [RandomEffect("member", "member", ["x"])]).fit(frame, y)
    assert len(gains) > 4
    assert gains[0] > 0.05


def test_fixed_linear_beside_an_effect_without_entities() -> None:
    frame, y = _aged()
    nobody = frame.assign(member=pd.Series([None] * len(frame), dtype=object))
    model = GLMixRegressor(Linear(["age", "x"]), [RandomEffect("member", "member")]).fit(nobody, y)
    alone = GLMixRegressor(Linear(["age", "x"])).fit(frame, y)
    np.testing.assert_allclose(model.fixed_.coefficients, alone.fixed_.coefficients, atol=1e-3)
