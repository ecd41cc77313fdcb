"""Predictions beside each other on the same rows: every metric with an interval by bootstrap over viewers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from scipy.special import expit

from spr.errors import InvalidModelInput, TableError, name_unknown
from spr.metrics.bootstrap import bound_replicates, draw_weights, replicate
from spr.metrics.orders import sum_auc, sum_grouped_auc, sum_ndcg, sum_precision_at_k, sum_top1_rate
from spr.metrics.probabilities import sum_calibration_error, sum_log_loss, sum_normalized_cross_entropy
from spr.metrics.sums import check_finite, check_k, check_labels, check_probabilities, check_replicates, code_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    from spr.metrics.sums import Sums

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

ROW_METRICS: Final = ("log_loss", "normalized_cross_entropy", "calibration_error", "auc")
PAGE_METRICS: Final = ("grouped_auc", "page_auc", "ndcg", "top1_rate", "precision_at_k")
METRICS: Final = ROW_METRICS + PAGE_METRICS
HIGHEST: Final = np.array([np.inf, np.inf, *[1.0] * (len(METRICS) - 2)])
ALL: Final = "all"


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a model says of each row.

    Parameters
    ----------
    probability : float array, shape (n_rows,)
        Probability of the label at the logged position, in [0, 1].
    order_by : float array, shape (n_rows,)
        What the model sorts a page by, higher = nearer to the top: value, or probability at the reference
        position.
    """

    probability: ArrayLike
    order_by: ArrayLike

    @classmethod
    def of_margins(cls, logged: Floats, reference: Floats) -> Prediction:
        """Take the log-odds of a model: probabilities at the logged position, the order at the reference position.

        Parameters
        ----------
        logged, reference : float64[n_rows]
            Margins at either position.
        """
        return cls(probability=expit(logged), order_by=reference)


@dataclass(frozen=True, slots=True, eq=False)
class MetricsTable:
    """Metrics of predictions, by segment, with intervals.

    Parameters
    ----------
    segment, prediction : list of str, length n_cells
        What each cell is about.
    estimate, low, high : float array, shape (n_cells, n_metrics)
        The metrics (in the order of ``METRICS``) and the bounds of their intervals; NaN where not defined: one
        class only, or a metric of pages within an entity type.
    units, left_out : int array, shape (n_cells, n_metrics)
        Rows, viewers or pages that count, and those on which the metric is not defined.
    level : float
        Confidence level of the intervals.
    replicates : float array, shape (n_cells, n_metrics, n_replicates)
        The metrics of each bootstrap replicate; the same draw of viewers throughout.
    """

    segment: list[str]
    prediction: list[str]
    estimate: Floats
    low: Floats
    high: Floats
    units: Ints
    left_out: Ints
    level: float
    replicates: Floats = field(repr=False)

    def to_pandas(self) -> pd.DataFrame:
        """Give one row per segment, prediction and metric.

        Returns
        -------
        DataFrame
            Columns segment, prediction, metric, estimate, low, high, units, left_out.
        """
        cells = len(self.segment)
        return pd.DataFrame(
            {
                "segment": np.repeat(self.segment, len(METRICS)),
                "prediction": np.repeat(self.prediction, len(METRICS)),
                "metric": np.tile(METRICS, cells),
                "estimate": self.estimate.ravel(),
                "low": self.low.ravel(),
                "high": self.high.ravel(),
                "units": self.units.ravel(),
                "left_out": self.left_out.ravel(),
            }
        )

    def formatted(self, digits: int = 4) -> pd.DataFrame:
        """Give one row per segment and prediction, one column per metric, each cell ``estimate [low, high]``.

        Parameters
        ----------
        digits : int, default 4
            Digits after the point.

        Returns
        -------
        DataFrame of str
            Empty where a metric is not defined.
        """
        text = [
            [
                "" if np.isnan(estimate) else f"{estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
                for estimate, low, high in zip(*cell, strict=True)
            ]
            for cell in zip(self.estimate, self.low, self.high, strict=True)
        ]
        index = pd.MultiIndex.from_arrays([self.segment, self.prediction], names=["segment", "prediction"])
        return pd.DataFrame(text, index=index, columns=list(METRICS))

    def __str__(self) -> str:
        return self.formatted().to_string()


