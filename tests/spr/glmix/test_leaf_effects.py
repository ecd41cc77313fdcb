"""`RandomEffect(features="leaves")`: each member has weights on the leaves of a few trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, Linear, MixedModel, NearlineUpdater, RandomEffect, Trees

if TYPE_CHECKING:
    from pathlib import Path


def _table(n: int = 24_000, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Members differ in how much they like one interaction of two columns, which no linear slope can say."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(9).normal(size=300)
    member, a, b = rng.integers(0, 300, n), rng.normal(size=n), rng.normal(size=n)
    both = ((a > 0) == (b > 0)).astype(float)
    margin = -0.5 + 0.6 * both + 2.0 * taste[member] * (both - 0.5)
    frame = pd.DataFrame({"a": a, "b": b, "member": member})
    return frame, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float)


def _loss(model: GLMixClassifier, frame: pd.DataFrame, y: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, (1 - 2 * y) * model.decision_function(frame))))


@pytest.mark.parametrize("fixed", [Trees(["a", "b"], n_rounds=40, max_depth=3), Linear(["a", "b"])])
def test_leaves_personalise_an_interaction(fixed: Trees | Linear, tmp_path: Path) -> None:
    frame, y = _table()
    later, labels = _table(8_000, seed=1)
    leaves = GLMixClassifier(fixed, [RandomEffect("member", "member", "leaves")], variance="full").fit(frame, y)
    slopes = GLMixClassifier(fixed, [RandomEffect("member", "member", ["a", "b"])]).fit(frame, y)
    assert _loss(leaves, later, labels) < _loss(slopes, later, labels) - 0.03
    names = leaves.coefficients("member").columns
    assert names[0] == "tree0=leaf0"
    assert names[-1] == "intercept"
    leaves.model_.save(tmp_path / "model")
    again = MixedModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.margins(later), leaves.margins(later))
    row = later.iloc[[3]]
    contributions = leaves.explain(row)
    assert contributions["contribution"].sum() == pytest.approx(leaves.decision_function(row)[0], abs=1e-4)
    touched = NearlineUpdater(leaves, "member").update(later[:50], labels[:50])
    assert set(touched.keys) == set(later["member"][:50])


def test_leaves_need_columns_to_be_grown_over() -> None:
    frame, y = _table(500)
    effect = [RandomEffect("member", "member", "leaves")]
    with pytest.raises(InvalidModelInput, match="needs a fixed effect"):
        GLMixClassifier(None, effect).fit(frame, y)
    with pytest.raises(InvalidModelInput, match="makes a column 'tree0', which X has already"):
        GLMixClassifier(Linear(["a", "b"]), effect).fit(frame.assign(tree0=1.0), y)
    with pytest.raises(InvalidModelInput, match="give a list of columns, or 'leaves'"):
        RandomEffect("member", "member", "leafs")
