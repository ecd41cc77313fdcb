"""The rows of a fit, checked: labels, weights and offsets that fit X, a validation set put after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, name_unknown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def gather_rows(
    X: pd.DataFrame,
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
    checked = []
    for number, (frame, labels, weights, offsets) in enumerate(sets):
        where = "validation " if number else ""
        check_frame(frame)
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
    whole = X
    if validation is not None:
        for column in X.columns:
            if column not in validation[0].columns:
                raise InvalidModelInput(
                    name_unknown("column", str(column), map(str, validation[0].columns), "validation X")
                )
        whole = pd.concat([X, validation[0]], ignore_index=True)
    labels, weight, margin = (np.concatenate(parts) for parts in zip(*checked, strict=True))
    return whole, labels, weight, margin, np.arange(len(whole)) < len(X)


def check_frame(X: object) -> None:
    """Raise InvalidModelInput unless `X` is a DataFrame."""
    if not isinstance(X, pd.DataFrame):
        raise InvalidModelInput(f"X is a {type(X).__name__}; it must be a pandas DataFrame with named columns.")


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
