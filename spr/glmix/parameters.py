"""The parameters of an estimator, checked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.fixed import Linear, Trees
from spr.glmix.model import FIXED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spr.glmix.estimator import _GLMix as Estimator
    from spr.glmix.model import MixedModel


def check_parameters(model: Estimator) -> None:
    """Raise InvalidModelInput where a parameter of an estimator cannot be used."""
    for name in ("sweeps", "n_threads"):
        if not isinstance(getattr(model, name), int) or getattr(model, name) < 1:
            raise InvalidModelInput(f"{name} is {getattr(model, name)!r}; allowed: integers >= 1.")
    for name, low, high in (("negative_share", 0.0, 1.0), ("tolerance", 0.0, 1.0)):
        if not low < getattr(model, name) <= high:
            raise InvalidModelInput(f"{name} is {getattr(model, name)!r}; allowed: above {low:g}, at most {high:g}.")
    if model.variance not in (None, "diagonal", "full"):
        raise InvalidModelInput(name_unknown("variance", str(model.variance), ["diagonal", "full"]))
    if not isinstance(model.fixed, Trees | Linear | None):
        raise InvalidModelInput(f"fixed is a {type(model.fixed).__name__}; allowed: Trees, Linear or None.")
    if model.fixed is None and not model.random_effects:
        raise InvalidModelInput("neither a fixed effect nor a random effect is asked for; give one.")
    names = [effect.name for effect in model.random_effects]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise InvalidModelInput(f"two random effects are called {name!r}; margins need a name each.")
    for effect in model.random_effects:
        if effect.parent is not None and effect.parent not in names:
            raise InvalidModelInput(name_unknown("parent", effect.parent, names, f"random effect {effect.name!r}"))


def check_coordinates(
    model: Estimator, origin: MixedModel | None, locked: Sequence[str], forgetting: float | None
) -> list[str]:
    """Return the coordinates in update order, having checked what `start`, `locked` and `forgetting` name."""
    names = [FIXED, *(effect.name for effect in model.random_effects)]
    order = list(model.update_order) if model.update_order is not None else names
    wanted = names if model.fixed is not None else names[1:]
    for name in order:
        if name not in names:
            raise InvalidModelInput(name_unknown("coordinate", name, names, "update_order"))
    if sorted(set(order) | {FIXED}) != sorted(names) or len(set(order)) != len(order) or set(wanted) - set(order):
        raise InvalidModelInput(f"update_order is {order}; it must name each of {wanted} once.")
    for name in locked:
        if origin is None:
            raise InvalidModelInput(f"locked names {name!r}, but there is no start to take it from.")
        if name not in origin.names:
            raise InvalidModelInput(
                f"the coefficients of locked coordinate {name!r} are missing from start; it has: "
                f"{', '.join(origin.names)}."
            )
        if name not in names:
            raise InvalidModelInput(name_unknown("locked coordinate", name, names))
    if forgetting is not None:
        if origin is None:
            raise InvalidModelInput("forgetting is given, but there is no start whose posterior could be kept.")
        if not 0.0 < forgetting <= 1.0:
            raise InvalidModelInput(f"forgetting is {forgetting!r}; allowed: above 0, at most 1.")
    return order


def fixed_columns(model: Estimator, frame: pd.DataFrame) -> list[str]:
    """Return the columns of the fixed effect: those it names, or every number that is neither key nor time."""
    assert model.fixed is not None  # noqa: S101 - for mypy: the caller has looked
    if model.fixed.features is not None:
        return list(model.fixed.features)
    taken = {effect.key for effect in model.random_effects} | {model.time}
    found = [
        str(column)
        for column in frame.columns
        if column not in taken
        and (pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_bool_dtype(frame[column]))
    ]
    if not found:
        raise InvalidModelInput("Trees(features=None) found no numeric column that is neither key nor time.")
    return found
