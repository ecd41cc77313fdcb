"""How many viewers an edge-drop experiment needs for factors of a wanted precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.special import ndtr, ndtri

from spr.edge_drop.columns import require_columns
from spr.edge_drop.dose_response import PRIOR_CURVATURE, PRIOR_SD, power_loss, power_loss_slope
from spr.errors import ConfigError, TableError, name_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from spr.edge_drop.experiment import EdgeDropExperiment

    Floats = NDArray[np.float64]

_MOST_VIEWERS = 10**12


@dataclass(frozen=True, eq=False)
class PilotFigures:
    """What is supposed of the viewers before the experiment.

    Parameters
    ----------
    loss : mapping of str to float
        By edge type, metric lost per viewer and unit of dose at dose 0, > 0: value per edge times edges per viewer.
    downstream_edges : mapping of str to float
        By edge type, edges with a downstream interaction per viewer, > 0.
    residual_sd : float
        Standard deviation between viewers of the metric, after adjustment for the pre-period; > 0. For viewers
        assigned in clusters, times the root of the design effect 1 + (viewers per cluster - 1) * correlation.
    count_covariance : DataFrame, optional
        Covariance between viewers of downstream edges, each over its mean; index and columns are edge types. None: the
        means are taken as exact.

    Raises
    ------
    ConfigError
        When a figure is not positive, or the mappings name different edge types.

    Examples
    --------
    >>> PilotFigures({"connection": 2.0}, {"connection": 8.0}, residual_sd=6.0).residual_sd
    6.0
    """

    loss: Mapping[str, float]
    downstream_edges: Mapping[str, float]
    residual_sd: float
    count_covariance: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        for edge_type in self.loss:
            if edge_type not in self.downstream_edges:
                raise ConfigError(name_unknown("edge type", edge_type, self.downstream_edges, "downstream_edges"))
        for name, figures in (("loss", self.loss), ("downstream_edges", self.downstream_edges)):
            for edge_type, figure in figures.items():
                _check_positive(f"{name} of {edge_type!r}", figure)
        _check_positive("residual_sd", self.residual_sd)
        if self.count_covariance is not None:
            for edge_type in self.loss:
                if edge_type not in self.count_covariance.index or edge_type not in self.count_covariance:
                    known = map(str, self.count_covariance.index)
                    raise ConfigError(name_unknown("edge type", edge_type, known, "count_covariance"))

    @classmethod
    def of_table(cls, table: pd.DataFrame, metric: str, value_per_edge: Mapping[str, float]) -> PilotFigures:
        """Read the figures from a period without any drop.

        Parameters
        ----------
        table : DataFrame
            One row per viewer, as an edge_drop table: ``<metric>``, ``edges_<t>`` and ``downstream_edges_<t>`` for each
            edge type; optional ``pre_<metric>`` and ``stratum``, which the metric is adjusted for. The period must be
            as long as the experiment will be.
        metric : str
        value_per_edge : mapping of str to float
            By edge type, the supposed loss of the metric per edge, > 0: what one would be sorry not to find.

        Returns
        -------
        PilotFigures
            With ``count_covariance``.

        Raises
        ------
        TableError
            When a column is missing or holds a null or an infinite number, or something was dropped.
        ConfigError
            When a value is not positive, or a type has no downstream edges.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> pre, edges = rng.poisson(20.0, 1000), rng.poisson(10.0, 1000)
        >>> table = pd.DataFrame({"likes": pre + rng.normal(0, 3, 1000), "pre_likes": pre, "edges_follow": edges,
        ...     "downstream_edges_follow": rng.binomial(edges, 0.4)})
        >>> figures = PilotFigures.of_table(table, "likes", {"follow": 0.2})
        >>> round(figures.residual_sd, 1), round(figures.loss["follow"], 1), round(figures.downstream_edges["follow"])
        (3.0, 2.0, 4)
        """
        edges = [f"edges_{t}" for t in value_per_edge]
        downstream = [f"downstream_edges_{t}" for t in value_per_edge]
        require_columns(table, "pilot", [metric, *edges, *downstream])
        adjusting = [name for name in (f"pre_{metric}",) if name in table]
        numbers = table[[metric, *edges, *downstream, *adjusting]].astype(np.float64)
        for column, values in numbers.items():
            wrong = ~np.isfinite(values.to_numpy())
            if wrong.any():
                raise TableError(f"pilot: {column} is null or infinite in {wrong.sum():,} of {len(table):,} rows")
        for column in (str(name) for name in table.columns if str(name).startswith("dropped_")):
            if (table[column] != 0).any():
                raise TableError(
                    f"pilot: {column} is not 0 in {(table[column] != 0).sum():,} of {len(table):,} rows; take a period "
                    "in which nothing was dropped"
                )
        design = np.column_stack([np.ones(len(table)), numbers[adjusting]])
        if "stratum" in table:
            design = np.hstack([design, pd.get_dummies(table["stratum"], dtype=np.float64).to_numpy()[:, 1:]])
        if len(table) <= design.shape[1]:
            raise TableError(f"pilot: {len(table):,} viewers; more than {design.shape[1]} are needed")
        residual_sd = float(np.sqrt(sm.OLS(numbers[metric].to_numpy(), design).fit().mse_resid))
        mean = numbers[downstream].mean()
        for column in (name for name in downstream if mean[name] <= 0):
            raise ConfigError(f"pilot: {column} is 0 for every viewer; leave the edge type out of value_per_edge")
        types = list(value_per_edge)
        relative = np.atleast_2d(np.cov((numbers[downstream] / mean).to_numpy().T))
        return cls(
            {t: value * float(numbers[f"edges_{t}"].mean()) for t, value in value_per_edge.items()},
            {t: float(mean[f"downstream_edges_{t}"]) for t in types},
            residual_sd,
            pd.DataFrame(relative, index=types, columns=types),
        )


@dataclass(frozen=True, eq=False)
class ExperimentPlan:
    """What an experiment of a given size will tell; made by :func:`plan_experiment`.

    Parameters
    ----------
    experiment : EdgeDropExperiment
    pilot : PilotFigures
    reference : str
        The edge type whose factor is 1.
    precision, power, alpha, curvature, curvature_sd : float
        As in :func:`plan_experiment`.
    """

    experiment: EdgeDropExperiment
    pilot: PilotFigures
    reference: str
    precision: float
    power: float
    alpha: float
    curvature: float
    curvature_sd: float

    @property
    def viewers(self) -> int:
        """How many viewers it takes: every factor as precise as wanted, and its interval bounded with ``power``."""
        precise = self.by_type["viewers_for_precision"].max()
        return max(int(precise), self._least(lambda n: self._bounded(n) >= self.power))

    @property
    def by_type(self) -> pd.DataFrame:
        """What each factor takes, by edge type without the reference.

        Columns ``factor`` (as supposed), ``viewers_for_precision``, ``viewers_to_tell_from_1`` (with ``power``; null
        where the supposed factor is 1).
        """
        rows = {
            self._types[place]: {
                "factor": self._factor[place],
                "viewers_for_precision": self._viewers_for_precision(place),
                "viewers_to_tell_from_1": self._viewers_to_tell_from_1(place),
            }
            for place in self._others
        }
        counts = {"viewers_for_precision": "Int64", "viewers_to_tell_from_1": "Int64"}
        return pd.DataFrame.from_dict(rows, orient="index").astype(counts).rename_axis("edge_type")

    def at(self, viewers: Sequence[int]) -> pd.DataFrame:
        """Tell what experiments of these sizes would find.

        Parameters
        ----------
        viewers : sequence of int
            Viewers in the whole experiment, each >= 2.

        Returns
        -------
        DataFrame
            One row per size and edge type other than the reference: ``viewers``, ``edge_type``, ``factor`` (as
            supposed), ``se_log_factor``, ``half_width`` (the interval reaches to factor * (1 + half_width)),
            ``power_against_1`` (P(the interval excludes 1)), ``bounded`` (P(the reference's loss is told apart from 0):
            with less, Fieller's interval is unbounded).

        Raises
        ------
        ConfigError
            When a size is below 2.
        """
        rows = []
        for n in viewers:
            if n < 2:
                raise ConfigError(f"viewers holds {n}; allowed: 2 or more")
            error, half, power = self._se_log_factor(n), self._half_width(n), self._power_against_1(n)
            rows += [
                {
                    "viewers": n,
                    "edge_type": self._types[place],
                    "factor": self._factor[place],
                    "se_log_factor": error[place],
                    "half_width": half[place],
                    "power_against_1": power[place],
                    "bounded": self._bounded(n),
                }
                for place in self._others
            ]
        return pd.DataFrame(rows)

    @property
    def table(self) -> pd.DataFrame:
        """:meth:`at` an eighth to four times the required viewers."""
        required = self.viewers
        return self.at([max(required * share // 8, 2) for share in (1, 2, 4, 8, 16, 32)])

    @property
    def _types(self) -> tuple[str, ...]:
        return self.experiment.edge_types

    @property
    def _others(self) -> list[int]:
        return [place for place, t in enumerate(self._types) if t != self.reference]

    @property
    def _loss(self) -> Floats:
        return np.array([self.pilot.loss[t] for t in self._types], dtype=np.float64)

    @property
    def _factor(self) -> Floats:
        value = self._loss / [self.pilot.downstream_edges[t] for t in self._types]
        return np.asarray(value / value[self._types.index(self.reference)])

    @property
    def _z(self) -> float:
        return float(ndtri(1.0 - self.alpha / 2.0))

    def _loss_covariance(self, n: int) -> Floats:
        """Return float64[types, types]: of the estimated losses, curvature estimated or known."""
        shape, turned, cross = _curve_moments(self.experiment, self.curvature)
        loss, size = self._loss, len(self._types)
        weight = n / self.pilot.residual_sd**2
        if self.curvature_sd == 0:
            return np.asarray(np.linalg.inv(weight * shape))
        information = np.empty((size + 1, size + 1))
        information[:size, :size] = weight * shape
        information[:size, size] = information[size, :size] = weight * cross @ loss
        information[size, size] = weight * loss @ turned @ loss + self.curvature_sd**-2
        return np.asarray(np.linalg.inv(information)[:size, :size])

    def _se_log_factor(self, n: int) -> Floats:
        covariance = self._loss_covariance(n) / np.outer(self._loss, self._loss)
        if self.pilot.count_covariance is not None:
            covariance = covariance + self.pilot.count_covariance.loc[[*self._types], [*self._types]].to_numpy() / n
        reference = self._types.index(self.reference)
        variance = np.diag(covariance) - 2 * covariance[reference] + covariance[reference, reference]
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))

    def _half_width(self, n: int) -> Floats:
        return np.asarray(np.expm1(np.minimum(self._z * self._se_log_factor(n), 700.0)))

    def _power_against_1(self, n: int) -> Floats:
        error = self._se_log_factor(n)
        error[self._types.index(self.reference)] = np.inf
        distance = np.log(self._factor) / error
        return np.asarray(ndtr(distance - self._z) + ndtr(-distance - self._z))

    def _bounded(self, n: int) -> float:
        place = self._types.index(self.reference)
        distance = self._loss[place] / np.sqrt(self._loss_covariance(n)[place, place])
        # Served factors are decided by intervals that hold for all ratios at once.
        z = float(ndtri(1.0 - self.alpha / 2.0 / max(len(self._types) - 1, 1)))
        return float(ndtr(distance - z) + ndtr(-distance - z))

    def _viewers_for_precision(self, place: int) -> int:
        return self._least(lambda n: bool(self._half_width(n)[place] <= self.precision))

    def _viewers_to_tell_from_1(self, place: int) -> int | None:
        if abs(np.log(self._factor[place])) < 1e-9:
            return None
        return self._least(lambda n: bool(self._power_against_1(n)[place] >= self.power))

    def _least(self, enough: Callable[[int], bool]) -> int:
        """Return the smallest number of viewers that is enough; more never is less."""
        high = 2
        while not enough(high):
            high *= 2
            if high > _MOST_VIEWERS:
                raise ConfigError(
                    f"more than {_MOST_VIEWERS:,} viewers would be needed: the losses are small beside the residual "
                    "standard deviation; take a metric closer to the edges, or less precision"
                )
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


def plan_experiment(
    experiment: EdgeDropExperiment,
    pilot: PilotFigures,
    *,
    reference: str,
    precision: float = 0.2,
    power: float = 0.8,
    alpha: float = 0.05,
    curvature: float = PRIOR_CURVATURE,
    curvature_sd: float = PRIOR_SD,
) -> ExperimentPlan:
    r"""Plan the size of an experiment for a wanted precision of the factors per downstream edge.

    Parameters
    ----------
    experiment : EdgeDropExperiment
        The design.
    pilot : PilotFigures
        Of at least the experiment's edge types.
    reference : str
        The edge type whose factor is 1.
    precision : float, default 0.2
        The 1 - alpha interval of each factor is to reach at most from factor / (1 + precision) to
        factor * (1 + precision).
    power : float, default 0.8
        Wanted P(the intervals are bounded), in (0, 1), and of ``viewers_to_tell_from_1``.
    alpha : float, default 0.05
        1 - level of the interval of each factor by itself.
    curvature : float, default 0.5
        Supposed exponent of the remaining share, in (0, 1]; 1 is a straight line.
    curvature_sd : float, default 0.5
        How well it is known apart from the experiment (the estimate's prior); 0: it is not estimated, as in a linear
        analysis.

    Returns
    -------
    ExperimentPlan

    Raises
    ------
    ConfigError
        When an argument is outside its range, or the reference or a type's figures are missing.

    Notes
    -----
    The loss at doses :math:`d` is :math:`\sum_t \tau_t \phi_\gamma(d_t)`, :math:`\phi_\gamma(d) = (1 - (1-d)^\gamma) /
    \gamma`. With residual variance :math:`\sigma^2` the information of n viewers on :math:`(\tau, \gamma)` is
    :math:`n / \sigma^2` times the covariance, over the planned doses, of :math:`\phi_\gamma(d_t)` and
    :math:`\sum_t \tau_t \partial_\gamma \phi_\gamma(d_t)`; the errors of log factors
    :math:`\log (\tau_t / m_t) - \log (\tau_r / m_r)`, with :math:`m` the mean numbers of downstream edges, follow by
    the delta method. In a factorial :math:`\gamma` moves all losses by the same factor: it costs the ratios nothing,
    only the reference its own error. The losses are supposed to be small beside the residual standard deviation,
    so that how they differ between viewers adds no variance worth planning for.

    Examples
    --------
    >>> from spr.edge_drop.experiment import EdgeDropExperiment
    >>> experiment = EdgeDropExperiment(("connection", "follow"), "spring")
    >>> pilot = PilotFigures({"connection": 3.0, "follow": 2.0}, {"connection": 6.0, "follow": 5.0}, residual_sd=5.0)
    >>> plan = plan_experiment(experiment, pilot, reference="connection")
    >>> plan.viewers
    22927
    >>> plan.at([10_000, 40_000]).round(2)[["viewers", "edge_type", "half_width", "power_against_1"]]
       viewers edge_type  half_width  power_against_1
    0    10000    follow        0.32             0.35
    1    40000    follow        0.15             0.89
    """
    known = [t for t in experiment.edge_types if t in pilot.loss]
    for edge_type in experiment.edge_types:
        if edge_type not in pilot.loss:
            raise ConfigError(name_unknown("edge type", edge_type, pilot.loss, "the pilot's figures"))
    if reference not in known:
        raise ConfigError(name_unknown("reference", reference, known, "the experiment"))
    if len(known) < 2:
        raise ConfigError("the experiment has one edge type; at least two are needed for a factor")
    _check_positive("precision", precision)
    for name, share in (("power", power), ("alpha", alpha)):
        if not 0 < share < 1:
            raise ConfigError(f"{name} is {share}; allowed: above 0 and below 1")
    if not 0 < curvature <= 1:
        raise ConfigError(f"curvature is {curvature}; allowed: above 0, at most 1 (a straight line)")
    if not 0 <= curvature_sd < np.inf:
        raise ConfigError(f"curvature_sd is {curvature_sd}; allowed: 0 or more")
    return ExperimentPlan(experiment, pilot, reference, precision, power, alpha, curvature, curvature_sd)


def _curve_moments(experiment: EdgeDropExperiment, curvature: float) -> tuple[Floats, Floats, Floats]:
    """Return the planned covariances [types, types] of phi, of its derivative in the curvature, and between them."""
    planned = experiment.dose_distribution
    dose, chance = planned.index.to_numpy(dtype=np.float64), planned.iloc[:, 0].to_numpy(dtype=np.float64)
    phi, turned = power_loss(dose, curvature), power_loss_slope(dose, curvature)
    size = len(experiment.edge_types)

    def covariance(a: Floats, b: Floats) -> Floats:
        # All types have the same doses. In a factorial they are independent; in one arm per type never two at once.
        together = 0.0 if experiment.design == "factorial" else -float((chance @ a) * (chance @ b))
        own = float(chance @ (a * b) - (chance @ a) * (chance @ b))
        return np.full((size, size), together) + (own - together) * np.eye(size)

    return covariance(phi, phi), covariance(turned, turned), covariance(phi, turned)


def _check_positive(name: str, figure: float) -> None:
    if not 0 < figure < np.inf:
        raise ConfigError(f"{name} is {figure}; allowed: a number above 0")
