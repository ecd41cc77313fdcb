"""The sections of the configuration that say what a page keeps: guarantees, the random policy and exploration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pydantic
from pydantic import BeforeValidator, Field, StrictFloat, StrictInt

from spr.errors import ConfigError, name_unknown
from spr.reorder import LABEL_KINDS, ImpressionGuarantee, PageExploration
from spr.reorder.exploration import SETTINGS, Method
from spr.reorder.guarantees import Scope
from spr.sections import Duration, Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spr.reorder import ImportanceFactors, LabelKind

_BOUNDS = ("minimum", "maximum", "minimum_by_prefix", "maximum_by_prefix")
_TERMS = (*_BOUNDS, "within_top", "slack", "catch_up", "scope", "starts", "ends")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _read_number(value: object) -> object:
    if not _is_number(value):
        raise ValueError(f"{value!r} is not a number")
    return value


def _read_price(value: object) -> object:
    if value != "off" and not (_is_number(value) and value >= 0):  # type: ignore[operator]  # it is a number there
        raise ValueError(f"{value!r} is no price; allowed: a number >= 0, or 'off'")
    return value


def _read_ratio(value: object) -> object:
    if value != "importance" and not isinstance(value, dict):
        raise ValueError(f"{value!r} is no ratio; allowed: a part for each edge type, or 'importance'")
    return value


def _read_moment(value: object) -> object:
    if isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is no moment; write e.g. 2026-01-01T00:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_read_moment)]


class Exploration(Section):
    """The random policy, and the milder exploration of the other pages.

    ``random_share`` of the requests, by a salted hash of the request id, is completely shuffled. ``method`` and the
    settings after it are those of :class:`spr.reorder.PageExploration`; without a method the other pages are ranked
    by value.
    """

    random_share: float = Field(0.05, ge=0, le=1)
    salt: str = "spr-random-policy"
    method: Method | None = None
    depth: StrictInt | None = None
    epsilon: StrictFloat | None = None
    temperature: StrictFloat | None = None
    draws: StrictInt | None = None

    def to_exploration(self) -> PageExploration | None:
        """Return how pages that are not random are explored; None where they are not.

        Raises
        ------
        ConfigError
            A number out of its range, or settings that no method, or not this one, reads.
        """
        given = self.model_dump(include={"depth", "epsilon", "temperature", "draws"}, exclude_none=True)
        if self.method is None:
            if given:
                raise ConfigError(f"exploration: {', '.join(given)} without a method; name a method or leave them out")
            return None
        idle = given.keys() - SETTINGS[self.method]
        if idle:
            read = ", ".join(sorted(SETTINGS[self.method]))
            raise ConfigError(f"exploration: {self.method} does not read {', '.join(sorted(idle))}; it reads {read}")
        return PageExploration(self.method, **given)


class Guarantee(Section):
    """Bounds on the placements of one edge type, entity type or cohort kind; see :class:`ImpressionGuarantee`.

    A ``ratio`` divides ``share`` among edge types instead: ``ratio = { connection = 1, follow = 2 }`` with ``share =
    0.6`` is a share of 0.2 for connections and one of 0.4 for follows, guarantees of the names ``<name>:connection``
    and ``<name>:follow``. ``ratio = "importance"`` divides it by the importance factors in force; with ``refresh`` each
    page says when these are older than that.

    The ``price`` of a share is learnt by the fit; a number (in units of the mean importance factor, so that new factors
    leave it what it is) stands in for it, and ``"off"`` makes each page the best one of those that keep the promise.
    """

    name: str = Field(min_length=1, max_length=100)
    edge_type: str | None = None
    entity_type: str | None = None
    cohort_kind: str | None = None
    ratio: Annotated[dict[str, StrictFloat] | Literal["importance"], BeforeValidator(_read_ratio)] | None = None
    refresh: Duration | None = Field(None, gt=timedelta(0))
    minimum: Annotated[int | float, Field(gt=0), BeforeValidator(_read_number)] | None = None
    maximum: StrictInt | None = Field(None, ge=0)
    minimum_by_prefix: tuple[StrictInt, ...] | None = None
    maximum_by_prefix: tuple[StrictInt, ...] | None = None
    share: StrictFloat | None = Field(None, gt=0, le=1)
    within_top: StrictInt = Field(10, ge=1)
    slack: StrictFloat = Field(1.0, ge=1)
    catch_up: StrictFloat | None = Field(None, ge=0)
    scope: Scope | None = None
    price: Annotated[float | Literal["off"], BeforeValidator(_read_price)] | None = None
    starts: Moment | None = None
    ends: Moment | None = None

    @pydantic.model_validator(mode="after")
    def _check_read(self) -> Self:
        """Refuse settings that the bound does not read; a manifest holds the defaults, too."""
        if self.share is None:
            shared = {"slack": self.slack != 1.0, "catch_up": self.catch_up, "scope": self.scope, "price": self.price}
            idle = [name for name, given in shared.items() if given not in (None, False)]
            if idle:
                raise ValueError(f"{' and '.join(idle)} belong to a share; this guarantee has none")
            if self.within_top != 10 and self.minimum is None and self.maximum is None:
                raise ValueError("within_top beside bounds by prefix, which have their own; leave it out")
        if self.scope == "population" and self.price == "off":
            raise ValueError("a share of the population is kept by its price alone; price = 'off' would drop it")
        return self

    @pydantic.model_validator(mode="after")
    def _check_ratio(self) -> Self:
        if self.ratio is None:
            if self.refresh is not None:
                raise ValueError("refresh belongs to ratio = 'importance'")
            return self
        bounds = [name for name in _BOUNDS if getattr(self, name) is not None]
        if self.share is None or bounds:
            found = ", ".join(bounds) or "no share"
            raise ValueError(f"a ratio divides a share, the part of the impressions for all of it; found {found}")
        if self.ratio == "importance":
            return self
        if self.refresh is not None:
            raise ValueError("refresh belongs to ratio = 'importance'; this ratio is fixed")
        wrong = {edge_type: part for edge_type, part in self.ratio.items() if not part > 0}
        if wrong or not self.ratio:
            raise ValueError(f"ratio holds {wrong or 'nothing'}; allowed: numbers above 0")
        return self

    def check_labels(self, edge_types: Sequence[str], entity_types: Sequence[str], source: str) -> None:
        """Refuse labels that the configuration does not know.

        Raises
        ------
        ConfigError
            Naming the label and those that are known.
        """
        where = f"{source}, guarantee {self.name!r}"
        asked = [("edge type", self.edge_type, edge_types), ("entity type", self.entity_type, entity_types)]
        asked += [("edge type", label, edge_types) for label in (self.ratio if isinstance(self.ratio, dict) else ())]
        for what, label, known in asked:
            if label is not None and label not in known:
                raise ConfigError(name_unknown(what, label, known, where))

    def to_guarantees(
        self, factors: Mapping[str, float], prices: Mapping[str, float]
    ) -> tuple[ImpressionGuarantee, ...]:
        """Return what the page keeps: one guarantee, or one for each edge type of a ratio.

        Parameters
        ----------
        factors : mapping of str to float
            The importance factor of each edge type.
        prices : mapping of str to float
            Learnt ones by guarantee, in units of the mean factor.

        Raises
        ------
        ConfigError
            No label or several, or bounds that contradict each other.
        """
        labels: dict[LabelKind, str] = {
            kind: label for kind in LABEL_KINDS if (label := getattr(self, kind)) is not None
        }
        if len(labels) + (self.ratio is not None) != 1:
            found = ", ".join([*labels, *(["ratio"] if self.ratio is not None else [])]) or "none"
            raise ConfigError(
                f"guarantee {self.name!r} names {found}; name exactly one of {', '.join(LABEL_KINDS)} or a ratio"
            )
        terms: dict[str, Any] = {term: value for term in _TERMS if (value := getattr(self, term)) is not None}

        scale = sum(factors.values()) / len(factors)

        def make(name: str, kind: LabelKind, label: str, share: float | None) -> ImpressionGuarantee:
            price = prices.get(name) if self.price is None else None if self.price == "off" else self.price
            priced = None if price is None else scale * price
            return ImpressionGuarantee(name, kind, label, share=share, price=priced, **terms)

        if self.ratio is None:
            ((kind, label),) = labels.items()
            return (make(self.name, kind, label, self.share),)
        parts = factors if self.ratio == "importance" else self.ratio
        whole, total = self.share or 0.0, sum(parts.values())
        return tuple(
            make(f"{self.name}:{label}", "edge_type", label, whole * part / total)
            for label, part in parts.items()
            if part > 0
        )


def outdated_shares(guarantees: Sequence[Guarantee], factors: ImportanceFactors) -> dict[str, datetime]:
    """Return what pages say, and from when on, where shares follow factors that are not refreshed in time.

    The age of factors counts from ``source["date"]``, an ISO date that the experiment's record gives.
    """
    said = {}
    for guarantee in guarantees:
        if guarantee.refresh is not None:
            try:
                date = datetime.fromisoformat(factors.source.get("date", ""))
            except ValueError:
                said[f"shares of {guarantee.name!r} follow importance factors without a date"] = _LONG_AGO
                continue
            date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
            days = guarantee.refresh / timedelta(days=1)
            sentence = (
                f"shares of {guarantee.name!r} follow importance factors of {date:%Y-%m-%d}, older than {days:g} days"
            )
            said[sentence] = date + guarantee.refresh
    return said
