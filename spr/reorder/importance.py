"""Importance factors: what a downstream interaction with an edge type is worth."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import isfinite, isinf, isnan
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from spr.tables import Table


_OF_EXPERIMENT = ("estimate", "decision", "source")


@dataclass(frozen=True, slots=True)
class ImportanceFactors:
    """A factor for each edge type, so that probability * factor is an expected gain.

    The estimand: an experiment that drops edges gives V_t, what an average edge of type t is worth, engaged and dormant
    alike. The second pass's probability already holds P_t = P(downstream | edge of type t), so that counting V_t in
    full would count P_t twice. The factor is V_t / P_t, what an edge with a downstream interaction is worth, divided by
    the same of the reference type; both parts are kept beside it. The page then maximises the expected gain in the
    experiment's metric.

    Parameters
    ----------
    factor : mapping of str to float
        By edge type, positive and finite. An edge type that is not named has factor 1.
    reference : str, optional
        The edge type that the others are relative to; its factor is 1.
    interval : mapping of str to (float or None, float or None), optional
        Lower and upper bound of the ratio that an experiment estimated; None = unbounded on that side.
    value_per_edge : mapping of str to float, optional
        V_t; may be negative by noise.
    probability_downstream : mapping of str to float, optional
        P_t, in (0, 1].
    estimate : mapping of str to float, optional
        The experiment's ratio before it was shrunk; ``factor`` is what is served.
    decision : mapping of str to str, optional
        ``"use"``, or why the factor was kept at 1.
    source : mapping of str to str, optional
        Where the factors come from: experiment, date, metric, ``per``, and whatever else a reader should know.

    Attributes
    ----------
    version : str
        Hash of the content: equal factors and parts, equal version.

    Raises
    ------
    ConfigError
        A factor or probability that is not positive, a number that is not finite, a lower bound above the upper one, or
        a reference whose factor is not 1.

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
    interval: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    value_per_edge: Mapping[str, float] = field(default_factory=dict)
    probability_downstream: Mapping[str, float] = field(default_factory=dict)
    estimate: Mapping[str, float] = field(default_factory=dict)
    decision: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    version: str = field(init=False)

    def __post_init__(self) -> None:
        parts: dict[str, Any] = {
            "factor": _check_numbers("factor", self.factor, positive=True),
            "reference": self.reference,
            "interval": _check_intervals(self.interval),
            "value_per_edge": _check_numbers("value_per_edge", self.value_per_edge),
            "probability_downstream": _check_numbers(
                "probability_downstream", self.probability_downstream, positive=True, most=1.0
            ),
            "estimate": _check_numbers("estimate", self.estimate),
            "decision": {str(edge): str(made) for edge, made in self.decision.items()},
            "source": {str(name): str(said) for name, said in self.source.items()},
        }
        if self.reference is not None and parts["factor"].get(self.reference, 1.0) != 1.0:
            raise ConfigError(
                f"factor of the reference {self.reference!r} is {parts['factor'][self.reference]}; allowed: 1; "
                f"divide all factors by it, or name no reference"
            )
        for name, part in parts.items():
            object.__setattr__(self, name, MappingProxyType(part) if isinstance(part, dict) else part)
        # What an experiment adds is in the hash only where there is something, so that chosen factors keep theirs.
        hashed = {name: part for name, part in parts.items() if part or name not in _OF_EXPERIMENT}
        content = json.dumps(hashed, sort_keys=True, allow_nan=False)
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
        values = _check_numbers("value_per_edge", value_per_edge, positive=True)
        probabilities = _check_numbers("probability_downstream", probability_downstream, positive=True, most=1.0)
        if values.keys() != probabilities.keys() or reference not in values:
            raise ConfigError(
                f"value_per_edge names {sorted(values)}, probability_downstream {sorted(probabilities)}, the reference "
                f"is {reference!r}; allowed: the same edge types in both, the reference among them"
            )
        worth = {edge: values[edge] / probabilities[edge] for edge in values}
        factor = {edge: worth[edge] / worth[reference] for edge in values}
        return cls(factor, reference, interval or {}, values, probabilities)

    @staticmethod
    def from_experiment(
        table: Table,
        metric: str | Mapping[str, float],
        per: Literal["downstream_edge", "edge"] = "downstream_edge",
        *,
        reference: str | None = None,
        edge_types: Sequence[str] | None = None,
        covariates: Sequence[str] = (),
        probability_downstream: Mapping[str, float] | None = None,
        source: Mapping[str, str] | None = None,
    ) -> ImportanceFactors:
        """Estimate the factors from an edge-drop experiment.

        Parameters
        ----------
        table : DataFrame or path
            The edge_drop table; see :func:`spr.edge_drop.table.read_edge_drop`.
        metric : str or mapping of str to float
            What the page is to maximise: a column of the table, or several with the weights of their sum.
        per : {"downstream_edge", "edge"}, default "downstream_edge"
            ``downstream_edge`` for a second pass that predicts downstream interactions: V_t / P_t; ``edge`` for one
            that is trained on edges (responses): V_t.
        reference, edge_types, covariates, probability_downstream
            As of :func:`spr.edge_drop.estimate_edge_values` and :meth:`spr.edge_drop.EdgeValues.factors`.
        source : mapping of str to str, optional
            To be kept with the factors: the experiment's name, its date.

        Returns
        -------
        ImportanceFactors
            ``factor`` is shrunk, or 1 where the experiment is too noisy to act on; ``estimate`` and the simultaneous
            95 % ``interval`` are of the unshrunk ratio.

        Raises
        ------
        TableError, InvalidExperiment
            When the table breaks its contract, or the experiment cannot answer.

        Examples
        --------
        >>> from simulations import EdgeDropExperiment, World
        >>> world = World(20_000, seed=1)
        >>> experiment = EdgeDropExperiment(("connection", "follow", "subscribe"), salt="docs")
        >>> table = world.edge_drop(experiment.assign(world.viewers), rng=1)
        >>> factors = ImportanceFactors.from_experiment(table, "engagement", reference="follow")
        >>> factors.factor["connection"] > factors.factor["follow"]
        True
        """
        from spr.edge_drop import estimate_edge_values

        values = estimate_edge_values(
            table, metric, edge_types=edge_types, covariates=covariates, probability_downstream=probability_downstream
        )
        return values.factors(per, reference=reference).to_factors(source)

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
            "estimate": dict(self.estimate),
            "decision": dict(self.decision),
            "source": dict(self.source),
            "version": self.version,
        }

    def save(self, path: str | Path) -> None:
        """Write the factors as JSON.

        Parameters
        ----------
        path : str or Path
            Made anew; its directory too.

        Raises
        ------
        OSError
            When it cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `save` wrote, or a hand-written file; see `from_dict`.

        Parameters
        ----------
        path : str or Path
            JSON, UTF-8.

        Returns
        -------
        ImportanceFactors

        Raises
        ------
        ConfigError
            When there is no such file, it is not JSON, or not factors.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"importance factors: {path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"importance factors: {path} is not a JSON object")
        return cls.from_dict(content)

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
        known = (
            "factor",
            "reference",
            "interval",
            "value_per_edge",
            "probability_downstream",
            *_OF_EXPERIMENT,
            "version",
        )
        unknown = sorted(set(content) - set(known))
        if unknown or "factor" not in content:
            raise ConfigError(
                f"importance factors have the keys {sorted(content)}; 'factor' is required, known: {known}"
            )
        parts = {name: part for name, part in content.items() if name != "version"}
        for name, part in parts.items():
            if name == "reference":
                if part is not None and not isinstance(part, str):
                    raise ConfigError(f"importance factors: reference is {part!r}; allowed: the name of an edge type")
            elif not isinstance(part, dict):
                raise ConfigError(f"importance factors: {name} is {part!r}; allowed: a table by edge type")
        for name in ("interval", "value_per_edge", "probability_downstream", "estimate", "decision"):
            unnamed = sorted(set(parts.get(name, ())) - set(parts["factor"]))
            if unnamed:
                raise ConfigError(f"importance factors: {name} names {unnamed[0]!r}, which has no factor")
        factors = cls(**parts)
        if content.get("version", factors.version) != factors.version:
            raise ConfigError(
                f"importance factors say version {content['version']!r}, their content is {factors.version!r}; "
                f"if they were edited on purpose, remove the version"
            )
        return factors


def _check_numbers(
    name: str, numbers: Mapping[str, float], *, positive: bool = False, most: float = float("inf")
) -> dict[str, float]:
    for edge, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
            raise ConfigError(f"{name} of edge type {edge!r} is {number!r}; allowed: a number")
    checked = {edge: float(number) for edge, number in numbers.items()}
    for edge, number in checked.items():
        if not isfinite(number) or (positive and not 0.0 < number <= most):
            upper = "" if most == float("inf") else f", at most {most:g}"
            allowed = f"positive and finite{upper}" if positive else "finite"
            raise ConfigError(f"{name} of edge type {edge!r} is {number}; allowed: {allowed}")
    return checked


def _check_intervals(intervals: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    checked: dict[str, tuple[float | None, float | None]] = {}
    for edge, pair in intervals.items():
        numbers = isinstance(pair, (tuple, list)) and all(isinstance(b, (int, float)) or b is None for b in pair)
        if not numbers or len(pair) != 2:
            raise ConfigError(f"interval of {edge!r} is {pair!r}; allowed: two numbers, None = unbounded")
        low, high = pair
        bounds = tuple(None if bound is None or isinf(bound) else float(bound) for bound in (low, high))
        least, most = bounds
        if any(bound is not None and isnan(bound) for bound in bounds) or (
            least is not None and most is not None and least > most
        ):
            raise ConfigError(f"interval of {edge!r} is [{low}, {high}]; allowed: low <= high, None = unbounded")
        checked[edge] = (least, most)
    return checked
