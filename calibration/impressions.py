"""What a calibrator reads of the impressions table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.errors import CalibrationError
from calibration.rows import CalibrationRows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from calibration.examination import PositionExamination

RankerKey = tuple[str, str]
"""(entity_type, ranker_version)"""


def learning_rows(
    impressions: pd.DataFrame, examination: PositionExamination | None
) -> tuple[NDArray[np.intp], CalibrationRows]:
    """Pick and check the rows that calibrators may learn from: random policy, mature, scorable.

    Parameters
    ----------
    impressions : DataFrame
        As in ``CalibratorSet.fit``.
    examination : PositionExamination, optional
        Looked up at the rows' positions.

    Returns
    -------
    row_number : int[k]
        Which rows of the table; possibly none.
    rows : CalibrationRows
        These rows.

    Raises
    ------
    CalibrationError
        A missing column, or a value out of range with its row number.

    Examples
    --------
    >>> import pandas as pd
    >>> impressions = pd.DataFrame({"entity_type": "people", "ranker_version": "p1",
    ...                             "raw_score": [0.1, 0.2, None], "response": [1.0, None, 0.0]})
    >>> learning_rows(impressions, None)[0]
    array([0])
    """
    require_columns(impressions, ("entity_type", "ranker_version", "raw_score", "response"))
    raw_score, response = numbers(impressions, "raw_score"), numbers(impressions, "response")
    learnable = ~np.isnan(raw_score) & ~np.isnan(response)
    if "policy" in impressions.columns:
        learnable &= (impressions["policy"] == "random").to_numpy(dtype=bool, na_value=False)
    row_number = np.flatnonzero(learnable)
    examined = None
    if examination is not None:
        require_columns(impressions, ("position",))
        examined = examination.at(numbers(impressions, "position")[row_number])
    if row_number.size == 0:
        nothing = np.empty(0)
        return row_number, CalibrationRows(nothing, nothing, nothing, nothing)
    return row_number, CalibrationRows.checked(
        raw_score[row_number], response[row_number], examination=examined, row_number=row_number
    )


def rows_by_ranker(impressions: pd.DataFrame) -> dict[RankerKey, NDArray[np.intp]]:
    """Group the rows of a table by who scored them.

    Parameters
    ----------
    impressions : DataFrame
        Columns entity_type and ranker_version, not null.

    Returns
    -------
    dict of (entity_type, ranker_version) to int[k]
        Positions of the rows, increasing.

    Raises
    ------
    CalibrationError
        A null entity type or version.

    Examples
    --------
    >>> import pandas as pd
    >>> rows_by_ranker(pd.DataFrame({"entity_type": ["a", "b", "a"], "ranker_version": "1"}))
    {('a', '1'): array([0, 2]), ('b', '1'): array([1])}
    """
    names = impressions[["entity_type", "ranker_version"]]
    null = names.isna().to_numpy().any(axis=1)
    if null.any():
        raise CalibrationError(f"entity_type or ranker_version is null; first: row {int(np.argmax(null))}")
    if names.empty:
        return {}
    ranker = names.groupby(["entity_type", "ranker_version"], observed=True).ngroup().to_numpy()
    order = np.argsort(ranker, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(ranker[order])) + 1)
    return {(str(names.iloc[rows[0], 0]), str(names.iloc[rows[0], 1])): rows for rows in groups}


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
