"""Whose the places at the top are: shares of the placements by edge type, entity type or anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput
from spr.metrics.bootstrap import bound_replicates, draw_weights, replicate
from spr.metrics.sums import Sums, check_finite, check_k, check_replicates, check_weights, code_groups, divide

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def placement_shares(
    kind: ArrayLike,
    position: ArrayLike,
    viewer: ArrayLike,
    *,
    within_top: int | None = None,
    weight: ArrayLike | None = None,
    n_replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the share of each kind among the placements at the top of pages.

    Parameters
    ----------
    kind : array of str, shape (n_rows,)
        Edge type, entity type or cohort kind of each cohort placed.
    position : float array, shape (n_rows,)
        0 = top; where it was, or where another order would put it.
    viewer : array, shape (n_rows,)
        Who saw the page.
    within_top : int, optional
        Placements at positions 0 to ``within_top - 1`` count; default: all.
    weight : float array, shape (n_rows,), optional
        What each placement counts, >= 0, e.g. the chance that its position is seen; 1 each where not given.
    n_replicates : int, default 1000
        Of the bootstrap over viewers; see `evaluate_predictions`.
    level : float, default 0.95
        Confidence level.
    seed : int, default 0
        Of the bootstrap.

    Returns
    -------
    DataFrame
        By kind, sorted: ``share``, which sums to 1, ``low``, ``high``, and ``placements`` that count.

    Raises
    ------
    InvalidModelInput
        No rows, none above ``within_top``, lengths that differ, a kind or viewer that is null, weights that are
        negative or all 0.

    Examples
    --------
    >>> shares = placement_shares(["follow", "connection", "follow", "connection"], [0, 1, 0, 1], ["v", "v", "w", "w"],
    ...                           weight=[1.0, 0.5, 1.0, 0.5])
    >>> shares["share"].round(3).to_dict()
    {'connection': 0.333, 'follow': 0.667}
    """
    check_replicates(level, n_replicates)
    at = check_finite("position", position)
    code_groups("kind", kind, at)  # refuses nulls
    kinds, viewers = np.asarray(kind, dtype=object), code_groups("viewer", viewer, at)
    weights = check_weights(weight, at)
    if within_top is not None:
        check_k("within_top", within_top)
        top = at < within_top
        if not weights[top].any():
            raise InvalidModelInput(f"position: no placement of weight above 0 within the top {within_top}")
        kinds, viewers, weights = kinds[top], viewers[top], weights[top]
    found = {str(name): kinds == name for name in sorted(set(kinds))}
    sums = {
        name: Sums(2, [(0, weights * of_kind), (1, weights)], lambda total: divide(total[..., 0], total[..., 1]))
        for name, of_kind in found.items()
    }
    estimate = np.array([one.estimate() for one in sums.values()])
    drawn = replicate(sums, viewers, draw_weights(int(viewers.max()) + 1, n_replicates, seed))
    low, high = bound_replicates(estimate, np.array([drawn[name] for name in sums]), level)
    columns = {
        "share": estimate,
        "low": np.maximum(low, 0.0),
        "high": np.minimum(high, 1.0),
        "placements": [int(found[name].sum()) for name in sums],
    }
    return pd.DataFrame(columns, index=pd.Index(list(sums), name="kind"))
