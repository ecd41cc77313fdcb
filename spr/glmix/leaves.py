"""Leaves of a few small trees as features: a member's own weight on each leaf personalises interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numba
import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.ubjson import parse_ubjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spr.glmix.families import Family
    from spr.glmix.fixed import FittedTrees

    Floats = NDArray[np.float64]
    Rows = NDArray[np.float32]
    Codes = NDArray[np.int32]

_ARRAYS = {
    "column": np.int32,
    "threshold": np.float32,
    "left": np.int32,
    "right": np.int32,
    "missing_left": np.bool_,
    "leaf": np.int32,
}


@numba.njit(cache=True, nogil=True)
def _walk(
    rows: Rows,
    roots: Codes,
    column: Codes,
    threshold: Rows,
    left: Codes,
    right: Codes,
    missing_left: NDArray[np.bool_],
    leaf: Codes,
    out: Codes,
) -> None:
    for row in range(rows.shape[0]):
        for tree in range(roots.size):
            node = roots[tree]
            while leaf[node] < 0:
                value = rows[row, column[node]]
                goes_left = missing_left[node] if np.isnan(value) else value < threshold[node]
                node = left[node] if goes_left else right[node]
            out[row, tree] = leaf[node]


@dataclass(frozen=True)
class LeafEncoding:
    """Which leaf of each of a few small trees a row falls into.

    The nodes of all trees stand one after the other, children after their parent.

    Parameters
    ----------
    features : tuple of str
        The matrix columns that the trees read.
    roots : int32 array of t
        Where each tree begins; the first at 0.
    column, threshold : int32 and float32 array, one per node
        What an inner node compares: a row goes left where its value is below the threshold.
    left, right : int32 arrays
        The children; -1 at a leaf.
    missing_left : bool array
        Where a missing value goes.
    leaf : int32 array
        The leaf's number in its tree, counted from 0 in the order of nodes; -1 at an inner node.

    Raises
    ------
    InvalidModelInput
        The arrays are not proper trees over the features.

    Notes
    -----
    He et al. (2014) feed the leaves of all boosted trees to a logistic regression; Ozcaglar et al. (2019) give
    such tree interaction features to GLMix. A member has tens of rows, not millions: its weights can bear a few
    dozen leaves, and solving for them costs the cube of their number. `learn` therefore grows a few shallow trees
    for the purpose, with a high learning rate: neighbouring trees of a slow ensemble cut the rows nearly alike.
    They exist before any random effect is fitted, which those of an ensemble in training do not.

    References
    ----------
    He et al. (2014), "Practical lessons from predicting clicks on ads at Facebook", ADKDD.
    Ozcaglar et al. (2019), "Entity personalized talent search models with tree interaction features", WWW.

    Examples
    --------
    >>> from spr.glmix.families import Family
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(500, 2)).astype(np.float32)
    >>> labels = ((rows > 0).sum(axis=1) == 1).astype(float)
    >>> leaves = LeafEncoding.learn(rows, labels, np.ones(500), ("a", "b"), Family.named("binomial"), n_trees=1)
    >>> leaves.codes(rows).shape, leaves.matrix(rows).shape == (500, len(leaves.names))
    ((500, 1), True)
    >>> leaves.names[:2]
    ('tree0=leaf0', 'tree0=leaf1')
    """

    features: tuple[str, ...]
    roots: Codes
    column: Codes
    threshold: Rows
    left: Codes
    right: Codes
    missing_left: NDArray[np.bool_]
    leaf: Codes

    def __post_init__(self) -> None:
        nodes = self.leaf.size
        for name, kind in _ARRAYS.items():
            values = getattr(self, name)
            if values.dtype != kind or values.shape != (nodes,):
                raise InvalidModelInput(f"LeafEncoding: {name} is not an array of {nodes} {np.dtype(kind)}.")
        starts = self.roots.astype(np.int64)
        if not nodes or not starts.size or starts[0] != 0 or starts[-1] >= nodes or (np.diff(starts) < 1).any():
            raise InvalidModelInput(f"LeafEncoding: roots {starts.tolist()} are not places of trees in {nodes} nodes.")
        for number, (first, end) in enumerate(zip(starts, [*starts[1:], nodes], strict=True)):
            self._check_tree(number, int(first), int(end))

    @classmethod
    def learn(
        cls,
        rows: Rows,
        labels: Floats,
        weights: Floats,
        features: Sequence[str],
        family: Family,
        *,
        offset: Floats | None = None,
        n_trees: int = 4,
        max_depth: int = 3,
        learning_rate: float = 0.5,
        least_share: float = 0.02,
        n_threads: int = 1,
        seed: int = 0,
    ) -> LeafEncoding:
        """Grow small trees for the purpose, on the rows that have a weight.

        Parameters
        ----------
        rows : float32 array of (n, d)
        labels, weights : float64 arrays of n
            A weight of 0 teaches nothing: held-out rows.
        features : sequence of d str
        family : Family
        offset : float64 array of n, optional
            A margin that is given.
        n_trees, max_depth : int, default 4 and 3
            At most n_trees * 2 ** max_depth leaves.
        learning_rate : float, default 0.5
            How much of what a tree explains the next one no longer sees.
        least_share : float, default 0.02
            No leaf holds less of the loss's second derivative than this share of all rows'.
        n_threads, seed : int

        Returns
        -------
        LeafEncoding

        Raises
        ------
        InvalidModelInput
            No row has a weight, the shapes disagree, or a number is out of range.
        """
        from spr.glmix.boosting import TreesDescent
        from spr.glmix.encoding import Encoding
        from spr.glmix.fixed import Trees

        if rows.ndim != 2 or rows.shape[1] != len(features) or not labels.size == weights.size == len(rows):
            raise InvalidModelInput(
                f"LeafEncoding: rows of shape {rows.shape}, {labels.size} labels, {weights.size} weights, "
                f"{len(features)} features."
            )
        if not (weights > 0).any():
            raise InvalidModelInput("LeafEncoding: no row has a positive weight; there is nothing to learn from.")
        if not 0 <= least_share < 1:
            raise InvalidModelInput(f"LeafEncoding: least_share is {least_share!r}; allowed: 0 to below 1.")
        rest = np.zeros(len(rows)) if offset is None else offset
        intercept = family.intercept(labels, weights, rest)
        curvature = float(family.derivatives(labels, rest + intercept, weights)[1].sum())
        spec = Trees(
            n_rounds=n_trees,
            max_depth=max_depth,
            learning_rate=learning_rate,
            min_child_weight=least_share * curvature,
            n_threads=n_threads,
            seed=seed,
        )
        hashes, nothing = np.zeros(len(rows), dtype=np.uint64), np.zeros(len(rows))
        encoding = Encoding(tuple(features), {})
        boosting = TreesDescent(spec, encoding, rows, hashes, nothing, intercept, family, 1)
        boosting.advance(labels, weights, rest)
        return cls.of(boosting.fitted(), n_trees=n_trees, max_depth=max_depth)

    @classmethod
    def of(cls, trees: FittedTrees, *, n_trees: int = 4, max_depth: int = 3) -> LeafEncoding:
        """Return the leaves of the first trees of a fitted ensemble, cut off at a depth.

        Parameters
        ----------
        trees : FittedTrees
        n_trees : int, default 4
        max_depth : int, default 3
            An inner node that deep becomes a leaf.

        Raises
        ------
        InvalidModelInput
            A number below 1, or an ensemble of fewer trees.
        """
        if not (1 <= n_trees <= trees.n_rounds and max_depth >= 1):
            raise InvalidModelInput(
                f"LeafEncoding: the first {n_trees} of {trees.n_rounds} trees at depth {max_depth}; allowed: 1 to "
                f"{trees.n_rounds} trees, depth 1 or more."
            )
        parsed = cast("dict[str, Any]", parse_ubjson(bytes(trees.booster[:n_trees].save_raw("ubj"))))
        parts: list[dict[str, NDArray[Any]]] = []
        roots, place = [], 0
        for tree in parsed["learner"]["gradient_booster"]["model"]["trees"]:
            roots.append(place)
            parts.append(_cut(tree, max_depth, place))
            place += parts[-1]["leaf"].size
        whole: dict[str, Any] = {
            name: np.concatenate([part[name] for part in parts]).astype(kind) for name, kind in _ARRAYS.items()
        }
        return cls(trees.features, np.array(roots, dtype=np.int32), **whole)

    @property
    def n_trees(self) -> int:
        """The number of trees."""
        return int(self.roots.size)

    @property
    def n_leaves(self) -> tuple[int, ...]:
        """The number of leaves of each tree."""
        return tuple(int(tree.max()) + 1 for tree in np.split(self.leaf, self.roots[1:]))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of `matrix`: ``tree0=leaf3``."""
        return tuple(f"tree{tree}=leaf{leaf}" for tree, count in enumerate(self.n_leaves) for leaf in range(count))

    def rules(self) -> dict[str, str]:
        """Return what leads to each leaf, by its name: ``age < 30 & tenure >= 2``; ``?`` = or missing."""
        out: dict[str, str] = {}
        for tree, root in enumerate(self.roots.tolist()):
            waiting: list[tuple[int, tuple[str, ...]]] = [(root, ())]
            while waiting:
                node, path = waiting.pop()
                if self.leaf[node] >= 0:
                    out[f"tree{tree}=leaf{self.leaf[node]}"] = " & ".join(path) or "any row"
                    continue
                name, limit = self.features[self.column[node]], f"{self.threshold[node]:.6g}"
                missing = (" ?", "") if self.missing_left[node] else ("", " ?")
                waiting.append((int(self.left[node]), (*path, f"{name} < {limit}{missing[0]}")))
                waiting.append((int(self.right[node]), (*path, f"{name} >= {limit}{missing[1]}")))
        return {name: out[name] for name in self.names}

    def codes(self, rows: Rows) -> Codes:
        """Return the number of the leaf of each row in each tree.

        Parameters
        ----------
        rows : float32 array of (n, d)
            NaN is a missing value.

        Returns
        -------
        int32 array of (n, n_trees)
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise InvalidModelInput(f"leaves: rows of shape {rows.shape}, expected (n, {len(self.features)}).")
        out = np.empty((len(rows), self.n_trees), dtype=np.int32)
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        arrays = (self.column, self.threshold, self.left, self.right, self.missing_left, self.leaf)
        _walk(rows, self.roots, *arrays, out)
        return out

    def matrix(self, rows: Rows) -> Rows:
        """Return one 0/1 column per leaf, float32 of (n, number of names); each tree has a single 1 in a row."""
        first = np.cumsum((0, *self.n_leaves[:-1]))
        out = np.zeros((len(rows), sum(self.n_leaves)), dtype=np.float32)
        np.put_along_axis(out, self.codes(rows) + first, np.float32(1.0), axis=1)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, for JSON; `from_dict` reads them."""
        arrays = {name: getattr(self, name).tolist() for name in ("roots", *_ARRAYS)}
        return {"features": list(self.features), **arrays}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> LeafEncoding:
        """Read what `to_dict` wrote.

        Raises
        ------
        InvalidModelInput
            A field is missing, or the trees are not proper trees.
        """
        for name in ("features", "roots", *_ARRAYS):
            if name not in described:
                raise InvalidModelInput(f"leaves: {name_unknown('field', name, described)} Save the part again.")
        try:
            with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
                arrays: dict[str, Any] = {name: np.array(described[name], dtype=kind) for name, kind in _ARRAYS.items()}
            roots = np.array(described["roots"], dtype=np.int32)
            return cls(tuple(map(str, described["features"])), roots, **arrays)
        except (TypeError, ValueError, OverflowError) as problem:
            raise InvalidModelInput(f"leaves cannot be read: {problem}") from problem

    def _check_tree(self, number: int, first: int, end: int) -> None:
        where = f"LeafEncoding: tree {number}"
        nodes = np.arange(first, end)
        inner = self.leaf[first:end] < 0
        parents, left, right = nodes[inner], self.left[first:end][inner], self.right[first:end][inner]
        # every node but the root is the child of exactly one, which stands before it: that is a tree
        if not np.array_equal(np.sort(np.concatenate([left, right])), nodes[1:]):
            raise InvalidModelInput(f"{where}: children out of range, shared, or missing.")
        if (left <= parents).any() or (right <= parents).any():
            raise InvalidModelInput(f"{where}: a child stands before its parent, which allows cycles.")
        columns, leaves = self.column[first:end][inner], self.leaf[first:end][~inner]
        if ((columns < 0) | (columns >= len(self.features))).any():
            raise InvalidModelInput(f"{where}: a split on a column out of range.")
        if not np.isfinite(self.threshold[first:end]).all():
            raise InvalidModelInput(f"{where}: a threshold is not finite.")
        if not np.array_equal(leaves, np.arange(leaves.size)):
            raise InvalidModelInput(f"{where}: the leaves are not counted from 0 in the order of nodes.")


