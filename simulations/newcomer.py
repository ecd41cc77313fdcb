"""A newcomer's first-pass ranker: by popularity at first, then trained on the shuffled pages, and calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from calibration.shadow import with_shadow_scores
from first_pass import FunctionRanker, training_table
from simulations.behaviour import ENTITY_TYPES
from simulations.rescoring import pair_features
from simulations.response_curves import CURVES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from calibration import CalibratorSet
    from first_pass import FirstPassRanker
    from simulations.world import World

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]

UNINFORMED, TRAINED = "newcomer-0", "newcomer-1"
_FEATURES = ["similarity", "popularity", "age_days", "tenure_days", "sessions_per_week"]
_FOLDS = 5


def uninformed_ranker(entity_type: str) -> FirstPassRanker:
    """Return what can be had without a response: entities by their popularity."""
    return FunctionRanker(
        lambda pairs: pairs["popularity"], entity_type=entity_type, version=UNINFORMED, features=["popularity"]
    )


def train(
    world: World, log: pd.DataFrame, entity_type: str, calibrators: CalibratorSet
) -> tuple[FirstPassRanker, CalibratorSet]:
    """Train the newcomer's ranker and its calibrator on the shuffled pages of a log.

    Parameters
    ----------
    world : World
    log : DataFrame
        Impressions of all types; at least one response and one row without in each fifth of the viewers.
    entity_type : str
    calibrators : CalibratorSet
        Of the other rankers.

    Returns
    -------
    (FirstPassRanker, CalibratorSet)
        A logistic regression on the features of the pair, with the position and the slot as further features that are
        0 when it scores; and the calibrators with one more curve. The curve is learnt from scores of viewers that a
        model was not fitted on, so that it knows nothing of how well the ranker remembers.
    """
    table = training_table(log, entity_type)
    features = _features(world, table, entity_type)
    place = np.column_stack([np.log1p(table["position"]), table["slot"]])
    response = table["response"].to_numpy() > 0
    score = _fit(features, place, response)
    fold = np.random.default_rng(world.seed).integers(_FOLDS, size=world.n_viewers)[_viewers(world, table)]
    raw_score = np.empty(len(table))
    for number in range(_FOLDS):
        held_out = fold == number
        raw_score[held_out] = _fit(features[~held_out], place[~held_out], response[~held_out])(features[held_out])
    shadow = table[["request_id", "cohort_id", "slot"]].assign(raw_score=raw_score)
    rows = with_shadow_scores(log, shadow, TRAINED)
    curves = calibrators.refitted(rows, entity_type=entity_type, ranker_version=TRAINED)
    return FunctionRanker(score, entity_type=entity_type, version=TRAINED, features=_FEATURES), curves


def compare(
    world: World,
    log: pd.DataFrame,
    entity_type: str,
    trained: FirstPassRanker,
    calibrators: CalibratorSet,
    prior: float,
) -> pd.DataFrame:
    """Hold the uninformed and the trained ranker against the truth, on the shuffled pages of a log.

    Parameters
    ----------
    world : World
    log : DataFrame
        Later than what the ranker was trained on.
    entity_type : str
    trained : FirstPassRanker
    calibrators : CalibratorSet
        With the trained ranker's curve.
    prior : float
        The expected response of every entity before that.

    Returns
    -------
    DataFrame
        By ranker version, and the truth: ``auc``, P(a pair that would respond is above one that would not), expected
        under the true probabilities, so that no draw of responses disturbs it; ``expected response``, the mean, at the
        top of the page; ``error``, root mean square, of the expected responses against the true ones.
    """
    table = training_table(log, entity_type)
    table = table[table["raw_score"].notna()]
    features = _features(world, table, entity_type)
    viewer, entity = _viewers(world, table), _entities(world, table, entity_type)
    curve = CURVES[entity_type]
    wants = curve.response_probability(
        curve.raw_score(world.relevance(viewer, ENTITY_TYPES.index(entity_type), entity))
    )
    truth = wants * world.truth.slot_examination_at_top[table["slot"]]
    nobody = pd.DataFrame(index=features.index)
    raw_score = trained.raw_scores_batch(nobody, features)
    rankers = {
        UNINFORMED: (
            uninformed_ranker(entity_type).raw_scores_batch(nobody, features),
            np.full(len(table), prior),
        ),
        TRAINED: (raw_score, calibrators[entity_type, TRAINED].predict(raw_score)),
        "the truth": (wants, truth),
    }
    label, weight = np.repeat([True, False], len(wants)), np.concatenate([wants, 1.0 - wants])
    return pd.DataFrame.from_dict(
        {
            name: {
                "auc": roc_auc_score(label, np.tile(score, 2), sample_weight=weight),
                "expected response": expected.mean(),
                "error": np.sqrt(((expected - truth) ** 2).mean()),
            }
            for name, (score, expected) in rankers.items()
        },
        orient="index",
    ).rename_axis("ranker")


def _fit(features: pd.DataFrame, place: Floats, response: npt.NDArray[np.bool_]) -> Callable[[pd.DataFrame], Floats]:
    """Fit log-odds of a response; the score leaves out what the place on the page did."""
    centre, spread = features.mean(), features.std()
    design = np.column_stack([(features - centre) / spread, place])
    model = LogisticRegression(C=1.0).fit(design, response)
    weight, intercept = model.coef_[0, : features.shape[1]], float(model.intercept_[0])
    return lambda pairs: np.asarray(((pairs - centre) / spread).to_numpy() @ weight + intercept)


def _features(world: World, table: pd.DataFrame, entity_type: str) -> pd.DataFrame:
    return pair_features(world, _viewers(world, table), _entities(world, table, entity_type))[_FEATURES]


def _viewers(world: World, table: pd.DataFrame) -> Integers:
    return pd.Index(world.viewer_ids).get_indexer(pd.Index(table["viewer_id"]))


def _entities(world: World, table: pd.DataFrame, entity_type: str) -> Integers:
    code = ENTITY_TYPES.index(entity_type)
    first, size = world.first_of_type[code], world.n_of_type[code]
    return np.asarray(
        first + pd.Index(world.entity_ids[first : first + size]).get_indexer(pd.Index(table["entity_id"]))
    )
