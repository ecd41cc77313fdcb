"""Which edges an arm of an experiment forms more of, and which less: by type and in total, per member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from spr.errors import ConfigError, TableError, name_unknown
from spr.multiplicity import holm
from spr.tables import read_impressions, require_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.config import Config
    from spr.tables import Table

    Floats = NDArray[np.float64]

TOTAL: Final = "total"
LEAST_MEMBERS: Final = 10  # of each arm that formed an edge of a type, before its change has an interval


def formed_edges(impressions: Table, config: Config) -> pd.DataFrame:
    """Return the edges that the responses of a log formed.

    Parameters
    ----------
    impressions : DataFrame or path
        The impressions table, of any policy.
    config : Config
        Names the edge types, and when a response is mature.

    Returns
    -------
    DataFrame
        The ``edges`` table: viewer_id, edge_type, entity_type, entity_id, at; a row for each mature response above 0.

    Raises
    ------
    TableError
        When the table breaks its contract.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> log = World(60, seed=1).impressions(100)
    >>> edges = formed_edges(log, spr.Config.named("network"))
    >>> len(edges) == log["response"].sum(), sorted(edges["edge_type"].unique())
    (np.True_, ['connection', 'follow', 'subscribe'])
    """
    rows = read_impressions(impressions, config)
    formed = rows[rows["response"] > 0]
    edge_type = formed["entity_type"].map({name: kind.edge_type for name, kind in config.entity_types.items()})
    columns = ["viewer_id", "edge_type", "entity_type", "entity_id", "at"]
    return formed.assign(edge_type=edge_type)[columns].reset_index(drop=True)


def edge_change(
    control: pd.DataFrame,
    treatment: pd.DataFrame,
    *,
    members: tuple[int, int],
    by: Literal["edge_type", "entity_type"] = "edge_type",
    level: float = 0.95,
) -> pd.DataFrame:
    r"""Compare the edges that the members of two arms formed.

    Parameters
    ----------
    control, treatment : DataFrame
        Tables of edges formed in each arm, a row each: ``viewer_id`` and the column ``by``; see :func:`formed_edges`.
    members : (int, int)
        Members assigned to control and to treatment, with those who formed no edge.
    by : {"edge_type", "entity_type"}, default "edge_type"
        What counts as one type.
    level : float, default 0.95
        Confidence level, in (0, 1).

    Returns
    -------
    DataFrame
        Indexed by type, then ``total``: ``control`` and ``treatment``, edges a member; ``change``, treatment over
        control less 1; ``low``, ``high``, ``p_value``; ``adjusted``, by Holm over the types (of the total: its
        p-value). A change from no edge is null; so are intervals and p-values where fewer than 10 members of an arm
        formed an edge of the type.

    Raises
    ------
    TableError
        A missing column or a null; an arm with edges of more viewers than it has members; a viewer in both arms, since
        then the arms are not members: compare those by request.
    ConfigError
        A level outside (0, 1), an unknown ``by``, a type that is called "total".

    Notes
    -----
    A member is the unit: edges of one member depend on each other. With means :math:`m` and variances :math:`s^2` over
    n members, :math:`\log(m_1 / m_0)` has the variance :math:`s_1^2 / (n_1 m_1^2) + s_0^2 / (n_0 m_0^2)` by the delta
    method, arms being independent (Deng, Knoblich and Lu 2018, "Applying the delta method in metric analytics", KDD).
    The interval is symmetric on the log scale, so that no change falls below -100 %.

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> def arm(name, rate):
    ...     formed = rng.poisson(rate, (2000, 2))
    ...     viewer, kind = np.repeat(np.indices(formed.shape).reshape(2, -1), formed.ravel(), axis=1)
    ...     return pd.DataFrame({"viewer_id": [f"{name}{v}" for v in viewer],
    ...                          "edge_type": np.array(["connection", "follow"])[kind]})
    >>> found = edge_change(arm("c", [1.0, 2.0]), arm("t", [1.3, 1.8]), members=(2000, 2000))
    >>> found[["change", "low", "high"]].round(2)
                change   low  high
    edge_type
    connection    0.31  0.24  0.39
    follow       -0.07 -0.11 -0.03
    total         0.06  0.02  0.10
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"edge_change: level is {level}; allowed: between 0 and 1, without them")
    if by not in ("edge_type", "entity_type"):
        raise ConfigError(f"edge_change: {name_unknown('by', by, ('edge_type', 'entity_type'))}")
    arms = {"control": control, "treatment": treatment}
    for (name, table), n in zip(arms.items(), members, strict=True):
        _check(name, table, n, by)
    both = np.intersect1d(control["viewer_id"].unique(), treatment["viewer_id"].unique())
    if len(both):
        raise TableError(
            f"{len(both):,} viewers have edges in both arms; first: {both[0]!r}. Arms are of members; where requests "
            "were assigned, a viewer's edges cannot be compared so"
        )
    types = sorted({*control[by], *treatment[by]})
    if TOTAL in types:
        raise ConfigError(f"edge_change: a type cannot be called {TOTAL!r}, which is the name of the last row")
    moments = [_moments(table, types, n, by) for table, n in zip(arms.values(), members, strict=True)]
    (mean_control, error_control, few_control), (mean_treatment, error_treatment, few_treatment) = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(mean_control > 0, mean_treatment / mean_control, np.nan)
        log_ratio = np.log(ratio)
    error = np.where(few_control | few_treatment, np.nan, np.hypot(error_control, error_treatment))
    half = ndtri(0.5 + level / 2) * error
    p_value = np.full(len(ratio), np.nan)
    told = error > 0
    p_value[told] = 2 * ndtr(-np.abs(log_ratio[told] / error[told]))
    columns = {
        "control": mean_control,
        "treatment": mean_treatment,
        "change": ratio - 1,
        "low": ratio * np.exp(-half) - 1,
        "high": ratio * np.exp(half) - 1,
        "p_value": p_value,
        "adjusted": np.append(holm(p_value[:-1]), p_value[-1]),
    }
    return pd.DataFrame(columns, index=pd.Index([*types, TOTAL], name=by))


def _check(name: str, table: pd.DataFrame, members: int, by: str) -> None:
    require_columns(table, name, ["viewer_id", by])
    for column in ("viewer_id", by):
        null = table[column].isna().to_numpy()
        if null.any():
            raise TableError(f"{name}: {column} is null in {null.sum():,} of {len(table):,} rows")
    there = table["viewer_id"].nunique()
    if members < max(there, 2):
        raise TableError(f"{name}: {members:,} members, and edges of {there:,} viewers; count those without edges, too")


def _moments(table: pd.DataFrame, types: list[str], members: int, by: str) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return the mean edges a member of each type and in total, relative standard errors, and where few formed any."""
    viewer = pd.factorize(table["viewer_id"])[0]
    kind = pd.Index(types).get_indexer(pd.Index(table[by]))
    formed = np.zeros((int(viewer.max(initial=-1)) + 1, len(types) + 1))
    np.add.at(formed, (viewer, kind), 1.0)
    formed[:, -1] = formed[:, :-1].sum(axis=1)
    mean = formed.sum(axis=0) / members  # members without an edge are not in the table and add nothing
    variance = ((formed**2).sum(axis=0) - members * mean**2) / (members - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(variance / members) / mean
    return mean, error, (formed > 0).sum(axis=0) < LEAST_MEMBERS
