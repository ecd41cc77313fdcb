"""Random effects: what the user asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spr.errors import InvalidModelInput
from spr.glmix.coefficients import INTERCEPT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAVES = "leaves"


@dataclass(frozen=True)
class RandomEffect:
    """One coefficient vector per entity: per viewer, per item, per hour, ...

    Parameters
    ----------
    name : str
        What the effect is called in margins, coefficients and history.
    key : str
        The column of X that names the entity: strings or integers. A null key is treated as unseen: the effect
        adds exactly 0 to such a row, and the row teaches it nothing.
    features : sequence of str, or "leaves", default ()
        Columns of X that the coefficients multiply: numeric, boolean or string (one column per level). Null
        counts as 0. Features are not rescaled. "leaves": a few shallow trees are grown over the fixed effect's
        columns, and each entity has a weight on each of their leaves (see `LeafEncoding`).
    intercept : bool, default True
        Whether each entity has an intercept of its own.
    l2 : float or mapping of str to float, optional
        The penalty l2/2 * b^2, fixed, for all coefficients or by column (encoded names and ``"intercept"``);
        `inf` holds a coefficient at 0. By default it is learnt: empirical-Bayes prior variances, then their scale
        on held-out rows. A fitted model's `learnt_l2` gives the mapping that fits the same effect on other rows.
    parent : str, optional
        The name of another random effect within whose key this one is nested, as a viewer in its segment: the
        coefficients are then deviations from the parent's, and an unseen viewer takes its segment's effect.
    min_rows : int, default 1
        Entities with fewer rows get no coefficients; their rows are scored without.
    max_rows : int, optional
        Rows that teach an entity at the most; they are drawn by a hash of the row, and their weights are rescaled
        by n / kept. The others are passive: scored, not trained on.
    max_features : int, optional
        Coefficients an entity has at the most, the intercept not counted: those of the features with the most
        non-zero rows of the entity, the earlier where they tie. The others stay 0.

    Raises
    ------
    InvalidModelInput
        No features and no intercept, a feature named twice, a reserved name, a negative penalty.

    Examples
    --------
    >>> RandomEffect("member", key="viewer_id", features=["age"]).features
    ('age',)
    """

    name: str
    key: str
    features: Sequence[str] = field(default=())
    intercept: bool = True
    l2: float | Mapping[str, float] | None = None
    parent: str | None = None
    min_rows: int = 1
    max_rows: int | None = None
    max_features: int | None = None

    def __post_init__(self) -> None:
        where = f"random effect {self.name!r}"
        if isinstance(self.features, str) and self.features != LEAVES:
            raise InvalidModelInput(
                f"{where}: features is the string {self.features!r}; give a list of columns, or {LEAVES!r}."
            )
        if self.features != LEAVES:
            object.__setattr__(self, "features", tuple(self.features))
        if self.name in ("fixed", "unseen", ""):
            raise InvalidModelInput(f"{where}: the name is reserved; choose another.")
        if not self.features and not self.intercept:
            raise InvalidModelInput(f"{where} has neither features nor an intercept; give it one of them.")
        if INTERCEPT in self.features:
            raise InvalidModelInput(f"{where}: a feature may not be called 'intercept'; rename the column.")
        for position, feature in enumerate(self.features if self.features != LEAVES else ()):
            if feature in self.features[:position]:
                raise InvalidModelInput(f"{where}: feature {feature!r} is named twice; name each once.")
        for name, low in (("min_rows", 1), ("max_rows", 1), ("max_features", 0)):
            bound = getattr(self, name)
            if bound is not None and (not isinstance(bound, int) or bound < low):
                raise InvalidModelInput(f"{where}: {name} is {bound!r}; allowed: integers >= {low}.")
        if self.max_rows is not None and self.max_rows < self.min_rows:
            raise InvalidModelInput(f"{where}: max_rows {self.max_rows} is below min_rows {self.min_rows}.")
        if self.parent == self.name:
            raise InvalidModelInput(f"{where} is its own parent; name another random effect.")
        penalties = self.l2.values() if isinstance(self.l2, Mapping) else [self.l2]
        for penalty in penalties:
            if penalty is not None and not penalty >= 0:
                raise InvalidModelInput(f"{where}: l2 holds {penalty!r}; allowed: numbers >= 0.")

    def penalties(self, columns: Sequence[str]) -> Floats | None:
        """Return the fixed penalty of each column, or None where it is to be learnt."""
        if self.l2 is None:
            return None
        if not isinstance(self.l2, Mapping):
            return np.full(len(columns), float(self.l2))
        missing = [column for column in columns if column not in self.l2]
        if missing:
            raise InvalidModelInput(
                f"random effect {self.name!r}: l2 has no penalty for {missing[0]!r} "
                f"({len(missing)} of {len(columns)} columns are missing); it has: {', '.join(sorted(self.l2))}."
            )
        return np.array([float(self.l2[column]) for column in columns])
