"""The rows of a fit, checked: labels, weights and offsets that fit X, a validation set put after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.families import GAUSSIAN
from spr.glmix.holdout import salted_hashes, unit_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from spr.glmix.families import Family

    Floats = NDArray[np.float64]


def gather_rows(
    X: Any,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    offset: ArrayLike | None,
    validation: tuple[Any, ...] | None,
) -> tuple[pd.DataFrame, Floats, Floats, Floats, NDArray[np.bool_]]:
    """Check the rows and put those of a validation set after them; the last array says which rows teach."""
    sets = [(X, y, sample_weight, offset)]
    if validation is not None:
        if not 2 <= len(validation) <= 4:
            raise InvalidModelInput(f"validation has {len(validation)} parts; give (X, y[, sample_weight[, offset]]).")
        sets.append((*validation, None, None)[:4])
    checked, frames = [], []
    for number, (frame, labels, weights, offsets) in enumerate(sets):
        where = "validation " if number else ""
        frame = read_frame(frame)
        frames.append(frame)
        n = len(frame)
        if not n:
            raise InvalidModelInput(f"{where}X has 0 rows; there is nothing to learn from.")
        weight = np.ones(n) if weights is None else finite_vector(weights, n, f"{where}sample_weight")
        if (weight < 0).any():
            first = int(np.flatnonzero(weight < 0)[0])
            raise InvalidModelInput(
                f"{where}sample_weight: {int((weight < 0).sum())} of {n} are negative; first: row {first}."
            )
        checked.append(
            (
                numeric_vector(labels, n, f"{where}y"),
                weight,
                np.zeros(n) if offsets is None else finite_vector(offsets, n, f"{where}offset"),
            )
        )
    whole = frames[0]
    if len(frames) > 1:
        for column in whole.columns:
            if column not in frames[1].columns:
                raise InvalidModelInput(
                    name_unknown("column", str(column), map(str, frames[1].columns), "validation X")
                )
        whole = pd.concat(frames, ignore_index=True)
    labels, weight, margin = (np.concatenate(parts) for parts in zip(*checked, strict=True))
    return whole, labels, weight, margin, np.arange(len(whole)) < len(frames[0])


def read_frame(X: object) -> pd.DataFrame:
    """Return X as a DataFrame; it may be an Arrow table, or anything else that has `to_pandas`.

    Raises
    ------
    InvalidModelInput
        X is neither.
    """
    if not isinstance(X, pd.DataFrame) and hasattr(X, "to_pandas"):
        X = X.to_pandas()
    if not isinstance(X, pd.DataFrame):
        raise InvalidModelInput(
            f"X is a {type(X).__name__}; it must be a pandas DataFrame or an Arrow table with named columns."
        )
    return X


def numeric_vector(values: ArrayLike, n: int, what: str) -> Floats:
    """Return `values` as float64 of length `n`, null as NaN; InvalidModelInput where that cannot be."""
    try:
        vector = np.asarray(pd.Series(values).to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as problem:
        raise InvalidModelInput(f"{what} holds values that are not numbers: {problem}") from problem
    if vector.shape != (n,):
        raise InvalidModelInput(f"{what}: {vector.size} values for {n} rows of X.")
    return cast("Floats", vector)


def finite_vector(values: ArrayLike, n: int, what: str) -> Floats:
    """Return `values` as float64 of length `n`; InvalidModelInput where one is not finite."""
    vector = numeric_vector(values, n, what)
    if not np.isfinite(vector).all():
        first = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise InvalidModelInput(
            f"{what}: {int((~np.isfinite(vector)).sum())} of {n} values are NaN or infinite; first: row {first}."
        )
    return vector


def downsample(
    frame: pd.DataFrame,
    labels: Floats,
    weights: Floats,
    taught: NDArray[np.bool_],
    share: float,
    family: Family,
    seed: int,
) -> tuple[NDArray[np.bool_], Floats]:
    """Keep a share of the rows with label 0, by a hash of the row, and divide the weights of those kept by it.

    Parameters
    ----------
    frame : DataFrame of n rows
    labels, weights : float64 arrays of n
    taught : bool array of n
        Rows of a validation set are all kept, at their weight.
    share : float in (0, 1)
    family : Family
        binomial or poisson.
    seed : int

    Returns
    -------
    kept : bool array of n
    weights : float64 array of n

    Raises
    ------
    InvalidModelInput
        The family is gaussian.
    """
    if family.code == GAUSSIAN:
        raise InvalidModelInput("negative_share: a label of 0 is no negative in a gaussian model; leave it at 1.")
    negative = np.flatnonzero(taught & (labels == 0))
    part = frame.iloc[negative]
    plain = part[[column for column in part.columns if not part[column].map(np.ndim).any()]] if len(part) else part
    hashes = pd.util.hash_pandas_object(plain, index=False).to_numpy()
    # equal rows are told apart by how many of them came before, so that each has a lot of its own
    copies = pd.Series(hashes).groupby(hashes).cumcount().to_numpy().astype(np.uint64)
    drawn = unit_interval(salted_hashes(hashes + copies * np.uint64(0x9E3779B97F4A7C15), seed + 2)) < share
    kept = np.ones(len(frame), dtype=bool)
    kept[negative[~drawn]] = False
    weights = weights.copy()
    weights[negative[drawn]] /= share
    return kept, weights
