"""What a replay found: metrics over time, and how much worse a part is that was kept than a fresh one, by its age."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from calibration import CalibrationError, calibration_in_the_large
from spr.errors import InvalidModelInput, name_unknown
from spr.metrics import MetricsTable, Prediction, clustered_mean, paired_difference
from spr.metrics.table import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spr.ranker import SecondPassRanker

    Floats = NDArray[np.float64]

EVERYTHING: Final = "everything refitted"
CALIBRATORS: Final = "calibrators refitted"
EFFECTS: Final = "random effects refitted"
ALL_BUT_TREES: Final = "all but trees refitted"
NOTHING: Final = "nothing refitted"
OPTIONS: Final = (EVERYTHING, ALL_BUT_TREES, CALIBRATORS, EFFECTS, NOTHING)
SHOWN: Final = "as shown"

PARTS: Final = {
    "calibrators": (NOTHING, CALIBRATORS),
    "random effects": (NOTHING, EFFECTS),
    "trees": (ALL_BUT_TREES, EVERYTHING),
    "everything": (NOTHING, EVERYTHING),
}
"""By part, the two options that differ in it alone: where it is kept, and where it is fresh."""

WORSE_WHEN: Final = {"normalized_cross_entropy": 1.0, "ndcg": -1.0, "top1_rate": -1.0}
"""The metrics that are followed, and the sign of a difference, kept minus fresh, that is for the worse."""

METRIC_NAMES: Final = {
    "normalized_cross_entropy": "normalised cross entropy",
    "ndcg": "NDCG",
    "top1_rate": "top-1 rate",
}
"""What they are called where people read."""

FEWEST_VIEWERS: Final = 50
"""Below so many in a period, intervals are too short."""

SELECTION_BIAS: Final = (
    "On pages of other policies cohorts were acted on where they were shown: an order like theirs is matched better "
    "than a better order would be. Compare options on random pages."
)
_NORMAL = 1.959964


@dataclass(frozen=True, eq=False)
class Replay:
    """A walk through the log: five options of what is refitted at each cut, judged on the same later pages.

    Parameters
    ----------
    periods : DataFrame
        By cut: ``until``, ``age_days`` of what is kept (since the first cut, when the period begins),
        ``pages_of_unknown_versions`` (of any policy, with a ranker version that kept calibrators do not know) and, of
        random pages whose labels are mature, ``random_pages``, ``viewers``, ``cohorts`` and how many were
        ``acted_on``.
    metrics : MetricsTable
        By period (``segment=<cut>``), entity type and option, on random pages.
    frame : DataFrame
        One row per mature cohort of random pages: cut, request_id, viewer_id, entity_type, label.
    predictions : mapping of str to Prediction
        By option: probabilities at the logged position, ``order_by`` the margin at the reference position.
    acted_on : DataFrame
        One row per cohort that was acted on, on pages of any policy: cut, request_id, viewer_id, policy, and its rank
        on its page (1 = top, tied ranks averaged) ``as shown`` and under each option.
    rankers : mapping of Timestamp to SecondPassRanker
        What was fitted at each cut, all parts fresh; their configuration is the one that was given.
    adopted_effects : tuple of str
        Random effects of the first fit; where it adopted none there is none to refit.
    """

    periods: pd.DataFrame
    metrics: MetricsTable
    frame: pd.DataFrame
    predictions: Mapping[str, Prediction]
    acted_on: pd.DataFrame
    rankers: Mapping[pd.Timestamp, SecondPassRanker]
    adopted_effects: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return how much worse each part is at each age than a fresh one.

        Returns
        -------
        DataFrame
            One row per part, cut after the first, and metric: ``part``, ``cut``, ``age_days`` of the kept part when
            the period begins, ``metric``, ``kept`` and ``fresh`` (the metric of either option), ``difference`` (kept -
            fresh) with its interval ``low``, ``high`` (each row by itself) and ``worse``: whether it is for the worse
            with all parts and ages looked at at once.

        Notes
        -----
        Intervals are by a paired bootstrap over viewers, see :func:`spr.metrics.evaluate_predictions`. ``worse`` is
        by the largest studentised deviation over all parts and ages of a metric in each replicate (Romano and Wolf
        2005, "Stepwise multiple testing as formalized data snooping", Econometrica 73, first step): where nothing
        ages, at most 5 % of replays call anything worse, in a metric, however many cuts there are. A difference whose
        replicates are all alike (nothing was refitted) is never worse.
        """
        return self._ageing.copy()

    def ageing_table(self, metric: str = "normalized_cross_entropy") -> pd.DataFrame:
        """Return :meth:`to_pandas` of one metric for people to read.

        Parameters
        ----------
        metric : {"normalized_cross_entropy", "ndcg", "top1_rate"}

        Returns
        -------
        DataFrame of str
            Ages x parts, cells ``kept - fresh [low, high]``, with a star where the part is ``worse``; empty where the
            metric is not defined.

        Raises
        ------
        InvalidModelInput
            For another metric.
        """
        if metric not in WORSE_WHEN:
            raise InvalidModelInput(name_unknown("metric", metric, WORSE_WHEN, "a replay"))
        rows = self._ageing[self._ageing["metric"] == metric]
        cells = rows[["difference", "low", "high", "worse"]].itertuples(index=False)
        text = [
            "" if np.isnan(middle) else f"{middle:+.4f} [{low:+.4f}, {high:+.4f}]{' *' if worse else ''}"
            for middle, low, high, worse in cells
        ]
        return rows.assign(text=text).pivot(index="age_days", columns="part", values="text")[list(PARTS)]

    def worse_from(self) -> pd.DataFrame:
        """Return the age from which each part is worse than a fresh one.

        Returns
        -------
        DataFrame
            Parts x metrics: days, the youngest age with ``worse``; null where no age of the replay has it.
        """
        worse = self._ageing[self._ageing["worse"]]
        ages = worse.groupby(["part", "metric"])["age_days"].min().unstack()
        return ages.reindex(index=pd.Index(PARTS, name="part"), columns=pd.Index(WORSE_WHEN, name="metric"))

    def metrics_table(self) -> pd.DataFrame:
        """Return the metrics over time: a row per cut and option, cells ``estimate [low, high]``."""
        cells = self.metrics.formatted(digits=4)[[*WORSE_WHEN, "calibration_error"]]
        rows = [(f"segment={cut}", option) for cut in self.periods.index for option in OPTIONS]
        index = pd.MultiIndex.from_product([self.periods.index, OPTIONS], names=["cut", "option"])
        return cells.loc[rows].set_axis(index)

    def calibration_table(self) -> pd.DataFrame:
        """Return how far probabilities at the logged position are off, by entity type.

        Returns
        -------
        DataFrame
            One row per cut, entity type and option: ``cohorts``, and ``ratio`` of observed to predicted interactions (1
            = calibrated, above it too few were predicted) with its 95 % interval ``low``, ``high``, clustered by
            viewer; null where the data cannot tell. See :func:`calibration.calibration_in_the_large`.
        """
        found = []
        label, viewer = self.frame["label"].to_numpy(), self.frame["viewer_id"].to_numpy()
        for (cut, entity_type), group in self.frame.groupby(["cut", "entity_type"]):
            rows = group.index.to_numpy()
            for option in OPTIONS:
                ratio = low = high = np.nan
                probability = np.asarray(self.predictions[option].probability)[rows]
                with suppress(CalibrationError):
                    answer = calibration_in_the_large(probability, label[rows], cluster=viewer[rows])
                    ratio, low, high = answer.estimate, answer.low, answer.high
                found.append((cut, entity_type, option, len(rows), ratio, low, high))
        return pd.DataFrame(found, columns=["cut", "entity_type", "option", "cohorts", "ratio", "low", "high"])

    def match_table(self) -> pd.DataFrame:
        """Return how high the cohorts that were acted on stand in each order.

        Returns
        -------
        DataFrame
            One row per cut, ``pages`` ("random", "other policies") and ``order`` ("as shown", then the options):
            ``acted_on`` (cohorts), ``mean_rank`` (1 = top) with its 95 % interval ``low``, ``high``, and ``difference``
            to everything refitted with ``difference_low``, ``difference_high``, paired. Clustered by viewer.

        Notes
        -----
        On random pages the order shown owes nothing to any model, so that options may be compared. On pages of other
        policies they may not: a cohort near the top was seen more, so that it was acted on more, and an option that
        agrees with the policy that was served matches well whether or not it is any good.
        """
        found = []
        pages = np.where(self.acted_on["policy"] == "random", "random", "other policies")
        for (cut, name), rows in self.acted_on.groupby([self.acted_on["cut"], pages], sort=True):
            viewer = pd.factorize(rows["viewer_id"])[0].astype(np.int64)
            fresh = rows[EVERYTHING].to_numpy()
            for order in (SHOWN, *OPTIONS):
                rank = rows[order].to_numpy()
                row: list[object] = [cut, name, order, len(rows)]
                for values in (rank, rank - fresh):
                    mean, error = clustered_mean(values, viewer)
                    row += [mean, mean - _NORMAL * error, mean + _NORMAL * error]
                found.append(row)
        numbers = ["mean_rank", "low", "high", "difference", "difference_low", "difference_high"]
        return pd.DataFrame(found, columns=["cut", "pages", "order", "acted_on", *numbers])

    def sentences(self) -> list[str]:
        """Say from which age each part is worse than a fresh one, and what to keep in mind."""
        last = self.periods["age_days"].iloc[-1]
        ages = self.worse_from()
        said = []
        for part, of_metrics in ages.iterrows():
            found = of_metrics.dropna()
            if part == "random effects" and not self.adopted_effects:
                said.append("random effects: the first fit adopted none, so that there is nothing to refit.")
            elif found.empty:
                said.append(f"{part}: not worse than fresh ones up to an age of {last:g} days.")
            else:
                listed = ", ".join(f"{days:g} days ({METRIC_NAMES[str(metric)]})" for metric, days in found.items())
                said.append(f"{part}: worse than fresh ones from an age of {listed}.")
        unknown = int(self.periods["pages_of_unknown_versions"].sum())
        if unknown:
            said.append(
                f"{unknown:,} pages hold ranker versions that the first cut's calibrators do not know: the prior of "
                "the type stood in."
            )
        fewest = int(self.periods["viewers"].min())
        if fewest < FEWEST_VIEWERS:
            said.append(f"A period is judged by {fewest} viewers; below {FEWEST_VIEWERS} all intervals are too short.")
        return said

    def __str__(self) -> str:
        title = "Normalised cross entropy, kept - fresh [95 % interval]; * = worse with all parts and ages looked at"
        return "\n".join([title, self.ageing_table().to_string(), *self.sentences()])

    @cached_property
    def _ageing(self) -> pd.DataFrame:
        cells = {key: i for i, key in enumerate(zip(self.metrics.segment, self.metrics.prediction, strict=True))}
        differences = {part: paired_difference(self.metrics, *options) for part, options in PARTS.items()}
        rows, replicates = [], []
        for part, (kept, fresh) in PARTS.items():
            difference = differences[part]
            for cut, age in self.periods["age_days"].iloc[1:].items():
                segment = f"segment={cut}"
                cell = difference.segment.index(segment)
                for metric in WORSE_WHEN:
                    place = METRICS.index(metric)
                    values = [self.metrics.estimate[cells[segment, option], place] for option in (kept, fresh)]
                    bounds = (each[cell, place] for each in (difference.estimate, difference.low, difference.high))
                    rows.append((part, cut, age, metric, *values, *bounds))
                    replicates.append(difference.replicates[cell, place])
        columns = ["part", "cut", "age_days", "metric", "kept", "fresh", "difference", "low", "high"]
        table = pd.DataFrame(rows, columns=columns)
        worse = np.zeros(len(table), dtype=bool)
        for metric, sign in WORSE_WHEN.items():
            of_metric = np.flatnonzero(table["metric"] == metric)
            drawn = np.stack([replicates[i] for i in of_metric])
            estimate = sign * table["difference"].to_numpy()[of_metric]
            worse[of_metric] = above_zero_at_once(estimate, sign * drawn, self.metrics.level)
        return table.assign(worse=worse)


