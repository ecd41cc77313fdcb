from __future__ import annotations

import json

import numpy as np
import pytest
import xgboost

from spr.errors import InvalidModelInput
from spr.glmix import FittedTrees
from spr.glmix.families import Family
from spr.glmix.leaves import LeafEncoding

BINOMIAL = Family.named("binomial")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 3)).astype(np.float32)
    rows[rng.random(3000) < 0.15, 0] = np.nan
    rows[:, 2] = np.round(rows[:, 2])
    return rows


@pytest.fixture(scope="module")
def trees(rows: np.ndarray) -> FittedTrees:
    target = np.nan_to_num(rows[:, 0]) * rows[:, 1] + rows[:, 2]
    booster = xgboost.train(
        {"base_score": 0.0, "max_depth": 5, "nthread": 1}, xgboost.QuantileDMatrix(rows, target, nthread=1), 6
    )
    return FittedTrees(("a", "b", "c"), 0.25, booster)


def _learn(rows: np.ndarray, **args: float) -> LeafEncoding:
    labels = (np.nan_to_num(rows[:, 0]) * rows[:, 1] > 0).astype(float)
    return LeafEncoding.learn(rows, labels, np.ones(len(rows)), ("a", "b", "c"), BINOMIAL, **args)


def test_codes_tell_rows_apart_as_xgboost_does(trees: FittedTrees, rows: np.ndarray) -> None:
    leaves = LeafEncoding.of(trees, n_trees=4, max_depth=9)
    theirs = trees.booster.predict(xgboost.DMatrix(rows), pred_leaf=True, iteration_range=(0, 4)).astype(int)
    codes = leaves.codes(rows)
    for tree in range(4):
        pairs = np.unique(np.column_stack([codes[:, tree], theirs[:, tree]]), axis=0)
        assert len(pairs) == np.unique(codes[:, tree]).size == np.unique(theirs[:, tree]).size


def test_cut_off_leaves_are_unions_of_whole_ones(trees: FittedTrees, rows: np.ndarray) -> None:
    deep, shallow = (LeafEncoding.of(trees, n_trees=2, max_depth=depth).codes(rows) for depth in (5, 2))
    assert shallow.max() == 3
    for tree in range(2):
        pairs = np.unique(np.column_stack([deep[:, tree], shallow[:, tree]]), axis=0)
        assert len(pairs) == np.unique(deep[:, tree]).size


def test_matrix_has_one_leaf_of_each_tree_in_a_row(rows: np.ndarray) -> None:
    leaves = _learn(rows)
    matrix, codes = leaves.matrix(rows), leaves.codes(rows)
    assert (matrix.dtype, codes.dtype, codes.shape) == (np.float32, np.int32, (3000, leaves.n_trees))
    assert matrix.shape[1] == len(leaves.names) == sum(leaves.n_leaves) <= 32
    np.testing.assert_array_equal(matrix.sum(axis=1), np.full(3000, 4))
    assert matrix[5, leaves.names.index(f"tree1=leaf{codes[5, 1]}")] == 1
    assert (matrix.mean(axis=0) > 0.005).all()  # no leaf is tiny


def test_learn_finds_the_interaction_and_ignores_rows_without_weight(rows: np.ndarray) -> None:
    leaves = _learn(rows)
    labels = (np.nan_to_num(rows[:, 0]) * rows[:, 1] > 0).astype(float)
    fit = np.linalg.lstsq(leaves.matrix(rows), labels, rcond=None)[0]
    assert np.corrcoef(leaves.matrix(rows) @ fit, labels)[0, 1] > 0.7
    weights = (np.arange(3000) < 2000).astype(float)
    spoilt = np.where(weights > 0, labels, 1 - labels)
    one, other = (LeafEncoding.learn(rows, y, weights, ("a", "b", "c"), BINOMIAL).to_dict() for y in (labels, spoilt))
    assert one == other


def test_from_dict_returns_what_to_dict_wrote(rows: np.ndarray) -> None:
    leaves = _learn(rows)
    again = LeafEncoding.from_dict(json.loads(json.dumps(leaves.to_dict())))
    np.testing.assert_array_equal(again.codes(rows), leaves.codes(rows))
    assert (again.names, again.features, again.to_dict()) == (leaves.names, leaves.features, leaves.to_dict())


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("left", 0, 10_000_000, "children out of range"),
        ("right", 0, 0, "children out of range"),
        ("column", 0, 3, "column out of range"),
        ("column", 0, -1, "column out of range"),
        ("threshold", 0, float("inf"), "not finite"),
        ("leaf", -1, 0, "not counted"),
        ("leaf", 0, "a", "cannot be read"),
        ("roots", 0, 1, "roots"),
    ],
)
def test_from_dict_refuses_what_is_no_tree(
    rows: np.ndarray, name: str, place: int, value: object, message: str
) -> None:
    described = _learn(rows).to_dict()
    described[name][place] = value
    with pytest.raises(InvalidModelInput, match=message):
        LeafEncoding.from_dict(described)


def test_from_dict_names_what_is_missing(rows: np.ndarray) -> None:
    described = _learn(rows).to_dict()
    del described["left"]
    with pytest.raises(InvalidModelInput, match="unknown field 'left'"):
        LeafEncoding.from_dict(described)


def test_rules_describe_the_rows_of_each_leaf(rows: np.ndarray) -> None:
    leaves = _learn(rows)
    rules, matrix = leaves.rules(), leaves.matrix(rows)
    assert tuple(rules) == leaves.names
    limits = leaves.threshold.tolist()
    for place, rule in enumerate(rules.values()):
        inside = np.ones(len(rows), dtype=bool)
        for part in rule.split(" & "):
            name, sign, limit, *missing = part.split(" ")
            column = rows[:, "abc".index(name)]
            exact = np.float32(min(limits, key=lambda value: abs(value - float(limit))))
            holds = column < exact if sign == "<" else column >= exact
            inside &= holds | (np.isnan(column) & (missing == ["?"]))
        np.testing.assert_array_equal(inside, matrix[:, place] == 1)


def test_bad_numbers_and_shapes_are_refused(trees: FittedTrees, rows: np.ndarray) -> None:
    with pytest.raises(InvalidModelInput, match="the first 7 of 6 trees"):
        LeafEncoding.of(trees, n_trees=7)
    with pytest.raises(InvalidModelInput, match=r"expected \(n, 3\)"):
        LeafEncoding.of(trees).codes(rows[:, :2])
    with pytest.raises(InvalidModelInput, match="no row has a positive weight"):
        LeafEncoding.learn(rows, np.ones(3000), np.zeros(3000), ("a", "b", "c"), BINOMIAL)
    with pytest.raises(InvalidModelInput, match="2 features"):
        LeafEncoding.learn(rows, np.ones(3000), np.ones(3000), ("a", "b"), BINOMIAL)


def test_constant_labels_give_trees_of_one_leaf(rows: np.ndarray) -> None:
    leaves = LeafEncoding.learn(rows[:, :1], np.zeros(3000), np.ones(3000), ("a",), BINOMIAL)
    assert leaves.matrix(rows[:, :1]).shape == (3000, len(leaves.names))
