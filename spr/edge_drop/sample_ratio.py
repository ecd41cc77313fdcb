"""Whether an experiment's table holds the viewers that the design says, dose by dose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from scipy.stats import chi2

from spr.edge_drop.checks import stratum_means
from spr.edge_drop.columns import codes, refuse_where, require_columns, require_ids
from spr.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spr.edge_drop.experiment import EdgeDropExperiment

    Floats = NDArray[np.float64]

SUSPECT_BELOW: Final = 0.001
_LEAST_PLANNED: Final = 5.0
_COLUMNS: Final = ["edge_type", "stratum", "dose", "planned", "observed", "p_value"]


def sample_ratio_check(
    table: pd.DataFrame, experiment: EdgeDropExperiment, *, assignment: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compare the units of each dose with the plan, and the missing ones of each dose with each other.

    Parameters
    ----------
    table : DataFrame
        The edge_drop table, or an assignment: ``viewer_id``, ``dropped_<t>`` for each of the experiment's types;
        optional ``stratum`` and ``cluster``. One row per viewer.
    experiment : EdgeDropExperiment
        The plan.
    assignment : DataFrame, optional
        Of :meth:`EdgeDropExperiment.assign`: its viewers that are not in ``table`` are missing. Its strata and clusters
        are used then.

    Returns
    -------
    DataFrame
        One row per (edge_type, stratum, dose). ``edge_type`` is a type, or ``"joint"``, whose ``dose`` is the set of
        dosed types (``"none"``, ``"connection + follow"``), else the share as text. ``stratum`` is ``"all"``, then each
        stratum where there are several; the joint is for ``"all"`` only. ``planned`` and ``observed`` count units
        (viewers, or clusters where there are any). ``p_value`` and ``suspect`` are of the whole (edge_type, stratum)
        and so are the same in all its rows; null where fewer than two doses have 5 planned units. With
        ``assignment`` also ``assigned`` and ``missing`` (viewers) and ``missing_p_value``. ``suspect`` is true where a
        p-value is below 0.001.

    Raises
    ------
    TableError
        When a column is missing, a viewer stands twice, a dose is not of the plan, the viewers of a cluster have
        different doses, or the table has viewers or doses that were not assigned.

    Notes
    -----
    ``p_value`` is Pearson's chi-square of the counts against the plan, doses with fewer than 5 planned units together;
    0.001 is the convention of sample-ratio checks, since a mismatch is looked for in every experiment and voids it
    (Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019). The quotas make
    the counts at assignment meet the plan, so that a p-value near 1 is usual, what shows is viewers lost or assigned
    in some other way, and the test rarely alarms by chance.

    ``missing_p_value`` tests whether a viewer's absence depends on its dose, given its stratum: with e the absence of a
    unit's viewers less the stratum's rate, and x the indicators of its dose, the sum of e x is compared with its
    covariance when the doses are dealt out anew among the units of a stratum. Without strata and clusters it is
    Pearson's chi-square of the contingency table, times (n - 1) / n. It is the sharper test wherever an assignment was
    kept.

    Examples
    --------
    >>> from spr.edge_drop.experiment import EdgeDropExperiment
    >>> experiment = EdgeDropExperiment(("follow",), "spring", doses=(0.5,))
    >>> assignment = experiment.assign(pd.DataFrame({"viewer_id": [f"v{i}" for i in range(2000)]}))
    >>> lost = (assignment["dropped_follow"] > 0) & (assignment.index % 5 == 0)
    >>> check = sample_ratio_check(assignment[~lost], experiment, assignment=assignment)
    >>> check.loc[check["edge_type"] == "follow", ["dose", "planned", "observed", "missing", "suspect"]]
      dose  planned  observed  missing  suspect
    0    0    894.0      1000        0     True
    1  0.5    894.0       788      212     True
    """
    types = experiment.edge_types
    frame = _read(table, experiment, "edge_drop")
    record = frame if assignment is None else _read(assignment, experiment, "assignment")
    there = pd.Series(True, index=record.index)
    if assignment is not None:
        there = record["viewer_id"].isin(frame["viewer_id"])
        _check_assigned(frame, record, types)
    units = _units(record, there, types)
    strata = [("all", np.ones(len(units.size), dtype=bool))]
    names = np.unique(units.stratum)
    if len(names) > 1:
        strata += [(str(name), units.stratum == name) for name in names]
    parts = []
    for stratum, rows in strata:
        for edge_type, labels, chance, code in _groupings(experiment, units.dose):
            if edge_type == "joint" and (stratum != "all" or len(types) == 1):
                continue
            part = units.take(rows)
            found = _compared(part, labels, chance, code[rows], with_missing=assignment is not None)
            parts.append(found.assign(edge_type=edge_type, stratum=stratum))
    check = pd.concat(parts, ignore_index=True)
    tests = [name for name in ("p_value", "missing_p_value") if name in check]
    check["suspect"] = (check[tests] < SUSPECT_BELOW).any(axis=1)
    rest = [name for name in ("assigned", "missing", "missing_p_value") if name in check]
    return check[[*_COLUMNS, *rest, "suspect"]]


