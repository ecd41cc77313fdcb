"""Importance factors: what a downstream interaction with an edge type is worth."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ImportanceFactors:
    """A factor for each edge type, so that probability * factor is an expected gain.

    The estimand: an experiment that drops edges gives V_t, what an edge of type t is worth. The second pass's
    probability already holds P_t = P(downstream | edge of type t), so that counting V_t in full would count
    P_t twice. The factor is V_t / P_t, divided by the same of the reference type; both parts are kept beside
    it.

    Parameters
    ----------
    factor : mapping of str to float
        By edge type, positive and finite. An edge type that is not named has factor 1.
    reference : str, optional
        The edge type that the others are relative to; its factor is 1.
    interval : mapping of str to (float, float), optional
        Lower and upper bound of a factor, where an experiment gave them.
    value_per_edge : mapping of str to float, optional
        V_t.
    probability_downstream : mapping of str to float, optional
        P_t, in (0, 1].

    Attributes
    ----------
    version : str
        Hash of the content: equal factors and parts, equal version.

    Raises
    ------
    ConfigError
        A factor, bound or part that is not positive and finite, or a reference whose factor is not 1.

    Notes
    -----
    Only ratios matter: all factors times one constant give the same pages.

    Examples
    --------
    >>> factors = ImportanceFactors.of({"connection": 1.4})
    >>> factors.at(["connection", "follow"])
    array([1.4, 1. ])
    """

    factor: Mapping[str, float]
    reference: str | None = None
    interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    value_per_edge: Mapping[str, float] = field(default_factory=dict)
    probability_downstream: Mapping[str, float] = field(default_factory=dict)
    version: str = field(init=False)

    def __post_init__(self) -> None:
        interval = {edge: (float(low), float(high)) for edge, (low, high) in self.interval.items()}
        for edge, (low, high) in interval.items():
            if not 0.0 < low <= high < float("inf"):
                raise ConfigError(f"interval of {edge!r} is [{low}, {high}]; allowed: 0 < low <= high, finite")
        parts: dict[str, Any] = {
            "factor": _check_positive("factor", self.factor),
            "reference": self.reference,
            "interval": interval,
            "value_per_edge": _check_positive("value_per_edge", self.value_per_edge),
            "probability_downstream": _check_positive("probability_downstream", self.probability_downstream, most=1.0),
        }
        if self.reference is not None and parts["factor"].get(self.reference, 1.0) != 1.0:
            raise ConfigError(
                f"factor of the reference {self.reference!r} is {parts['factor'][self.reference]}; allowed: 1; "
                f"divide all factors by it, or name no reference"
            )
        for name, part in parts.items():
            object.__setattr__(self, name, MappingProxyType(part) if isinstance(part, dict) else part)
        content = json.dumps(parts, sort_keys=True, allow_nan=False)
        object.__setattr__(self, "version", hashlib.sha256(content.encode()).hexdigest()[:12])

    @classmethod
    def of(cls, factor: Mapping[str, float], *, reference: str | None = None) -> Self:
        """Make factors that somebody chose, without an experiment's parts.

        Parameters
        ----------
        factor : mapping of str to float
            By edge type; positive and finite.
        reference : str, optional
            The edge type whose factor is 1.

        Returns
        -------
        ImportanceFactors

        Examples
        --------
        >>> ImportanceFactors.of({"connection": 1.4}, reference="follow").reference
        'follow'
        """
        return cls(factor, reference)

    @classmethod
    def from_parts(
        cls,
        value_per_edge: Mapping[str, float],
        probability_downstream: Mapping[str, float],
        *,
        reference: str,
        interval: Mapping[str, tuple[float, float]] | None = None,
    ) -> Self:
        """Make the factors V_t / P_t relative to a reference type.

        Parameters
        ----------
        value_per_edge : mapping of str to float
            V_t, what an edge of type t is worth, in any unit.
        probability_downstream : mapping of str to float
            P_t, probability of a downstream interaction after an edge of type t was formed; the same types.
        reference : str
            The edge type whose factor is 1.
        interval : mapping of str to (float, float), optional
            Bounds of the factors.

        Returns
        -------
        ImportanceFactors

        Raises
        ------
        ConfigError
            Parts of different edge types, a reference without parts, or a part that is not positive and
            finite.

        Examples
        --------
        >>> factors = ImportanceFactors.from_parts(
        ...     {"connection": 3.0, "follow": 1.0}, {"connection": 0.5, "follow": 0.25}, reference="follow")
        >>> dict(factors.factor)
        {'connection': 1.5, 'follow': 1.0}
        """
        values = _check_positive("value_per_edge", value_per_edge)
        probabilities = _check_positive("probability_downstream", probability_downstream, most=1.0)
        if values.keys() != probabilities.keys() or reference not in values:
            raise ConfigError(
                f"value_per_edge names {sorted(values)}, probability_downstream {sorted(probabilities)}, the reference "
                f"is {reference!r}; allowed: the same edge types in both, the reference among them"
            )
        worth = {edge: values[edge] / probabilities[edge] for edge in values}
        factor = {edge: worth[edge] / worth[reference] for edge in values}
        return cls(factor, reference, interval or {}, values, probabilities)

    def at(self, edge_type: Iterable[str]) -> NDArray[np.float64]:
        """Look up the factor of each cohort.

        Parameters
        ----------
        edge_type : iterable of str, length n_cohorts
            Edge types; one that is not named has factor 1.

        Returns
        -------
        float64 array, shape (n_cohorts,)

        Examples
        --------
        >>> ImportanceFactors.of({"connection": 2.0}).at(["follow", "connection"])
        array([1., 2.])
        """
        factor = self.factor
        return np.array([factor.get(edge, 1.0) for edge in edge_type], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain dicts, lists and numbers, ready for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> factors = ImportanceFactors.of({"connection": 1.4})
        >>> ImportanceFactors.from_dict(factors.to_dict()) == factors
        True
        """
        return {
            "factor": dict(self.factor),
            "reference": self.reference,
            "interval": {edge: list(bounds) for edge, bounds in self.interval.items()},
            "value_per_edge": dict(self.value_per_edge),
            "probability_downstream": dict(self.probability_downstream),
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave, or a hand-written file of factors.

        Parameters
        ----------
        content : mapping
            ``factor`` is required; ``version``, where given, must be that of the content.

        Returns
        -------
        ImportanceFactors

        Raises
        ------
        ConfigError
            Unknown or missing keys, or a version that is not that of the content.

        Examples
        --------
        >>> ImportanceFactors.from_dict({"factor": {"connection": 1.4}}).at(["connection"])
        array([1.4])
        """
        known = ("factor", "reference", "interval", "value_per_edge", "probability_downstream", "version")
        unknown = sorted(set(content) - set(known))
        if unknown or "factor" not in content:
            raise ConfigError(
                f"importance factors have the keys {sorted(content)}; 'factor' is required, known: {known}"
            )
        factors = cls(**{name: part for name, part in content.items() if name != "version"})
        if content.get("version", factors.version) != factors.version:
            raise ConfigError(
                f"importance factors say version {content['version']!r}, their content is {factors.version!r}; "
                f"if they were edited on purpose, remove the version"
            )
        return factors


def _check_positive(name: str, numbers: Mapping[str, float], most: float = float("inf")) -> dict[str, float]:
    checked = {edge: float(number) for edge, number in numbers.items()}
    for edge, number in checked.items():
        if not (0.0 < number <= most and isfinite(number)):
            upper = "" if most == float("inf") else f", at most {most:g}"
            raise ConfigError(f"{name} of edge type {edge!r} is {number}; allowed: positive and finite{upper}")
    return checked
