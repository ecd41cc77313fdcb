"""What an A/B test says: comparisons, checks, and a text that puts what casts doubt on it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spr.evaluation.experiment.multiplicity import GUARD_RAIL
from spr.evaluation.experiment.table import ALL

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd


@dataclass(frozen=True, eq=False)
class ArmComparison:
    """The arms of an experiment against its control; of :func:`spr.evaluation.compare_arms`.

    Parameters
    ----------
    control : str
        Name of the arm that the others are compared with.
    alpha : float
        1 - level of each interval.
    planned_members : int or None
        None: intervals and p-values are of one look; else they hold at all looks together.
    comparisons : DataFrame
        One row per ``segment`` (``"all"`` first), ``metric`` and ``arm``:

        * ``family``: primary, exploratory or guard-rail;
        * ``control_members``, ``members``: who have the metric; ``effective_units``: equal terms that the errors of
          the smaller arm are worth (Kish);
        * ``raw_control_value``, ``raw_value``: unadjusted; ``control_value``, ``value``: adjusted;
        * ``difference``, ``low``, ``high``: value - control_value, absolute; infinite bounds: no error can be stated;
        * ``relative``, ``relative_low``, ``relative_high``: value / control_value - 1, by Fieller; null where
          control_value is not above 0, infinite bounds where it is not told apart from 0;
        * ``standard_error`` of the difference and ``df``, its degrees of freedom; null: not known;
        * ``p_value`` of no difference, ``p_adjusted`` within the family; null: not known, or a guard-rail;
        * ``variance_ratio``: variance of the difference over that without adjustment, about 1 - rho^2;
        * ``verdict`` of a guard-rail: passed (the interval excludes a change beyond the limit), failed (the interval
          lies beyond it), not certain; null of other metrics.
    sample_ratio : DataFrame
        By ``arm``: planned, observed, p_value, suspect; see :func:`spr.evaluation.experiment.checks.count_arms`.
    checks : DataFrame
        Of missing members and of the past; see :func:`spr.evaluation.experiment.checks.check_arms`.
    interactions : DataFrame
        By ``metric`` and ``arm``: p_value and p_adjusted (Benjamini and Hochberg) of the same relative difference in
        all segments; empty without segments, and where looks are many.
    warnings : tuple of str
        What voids the comparison unless it is explained.
    notes : tuple of str
        Who was left out, and where units are few.
    """

    control: str
    alpha: float
    planned_members: int | None
    comparisons: pd.DataFrame
    sample_ratio: pd.DataFrame
    checks: pd.DataFrame
    interactions: pd.DataFrame
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return a copy of ``comparisons``."""
        return self.comparisons.copy()

    def __str__(self) -> str:
        looks = "one look" if self.planned_members is None else f"any looks, {self.planned_members:,} members planned"
        everybody = self.comparisons[self.comparisons["segment"] == ALL]
        counted = everybody.groupby("metric").agg({"control_members": "max", "members": "sum"}).sum(axis=1).max()
        lines = [f"WARNING: {said}" for said in self.warnings]
        level = f"{100 * (1 - self.alpha):g} %"
        lines.append(f"{counted:,} members, control {self.control!r}, {looks}, {level} intervals")
        for metric, rows in self.comparisons.groupby("metric", sort=False):
            lines.append(f"{metric} [{rows['family'].iloc[0]}]")
            lines += [f"  {_in_words(row)}" for row in rows.to_dict("records")]
            tested = self.interactions[self.interactions["metric"] == metric]
            lines += [
                f"  {row['arm']}: interaction with the segments, p {_number(row['p_value'])}, "
                f"adjusted {_number(row['p_adjusted'])}"
                for row in tested.to_dict("records")
            ]
        lines += [f"note: {said}" for said in self.notes]
        return "\n".join(lines)


def _in_words(row: dict[Any, Any]) -> str:
    arm = row["arm"] if row["segment"] == ALL else f"{row['arm']}, {row['segment']}"
    relative = np.isfinite([row["relative_low"], row["relative_high"]]).all()
    names = ("relative", "relative_low", "relative_high") if relative else ("difference", "low", "high")
    middle, low, high = (_change(row[name], relative=bool(relative)) for name in names)
    bounds = "no interval" if np.isinf([row[name] for name in names[1:]]).any() else f"{low} to {high}"
    said = [f"{arm}: {middle} ({bounds})", f"p {_number(row['p_value'])}"]
    if row["family"] != GUARD_RAIL:
        said.append(f"adjusted {_number(row['p_adjusted'])}")
    if isinstance(row["verdict"], str):
        said.append(f"guard-rail {row['verdict']}")
    if not np.isnan(row["variance_ratio"]) and row["variance_ratio"] != 1.0:
        said.append(f"variance {row['variance_ratio']:.2f} of unadjusted")
    return ", ".join(said)


def _change(value: float, *, relative: bool) -> str:
    return f"{100 * value:+.1f} %" if relative else f"{value:+.3g}"


def _number(value: float) -> str:
    return "not known" if np.isnan(value) else f"{value:.2g}"
