from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput
from spr.glmix.encoding import Encoding, read_keys


def test_encoding_matrix_turns_strings_into_levels_and_null_into_zeros_or_nan() -> None:
    frame = pd.DataFrame({"n": [1.0, np.nan, 3.0], "b": [True, False, True], "s": ["x", None, "y"]})
    encoding = Encoding.learn(frame, ["n", "b", "s"], "a test")
    assert encoding.names == ("n", "b", "s=x", "s=y")
    expected = [[1, 1, 1, 0], [np.nan, 0, 0, 0], [3, 1, 0, 1]]
    np.testing.assert_array_equal(encoding.matrix(frame, "a test"), np.array(expected, dtype=np.float32))


def test_encoding_matrix_takes_nullable_and_categorical_columns() -> None:
    frame = pd.DataFrame({"i": pd.array([1, None], dtype="Int64"), "c": pd.Categorical(["u", "v"])})
    matrix = Encoding.learn(frame, ["i", "c"], "a test").matrix(frame, "a test")
    np.testing.assert_array_equal(matrix, np.array([[1, 1, 0], [np.nan, 0, 1]], dtype=np.float32))


def test_encoding_matrix_reorders_rows_and_appends_ones() -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0, 3.0], "s": ["x", "y", "x"]})
    encoding = Encoding.learn(frame, ["n", "s"], "a test")
    matrix = encoding.matrix(frame, "a test", order=np.array([2, 0]), ones=True)
    assert matrix.tolist() == [[3, 1, 0, 1], [1, 1, 0, 1]]
    assert matrix.flags.c_contiguous


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        ({"age": [1.0]}, ["agee"], "Did you mean 'age'"),
        ({"age": [1.0]}, ["age", "age"], "named twice"),
        ({"age": [np.inf]}, ["age"], "infinite.*1 of 1"),
        ({"age": [1e300]}, ["age"], "infinite"),
        ({"at": pd.to_datetime(["2024-01-01"])}, ["at"], "datetime"),
    ],
)
def test_encoding_refuses_columns_it_cannot_read(frame: dict[str, object], columns: list[str], message: str) -> None:
    table = pd.DataFrame(frame)
    with pytest.raises(InvalidModelInput, match=message):
        Encoding.learn(table, columns, "a test").matrix(table, "a test")


def test_encoding_matrix_refuses_strings_where_fit_saw_numbers() -> None:
    encoding = Encoding.learn(pd.DataFrame({"age": [1.0]}), ["age"], "a test")
    with pytest.raises(InvalidModelInput, match="'age' of a test is not numeric"):
        encoding.matrix(pd.DataFrame({"age": ["old"]}), "a test")


def test_read_keys_keeps_integers_that_pandas_made_floats() -> None:
    assert read_keys(pd.Series([3.0, np.nan]), "a test").tolist() == [3, None]
    assert read_keys(pd.Series(["a", None]), "a test").tolist() == ["a", None]
    assert read_keys(pd.Series([3, 4]), "a test").dtype == np.int64


@pytest.mark.parametrize("keys", [pd.Series([0.5]), pd.Series(["a", 1], dtype=object), pd.to_datetime(["2024-01-01"])])
def test_read_keys_refuses_keys_that_are_neither_strings_nor_integers(keys: pd.Series) -> None:
    with pytest.raises(InvalidModelInput, match="key column"):
        read_keys(pd.Series(keys, name="k"), "a test")