@dataclass(frozen=True, eq=False)
class _Units:
    """What is randomised: n viewers, or clusters of viewers."""

    dose: Floats  # [n, types]
    stratum: NDArray[np.str_]
    size: NDArray[np.int64]  # viewers assigned
    there: NDArray[np.int64]  # of these, in the table

    def take(self, rows: NDArray[np.bool_]) -> _Units:
        return _Units(self.dose[rows], self.stratum[rows], self.size[rows], self.there[rows])


def _read(table: pd.DataFrame, experiment: EdgeDropExperiment, name: str) -> pd.DataFrame:
    dropped = [f"dropped_{t}" for t in experiment.edge_types]
    require_columns(table, name, ["viewer_id", *dropped])
    require_ids(table, name, "viewer_id", unique=True)
    allowed = experiment.dose_distribution.index
    for column in dropped:
        other = ~table[column].isin(allowed).to_numpy()
        found = f", {column}={table[column].iloc[int(other.argmax())]}" if other.any() else ""
        doses = f"; allowed: {', '.join(f'{dose:g}' for dose in allowed)}"
        refuse_where(table, name, other, f"{column} is not a dose of the plan", found + doses)
    if not len(table):
        raise TableError(f"{name}: no rows; at least one viewer is needed")
    return table.reset_index(drop=True)


def _check_assigned(frame: pd.DataFrame, record: pd.DataFrame, types: tuple[str, ...]) -> None:
    place = pd.Index(record["viewer_id"]).get_indexer(pd.Index(frame["viewer_id"]))
    never = place < 0
    if never.any():
        raise TableError(
            f"edge_drop: {never.sum():,} of {len(frame):,} viewers were never assigned; first: "
            f"viewer_id={frame['viewer_id'].iloc[int(never.argmax())]!r}. Late joiners are not added; leave them out"
        )
    for column in (f"dropped_{t}" for t in types):
        other = frame[column].to_numpy() != record[column].to_numpy()[place]
        hint = ". The assignment is the record: take the doses from it"
        refuse_where(frame, "edge_drop", other, f"{column} is not the assigned dose", hint)


def _units(record: pd.DataFrame, there: pd.Series, types: tuple[str, ...]) -> _Units:
    dropped = [f"dropped_{t}" for t in types]
    by = "cluster" if "cluster" in record else "viewer_id"
    code, names = codes(record, "edge_drop", by)
    fixed = [*dropped, "stratum"] if "stratum" in record else dropped
    first = np.unique(code, return_index=True)[1]
    for column in fixed:
        values = record[column].to_numpy()
        torn = values != values[first][code]
        if torn.any():
            raise TableError(
                f"edge_drop: {column} is not constant in cluster {names[code[int(torn.argmax())]]!r} and "
                f"{len(np.unique(code[torn])) - 1:,} others"
            )
    stratum = record["stratum"].astype(str).to_numpy() if "stratum" in record else np.full(len(record), "all")
    size = np.bincount(code)
    return _Units(
        record[dropped].to_numpy(dtype=np.float64)[first],
        stratum[first].astype(str),
        size,
        np.bincount(code[there.to_numpy()], minlength=len(size)),
    )


