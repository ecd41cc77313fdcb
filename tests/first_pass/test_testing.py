"""The contract suite passes a ranker that keeps the contract, and fails each that breaks one rule of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from first_pass.testing import check_first_pass_ranker

VIEWERS = pd.DataFrame({"age": [1.0, 2.0, 4.0]})
ENTITIES = pd.DataFrame({"size": [1.0, 3.0, np.nan, 9.0]})


class Honest:
    entity_type = "people"
    version = "v1"

    def raw_scores(self, viewer, entities):
        return entities["size"].to_numpy(dtype=float) * viewer["age"]

    def raw_scores_batch(self, viewers, entities):
        return entities["size"].to_numpy(dtype=float) * viewers["age"].to_numpy(dtype=float)


class Nameless(Honest):
    version = ""


class Untyped(Honest):
    entity_type = None


class SinglePrecision(Honest):
    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities).astype(np.float32)


class SinglePrecisionBatch(Honest):
    def raw_scores_batch(self, viewers, entities):
        return super().raw_scores_batch(viewers, entities).astype(np.float32)


class Tall(Honest):
    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities)[:, None]


class Listing(Honest):
    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities).tolist()


class Short(Honest):
    def raw_scores(self, viewer, entities):
        raw_score = super().raw_scores(viewer, entities)
        return raw_score[~np.isnan(raw_score)]


class Infinite(Honest):
    def raw_scores(self, viewer, entities):
        return np.nan_to_num(super().raw_scores(viewer, entities), nan=-np.inf)


class InfiniteBatch(Honest):
    def raw_scores_batch(self, viewers, entities):
        return np.nan_to_num(super().raw_scores_batch(viewers, entities), nan=-np.inf)


class Random(Honest):
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities) + self.rng.normal(scale=1e-9, size=len(entities))


class RandomBatch(Random):
    def raw_scores(self, viewer, entities):
        return Honest.raw_scores(self, viewer, entities)

    def raw_scores_batch(self, viewers, entities):
        raw_score = super().raw_scores_batch(viewers, entities)
        return raw_score + self.rng.normal(scale=1e-9, size=len(entities))


class Ordered(Honest):
    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities) - np.arange(len(entities))


class Labelled(Honest):
    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities.sort_index())


class Relative(Honest):
    def raw_scores_batch(self, viewers, entities):
        raw_score = super().raw_scores_batch(viewers, entities)
        return raw_score / np.nanmax(raw_score) if len(raw_score) else raw_score


class FirstViewerOnly(Honest):
    def raw_scores_batch(self, viewers, entities):
        return self.raw_scores(viewers.iloc[0], entities) if len(viewers) else np.zeros(0)


class ChangesEntities(Honest):
    def raw_scores(self, viewer, entities):
        raw_score = super().raw_scores(viewer, entities)
        entities["raw_score"] = raw_score
        return raw_score


class ChangesViewer(Honest):
    def raw_scores(self, viewer, entities):
        viewer["seen"] = True
        return super().raw_scores(viewer, entities)


class ChangesBatchViewers(Honest):
    def raw_scores_batch(self, viewers, entities):
        raw_score = super().raw_scores_batch(viewers, entities)
        viewers["age"] = 0.0
        return raw_score


class ChangesBatchEntities(Honest):
    def raw_scores_batch(self, viewers, entities):
        raw_score = super().raw_scores_batch(viewers, entities)
        entities["size"] = 0.0
        return raw_score


class NeverEmpty(Honest):
    def raw_scores(self, viewer, entities):
        return super().raw_scores(viewer, entities) if len(entities) else np.zeros(1)


class NeverEmptyBatch(Honest):
    def raw_scores_batch(self, viewers, entities):
        return super().raw_scores_batch(viewers, entities) if len(entities) else np.zeros(1)


def test_check_passes_a_ranker_that_keeps_the_contract():
    check_first_pass_ranker(Honest(), VIEWERS, ENTITIES)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Nameless, "version is ''"),
        (Untyped, "entity_type is None"),
        (SinglePrecision, r"viewer row 0: gave float32 of shape \(4,\)"),
        (SinglePrecisionBatch, r"raw_scores_batch: gave float32 of shape \(12,\)"),
        (Tall, r"gave float64 of shape \(4, 1\)"),
        (Listing, "gave a list"),
        (Short, r"gave float64 of shape \(3,\)"),
        (Infinite, "infinite in row 2"),
        (InfiniteBatch, "raw_scores_batch: raw_score is infinite"),
        (Random, "raw_scores for viewer row 0: a second call gave another result"),
        (RandomBatch, "raw_scores_batch: a second call gave another result"),
        (Ordered, "row order matters; first: row 0"),
        (Labelled, "row order matters"),
        (Relative, "raw_scores_batch: it differs from raw_scores"),
        (FirstViewerOnly, "raw_scores_batch: it differs from raw_scores; first: row 1, 1.0 instead of 2.0"),
        (ChangesEntities, "the entities were changed"),
        (ChangesViewer, "the viewer was changed"),
        (ChangesBatchViewers, "raw_scores_batch: the viewers were changed"),
        (ChangesBatchEntities, "raw_scores_batch: the entities were changed"),
        (NeverEmpty, r"no entities: gave float64 of shape \(1,\)"),
        (NeverEmptyBatch, r"no rows: gave float64 of shape \(1,\)"),
    ],
)
def test_check_fails_a_ranker_that_breaks_a_rule_and_says_which(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_first_pass_ranker(broken(), VIEWERS, ENTITIES.copy())


def test_check_refuses_rows_that_would_check_nothing():
    with pytest.raises(ValueError, match="at least 2 of each"):
        check_first_pass_ranker(Honest(), VIEWERS.head(1), ENTITIES)
