"""The feature rows of a linear fit, converted once: products, statistics of columns, and a choice of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ColumnStatistics:
    """What a normalisation needs of each column, over the rows that teach.

    Parameters
    ----------
    mean, sd : float64 arrays of d
        Weighted; sd is exactly 0 where the column is constant.
    magnitude : float64 array of d
        The largest absolute value.
    """

    mean: Floats
    sd: Floats
    magnitude: Floats


class Design:
    """Feature rows as float64, dense in Fortran order or sparse in CSC order; null counts as 0.

    Parameters
    ----------
    rows : float32 array or sparse matrix of (n, d)

    Examples
    --------
    >>> design = Design(np.array([[1.0, 5.0], [3.0, np.nan]], dtype=np.float32))
    >>> design.dot(np.array([1.0, 1.0])).tolist()
    [6.0, 3.0]
    >>> design.statistics(np.array([1.0, 1.0])).sd.tolist()
    [1.0, 2.5]
    """

    def __init__(self, rows: NDArray[np.floating[Any]] | csc_matrix) -> None:
        self.dense: Floats | None = None
        self.sparse: Any = None
        if isinstance(rows, np.ndarray):
            # a float64 in Fortran order is what glum's kernels work on fastest at the accuracy wanted here
            self.dense = np.nan_to_num(rows.astype(np.float64, order="F"), copy=False)
        else:
            self.sparse = rows.astype(np.float64).tocsc()
            np.nan_to_num(self.sparse.data, copy=False)
        self.shape: tuple[int, int] = rows.shape

    def take(self, chosen: NDArray[np.bool_]) -> Design:
        """Return the chosen rows; these very ones where all are chosen."""
        if chosen.all():
            return self
        if self.dense is not None:
            out = np.empty((int(chosen.sum()), self.shape[1]), order="F")
            for column in range(self.shape[1]):
                out[:, column] = self.dense[chosen, column]
            return _wrapped(dense=out)
        return _wrapped(sparse=self.sparse.tocsr()[np.flatnonzero(chosen)].tocsc())

    def dot(self, coefficients: Floats) -> Floats:
        """Return rows @ coefficients."""
        rows = self.sparse if self.dense is None else self.dense
        return np.asarray(rows @ coefficients, dtype=np.float64)

    def transposed_dot(self, values: Floats) -> Floats:
        """Return rows.T @ values."""
        rows = self.sparse if self.dense is None else self.dense
        return np.asarray(rows.T @ values, dtype=np.float64)

    def statistics(self, weights: Floats) -> ColumnStatistics:
        """Return the statistics of each column under `weights`, which are positive."""
        total, width = float(weights.sum()), self.shape[1]
        if self.dense is not None:
            columns = self.dense.T
            low, high = columns.min(axis=1), columns.max(axis=1)
            mean = columns @ weights / total
            square = np.array([weights @ (columns[place] - mean[place]) ** 2 for place in range(width)])
        else:
            low, high = (np.asarray(edge.toarray()).ravel() for edge in (self.sparse.min(axis=0), self.sparse.max(0)))
            mean = self.transposed_dot(weights) / total
            place = np.repeat(np.arange(width), np.diff(self.sparse.indptr))
            stored = weights[self.sparse.indices]
            square = np.bincount(place, stored * (self.sparse.data - mean[place]) ** 2, minlength=width)
            unstored = np.maximum(total - np.bincount(place, stored, minlength=width), 0.0)
            square = square + unstored * mean**2
        sd = np.where(low == high, 0.0, np.sqrt(square / total))
        return ColumnStatistics(mean, sd, np.maximum(np.abs(low), np.abs(high)))

    def divided(self, unit: Floats) -> Design:
        """Return the rows with each column divided by its `unit`."""
        if self.dense is not None:
            return _wrapped(dense=np.divide(self.dense, unit, out=np.empty_like(self.dense)))
        sparse = self.sparse.copy()
        sparse.data /= np.repeat(unit, np.diff(sparse.indptr))
        return _wrapped(sparse=sparse)

    def for_glum(self) -> Any:
        """Return the tabmat matrix, of two columns at least: glum 3.4 cannot start from one given coefficient."""
        import tabmat

        missing = max(0, 2 - self.shape[1])
        if self.dense is not None:
            dense = self.dense
            if missing:
                dense = np.asfortranarray(np.column_stack([dense, np.zeros((self.shape[0], missing))]))
            return tabmat.DenseMatrix(dense)
        sparse = self.sparse
        if missing:
            from scipy.sparse import csc_matrix, hstack

            sparse = hstack([sparse, csc_matrix((self.shape[0], missing))], format="csc")
        return tabmat.from_csc(sparse)


def _wrapped(*, dense: Floats | None = None, sparse: Any = None) -> Design:
    out = Design.__new__(Design)
    out.dense, out.sparse = dense, sparse
    out.shape = sparse.shape if dense is None else dense.shape
    return out
