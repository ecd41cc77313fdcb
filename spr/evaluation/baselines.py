"""What a ranker is compared with: simpler answers, fitted on the same pages by the same code."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration import QuantileTable
from spr.assembly import assemble
from spr.examples import collect_examples
from spr.glmix import GLMixClassifier, Linear, RandomEffect, Trees
from spr.progress import Progress, ignore
from spr.segments import with_segments
from spr.training import cross_fit
from spr.trees import refit_on_all, specify_trees

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from spr.examples import Examples
    from spr.ranker import SecondPassRanker

_PRIOR = "entity_type"
_RAW = "raw_score_log_odds_rank"
_CALIBRATED = "log_response_mean"
_POSITION = "position_level"


@dataclass(frozen=True)
class Baseline:
    """A model over the cohorts of a page that knows less than the ranker.

    Parameters
    ----------
    name : str
        What is printed.
    model : GLMixClassifier
        Fitted, with a margin for the position.
    raw_scores : QuantileTable
        Of the mean raw scores in training.
    """

    name: str
    model: GLMixClassifier
    raw_scores: QuantileTable

    def margin(self, examples: Examples, *, at_reference: bool) -> NDArray[np.float64]:
        """Return the log-odds of each cohort at its logged position, or at the reference position."""
        frame = describe(examples, self.raw_scores)
        if at_reference:
            frame["position"], frame[_POSITION] = np.float32(0), "0"
        return np.asarray(self.model.decision_function(frame))


def fit_baselines(
    ranker: SecondPassRanker,
    impressions: pd.DataFrame,
    viewers: pd.DataFrame,
    entities: pd.DataFrame | None = None,
    *,
    progress: Progress = ignore,
) -> tuple[Baseline, ...]:
    """Fit what the ranker is compared with, on the random policy's mature cohorts of the rows it learnt from.

    Parameters
    ----------
    ranker : SecondPassRanker
        Gives the calibrators, the features and the boosting budget.
    impressions, viewers, entities : DataFrame
        As read by :mod:`spr.tables`; the rows that the ranker was fitted on.
    progress : callable, optional
        ``progress(stage, done, total)``.

    Returns
    -------
    tuple of Baseline
        The prior of the entity type; the mean raw score; the mean calibrated response; XGBoost without per-viewer
        terms, blind to viewer columns and not; and XGBoost with an intercept per viewer and no other coefficient.
        Each has a margin for the position; the trees stop on held-out viewers and are then fitted again on all rows,
        as the ranker's are.
    """
    batch = assemble(impressions, viewers, entities)
    scored = with_segments(impressions, batch, ranker.calibrators.settings.segment)
    expected_response = cross_fit(scored, ranker.calibrators, ranker.config)
    examples = collect_examples(impressions, batch, ranker.features, expected_response, ())
    teaching = examples.take(examples.random)
    raw_scores = QuantileTable.fit(teaching.mean_raw_score)
    frame, label = describe(teaching, raw_scores), teaching.label

    def trees(viewer_columns: bool) -> GLMixClassifier:
        spec = specify_trees(
            ranker.features, ranker.config.trees, viewer_columns=viewer_columns, seed=ranker.config.seed
        )
        return GLMixClassifier(spec, time="at", seed=ranker.config.seed)

    def linear(*columns: str) -> GLMixClassifier:
        return GLMixClassifier(Linear([*columns, _POSITION], l2=1.0))

    intercept_only = trees(viewer_columns=False).set_params(random_effects=[RandomEffect("member", key="viewer_id")])
    models = {
        "entity-type prior": linear(_PRIOR),
        "mean raw score": linear(_RAW),
        "mean calibrated response": linear(_CALIBRATED),
        "XGBoost": trees(viewer_columns=True),
        "XGBoost, no viewer columns": trees(viewer_columns=False),
        "XGBoost + viewer intercept": intercept_only,
    }

    def fit(model: GLMixClassifier) -> GLMixClassifier:
        model.fit(frame, label, groups=frame["viewer_id"])
        return refit_on_all(model, frame, label) if isinstance(model.fixed, Trees) else model

    baselines = []
    # XGBoost and the compiled kernels let go of the interpreter's lock: two fits use two cores.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, (name, model) in enumerate(zip(models, pool.map(fit, models.values()), strict=True)):
            progress("baselines", done, len(models))
            baselines.append(Baseline(name, model, raw_scores))
    progress("baselines", len(models), len(models))
    return tuple(baselines)


def describe(examples: Examples, raw_scores: QuantileTable) -> pd.DataFrame:
    """Return the examples' frame with the columns that only baselines read.

    The mean raw score enters as the log-odds of its quantile: the order is the raw scores' own, and scales from
    probabilities to counts cannot break the fit.
    """
    quantile = np.clip(raw_scores.at(examples.mean_raw_score), 1e-4, 1 - 1e-4)
    frame = examples.frame.copy()
    frame[_PRIOR] = examples.entity_type
    frame[_RAW] = np.log(quantile / (1 - quantile))
    frame[_CALIBRATED] = np.log(frame["response_mean"].to_numpy(dtype=np.float64))
    frame[_POSITION] = frame["position"].astype(int).astype(str)
    return frame
