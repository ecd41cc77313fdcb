"""Whether a saved booster really holds trees: XGBoost crashes on child indices that lead nowhere or in circles."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from spr.errors import InvalidModelInput
from spr.glmix.ubjson import parse_ubjson

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARRAYS = {
    "left_children": np.int32,
    "right_children": np.int32,
    "split_indices": np.int32,
    "split_conditions": np.float32,
    "parents": np.int32,
    "default_left": np.uint8,
    "split_type": np.uint8,
    "base_weights": np.float32,
    "sum_hessian": np.float32,
    "loss_changes": np.float32,
}
_CATEGORICAL = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_MODEL = ("gbtree_model_param", "trees", "tree_info", "iteration_indptr")


def check_booster(raw: bytes, *, n_features: int) -> None:
    """Raise InvalidModelInput unless `raw` is a UBJSON booster of plain numeric trees, each a proper tree.

    Parameters
    ----------
    raw : bytes
        What ``Booster.save_raw("ubj")`` gives.
    n_features : int
        Columns that the trees may split on.

    Raises
    ------
    InvalidModelInput
        Not UBJSON; another kind of booster (dart, linear, multi-class, categorical splits); a base score
        other than 0; a child, feature or count out of range; a cycle; a threshold or leaf that is not finite.
    """
    learner = _mapping(_mapping(parse_ubjson(raw), "file").get("learner"), "learner")
    parameters = _mapping(learner.get("learner_model_param"), "learner_model_param")
    booster = _mapping(learner.get("gradient_booster"), "gradient_booster")
    if booster.get("name") != "gbtree":
        raise InvalidModelInput(f"trees: booster {booster.get('name')!r}; allowed: 'gbtree'.")
    for name, allowed in (("num_class", ("0", "1")), ("num_target", ("1",)), ("num_feature", (str(n_features),))):
        if parameters.get(name) not in allowed:
            raise InvalidModelInput(f"trees: {name} is {parameters.get(name)!r}; allowed: {' or '.join(allowed)}.")
    try:
        base_score = float(str(parameters.get("base_score")).strip("[]"))
    except ValueError:
        base_score = np.nan
    if base_score != 0.0:
        raise InvalidModelInput(f"trees: base_score is {parameters.get('base_score')!r}; allowed: 0.")
    model = _mapping(booster.get("model"), "model")
    missing = [name for name in _MODEL if name not in model]
    if missing:
        raise InvalidModelInput(f"trees: the model has no {missing[0]!r}.")
    trees = model["trees"]
    if not isinstance(trees, list):
        raise InvalidModelInput("trees: 'trees' is not a list.")
    count = _mapping(model["gbtree_model_param"], "gbtree_model_param")
    if count.get("num_trees") != str(len(trees)) or count.get("num_parallel_tree") != "1":
        raise InvalidModelInput(f"trees: {len(trees)} trees found, {count.get('num_trees')!r} declared.")
    if not np.array_equal(np.asarray(model["tree_info"]), np.zeros(len(trees))):
        raise InvalidModelInput("trees: tree_info does not put every tree in one output.")
    if not np.array_equal(np.asarray(model["iteration_indptr"]), np.arange(len(trees) + 1)):
        raise InvalidModelInput("trees: iteration_indptr does not put one tree in each round.")
    cats = _mapping(model.get("cats", {}), "cats")
    if any(not isinstance(values, list | np.ndarray) or len(values) for values in cats.values()):
        raise InvalidModelInput("trees: categories are stored; SPR writes numeric features only.")
    for number, tree in enumerate(trees):
        _check_tree(_mapping(tree, f"tree {number}"), number, n_features)


def _check_tree(tree: dict[str, object], number: int, n_features: int) -> None:
    where = f"trees: tree {number}"
    declared = _mapping(tree.get("tree_param"), f"tree_param of tree {number}")
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, kind in _ARRAYS.items():
        values = tree.get(name)
        if not isinstance(values, np.ndarray) or values.dtype != kind:
            raise InvalidModelInput(f"{where}: {name} is not an array of {np.dtype(kind)}.")
        arrays[name] = values
    nodes = len(arrays["left_children"])
    if not nodes or any(len(values) != nodes for values in arrays.values()):
        raise InvalidModelInput(f"{where}: arrays of different lengths, or none.")
    if declared.get("num_nodes") != str(nodes) or declared.get("num_feature") != str(n_features):
        raise InvalidModelInput(
            f"{where}: num_nodes or num_feature disagree with {nodes} nodes, {n_features} features."
        )
    if declared.get("num_deleted") != "0" or declared.get("size_leaf_vector") not in ("0", "1"):
        raise InvalidModelInput(f"{where}: deleted nodes or vector leaves; SPR writes neither.")
    if any(len(cast("list[object]", tree.get(name, ()))) for name in _CATEGORICAL) or arrays["split_type"].any():
        raise InvalidModelInput(f"{where}: categorical splits; SPR writes numeric ones only.")
    left = arrays["left_children"].astype(np.int64)
    right = arrays["right_children"].astype(np.int64)
    inner = left != -1
    if not np.array_equal(inner, right != -1):
        raise InvalidModelInput(f"{where}: a node has one child; each has none or two.")
    children = np.concatenate([left[inner], right[inner]])
    # every node but the root is the child of exactly one: with the children after their parent that is a tree
    if not np.array_equal(np.sort(children), np.arange(1, nodes)):
        raise InvalidModelInput(f"{where}: children out of range, shared, or missing.")
    if (left[inner] <= np.flatnonzero(inner)).any() or (right[inner] <= np.flatnonzero(inner)).any():
        raise InvalidModelInput(f"{where}: a child stands before its parent, which allows cycles.")
    parents = arrays["parents"].astype(np.int64)
    if (parents[left[inner]] != np.flatnonzero(inner)).any() or (parents[right[inner]] != np.flatnonzero(inner)).any():
        raise InvalidModelInput(f"{where}: parents and children disagree.")
    splits = arrays["split_indices"].astype(np.int64)[inner]
    if ((splits < 0) | (splits >= n_features)).any():
        raise InvalidModelInput(f"{where}: a split on a feature out of range; the features are 0 to {n_features - 1}.")
    if not np.isfinite(arrays["split_conditions"].astype(np.float64)).all():
        raise InvalidModelInput(f"{where}: a threshold or a leaf is not finite.")
    if (arrays["default_left"].astype(np.int64) > 1).any():
        raise InvalidModelInput(f"{where}: default_left holds something other than 0 and 1.")


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidModelInput(f"trees: {what} is missing or not an object.")
    return cast("dict[str, object]", value)
