"""Did the raw scores of a ranker move? PSI and Kolmogorov-Smirnov against the scores of the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import chdtrc, chdtri, kolmogorov

from calibration.errors import CalibrationError
from calibration.quantiles import QuantileTable, sum_by_group

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

N_CELLS = 10
CUSTOMARY_MODERATE = 0.1
CUSTOMARY_LARGE = 0.25


@dataclass(frozen=True)
class StabilityIndex:
    """Population stability index of scores against a reference, with what noise alone would give.

    Parameters
    ----------
    value : float
        sum over cells of (q - p) * ln(q / p), >= 0, in nats; 0 = the same shares in every cell.
    noise : float
        Without drift the value stays below this with probability 1 - alpha.
    p_value : float
        P(a value at least as large without drift), in [0, 1].
    n : int
        Scores that are there.
    n_effective : float
        Independent rows worth as much as these n rows of repeating viewers, <= n.
    """

    value: float
    noise: float
    p_value: float
    n: int
    n_effective: float

    @property
    def customary(self) -> str:
        """``"stable"`` below 0.1, ``"moderate"`` below 0.25, else ``"large"``: habits, blind to n."""
        if self.value < CUSTOMARY_MODERATE:
            return "stable"
        return "moderate" if self.value < CUSTOMARY_LARGE else "large"


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """Two-sample Kolmogorov-Smirnov test of scores against a reference.

    Parameters
    ----------
    statistic : float
        Largest distance of the two distribution functions at the edges of the reference's bins, in [0, 1].
    p_value : float
        P(a distance at least as large without drift), in [0, 1].
    n : int
        Scores that are there.
    n_effective : float
        Independent rows worth as much as these n rows of repeating viewers, <= n.
    """

    statistic: float
    p_value: float
    n: int
    n_effective: float


def population_stability_index(
    reference: QuantileTable | ArrayLike,
    raw_score: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    n_cells: int = N_CELLS,
    alpha: float = 0.05,
) -> StabilityIndex:
    """Measure how far the shares of scores in the reference's quantile cells moved.

    Parameters
    ----------
    reference : QuantileTable or float[m]
        ``curve.table`` of a ``ResponseCurve``, or the reference scores; NaN is left out.
    raw_score : float[n]
        The later scores of the same ranker; NaN (not scorable) is left out.
    cluster : any[n], optional
        Whose row it is (viewer). Default: every row is independent.
    n_cells : int
        At most so many cells of equal reference mass, >= 2; fewer where reference scores are tied.
    alpha : float
        Level of ``noise``, in (0, 1).

    Returns
    -------
    StabilityIndex

    Raises
    ------
    CalibrationError
        No score, an infinite score, unequal lengths, a null or single cluster, or an option out of range.

    Notes
    -----
    Without drift PSI / (1/n + 1/m) is asymptotically chi-square with (cells - 1) degrees of freedom, m the
    reference mass (Yurdakul 2018, "Statistical properties of population stability index"). Of
    clustered rows it is a sum of weighted chi-squares; mean and variance of the weights are estimated between
    clusters and matched (Rao and Scott 1981, "The analysis of categorical data from complex sample surveys",
    second-order correction). A table does not know its viewers: the reference is taken to be clustered as
    these rows are. One reference row's worth of mass is added to q, in the reference's shares, so that an
    empty cell gives a finite value and equal shares give 0. Below some 20 effective rows a cell the
    approximation is coarse. Scores above the reference's highest one count in the last cell.

    Examples
    --------
    >>> reference = np.arange(1000.0)
    >>> population_stability_index(reference, reference).value
    0.0
    >>> moved = population_stability_index(reference, reference + 200)
    >>> moved.customary, moved.value > moved.noise
    ('large', True)
    """
    _refuse_levels(alpha, n_cells)
    table, scores, clusters = _checked(reference, raw_score, cluster)
    cell_of_bin, p, n_cells = _cells(table, n_cells)
    n = scores.size
    if n_cells < 2:
        return StabilityIndex(0.0, 0.0, 1.0, n, float(n))
    cell = cell_of_bin[table.assign(scores)]
    shares = np.bincount(cell, minlength=n_cells) / n
    # As p + change, not as a quotient: equal shares then give exactly 0.
    q = p + (shares - p) * (n / (n + 1.0))
    value = max(float(np.sum((q - p) * np.log(q / p))), 0.0)

    degrees, inflation, design_effect = float(n_cells - 1), 1.0, 1.0
    if clusters is not None:
        weighted = n * _covariance(cell, shares, clusters) / p
        trace, trace_of_square = float(np.trace(weighted)), float(np.sum(weighted * weighted.T))
        design_effect = max(trace / degrees, 1.0)
        spread = max(degrees * trace_of_square / trace**2, 1.0) if trace > 0 else 1.0
        inflation, degrees = design_effect * spread, degrees / spread
    scale = (1.0 / n + 1.0 / float(table.weight.sum())) * inflation
    return StabilityIndex(
        value=value,
        noise=scale * float(chdtri(degrees, alpha)),
        p_value=float(chdtrc(degrees, value / scale)),
        n=n,
        n_effective=n / design_effect,
    )


def kolmogorov_smirnov(
    reference: QuantileTable | ArrayLike, raw_score: ArrayLike, *, cluster: ArrayLike | None = None
) -> KolmogorovSmirnov:
    """Compare the distribution functions of scores and reference.

    Parameters
    ----------
    reference : QuantileTable or float[m]
        ``curve.table`` of a ``ResponseCurve``, or the reference scores; NaN is left out.
    raw_score : float[n]
        The later scores of the same ranker; NaN (not scorable) is left out.
    cluster : any[n], optional
        Whose row it is (viewer). Default: every row is independent.

    Returns
    -------
    KolmogorovSmirnov

    Raises
    ------
    CalibrationError
        As in ``population_stability_index``.

    Notes
    -----
    A table knows its distribution function exactly just below each bin's ``lower``, so distances are taken
    there: at 1000 bins they miss at most 0.001 of the full statistic, and the p-value, Kolmogorov's limit at
    n * m / (n + m) rows, errs to the safe side; so it does where scores are tied. Of clustered rows n and m
    are divided by the design effect of the distribution function (Kish 1965, "Survey sampling"),
    the largest over the deciles of the reference. Scores above the reference's highest one are in its last bin.

    Examples
    --------
    >>> reference = np.arange(1000.0)
    >>> test = kolmogorov_smirnov(reference, reference + 200)
    >>> round(test.statistic, 3), test.p_value < 0.001
    (0.2, True)
    """
    table, scores, clusters = _checked(reference, raw_score, cluster)
    n, mass = scores.size, float(table.weight.sum())
    below_edge = np.searchsorted(np.sort(scores), table.lower, side="left") / n
    reference_below = np.append(0.0, np.cumsum(table.weight)[:-1]) / mass
    statistic = float(np.max(np.abs(below_edge - reference_below)))
    design_effect = 1.0 if clusters is None else _design_effect_of_distribution(table, scores, clusters)
    rows = 1.0 / ((1.0 / n + 1.0 / mass) * design_effect)
    return KolmogorovSmirnov(statistic, float(kolmogorov(np.sqrt(rows) * statistic)), n, n / design_effect)


def score_figures(
    table: QuantileTable, raw_score: NDArray[np.float64], viewer: NDArray[np.intp], alpha: float
) -> dict[str, float]:
    """Return all figures of score drift, by the names they have in tables.

    Parameters
    ----------
    table : QuantileTable
        Of the fit.
    raw_score : float64[n]
        Finite; possibly none.
    viewer : int[n]
        Code of the viewer.
    alpha : float
        Level of psi_noise.

    Returns
    -------
    dict of str to float
        mean_quantile (0.5 = unmoved), psi, psi_noise, ks, ks_p_value. NaN without a row; the last four also
        with a single viewer, who says nothing about the noise between viewers.

    Examples
    --------
    >>> scores = np.arange(100.0)
    >>> figures = score_figures(QuantileTable.fit(scores), scores, np.arange(100), 0.05)
    >>> figures["mean_quantile"], figures["psi"], figures["ks"]
    (0.5, 0.0, 0.0)
    """
    nothing = dict.fromkeys(("mean_quantile", "psi", "psi_noise", "ks", "ks_p_value"), np.nan)
    if raw_score.size == 0:
        return nothing
    nothing["mean_quantile"] = float(table.at(raw_score).mean())
    if np.all(viewer == viewer[0]):
        return nothing
    stability = population_stability_index(table, raw_score, cluster=viewer, alpha=alpha)
    distance = kolmogorov_smirnov(table, raw_score, cluster=viewer)
    return {
        **nothing,
        "psi": stability.value,
        "psi_noise": stability.noise,
        "ks": distance.statistic,
        "ks_p_value": distance.p_value,
    }


def _design_effect_of_distribution(
    table: QuantileTable, scores: NDArray[np.float64], clusters: NDArray[np.intp]
) -> float:
    cell_of_bin, _, n_cells = _cells(table, N_CELLS)
    cell = cell_of_bin[table.assign(scores)]
    shares = np.bincount(cell, minlength=n_cells) / scores.size
    variance = np.diag(np.cumsum(np.cumsum(_covariance(cell, shares, clusters), axis=0), axis=1))[:-1]
    distribution = np.cumsum(shares)[:-1]
    independent = distribution * (1.0 - distribution) / scores.size
    known = independent > 1e-12
    return max(float(np.max(variance[known] / independent[known], initial=1.0)), 1.0)


def _covariance(cell: NDArray[np.intp], shares: NDArray[np.float64], clusters: NDArray[np.intp]) -> NDArray[np.float64]:
    """Covariance of the shares between clusters, float64[k, k]: the ultimate-cluster estimator of a ratio."""
    k, n = shares.size, cell.size
    n_clusters = int(clusters.max()) + 1
    counts = sum_by_group(clusters * k + cell, np.ones(n), n_clusters * k).reshape(n_clusters, k)
    deviation = counts - counts.sum(axis=1, keepdims=True) * shares
    return np.asarray(deviation.T @ deviation * (n_clusters / (n_clusters - 1.0) / n**2))


def _cells(table: QuantileTable, n_cells: int) -> tuple[NDArray[np.intp], NDArray[np.float64], int]:
    """Join neighbouring bins: the cell of each bin, the share of each cell, their number."""
    wanted = np.minimum((table.quantile * n_cells).astype(np.intp), n_cells - 1)
    _, cell_of_bin = np.unique(wanted, return_inverse=True)
    mass = sum_by_group(cell_of_bin, table.weight)
    return cell_of_bin, mass / table.weight.sum(), mass.size


def cluster_codes(cluster: ArrayLike, name: str = "cluster") -> NDArray[np.intp]:
    """Return clusters as 0, 1, 2, ... in the order of their first row.

    Parameters
    ----------
    cluster : any[n]
        Not null.
    name : str
        To say in errors.

    Returns
    -------
    int[n]

    Raises
    ------
    CalibrationError
        A null, with its row.

    Examples
    --------
    >>> cluster_codes(["b", "a", "b"])
    array([0, 1, 0])
    """
    codes, _ = pd.factorize(pd.Series(np.asarray(cluster)))
    if (codes < 0).any():
        raise CalibrationError(f"{name} must not be null; first: row {int(np.argmax(codes < 0))}")
    return np.asarray(codes, dtype=np.intp)


def _checked(
    reference: QuantileTable | ArrayLike, raw_score: ArrayLike, cluster: ArrayLike | None
) -> tuple[QuantileTable, NDArray[np.float64], NDArray[np.intp] | None]:
    if isinstance(reference, QuantileTable):
        table = reference
    else:
        scores_of_reference = _finite_scores("reference", reference)
        table = QuantileTable.fit(scores_of_reference[~np.isnan(scores_of_reference)])
    scores = _finite_scores("raw_score", raw_score)
    known = ~np.isnan(scores)
    if cluster is None:
        return table, scores[known], None
    codes = cluster_codes(cluster)
    if codes.shape != scores.shape:
        raise CalibrationError(f"cluster has {codes.size:,} values for {scores.size:,} scores; pass one a row")
    codes = cluster_codes(codes[known])
    if codes.max() < 1:
        raise CalibrationError("all scores are of one cluster; noise between clusters needs at least 2")
    return table, scores[known], codes


def _finite_scores(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} does not hold numbers: {error}") from error
    if scores.ndim != 1:
        raise CalibrationError(f"{name} has shape {scores.shape}; it must be one-dimensional")
    if np.isinf(scores).any():
        first = int(np.argmax(np.isinf(scores)))
        raise CalibrationError(f"{name} must be finite, or NaN where not scorable; row {first} has {scores[first]}")
    if np.isnan(scores).all():
        raise CalibrationError(f"{name} has no score among {scores.size:,} rows; it needs at least one")
    return scores


def _refuse_levels(alpha: float, n_cells: int) -> None:
    if not 0.0 < alpha < 1.0:
        raise CalibrationError(f"alpha is {alpha}; it must be inside (0, 1)")
    if n_cells < 2:
        raise CalibrationError(f"n_cells is {n_cells}; it must be at least 2")