def above_zero_at_once(estimate: Floats, replicates: Floats, level: float) -> NDArray[np.bool_]:
    """Tell which of several estimates are above 0, with all of them looked at at once.

    Parameters
    ----------
    estimate : float64[m]
        NaN = not defined.
    replicates : float64[m, B]
        Of a bootstrap, the same draw in each column; NaN = not defined.
    level : float
        Chance that no estimate whose expectation is 0 is called above it, at least.

    Returns
    -------
    bool[m]
        Where the simultaneous two-sided interval, estimate +- c times its standard error, lies above 0: c is the
        ``level`` quantile of the largest absolute studentised deviation in a replicate.

    Examples
    --------
    >>> drawn = np.random.default_rng(0).normal([[0.0], [3.0]], 1.0, (2, 2000))
    >>> above_zero_at_once(np.array([0.0, 3.0]), drawn, 0.95)
    array([False,  True])
    >>> above_zero_at_once(np.array([0.0, 2.1]), drawn, 0.95)  # 1.96 would do for one alone
    array([False, False])
    """
    above = np.zeros(len(estimate), dtype=bool)
    usable = np.isfinite(estimate) & (np.isfinite(replicates).sum(axis=1) > 1)
    usable[usable] = np.nanstd(replicates[usable], axis=1) > 0
    if usable.any():
        drawn = replicates[usable]
        error = np.nanstd(drawn, axis=1, ddof=1)
        deviation = np.abs(drawn - np.nanmean(drawn, axis=1)[:, None]) / error[:, None]
        critical = np.quantile(np.nan_to_num(deviation).max(axis=0), level)
        above[usable] = estimate[usable] > critical * error
    return above
