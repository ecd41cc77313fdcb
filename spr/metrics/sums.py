"""A metric as a function of sums, so that a bootstrap reweights sums and never reads the rows again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GroupMean:
    """A mean over pages or groups.

    Parameters
    ----------
    mean : float
        NaN where no group counts.
    groups : int
        Groups that count.
    left_out : int
        Groups on which the metric is not defined.
    """

    mean: float
    groups: int
    left_out: int


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a metric adds up, and what it makes of the totals.

    Parameters
    ----------
    n_columns : int
        Number of totals.
    parts : sequence of (column, values)
        Values of each unit (a row, a page, a group), shape (n_units,), and the column they are added to: one for
        all, or one for each unit.
    combine : callable
        From totals, shape (..., n_columns), to the metric, shape (...).
    row : int array, shape (n_units,), optional
        A row of each unit, which tells whose it is; not given where the units are the rows.
    left_out : int, default 0
        Units on which the metric is not defined.
    """

    n_columns: int
    parts: Sequence[tuple[int | Ints, Floats]]
    combine: Callable[[Floats], Floats]
    row: Ints | None = None
    left_out: int = 0

    @property
    def units(self) -> int:
        """Units that count."""
        return len(self.parts[0][1])

    def by_owner(self, owner: Ints, n_owners: int) -> Floats:
        """Totals of each owner, shape (n_owners, n_columns), where ``owner`` says whose each row is."""
        unit_owner = owner if self.row is None else owner[self.row]
        size = n_owners * self.n_columns
        totals = np.zeros(size)
        for column, values in self.parts:
            totals += np.bincount(unit_owner * self.n_columns + column, values, size)
        return totals.reshape(n_owners, self.n_columns)

    def estimate(self) -> float:
        """Compute the metric of all units."""
        totals = np.zeros(self.n_columns)
        for column, values in self.parts:
            np.add.at(totals, column, values.sum() if isinstance(column, int) else values)
        return float(self.combine(totals))

    def group_mean(self) -> GroupMean:
        """Compute the metric of all units, with the number of those that count."""
        return GroupMean(self.estimate(), self.units, self.left_out)


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, with NaN and no warning where the denominator is 0."""
    empty = denominator == 0.0
    return np.where(empty, np.nan, numerator / np.where(empty, 1.0, denominator))


def check_finite(name: str, values: ArrayLike, like: Floats | None = None) -> Floats:
    """Read one finite number per row, as many as ``like`` has."""
    numbers = _read(name, values, like)
    _refuse(name, numbers, ~np.isfinite(numbers), "finite numbers")
    return numbers


def check_labels(label: ArrayLike) -> Floats:
    """Read labels of 0 and 1."""
    labels = _read("label", label)
    _refuse("label", labels, (labels != 0.0) & (labels != 1.0), "0 and 1; leave out rows that are not mature")
    return labels


def check_gains(label: ArrayLike) -> Floats:
    """Read labels of 0 and more."""
    labels = _read("label", label)
    _refuse("label", labels, ~((labels >= 0.0) & np.isfinite(labels)), "finite numbers >= 0")
    return labels


def check_probabilities(probability: ArrayLike, label: Floats, name: str = "probability") -> Floats:
    """Read one probability per label."""
    numbers = _read(name, probability, label)
    _refuse(name, numbers, ~((numbers >= 0.0) & (numbers <= 1.0)), "numbers from 0 to 1")
    return numbers


def check_weights(weight: ArrayLike | None, label: Floats) -> Floats:
    """Read one weight per label, 1 each where there is none."""
    if weight is None:
        return np.ones(len(label))
    weights = _read("weight", weight, label)
    _refuse("weight", weights, ~((weights >= 0.0) & np.isfinite(weights)), "finite numbers >= 0")
    if weights.sum() == 0.0:
        raise InvalidModelInput("weight is 0 in all rows; allowed: at least one positive weight")
    return weights


def check_k(name: str, k: int) -> None:
    """Refuse a number of places that is no positive integer."""
    if not isinstance(k, int) or k < 1:
        raise InvalidModelInput(f"{name} is {k!r}; allowed: integers >= 1")


def check_replicates(level: float, n_replicates: int) -> None:
    """Refuse a confidence level or a number of bootstrap replicates that gives no interval."""
    if not 0.0 < level < 1.0 or n_replicates < 2:
        raise InvalidModelInput(
            f"level={level}, n_replicates={n_replicates}; allowed: 0 < level < 1, at least 2 replicates"
        )


def code_groups(name: str, group: ArrayLike, label: Floats) -> Ints:
    """Give numbers to the groups, from 0 in order of appearance."""
    names = np.asarray(group)
    if names.shape != label.shape:
        raise InvalidModelInput(f"{name} has shape {names.shape} for {len(label)} labels; allowed: one per row")
    codes = pd.factorize(names)[0].astype(np.int64)
    if (codes < 0).any():
        raise InvalidModelInput(
            f"{name} is null in {int((codes < 0).sum())} of {len(codes)} rows; name the group of each"
        )
    return codes


def _read(name: str, values: ArrayLike, like: Floats | None = None) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise InvalidModelInput(f"{name} has shape {numbers.shape}; allowed: one number per row, at least one row")
    if like is not None and len(numbers) != len(like):
        raise InvalidModelInput(f"{name} has {len(numbers)} entries for {len(like)} labels; allowed: one per row")
    return numbers


def _refuse(name: str, numbers: Floats, wrong: NDArray[np.bool_], allowed: str) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InvalidModelInput(
            f"{name} is {numbers[first]} in row {first}, and wrong in {int(wrong.sum())} of {len(numbers)} rows; "
            f"allowed: {allowed}"
        )
