"""Interference between viewers: clusters that are assigned together, and a check of what neighbours' doses do."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import sparse
from scipy.special import ndtr, ndtri

from spr.edge_drop.columns import codes, numbers, refuse_where, require_columns, require_dosed, require_ids
from spr.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_NAME: Final = "edge_drop"
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
        left out), ``n_units`` (viewers, or clusters, whose doses were drawn).

    Raises
    ------
    TableError
        When a column is missing, an id is null, repeated or a number, or a dose or a pre-period is null or infinite.
    ConfigError
        When fewer than 20 viewers or two units have a neighbour in the experiment, the exposure does not vary, or
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

    Viewers who share a neighbour share a part of their exposure, and neighbours are alike in what they do, so that no
    partition of the viewers makes independent clusters. What is independent are the doses: with :math:`W` the means
    over neighbours, :math:`u` the residuals and :math:`A` the inverse Gram matrix, the error of a coefficient is the
    sum over viewers j of :math:`(d_j - \bar d) (A_{own} u_j + A_{exposure} (W' u)_j)`. The standard error adds up the
    squares of these terms, summed over what was assigned together (viewer, or ``cluster``), and so is robust to any
    dependence of the residuals; where a few people are the neighbours of many it is a little too small (in our tests
    by 5 to 8 %). After Adão, Kolesár and Morales (2019), "Shift-share designs: theory and inference", Quarterly Journal
    of Economics 134.

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
    others = [t for t in require_dosed(table, _NAME, (edge_type,)) if t != edge_type]
    require_columns(table, _NAME, ["viewer_id", metric])
    require_ids(table, _NAME, "viewer_id", unique=True)
    adjusting = [name for name in (f"pre_{metric}",) if name in table]
    known = _finite(table, [*(f"dropped_{t}" for t in (edge_type, *others)), *adjusting])
    outcome = table[metric].to_numpy(dtype=np.float64, na_value=np.nan)

    unit = codes(table, _NAME, "cluster")[0] if "cluster" in table else np.arange(len(table))
    mean_of_neighbours = _neighbours(table["viewer_id"], edges)
    alone = np.diff(mean_of_neighbours.indptr) == 0
    used = ~alone & np.isfinite(outcome)
    n_units = len(np.unique(unit[used]))
    if used.sum() < 20 or n_units < 2:
        raise ConfigError(
            f"{used.sum():,} viewers in {n_units:,} units have a {metric} and a neighbour in the experiment; at least "
            "20 in two units are needed"
        )
    exposed_to = mean_of_neighbours[used]
    exposure = exposed_to @ known[:, 0]
    own_doses = known[used]
    # A type that nobody in these rows lost has no coefficient.
    varies = np.ptp(own_doses, axis=0) > 0
    without = np.column_stack([np.ones(len(own_doses)), own_doses[:, varies]])
    free = exposure - without @ np.linalg.lstsq(without, exposure, rcond=None)[0]
    if not varies[0] or np.sqrt((free**2).mean()) < 1e-6:
        raise ConfigError(
            f"the exposure to {edge_type!r} cannot be told apart from the own doses among {used.sum():,} viewers: it "
            "does not vary, or everyone's neighbours have the same dose as they have; assign smaller clusters"
        )
    fit = sm.OLS(outcome[used], np.column_stack([without, exposure])).fit()
    terms = [1, without.shape[1]]
    residual = np.zeros(len(table))
    residual[used] = fit.resid
    around = np.column_stack([residual, exposed_to.T @ fit.resid])
    influence = (known[:, :1] - known[:, 0].mean()) * (around @ fit.normalized_cov_params[np.ix_(terms, terms)])
    by_unit = np.stack([np.bincount(unit, column) for column in influence.T])
    error = np.sqrt((by_unit**2).sum(axis=1) * fit.nobs / fit.df_resid * n_units / (n_units - 1))
    coefficient, half = fit.params[terms], ndtri(1 - alpha / 2) * error
    return pd.DataFrame(
        {
            "coefficient": coefficient,
            "standard_error": error,
            "low": coefficient - half,
            "high": coefficient + half,
            "p_value": 2 * ndtr(-np.abs(coefficient) / error),
            "n_viewers": int(used.sum()),
            "n_without_neighbours": int(alone.sum()),
            "n_units": n_units,
        },
        index=pd.Index(["own dose", "neighbours' dose"], name="term"),
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


def _neighbours(viewers: pd.Series, edges: pd.DataFrame) -> sparse.csr_array:
    """Return the matrix [n, n] of means over each viewer's neighbours in the table; a row is empty without any."""
    people, graph = _graph(edges)
    place = pd.Index(viewers).get_indexer(pd.Index(people))
    joined = graph.tocoo()
    both = (place[joined.row] >= 0) & (place[joined.col] >= 0)
    rows, columns = place[joined.row[both]], place[joined.col[both]]
    count = np.bincount(rows, minlength=len(viewers))
    return sparse.coo_array((1.0 / count[rows], (rows, columns)), shape=(len(viewers), len(viewers))).tocsr()


def _finite(table: pd.DataFrame, columns: list[str]) -> Floats:
    found = np.column_stack([numbers(table, _NAME, column) for column in columns])
    for column, wrong in zip(columns, ~np.isfinite(found).T, strict=True):
        refuse_where(table, _NAME, wrong, f"{column} is null or infinite")
    return found
