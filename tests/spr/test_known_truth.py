"""On a made network whose every probability is known, the ranker finds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

import spr
from simulations import World
from simulations.splitting import PageSplit, split_pages
from spr.evaluation import SPR, Comparison, compare
from spr.evaluation.comparison import FIXED_ONLY
from spr.tables import read_impressions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Known:
    """A fitted ranker, and the truth of the held-out cohorts that it was compared on."""

    world: World
    split: PageSplit
    ranker: spr.SecondPassRanker
    comparison: Comparison
    probability: NDArray[np.float64]


@pytest.fixture(scope="module")
def known() -> Known:
    config = spr.Config.named("network")
    trees = config.trees.model_copy(update={"max_depth": 4, "early_stopping_rounds": 60})
    features = config.features.model_copy(update={"viewer_in_trees": "no"})
    config = config.model_copy(update={"trees": trees, "features": features})
    world = World(n_viewers=200, seed=1, n_entities=100)
    tables = world.tables(6000)
    split = split_pages(tables.impressions, until=pd.Timestamp("2026-01-24", tz="UTC"), seed=1)
    ranker = spr.fit(split.train, tables.viewers, tables.entities, config=config)
    comparison = compare(
        ranker, split.test, tables.viewers, tables.entities, frequency=split.frequency, n_replicates=200
    )
    rows = read_impressions(split.test, config)
    truth = world.truth.cohort_probability(rows[rows["policy"] == "random"])
    # a cohort without a scorable entity has no label and is not compared
    truth = truth[truth["probability"] > 0]
    assert truth["request_id"].tolist() == comparison.frame["request_id"].tolist()
    return Known(world, split, ranker, comparison, truth["probability"].to_numpy())


def test_probabilities_agree_with_the_truth(known: Known) -> None:
    probability = np.asarray(known.comparison.predictions[SPR].probability)
    # of seen viewers: what an unseen one is after cannot be known
    seen = (known.comparison.frame["segment"] != "unseen").to_numpy()
    assert np.corrcoef(logit(probability[seen]), logit(known.probability[seen]))[0, 1] > 0.75
    frequent = (known.comparison.frame["segment"] == "frequent").to_numpy()
    assert np.corrcoef(logit(probability[frequent]), logit(known.probability[frequent]))[0, 1] > 0.8


def test_probabilities_are_calibrated_to_the_truth(known: Known) -> None:
    probability = np.asarray(known.comparison.predictions[SPR].probability)
    assert probability.mean() == pytest.approx(known.probability.mean(), rel=0.12)
    # where it promises more there is more: truth over prediction in fifths of the prediction
    fifth = pd.qcut(probability, 5, labels=False)
    means = pd.DataFrame({"said": probability, "true": known.probability}).groupby(fifth).mean()
    np.testing.assert_allclose(means["said"], means["true"], rtol=0, atol=0.012)
    assert means["true"].is_monotonic_increasing


def test_random_effects_come_nearer_to_the_truth(known: Known) -> None:
    seen = (known.comparison.frame["segment"] != "unseen").to_numpy()
    error = {
        name: np.mean((logit(np.asarray(prediction.probability)) - logit(known.probability))[seen] ** 2)
        for name, prediction in known.comparison.predictions.items()
    }
    assert error[SPR] < 0.85 * error[FIXED_ONLY]


def test_random_effects_lower_the_held_out_loss(known: Known) -> None:
    rows = known.comparison.differences()
    nce = rows[rows["metric"] == "normalized_cross_entropy"].set_index("segment")
    assert nce["high"]["all"] < 0.0
    assert nce["high"]["segment=frequent"] < 0.0
    assert nce["estimate"]["segment=unseen"] == 0.0  # nothing but the fixed effect is known of them


def test_random_effects_find_what_viewers_are_after(known: Known) -> None:
    (effect,) = known.ranker.effects
    column = {name: i for i, name in enumerate(effect.columns)}
    truth = logit(known.world.truth.downstream_probability.loc[effect.keys.tolist()])
    learnt = pd.DataFrame(
        {
            name: effect.matrix[:, column[f"entity_type={name}"]]
            + effect.matrix[:, column[f"edge_type={kind.edge_type}"]]
            for name, kind in known.ranker.config.entity_types.items()
        },
        index=truth.index,
    )
    pages = known.split.train.groupby("viewer_id")["request_id"].nunique().reindex(truth.index)
    often = (pages >= 60).to_numpy()
    assert often.sum() >= 15
    # intents inside a viewer: his own mean is the intercept's
    learnt, truth = (frame.sub(frame.mean(axis=0), axis=1) for frame in (learnt, truth))
    learnt, truth = (frame.sub(frame.mean(axis=1), axis=0)[often] for frame in (learnt, truth))
    assert np.corrcoef(learnt.to_numpy().ravel(), truth.to_numpy().ravel())[0, 1] > 0.6


def test_random_effect_is_larger_for_what_a_viewer_acts_on(known: Known) -> None:
    """A viewer with far more interactions with a type than others has a larger margin for it."""
    (effect,) = known.ranker.effects
    train = known.split.train
    rate = train.groupby(["viewer_id", "entity_type"])["downstream"].mean().unstack()
    rows = train.groupby("viewer_id").size()
    busiest = rows[rows > 2000].index
    lift = (rate / rate.mean()).loc[busiest]
    column = effect.columns.index
    higher = []
    for viewer in busiest:
        own = effect.lookup(str(viewer))
        assert own is not None
        most, least = lift.loc[viewer].idxmax(), lift.loc[viewer].idxmin()
        higher.append(own[column(f"entity_type={most}")] > own[column(f"entity_type={least}")])
    assert len(higher) >= 8
    assert np.mean(higher) >= 0.9


def test_held_out_viewers_get_the_correction(known: Known) -> None:
    unseen = [viewer for viewer, often in known.split.frequency.items() if often == "unseen"]
    assert len(unseen) >= 20
    assert all(known.ranker.effects[0].lookup(viewer) is None for viewer in unseen)
    of_unseen = (known.comparison.frame["segment"] == "unseen").to_numpy()
    probability = np.asarray(known.comparison.predictions[SPR].probability)[of_unseen]
    assert probability.mean() == pytest.approx(known.probability[of_unseen].mean(), rel=0.25)


def test_position_margin_recovers_the_examination(known: Known) -> None:
    """The probability of a rare event is examination times the rest: log-odds fall by the log of examination.

    Boosting stops early on a log this small, so that part of the fall is not there yet.
    """
    examined = np.log(known.world.truth.position_examination)
    found = known.ranker.trees.position_margin(len(examined))
    np.testing.assert_allclose(found, examined, rtol=0, atol=0.45)
    assert np.corrcoef(found, examined)[0, 1] > 0.95
    assert 0.6 < found[-1] / examined[-1] < 1.2


def test_calibrators_recover_the_response_curves(known: Known) -> None:
    """Up to the slots' examination, which random pages do not identify: 0.9^slot, 0.74 in the mean."""
    rows = known.split.train
    for entity_type, version in known.ranker.calibrators:
        scores = rows.loc[(rows["entity_type"] == entity_type) & rows["raw_score"].notna(), "raw_score"].to_numpy()
        asked = np.quantile(scores, [0.3, 0.5, 0.7, 0.9])
        found = known.ranker.calibrators[entity_type, version].predict(asked)
        truth = known.world.truth.response_probability(entity_type, asked)
        np.testing.assert_allclose(np.log(found / truth), 0.0, atol=0.65, err_msg=entity_type)
        assert (np.diff(found) > 0).all()
