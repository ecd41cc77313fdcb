"""Responses summed into quantile bins: all that any method needs to know of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from calibration.quantiles import QuantileTable, sum_by_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from calibration.rows import CalibrationRows

    Floats = NDArray[np.float64]


class ScoredResponses(Protocol):
    """What a curve is fitted on: rows, or the cells of a sketch, each with sums over its rows."""

    @property
    def raw_score(self) -> Floats:
        """Raw score, float64[n], finite."""
        ...

    @property
    def weight(self) -> Floats:
        """Frequency weight, float64[n], > 0."""
        ...

    @property
    def exposure(self) -> Floats:
        """Weight times relative examination, float64[n]."""
        ...

    @property
    def response_sum(self) -> Floats:
        """Weight times response, float64[n]."""
        ...

    @property
    def response_squares(self) -> Floats:
        """Weight times squared response, float64[n]."""
        ...

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def n_positive(self) -> int:
        """Of these, rows with a response > 0."""
        ...


@dataclass(frozen=True, eq=False)
class BinnedResponses:
    """Sums over the rows of each quantile bin.

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them.
    responses : float64[m]
        Sum of weight * response.
    exposure : float64[m]
        Sum of weight * examination. A bin with 0 is only predicted.
    squares : float64[m]
        Sum of weight * response^2; it tells how much responses vary.
    weight : float64[m]
        Sum of weight. The table's own are those of the rows it was cut from, which may be others.

    Examples
    --------
    >>> from calibration.rows import CalibrationRows
    >>> binned = BinnedResponses.of(CalibrationRows.checked([1.0, 2.0, 2.0], [0, 1, 1]))
    >>> binned.responses, binned.exposure
    (array([0., 2.]), array([1., 2.]))
    """

    table: QuantileTable
    responses: Floats
    exposure: Floats
    squares: Floats
    weight: Floats

    @classmethod
    def of(cls, rows: ScoredResponses, table: QuantileTable | None = None) -> BinnedResponses:
        """Sum rows into bins.

        Parameters
        ----------
        rows : CalibrationRows or ScoreCells
        table : QuantileTable, optional
            The bins; default: of equal mass, cut from these rows.

        Returns
        -------
        BinnedResponses
        """
        if table is None:
            table = QuantileTable.fit(rows.raw_score, rows.weight)
        bins, m = table.assign(rows.raw_score), table.lower.size
        return cls(table, *(sum_by_group(bins, each, m) for each in _columns(rows)))

    @classmethod
    def without_each(
        cls, rows: CalibrationRows, table: QuantileTable, fold: NDArray[np.intp], n_folds: int
    ) -> Iterator[BinnedResponses]:
        """Yield, per fold, the sums over the rows of all other folds.

        Parameters
        ----------
        rows : CalibrationRows
            n of them.
        table : QuantileTable
            The bins.
        fold : int[n]
            In 0 .. n_folds - 1.
        n_folds : int

        Yields
        ------
        BinnedResponses
        """
        m = table.lower.size
        cell = fold * m + table.assign(rows.raw_score)
        by_fold = [sum_by_group(cell, each, n_folds * m).reshape(n_folds, m) for each in _columns(rows)]
        # a matrix product and not total - own: rounding must not leave 1e-17 responses in an empty bin
        for others in 1.0 - np.eye(n_folds):
            yield cls(table, *(others @ sums for sums in by_fold))

    def only(self, kept: NDArray[np.bool_]) -> BinnedResponses:
        """Return the same bins where those not kept, bool[m], have no rows."""
        sums = (self.responses, self.exposure, self.squares, self.weight)
        return BinnedResponses(self.table, *(np.where(kept, each, 0.0) for each in sums))


def _columns(rows: ScoredResponses) -> tuple[Floats, Floats, Floats, Floats]:
    return rows.response_sum, rows.exposure, rows.response_squares, rows.weight
