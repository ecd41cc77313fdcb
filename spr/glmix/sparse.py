"""Sparse feature rows: columns without a stored null or zero, and their share in a row's hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numba
import numpy as np

from spr.glmix.row_kernels import fold_rows, mixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    Column = tuple[NDArray[np.int64], NDArray[np.float32]]


def assemble_columns(columns: Sequence[Column], n: int) -> csc_matrix:
    """Return the float32 CSC matrix of n rows whose columns are given as (row numbers, values), zeros left out."""
    from scipy import sparse  # serving a dense model never pays for this import

    ends = np.cumsum([0, *(len(rows) for rows, _ in columns)])
    index = np.int32 if max(n, int(ends[-1])) < np.iinfo(np.int32).max else np.int64
    indices = np.concatenate([np.zeros(0, dtype=index), *(rows for rows, _ in columns)]).astype(index, copy=False)
    values = np.concatenate([np.zeros(0, dtype=np.float32), *(values for _, values in columns)])
    shape = (n, len(columns))
    return cast("csc_matrix", cast("Any", sparse.csc_matrix)((values, indices, ends.astype(index)), shape=shape))


def fold_features(hashes: NDArray[np.uint64], rows: NDArray[np.float32] | csc_matrix) -> None:
    """Fold each row's features into its hash, in place.

    Of sparse rows only what differs from 0 counts, with its column: the same values stored otherwise (in another
    order, with explicit zeros) give the same hash, which differs from that of the same rows made dense.

    Parameters
    ----------
    hashes : uint64 array of n
    rows : float32 array of (n, d), C order, or a sparse float32 matrix of that shape

    Examples
    --------
    >>> from scipy.sparse import csc_matrix
    >>> hashes = np.zeros(3, dtype=np.uint64)
    >>> fold_features(hashes, csc_matrix(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=np.float32)))
    >>> bool(hashes[0] == hashes[2]), bool(hashes[0] == hashes[1])
    (True, False)
    """
    if isinstance(rows, np.ndarray):
        fold_rows(hashes, rows.view(np.uint32), np.arange(len(rows)))
        return
    by_row = rows.tocsr(copy=True)
    by_row.sum_duplicates()
    by_row.eliminate_zeros()
    by_row.sort_indices()
    bits = np.asarray(by_row.data, dtype=np.float32).view(np.uint32)
    _fold_stored(hashes, by_row.indptr.astype(np.int64), by_row.indices.astype(np.int64), bits)


@numba.njit(cache=True)
def _fold_stored(
    hashes: NDArray[np.uint64], starts: NDArray[np.int64], columns: NDArray[np.int64], bits: NDArray[np.uint32]
) -> None:
    for row in range(hashes.size):
        value = hashes[row]
        for place in range(starts[row], starts[row + 1]):
            value = mixed(value + np.uint64(0x9E3779B97F4A7C15) + np.uint64(columns[place]))
            value = mixed(value + np.uint64(0x9E3779B97F4A7C15) + np.uint64(bits[place]))
        hashes[row] = value