def evaluate_predictions(
    frame: pd.DataFrame,
    predictions: Mapping[str, Prediction],
    *,
    label: str = "label",
    page: str = "request_id",
    viewer: str = "viewer_id",
    entity_type: str = "entity_type",
    segment: ArrayLike | None = None,
    top_k: int = 3,
    n_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> MetricsTable:
    """Compute every metric of every prediction, over all rows, per entity type and per segment.

    Parameters
    ----------
    frame : DataFrame
        One mature row per cohort shown, best of the random policy.
    predictions : mapping of str to Prediction
        Arrays in the order of the rows.
    label, page, viewer, entity_type : str
        Columns of ``frame``; the label is 0 or 1, a page belongs to one viewer.
    segment : array of str, shape (n_rows,), optional
        A split of the rows, e.g. frequent, infrequent and unseen viewers.
    top_k : int, default 3
        Cohorts at the top of a page that `precision_at_k` looks at.
    n_replicates : int, default 1000
        Bootstrap replicates.
    level : float, default 0.95
        Confidence level.
    seed : int, default 0
        Of the bootstrap.

    Returns
    -------
    MetricsTable
        Segments ``"all"``, ``"entity_type=<name>"`` and ``"segment=<name>"``. `grouped_auc` is by viewer, `page_auc` is
        the same by page. Within an entity type the metrics of pages are NaN, since there is hardly a page with two
        cohorts of one type.

    Raises
    ------
    TableError
        A column that ``frame`` does not have, or a page of two viewers.
    InvalidModelInput
        No prediction or no rows; arrays of another length, labels other than 0 and 1, probabilities outside [0,
        1].

    Notes
    -----
    Viewers, not rows, are drawn: each gets a Poisson(1) weight in each replicate (Hanley and MacGibbon 2006,
    "Creating non-parametric bootstrap samples using Poisson frequencies"), the same for all predictions and
    segments; the weights take one byte per viewer and replicate. Base rates are those of the replicate. Replicates
    on which a metric is not defined are passed over. Below some 50 viewers all intervals are too short.

    Intervals are percentiles of the replicates, moved so that their mean is the bias-corrected estimate 2t - mean
    (Efron and Tibshirani 1993, "An introduction to the bootstrap", section 10.6), and cut at the metric's range. The
    correction matters for the calibration error alone: noise raises it in the sample and again in each replicate, so
    that its interval may lie below the estimate. With few rows per bin part of that bias remains, and the interval
    lies too high.

    Examples
    --------
    >>> frame = pd.DataFrame({"request_id": ["a", "a", "b", "b"], "viewer_id": ["v", "v", "w", "w"],
    ...                       "entity_type": ["people", "event"] * 2, "label": [1, 0, 0, 1]})
    >>> half = Prediction(probability=[0.5] * 4, order_by=[0.5] * 4)
    >>> table = evaluate_predictions(frame, {"half": half}, n_replicates=50)
    >>> table.formatted(2).loc[("all", "half"), "normalized_cross_entropy"]
    '1.00 [1.00, 1.00]'
    """
    if not predictions:
        raise InvalidModelInput("no prediction to evaluate; give at least one")
    check_replicates(level, n_replicates)
    check_k("top_k", top_k)
    for column in (label, page, viewer, entity_type):
        if column not in frame.columns:
            raise TableError(name_unknown("column", column, map(str, frame.columns), "the rows to evaluate"))
    labels = check_labels(frame[label].to_numpy(dtype=np.float64, na_value=np.nan))
    pages, viewers = (code_groups(name, frame[name].to_numpy(), labels) for name in (page, viewer))
    _check_one_viewer(frame[page], pages, viewers)
    read = {
        name: (
            check_probabilities(prediction.probability, labels, f"probability of {name!r}"),
            check_finite(f"order_by of {name!r}", prediction.order_by, labels),
        )
        for name, prediction in predictions.items()
    }
    splits = {"entity_type": frame[entity_type].to_numpy()} | (
        {} if segment is None else {"segment": np.asarray(segment)}
    )
    weights = draw_weights(int(viewers.max()) + 1, n_replicates, seed)
    cells = []
    for cell, rows in _split_rows(splits, labels):
        metrics = ROW_METRICS if cell.startswith("entity_type=") else METRICS
        for name, (probability, order_by) in read.items():
            arrays = (labels[rows], probability[rows], order_by[rows], pages[rows], viewers[rows])
            sums = {metric: metric_sums for metric, metric_sums in _sum_metrics(*arrays, top_k) if metric in metrics}
            cells.append((cell, name, sums, replicate(sums, viewers[rows], weights)))
    return _tabulate(cells, level)


def paired_difference(table: MetricsTable, first: str, second: str) -> MetricsTable:
    """Subtract one prediction's metrics from another's on the same rows and the same bootstrap draws.

    Parameters
    ----------
    table : MetricsTable
        With both predictions.
    first, second : str
        Names of predictions.

    Returns
    -------
    MetricsTable
        The prediction is called ``"<first> - <second>"``. An interval without 0 is a difference at that level; it
        is far narrower than the two intervals suggest, since what is hard for one prediction is hard for the
        other.

    Raises
    ------
    InvalidModelInput
        A prediction that the table does not have.

    Examples
    --------
    >>> frame = pd.DataFrame({"request_id": ["a", "a", "b", "b"], "viewer_id": ["v", "v", "w", "w"],
    ...                       "entity_type": ["people", "event"] * 2, "label": [1, 0, 0, 1]})
    >>> one, other = Prediction([0.8, 0.2, 0.2, 0.8], [2, 1, 1, 2]), Prediction([0.5] * 4, [1] * 4)
    >>> table = evaluate_predictions(frame, {"one": one, "other": other}, n_replicates=50)
    >>> paired_difference(table, "one", "other").formatted(2).loc[("all", "one - other"), "log_loss"]
    '-0.47 [-0.47, -0.47]'
    """
    for name in (first, second):
        if name not in table.prediction:
            raise InvalidModelInput(name_unknown("prediction", name, dict.fromkeys(table.prediction), "the table"))
    names = np.array(table.prediction)
    one, other = np.flatnonzero(names == first), np.flatnonzero(names == second)
    estimate = table.estimate[one] - table.estimate[other]
    replicates = table.replicates[one] - table.replicates[other]
    low, high = bound_replicates(estimate, replicates, table.level)
    return MetricsTable(
        segment=[table.segment[cell] for cell in one],
        prediction=[f"{first} - {second}"] * len(one),
        estimate=estimate,
        low=low,
        high=high,
        units=table.units[one],
        left_out=table.left_out[one],
        level=table.level,
        replicates=replicates,
    )


def _split_rows(splits: Mapping[str, NDArray[np.object_]], labels: Floats) -> Iterator[tuple[str, Ints]]:
    yield ALL, np.arange(len(labels))
    for split, names in splits.items():
        codes = code_groups(split, names, labels)
        for code in range(int(codes.max()) + 1):
            rows = np.flatnonzero(codes == code)
            yield f"{split}={names[rows[0]]}", rows


def _sum_metrics(
    label: Floats, probability: Floats, order_by: Floats, page: Ints, viewer: Ints, top_k: int
) -> Iterator[tuple[str, Sums]]:
    weight = np.ones(len(label))
    page, viewer = code_groups("page", page, label), code_groups("viewer", viewer, label)
    yield "log_loss", sum_log_loss(label, probability, weight)
    yield "normalized_cross_entropy", sum_normalized_cross_entropy(label, probability, weight)
    yield "calibration_error", sum_calibration_error(label, probability, weight)
    yield "auc", sum_auc(label, order_by, weight)
    yield "grouped_auc", sum_grouped_auc(label, order_by, viewer, weight)
    yield "page_auc", sum_grouped_auc(label, order_by, page, weight)
    yield "ndcg", sum_ndcg(label, order_by, page)
    yield "top1_rate", sum_top1_rate(label, order_by, page)
    yield "precision_at_k", sum_precision_at_k(label, order_by, page, top_k, weight)


def _tabulate(cells: list[tuple[str, str, dict[str, Sums], dict[str, Floats]]], level: float) -> MetricsTable:
    n_replicates = len(cells[0][3]["log_loss"])
    estimate = np.full((len(cells), len(METRICS)), np.nan)
    units, left_out = np.zeros(estimate.shape, dtype=np.int64), np.zeros(estimate.shape, dtype=np.int64)
    replicates = np.full((*estimate.shape, n_replicates), np.nan)
    for i, (_, _, sums, replicated) in enumerate(cells):
        for j, metric in enumerate(METRICS):
            if metric in sums:
                estimate[i, j] = sums[metric].estimate()
                units[i, j], left_out[i, j] = sums[metric].units, sums[metric].left_out
                replicates[i, j] = replicated[metric]
    low, high = bound_replicates(estimate, replicates, level)
    return MetricsTable(
        segment=[cell[0] for cell in cells],
        prediction=[cell[1] for cell in cells],
        estimate=estimate,
        low=np.maximum(low, 0.0),
        high=np.minimum(high, HIGHEST),
        units=units,
        left_out=left_out,
        level=level,
        replicates=replicates,
    )


def _check_one_viewer(name: pd.Series, page: Ints, viewer: Ints) -> None:
    viewer_of = np.empty(int(page.max()) + 1, dtype=np.int64)
    viewer_of[page] = viewer
    wrong = viewer_of[page] != viewer
    if wrong.any():
        raise TableError(
            f"{name.name}: {name.iloc[int(np.argmax(wrong))]!r} has rows of two viewers; a page belongs to one viewer"
        )
