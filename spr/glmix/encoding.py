"""From a DataFrame to a float32 matrix: numbers as they are, strings as one column per level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix


def check_columns(frame: pd.DataFrame, columns: Sequence[str], what: str, where: str) -> None:
    """Raise InvalidModelInput where a column is named twice, is missing from `frame`, or stands in it twice."""
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise InvalidModelInput(f"{what} {column!r} is named twice in {where}; name each once.")
        seen.add(column)
        if column not in frame.columns:
            raise InvalidModelInput(name_unknown(what, str(column), map(str, frame.columns), where=where))
        if not (frame.columns.is_unique or isinstance(frame[column], pd.Series)):
            raise InvalidModelInput(f"{what} {column!r} of {where} stands in X more than once; rename the columns.")


@dataclass(frozen=True)
class Encoding:
    """How columns become a matrix; learnt in fit, the same in scoring.

    Numeric and boolean columns are taken as they are; null becomes NaN. A string (or categorical) column becomes
    one 0/1 column per level that fit has seen, called ``column=level``; an unseen or null level is all zeros.

    Parameters
    ----------
    columns : tuple of str
        The columns of the DataFrame.
    levels : mapping of str to tuple of str
        The levels of each string column, sorted.

    Examples
    --------
    >>> frame = pd.DataFrame({"age": [31, 47], "type": ["event", "people"]})
    >>> encoding = Encoding.learn(frame, ["age", "type"], where="an example")
    >>> encoding.names
    ('age', 'type=event', 'type=people')
    >>> encoding.matrix(pd.DataFrame({"age": [20.0], "type": ["company"]}), where="an example").tolist()
    [[20.0, 0.0, 0.0]]
    """

    columns: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]

    @classmethod
    def learn(cls, frame: pd.DataFrame, columns: Sequence[str], where: str) -> Encoding:
        """Learn the levels of the string columns among `columns`.

        Raises
        ------
        InvalidModelInput
            A column is missing, named twice, or neither numeric, boolean nor string.
        """
        check_columns(frame, columns, "feature column", where)
        levels = {}
        for column in columns:
            if not _is_number(frame[column]):
                levels[column] = tuple(sorted(set(_strings(frame[column], where).dropna())))
        return cls(tuple(columns), levels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back."""
        return {"columns": list(self.columns), "levels": {name: list(known) for name, known in self.levels.items()}}

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Encoding:
        """Read what `to_dict` wrote."""
        levels = {str(name): tuple(map(str, known)) for name, known in described["levels"].items()}
        return cls(tuple(map(str, described["columns"])), levels)

    @property
    def names(self) -> tuple[str, ...]:
        """The matrix's columns, in order."""
        return tuple(name for column in self.columns for name in self.names_of(column))

    def names_of(self, column: str) -> tuple[str, ...]:
        """Return the matrix columns that one DataFrame column becomes."""
        if column not in self.levels:
            return (column,)
        return tuple(f"{column}={level}" for level in self.levels[column])

    def matrix(
        self, frame: pd.DataFrame, where: str, *, order: NDArray[np.int64] | None = None, ones: bool = False
    ) -> NDArray[np.float32]:
        """Return the columns of `frame` as one float32 matrix, NaN where a number is null.

        Parameters
        ----------
        frame : DataFrame of n rows
        where : str
            Whose features these are, for messages.
        order : int64 array of m row numbers, optional
            Which rows to take, in which order; all n in their order by default.
        ones : bool, default False
            Append a column of ones.

        Returns
        -------
        float32 array, C order, of shape (n or m, number of names + 1 with `ones`)

        Raises
        ------
        InvalidModelInput
            A column is missing, infinite, or holds strings where fit saw numbers.
        """
        check_columns(frame, self.columns, "feature column", where)
        n = len(frame) if order is None else len(order)
        out = np.empty((n, len(self.names) + ones), dtype=np.float32)
        place = 0
        for column in self.columns:
            if column in self.levels:
                codes = self._codes(frame[column], where)
                codes = codes if order is None else codes[order]
                width = len(self.levels[column])
                out[:, place : place + width] = codes[:, None] == np.arange(width)
                place += width
                continue
            numbers = self._checked_numbers(frame[column], where)
            out[:, place] = numbers if order is None else numbers[order]
            place += 1
        if ones:
            out[:, place] = 1.0
        return out

    def sparse_matrix(self, frame: pd.DataFrame, where: str) -> csc_matrix:
        """Return the columns of `frame` as one sparse float32 matrix, where null is 0.

        A pandas Sparse column is never made dense, unless its fill value is neither 0 nor null.

        Parameters
        ----------
        frame : DataFrame of n rows
        where : str
            Whose features these are, for messages.

        Returns
        -------
        csc_matrix of float32, of shape (n, number of names)

        Raises
        ------
        InvalidModelInput
            As `matrix`.
        """
        from spr.glmix.sparse import assemble_columns

        check_columns(frame, self.columns, "feature column", where)
        stored: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        for column in self.columns:
            if column in self.levels:
                codes = self._codes(frame[column], where)
                order, width = np.argsort(codes, kind="stable"), len(self.levels[column])
                ends = np.searchsorted(codes[order], np.arange(width + 1))
                stored += [
                    (order[ends[level] : ends[level + 1]], np.ones(ends[level + 1] - ends[level], dtype=np.float32))
                    for level in range(width)
                ]
                continue
            values: NDArray[np.float32]
            if _is_sparse(frame[column]) and _is_number(frame[column]):
                array = frame[column].array
                places = array.sp_index.indices
                values = self._checked_numbers(pd.Series(array.sp_values, name=column), where)
            else:
                values = self._checked_numbers(frame[column], where)
                places = np.arange(len(frame))
            kept = (values != 0) & ~np.isnan(values)
            stored.append((places[kept], values[kept]))
        return assemble_columns(stored, len(frame))

    def linear_rows(self, frame: pd.DataFrame, where: str) -> NDArray[np.float32] | csc_matrix:
        """Return what `Linear` fits and scores: `sparse_matrix` where that is what the columns are, else `matrix`.

        Sparse are: any pandas Sparse column of numbers, or more than 64 levels of strings.
        """
        check_columns(frame, self.columns, "feature column", where)
        levels = sum(len(known) for known in self.levels.values())
        if levels > _MOST_DENSE_LEVELS or any(
            column not in self.levels and _is_sparse(frame[column]) for column in self.columns
        ):
            return self.sparse_matrix(frame, where)
        return self.matrix(frame, where)

    def fixed_rows(self, frame: pd.DataFrame, *, linear: bool) -> NDArray[np.float32] | csc_matrix:
        """Return what a fixed effect reads: `linear_rows`, or `matrix` for trees."""
        return self.linear_rows(frame, "the fixed effect") if linear else self.matrix(frame, "the fixed effect")

    def _codes(self, column: pd.Series, where: str) -> NDArray[np.intp]:
        known = pd.Index(self.levels[str(column.name)], dtype=object)
        return known.get_indexer(pd.Index(_strings(column, where), dtype=object))

    @staticmethod
    def _checked_numbers(column: pd.Series, where: str) -> NDArray[np.float32]:
        if not _is_number(column) and not column.isna().all():
            raise InvalidModelInput(f"feature column {column.name!r} of {where} is not numeric, but was in fit.")
        numbers = _numbers(column)
        if np.isinf(numbers).any():
            raise InvalidModelInput(
                f"feature column {column.name!r} of {where} is infinite (in float32) in "
                f"{int(np.isinf(numbers).sum())} of {len(numbers)} rows; clip it or make it null."
            )
        return numbers


