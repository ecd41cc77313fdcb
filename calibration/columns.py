"""Reading a column of a table, or saying what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def numbers(table: pd.DataFrame, column: str, name: str = "impressions") -> NDArray[np.float64]:
    """Return a column as float64, null as NaN.

    Parameters
    ----------
    table : DataFrame
    column : str
    name : str
        Of the table, for errors.

    Returns
    -------
    float64[n]

    Raises
    ------
    CalibrationError
        The column holds something else than numbers.
    """
    try:
        return np.asarray(table[column].to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name}: {column} does not hold numbers: {error}") from error


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], name: str = "impressions") -> None:
    """Refuse what is no table, or lacks a column.

    Parameters
    ----------
    table : DataFrame
    columns : tuple of str
    name : str
        Of the table, for errors.

    Raises
    ------
    CalibrationError
        It names what is missing and what was found.
    """
    if not hasattr(table, "columns"):
        raise CalibrationError(f"{name} must be a DataFrame; found {type(table).__name__}")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise CalibrationError(
            f"{name}: missing {', '.join(missing)}; found: {', '.join(map(str, table.columns))}. "
            "Columns of other names: table.rename(columns={...})"
        )
