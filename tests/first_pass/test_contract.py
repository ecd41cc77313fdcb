from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import first_pass
from first_pass import FirstPassRanker, FunctionRanker, PairRanker
from first_pass.errors import (
    InvalidRanker,
    InvalidRawScore,
    InvalidTable,
    MissingColumn,
)

ENTITIES = pd.DataFrame({"entity_id": ["a", "b", "c"], "size": [1.0, 2.0, 3.0]}, index=[7, 7, 1])


def _ranker(function, features=("size", "age"), **options) -> FunctionRanker:
    return FunctionRanker(function, entity_type="people", version="pymk-7", features=list(features), **options)


class _Product(PairRanker):
    def predict_pairs(self, pairs):
        return pairs["size"] * pairs["age"]


def test_pair_ranker_needs_one_method_to_meet_the_contract():
    ranker = _Product(entity_type="people", version="v1", features=["size", "age"])
    assert isinstance(ranker, FirstPassRanker)
    raw_score = ranker.raw_scores({"age": 10, "unread": None}, ENTITIES)
    assert raw_score.dtype == np.float64
    np.testing.assert_array_equal(raw_score, [10.0, 20.0, 30.0])


def test_pair_ranker_joins_a_batch_by_position_not_by_index():
    viewers = pd.DataFrame({"age": [1, 10, 100]}, index=[1, 7, 3])
    ranker = _Product(entity_type="people", version="v1", features=["size", "age"])
    np.testing.assert_array_equal(ranker.raw_scores_batch(viewers, ENTITIES), [1.0, 20.0, 300.0])


def test_pair_ranker_gives_the_features_in_their_order_and_no_others():
    seen = []
    _ranker(lambda pairs: seen.append(list(pairs)) or np.zeros(len(pairs)), features=["size", "age"]).raw_scores(
        {"age": 1, "other": 2}, ENTITIES
    )
    assert seen == [["size", "age"]]


def test_pair_ranker_scores_a_row_with_a_null_as_not_scorable_and_keeps_it_from_the_model():
    def refuse_null(pairs):
        assert pairs.notna().all(axis=None)
        return pairs["size"]

    entities = pd.DataFrame({"size": [1.0, None, 3.0]})
    np.testing.assert_array_equal(_ranker(refuse_null).raw_scores({"age": 1}, entities), [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(_ranker(refuse_null).raw_scores({"age": None}, entities), [np.nan] * 3)
    taking = _ranker(lambda pairs: pairs["size"].fillna(-1.0), accepts_null=True)
    np.testing.assert_array_equal(taking.raw_scores({"age": None}, entities), [1.0, -1.0, 3.0])


def test_pair_ranker_scores_no_entities_without_asking_the_model():
    ranker = _ranker(lambda _: 1 / 0)
    for raw_score in (
        ranker.raw_scores({}, pd.DataFrame()),
        ranker.raw_scores_batch(pd.DataFrame(), pd.DataFrame()),
    ):
        assert raw_score.shape == (0,)
        assert raw_score.dtype == np.float64


def test_pair_ranker_scores_entities_that_have_no_columns_of_their_own():
    ranker = _ranker(lambda pairs: pairs["age"], features=["age"])
    np.testing.assert_array_equal(ranker.raw_scores({"age": 4}, pd.DataFrame(index=range(2))), [4.0, 4.0])


def test_pair_ranker_does_not_let_the_model_change_its_inputs():
    def spoil(pairs):
        pairs["size"] *= 0
        pairs["age"] = 0
        return pairs["size"]

    entities, viewers = ENTITIES.copy(), pd.DataFrame({"age": [1.0, 2.0, 3.0]})
    _ranker(spoil).raw_scores_batch(viewers, entities)
    pd.testing.assert_frame_equal(entities, ENTITIES)
    assert viewers["age"].tolist() == [1.0, 2.0, 3.0]


def test_missing_feature_says_where_and_what_was_meant():
    with pytest.raises(MissingColumn, match=r"'pymk-7' of 'people': feature 'age' is missing.*Did you mean 'aged'"):
        _ranker(lambda pairs: pairs["size"]).raw_scores({"aged": 1}, ENTITIES)
    with pytest.raises(MissingColumn, match="feature 'age' is missing"):
        _ranker(lambda pairs: pairs["size"]).raw_scores_batch(ENTITIES[["size"]].rename(columns=str.upper), ENTITIES)


def test_feature_on_both_sides_is_refused():
    with pytest.raises(InvalidTable, match="feature 'size' is both"):
        _ranker(lambda pairs: pairs["size"]).raw_scores({"age": 1, "size": 2}, ENTITIES)


def test_batch_of_unequal_lengths_is_refused():
    with pytest.raises(InvalidTable, match="2 viewers and 3 entities"):
        _ranker(lambda pairs: pairs["size"]).raw_scores_batch(pd.DataFrame({"age": [1, 2]}), ENTITIES)


def test_infinite_raw_score_names_the_ranker_and_the_row_of_the_input():
    entities = pd.DataFrame({"size": [None, 1.0, 0.0]})
    with pytest.raises(InvalidRawScore, match=r"'pymk-7' of 'people'.*infinite in 1 of 2 rows; first: row 2"):
        _ranker(lambda pairs: pairs["age"] / pairs["size"]).raw_scores({"age": 1.0}, entities)


@pytest.mark.parametrize(
    ("returned", "found"),
    [(np.zeros(2), r"\(2,\)"), (np.zeros((3, 3)), r"\(3, 3\)"), (0.0, r"\(\)"), (["x"] * 3, "not numbers")],
)
def test_raw_scores_of_another_form_are_refused(returned, found):
    with pytest.raises(InvalidRawScore, match=found):
        _ranker(lambda _: returned).raw_scores({"age": 1}, ENTITIES)


def test_a_column_of_raw_scores_is_flattened():
    assert _ranker(lambda pairs: pairs[["size"]]).raw_scores({"age": 1}, ENTITIES).shape == (3,)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"entity_type": ""}, "entity_type is ''"),
        ({"version": 7}, "version is 7"),
        ({"features": []}, "features is"),
        ({"features": "size"}, "features is 'size'"),
        ({"features": ["size", "size"]}, "different column names"),
    ],
)
def test_ranker_declared_wrongly_is_refused(changed, found):
    options = {"entity_type": "people", "version": "v1", "features": ["size"], **changed}
    with pytest.raises(InvalidRanker, match=found):
        FunctionRanker(len, **options)


def test_import_first_pass_leaves_the_model_libraries_alone():
    libraries = ["xgboost", "lightgbm", "sklearn", "statsmodels", "onnxruntime", "spr"]
    code = f"import sys, first_pass; print([name for name in {libraries} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_exist():
    assert all(hasattr(first_pass, name) for name in first_pass.__all__)
