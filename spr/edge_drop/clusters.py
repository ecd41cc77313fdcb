"""Interference between viewers: clusters that are assigned together, and a check of what neighbours' doses do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import sparse

from spr.edge_drop.experiment import require_columns, require_ids
from spr.errors import ConfigError, TableError, name_unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_PEOPLE: Final = "people"


def ego_clusters(edges: pd.DataFrame, *, salt: str, max_size: int = 100) -> pd.DataFrame:
    """Group people into clusters of one person and its neighbours.

    Parameters
    ----------
    edges : DataFrame
        ``viewer_id``, ``entity_id`` and, optional, ``entity_type``, of which only ``people`` is taken. An edge joins
        its two people whichever of them made it; an edge to oneself is ignored.
    salt : str
        Another salt draws other clusters.
    max_size : int, default 100
        People in a cluster at most, >= 1.

    Returns
    -------
    DataFrame
        ``viewer_id`` and ``cluster`` (the viewer_id of its ego), one row for everyone with an edge, in the order of
        ids. Viewers without one are not here: each is a cluster of its own,
        ``viewers.merge(clusters, how="left")["cluster"].fillna(viewers["viewer_id"])``.

    Raises
    ------
    TableError
        When a column is missing or an id is null or a number.
    ConfigError
        When ``max_size`` is below 1.

    Notes
    -----
    People in the order of a salted hash become egos, unless they are in a cluster already; each takes its neighbours
    that are in none, in the order of the hash, up to ``max_size``. After ego-cluster randomisation (Saint-Jacques,
    Varshney, Simpson and Xu, 2019, "Using ego-clusters to measure network effects at LinkedIn", arXiv 1903.08755),
    without its choice of a few egos: everyone is in a cluster, so that late egos are left with few neighbours.

    Examples
    --------
    >>> edges = pd.DataFrame({"viewer_id": ["a", "a", "d"], "entity_id": ["b", "c", "e"]})
    >>> ego_clusters(edges, salt="spring")["cluster"].to_list()
    ['c', 'b', 'c', 'e', 'e']
    """
    if max_size < 1:
        raise ConfigError(f"max_size is {max_size}; allowed: 1 or more people in a cluster")
    people, graph = _graph(edges)
    keys = [
        hashlib.blake2b(f"{len(salt)}:{salt}{one}".encode(), digest_size=16, person=b"ego").digest() for one in people
    ]
    order = sorted(range(len(people)), key=keys.__getitem__)
    rank = np.empty(len(people), dtype=np.int64)
    rank[order] = np.arange(len(people))
    ego = np.full(len(people), -1, dtype=np.int64)
    for person in order:
        if ego[person] >= 0:
            continue
        ego[person] = person
        around = graph.indices[graph.indptr[person] : graph.indptr[person + 1]]
        free = around[ego[around] < 0]
        ego[free[np.argsort(rank[free])][: max_size - 1]] = person
    return pd.DataFrame({"viewer_id": people, "cluster": people[ego]})


def spillover_check(
    table: pd.DataFrame, edges: pd.DataFrame, metric: str, edge_type: str, *, alpha: float = 0.05
) -> pd.DataFrame:
    r"""Estimate what the doses of a viewer's neighbours do to the viewer.

    Parameters
    ----------
    table : DataFrame
        The edge_drop table: ``viewer_id``, ``dropped_<t>``, ``<metric>`` (null: left out); optional ``pre_<metric>``
        and ``cluster``.
    edges : DataFrame
        Edges between people, as of :func:`ego_clusters`, from before the assignment.
    metric : str
    edge_type : str
        Whose doses the neighbours are exposed by.
    alpha : float, default 0.05
        1 - level of the intervals.

    Returns
    -------
    DataFrame
        Index ``term``: ``own dose`` (of ``edge_type``) and ``neighbours' dose`` (the exposure). Columns ``coefficient``
        (change of the metric per unit of dose), ``standard_error``, ``low``, ``high``, ``p_value``, ``n_viewers``
        (used), ``n_without_neighbours`` (in the table, with no neighbour in it: their exposure is null and they are
        left out), ``n_clusters``.

    Raises
    ------
    TableError
        When a column is missing, an id is null, repeated or a number, or a dose or a pre-period is null or infinite.
    ConfigError
        When fewer than 20 viewers or two clusters have a neighbour in the experiment, the exposure does not vary, or
        follows from the own doses (as where whole components of the graph were assigned together), or ``alpha`` is
        outside (0, 1).

    Notes
    -----
    The metric is regressed on the doses of the viewer's own edges of every type, the exposure, and ``pre_<metric>``;
    the exposure is the mean ``dropped_<edge_type>`` of the neighbours *that are in the experiment*. Given the graph
    it is random, and with viewers assigned independently its mean is the planned mean dose for everyone, whatever the
    number of neighbours: so it is unrelated to how connected or active a viewer is, and its coefficient is the effect
    of raising the dose of the neighbours in the experiment from 0 to 1, averaged over viewers with the weight of the
    variance of their exposure (about 1 over the number of neighbours). Not identified: effects of people outside the
    experiment, of second neighbours, of different effects of different neighbours, and the total effect of dropping
    the edges of all. Where clusters were assigned, the exposure is mostly the own dose, and only neighbours in other
    clusters tell them apart.

    Viewers who share neighbours share exposure, so that errors are robust to dependence within ``cluster``, or,
    without that column, within ego clusters of the graph; dependence between clusters is not allowed for.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> names = np.array([f"v{i}" for i in range(3000)])
    >>> edges = pd.DataFrame({"viewer_id": names, "entity_id": np.roll(names, 1)})
    >>> dose = rng.choice([0.0, 0.5], 3000)
    >>> likes = 9 - 4 * dose - 1 * (np.roll(dose, 1) + np.roll(dose, -1)) + rng.normal(0, 1, 3000)
    >>> table = pd.DataFrame({"viewer_id": names, "dropped_connection": dose, "likes": likes})
    >>> spillover_check(table, edges, "likes", "connection")["coefficient"].round(1).to_dict()
    {'own dose': -4.0, "neighbours' dose": -2.0}
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha}; allowed: above 0 and below 1")
    dropped = [str(name) for name in table.columns if str(name).startswith("dropped_")]
    own = f"dropped_{edge_type}"
    if own not in dropped:
        known = [name.removeprefix("dropped_") for name in dropped]
        raise TableError(f"edge_drop: {name_unknown('edge type', edge_type, known)}")
    require_columns(table, "edge_drop", ["viewer_id", metric])
    require_ids(table, "edge_drop", "viewer_id", unique=True)
    adjusting = [name for name in (f"pre_{metric}",) if name in table]
    numbers = _numbers(table, [own, *(name for name in dropped if name != own), *adjusting])
    outcome = table[metric].to_numpy(dtype=np.float64, na_value=np.nan)

    people, graph = _graph(edges)
    exposure = _exposure(people, graph, table["viewer_id"], numbers[:, 0])
    alone = np.isnan(exposure)
    used = ~alone & np.isfinite(outcome)
    group = _groups(table, edges)[used]
    n_clusters = len(np.unique(group))
    if used.sum() < 20 or n_clusters < 2:
        raise ConfigError(
            f"{used.sum():,} viewers in {n_clusters:,} clusters have a {metric} and a neighbour in the experiment; at "
            "least 20 in two clusters are needed"
        )
    own_doses = numbers[used]
    # A type that nobody in these rows lost has no coefficient.
    varies = np.ptp(own_doses, axis=0) > 0
    without = np.column_stack([np.ones(len(own_doses)), own_doses[:, varies]])
    free = exposure[used] - without @ np.linalg.lstsq(without, exposure[used], rcond=None)[0]
    if not varies[0] or np.sqrt((free**2).mean()) < 1e-6:
        raise ConfigError(
            f"the exposure to {edge_type!r} cannot be told apart from the own doses among {used.sum():,} viewers: it "
            "does not vary, or everyone's neighbours have the same dose as they have; assign smaller clusters"
        )
    design = np.column_stack([without, exposure[used]])
    fit = sm.OLS(outcome[used], design).fit(cov_type="cluster", cov_kwds={"groups": group}, use_t=True)
    return _terms(fit, [1, design.shape[1] - 1], alpha).assign(
        n_viewers=int(used.sum()), n_without_neighbours=int(alone.sum()), n_clusters=n_clusters
    )


