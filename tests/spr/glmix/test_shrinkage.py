from __future__ import annotations

import numpy as np
import pytest

from spr.glmix.families import Family
from spr.glmix.shrinkage import chosen_scale, fit_line, unseen_correction


def _unseen_rows(n_groups: int, rows: int, sd: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(n_groups), rows)
    fixed = rng.normal(-3.0, 1.0, groups.size)
    margin = fixed + rng.normal(0, sd, n_groups)[groups]
    return (rng.random(groups.size) < 1 / (1 + np.exp(-margin))).astype(float), fixed, groups


def test_unseen_correction_repairs_the_mean_of_entities_without_an_effect() -> None:
    labels, fixed, groups = _unseen_rows(2000, 10, sd=1.0)
    family, zeros, ones = Family.named("binomial"), np.zeros(labels.size), np.ones(labels.size)
    intercept, slope = unseen_correction(family, labels, ones, fixed, zeros, groups)
    corrected = family.response(intercept + slope * fixed).mean()
    assert corrected == pytest.approx(labels.mean(), rel=0.03)
    assert family.response(fixed).mean() < 0.85 * labels.mean()  # what it repairs


def test_unseen_correction_stays_near_nothing_with_few_groups() -> None:
    labels, fixed, groups = _unseen_rows(3, 10, sd=1.0)
    few = unseen_correction(
        Family.named("binomial"), labels, np.ones(labels.size), fixed, np.zeros(labels.size), groups
    )
    assert abs(few[0]) < 0.5
    assert 0.5 < few[1] < 1.5


def test_unseen_correction_is_nothing_for_one_group() -> None:
    ones = np.ones(4)
    line = unseen_correction(Family.named("gaussian"), ones * 5, ones, ones, ones * 0, np.zeros(4, dtype=np.int64))
    assert line == (0.0, 1.0)


def test_fit_line_equals_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    fixed, rest, weights = rng.normal(size=300), rng.normal(size=300), rng.random(300)
    labels = rest + 0.7 + 1.4 * fixed + rng.normal(size=300)
    line = fit_line(Family.named("gaussian"), labels, weights, fixed, rest, (0.0, 1.0))
    expected = np.polyfit(fixed, labels - rest, 1, w=np.sqrt(weights))
    assert line == pytest.approx(expected[::-1], abs=1e-4)


def test_fit_line_keeps_the_slope_from_turning_the_ranking_round() -> None:
    fixed = np.linspace(-1, 1, 100)
    line = fit_line(Family.named("gaussian"), -fixed, np.ones(100), fixed, np.zeros(100), (0.0, 1.0))
    assert line[1] == 0.0


def test_chosen_scale_prefers_the_estimate_where_another_scale_is_only_luckier() -> None:
    entities = np.arange(60)
    noise = np.random.default_rng(0).normal(size=60) * 3
    assert (
        chosen_scale(lambda s: 1.0 + (s == 1.5) * (noise - noise.mean() - 0.01), np.full(60, 9.0), entities, known=True)
        == 1.0
    )


def test_chosen_scale_asks_more_of_an_effect_whose_variance_is_hardly_known() -> None:
    entities = np.arange(100)
    gain = np.random.default_rng(0).normal(0.2, 1.0, size=100)  # two standard errors of its mean
    assert chosen_scale(lambda _: -gain, np.zeros(100), entities, known=True) == 1.0
    assert chosen_scale(lambda _: -gain, np.zeros(100), entities, known=False) == 0.0
