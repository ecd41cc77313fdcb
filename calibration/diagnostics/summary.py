"""Every diagnostic in one table: per entity type, ranker version, segment, ..."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from calibration.columns import numbers, require_columns
from calibration.diagnostics.clusters import Estimate
from calibration.diagnostics.ece import debiased_calibration_error
from calibration.diagnostics.moments import calibration_test
from calibration.diagnostics.regression import calibration_in_the_large, calibration_line
from calibration.diagnostics.rows import PredictionRows
from calibration.diagnostics.smooth_ece import smooth_calibration_error
from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_UNKNOWN = Estimate(np.nan, np.nan, np.nan)
_ESTIMATES = ("in_the_large", "slope", "intercept", "ece", "smooth_ece")


def calibration_summary(
    table: pd.DataFrame,
    by: str | Sequence[str] = (),
    *,
    prediction_column: str = "expected_response",
    response_column: str = "response",
    cluster_column: str | None = "viewer_id",
    weight_column: str | None = None,
    response: str = "binary",
    n_bins: int = 10,
) -> pd.DataFrame:
    """Diagnose the calibration of each group of rows.

    Parameters
    ----------
    table : DataFrame
        One row per prediction; index and order do not matter.
    by : str or sequence of str
        Columns that make the groups, such as entity_type and ranker_version; null is a group of its own. Default: all
        rows are one group.
    prediction_column : str
        Null = not scorable: left out and counted.
    response_column : str
        Null = its window is still open: left out and counted.
    cluster_column : str or None
        Rows of one viewer may depend on each other. None = all rows are independent.
    weight_column : str or None
        Frequency weights >= 0; a weight of 0 is left out and counted. None = 1 each.
    response : {"binary", "count", "continuous"}
        As in ``reliability_table``.
    n_bins : int
        Of the calibration error; the test has its own.

    Returns
    -------
    DataFrame
        One row per group, sorted: the columns of ``by``; n (sum of weights); n_left_out (rows); n_clusters;
        base_rate (mean response) and mean_prediction; then each with _low and _high (95 %): in_the_large
        (``calibration_in_the_large``), slope and intercept (``calibration_line``), ece
        (``debiased_calibration_error``), smooth_ece (``smooth_calibration_error``, binary only); p_value
        (``calibration_test``). NaN where a group has too few rows or responses for a figure.

    Raises
    ------
    CalibrationError
        A missing column, a value out of range with its row, a null viewer, or an unknown response.

    Notes
    -----
    p-values are per group: with many groups some are small by chance alone.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.uniform(0.1, 0.3, 6000)
    >>> table = pd.DataFrame(
    ...     {
    ...         "entity_type": ["event", "people"] * 3000,
    ...         "viewer_id": np.arange(6000) // 6,
    ...         "expected_response": truth * np.tile([1.0, 2.0], 3000),
    ...         "response": (rng.random(6000) < truth).astype(float),
    ...     }
    ... )
    >>> calibration_summary(table, by=["entity_type"])[["entity_type", "n", "in_the_large", "p_value"]].round(1)
      entity_type       n  in_the_large  p_value
    0       event  3000.0           1.0      0.5
    1      people  3000.0           0.5      0.0
    """
    if isinstance(by, str):
        by = (by,)
    named = (*by, prediction_column, response_column, cluster_column, weight_column)
    require_columns(table, tuple(column for column in named if column is not None), "table")
    prediction, label = numbers(table, prediction_column, "table"), numbers(table, response_column, "table")
    weight = np.ones(len(table)) if weight_column is None else numbers(table, weight_column, "table")
    viewers = None if cluster_column is None else table[cluster_column].reset_index(drop=True)
    if len(table) == 0:
        raise CalibrationError("the table has no rows")
    usable = ~np.isnan(prediction) & ~np.isnan(label) & (weight > 0)
    if usable.any():
        # Once for the whole table, so that errors name its own rows; later checks see rows that passed.
        PredictionRows.checked(prediction, label, weight, viewers, response)

    group: NDArray[np.intp] = np.zeros(len(table), np.intp)
    if by:
        ranked = table.groupby(list(by), dropna=False, observed=True, sort=True).ngroup()
        group = np.asarray(ranked, dtype=np.intp)
    records = []
    for rows in _positions(group):
        record: dict[str, object] = {column: table[column].iloc[rows[0]] for column in by}
        kept = rows[usable[rows]]
        record["n"] = float(weight[kept].sum())
        record["n_left_out"] = rows.size - kept.size
        cluster = None if viewers is None else viewers.iloc[kept]
        records.append(record | _figures(prediction[kept], label[kept], weight[kept], cluster, response, n_bins))
    return pd.DataFrame(records)


def _positions(group: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _figures(
    prediction: Floats, label: Floats, weight: Floats, cluster: pd.Series[Any] | None, response: str, n_bins: int
) -> dict[str, float]:
    n_clusters = float(weight.sum()) if cluster is None else float(cluster.nunique())
    figures = {"n_clusters": n_clusters, "base_rate": np.nan, "mean_prediction": np.nan}
    estimates = dict.fromkeys(_ESTIMATES, _UNKNOWN)
    p_value = np.nan
    if prediction.size:
        figures["base_rate"] = float(np.average(label, weights=weight))
        figures["mean_prediction"] = float(np.average(prediction, weights=weight))
        rows = (prediction, label)
        options: dict[str, Any] = {"sample_weight": weight, "cluster": cluster}
        # Rows are in range: what these may still refuse is a group too small or too uniform for the figure.
        with suppress(CalibrationError):
            estimates["in_the_large"] = calibration_in_the_large(*rows, **options, response=response)
        with suppress(CalibrationError):
            line = calibration_line(*rows, **options, response=response)
            estimates["slope"], estimates["intercept"] = line.slope, line.intercept
        with suppress(CalibrationError):
            p_value = calibration_test(*rows, **options, response=response).p_value
        estimates["ece"] = debiased_calibration_error(*rows, n_bins, **options, response=response)
        if response == "binary":
            estimates["smooth_ece"] = smooth_calibration_error(*rows, **options)
    for name, estimate in estimates.items():
        figures |= {name: estimate.estimate, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return figures | {"p_value": p_value}
