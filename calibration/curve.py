"""The fitted curve of one ranker: everything that serving touches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from calibration.errors import CalibrationError, CalibrationWarning
from calibration.forms import CurveForm
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.binned import BinnedResponses

Interpolation = Literal["linear", "step"]
SMALLEST_GAP = 1e-290
"""Of raw scores that straight lines join: the inverse of a smaller one is no float64."""
_ARRAYS = ("lower", "centre", "quantile", "weight", "values")


def can_be_joined(table: QuantileTable) -> bool:
    """Tell whether straight lines between bin centres mean anything: gaps, and their inverses, are finite."""
    with np.errstate(over="ignore"):
        gap = np.diff(table.centre)
    return bool(np.all((gap > SMALLEST_GAP) & np.isfinite(gap)))


@dataclass(frozen=True, eq=False)
class ResponseCurve:
    """A non-decreasing map from raw score to expected response, as a table.

    Outside the fitted range it is flat. Inside, ``"linear"`` joins the bins' centres by straight lines
    in the raw score. ``"step"`` gives all scores of a bin the same value; a look-up among scores that
    occurred commutes with every strictly increasing distortion, so a curve whose values depend on ranks
    only answers a distorted ranker exactly as it answered the original.

    Parameters
    ----------
    form : CurveForm
        What made the values: the method that was asked for or chosen, the response family, penalties.
    interpolation : {"linear", "step"}
        Between the bins.
    table : QuantileTable
        The bins, m of them.
    values : float64[m]
        Expected response of each bin at the reference position, non-decreasing, inside the family's range.
    n_rows : int
        Rows it was fitted on.
    n_positive : int
        Of these, rows with a response > 0.
    base_rate : float
        Responses per examined row: sum(weight * response) / sum(weight * examination).
    shift : float
        Added on the link scale after the fit, for another base rate.

    Examples
    --------
    >>> table = QuantileTable.fit([1.0, 2.0, 3.0])
    >>> curve = ResponseCurve(CurveForm("isotonic"), "step", table, np.array([0.1, 0.1, 0.4]), 3, 1, 0.2)
    >>> curve.predict(np.array([0.0, 2.5, 3.0, np.nan]))
    array([0.1, 0.1, 0.4, nan])
    """

    form: CurveForm
    interpolation: Interpolation
    table: QuantileTable
    values: NDArray[np.float64]
    n_rows: int
    n_positive: int
    base_rate: float
    shift: float = 0.0
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
        family = self.form.family
        inside = np.isfinite(self.values) & (self.values > family.lowest) & (self.values < family.highest)
        if not inside.all():
            raise CalibrationError(
                f"the values of a {family.name} curve must be finite and inside ({family.lowest:g}, "
                f"{family.highest:g}); bin {int(np.argmin(inside))} has {self.values[np.argmin(inside)]}"
            )
        if self.interpolation == "linear" and not can_be_joined(self.table):
            raise CalibrationError("bin centres of a linear curve must be apart by more than 1e-290, and finitely")
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
        if not (np.isfinite(self.base_rate) and self.base_rate >= family.lowest and np.isfinite(self.shift)):
            raise CalibrationError(
                f"base_rate is {self.base_rate}, shift {self.shift}; both must be finite, "
                f"base_rate at least {family.lowest:g}"
            )
        self.values.setflags(write=False)
        # NaN sorts after every number, so the NaN appended here sends NaN in to NaN out without a branch.
        steps = (np.append(self.table.lower[1:], np.nan), np.append(self.values, np.nan))
        object.__setattr__(self, "_steps", steps)

    @property
    def method(self) -> str:
        """The method that was asked for, or that ``"auto"`` chose."""
        return self.form.method

    @property
    def knots(self) -> NDArray[np.float64]:
        """Raw scores of the table, float64[m]: bin centres (linear) or where each step begins (step)."""
        return self.table.centre if self.interpolation == "linear" else self.table.lower

    @property
    def mean_response(self) -> float:
        """Mean expected response over the rows of the table (of a segment: its ranker's), at the reference position."""
        return float(np.average(self.values, weights=self.table.weight))

    @property
    def warnings(self) -> tuple[CalibrationWarning, ...]:
        """What a reader should know before relying on the curve; empty for most."""
        found = []
        if self.form.response != "continuous" and self.n_positive == 0:
            found.append(
                f"no response above 0 in {self.n_rows:,} rows: "
                + (
                    f"the curve is flat at (1/2) / (n + 1) = {self.values[0]:.3g}; collect more rows"
                    if self.values[0] == self.values[-1]
                    else "the curve is its ranker's, lowered"
                )
            )
        if self.form.response == "binary" and self.base_rate >= 1.0:
            found.append(f"every one of {self.n_rows:,} rows has a response: are rows without one missing?")
        if self.table.lower.size == 1 and self.n_rows > 1:
            found.append(f"all {self.n_rows:,} rows are in one bin of raw scores: the curve cannot tell scores apart")
        return tuple(CalibrationWarning(each) for each in found)

    def __repr__(self) -> str:
        return (
            f"<ResponseCurve {self.method}, {self.form.response}: {self.n_rows:,} rows, {self.values.size} bins, "
            f"{self.values[0]:.3g} to {self.values[-1]:.3g}>"
        )

    def predict(self, raw_score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected response of each raw score, unchecked and fast.

        Parameters
        ----------
        raw_score : float64[...]
            NaN = not scorable.

        Returns
        -------
        float64[...]
            Non-decreasing in the raw score, inside the family's range, NaN where the raw score is.
        """
        if self.interpolation == "linear":
            return np.interp(raw_score, self.table.centre, self.values)
        edges, values = self._steps
        return values[edges.searchsorted(raw_score, side="right")]

    def with_rates_of(self, binned: BinnedResponses) -> ResponseCurve:
        """Return the curve with its bins and form kept and its values fitted on other rows.

        Parameters
        ----------
        binned : BinnedResponses
            Rows summed into this curve's bins.

        Returns
        -------
        ResponseCurve
        """
        family, values = self.form.family, self.form.fit(binned)
        return replace(self, values=family.mean(family.link(values) + self.shift) if self.shift else values)

    def shifted(self, shift: float) -> ResponseCurve:
        """Return the curve moved by a constant on its link scale.

        Parameters
        ----------
        shift : float
            Added to the log-odds of a binary response, the logarithm of a count, a continuous response itself.

        Returns
        -------
        ResponseCurve
            Its base rate is moved alike.

        Examples
        --------
        >>> table = QuantileTable.fit([1.0, 2.0])
        >>> curve = ResponseCurve(CurveForm("isotonic"), "step", table, np.array([0.2, 0.5]), 9, 3, 0.4)
        >>> curve.shifted(np.log(0.5)).values.round(3)
        array([0.111, 0.333])
        """
        family = self.form.family
        moved = family.mean(family.link(np.append(self.values, self._inner_base_rate())) + shift)
        return replace(self, values=moved[:-1], base_rate=float(moved[-1]), shift=self.shift + shift)

    def at_base_rate(self, base_rate: float) -> ResponseCurve:
        """Return the curve for a population that responds more or less often than the one it was fitted on.

        Parameters
        ----------
        base_rate : float
            Responses per examined row there, strictly inside the family's range.

        Returns
        -------
        ResponseCurve

        Raises
        ------
        CalibrationError
            A base rate outside the family's range.

        Notes
        -----
        The odds of a response are multiplied by the ratio of the base rates' odds, which is exact where scores
        are distributed as before among those who respond and among those who do not (label shift; Saerens,
        Latinne and Decaestecker 2002, eq. 2.4). ``calibration.estimate_base_rate`` finds the new base rate from
        unlabelled scores. Counts are multiplied, continuous responses moved.

        Examples
        --------
        >>> table = QuantileTable.fit([1.0, 2.0])
        >>> curve = ResponseCurve(CurveForm("isotonic"), "step", table, np.array([0.2, 0.5]), 9, 3, 0.4)
        >>> curve.at_base_rate(0.2).values.round(3)
        array([0.086, 0.273])
        """
        family = self.form.family
        if not (np.isfinite(base_rate) and family.lowest < base_rate < family.highest):
            raise CalibrationError(
                f"base_rate is {base_rate}; it must be inside ({family.lowest:g}, {family.highest:g})"
            )
        old, new = family.link(np.array([self._inner_base_rate(), base_rate]))
        return self.shifted(float(new - old))

    def _inner_base_rate(self) -> float:
        # 0 responses, or more responses than expected examinations, have no log-odds
        family = self.form.family
        inside = family.lowest < self.base_rate < family.highest
        return self.base_rate if inside else self.mean_response

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain JSON-able values; floats keep every bit.

        Returns
        -------
        dict
        """
        return {
            "form": asdict(self.form),
            "interpolation": self.interpolation,
            "n_rows": self.n_rows,
            "n_positive": self.n_positive,
            "base_rate": self.base_rate,
            "shift": self.shift,
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
            "form": dict,
            "interpolation": str,
            "n_rows": int,
            "n_positive": int,
            "base_rate": (int, float),
            "shift": (int, float),
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
            form=CurveForm.from_dict(content["form"]),
            interpolation=content["interpolation"],
            table=QuantileTable(lower, centre, quantile, weight),
            values=values,
            n_rows=content["n_rows"],
            n_positive=content["n_positive"],
            base_rate=float(content["base_rate"]),
            shift=float(content["shift"]),
        )


def _read_numbers(name: str, values: list[Any]) -> NDArray[np.float64]:
    # numpy would read "0.1" and true as numbers; a curve that holds them was not written by to_dict.
    if not {type(value) for value in values} <= {int, float}:
        position = next(j for j, value in enumerate(values) if type(value) not in (int, float))
        raise CalibrationError(f"{name}[{position}] of a curve is {values[position]!r:.60}; it must be a number")
    return np.array(values, dtype=np.float64)
