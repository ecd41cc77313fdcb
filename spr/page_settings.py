"""The sections of the configuration that say what a page keeps: guarantees, the random policy and exploration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from spr.errors import ConfigError, name_unknown
from spr.reorder import LABEL_KINDS, ImpressionGuarantee, PageExploration
from spr.reorder.exploration import Method
from spr.reorder.guarantees import Scope
from spr.sections import Duration, Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spr.reorder import ImportanceFactors, LabelKind

_BOUNDS = ("minimum", "maximum", "minimum_by_prefix", "maximum_by_prefix")
_TERMS = (*_BOUNDS, "within_top", "slack", "catch_up", "scope", "starts", "ends")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Exploration(Section):
    """The random policy, and the milder exploration of the other pages.

    ``random_share`` of the requests, by a salted hash of the request id, is completely shuffled. ``method`` and the
    settings after it are those of :class:`spr.reorder.PageExploration`; without a method the other pages are ranked
    by value.
    """

    random_share: float = Field(0.05, ge=0, le=1)
    salt: str = "spr-random-policy"
    method: Method | None = None
    depth: int | None = None
    epsilon: float | None = None
    temperature: float | None = None
    draws: int | None = None

    def to_exploration(self) -> PageExploration | None:
        """Return how pages that are not random are explored; None where they are not.

        Raises
        ------
        ConfigError
            A number out of its range, or settings without a method.
        """
        given = self.model_dump(include={"depth", "epsilon", "temperature", "draws"}, exclude_none=True)
        if self.method is None:
            if given:
                raise ConfigError(f"exploration: {', '.join(given)} without a method; name a method or leave them out")
            return None
        return PageExploration(self.method, **given)


class Guarantee(Section):
    """Bounds on the placements of one edge type, entity type or cohort kind; see :class:`ImpressionGuarantee`.

    A ``ratio`` divides ``share`` among edge types instead: ``ratio = { connection = 1, follow = 2 }`` with ``share =
    0.6`` is a share of 0.2 for connections and one of 0.4 for follows, guarantees of the names ``<name>:connection``
    and ``<name>:follow``. ``ratio = "importance"`` divides it by the importance factors in force; with ``refresh`` each
    page says when these are older than that.

    The ``price`` of a share is learnt by the fit; a number (in units of value) stands in for it, and ``"off"`` makes
    each page the best one of those that keep the promise.
    """

    name: str = Field(min_length=1)
    edge_type: str | None = None
    entity_type: str | None = None
    cohort_kind: str | None = None
    ratio: dict[str, float] | Literal["importance"] | None = None
    refresh: Duration | None = None
    minimum: int | float | None = Field(None, gt=0)
    maximum: int | None = Field(None, ge=0)
    minimum_by_prefix: tuple[int, ...] | None = None
    maximum_by_prefix: tuple[int, ...] | None = None
    share: float | None = Field(None, gt=0, le=1)
    within_top: int = Field(10, ge=1)
    slack: float = Field(1.0, ge=1)
    catch_up: float | None = Field(None, ge=0)
    scope: Scope | None = None
    price: Annotated[float, Field(ge=0)] | Literal["off"] | None = None
    starts: datetime | None = None
    ends: datetime | None = None

    @pydantic.model_validator(mode="after")
    def _check_ratio(self) -> Self:
        if self.ratio is None:
            if self.refresh is not None:
                raise ValueError("refresh belongs to ratio = 'importance'")
            return self
        bounds = [name for name in _BOUNDS if getattr(self, name) is not None]
        if self.share is None or bounds:
            raise ValueError(f"a ratio divides a share; found {', '.join(bounds) or 'none'}")
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
            Learnt ones by guarantee, in units of value.

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

        def make(name: str, kind: LabelKind, label: str, share: float | None) -> ImpressionGuarantee:
            price = prices.get(name) if self.price is None else None if self.price == "off" else self.price
            return ImpressionGuarantee(name, kind, label, share=share, price=price, **terms)

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