def _groupings(
    experiment: EdgeDropExperiment, dose: Floats
) -> Iterator[tuple[str, list[str], Floats, NDArray[np.intp]]]:
    """Yield edge type, labels of its doses, their planned probabilities, and the code of each unit's dose."""
    planned = experiment.dose_distribution
    labels = [f"{level:g}" for level in planned.index]
    for place, edge_type in enumerate(experiment.edge_types):
        code = np.searchsorted(planned.index.to_numpy(), dose[:, place])
        yield edge_type, labels, planned[edge_type].to_numpy(dtype=np.float64), code
    pattern = experiment.pattern_distribution
    size = len(experiment.edge_types)
    weight = 1 << np.arange(size, dtype=np.int64)
    bits = {
        " + ".join(t for t, on in zip(experiment.edge_types, (key & weight) > 0, strict=True) if on) or "none": key
        for key in np.unique((dose > 0) @ weight)
    }
    # A set of types that the plan never doses together is shown all the same, planned 0.
    pattern = pattern.reindex([*pattern.index, *(name for name in bits if name not in pattern.index)], fill_value=0.0)
    at = {key: pattern.index.get_loc(name) for name, key in bits.items()}
    code = np.array([at[key] for key in ((dose > 0) @ weight).tolist()], dtype=np.intp)
    yield "joint", list(pattern.index), pattern.to_numpy(dtype=np.float64), code


def _compared(
    units: _Units, labels: list[str], chance: Floats, code: NDArray[np.intp], *, with_missing: bool
) -> pd.DataFrame:
    seen = units.there > 0
    observed = np.bincount(code[seen], minlength=len(labels))
    planned = chance * observed.sum()
    found = pd.DataFrame({"dose": labels, "planned": planned, "observed": observed})
    found["p_value"] = counts_p_value(observed, planned)
    if with_missing:
        found["assigned"] = np.bincount(code, units.size, len(labels)).astype(np.int64)
        found["missing"] = np.bincount(code, units.size - units.there, len(labels)).astype(np.int64)
        found["missing_p_value"] = _missing_p_value(units, code)
    return found


def counts_p_value(observed: NDArray[np.int64], planned: Floats) -> float:
    """Test counts of units against the plan by Pearson's chi-square.

    Parameters
    ----------
    observed : int64[k]
    planned : float64[k]
        Of the same sum. Where fewer than 5 are planned, counts are taken together.

    Returns
    -------
    float
        0 where a unit was found where none was planned; NaN where fewer than two counts have 5 planned units.

    Examples
    --------
    >>> round(counts_p_value(np.array([530, 470]), np.array([500.0, 500.0])), 3)
    0.058
    """
    if (observed[planned == 0] > 0).any():
        return 0.0
    small = planned < _LEAST_PLANNED
    o, e = observed[~small].astype(np.float64), planned[~small]
    if planned[small].sum() >= _LEAST_PLANNED:
        o, e = np.append(o, observed[small].sum()), np.append(e, planned[small].sum())
    elif small.any() and len(e):
        place = int(e.argmin())
        o[place] += observed[small].sum()
        e[place] += planned[small].sum()
    if len(e) < 2:
        return float("nan")
    return float(chi2.sf(((o - e) ** 2 / e).sum(), len(e) - 1))


def _missing_p_value(units: _Units, code: NDArray[np.intp]) -> float:
    stratum = np.unique(units.stratum, return_inverse=True)[1]
    n_units = np.bincount(stratum)
    missing = (units.size - units.there).astype(np.float64)
    if not missing.any():
        return 1.0
    rate = np.bincount(stratum, missing) / np.bincount(stratum, units.size)
    excess = missing - rate[stratum] * units.size
    x = np.eye(int(code.max()) + 1)[code]
    x -= np.column_stack([stratum_means(column, stratum)[stratum] for column in x.T])
    square = np.bincount(stratum, excess**2) / np.maximum(n_units - 1, 1)
    score = excess @ x
    spread = (x * square[stratum, None]).T @ x
    degrees = int(np.linalg.matrix_rank(spread, hermitian=True))
    if degrees == 0:
        return float("nan")
    return float(chi2.sf(score @ np.linalg.pinv(spread, rcond=1e-10, hermitian=True) @ score, degrees))
