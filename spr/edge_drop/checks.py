"""What must hold before an estimate is believed: assignment unrelated to the past, losses that add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import f, norm

from spr.edge_drop.dose_response import covariance_of
from spr.errors import InvalidExperiment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.edge_drop.dose_response import DoseResponse
    from spr.edge_drop.table import EdgeDropRows

    Floats = NDArray[np.float64]

_REFUSE, _REMARK = 1e-6, 1e-3  # a refusal by chance would lose an experiment


def balance_table(rows: EdgeDropRows) -> pd.DataFrame:
    """Test whether the doses are related to what was there before the assignment.

    Parameters
    ----------
    rows : EdgeDropRows

    Returns
    -------
    DataFrame
        By ``variable`` (the pre-period, and the edges of each type): statistic, degrees of freedom, p_value of a robust
        Wald test that no dose explains it, strata allowed for.

    Examples
    --------
    >>> from spr.edge_drop.table import read_edge_drop
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"viewer_id": np.arange(500).astype(str), "edges_follow": rng.poisson(9, 500),
    ...     "dropped_follow": rng.choice([0.0, 0.5], 500), "likes": range(500), "pre_likes": rng.poisson(4, 500)})
    >>> balance_table(read_edge_drop(table, "likes"))["p_value"].round(2).to_list()
    [0.68, 0.45]
    """
    variables = {"the pre-period": rows.covariates[:, 0]} if rows.has_pre else {}
    variables |= {f"edges_{t}": np.log1p(edges) for t, edges in zip(rows.edge_types, rows.edges.T, strict=True)}
    stratum = np.zeros(rows.n, dtype=np.int64) if rows.stratum is None else rows.stratum
    dose = np.column_stack([dose - stratum_means(dose, stratum)[stratum] for dose in rows.dropped.T])
    found = {}
    for name, values in variables.items():
        free = values - stratum_means(values, stratum)[stratum]
        if np.allclose(free, 0):
            continue
        moments = dose * free[:, None]
        mean, spread = moments.mean(axis=0), covariance_of(moments - moments.mean(axis=0), rows.cluster)
        statistic = float(mean @ np.linalg.pinv(spread, hermitian=True) @ mean)
        df = int(np.linalg.matrix_rank(spread))
        units = rows.n if rows.cluster is None else int(rows.cluster.max()) + 1
        # Hotelling's T^2: a chi-square where there are many viewers, an honest F where there are few clusters.
        p_value = float(f.sf(statistic * (units - df) / (df * (units - 1)), df, units - df))
        found[name] = {"statistic": statistic, "df": df, "p_value": p_value}
    table = pd.DataFrame.from_dict(found, orient="index", columns=["statistic", "df", "p_value"])
    return table.rename_axis("variable")


def stratum_means(values: Floats, stratum: NDArray[np.int64]) -> Floats:
    """Return the mean of values in each stratum.

    Parameters
    ----------
    values : float64[n]
    stratum : int64[n]
        Codes from 0, none of them empty.

    Returns
    -------
    float64[strata]
    """
    return np.asarray(np.bincount(stratum, values) / np.bincount(stratum))


def refuse_unbalanced(balance: pd.DataFrame, n_viewers: int) -> tuple[str, ...]:
    """Refuse an assignment that is related to the past; remark on one that may be.

    Parameters
    ----------
    balance : DataFrame
        Of :func:`balance_table`.
    n_viewers : int

    Returns
    -------
    tuple of str
        A sentence where a p-value is below 0.001 over the number of variables.

    Raises
    ------
    InvalidExperiment
        When a p-value is below one in a million.
    """
    if balance.empty:
        return ()
    worst, p_value = balance["p_value"].idxmin(), float(balance["p_value"].min())
    found = f"the doses are related to {worst} (p = {p_value:.1g} in {n_viewers:,} viewers)"
    if p_value < _REFUSE:
        raise InvalidExperiment(
            f"the assignment is not random: {found}; was it made before the experiment, by a salted hash, and are all "
            "assigned viewers in the table?"
        )
    return (found,) if p_value < _REMARK / len(balance) else ()


def refuse_uneven_strata(rows: EdgeDropRows) -> None:
    """Refuse strata in which the doses have different shares: one regression would weigh them by their doses' variance.

    Raises
    ------
    InvalidExperiment
        When the mean dose of a type differs between strata beyond one in a million.
    """
    if rows.stratum is None or rows.stratum.max() == 0:
        return
    size = np.bincount(rows.stratum)
    for edge_type, dose in zip(rows.edge_types, rows.dropped.T, strict=True):
        mean = stratum_means(dose, rows.stratum)
        within = ((dose - mean[rows.stratum]) ** 2).sum() / max(rows.n - len(size), 1)
        between = (size * (mean - dose.mean()) ** 2).sum() / (len(size) - 1)
        if within > 0 and f.sf(between / within, len(size) - 1, rows.n - len(size)) < _REFUSE:
            raise InvalidExperiment(
                f"the doses of {edge_type} differ between strata (means {mean.min():.3f} to {mean.max():.3f}), so that "
                "one regression is no average over viewers; estimate such strata apart"
            )


def additivity_p_value(rows: EdgeDropRows, fit: DoseResponse) -> float:
    """Test whether the losses of the edge types add up, as the regression of all doses together supposes.

    Parameters
    ----------
    rows : EdgeDropRows
    fit : DoseResponse
        Of these rows.

    Returns
    -------
    float
        p-value of Tukey's one degree of freedom for non-additivity (1949, Biometrics 5), with robust errors: the square
        of the fitted total loss adds nothing. NaN with one edge type. A small value says that the slope at dose 0 of
        all types is mixed with the losses at the doses that the other types had; raise the share at dose 0.
    """
    if rows.dropped.shape[1] < 2:
        return float("nan")
    loss = fit.loss * rows.dropped
    total = loss.sum(axis=1)
    together = total**2 - (loss**2).sum(axis=1)
    free = together - fit.design @ np.linalg.lstsq(fit.design, together, rcond=None)[0]
    score = free * fit.residual
    error = np.sqrt(covariance_of(score[:, None], rows.cluster)[0, 0]) * rows.n
    return float(2 * norm.sf(abs(score.sum()) / error)) if error > 0 else float("nan")
