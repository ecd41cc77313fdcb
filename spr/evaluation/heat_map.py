"""A matrix as a picture: shades for the eye, and in each cell the figure that also reads in grey."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def draw_heat_map(panel: Axes, matrix: pd.DataFrame, text: pd.DataFrame, *, limit: float) -> None:
    """Draw a matrix of changes: red is less, blue is more, nothing is drawn where it is null.

    Parameters
    ----------
    panel : Axes
        Filled; axis titles are the caller's.
    matrix : DataFrame
        Its index and columns are written at the axes.
    text : DataFrame of str
        What stands in each cell, of the same shape; with a sign, since red and blue are alike in grey.
    limit : float
        A change of this size has the darkest shade.
    """
    shown, written = matrix.to_numpy(dtype=np.float64), text.to_numpy(dtype=object).tolist()
    panel.imshow(np.ma.masked_invalid(shown), cmap="RdBu", vmin=-limit, vmax=limit)
    for (row, column), change in np.ndenumerate(shown):
        ink = "white" if abs(change) > 0.6 * limit else "black"
        panel.text(column, row, written[row][column], ha="center", va="center", fontsize=8, color=ink)
    panel.set_xticks(range(len(matrix.columns)), matrix.columns, rotation=45, ha="right", fontsize=8)
    panel.set_yticks(range(len(matrix.index)), matrix.index, fontsize=8)
