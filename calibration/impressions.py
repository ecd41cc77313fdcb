"""What a calibrator reads of the impressions table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration.columns import numbers, require_columns
from calibration.errors import CalibrationError
from calibration.examination import Examination
from calibration.rows import CalibrationRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.families import ResponseFamily

Ranker = tuple[str, str]
"""(entity_type, ranker_version)"""

Segment = tuple[str, str, str]
"""(entity_type, ranker_version, segment)"""

RankerKey = Ranker | Segment


def learnable_rows(impressions: pd.DataFrame) -> NDArray[np.intp]:
    """Pick the rows that calibrators may learn from: random policy, mature, scorable.

    Parameters
    ----------
    impressions : DataFrame
        As in ``CalibratorSet.fit``.

    Returns
    -------
    int[k]
        Which rows of the table; possibly none.

    Raises
    ------
    CalibrationError
        A missing column, or one that does not hold numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> impressions = pd.DataFrame({"entity_type": "people", "ranker_version": "p1",
    ...                             "raw_score": [0.1, 0.2, None], "response": [1.0, None, 0.0]})
    >>> learnable_rows(impressions)
    array([0])
    """
    require_columns(impressions, ("entity_type", "ranker_version", "raw_score", "response"))
    raw_score, response = numbers(impressions, "raw_score"), numbers(impressions, "response")
    learnable = ~np.isnan(raw_score) & ~np.isnan(response)
    if "policy" in impressions.columns:
        learnable &= (impressions["policy"] == "random").to_numpy(dtype=bool, na_value=False)
    return np.flatnonzero(learnable)


def checked_rows(
    impressions: pd.DataFrame,
    index: NDArray[np.intp],
    examination: Examination | None,
    family: ResponseFamily,
) -> CalibrationRows:
    """Read and check rows of one entity type.

    Parameters
    ----------
    impressions : DataFrame
        As in ``CalibratorSet.fit``.
    index : int[k]
        Which rows, at least one; of ``learnable_rows``.
    examination : Examination, optional
        Looked up at the rows' positions and slots.
    family : ResponseFamily
        What a response may be.

    Returns
    -------
    CalibrationRows

    Raises
    ------
    CalibrationError
        No position or slot where its examination is given, or a value out of range with its row number.

    Examples
    --------
    >>> import pandas as pd
    >>> from calibration.families import BINARY
    >>> impressions = pd.DataFrame({"raw_score": [0.1, 0.2], "response": [1.0, 0.0]})
    >>> checked_rows(impressions, np.array([1]), None, BINARY).raw_score
    array([0.2])
    """
    rows = impressions.iloc[index]
    return CalibrationRows.checked(
        numbers(rows, "raw_score"),
        numbers(rows, "response"),
        None,
        examined(rows, examination),
        family=family,
        row_number=index,
    )


def examined(impressions: pd.DataFrame, examination: Examination | None) -> NDArray[np.float64]:
    """Return the relative examination of each row's position and slot.

    Parameters
    ----------
    impressions : DataFrame
        With the columns position and slot where their examination is given.
    examination : Examination, optional
        None = no correction.

    Returns
    -------
    float64[n]
        In (0, 1].

    Raises
    ------
    CalibrationError
        A missing column, a position or slot that is null or no whole number, or an examination of another kind.

    Examples
    --------
    >>> import pandas as pd
    >>> from calibration import Examination, PositionExamination
    >>> positions = PositionExamination(np.array([1.0, 0.5]))
    >>> examined(pd.DataFrame({"position": [0, 1]}), Examination(positions))
    array([1. , 0.5])
    """
    if examination is None:
        return np.ones(len(impressions))
    if not isinstance(examination, Examination):
        raise CalibrationError(
            f"examination is a {type(examination).__name__}; say whether it is of positions or of slots: "
            "Examination(position=..., slot=...)"
        )
    require_columns(impressions, examination.columns)
    places = {name: numbers(impressions, name) for name in examination.columns}
    return examination.at(places.get("position"), places.get("slot")) if places else np.ones(len(impressions))


def rows_by_ranker(impressions: pd.DataFrame) -> dict[Ranker, NDArray[np.intp]]:
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
    names = names.astype(str)  # 1 and "1" are one version
    ranker = names.groupby(["entity_type", "ranker_version"]).ngroup().to_numpy()
    order = np.argsort(ranker, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(ranker[order])) + 1)
    return {(str(names.iloc[rows[0], 0]), str(names.iloc[rows[0], 1])): rows for rows in groups}


def segment_names(impressions: pd.DataFrame, segment: str | None) -> NDArray[np.object_]:
    """Return each row's segment.

    Parameters
    ----------
    impressions : DataFrame
    segment : str, optional
        Column; None = no segments.

    Returns
    -------
    object[n]
        Strings; None where the column is null or there is none.

    Raises
    ------
    CalibrationError
        The column is missing, or holds something else than strings and booleans.

    Examples
    --------
    >>> import pandas as pd
    >>> segment_names(pd.DataFrame({"country": ["no", None]}), "country")
    array(['no', None], dtype=object)
    """
    if segment is None:
        return np.full(len(impressions), None, dtype=object)
    require_columns(impressions, (segment,))
    column = impressions[segment]
    known = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna()
    others = [each for each in known if not isinstance(each, str | bool | np.bool)]
    if others:
        raise CalibrationError(
            f"impressions: segment {segment!r} must hold strings or booleans; found {others[0]!r}. "
            "Cut numbers into named bands"
        )
    names = np.array(column.astype(str), dtype=object)
    names[column.isna().to_numpy()] = None
    return names
