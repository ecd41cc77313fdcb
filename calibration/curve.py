"""The fitted curve of one ranker: everything that serving touches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from calibration.errors import CalibrationError
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Interpolation = Literal["linear", "step"]
_ARRAYS = ("lower", "centre", "quantile", "weight", "values")


@dataclass(frozen=True, eq=False)
class ResponseCurve:
    """A non-decreasing map from raw score to expected response, as a table.

    Outside the fitted range it is flat. Inside, ``"linear"`` joins the bins' centres by straight lines
    in the raw score. ``"step"`` gives all scores of a bin the same value; a look-up among scores that
    occurred commutes with every strictly increasing distortion, so a curve whose values depend on ranks
    only answers a distorted ranker exactly as it answered the original.

    Parameters
    ----------
    method : str
        What made the values: ``"loglinear"``, ``"shrunken"`` or ``"isotonic"``.
    interpolation : {"linear", "step"}
        Between the bins.
    table : QuantileTable
        The bins, m of them.
    values : float64[m]
        Expected response of each bin at the reference position, non-decreasing, in (0, 1).
    n_rows : int
        Rows it was fitted on.
    n_positive : int
        Of these, rows with a response > 0.
    base_rate : float
        Responses per examined row: sum(weight * response) / sum(weight * examination).

    Examples
    --------
    >>> table = QuantileTable.fit([1.0, 2.0, 3.0])
    >>> curve = ResponseCurve("isotonic", "step", table, np.array([0.1, 0.1, 0.4]), 3, 1, 0.2)
    >>> curve.predict(np.array([0.0, 2.5, 3.0, np.nan]))
    array([0.1, 0.1, 0.4, nan])
    """

    method: str
    interpolation: Interpolation
    table: QuantileTable
    values: NDArray[np.float64]
    n_rows: int
    n_positive: int
    base_rate: float
    _steps: tuple[NDArray[np.float64], NDArray[np.float64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.interpolation not in get_args(Interpolation):
            raise CalibrationError(
                f"interpolation is {self.interpolation!r}; known: {', '.join(get_args(Interpolation))}"
            )
        if self.values.shape != self.table.centre.shape:
            raise CalibrationError(
                f"a curve has {self.values.size} values for {self.table.centre.size} bins; it needs one each"
            )
        if not (np.all(self.values > 0) and np.all(self.values < 1)):
            raise CalibrationError("the values of a curve must be inside (0, 1)")
        if not np.all(np.diff(self.values) >= 0):
            first = int(np.argmax(np.diff(self.values) < 0))
            raise CalibrationError(
                f"the values of a curve must not decrease; bin {first + 1} has "
                f"{self.values[first + 1]} after {self.values[first]}"
            )
        if not 0 <= self.n_positive <= self.n_rows or self.n_rows < 1:
            raise CalibrationError(
                f"n_positive is {self.n_positive} of n_rows {self.n_rows}; both count rows, n_rows >= 1"
            )
        if not (np.isfinite(self.base_rate) and self.base_rate >= 0):
            raise CalibrationError(f"base_rate is {self.base_rate}; it must be finite and >= 0")
        self.values.setflags(write=False)
        # NaN sorts after every number, so the NaN appended here sends NaN in to NaN out without a branch.
        steps = (np.append(self.table.lower[1:], np.nan), np.append(self.values, np.nan))
        object.__setattr__(self, "_steps", steps)

    @property
    def knots(self) -> NDArray[np.float64]:
        """Raw scores of the table, float64[m]: bin centres (linear) or where each step begins (step)."""
        return self.table.centre if self.interpolation == "linear" else self.table.lower

    @property
    def mean_response(self) -> float:
        """Mean expected response over the fitted rows, at the reference position."""
        return float(np.average(self.values, weights=self.table.weight))

    def predict(self, raw_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected response of each raw score, unchecked and fast.

        Parameters
        ----------
        raw_score : float64[...]
            NaN = not scorable.

        Returns
        -------
        float64[...]
            Non-decreasing in the raw score, inside (0, 1), NaN where the raw score is.
        """
        if self.interpolation == "linear":
            return np.interp(raw_score, self.table.centre, self.values)
        edges, values = self._steps
        return values[edges.searchsorted(raw_score, side="right")]

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain JSON-able values; floats keep every bit.

        Returns
        -------
        dict
        """
        return {
            "method": self.method,
            "interpolation": self.interpolation,
            "n_rows": self.n_rows,
            "n_positive": self.n_positive,
            "base_rate": self.base_rate,
            "lower": self.table.lower.tolist(),
            "centre": self.table.centre.tolist(),
            "quantile": self.table.quantile.tolist(),
            "weight": self.table.weight.tolist(),
            "values": self.values.tolist(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ResponseCurve:
        """Make the curve that ``to_dict`` wrote.

        Parameters
        ----------
        content : mapping
            As from ``to_dict``; every field is checked.

        Returns
        -------
        ResponseCurve

        Raises
        ------
        CalibrationError
            A field is missing, unknown, of the wrong kind, or breaks the curve's contract.
        """
        kinds: dict[str, type | tuple[type, ...]] = {
            "method": str,
            "interpolation": str,
            "n_rows": int,
            "n_positive": int,
            "base_rate": (int, float),
            **dict.fromkeys(_ARRAYS, list),
        }
        if set(content) != set(kinds):
            raise CalibrationError(
                f"a curve has the fields {', '.join(sorted(kinds))}; "
                f"missing: {sorted(set(kinds) - set(content))}, unknown: {sorted(set(content) - set(kinds))}"
            )
        for name, kind in kinds.items():
            if not isinstance(content[name], kind) or isinstance(content[name], bool):
                raise CalibrationError(f"{name} of a curve is {content[name]!r:.60}, a {type(content[name]).__name__}")
        lower, centre, quantile, weight, values = (_read_numbers(name, content[name]) for name in _ARRAYS)
        return cls(
            method=content["method"],
            interpolation=content["interpolation"],
            table=QuantileTable(lower, centre, quantile, weight),
            values=values,
            n_rows=content["n_rows"],
            n_positive=content["n_positive"],
            base_rate=float(content["base_rate"]),
        )


def _read_numbers(name: str, values: list[Any]) -> NDArray[np.float64]:
    # numpy would read "0.1" and true as numbers; a curve that holds them was not written by to_dict.
    if not {type(value) for value in values} <= {int, float}:
        position = next(j for j, value in enumerate(values) if type(value) not in (int, float))
        raise CalibrationError(f"{name}[{position}] of a curve is {values[position]!r:.60}; it must be a number")
    return np.array(values, dtype=np.float64)
