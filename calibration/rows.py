"""The rows that a calibrator learns from, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError
from calibration.families import BINARY

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from calibration.families import ResponseFamily


@dataclass(frozen=True, eq=False)
class CalibrationRows:
    """Scored rows with their responses, all finite and in range.

    Parameters
    ----------
    raw_score : float64[n]
        The ranker's own scale.
    response : float64[n]
        Inside its family's range; usually 0 or 1.
    weight : float64[n]
        Frequency weight, > 0: a row of weight 2 counts as the row twice.
    examination : float64[n]
        P(examined at the row's position) / P(examined at the reference position), in (0, 1].
    n_dropped : int
        Rows left out because their raw score is NaN (not scorable) or their weight is 0.
    """

    raw_score: NDArray[np.float64]
    response: NDArray[np.float64]
    weight: NDArray[np.float64]
    examination: NDArray[np.float64]
    n_dropped: int = 0

    @classmethod
    def checked(
        cls,
        raw_score: ArrayLike,
        response: ArrayLike,
        weight: ArrayLike | None = None,
        examination: ArrayLike | None = None,
        *,
        family: ResponseFamily = BINARY,
        row_number: NDArray[np.intp] | None = None,
    ) -> CalibrationRows:
        """Check the rows and drop those that cannot count.

        Parameters
        ----------
        raw_score : float[n]
            NaN = not scorable: dropped and counted.
        response : float[n]
            In [0, 1], unless the family says otherwise.
        weight : float[n], optional
            Frequency weights >= 0; default 1.
        examination : float[n], optional
            In (0, 1]; default 1.
        family : ResponseFamily
            What a response may be.
        row_number : int[n], optional
            Numbers to name rows by in errors; default 0, 1, 2, ...

        Returns
        -------
        CalibrationRows

        Raises
        ------
        CalibrationError
            Unequal lengths, an infinite raw score, a value out of range, or no row left.

        Examples
        --------
        >>> CalibrationRows.checked([0.2, float("nan")], [1, 0]).n_dropped
        1
        """
        scores = read_column("raw_score", raw_score, None)
        n = scores.size
        responses = read_column("response", response, n)
        weights = np.ones(n) if weight is None else read_column("sample_weight", weight, n)
        examined = np.ones(n) if examination is None else read_column("examination", examination, n)
        numbers = np.arange(n) if row_number is None else row_number

        refuse_rows("raw_score", scores, np.isinf(scores), "a finite number, or NaN where not scorable", numbers)
        fits = np.isfinite(responses) & (responses >= family.lowest) & (responses <= family.highest)
        otherwise = ", or say response='count' or 'continuous'" if family is BINARY else ""
        refuse_rows("response", responses, ~fits, family.allowed + otherwise, numbers)
        refuse_rows("sample_weight", weights, ~((weights >= 0) & np.isfinite(weights)), "finite and >= 0", numbers)
        refuse_rows("examination", examined, ~((examined > 0) & (examined <= 1)), "in (0, 1]", numbers)

        kept = ~np.isnan(scores) & (weights > 0)
        n_kept = int(np.count_nonzero(kept))
        if n_kept == 0:
            raise CalibrationError(
                f"no row to learn from: of {n:,} rows none has both a raw score and a positive weight"
            )
        if n_kept == n:
            return cls(scores, responses, weights, examined)
        return cls(scores[kept], responses[kept], weights[kept], examined[kept], n - n_kept)

    @property
    def exposure(self) -> NDArray[np.float64]:
        """Weight times relative examination, float64[n]."""
        return self.weight * self.examination

    @property
    def response_sum(self) -> NDArray[np.float64]:
        """Weight times response, float64[n]."""
        return self.weight * self.response

    @property
    def response_squares(self) -> NDArray[np.float64]:
        """Weight times squared response, float64[n]."""
        return self.weight * self.response**2

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.raw_score.size

    @property
    def n_positive(self) -> int:
        """Of these, rows with a response > 0."""
        return int(np.count_nonzero(self.response > 0))

    def of_population(self, negative_sampling_rate: float) -> CalibrationRows:
        """Return the rows of the log that these were sampled from: a row without a response stands for 1 / rate.

        Parameters
        ----------
        negative_sampling_rate : float
            The share of rows without a response that was kept, in (0, 1].

        Returns
        -------
        CalibrationRows
            With other weights, in sum as many as tell as much as these rows do.

        Raises
        ------
        CalibrationError
            A rate outside (0, 1].

        Notes
        -----
        Without examination, a shift of the log-odds by log rate would undo the sampling (He et al. 2014, "Practical
        lessons from predicting clicks on ads at Facebook", section 6.3). A row that is examined less does not have
        its odds times a constant, so rows are weighed instead: responses per weighted examination are unbiased with
        and without it. Rows that were left out tell nothing, so the weights are scaled down until the variance of
        the overall log-odds, 1 / positives + 1 / negatives, is that of the rows that are there.

        Examples
        --------
        >>> rows = CalibrationRows.checked([0.1, 0.2], [1, 0]).of_population(0.1)
        >>> rows.weight, rows.response
        (array([0.55, 5.5 ]), array([1., 0.]))
        """
        if not 0.0 < negative_sampling_rate <= 1.0:
            raise CalibrationError(f"negative_sampling_rate is {negative_sampling_rate}; it must be in (0, 1]")
        if negative_sampling_rate == 1.0:
            return self
        positives = float(self.response_sum.sum())
        negatives = float(self.weight.sum()) - positives
        scale = 1.0
        if positives > 0.0 and negatives > 0.0:
            scale = (1.0 / positives + negative_sampling_rate / negatives) / (1.0 / positives + 1.0 / negatives)
        weight = scale * self.weight * (self.response + (1.0 - self.response) / negative_sampling_rate)
        return CalibrationRows(
            self.raw_score, scale * self.response * self.weight / weight, weight, self.examination, self.n_dropped
        )

    def take(self, index: NDArray[np.intp]) -> CalibrationRows:
        """Return the rows at these positions.

        Parameters
        ----------
        index : int[k]

        Returns
        -------
        CalibrationRows
        """
        return CalibrationRows(self.raw_score[index], self.response[index], self.weight[index], self.examination[index])


def read_column(name: str, values: ArrayLike, n: int | None) -> NDArray[np.float64]:
    """Return a one-dimensional float64[n] column, or refuse what is not one; None = any length."""
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} does not hold numbers: {error}") from error
    if column.ndim != 1:
        raise CalibrationError(f"{name} has shape {column.shape}; it must be one-dimensional")
    if n is not None and column.size != n:
        raise CalibrationError(f"{name} has {column.size:,} values for {n:,} raw scores; pass one a row")
    return column


def refuse_rows(
    name: str,
    values: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    allowed: str,
    numbers: NDArray[np.intp],
) -> None:
    """Refuse values where ``wrong``, bool[n], is set: what is allowed, how many, and the first row with its value."""
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    raise CalibrationError(
        f"{name} must be {allowed}; it is not in {np.count_nonzero(wrong):,} of {wrong.size:,} rows; "
        f"first: row {numbers[first]} has {values[first]}"
    )