def _cut(tree: Mapping[str, Any], max_depth: int, place: int) -> dict[str, NDArray[Any]]:
    """Return the nodes of one of XGBoost's trees down to a depth, the first of them numbered `place`."""
    left, right = np.asarray(tree["left_children"]), np.asarray(tree["right_children"])
    depth = np.zeros(left.size, dtype=np.int64)
    for node in np.flatnonzero(left >= 0):  # children stand after their parent
        depth[[left[node], right[node]]] = depth[node] + 1
    kept = np.flatnonzero(depth <= max_depth)
    number = np.full(left.size + 1, -1)  # the last for the child -1 of a leaf
    number[kept] = place + np.arange(kept.size)
    is_leaf = (left[kept] < 0) | (depth[kept] == max_depth)
    return {
        "column": np.where(is_leaf, 0, np.asarray(tree["split_indices"])[kept]),
        "threshold": np.where(is_leaf, np.float32(0.0), np.asarray(tree["split_conditions"])[kept]),
        "left": np.where(is_leaf, -1, number[left[kept]]),
        "right": np.where(is_leaf, -1, number[right[kept]]),
        "missing_left": (np.asarray(tree["default_left"])[kept] != 0) & ~is_leaf,
        "leaf": np.where(is_leaf, np.cumsum(is_leaf) - 1, -1),
    }
