"""A summary of scored rows that adds up, so that a calibrator can learn from more files than fit in memory."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.cells import Column, cells_of_rows, compact, no_cells, unite
from calibration.errors import CalibrationError
from calibration.rows import read_column, refuse_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

SCHEMA = "calibration.sketch/1"
_ROWS_AT_ONCE = 1 << 20
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
_COUNTS = ("resolution", "n_rows", "n_positive", "n_dropped")


@dataclass(frozen=True, eq=False)
class ScoreCells:
    """What a calibrator learns from, a cell for a run of adjacent raw scores.

    Parameters
    ----------
    raw_score : float64[c]
        A raw score of each cell that occurred, strictly increasing.
    weight : float64[c]
        Sum of weights, > 0.
    exposure : float64[c]
        Sum of weight * examination.
    response_sum : float64[c]
        Sum of weight * response.
    response_squares : float64[c]
        Sum of weight * response ** 2.
    n_rows : int
        Rows in all cells.
    n_positive : int
        Of these, rows with a response > 0.
    """

    raw_score: NDArray[np.float64]
    weight: NDArray[np.float64]
    exposure: NDArray[np.float64]
    response_sum: NDArray[np.float64]
    response_squares: NDArray[np.float64]
    n_rows: int
    n_positive: int

    def __post_init__(self) -> None:
        for column in (self.raw_score, self.weight, self.exposure, self.response_sum, self.response_squares):
            column.setflags(write=False)


class QuantileSketch:
    """A mergeable summary of rows (raw_score, response, weight, examination) in bounded memory.

    While the rows have at most ``resolution`` distinct scores, the summary is the exact table of them. Beyond,
    runs of adjacent scores share a cell: their sums stay exact, and only where a cell's rows stand among the
    others is rounded, by at most ``rank_error``.

    Parameters
    ----------
    resolution : int
        At most so many cells, 56 bytes each, >= 2; the default takes at most 2.8 MB, and 0.8 MB for rows
        not yet summed up.

    Attributes
    ----------
    resolution : int
    n_rows : int
        Rows in the summary.
    n_positive : int
        Of these, rows with a response > 0.
    n_dropped : int
        Rows left out because their raw score is NaN (not scorable) or their weight is 0.

    Notes
    -----
    The cells are those of Greenwald and Khanna (2001), carrying sums; see ``calibration.cells``. The quantile
    sketches of well-kept libraries (KLL, REQ, t-digest in Apache DataSketches) keep scores but no responses
    beside them, so they would need a second pass over the logs; they also draw random numbers without a seed.

    Everything is deterministic. The order of updates and merges can only move cells within ``rank_error``;
    ``a.merge(b)`` and ``b.merge(a)`` are the same bit for bit.

    Examples
    --------
    >>> monday = QuantileSketch().update([0.2, 0.9, 0.9], [0, 1, 0])
    >>> tuesday = QuantileSketch().update([0.5, float("nan")], [1, 0], sample_weight=[2.0, 1.0])
    >>> both = monday.merge(tuesday)
    >>> both.cells.raw_score, both.cells.response_sum
    (array([0.2, 0.5, 0.9]), array([0., 2., 1.]))
    >>> both.rank([0.5]), both.rank_error, both.n_dropped
    (array([0.6]), 0.0, 1)
    """

    def __init__(self, resolution: int = 50_000) -> None:
        if resolution < 2:
            raise CalibrationError(f"resolution is {resolution}; it must be at least 2")
        self.resolution = resolution
        self.n_rows = 0
        self.n_positive = 0
        self.n_dropped = 0
        self._summed = no_cells()
        self._pending: list[NDArray[np.float64]] = []
        self._n_pending = 0
        self._table: NDArray[np.float64] | None = None

    def update(
        self,
        raw_score: ArrayLike,
        response: ArrayLike,
        sample_weight: ArrayLike | None = None,
        examination: ArrayLike | None = None,
    ) -> QuantileSketch:
        """Add rows; a file of a million at a time is best.

        Parameters
        ----------
        raw_score : float[n]
            NaN = not scorable: dropped and counted. n may be 0.
        response : float[n]
            Finite; usually 0 or 1.
        sample_weight : float[n], optional
            Frequency weights >= 0; default 1. A row of weight 0 is dropped and counted.
        examination : float[n], optional
            P(examined at the row's position) / P(examined at the reference position), in (0, 1]; default 1.

        Returns
        -------
        QuantileSketch
            Itself.

        Raises
        ------
        CalibrationError
            Unequal lengths, an infinite raw score, a value out of range, or sums that overflow; the sketch is
            then as before.
        """
        scores = read_column("raw_score", raw_score, None)
        n = scores.size
        responses = read_column("response", response, n)
        weights = np.ones(n) if sample_weight is None else read_column("sample_weight", sample_weight, n)
        examined = np.ones(n) if examination is None else read_column("examination", examination, n)
        numbers = np.arange(n)
        refuse_rows("raw_score", scores, np.isinf(scores), "a finite number, or NaN where not scorable", numbers)
        refuse_rows("response", responses, ~np.isfinite(responses), "finite", numbers)
        refuse_rows("sample_weight", weights, ~((weights >= 0) & np.isfinite(weights)), "finite and >= 0", numbers)
        refuse_rows("examination", examined, ~((examined > 0) & (examined <= 1)), "in (0, 1]", numbers)
        with np.errstate(over="ignore"):
            largest = np.array([weights.sum(), np.dot(weights, responses * responses)])
        if not np.isfinite(largest).all():
            raise CalibrationError("the sums of sample_weight or of sample_weight * response ** 2 overflow")

        rows = np.stack([scores + 0.0, responses, weights, examined])  # -0.0 and 0.0 are one score
        kept = ~np.isnan(scores) & (weights > 0)
        n_kept = int(np.count_nonzero(kept))
        if n_kept < n:
            rows = rows[:, kept]
        self.n_rows += n_kept
        self.n_positive += int(np.count_nonzero(rows[1] > 0))
        self.n_dropped += n - n_kept
        if n_kept == 0:
            return self
        self._table = None
        self._pending.append(rows)
        self._n_pending += n_kept
        if 2 * self._n_pending >= self.resolution:
            self._summed = self._sum_up()
            self._pending, self._n_pending = [], 0
        return self

    def merge(self, other: QuantileSketch) -> QuantileSketch:
        """Return the summary of the rows of both.

        Parameters
        ----------
        other : QuantileSketch
            If its resolution is another one, the lower of the two holds.

        Returns
        -------
        QuantileSketch
            A new one. Its ``rank_error`` is at most that of the worse of the two, or what its resolution costs.
        """
        merged = QuantileSketch(min(self.resolution, other.resolution))
        merged._summed = compact(unite(self._cell_table(), other._cell_table()), merged.resolution)
        for name in ("n_rows", "n_positive", "n_dropped"):
            setattr(merged, name, getattr(self, name) + getattr(other, name))
        return merged

    def __len__(self) -> int:
        """Return the number of cells."""
        return int(self._cell_table().shape[1])

    def __repr__(self) -> str:
        return f"QuantileSketch(n_rows={self.n_rows:,}, cells={len(self):,}, rank_error={self.rank_error:.1e})"

    @property
    def total_weight(self) -> float:
        """Sum of the weights of the rows."""
        return float(self._cell_table()[Column.WEIGHT].sum())

    @property
    def rank_error(self) -> float:
        """Upper bound of |``rank`` - true rank|, a share of the total weight; 0 for an exact table."""
        table = self._cell_table()
        if table.shape[1] == 0:
            return 0.0
        return float(table[Column.EXCESS : Column.SHORTAGE + 1].max() / table[Column.WEIGHT].sum())

    @property
    def cells(self) -> ScoreCells:
        """The summary as columns; without rows they are empty."""
        table = self._cell_table()
        return ScoreCells(
            raw_score=table[Column.SCORE].copy(),
            weight=table[Column.WEIGHT].copy(),
            exposure=table[Column.EXPOSURE].copy(),
            response_sum=table[Column.RESPONSE_SUM].copy(),
            response_squares=table[Column.RESPONSE_SQUARES].copy(),
            n_rows=self.n_rows,
            n_positive=self.n_positive,
        )

    def rank(self, raw_score: ArrayLike) -> NDArray[np.float64]:
        """Return the share of the weight on rows whose score is not above each raw score.

        Parameters
        ----------
        raw_score : float[...]
            NaN gives NaN.

        Returns
        -------
        float64[...]
            In [0, 1], within ``rank_error`` of the truth.

        Raises
        ------
        CalibrationError
            No row.
        """
        table, through = self._through()
        score = np.asarray(raw_score, dtype=np.float64)
        n_up_to = np.searchsorted(table[Column.SCORE], score, side="right")
        share = np.append(0.0, through)[n_up_to] / through[-1]
        return np.asarray(np.where(np.isnan(score), np.nan, share))

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """Return the lowest score of a cell whose rank is at least q.

        Parameters
        ----------
        q : float[...]
            In [0, 1].

        Returns
        -------
        float64[...]
            Scores that occurred.

        Raises
        ------
        CalibrationError
            No row, or a q outside [0, 1].
        """
        table, through = self._through()
        share = np.asarray(q, dtype=np.float64)
        if not np.all((share >= 0) & (share <= 1)):
            raise CalibrationError("q must be in [0, 1]")
        cell = np.searchsorted(through / through[-1], share, side="left")
        return np.asarray(table[Column.SCORE][np.minimum(cell, through.size - 1)])

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all of the sketch as arrays without objects.

        Returns
        -------
        dict
            ``schema`` (str), ``resolution``, ``n_rows``, ``n_positive``, ``n_dropped`` (int64), and ``table``,
            float64[7, c] with the rows of ``calibration.cells.Column``.
        """
        counts = {name: np.array(getattr(self, name), dtype=np.int64) for name in _COUNTS}
        return {"schema": np.array(SCHEMA), **counts, "table": self._cell_table().copy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> QuantileSketch:
        """Make the sketch that ``to_arrays`` wrote.

        Parameters
        ----------
        arrays : mapping
            As from ``to_arrays``; every array is checked.

        Returns
        -------
        QuantileSketch

        Raises
        ------
        CalibrationError
            An array is missing, unknown, of the wrong kind, or breaks what a sketch promises.
        """
        fields = {"schema", "table", *_COUNTS}
        if set(arrays) != fields or not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise CalibrationError(f"a sketch has the arrays {', '.join(sorted(fields))}; found {sorted(arrays)}")
        if arrays["schema"].shape != () or str(arrays["schema"]) != SCHEMA:
            raise CalibrationError(f"the sketch has schema {str(arrays['schema'])!r:.60}; this library reads {SCHEMA}")
        for name in _COUNTS:
            if arrays[name].shape != () or arrays[name].dtype != np.int64 or int(arrays[name]) < 0:
                raise CalibrationError(f"{name} of a sketch must be one int64 >= 0")
        sketch = cls(int(arrays["resolution"]))
        table = arrays["table"]
        if table.dtype != np.float64 or table.ndim != 2 or table.shape[0] != len(Column):
            raise CalibrationError(f"the table of a sketch is {table.dtype}{table.shape}; it must be float64[7, c]")
        sketch.n_rows, sketch.n_positive, sketch.n_dropped = (int(arrays[name]) for name in _COUNTS[1:])
        sketch._summed = np.array(table, dtype=np.float64, order="C")
        _check_table(sketch._summed, sketch)
        return sketch

    def save(self, path: str | Path) -> None:
        """Write the sketch as one .npz file; floats keep every bit.

        Parameters
        ----------
        path : path
            The file, whatever its suffix; replaced where it exists.
        """
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **self.to_arrays())

    @classmethod
    def load(cls, path: str | Path) -> QuantileSketch:
        """Read a sketch that ``save`` wrote; no code is run, everything is checked.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        QuantileSketch

        Raises
        ------
        CalibrationError
            No file, not an .npz file, or not a sketch.
        """
        try:
            # A handle of our own: numpy leaves its own open when the file is broken.
            with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except _UNREADABLE as error:
            raise CalibrationError(f"{path} cannot be read: {error}") from error
        try:
            return cls.from_arrays(arrays)
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error

    def _cell_table(self) -> NDArray[np.float64]:
        # Kept beside the pending rows, not in their place: what is read must not change what is learnt later.
        if self._table is None:
            self._table = self._sum_up()
        return self._table

    def _sum_up(self) -> NDArray[np.float64]:
        table = self._summed
        if self._pending:
            rows = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending, axis=1)
            for start in range(0, rows.shape[1], _ROWS_AT_ONCE):
                new = cells_of_rows(rows[:, start : start + _ROWS_AT_ONCE])
                table = compact(unite(table, compact(new, self.resolution)), self.resolution)
        return table

    def _through(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        table = self._cell_table()
        if table.shape[1] == 0:
            raise CalibrationError("the sketch has no row")
        return table, np.cumsum(table[Column.WEIGHT])


def _check_table(table: NDArray[np.float64], sketch: QuantileSketch) -> None:
    n_cells = table.shape[1]
    if not (n_cells <= min(sketch.resolution, sketch.n_rows) and (n_cells > 0) == (sketch.n_rows > 0)):
        raise CalibrationError(
            f"a sketch of resolution {sketch.resolution} and {sketch.n_rows} rows cannot have {n_cells} cells"
        )
    if sketch.n_positive > sketch.n_rows:
        raise CalibrationError(f"n_positive of a sketch is {sketch.n_positive} of n_rows {sketch.n_rows}")
    if not np.isfinite(table).all() or not (np.diff(table[Column.SCORE]) > 0).all():
        raise CalibrationError("the table of a sketch must be finite and its scores strictly increasing")
    within = table[Column.EXPOSURE] <= table[Column.WEIGHT] * (1.0 + 1e-9)
    if not ((table[Column.WEIGHT] > 0) & (table[Column.EXPOSURE] > 0) & within).all():
        raise CalibrationError("the weights of a sketch must be > 0 and its exposures in (0, weight]")
    if (table[[Column.EXCESS, Column.SHORTAGE, Column.RESPONSE_SQUARES]] < 0).any():
        raise CalibrationError("the errors and the sums of squares of a sketch must be >= 0")
