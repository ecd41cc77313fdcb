"""From values to importance factors: ratios with intervals, shrunk for serving, and a decision."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import t as student

from spr.edge_drop.ratios import fieller_intervals, simultaneous_critical
from spr.edge_drop.shrinkage import shrink_log_values
from spr.reorder.importance import ImportanceFactors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spr.edge_drop.values import EdgeValues, Per

    Floats = NDArray[np.float64]

USE, KEEP = "use", "kept at 1: too noisy to act on"
BELOW_0 = "kept at 1: its value is below 0"


@dataclass(frozen=True)
class FactorEstimates:
    """Importance factors of T edge types relative to a reference, with what is known of them.

    Parameters
    ----------
    values : EdgeValues
        Of the experiment.
    per : {"downstream_edge", "edge"}
        What the ratios are of: the value of an edge with a downstream interaction, or of any edge.
    reference : str
        The edge type whose factor is 1.
    value, standard_error : float64[T]
        Per (downstream) edge, in units of the metric.
    ratio : float64[T]
        Unshrunk: value over the reference's.
    interval, simultaneous : float64[T, 2]
        Fieller's, of the ratio: each by itself, and all at once. ``-inf, inf`` where no bound can be stated.
    shrunk : float64[T]
        From log values drawn to their common mean, then divided by the reference's.
    decision : tuple of str
        ``"use"``; ``"kept at 1: too noisy to act on"`` where the type's or the reference's value is not told apart from
        0 at the simultaneous level; ``"kept at 1: its value is below 0"`` where dropping edges raised the metric.
    factor : float64[T]
        What is served: ``shrunk``, or 1.
    """

    values: EdgeValues
    per: Per
    reference: str
    value: Floats
    standard_error: Floats
    ratio: Floats
    interval: Floats
    simultaneous: Floats
    shrunk: Floats
    decision: tuple[str, ...]
    factor: Floats

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per edge type.

        Returns
        -------
        DataFrame
            value, standard_error, ratio, low and high (each interval by itself), all_low and all_high (all at once),
            shrunk, factor, decision.
        """
        columns = {
            "value": self.value,
            "standard_error": self.standard_error,
            "ratio": self.ratio,
            "low": self.interval[:, 0],
            "high": self.interval[:, 1],
            "all_low": self.simultaneous[:, 0],
            "all_high": self.simultaneous[:, 1],
            "shrunk": self.shrunk,
            "factor": self.factor,
            "decision": self.decision,
        }
        return pd.DataFrame(columns, index=pd.Index(self.values.edge_types, name="edge_type"))

    def to_factors(self, source: Mapping[str, str] | None = None) -> ImportanceFactors:
        """Return the artefact that a ranker takes: ``ranker.with_factors``.

        Parameters
        ----------
        source : mapping of str to str, optional
            To be kept with the factors beside metric, ``per``, form and viewers: the experiment's name, its date.

        Returns
        -------
        ImportanceFactors
        """
        values, names = self.values, self.values.edge_types
        probability = dict(zip(names, values.probability_downstream.tolist(), strict=True))
        said = {"metric": values.metric, "per": self.per, "form": values.form, "viewers": str(values.n_viewers)}
        return ImportanceFactors(
            dict(zip(names, self.factor.tolist(), strict=True)),
            self.reference,
            {t: (low, high) for t, (low, high) in zip(names, self.simultaneous.tolist(), strict=True)},
            dict(zip(names, values.per("edge")[0].tolist(), strict=True)),
            {t: p for t, p in probability.items() if isfinite(p) and p > 0},
            {t: r for t, r in zip(names, self.ratio.tolist(), strict=True) if isfinite(r)},
            dict(zip(names, self.decision, strict=True)),
            {**said, **(source or {})},
        )


def estimate_factors(values: EdgeValues, per: Per, reference: str, alpha: float = 0.05) -> FactorEstimates:
    """Make factors of the values of one experiment.

    Parameters
    ----------
    values : EdgeValues
    per : {"downstream_edge", "edge"}
    reference : str
        One of the values' edge types.
    alpha : float, default 0.05
        1 - level of the intervals.

    Returns
    -------
    FactorEstimates
    """
    value, covariance = values.per(per)
    if not (value > 0).any():  # no type is worth anything: all alike
        return decide(values, per, reference, np.zeros(len(value)), alpha)
    return decide(values, per, reference, shrink_log_values([(value, covariance)]).log_value[0], alpha)


def decide(values: EdgeValues, per: Per, reference: str, log_value: Floats, alpha: float) -> FactorEstimates:
    """Put ratios and intervals together with shrunk log values, and decide what is served; see `estimate_factors`."""
    value, covariance = values.per(per)
    place = values.edge_types.index(reference)
    error = np.sqrt(np.diag(covariance))
    # A normal's critical value at the same level of Student's t.
    spread = student(values.degrees_of_freedom)
    one = float(spread.ppf(1 - alpha / 2))
    critical = float(spread.ppf(ndtr(simultaneous_critical(value, covariance, place, alpha))))
    known = value > critical * error
    use = known & known[place]
    shrunk = np.exp(log_value - log_value[place])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = value / value[place]
    return FactorEstimates(
        values,
        per,
        reference,
        value,
        error,
        ratio,
        fieller_intervals(value, covariance, place, one),
        fieller_intervals(value, covariance, place, critical),
        shrunk,
        tuple(
            USE if enough else BELOW_0 if below else KEEP
            for enough, below in zip(use, value < -critical * error, strict=True)
        ),
        np.where(use, shrunk, 1.0),
    )
