"""What an edge of each type is worth, and the importance factors that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.stats import t

from spr.edge_drop.checks import additivity_p_value, balance_table, refuse_unbalanced, refuse_uneven_strata
from spr.edge_drop.dose_response import covariance_of, fit_dose_response, power_loss
from spr.edge_drop.factors import FactorEstimates, estimate_factors
from spr.edge_drop.table import read_edge_drop
from spr.errors import InvalidExperiment, name_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spr.edge_drop.dose_response import Form
    from spr.edge_drop.table import EdgeDropRows
    from spr.tables import Table

    Floats = NDArray[np.float64]

Per = Literal["downstream_edge", "edge"]


@dataclass(frozen=True)
class EdgeValues:
    """What an experiment says about T edge types.

    Parameters
    ----------
    edge_types : tuple of str
    metric : str
    mean : float64[3, T]
        Loss per viewer and unit of dose at dose 0; edges per viewer; edges with a downstream interaction per viewer
        (NaN where the table does not say).
    covariance : float64[3 T, 3 T]
        Of ``mean``, flattened row by row.
    form : str
        Of the dose-response curve.
    curvature, curvature_error : float
        Exponent of the remaining share, common to all types.
    n_viewers, n_clusters : int
    pre_correlation : float
        Of the metric with what the covariates and strata say of it, at no dose; its square is the part of the variance
        that they take away. NaN without any.
    balance : DataFrame
        See :func:`spr.edge_drop.checks.balance_table`.
    additivity_p_value : float
        See :func:`spr.edge_drop.checks.additivity_p_value`.
    notes : tuple of str
        What was left out.
    """

    edge_types: tuple[str, ...]
    metric: str
    mean: Floats
    covariance: Floats
    form: Form
    curvature: float
    curvature_error: float
    n_viewers: int
    n_clusters: int
    pre_correlation: float
    balance: pd.DataFrame
    additivity_p_value: float
    notes: tuple[str, ...]

    @property
    def degrees_of_freedom(self) -> float:
        """Of the errors: clusters less one; infinite where viewers are by themselves, of which there are many."""
        return float("inf") if self.n_clusters == self.n_viewers else self.n_clusters - 1.0

    def per(self, per: Per) -> tuple[Floats, Floats]:
        """Return the value of an edge of each type, or of an edge that had a downstream interaction.

        Parameters
        ----------
        per : {"downstream_edge", "edge"}

        Returns
        -------
        value : float64[T]
            Loss over the mean number of edges.
        covariance : float64[T, T]
            By the delta method.

        Raises
        ------
        InvalidExperiment
            Per downstream edge, where the table does not say which edges had a downstream interaction, or a type has
            none.
        """
        size, place = len(self.edge_types), {"edge": 1, "downstream_edge": 2}[per]
        loss, count = self.mean[0], self.mean[place]
        for edge_type, number in zip(self.edge_types, count, strict=True):
            if np.isnan(number):
                raise InvalidExperiment(
                    f"edge_drop: column downstream_edges_{edge_type} is missing; give it, or probability_downstream, "
                    "or take per='edge' for a second pass that is trained on edges"
                )
            if number == 0:
                raise InvalidExperiment(
                    f"edge_drop: no edge of type {edge_type!r} had a downstream interaction among {self.n_viewers:,} "
                    "viewers, so that its value per downstream edge is not known; leave the type out by edge_types="
                )
        jacobian = np.zeros((size, 3 * size))
        jacobian[:, :size] = np.diag(1.0 / count)
        jacobian[:, place * size : (place + 1) * size] = np.diag(-loss / count**2)
        with_counts = np.nan_to_num(self.covariance)
        return loss / count, jacobian @ with_counts @ jacobian.T

    @property
    def probability_downstream(self) -> Floats:
        """P(downstream | an edge of the type): downstream edges over edges; NaN where the table does not say."""
        return np.asarray(self.mean[2] / self.mean[1])

    def to_pandas(self, per: Per = "edge", *, alpha: float = 0.05) -> pd.DataFrame:
        """Return the value of an edge of each type, with its standard error and interval.

        Parameters
        ----------
        per : {"edge", "downstream_edge"}, default "edge"
        alpha : float, default 0.05

        Returns
        -------
        DataFrame
            By edge_type: value, standard_error, low, high (in units of the metric over the experiment), edges,
            probability_downstream.
        """
        value, covariance = self.per(per)
        error = np.sqrt(np.diag(covariance))
        half = t.ppf(1 - alpha / 2, self.degrees_of_freedom) * error
        columns = {
            "value": value,
            "standard_error": error,
            "low": value - half,
            "high": value + half,
            "edges_per_viewer": self.mean[1],
            "probability_downstream": self.probability_downstream,
        }
        return pd.DataFrame(columns, index=pd.Index(self.edge_types, name="edge_type"))

    def factors(
        self, per: Per = "downstream_edge", *, reference: str | None = None, alpha: float = 0.05
    ) -> FactorEstimates:
        """Return the importance factors that follow; see :class:`FactorEstimates`.

        Parameters
        ----------
        per : {"downstream_edge", "edge"}, default "downstream_edge"
            What the second pass's probability is of: a downstream interaction, or an edge.
        reference : str, optional
            The type whose factor is 1; default: the one with most edges.
        alpha : float, default 0.05
            1 - level of the intervals.

        Raises
        ------
        InvalidExperiment
            When the reference was not in the experiment.
        """
        if reference is None:
            reference = self.edge_types[int(self.mean[1].argmax())]
        if reference not in self.edge_types:
            raise InvalidExperiment(name_unknown("reference", reference, self.edge_types, "the experiment"))
        return estimate_factors(self, per, reference, alpha)


def estimate_edge_values(
    table: Table,
    metric: str | Mapping[str, float],
    *,
    edge_types: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    form: Form = "concave",
    probability_downstream: Mapping[str, float] | None = None,
) -> EdgeValues:
    """Estimate what an average edge of each type is worth, from an edge-drop experiment.

    Parameters
    ----------
    table : DataFrame or path
        The edge_drop table: see :func:`spr.edge_drop.table.read_edge_drop`.
    metric : str or mapping of str to float
        What is lost when edges are dropped: a column, or several with the weights of their sum.
    edge_types : sequence of str, optional
        Default: all of the table.
    covariates : sequence of str, default ()
        Beyond ``pre_<metric>``, numeric columns from before the assignment.
    form : {"concave", "linear", "quadratic"}, default "concave"
        See :func:`spr.edge_drop.dose_response.fit_dose_response`.
    probability_downstream : mapping of str to float, optional
        P(downstream | response) of each type where it is known from elsewhere, such as the log of the second pass;
        taken as exact. Default: the table's downstream edges over its edges.

    Returns
    -------
    EdgeValues
        The estimand: metric lost per average edge of a type, engaged and dormant alike, when a small share of every
        viewer's edges of the type is dropped and no other type is (slope at dose 0 over edges per viewer).

    Raises
    ------
    TableError
        When the table breaks its contract.
    InvalidExperiment
        When the assignment is related to the past, or types cannot be told apart or valued.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> n = 4000
    >>> pre, edges, dose = rng.poisson(30, n), rng.poisson(10, n), rng.choice([0, 0, 0, 0.1, 0.25, 0.5], n)
    >>> table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "edges_follow": edges, "dropped_follow": dose,
    ...     "downstream_edges_follow": rng.binomial(edges, 0.4), "pre_likes": pre})
    >>> table["likes"] = pre + rng.normal(0, 3, n) - 0.8 * edges * dose
    >>> estimate_edge_values(table, "likes").to_pandas().round(1).loc["follow", ["value", "low", "high"]].to_list()
    [0.8, 0.7, 0.9]
    """
    rows = read_edge_drop(table, metric, edge_types=edge_types, covariates=covariates)
    return values_of(rows, form=form, probability_downstream=probability_downstream)


def values_of(
    rows: EdgeDropRows, *, form: Form = "concave", probability_downstream: Mapping[str, float] | None = None
) -> EdgeValues:
    """Estimate from rows that were read; see :func:`estimate_edge_values`."""
    refuse_uneven_strata(rows)
    balance = balance_table(rows)
    notes = (*rows.notes, *refuse_unbalanced(balance, rows.n))
    fit = fit_dose_response(rows, form)
    edges = rows.edges.mean(axis=0)
    downstream = _downstream(rows, probability_downstream)
    counts = np.hstack([rows.edges - edges, downstream - downstream.mean(axis=0)])
    mean = np.stack([fit.loss, edges, downstream.mean(axis=0)])
    if fit.form != form:
        notes = (*notes, "no type has two doses above 0: the loss is taken as a straight line up to the dose there is")
    covariance = covariance_of(np.hstack([fit.influence, counts]), rows.cluster)
    size = len(rows.edge_types)
    covariance[:size, :size] += np.outer(fit.prior_error, fit.prior_error)
    explained = fit.residual.var()
    lost = rows.dropped if fit.form == "quadratic" else power_loss(rows.dropped, fit.curvature)
    at_no_dose = (rows.outcome + lost @ fit.loss).var()
    adjusted = rows.covariates.shape[1] > 0 or rows.stratum is not None
    return EdgeValues(
        rows.edge_types,
        rows.metric,
        mean,
        covariance,
        fit.form,
        fit.curvature,
        fit.curvature_error,
        rows.n,
        rows.n if rows.cluster is None else len(np.unique(rows.cluster)),
        float(np.sqrt(max(1.0 - explained / at_no_dose, 0.0))) if adjusted and at_no_dose > 0 else float("nan"),
        balance,
        additivity_p_value(rows, fit),
        notes,
    )


def _downstream(rows: EdgeDropRows, probability: Mapping[str, float] | None) -> Floats:
    if probability is None:
        return np.full_like(rows.edges, np.nan) if rows.downstream_edges is None else rows.downstream_edges
    for edge_type in rows.edge_types:
        if edge_type not in probability:
            raise InvalidExperiment(name_unknown("edge type", edge_type, probability, "probability_downstream"))
        if not 0 < probability[edge_type] <= 1:
            raise InvalidExperiment(
                f"probability_downstream of {edge_type!r} is {probability[edge_type]}; allowed: above 0, at most 1"
            )
    return np.asarray(rows.edges * np.array([probability[t] for t in rows.edge_types]))
