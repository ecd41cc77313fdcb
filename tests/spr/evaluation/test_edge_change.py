"""Edges of two arms: by hand, against a bootstrap's truth, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import spr
from spr.errors import ConfigError, TableError
from spr.evaluation.edge_change import edge_change, formed_edges


def arm(name: str, formed: np.ndarray, types: tuple[str, ...] = ("connection", "follow")) -> pd.DataFrame:
    """A row per edge; ``formed``: members x types."""
    viewer, kind = np.repeat(np.indices(formed.shape).reshape(2, -1), formed.ravel(), axis=1)
    return pd.DataFrame({"viewer_id": [f"{name}{v}" for v in viewer], "edge_type": np.array(types, dtype=object)[kind]})


def draw(rng: np.random.Generator, mean: tuple[float, ...], members: int) -> np.ndarray:
    """Counts of members who differ in how active they are, so that types go together."""
    activity = rng.gamma(0.7, 1 / 0.7, members)
    return rng.poisson(activity[:, None] * np.array(mean))


def test_changes_are_those_by_hand() -> None:
    rng = np.random.default_rng(1)
    control, treatment = draw(rng, (1.0, 2.0), 300), draw(rng, (1.5, 1.0), 200)
    found = edge_change(arm("c", control), arm("t", treatment), members=(300, 200), level=0.9)
    assert found.index.tolist() == ["connection", "follow", "total"]
    for row, column in zip(("connection", "follow", "total"), (0, 1, None), strict=True):
        one, other = (x.sum(axis=1) if column is None else x[:, column] for x in (treatment, control))
        error = np.sqrt(one.var(ddof=1) / 200 / one.mean() ** 2 + other.var(ddof=1) / 300 / other.mean() ** 2)
        log_ratio = np.log(one.mean() / other.mean())
        low, high = np.exp(norm.interval(0.9, log_ratio, error)) - 1
        expected = [other.mean(), one.mean(), np.expm1(log_ratio), low, high, 2 * norm.sf(abs(log_ratio) / error)]
        assert found.loc[row].to_numpy()[:6] == pytest.approx(expected)
    p_value = found["p_value"].to_numpy()
    assert sorted(found["adjusted"][:2]) == pytest.approx(
        sorted([2 * p_value[:2].min(), max(2 * p_value[:2].min(), p_value[:2].max())])
    )
    assert found.loc["total", "adjusted"] == found.loc["total", "p_value"]


@pytest.mark.slow
def test_intervals_cover_the_true_change() -> None:
    covered = []
    for seed in range(400):
        rng = np.random.default_rng([3, seed])
        arms = arm("c", draw(rng, (0.5, 1.0), 800)), arm("t", draw(rng, (0.6, 0.9), 800))
        found = edge_change(*arms, members=(800, 800))
        truth = np.array([0.2, -0.1, 0.0])
        covered.append((found["low"] <= truth) & (truth <= found["high"]))
    share = np.mean(covered, axis=0)
    assert np.abs(share - 0.95).max() < 3.3 * np.sqrt(0.95 * 0.05 / 400)


def test_members_without_edges_count() -> None:
    rng = np.random.default_rng(2)
    arms = arm("c", draw(rng, (1.0, 1.0), 200)), arm("t", draw(rng, (1.0, 1.0), 200))
    same, diluted = (edge_change(*arms, members=(200, n)) for n in (200, 400))
    assert (1 + diluted["change"]).to_numpy() == pytest.approx((1 + same["change"]).to_numpy() / 2)


def test_few_and_no_edges_are_null() -> None:
    control = np.zeros((100, 3), dtype=int)
    control[:50, 0], control[:3, 1] = 1, 5
    treatment = np.zeros((100, 3), dtype=int)
    treatment[:40, 0], treatment[:30, 2] = 1, 1
    types = ("a", "b", "c")
    found = edge_change(arm("v", control, types), arm("w", treatment, types), members=(100, 100))
    assert found["change"].tolist() == pytest.approx([-0.2, -1.0, np.nan, 70 / 65 - 1], nan_ok=True)
    for column in ("low", "high", "p_value", "adjusted"):
        assert found[column].isna().tolist() == [False, True, True, False]
    nothing = edge_change(arm("v", control[:0], types), arm("w", treatment[:0], types), members=(5, 5))
    assert nothing.index.tolist() == ["total"]
    assert nothing.loc["total", ["control", "treatment"]].tolist() == [0.0, 0.0]


def test_every_member_with_the_same_count_has_no_p_value() -> None:
    same = np.ones((20, 1), dtype=int)
    found = edge_change(arm("c", same, ("a",)), arm("t", 2 * same, ("a",)), members=(20, 20))
    assert found["change"].tolist() == [1.0, 1.0]
    assert found["low"].tolist() == found["high"].tolist() == [1.0, 1.0]
    assert found["p_value"].isna().all()


def test_edges_of_a_log_are_those_of_its_responses(small_tables) -> None:
    config = spr.Config.named("network")
    edges = formed_edges(small_tables.impressions, config)
    hits = small_tables.impressions.query("response > 0")
    assert edges.groupby("entity_type").size().to_dict() == hits.groupby("entity_type").size().to_dict()
    assert set(edges["edge_type"]) == set(config.edge_types)
    viewers = small_tables.viewers["viewer_id"]
    first = edges["viewer_id"].isin(set(viewers[::2]))
    found = edge_change(edges[first], edges[~first], members=(75, 75), by="entity_type")
    assert found.index.tolist() == [*sorted(config.entity_types), "total"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"level": 0.0}, ConfigError, "level is 0.0"),
        ({"by": "edge"}, ConfigError, "unknown by 'edge'"),
        ({"members": (3, 50)}, TableError, "control: 3 members, and edges of"),
        ({"control": pd.DataFrame({"viewer": ["a"]})}, TableError, "column 'viewer_id' is missing"),
        ({"control": pd.DataFrame({"viewer_id": ["a", None], "edge_type": "x"})}, TableError, "null in 1 of 2 rows"),
        ({"control": pd.DataFrame({"viewer_id": ["t1"], "edge_type": ["follow"]})}, TableError, "first: 't1'"),
        ({"control": pd.DataFrame({"viewer_id": ["a"], "edge_type": ["total"]})}, ConfigError, "cannot be called"),
    ],
)
def test_what_is_not_allowed_is_refused(change, error, message) -> None:
    counts = np.full((50, 2), 1)
    arguments = {"control": arm("c", counts), "treatment": arm("t", counts), "members": (50, 50)} | change
    with pytest.raises(error, match=message):
        edge_change(**arguments)
