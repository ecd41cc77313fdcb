"""Reading a column of a table, or saying what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def numbers(impressions: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column as float64, null as NaN.

    Parameters
    ----------
    impressions : DataFrame
    column : str

    Returns
    -------
    float64[n]

    Raises
    ------
    CalibrationError
        The column holds something else than numbers.
    """
    try:
        return np.asarray(impressions[column].to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"impressions: {column} does not hold numbers: {error}") from error


def require_columns(impressions: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse a table that lacks a column.

    Parameters
    ----------
    impressions : DataFrame
    columns : tuple of str

    Raises
    ------
    CalibrationError
        It names what is missing and what was found.
    """
    missing = [column for column in columns if column not in impressions.columns]
    if missing:
        raise CalibrationError(
            f"impressions: missing {', '.join(missing)}; found: {', '.join(map(str, impressions.columns))}"
        )
