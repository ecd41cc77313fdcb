"""Hashes of sparse rows: they depend on what the rows hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from spr.glmix.sparse import fold_features


def test_fold_features_depends_on_values_and_not_on_storage() -> None:
    matrix = sparse.random(200, 50, 0.1, format="csc", random_state=0, dtype=np.float32)
    order = np.random.default_rng(7).permutation(200)

    def hashed(rows: Any) -> np.ndarray:
        hashes = np.full(rows.shape[0], 9, dtype=np.uint64)
        fold_features(hashes, rows)
        return hashes

    expected = hashed(matrix)
    np.testing.assert_array_equal(hashed(matrix.tocsr()[order].tocsc()), expected[order])
    coordinates = matrix.tocoo()
    places = (np.append(coordinates.row, np.arange(50)), np.append(coordinates.col, np.arange(50)))
    padded = sparse.csr_matrix((np.append(coordinates.data, np.zeros(50)).astype(np.float32), places), (200, 50))
    assert padded.nnz > matrix.nnz
    np.testing.assert_array_equal(hashed(padded), expected)
    filled = np.unique(matrix.tocoo().row).size  # rows without anything are alike
    assert np.unique(expected).size == filled + (filled < 200)
    changed = matrix.copy()
    changed.data[0] += 1
    assert (hashed(changed) != expected).sum() == 1
