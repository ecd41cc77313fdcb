"""Importance factors per segment of viewers, partially pooled towards the factors of all viewers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.edge_drop.factors import USE, FactorEstimates, decide
from spr.edge_drop.shrinkage import shrink_log_values
from spr.edge_drop.table import read_edge_drop
from spr.edge_drop.values import values_of
from spr.errors import InvalidExperiment, TableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spr.edge_drop.table import EdgeDropRows
    from spr.edge_drop.values import Per
    from spr.tables import Table


@dataclass(frozen=True)
class SegmentFactors:
    """Factors of all viewers and of each segment.

    Parameters
    ----------
    overall : FactorEstimates
    by_segment : mapping of str to FactorEstimates
        ``shrunk`` is drawn to the overall factors, and so is ``factor``; intervals are of the segment's own ratios.
    spread : float
        Standard deviation of a segment's log factors about the overall ones.
    notes : tuple of str
        Segments that were left out, why, and how many viewers they have; the overall factors are theirs.
    """

    overall: FactorEstimates
    by_segment: Mapping[str, FactorEstimates]
    spread: float
    notes: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per segment and edge type, "all" first; columns of :meth:`FactorEstimates.to_pandas`."""
        parts = {"all": self.overall.to_pandas()} | {name: f.to_pandas() for name, f in self.by_segment.items()}
        return pd.concat(parts, names=["segment"])


def estimate_segment_factors(
    table: Table,
    metric: str | Mapping[str, float],
    per: Per = "downstream_edge",
    *,
    reference: str | None = None,
    edge_types: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    alpha: float = 0.05,
) -> SegmentFactors:
    """Estimate factors for each value of the table's column ``segment``.

    Parameters
    ----------
    table, metric, per, reference, edge_types, covariates
        As of :func:`spr.edge_drop.estimate_edge_values` and :meth:`spr.edge_drop.EdgeValues.factors`; the table has a
        column ``segment``, known before the assignment.
    alpha : float, default 0.05
        1 - level of the intervals.

    Returns
    -------
    SegmentFactors
        To serve them, give each segment's requests to ``ranker.with_factors(of the segment)``: the rankers share
        every other part.

    Raises
    ------
    TableError
        When the table breaks its contract or has no segments.
    InvalidExperiment
        When no segment can be estimated.

    Notes
    -----
    The log values of a segment have a level of its own, which no factor depends on, and differ from the overall log
    values by a normal with one spread for all segments; see :func:`spr.edge_drop.shrinkage.shrink_log_values`. A type
    is used in a segment where it is used overall: what a noisy segment gets is the overall factor.
    """
    rows = read_edge_drop(table, metric, edge_types=edge_types, covariates=covariates)
    if rows.segment is None:
        raise TableError("edge_drop: column 'segment' is missing; it splits the viewers by what was known before")
    values = values_of(rows)
    overall = values.factors(per, reference=reference, alpha=alpha)
    found, notes = {}, []
    for code, name in enumerate(rows.segment_names):
        members = rows.segment == code
        why = _cannot(rows, members)
        if not why:
            try:
                found[name] = values_of(rows.take(members))
                found[name].per(per)
            except InvalidExperiment as error:
                found.pop(name, None)
                why = str(error)
        if why:
            notes.append(f"segment {name!r} is left out, {members.sum():,} viewers: {why}")
    if not found:
        raise InvalidExperiment(f"no segment can be estimated: {'; '.join(notes)}")
    centre = np.log(overall.shrunk)
    positive = {name: part for name, part in found.items() if (part.per(per)[0] > 0).any()}
    shrunk = shrink_log_values([part.per(per) for part in positive.values()], centre=centre) if positive else None
    logs = dict(zip(positive, shrunk.log_value, strict=True)) if shrunk else {}
    use = np.array([decision == USE for decision in overall.decision])
    by_segment = {}
    for name, part in found.items():
        made = decide(part, per, overall.reference, logs.get(name, centre), alpha)
        by_segment[name] = replace(made, decision=overall.decision, factor=np.where(use, made.shrunk, 1.0))
    return SegmentFactors(overall, by_segment, shrunk.spread if shrunk else float("nan"), (*values.notes, *notes))


def _cannot(rows: EdgeDropRows, members: np.ndarray) -> str:
    """Say why a segment cannot be estimated, if so."""
    dropped, edges = rows.dropped[members], rows.edges[members]
    if members.sum() < 20 * (1 + len(rows.edge_types)):
        return "too few for as many edge types"
    for t, edge_type in enumerate(rows.edge_types):
        if not ((dropped[:, t] == 0) & (edges[:, t] > 0)).any():
            return f"none of them is a control of {edge_type}"
        if not ((dropped[:, t] > 0) & (edges[:, t] > 0)).any():
            return f"none of them lost an edge of {edge_type}"
    return ""