def _graph(edges: pd.DataFrame) -> tuple[NDArray[np.object_], sparse.csr_array]:
    """Return the people with an edge, sorted, and who is joined to whom: symmetric, 0 or 1, no one to itself."""
    require_columns(edges, "edges", ["viewer_id", "entity_id"])
    if "entity_type" in edges:
        edges = edges[edges["entity_type"] == _PEOPLE]
    for column in ("viewer_id", "entity_id"):
        require_ids(edges, "edges", column, unique=False)
    ends = edges[["viewer_id", "entity_id"]].to_numpy(dtype=object)
    people, code = np.unique(ends, return_inverse=True)
    a, b = code.reshape(ends.shape).T
    a, b = a[a != b], b[a != b]
    size = len(people)
    joined = sparse.coo_array((np.ones(2 * len(a)), (np.append(a, b), np.append(b, a))), shape=(size, size)).tocsr()
    joined.data[:] = 1.0
    return people, joined


def _exposure(people: NDArray[np.object_], graph: sparse.csr_array, viewers: pd.Series, dose: Floats) -> Floats:
    """Return the mean dose of each viewer's neighbours that are viewers too; NaN without any."""
    place = pd.Index(viewers).get_indexer(pd.Index(people))
    taking_part = place >= 0
    total = graph @ np.where(taking_part, dose[place], 0.0)
    count = graph @ taking_part.astype(np.float64)
    mean = np.full(len(people), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    exposure = np.full(len(dose), np.nan)
    exposure[place[taking_part]] = mean[taking_part]
    return exposure


def _groups(table: pd.DataFrame, edges: pd.DataFrame) -> NDArray[np.intp]:
    if "cluster" in table:
        if table["cluster"].isna().any():
            raise TableError(f"edge_drop: cluster is null in {table['cluster'].isna().sum():,} of {len(table):,} rows")
        return np.asarray(pd.factorize(table["cluster"])[0])
    clusters = ego_clusters(edges, salt="spillover_check").set_index("viewer_id")["cluster"]
    return np.asarray(pd.factorize(table["viewer_id"].map(clusters).fillna(table["viewer_id"]))[0])


def _numbers(table: pd.DataFrame, columns: list[str]) -> Floats:
    numbers = table[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    for column, wrong in zip(columns, ~np.isfinite(numbers).T, strict=True):
        if wrong.any():
            first = table["viewer_id"].iloc[int(wrong.argmax())]
            raise TableError(
                f"edge_drop: {column} is null or infinite in {wrong.sum():,} of {len(table):,} rows; first: "
                f"viewer_id={first!r}"
            )
    return numbers


def _terms(fit: Any, places: list[int], alpha: float) -> pd.DataFrame:
    interval = fit.conf_int(alpha)[places]
    return pd.DataFrame(
        {
            "coefficient": fit.params[places],
            "standard_error": fit.bse[places],
            "low": interval[:, 0],
            "high": interval[:, 1],
            "p_value": fit.pvalues[places],
        },
        index=pd.Index(["own dose", "neighbours' dose"], name="term"),
    )
