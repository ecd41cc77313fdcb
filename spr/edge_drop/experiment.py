"""The design of an edge-drop experiment: which viewers lose which share of which edges."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spr.errors import InvalidExperiment, TableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_BINS = 5


@dataclass(frozen=True)
class EdgeDropExperiment:
    """Viewers lose a share of the content of their edges, by a salted hash, and their engagement tells its worth.

    Parameters
    ----------
    edge_types : tuple of str
    salt : str
        The experiment's own: another salt draws another assignment.
    doses : tuple of float, default (0.1, 0.25, 0.5)
        Shares that may be dropped, in (0, 1]; equally likely.
    natural_share : float, default 0.5
        P(dose 0) of each type, at least one half, so that other types mostly stand at their natural state.
    design : {"factorial", "one_arm_per_type"}, default "factorial"
        ``factorial``: each type's dose is drawn independently, so that every viewer informs every type.
        ``one_arm_per_type``: a viewer loses edges of one type at most.

    Raises
    ------
    InvalidExperiment
        When types or doses repeat or are not allowed, or the natural share is below one half.

    Examples
    --------
    >>> experiment = EdgeDropExperiment(("connection", "follow"), salt="2026-q4")
    >>> viewers = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(600)], "sessions_per_week": range(600)})
    >>> assignment = experiment.assign(viewers, stratum="sessions_per_week")
    >>> assignment["dropped_connection"].value_counts().sort_index().to_dict()
    {0.0: 300, 0.1: 100, 0.25: 100, 0.5: 100}
    """

    edge_types: tuple[str, ...]
    salt: str
    doses: tuple[float, ...] = (0.1, 0.25, 0.5)
    natural_share: float = 0.5
    design: Literal["factorial", "one_arm_per_type"] = "factorial"

    def __post_init__(self) -> None:
        object.__setattr__(self, "edge_types", tuple(self.edge_types))
        object.__setattr__(self, "doses", tuple(float(dose) for dose in self.doses))
        if not self.edge_types or len(set(self.edge_types)) < len(self.edge_types):
            raise InvalidExperiment(f"edge_types are {self.edge_types}; allowed: at least one, each once")
        if not self.doses or len(set(self.doses)) < len(self.doses) or not all(0 < dose <= 1 for dose in self.doses):
            raise InvalidExperiment(f"doses are {self.doses}; allowed: shares above 0 and at most 1, each once")
        if not 0.5 <= self.natural_share < 1:
            raise InvalidExperiment(
                f"natural_share is {self.natural_share}; allowed: at least 0.5, so that the other types stand at their "
                "natural state, and below 1"
            )
        if self.design not in ("factorial", "one_arm_per_type"):
            raise InvalidExperiment(f"design is {self.design!r}; allowed: 'factorial', 'one_arm_per_type'")

    @property
    def arms(self) -> pd.DataFrame:
        """The plan: one row per arm that is drawn at once, with the dose of each type and its ``probability``.

        In a factorial the arms are those of one type (``edge_type`` names it), drawn independently for each.
        """
        spread = (1.0 - self.natural_share) / len(self.doses)
        rows: list[dict[str, object]] = []
        for edge_type in self.edge_types if self.design == "factorial" else [None]:
            rows.append({"edge_type": edge_type, "dose": 0.0, "probability": self.natural_share})
            of_type = [edge_type] if edge_type is not None else list(self.edge_types)
            rows += [
                {"edge_type": t, "dose": dose, "probability": spread / len(of_type)}
                for t in of_type
                for dose in self.doses
            ]
        return pd.DataFrame(rows)

    def assign(self, viewers: pd.DataFrame, *, stratum: str | None = None, cluster: str | None = None) -> pd.DataFrame:
        """Give every viewer its doses.

        Parameters
        ----------
        viewers : DataFrame
            viewer_id and the columns that are named; a column ``segment`` is kept.
        stratum : str, optional
            A column known before the experiment, such as activity. Within each of its values the arms' shares are
            exact; numbers with more than ten values are cut at their quintiles.
        cluster : str, optional
            A column: viewers of one cluster get the same doses; see :func:`spr.edge_drop.clusters.ego_clusters`.
            A cluster's stratum is that of its first viewer by id.

        Returns
        -------
        DataFrame
            viewer_id, ``dropped_<edge type>``, and stratum, cluster and segment where there are any; in the order of
            ``viewers``. It is the record of the experiment: whoever joins later is not in it.

        Raises
        ------
        TableError
            When a column is missing, an id is null or there twice, or a stratum or cluster is null.
        InvalidExperiment
            When there are fewer viewers (or clusters) than arms.

        Notes
        -----
        Within a stratum, units are ordered by a salted hash of their id, which no property of theirs can follow, and
        the arms are laid along that order in their shares. A hash of the stratum shifts where the first begins, so that
        each unit's probability of an arm is exactly the arm's share.
        """
        ids = _column(viewers, "viewer_id")
        if ids.duplicated().any():
            again = ids[ids.duplicated()]
            raise TableError(f"viewers: viewer_id is not unique in {len(again):,} rows; first: {again.iloc[0]!r}")
        made: dict[str, object] = {"viewer_id": ids.to_numpy()}
        units = ids if cluster is None else _column(viewers, cluster)
        of_stratum = None if stratum is None else _strata(_column(viewers, stratum), stratum)
        by_id = np.argsort(ids.to_numpy().astype(str), kind="stable")
        first = pd.Index(units.to_numpy()[by_id].astype(str)).duplicated()
        chosen = by_id[~first]
        names = units.to_numpy().astype(str)[chosen]
        strata = np.zeros(len(names), dtype=object) if of_stratum is None else of_stratum.to_numpy()[chosen]
        n_arms = 1 + len(self.doses) * (1 if self.design == "factorial" else len(self.edge_types))
        if len(names) < n_arms:
            raise InvalidExperiment(
                f"{len(names)} viewers or clusters for {n_arms} arms; at least one for each is needed"
            )
        place = pd.Index(names).get_indexer(pd.Index(units.to_numpy().astype(str)))
        for edge_type, dose in self._doses(names, strata).items():
            made[f"dropped_{edge_type}"] = dose[place]
        if of_stratum is not None:
            made["stratum"] = of_stratum.to_numpy()
        if cluster is not None:
            made["cluster"] = units.to_numpy()
        if "segment" in viewers:
            made["segment"] = viewers["segment"].to_numpy()
        return pd.DataFrame(made)

    def _doses(self, names: NDArray[np.str_], strata: NDArray[np.object_]) -> dict[str, Floats]:
        arms = self.arms
        doses = {t: np.zeros(len(names)) for t in self.edge_types}
        if self.design == "factorial":
            for t in self.edge_types:
                of_type = arms[arms["edge_type"] == t]
                arm = self._lay_out(t, names, strata, of_type["probability"].to_numpy())
                doses[t] = of_type["dose"].to_numpy()[arm]
            return doses
        arm = self._lay_out("", names, strata, arms["probability"].to_numpy())
        for t in self.edge_types:
            doses[t] = np.where((arms["edge_type"] == t).to_numpy(), arms["dose"].to_numpy(), 0.0)[arm]
        return doses

    def _lay_out(
        self, purpose: str, names: NDArray[np.str_], strata: NDArray[np.object_], probability: Floats
    ) -> NDArray[np.intp]:
        """Return the arm of each unit: within a stratum in order of the hash, from a start that is hashed, too."""
        hashed = _uniform(self.salt, purpose, names)
        arm = np.empty(len(names), dtype=np.intp)
        for name in pd.unique(strata):
            members = np.flatnonzero(strata == name)
            rank = np.empty(len(members))
            rank[np.argsort(hashed[members], kind="stable")] = np.arange(len(members))
            start = _uniform(self.salt, f"{purpose} start", [str(name)])[0]
            along = (rank + start) / len(members)
            arm[members] = np.minimum(np.searchsorted(probability.cumsum(), along, side="right"), len(probability) - 1)
        return arm


def _uniform(salt: str, purpose: str, names: Iterable[str]) -> Floats:
    # Lengths go first, so that no other split of the same text gives the same digest.
    start = f"{len(salt)}:{salt}{len(purpose)}:{purpose}".encode()
    digests = (hashlib.blake2b(start + name.encode(), digest_size=8, person=b"edge-drop").digest() for name in names)
    words = np.frombuffer(b"".join(digests), dtype=">u8")
    return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _column(viewers: pd.DataFrame, name: str) -> pd.Series:
    if name not in viewers:
        raise TableError(f"viewers: column {name!r} is missing; found: {', '.join(map(str, viewers.columns))}")
    if viewers[name].isna().any():
        raise TableError(f"viewers: {name} is null in {viewers[name].isna().sum():,} of {len(viewers):,} rows")
    return viewers[name]


def _strata(values: pd.Series, name: str) -> pd.Series:
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= 10:
        return values.astype(str)
    cut = pd.qcut(values, _BINS, duplicates="drop")
    return cut.cat.rename_categories([f"{name} {number}" for number in range(1, len(cut.cat.categories) + 1)]).astype(
        str
    )
