"""The edge_drop table: what was dropped, of how many edges, and what the viewers did; read as a contract."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from spr.edge_drop.columns import codes, numbers, refuse_where, require_dosed
from spr.errors import InvalidExperiment
from spr.tables import load_table, require_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from spr.tables import Table

    Floats = NDArray[np.float64]

_NAME = "edge_drop"
_TOO_FEW_CLUSTERS, _FEW_CLUSTERS = 20, 40


@dataclass(frozen=True)
class EdgeDropRows:
    """The rows of an edge_drop table that an estimate uses: n viewers, T edge types.

    Parameters
    ----------
    edge_types : tuple of str
    metric : str
        What was read, for people: a column's name, or the weighted sum of several.
    viewer_id : object[n]
    dropped : float64[n, T]
        Share of the viewer's edges whose content was hidden, in [0, 1].
    other_dropped : float64[n, U]
        The same of types that are not valued: their viewers are no controls.
    edges : float64[n, T]
        Edges before assignment.
    downstream_edges : float64[n, T] or None
        Of these, with a downstream interaction; None where the table does not say.
    outcome : float64[n]
        The metric.
    covariates : float64[n, p]
        From before the assignment, mean 0: the metric's pre-period first where there is one, then what the caller
        named; a null is 0 with an indicator column of its own.
    has_pre : bool
        Whether the first covariate is the metric's own pre-period.
    stratum, cluster, segment : int64[n] or None
        Codes.
    segment_names : tuple of str
    notes : tuple of str
        What was left out, and how many rows or viewers it was.
    """

    edge_types: tuple[str, ...]
    metric: str
    viewer_id: NDArray[np.object_]
    dropped: Floats
    other_dropped: Floats
    edges: Floats
    downstream_edges: Floats | None
    outcome: Floats
    covariates: Floats
    has_pre: bool
    stratum: NDArray[np.int64] | None
    cluster: NDArray[np.int64] | None
    segment: NDArray[np.int64] | None
    segment_names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        """How many viewers there are."""
        return len(self.outcome)

    def take(self, rows: NDArray[np.bool_]) -> EdgeDropRows:
        """Return some of the rows, the covariates centred anew."""
        covariates = self.covariates[rows]

        def some(codes: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
            return None if codes is None else np.unique(codes[rows], return_inverse=True)[1]

        return replace(
            self,
            viewer_id=self.viewer_id[rows],
            dropped=self.dropped[rows],
            other_dropped=self.other_dropped[rows],
            edges=self.edges[rows],
            downstream_edges=None if self.downstream_edges is None else self.downstream_edges[rows],
            outcome=self.outcome[rows],
            covariates=covariates - covariates.mean(axis=0),
            stratum=some(self.stratum),
            cluster=some(self.cluster),
            segment=None,
            segment_names=(),
        )


def read_edge_drop(
    table: Table,
    metric: str | Mapping[str, float],
    *,
    edge_types: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
) -> EdgeDropRows:
    """Read one row per viewer of an edge-drop experiment.

    Parameters
    ----------
    table : DataFrame or path
        ``viewer_id``; per edge type ``dropped_<t>`` (share in [0, 1]), ``edges_<t>`` (count before assignment) and,
        optional, ``downstream_edges_<t>``; the metric and, optional, ``pre_<metric>``; optional ``stratum``,
        ``cluster``, ``segment``.
    metric : str or mapping of str to float
        A column, or several with the weights of their sum. The pre-period is combined by the same weights.
    edge_types : sequence of str, optional
        Default: each that has a column ``dropped_<t>``.
    covariates : sequence of str, default ()
        Further numeric columns from before the assignment that explain the metric.

    Returns
    -------
    EdgeDropRows
        Viewers whose metric is null are left out, and so is an edge type that nobody had or nobody lost; ``notes``
        says so, with the count.

    Raises
    ------
    TableError
        When a column is missing or a value is not allowed: the rule, the count and the first row.
    InvalidExperiment
        When no edge type or fewer than 20 viewers are left.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(40)], "dropped_follow": [0.0, 0.5] * 20,
    ...     "edges_follow": 10, "likes": range(40)})
    >>> rows = read_edge_drop(table, "likes")
    >>> rows.edge_types, rows.n
    (('follow',), 40)
    """
    frame = load_table(table, _NAME).reset_index(drop=True)
    weights = {metric: 1.0} if isinstance(metric, str) else {name: float(w) for name, w in metric.items()}
    if not weights or not all(np.isfinite(w) for w in weights.values()):
        raise InvalidExperiment(f"the metrics have the weights {weights}; allowed: at least one, each finite")
    found = require_dosed(frame, _NAME, edge_types or ())
    wanted = tuple(edge_types) if edge_types is not None else tuple(found)
    require_columns(frame, _NAME, ["viewer_id", *weights, *covariates, *(f"edges_{t}" for t in wanted)])
    refuse_where(frame, _NAME, frame["viewer_id"].isna().to_numpy(), "viewer_id is null")
    refuse_where(frame, _NAME, frame["viewer_id"].duplicated().to_numpy(), "viewer_id is not unique")
    _check_roles(weights, covariates)

    counted = [str(c).removeprefix("edges_") for c in frame.columns if str(c).startswith("edges_")]
    undosed = [t for t in counted if f"dropped_{t}" not in frame] if edge_types is None else []
    notes = [f"{t} is left out: the table has edges_{t} and no dropped_{t}" for t in undosed]
    outcome = _weighted(frame, weights)
    there = ~np.isnan(outcome)
    if not there.all():
        notes.append(f"{(~there).sum():,} of {len(there):,} viewers have no {_shown(weights)} and are left out")
        frame, outcome = frame[there].reset_index(drop=True), outcome[there]
    if len(frame) < 20:
        raise InvalidExperiment(f"{_NAME}: {len(frame)} viewers have a metric; at least 20 are needed")
    if (outcome == outcome[0]).all():
        raise InvalidExperiment(
            f"{_NAME}: {_shown(weights)} is {outcome[0]:g} for all {len(frame):,} viewers: nothing to lose"
        )
    dropped = {t: _numbers(frame, f"dropped_{t}", most=1.0) for t in found}
    edges = {t: _numbers(frame, f"edges_{t}", least=0.0) for t in wanted}
    kept = tuple(t for t in wanted if _can_be_valued(t, dropped[t], edges[t], notes))
    if not kept:
        raise InvalidExperiment(f"{_NAME}: no edge type can be valued: {'; '.join(notes)}")
    n, downstream = len(frame), _read_downstream(frame, kept, edges)
    pre = {f"pre_{name}": w for name, w in weights.items()}
    has_pre = all(name in frame for name in pre)
    columns = [_weighted(frame, pre)] if has_pre else []
    columns += [_numbers(frame, name, null=True) for name in covariates]
    (stratum, strata), (cluster, clusters), (segment, segments) = (
        codes(frame, _NAME, name) if name in frame else (None, ()) for name in ("stratum", "cluster", "segment")
    )
    n_strata, n_clusters = len(strata), len(clusters)
    if n_strata > len(frame) / 4:
        raise InvalidExperiment(
            f"{_NAME}: {n_strata:,} strata of {len(frame):,} viewers; give fewer, of 4 or more on average"
        )
    if 0 < n_clusters < _TOO_FEW_CLUSTERS:
        raise InvalidExperiment(f"{_NAME}: {n_clusters} clusters; at least {_TOO_FEW_CLUSTERS} are needed for an error")
    if 0 < n_clusters < _FEW_CLUSTERS:
        notes.append(f"{n_clusters} clusters: errors from fewer than {_FEW_CLUSTERS} are too small")
    return EdgeDropRows(
        kept,
        _shown(weights),
        frame["viewer_id"].to_numpy(dtype=object),
        np.column_stack([dropped[t] for t in kept]),
        np.column_stack([dropped[t] for t in found if t not in kept]) if len(found) > len(kept) else np.empty((n, 0)),
        np.column_stack([edges[t] for t in kept]),
        downstream,
        outcome,
        centred_covariates(columns, len(frame)),
        has_pre,
        stratum,
        cluster,
        segment,
        segments,
        tuple(notes),
    )


def _check_roles(weights: Mapping[str, float], covariates: Sequence[str]) -> None:
    """Refuse a metric that is no outcome and a covariate that is one."""
    for name in weights:
        if name.startswith(("dropped_", "edges_", "downstream_edges_", "pre_")):
            raise InvalidExperiment(
                f"{_NAME}: the metric {name!r} is from before the experiment; give what viewers did in it"
            )
    for name in covariates:
        if name in weights or name.startswith("dropped_"):
            raise InvalidExperiment(
                f"{_NAME}: the covariate {name!r} is a metric or a dose; give columns from before the assignment"
            )


def _numbers(
    frame: pd.DataFrame, column: str, *, null: bool = False, least: float = -np.inf, most: float = np.inf
) -> Floats:
    values = numbers(frame, _NAME, column)
    if most == 1.0:
        least = 0.0
    outside = np.isinf(values) | (values < least) | (values > most) | (np.isnan(values) & (not null))
    first = values[int(outside.argmax())]
    rule = "is outside [0, 1]" if most == 1.0 else "is negative" if first < least else "is null or infinite"
    refuse_where(frame, _NAME, outside, f"{column} {rule}", f", {column}={first:g}")
    return values


def _weighted(frame: pd.DataFrame, weights: Mapping[str, float]) -> Floats:
    total = np.zeros(len(frame))
    for column, weight in weights.items():
        total += weight * _numbers(frame, column, null=True)
    return total


def _can_be_valued(edge_type: str, dropped: Floats, edges: Floats, notes: list[str]) -> bool:
    lost = (dropped > 0) & (edges > 0)
    if not edges.any():
        notes.append(f"{edge_type} is left out: none of {len(edges):,} viewers had an edge of it")
    elif not lost.any():
        notes.append(f"{edge_type} is left out: none of {len(edges):,} viewers lost an edge of it")
    elif not (dropped[edges > 0] == 0).any():
        notes.append(f"{edge_type} is left out: all of {len(edges):,} viewers lost edges of it, none is a control")
    else:
        return True
    return False


def _read_downstream(frame: pd.DataFrame, kept: tuple[str, ...], edges: Mapping[str, Floats]) -> Floats | None:
    if not all(f"downstream_edges_{t}" in frame for t in kept):
        return None
    for t in kept:
        above = _numbers(frame, f"downstream_edges_{t}", least=0.0) > edges[t]
        refuse_where(frame, _NAME, above, f"downstream_edges_{t} is more than edges_{t}")
    return np.column_stack([_numbers(frame, f"downstream_edges_{t}") for t in kept])


def centred_covariates(columns: Sequence[Floats], n: int) -> Floats:
    """Make covariates of columns from before the assignment.

    Parameters
    ----------
    columns : sequence of float64[n]
        NaN: not known, as of viewers without a past.
    n : int

    Returns
    -------
    float64[n, p]
        Mean 0; a null is the column's mean, with an indicator column of its own.

    Examples
    --------
    >>> centred_covariates([np.array([1.0, np.nan, 3.0])], 3).round(2)
    array([[-1.  , -0.33],
           [ 0.  ,  0.67],
           [ 1.  , -0.33]])
    """
    made = []
    for values in columns:
        unknown = np.isnan(values)
        filled = np.where(unknown, np.nanmean(values) if not unknown.all() else 0.0, values)
        made += [filled] if not unknown.any() else [filled, unknown.astype(np.float64)]
    if not made:
        return np.empty((n, 0))
    matrix = np.column_stack(made)
    return np.asarray(matrix - matrix.mean(axis=0))


def _shown(weights: Mapping[str, float]) -> str:
    if list(weights.values()) == [1.0]:
        return next(iter(weights))
    return " + ".join(f"{weight:g} {name}" for name, weight in weights.items())