_MOST_DENSE_LEVELS = 64


def read_keys(column: pd.Series, where: str) -> NDArray[np.object_] | NDArray[np.int64]:
    """Return a key column as int64 (no nulls) or as objects: int or str, None where null.

    Raises
    ------
    InvalidModelInput
        Keys that are neither strings nor whole numbers.
    """
    column = column.astype(column.cat.categories.dtype) if isinstance(column.dtype, pd.CategoricalDtype) else column
    null = column.isna().to_numpy()
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_integer_dtype(column.dtype):
        if not null.any():
            return column.to_numpy(dtype=np.int64)
    elif pd.api.types.is_float_dtype(column.dtype):  # whole numbers become floats where pandas meets a null
        numbers = column[~null].to_numpy(dtype=np.float64)
        if not np.array_equal(numbers, np.round(numbers)):
            raise InvalidModelInput(f"key column {column.name!r} of {where} holds fractions; use strings or integers.")
    elif pd.api.types.infer_dtype(column, skipna=True) not in ("string", "integer", "empty"):
        found = pd.api.types.infer_dtype(column, skipna=True)
        raise InvalidModelInput(
            f"key column {column.name!r} of {where} holds {found} values; allowed: all strings or all integers. "
            "Convert it with .astype(str)."
        )
    out = np.full(len(column), None, dtype=object)
    known = column[~null]
    out[~null] = known.astype(np.int64) if pd.api.types.is_numeric_dtype(column.dtype) else known
    return out


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)


def _is_sparse(column: pd.Series) -> bool:
    """Tell whether a column is stored sparsely, its other values 0 or null."""
    if not isinstance(column.dtype, pd.SparseDtype):
        return False
    fill = column.dtype.fill_value
    return bool(pd.isna(fill) or fill == 0)


def _numbers(column: pd.Series) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return cast("NDArray[np.float32]", column.to_numpy(dtype=np.float32, na_value=np.nan))


def _strings(column: pd.Series, where: str) -> pd.Series:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in ("string", "empty", "categorical", "boolean", "integer", "floating", "mixed-integer"):
        raise InvalidModelInput(
            f"feature column {column.name!r} of {where} holds {kind} values; allowed: numbers, booleans, strings."
        )
    values = column.astype(object)
    return values.where(values.isna(), values.map(str))
