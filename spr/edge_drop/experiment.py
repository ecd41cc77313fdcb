"""The design of an edge-drop experiment: who loses which share of the edges of which type."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd

from spr.edge_drop.columns import refuse_where, require_columns, require_ids
from spr.errors import ConfigError, TableError, name_unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Design = Literal["factorial", "one_arm_per_type"]

_DESIGNS: Final = ("factorial", "one_arm_per_type")


@dataclass(frozen=True)
class EdgeDropExperiment:
    """An experiment that hides a share of the content of a viewer's edges, type by type.

    Parameters
    ----------
    edge_types : tuple of str
        The edge types that are dropped.
    salt : str
        Of this experiment: another salt draws an independent assignment.
    doses : tuple of float, default (0.1, 0.25, 0.5)
        Shares of the edges that are hidden, each above 0 and at most 1. Dose 0 is always there, by ``natural_share``.
    natural_share : float, default 0.5
        Probability of dose 0, at least one half and below 1, so that the other edge types of a dosed viewer mostly
        sit at their natural state. In a factorial, of each type by itself; with one arm per type, of all types
        together. The doses share the rest equally.
    design : {"factorial", "one_arm_per_type"}, default "factorial"
        ``factorial``: the dose of each type is independent of the others, so that every viewer tells about every type;
        it supposes that the losses add up (the estimate tests it). ``one_arm_per_type``: a viewer is natural, or
        exactly one type is dosed.

    Raises
    ------
    ConfigError
        When a type or dose is repeated or none is given, a dose is 0 or outside [0, 1], or ``natural_share`` is below
        one half.

    Examples
    --------
    >>> experiment = EdgeDropExperiment(("connection", "follow"), salt="spring")
    >>> viewers = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(600)], "sessions": range(600)})
    >>> assignment = experiment.assign(viewers, stratum="sessions")
    >>> assignment.head(2)
      viewer_id  dropped_connection  dropped_follow           stratum
    0        v0                 ...             ...  sessions 0 to 119
    1        v1                 ...             ...  sessions 0 to 119
    >>> assignment["dropped_follow"].value_counts().sort_index().to_list()
    [300, 100, 100, 100]
    """

    edge_types: tuple[str, ...]
    salt: str
    doses: tuple[float, ...] = (0.1, 0.25, 0.5)
    natural_share: float = 0.5
    design: Design = "factorial"

    def __post_init__(self) -> None:
        _check_distinct("edge_types", self.edge_types, "('connection', 'follow')")
        _check_distinct("doses", self.doses, "(0.1, 0.25, 0.5)")
        for edge_type in self.edge_types:
            if not isinstance(edge_type, str) or not edge_type:
                raise ConfigError(f"edge_types holds {edge_type!r}; allowed: names, such as 'connection'")
        for dose in self.doses:
            if dose == 0:
                raise ConfigError("doses lists 0; leave it out: natural_share is the probability of dose 0")
            if not 0 < dose <= 1:
                raise ConfigError(f"doses holds {dose}; allowed: shares of the edges, above 0 and at most 1")
        if not 0.5 <= self.natural_share < 1:
            raise ConfigError(
                f"natural_share is {self.natural_share}; allowed: 0.5 to below 1, so that the types that are not "
                "looked at mostly sit at their natural state"
            )
        if self.design not in _DESIGNS:
            raise ConfigError(name_unknown("design", str(self.design), _DESIGNS, "EdgeDropExperiment"))

    @property
    def dose_distribution(self) -> pd.DataFrame:
        """Probability of each dose, dose 0 first, for each edge type: DataFrame, index dose, a column per type.

        Examples
        --------
        >>> EdgeDropExperiment(("connection", "follow"), "s", (0.2, 0.5)).dose_distribution
              connection  follow
        dose
        0.0         0.50    0.50
        0.2         0.25    0.25
        0.5         0.25    0.25
        """
        share = self._share_of_a_dose
        column = [1.0 - share * len(self.doses), *[share] * len(self.doses)]
        index = pd.Index([0.0, *sorted(self.doses)], name="dose", dtype=np.float64)
        return pd.DataFrame(dict.fromkeys(self.edge_types, column), index=index)

    @property
    def pattern_distribution(self) -> pd.Series:
        """Probability of each set of dosed types, none first: Series indexed by their names, joined by `` + ``.

        Examples
        --------
        >>> EdgeDropExperiment(("connection", "follow"), "s", design="one_arm_per_type").pattern_distribution
        dosed
        none          0.50
        connection    0.25
        follow        0.25
        Name: probability, dtype: float64
        """
        n_types, natural = len(self.edge_types), self.natural_share
        most = 1 if self.design == "one_arm_per_type" else n_types
        found = {}
        for size in range(most + 1):
            for dosed in itertools.combinations(self.edge_types, size):
                chance = natural ** (n_types - size) * (1 - natural) ** size
                if self.design == "one_arm_per_type":
                    chance = natural if size == 0 else (1 - natural) / n_types
                found[" + ".join(dosed) or "none"] = chance
        return pd.Series(found, name="probability").rename_axis("dosed")

    def assign(
        self,
        viewers: pd.DataFrame,
        *,
        stratum: str | None = None,
        cluster: str | None = None,
        segment: str | None = None,
        stratum_bins: int = 5,
    ) -> pd.DataFrame:
        """Assign every viewer a dose of every edge type.

        Parameters
        ----------
        viewers : DataFrame
            One row per viewer: ``viewer_id`` (text, never a number) and the columns that the next arguments name.
        stratum : str, optional
            A column known before the experiment; the doses are balanced within its values. A number with more than
            ``stratum_bins`` distinct values (activity) is cut at its quantiles, equal numbers together.
        cluster : str, optional
            A column of text: viewers of one cluster get the same doses (see
            :func:`spr.edge_drop.clusters.ego_clusters`). The stratum of a cluster is that of its mean where it is a
            number, else its viewers must agree on it.
        segment : str, optional
            A column that is only carried over, for factors by segment.
        stratum_bins : int, default 5

        Returns
        -------
        DataFrame
            ``viewer_id``, ``dropped_<t>`` for each edge type, and ``stratum``, ``cluster``, ``segment`` where asked
            for; rows as in ``viewers``, with an index from 0.

        Raises
        ------
        TableError
            When a column is missing, an id is null, repeated or a number, a stratum is null or not constant in a
            cluster, or there are fewer viewers (or clusters) than doses.
        ConfigError
            When ``stratum_bins`` is below 2.

        Notes
        -----
        Within a stratum, the m units (viewers, or whole clusters) are ordered by a salted hash, and unit i = 0 .. m - 1
        takes the dose at (i + u) / m of the planned cumulative distribution, where u in [0, 1) is hashed from salt,
        edge type and stratum (systematic sampling with a random start). Over salts, every unit's probability of every
        dose is exactly the plan's, however small its stratum; and in each stratum the count of every dose differs
        from the plan by less than one unit. In a factorial each type has an order and a start of its own.

        The returned table is the record of the experiment. The quotas need all units at once, so that a viewer who
        joins later is not added, and an assignment is not made anew from a changed list of viewers: the same viewers
        would get other doses. Store it, and read doses from it.
        """
        columns = {"stratum": stratum, "cluster": cluster, "segment": segment}
        wanted = [column for column in columns.values() if column is not None]
        require_columns(viewers, "viewers", ["viewer_id", *wanted])
        require_ids(viewers, "viewers", "viewer_id", unique=True)
        if stratum_bins < 2:
            raise ConfigError(f"stratum_bins is {stratum_bins}; allowed: 2 or more")
        if cluster is not None:
            require_ids(viewers, "viewers", cluster, unique=False)
        if stratum is not None:
            hint = ". A stratum is known of every viewer: fill it before"
            refuse_where(viewers, "viewers", viewers[stratum].isna().to_numpy(), f"{stratum} is null", hint)

        unit = viewers["viewer_id" if cluster is None else cluster].to_numpy(dtype=object)
        # Units in the order of their ids: neither doses nor strata may depend on the order of the rows.
        units, unit_of = np.unique(unit.astype(str), return_inverse=True)
        n_cells = len(self._cells)
        if len(units) < n_cells:
            what = "viewers" if cluster is None else "clusters"
            raise TableError(f"viewers: {len(units):,} {what} for {n_cells} doses; at least one for each is needed")
        label = None if stratum is None else _strata(viewers, stratum, units, unit_of, stratum_bins)
        of_unit = self._doses_of(units, np.full(len(units), "") if label is None else label)

        assignment = {"viewer_id": viewers["viewer_id"].to_numpy(dtype=object)}
        assignment |= {f"dropped_{t}": of_unit[unit_of, place] for place, t in enumerate(self.edge_types)}
        if label is not None:
            assignment["stratum"] = label[unit_of]
        for name in ("cluster", "segment"):
            column = columns[name]
            if column is not None:
                assignment[name] = viewers[column].to_numpy()
        return pd.DataFrame(assignment)

    @property
    def _share_of_a_dose(self) -> float:
        arms = len(self.edge_types) if self.design == "one_arm_per_type" else 1
        return (1.0 - self.natural_share) / (len(self.doses) * arms)

    @property
    def _cells(self) -> Floats:
        """Doses that are drawn together: float64[cells, 1] of a factorial, one row of doses of all types otherwise."""
        doses = np.sort(np.asarray(self.doses, dtype=np.float64))
        if self.design == "factorial":
            return np.concatenate([[0.0], doses])[:, None]
        size = len(self.edge_types)
        return np.vstack([np.zeros((1, size)), *(dose * np.eye(size)[[t]] for t in range(size) for dose in doses)])

    def _doses_of(self, units: NDArray[np.str_], label: NDArray[np.object_ | np.str_]) -> Floats:
        """Draw float64[units, types]; a factorial once for each type, else once for all types."""
        cells = self._cells
        cumulative = self.natural_share + self._share_of_a_dose * np.arange(len(cells))
        cumulative[-1] = 1.0
        names, stratum = np.unique(label.astype(str), return_inverse=True)
        size = np.bincount(stratum)
        before = np.cumsum(size) - size
        drawn = []
        for purpose in self.edge_types if self.design == "factorial" else ("one_arm_per_type",):
            key = np.array([_hashed(self.salt, purpose, b"edge_drop_unit", one) for one in units], dtype=np.uint64)
            start = np.array([_hashed(self.salt, purpose, b"edge_drop_start", name) for name in names], dtype=np.uint64)
            order = np.lexsort((key, stratum))
            place = np.empty(len(units))
            place[order] = np.arange(len(units)) - np.repeat(before, size)
            point = (place + (start >> np.uint64(11))[stratum] * 2.0**-53) / size[stratum]
            drawn.append(cells[np.minimum(np.searchsorted(cumulative, point, side="right"), len(cells) - 1)])
        return np.hstack(drawn)


def _hashed(salt: str, purpose: str, person: bytes, text: str) -> int:
    # Lengths go first, so that no other split of the same text gives the same digest.
    message = f"{len(salt)}:{salt}{len(purpose)}:{purpose}{text}"
    return int.from_bytes(hashlib.blake2b(message.encode(), digest_size=8, person=person).digest(), "big")


def _check_distinct(name: str, values: tuple[object, ...], example: str) -> None:
    if not isinstance(values, tuple) or not values:
        raise ConfigError(f"{name} is {values!r}; allowed: a tuple of at least one, such as {example}")
    again = [value for place, value in enumerate(values) if value in values[:place]]
    if again:
        raise ConfigError(f"{name} holds {again[0]!r} twice; allowed: each once")


def _strata(
    viewers: pd.DataFrame, column: str, units: NDArray[np.str_], unit_of: NDArray[np.intp], bins: int
) -> NDArray[np.object_]:
    """Label the stratum of each unit: bins of a number with many values, else the values themselves."""
    values = viewers[column]
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if numeric and values.nunique() > bins:
        # Sorted by viewer, so that a cluster's mean is the same sum in the same order, whatever the order of rows.
        order = np.argsort(viewers["viewer_id"].to_numpy(dtype=object), kind="stable")
        amount = values.to_numpy(dtype=np.float64)
        if not np.isfinite(amount).all():
            raise TableError(f"viewers: {column} is infinite in {(~np.isfinite(amount)).sum():,} rows")
        mean = np.bincount(unit_of[order], amount[order], len(units)) / np.bincount(unit_of, minlength=len(units))
        found = pd.Series(pd.qcut(mean, bins, duplicates="drop", labels=False))
        ends = pd.Series(mean).groupby(found).agg(["min", "max"])
        named = {code: f"{column} {low:.6g} to {high:.6g}" for code, low, high in ends.itertuples()}
        return found.map(named).to_numpy(dtype=object)
    text = values.astype(str).to_numpy(dtype=object)
    pairs = pd.DataFrame({"unit": unit_of, "stratum": text}).drop_duplicates()
    torn = pairs["unit"].duplicated()
    if torn.any():
        again = pairs["unit"][torn]
        raise TableError(
            f"viewers: {column} is not constant in {again.nunique():,} of {len(units):,} clusters; first: "
            f"{str(units[again.iloc[0]])!r}. Stratify clusters by what their viewers share, or by a number"
        )
    return pairs.set_index("unit")["stratum"].sort_index().to_numpy(dtype=object)
