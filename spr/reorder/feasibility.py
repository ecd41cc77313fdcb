"""Which guarantees can be kept together: what is refused when a configuration is read."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from spr.errors import ConfigError, InfeasibleGuarantee
from spr.reorder.guarantees import LABEL_KINDS
from spr.reorder.rounding import fractional_rows, round_minima

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from spr.reorder.guarantees import ImpressionGuarantee

_TOLERANCE = 1e-6


def check_guarantees(guarantees: Iterable[ImpressionGuarantee], edge_type_of: Mapping[str, str] | None = None) -> None:
    """Refuse guarantees that no page, or no sequence of pages, could meet together.

    Parameters
    ----------
    guarantees : iterable of ImpressionGuarantee
        All guarantees of one configuration.
    edge_type_of : mapping of str to str, optional
        The edge type of each entity type, where it is known: then the floors of entity types count for the floor of
        their edge type, and add up with those of the other edge types.

    Raises
    ------
    ConfigError
        Fractional minima of labels of several kinds: they are rounded together.
    InfeasibleGuarantee
        Two of one name; minima that sum to more than the places within a prefix; shares that sum to more than 1; a
        label with more due than another guarantee lets it have; shares that count impressions within different tops (a
        request carries one ``delivered_total``).

    Notes
    -----
    Labels of one kind are disjoint, so their floors add up. Two guarantees of the same label do not: the larger holds.
    Guarantees that are never in force together are not held against each other. Cohort kinds are known on a page only:
    where one crosses another label there, the page is solved as an integer program, see
    :func:`spr.reorder.arrange`.

    Examples
    --------
    >>> from spr.reorder import ImpressionGuarantee
    >>> check_guarantees([ImpressionGuarantee("a", "edge_type", "connection", share=0.6),
    ...                   ImpressionGuarantee("b", "edge_type", "follow", share=0.5)])
    Traceback (most recent call last):
        ...
    spr.errors.InfeasibleGuarantee: shares of edge_type sum to 1.1 (connection: 0.6, follow: 0.5); allowed: at most 1
    """
    guarantees = list(guarantees)
    names = [guarantee.name for guarantee in guarantees]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InfeasibleGuarantee(f"guarantee names must be unique; found more than once: {', '.join(twice)}")
    moments = [guarantee.starts for guarantee in guarantees if guarantee.starts is not None]
    _check_together([guarantee for guarantee in guarantees if guarantee.starts is None], edge_type_of or {})
    for moment in dict.fromkeys(moments):
        _check_together([guarantee for guarantee in guarantees if guarantee.in_force(moment)], edge_type_of or {})


def _check_together(guarantees: Sequence[ImpressionGuarantee], edge_type_of: Mapping[str, str]) -> None:
    tops = sorted({guarantee.within_top for guarantee in guarantees if guarantee.share is not None})
    if len(tops) > 1:
        raise InfeasibleGuarantee(
            f"shares count impressions within the tops {tops}; allowed: one within_top for all shares, "
            f"since a request carries one delivered_total"
        )
    fractional = fractional_rows(guarantees)
    kinds = {guarantees[row].label_kind for row in fractional}
    if len(kinds) > 1:
        raise ConfigError(
            f"fractional minima of {' and '.join(sorted(kinds))}; allowed: of one kind of label, since they are "
            f"rounded together"
        )
    _check_sum(guarantees, edge_type_of, lambda g: g.share or 0.0, 1.0, "shares", "at most 1")
    _check_minima(guarantees, edge_type_of)
    for rounded in round_minima([guarantees[row].minimum or 0.0 for row in fractional])[1]:
        drawn = list(guarantees)
        for row, count in zip(fractional, rounded.tolist(), strict=True):
            drawn[row] = replace(guarantees[row], minimum=count)
        try:
            _check_minima(drawn, edge_type_of)
        except InfeasibleGuarantee as error:
            raise InfeasibleGuarantee(
                f"{error}; fractional minima are rounded together, and this is one draw"
            ) from None


def _check_minima(guarantees: Sequence[ImpressionGuarantee], edge_type_of: Mapping[str, str]) -> None:
    for q in sorted({q for guarantee in guarantees for q in range(1, guarantee.last_prefix + 1)}):
        remedy = "lower them or raise within_top"
        _check_sum(guarantees, edge_type_of, lambda g, q=q: _minimum(g, q), q, "minima", remedy, f" within the top {q}")  # type: ignore[misc]  # a default binds q
        for capped in guarantees:
            if q <= capped.last_prefix and (most := int(capped.maxima(q)[-1])) < q:
                _check_cap(capped, most, q, guarantees, edge_type_of)


def _minimum(guarantee: ImpressionGuarantee, q: int) -> float:
    if guarantee.share is not None or q > guarantee.last_prefix:
        steps = guarantee.minimum_by_prefix
        return float(steps[-1]) if steps else (guarantee.minimum or 0.0) if guarantee.share is None else 0.0
    if guarantee.minimum is not None:
        return guarantee.minimum if q >= guarantee.within_top else 0.0
    steps = guarantee.minimum_by_prefix or (0,)
    return float(steps[min(q, len(steps)) - 1])


def _check_sum(
    guarantees: Sequence[ImpressionGuarantee],
    edge_type_of: Mapping[str, str],
    floor: Callable[[ImpressionGuarantee], float],
    most: float,
    what: str,
    remedy: str,
    where: str = "",
) -> None:
    of_kind: dict[str, dict[str, float]] = {}
    for kind in LABEL_KINDS:
        floors = of_kind.setdefault(kind, {})
        for guarantee in guarantees:
            if guarantee.label_kind == kind and floor(guarantee) > 0:
                floors[guarantee.label] = max(floor(guarantee), floors.get(guarantee.label, 0.0))
        _refuse_above(most, floors, f"{what} of {kind}", where, remedy)
    inside: dict[str, float] = {}
    for entity_type, asked in of_kind["entity_type"].items():
        if entity_type in edge_type_of:
            edge_type = edge_type_of[entity_type]
            inside[edge_type] = inside.get(edge_type, 0.0) + asked
    floors = of_kind["edge_type"]
    together = {edge: max(floors.get(edge, 0.0), inside.get(edge, 0.0)) for edge in floors.keys() | inside.keys()}
    _refuse_above(most, dict(sorted(together.items())), f"{what} of edge_type and entity_type", where, remedy)


def _refuse_above(most: float, floors: Mapping[str, float], what: str, where: str, remedy: str) -> None:
    total = sum(floors.values())
    if total > most + _TOLERANCE:
        listed = ", ".join(f"{label}: {floor:g}" for label, floor in floors.items())
        allowed = remedy if where else f"allowed: {remedy}"
        raise InfeasibleGuarantee(f"{what} sum to {total:.6g}{where} ({listed}); {allowed}")


def _check_cap(
    capped: ImpressionGuarantee,
    most: int,
    q: int,
    guarantees: Sequence[ImpressionGuarantee],
    edge_type_of: Mapping[str, str],
) -> None:
    """Refuse a maximum below what other guarantees ask of the same label, or of labels inside it."""

    def is_inside(guarantee: ImpressionGuarantee) -> bool:
        same = (guarantee.label_kind, guarantee.label) == (capped.label_kind, capped.label)
        part = guarantee.label_kind == "entity_type" and capped.label_kind == "edge_type"
        return same or (part and edge_type_of.get(guarantee.label) == capped.label)

    floors: dict[tuple[str, str], float] = {}
    for guarantee in filter(is_inside, guarantees):
        asked = ceil(_minimum(guarantee, q)) if guarantee.share is None else guarantee.share * q - guarantee.slack
        key = (guarantee.label_kind, guarantee.label)
        floors[key] = max(asked, floors.get(key, 0.0))
    for kind in ("edge_type", "entity_type", "cohort_kind"):
        asked = sum(floor for (label_kind, _), floor in floors.items() if label_kind == kind)
        if asked > most + _TOLERANCE:
            raise InfeasibleGuarantee(
                f"guarantee {capped.name!r}: at most {most} within the first {q}, where others ask for {asked:g} of "
                f"{capped.label_kind} {capped.label!r}; raise the maximum or lower the minima"
            )
