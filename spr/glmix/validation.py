"""Which rows judge a model's settings: the latest, whole groups, or rows by a hash of what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.encoding import check_columns, read_keys
from spr.glmix.holdout import salted_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.glmix.estimator import GLMixClassifier, GLMixRegressor

    Mask = NDArray[np.bool_]

HASHED: Final = ("string", "integer", "boolean", "floating", "empty", "datetime", "date")


def choose_validation(
    model: GLMixClassifier | GLMixRegressor,
    X: pd.DataFrame,
    active: Mask,
    groups: NDArray[np.generic] | None,
    validation: object,
    share: float,
    seed: int,
) -> Mask:
    """Say of each row whether it judges.

    Parameters
    ----------
    model : GLMixClassifier or GLMixRegressor
        Its time, its keys, its features.
    X : DataFrame of n rows
    active : bool array of n
        Rows with a positive weight; only they count towards the share.
    groups : array of n, optional
    validation : {"time", "group", "row"}, bool array of n, or None
        As in `spr.glmix.tune`.
    share : float
    seed : int

    Returns
    -------
    bool array of n
        With an active row on either side.

    Raises
    ------
    InvalidModelInput
        No validation or no training rows, or what the split is by is not there.
    """
    if not 0.0 < share < 1.0:
        raise InvalidModelInput(f"validation_share is {share!r}; allowed: above 0, below 1.")
    if validation is None:
        validation = "time" if model.time is not None else "row" if groups is None else "group"
    if not isinstance(validation, str):
        judging = np.asarray(validation)
        if judging.dtype != np.bool_ or judging.shape != active.shape:
            raise InvalidModelInput(
                f"validation is an array of {judging.dtype}, shape {judging.shape}; it must be of bool, one for each "
                f"of {active.size} rows of X."
            )
        why = "the given rows"
    elif validation == "time":
        judging, why = _latest(model, X, active, share), "their times are all the same"
    elif validation == "group":
        judging, why = _whole_groups(model, X, groups, active, share, seed), "there are fewer than two groups"
    elif validation == "row":
        judging = _lowest(_row_hashes(X, seed), active, share)
        why = "all rows of X hold the same"
    else:
        raise InvalidModelInput(name_unknown("validation", validation, ["time", "group", "row"]))
    for side, chosen in (("validation", judging), ("training", ~judging)):
        if not (chosen & active).any():
            raise InvalidModelInput(f"no {side} rows with a positive weight: {why}. Choose another validation.")
    return judging


def _latest(model: GLMixClassifier | GLMixRegressor, X: pd.DataFrame, active: Mask, share: float) -> Mask:
    if model.time is None:
        raise InvalidModelInput("validation='time' needs the model's time column: give the model time=<column>.")
    check_columns(X, [model.time], "time column", "the estimator")
    if X[model.time].isna().any():
        raise InvalidModelInput(f"time column {model.time!r}: {int(X[model.time].isna().sum())} rows are null.")
    rank = pd.factorize(X[model.time], sort=True)[0].astype(np.int64)
    return ~_lowest(rank, active, 1.0 - share)


def _whole_groups(
    model: GLMixClassifier | GLMixRegressor,
    X: pd.DataFrame,
    groups: NDArray[np.generic] | None,
    active: Mask,
    share: float,
    seed: int,
) -> Mask:
    if groups is not None:
        column = pd.Series(groups, name="groups")
    elif model.random_effects:
        key = model.random_effects[0].key
        check_columns(X, [key], "key column", f"random effect {model.random_effects[0].name!r}")
        column = X[key]
    else:
        raise InvalidModelInput("validation='group' needs groups, or a random effect whose key names them.")
    known = column.notna().to_numpy()
    hashes = salted_hashes(read_keys(column[known], "groups"), seed)
    judging = np.zeros(len(column), dtype=bool)
    present = np.unique(hashes[active[known]])
    if present.size > 1:
        n_judging = min(max(1, round(share * present.size)), present.size - 1)
        judging[known] = hashes <= present[n_judging - 1]
    return judging


def _row_hashes(X: pd.DataFrame, seed: int) -> NDArray[np.uint64]:
    """Hash what each row holds, but in columns of lists and the like."""
    plain = [
        number
        for number in range(X.shape[1])
        if not pd.api.types.is_object_dtype(X.dtypes.iloc[number])
        or pd.api.types.infer_dtype(X.iloc[:, number], skipna=True) in HASHED
    ]
    return salted_hashes(pd.util.hash_pandas_object(X.iloc[:, plain], index=False).to_numpy(), seed)


def _lowest(order: NDArray[Any], active: Mask, share: float) -> Mask:
    """Choose about a share of the active rows, lowest first; rows that tie stay together, and some are left."""
    levels, counts = np.unique(order[active], return_counts=True)
    if levels.size < 2:
        return np.zeros(order.size, dtype=bool)
    taken = np.cumsum(counts)[:-1]
    last = int(np.argmin(np.abs(taken - share * counts.sum())))
    return np.asarray(order <= levels[last])


def has_known_keys(key: str, X: pd.DataFrame, judging: Mask) -> bool:
    """Say whether a validation row has a key that training rows know."""
    check_columns(X, [key], "key column", "X")
    return bool(X[key][judging].isin(X[key][~judging].dropna()).any())
