"""Columns of an experiment's tables, read alike everywhere: refused with the rule, the count and the first viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import TableError, name_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DROPPED = "dropped_"


def require_columns(frame: pd.DataFrame, name: str, columns: Iterable[str]) -> None:
    """Refuse a table without these columns.

    Parameters
    ----------
    frame : DataFrame
    name : str
        Of the table, for people.
    columns : iterable of str

    Raises
    ------
    TableError
        When one is missing.
    """
    for column in columns:
        if column not in frame:
            raise TableError(f"{name}: {name_unknown('column', column, map(str, frame.columns))}")


def require_ids(frame: pd.DataFrame, name: str, column: str, *, unique: bool) -> None:
    """Refuse ids that are null, not text or, where asked, repeated.

    Parameters
    ----------
    frame : DataFrame
    name : str
        Of the table, for people.
    column : str
        Of the ids.
    unique : bool
        Whether an id may stand in one row only.

    Raises
    ------
    TableError
        When a rule is broken: the rule, the count and the first row.
    """
    ids = frame[column]
    null = ids.isna().to_numpy()
    if null.any():
        raise TableError(
            f"{name}: {column} is null in {null.sum():,} of {len(frame):,} rows; first: row {null.argmax()}"
        )
    no_text = np.fromiter((not isinstance(value, str) for value in ids), dtype=bool, count=len(ids))
    if no_text.any():
        found = ids.iloc[int(no_text.argmax())]
        raise TableError(
            f"{name}: {column} is not text in {no_text.sum():,} of {len(frame):,} rows; first: {found!r}. Ids are "
            "never numbers: 7 and 007 would be one viewer"
        )
    again = ids.duplicated().to_numpy()
    if unique and again.any():
        found = ids.iloc[int(again.argmax())]
        raise TableError(f"{name}: {column} is not unique in {again.sum():,} of {len(frame):,} rows; first: {found!r}")


def dosed_types(frame: pd.DataFrame, name: str) -> list[str]:
    """Return the edge types that a table has a column ``dropped_<t>`` of, in their order.

    Parameters
    ----------
    frame : DataFrame
    name : str
        Of the table, for people.

    Raises
    ------
    TableError
        When there is none.
    """
    found = [str(column).removeprefix(DROPPED) for column in frame.columns if str(column).startswith(DROPPED)]
    if not found:
        raise TableError(f"{name}: no column dropped_<edge type>; found: {', '.join(map(str, frame.columns))}")
    return found


def require_dosed(frame: pd.DataFrame, name: str, edge_types: Iterable[str]) -> list[str]:
    """Return :func:`dosed_types`, and refuse a table in which one of these is not.

    Parameters
    ----------
    frame : DataFrame
    name : str
        Of the table, for people.
    edge_types : iterable of str

    Raises
    ------
    TableError
        With the type that was probably meant.
    """
    found = dosed_types(frame, name)
    for edge_type in edge_types:
        if edge_type not in found:
            raise TableError(f"{name}: {name_unknown('edge type', edge_type, found)}")
    return found


def numbers(frame: pd.DataFrame, name: str, column: str) -> Floats:
    """Return a column as numbers, NaN where it is null.

    Parameters
    ----------
    frame : DataFrame
    name : str
        Of the table, for people.
    column : str

    Returns
    -------
    float64[n]

    Raises
    ------
    TableError
        When it holds something else.
    """
    try:
        return np.asarray(frame[column].to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        raise TableError(f"{name}: {column} is not a number: {error}") from error


def codes(frame: pd.DataFrame, name: str, column: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the code of each row's value, and the values as text, sorted.

    Parameters
    ----------
    frame : DataFrame
        With ``viewer_id``.
    name : str
        Of the table, for people.
    column : str

    Raises
    ------
    TableError
        When a value is null.
    """
    refuse_where(frame, name, frame[column].isna().to_numpy(), f"{column} is null")
    found, values = pd.factorize(frame[column], sort=True)
    return found.astype(np.int64), tuple(str(value) for value in values)


def refuse_where(frame: pd.DataFrame, name: str, rows: NDArray[np.bool_], rule: str, then: str = "") -> None:
    """Refuse a table with rows that break a rule.

    Parameters
    ----------
    frame : DataFrame
        With ``viewer_id``.
    name : str
        Of the table, for people.
    rows : bool[n]
        Which rows break it.
    rule : str
        Such as ``"cluster is null"``.
    then : str, default ""
        What stands after the first viewer: its value, or what to do.

    Raises
    ------
    TableError
        With the rule, the count and the first viewer.

    Examples
    --------
    >>> table = pd.DataFrame({"viewer_id": ["a", "b"], "cluster": ["x", None]})
    >>> refuse_where(table, "edge_drop", table["cluster"].isna().to_numpy(), "cluster is null")
    Traceback (most recent call last):
    spr.errors.TableError: edge_drop: cluster is null in 1 of 2 rows; first: viewer_id='b'
    """
    if rows.any():
        first = frame["viewer_id"].iloc[int(rows.argmax())]
        raise TableError(f"{name}: {rule} in {rows.sum():,} of {len(frame):,} rows; first: viewer_id={first!r}{then}")
