"""The table a model reads: one row per (viewer, entity), its columns found on either side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from first_pass.errors import InvalidTable, MissingColumn, name_missing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray


def join_one_viewer(
    viewer: Mapping[str, object], entities: pd.DataFrame, features: Sequence[str], ranker: str
) -> pd.DataFrame:
    """Join one viewer to many entities.

    Parameters
    ----------
    viewer : mapping of str to object
    entities : DataFrame, n rows
    features : sequence of str
        The columns wanted, in this order.
    ranker : str
        Who wants them, for the error.

    Returns
    -------
    DataFrame, n rows
        The features, the viewer's repeated; a fresh table with an index from 0.

    Raises
    ------
    MissingColumn
        When a feature is on neither side.
    InvalidTable
        When a feature is on both.

    Examples
    --------
    >>> join_one_viewer({"age": 30}, pd.DataFrame({"size": [1, 2]}), ["size", "age"], "a ranker")
       size  age
    0     1   30
    1     2   30
    """
    of_viewer = _names_of_viewer(features, viewer.keys(), entities.columns, ranker)
    return pd.DataFrame(  # which copies the arrays
        {
            name: _repeated(viewer[name], len(entities)) if name in of_viewer else entities[name].array
            for name in features
        }
    )


def join_rows(viewers: pd.DataFrame, entities: pd.DataFrame, features: Sequence[str], ranker: str) -> pd.DataFrame:
    """Join row i of the viewers to row i of the entities, whatever their indexes.

    Parameters
    ----------
    viewers : DataFrame, n rows
    entities : DataFrame, n rows
    features : sequence of str
        The columns wanted, in this order.
    ranker : str
        Who wants them, for the error.

    Returns
    -------
    DataFrame, n rows
        A fresh table with an index from 0.

    Raises
    ------
    MissingColumn
        When a feature is on neither side.
    InvalidTable
        When a feature is on both.

    Examples
    --------
    >>> join_rows(pd.DataFrame({"age": [30, 40]}), pd.DataFrame({"size": [1, 2]}), ["size", "age"], "a ranker")
       size  age
    0     1   30
    1     2   40
    """
    of_viewer = _names_of_viewer(features, viewers.columns, entities.columns, ranker)
    return pd.DataFrame({name: (viewers if name in of_viewer else entities)[name].array for name in features})


def numeric_matrix(pairs: pd.DataFrame, ranker: str) -> NDArray[np.float64]:
    """Turn a table into a matrix.

    Parameters
    ----------
    pairs : DataFrame (n, k)
        Numeric and boolean columns; any null becomes NaN.
    ranker : str
        Who wants it, for the error.

    Returns
    -------
    float64 (n, k)

    Raises
    ------
    InvalidTable
        When a column holds anything else.

    Examples
    --------
    >>> numeric_matrix(pd.DataFrame({"size": [1, None], "open": [True, False]}), "a ranker")
    array([[ 1.,  1.],
           [nan,  0.]])
    """
    try:
        return pairs.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        for name in pairs.columns:
            found = pairs[name].dropna()
            if pd.to_numeric(found, errors="coerce").isna().any():
                wrong = found[pd.to_numeric(found, errors="coerce").isna()].iloc[0]
                raise InvalidTable(
                    f"{ranker}: feature {name!r} must be numeric for this model, found {found.dtype} "
                    f"such as {wrong!r}; encode it, or put the encoding in the model"
                ) from error
        raise


def _names_of_viewer(
    features: Sequence[str], viewer: Collection[str], entity: Collection[str], ranker: str
) -> set[str]:
    """Say which features are the viewer's; each must be found on one side."""
    for name in features:
        if (name in viewer) and (name in entity):
            raise InvalidTable(f"{ranker}: feature {name!r} is both the viewer's and the entities'; rename one of them")
        if name not in viewer and name not in entity:
            raise MissingColumn(name_missing("feature", name, {*map(str, viewer), *map(str, entity)}, ranker))
    return {name for name in features if name in viewer}


def _repeated(value: object, n: int) -> object:
    return np.full(n, value) if isinstance(value, (bool, int, float)) else pd.Series([value] * n)
