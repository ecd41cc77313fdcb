"""What is refused when a configuration is read: only what no page could keep, and what passes is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import ConfigError, InfeasibleGuarantee
from spr.reorder import ImpressionGuarantee, arrange, check_guarantees

EDGE_TYPE_OF = {"people": "connection", "company": "follow", "hashtag": "follow", "newsletter": "subscribe"}


def of_edge(name: str, label: str, **terms: object) -> ImpressionGuarantee:
    return ImpressionGuarantee(name, "edge_type", label, **terms)


def of_entity(name: str, label: str, **terms: object) -> ImpressionGuarantee:
    return ImpressionGuarantee(name, "entity_type", label, **terms)


def at(month: int) -> datetime:
    return datetime(2026, month, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("guarantees", "message"),
    [
        (
            # 0.3 + 0.3 inside follow, which asks for 0.5 itself, beside 0.5 of connections
            [
                of_entity("c", "company", share=0.3),
                of_entity("h", "hashtag", share=0.3),
                of_edge("f", "follow", share=0.5),
                of_edge("p", "connection", share=0.5),
            ],
            r"shares of edge_type and entity_type sum to 1.1 \(connection: 0.5, follow: 0.6\); allowed: at most 1",
        ),
        (
            [
                of_entity("c", "company", minimum=2, within_top=3),
                of_edge("s", "subscribe", minimum=2, within_top=3),
            ],
            r"minima of edge_type and entity_type sum to 4 within the top 3 \(follow: 2, subscribe: 2\); lower them",
        ),
        (
            [of_edge("f", "follow", maximum=1, within_top=4), of_edge("g", "follow", minimum=2, within_top=4)],
            "guarantee 'f': at most 1 within the first 4, where others ask for 2 of edge_type 'follow'",
        ),
        (
            [
                of_edge("f", "follow", maximum=1, within_top=4),
                of_entity("c", "company", minimum=1, within_top=4),
                of_entity("h", "hashtag", minimum=1, within_top=3),
            ],
            "guarantee 'f': at most 1 within the first 4, where others ask for 2",
        ),
        (
            [of_edge("f", "follow", maximum_by_prefix=(0, 0)), of_edge("g", "follow", minimum_by_prefix=(0, 1))],
            "guarantee 'f': at most 0 within the first 2, where others ask for 1",
        ),
        (
            [of_edge("f", "follow", share=0.8, slack=1, within_top=10), of_entity("c", "company", maximum=1)],
            None,  # hashtags can make up for companies
        ),
        (
            [of_edge("f", "follow", share=0.8, slack=1, within_top=10), of_edge("g", "follow", maximum=5)],
            "guarantee 'g': at most 5 within the first 8, where others ask for 5.4",
        ),
    ],
)
def test_floors_of_entity_types_count_for_their_edge_type(guarantees, message) -> None:
    if message is None:
        check_guarantees(guarantees, EDGE_TYPE_OF)
        return
    with pytest.raises(InfeasibleGuarantee, match=message):
        check_guarantees(guarantees, EDGE_TYPE_OF)


def test_what_is_never_in_force_together_is_not_held_against_each_other() -> None:
    spring = of_edge("spring", "follow", share=0.7, starts=at(3), ends=at(6))
    summer = of_edge("summer", "connection", share=0.7, starts=at(6), ends=at(9))
    always = of_edge("always", "subscribe", share=0.3)
    check_guarantees([spring, summer, always])
    longer = of_edge("longer", "connection", share=0.7, starts=at(5))
    with pytest.raises(InfeasibleGuarantee, match=r"shares of edge_type sum to 1\.4"):
        check_guarantees([spring, longer])
    with pytest.raises(InfeasibleGuarantee, match=r"sum to 1\.7"):
        check_guarantees([spring, longer, always])
    until = of_edge("until", "subscribe", share=0.6, ends=at(4))  # in force since ever
    with pytest.raises(InfeasibleGuarantee, match=r"sum to 1.3 \(follow: 0.7, subscribe: 0.6\)"):
        check_guarantees([spring, until])
    check_guarantees([summer, until])


def test_fractional_minima_are_of_one_kind_of_label() -> None:
    some = of_edge("some", "follow", minimum=0.5, within_top=5)
    other = of_edge("other", "connection", minimum=0.2, within_top=5)
    check_guarantees([some, other, of_entity("whole", "people", minimum=1)])
    with pytest.raises(ConfigError, match="fractional minima of edge_type and entity_type"):
        check_guarantees([some, of_entity("other", "people", minimum=0.5, within_top=5)])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_what_passes_can_be_kept_and_what_is_refused_cannot(data: st.DataObject) -> None:
    """On a page with enough of every entity type, read against all arrangements of labels."""
    top, guarantees = 3, []
    for kind, labels in (("edge_type", ("connection", "follow")), ("entity_type", ("company", "hashtag"))):
        for label in labels:
            bound = data.draw(st.sampled_from(["minimum", "maximum", "none"]))
            if bound != "none":
                terms = {bound: data.draw(st.integers(0, 3)), "within_top": data.draw(st.integers(1, top))}
                try:
                    guarantees.append(ImpressionGuarantee(f"{kind}:{label}", kind, label, **terms))
                except InfeasibleGuarantee:
                    assert terms[bound] > terms["within_top"]
    entity_type = [t for t in ("people", "company", "hashtag") for _ in range(3)]
    labels = {"entity_type": entity_type, "edge_type": [EDGE_TYPE_OF[t] for t in entity_type]}

    def keeps(page: tuple[str, ...]) -> bool:
        for g in guarantees:
            of = page if g.label_kind == "entity_type" else tuple(EDGE_TYPE_OF[t] for t in page)
            count = of[: g.within_top].count(g.label)
            if not (g.minimum or 0) <= count <= (len(page) if g.maximum is None else g.maximum):
                return False
        return True

    possible = any(keeps(page) for page in permutations(entity_type, top))
    try:
        check_guarantees(guarantees, EDGE_TYPE_OF)
    except InfeasibleGuarantee:
        assert not possible
        return
    page = arrange([1.0 - 0.1 * i for i in range(9)], labels, guarantees, discount=[0.9**i for i in range(9)])
    assert keeps(tuple(entity_type[i] for i in page.order[:top])) or not possible
    assert bool(page.shortfall) == (not possible)


def test_a_draw_of_fractional_minima_that_no_page_could_keep_is_refused() -> None:
    twice = [of_edge("b", "follow", minimum=0.6, within_top=1), of_edge("c", "follow", minimum=0.6, within_top=1)]
    with pytest.raises(InfeasibleGuarantee, match="fractional minima are rounded together, and this is one draw"):
        check_guarantees([*twice, of_edge("d", "connection", minimum=0.4, within_top=1)])
    check_guarantees([of_edge("b", "follow", minimum=0.6, within_top=1), of_edge("d", "connection", minimum=0.4)])
