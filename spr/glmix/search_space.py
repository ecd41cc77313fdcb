"""What a search may change: settings by dotted name, ranges and choices, the space around a given model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sklearn.base import clone

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
from spr.glmix.fixed import Linear, Trees
from spr.glmix.parameters import check_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

Model = TypeVar("Model", GLMixClassifier, GLMixRegressor)

IDENTITY: Final = ("name", "key")  # of a random effect: what it is, not how it is fitted
PENALTIES: Final = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def default_space(model: GLMixClassifier | GLMixRegressor, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `tune` searches where nothing else is asked for, around the settings of a model.

    Trees: depth, rounds (boosting stops early all the same) and learning rate. Linear: l2 two decades to either side;
    l1 likewise, or none and some. A random effect's l2: learnt or some values where the model learns it, two decades
    to either side where it is one number; left alone where it is given by column or holds the effect at 0. Sweeps:
    two to either side.

    Parameters
    ----------
    model : GLMixClassifier or GLMixRegressor
    without : sequence of str, default ()
        Random effects to leave alone.

    Returns
    -------
    dict of str to range or list
        As `tune` takes it, to be changed.

    Examples
    --------
    >>> from spr.glmix import RandomEffect
    >>> default_space(GLMixClassifier(Linear(["age"], l1=1.0), [RandomEffect("member", key="user_id", l2=10.0)]))
    {'fixed.l1': (0.01, 100.0, 'log'), 'fixed.l2': (0.01, 100.0, 'log'), 'member.l2': (0.1, 1000.0, 'log'),
     'sweeps': (2, 6)}
    """
    space: dict[str, Any] = {}
    fixed = model.fixed
    if isinstance(fixed, Trees):
        space["fixed.max_depth"] = (min(2, fixed.max_depth), max(8, fixed.max_depth + 2))
        space["fixed.n_rounds"] = (max(1, fixed.n_rounds // 3), 2 * fixed.n_rounds, "log")
        space["fixed.learning_rate"] = (min(0.02, fixed.learning_rate), max(0.3, fixed.learning_rate), "log")
    elif isinstance(fixed, Linear):
        space["fixed.l1"] = _decades_around(fixed.l1) if fixed.l1 > 0 else [0.0, *PENALTIES]
        space["fixed.l2"] = _decades_around(fixed.l2 or 1.0)
    for effect in model.random_effects:
        if effect.name in without or isinstance(effect.l2, Mapping) or effect.l2 == math.inf:
            continue
        space[f"{effect.name}.l2"] = [None, *PENALTIES] if effect.l2 is None else _decades_around(effect.l2 or 1.0)
    if model.random_effects:
        space["sweeps"] = (max(1, model.sweeps - 2), model.sweeps + 2)
    return space


def _decades_around(penalty: float) -> tuple[float, float, str]:
    return penalty / 100.0, penalty * 100.0, "log"


@dataclass(frozen=True)
class Range:
    """A setting between two numbers, both included; whole numbers where the parameter is one."""

    low: float
    high: float
    log: bool
    whole: bool

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask an Optuna trial for a value."""
        suggested = trial.suggest_int if self.whole else trial.suggest_float
        return suggested(name, self.low, self.high, log=self.log)

    def drawn_as(self, value: Any) -> Any:
        """Return what Optuna calls a value, or None where it lies outside."""
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return value if inside else None

    @property
    def ends(self) -> list[Any]:
        """Values that the model must take."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Choices:
    """A setting among some of any kind."""

    values: list[Any]

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask an Optuna trial for a value."""
        # by their number: Optuna's own choices are plain values only
        return self.values[trial.suggest_categorical(name, list(range(len(self.values))))]

    def drawn_as(self, value: Any) -> Any:
        """Return what Optuna calls a value, or None where it is no choice."""
        return self.values.index(value) if value in self.values else None

    @property
    def ends(self) -> list[Any]:
        """Values that the model must take."""
        return self.values


def read_space(
    model: GLMixClassifier | GLMixRegressor, space: Mapping[str, Any], unjudged: Sequence[str]
) -> dict[str, Range | Choices]:
    """Read what to search, having tried that the model takes both ends of each range and every choice."""
    types = _parameter_types(model)
    if not space:
        raise InvalidModelInput(f"the space is empty; it may have: {', '.join(sorted(types))}.")
    searched: dict[str, Range | Choices] = {}
    for name, asked in space.items():
        if name not in types:
            raise InvalidModelInput(name_unknown("parameter", str(name), types, "the space"))
        effect = name.rpartition(".")[0]
        if effect in unjudged:
            raise InvalidModelInput(
                f"{name!r} cannot be searched: no validation row has a key of {effect!r} that training rows know, so "
                "that it changes nothing they see. Validate by time or by row."
            )
        searched[name] = _read_choices(name, asked) if isinstance(asked, list) else _read_range(name, asked, types)
        for value in searched[name].ends:
            check_parameters(with_settings(model, {name: value}))
    return searched


def _read_choices(name: str, asked: list[Any]) -> Choices:
    if not asked:
        raise InvalidModelInput(f"{name!r}: the list of choices is empty.")
    return Choices(asked)


def _read_range(name: str, asked: object, types: Mapping[str, str]) -> Range:
    if not isinstance(asked, tuple) or asked[2:] not in ((), ("log",)) or len(asked) < 2:
        raise InvalidModelInput(
            f'{name!r} is {asked!r}; allowed: (low, high), (low, high, "log") or a list of choices.'
        )
    low, high = asked[:2]
    whole = types[name] == "int"
    if not whole and "float" not in types[name]:
        raise InvalidModelInput(f"{name!r} is not a number; give a list of choices.")
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int if whole else int | float) or not math.isfinite(end):
            raise InvalidModelInput(f"{name!r}: {end!r} in {asked!r}; allowed: {'integers' if whole else 'numbers'}.")
    log = len(asked) == 3
    if low >= high or (log and low <= 0):
        raise InvalidModelInput(
            f"{name!r}: the range {asked!r} is empty; allowed: low < high{', low > 0 on a log scale' if log else ''}."
        )
    return Range(low, high, log, whole)


def _parameter_types(model: GLMixClassifier | GLMixRegressor) -> dict[str, str]:
    """Return the type of each parameter that can be searched, as its annotation says it."""
    types = {"sweeps": "int"}
    for part, spec in _parts(model).items():
        types |= {f"{part}.{known.name}": str(known.type) for known in fields(spec) if known.name not in IDENTITY}
    return types


def _parts(model: GLMixClassifier | GLMixRegressor) -> dict[str, Any]:
    fixed = {} if model.fixed is None else {"fixed": model.fixed}
    return fixed | {effect.name: effect for effect in model.random_effects}


def setting(model: GLMixClassifier | GLMixRegressor, name: str) -> Any:
    """Return a model's own setting by its dotted name."""
    part, _, parameter = name.rpartition(".")
    return getattr(_parts(model)[part] if part else model, parameter)


def with_settings(model: Model, params: Mapping[str, Any]) -> Model:
    """Return an unfitted copy of the model with other settings."""
    changes: dict[str, dict[str, Any]] = {}
    for name, value in params.items():
        part, _, parameter = name.rpartition(".")
        changes.setdefault(part, {})[parameter] = value
    parts = {part: replace(spec, **changes.get(part, {})) for part, spec in _parts(model).items()}
    changed: Model = clone(model)
    changed.set_params(
        fixed=parts.get("fixed"),
        random_effects=[parts[effect.name] for effect in model.random_effects],
        **changes.get("", {}),
    )
    return changed
