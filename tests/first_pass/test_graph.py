from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import first_pass.graph
from first_pass import EdgeGraph
from first_pass.errors import FirstPassError, InvalidTable, MissingColumn, UnknownName

KEYS = ["viewer_id", "entity_type", "entity_id"]
LOCAL = [name for name in first_pass.graph.FEATURES if name != "affinity"]
PEOPLE_ONLY = ["friends_of_friends", "adamic_adar", "taste_similarity"]


def _edges(*rows: str, weight: list[float] | None = None) -> pd.DataFrame:
    table = pd.DataFrame([row.split() for row in rows], columns=KEYS).assign(edge_type="any")
    return table if weight is None else table.assign(weight=weight)


# ann - bob - dan, ann - cat - dan, cat - eve; bob and dan listen to abba, cat and dan to cher, ann to blur.
EDGES = _edges(
    "ann people bob",
    "bob people dan",
    "ann people cat",
    "cat people dan",
    "eve people cat",
    "bob artist abba",
    "dan artist abba",
    "cat artist cher",
    "dan artist cher",
    "ann artist blur",
    "dan artist blur",
    "bob tag pop",
    "dan tag pop",
    "dan tag rock",
)
WEIGHTED = _edges("ann artist abba", "ann artist cher", "bob artist abba", "bob tag pop", weight=[3.0, 4.0, 5.0, 12.0])


def _features(pairs: str, edges: pd.DataFrame = EDGES, **options: bool) -> dict[str, float]:
    return EdgeGraph.from_edges(edges).features(_edges(pairs), **options).iloc[0].to_dict()


def test_features_of_a_person_are_those_computed_by_hand():
    found = _features("ann people dan")
    assert found["friends_of_friends"] == 2  # bob and cat
    assert found["adamic_adar"] == pytest.approx(1 / math.log(2) + 1 / math.log(3))
    assert found["friends_with_edge"] == 2
    assert found["taste_similarity"] == pytest.approx(1 / math.sqrt(1 * 5))  # blur, of 1 and of 5 edges
    assert found["popularity"] == pytest.approx(math.log1p(2))
    assert found["viewer_degree"] == pytest.approx(math.log1p(2))
    # ann's friends are bob, with friends ann and dan, and cat, with ann, dan and eve; dan's are bob and cat.
    assert found["co_occurrence"] == 0.0


def test_features_of_another_type_are_those_computed_by_hand():
    found = _features("ann artist abba")
    assert found["friends_with_edge"] == 1  # bob
    assert found["popularity"] == pytest.approx(math.log1p(2))
    assert found["viewer_degree"] == pytest.approx(math.log1p(1))
    assert found["co_occurrence"] == pytest.approx(1 / math.sqrt(2 * 2))  # dan has blur and abba
    assert all(math.isnan(found[name]) for name in PEOPLE_ONLY)


def test_taste_similarity_is_the_cosine_of_the_weights():
    edges = pd.concat([WEIGHTED, _edges("ann people bob", weight=[1.0])])
    assert _features("ann people bob", edges)["taste_similarity"] == pytest.approx(3 * 5 / (5 * 13))


def test_people_edges_have_no_direction():
    for name in ("friends_of_friends", "adamic_adar", "taste_similarity"):
        assert _features("dan people ann")[name] == pytest.approx(_features("ann people dan")[name])
    both = pd.concat([EDGES, EDGES.iloc[:5].rename(columns={"viewer_id": "entity_id", "entity_id": "viewer_id"})])
    assert _features("ann people dan", both) == pytest.approx(_features("ann people dan"))


def test_people_may_have_another_name():
    edges = EDGES.replace({"entity_type": {"people": "friend"}})
    graph = EdgeGraph.from_edges(edges, people="friend")
    assert graph.features(_edges("ann friend dan"))["friends_of_friends"].tolist() == [2.0]


def test_unknown_viewers_and_entities_have_no_edges():
    pairs = _edges(
        "zoe people dan", "ann people zoe", "zoe artist abba", "ann artist zz", "ann film jaws", "zoe film x"
    )
    found = EdgeGraph.from_edges(EDGES).features(pairs, exclude_own=True)
    log = np.log1p([2, 0, 2, 0, 0, 0])
    np.testing.assert_allclose(found["popularity"], log)
    np.testing.assert_allclose(found["viewer_degree"], np.log1p([0, 2, 0, 1, 0, 0]))
    for name in ("friends_with_edge", "co_occurrence", "affinity"):
        assert found[name].tolist() == [0.0] * 6, name
    for name in PEOPLE_ONLY:
        np.testing.assert_array_equal(found[name], [0, 0, np.nan, np.nan, np.nan, np.nan])


def test_features_keep_the_index_and_take_no_pairs():
    graph = EdgeGraph.from_edges(EDGES)
    pairs = EDGES.set_axis(np.arange(len(EDGES))[::-1] * 2, axis=0)
    assert graph.features(pairs).index.equals(pairs.index)
    assert graph.features(pairs.iloc[:0]).shape == (0, len(first_pass.graph.FEATURES))


def test_graph_without_edges_gives_zeros_and_no_candidates():
    graph = EdgeGraph.from_edges(EDGES.iloc[:0])
    assert graph.features(_edges("ann people bob")).iloc[0].tolist() == [0.0] * 8
    assert len(graph.candidates(["ann"], "friends_of_friends", 3)) == 0
    assert graph.embedding(n_components=3).viewer_vectors.shape == (0, 3)


def test_ids_may_be_categorical_or_arrow_strings():
    expected = EdgeGraph.from_edges(EDGES).features(EDGES)
    for dtype in ("category", "string"):
        typed = EDGES.astype(dict.fromkeys(KEYS, dtype))
        pd.testing.assert_frame_equal(EdgeGraph.from_edges(typed).features(typed), expected)


@st.composite
def edge_tables(draw: st.DrawFn) -> pd.DataFrame:
    viewers, artists, tags = "abcdef", "vwxyz", "pqr"
    people = draw(st.sets(st.tuples(st.sampled_from(viewers), st.sampled_from(viewers)), max_size=9))
    listens = draw(st.sets(st.tuples(st.sampled_from(viewers), st.sampled_from(artists)), max_size=14))
    tagged = draw(st.sets(st.tuples(st.sampled_from(viewers), st.sampled_from(tags)), max_size=6))
    rows = [(v, "people", e) for v, e in people if v < e]
    rows += [(v, "artist", e) for v, e in listens] + [(v, "tag", e) for v, e in tagged]
    return pd.DataFrame(sorted(rows), columns=KEYS, dtype=object)


ALL_PAIRS = pd.DataFrame(
    [
        (v, kind, e)
        for v in "abcdefg"
        for kind, ids in (("people", "abcdefg"), ("artist", "vwxyz"), ("tag", "pqr"))
        for e in ids
        if v != e
    ],
    columns=KEYS,
)


def _expected(edges: pd.DataFrame, viewer: str, kind: str, entity: str) -> dict[str, float]:
    """Compute the features of one pair from their definitions, on sets."""
    rows = {tuple(row) for row in edges[KEYS].itertuples(index=False)}
    rows |= {(e, kind, v) for v, kind, e in rows if kind == "people"}
    has = lambda v, t: {e for w, k, e in rows if w == v and k == t}  # noqa: E731 (reads as a definition)
    fans = lambda e, t: {v for v, k, f in rows if f == e and k == t}  # noqa: E731 (same)
    friends, own, theirs = has(viewer, "people"), has(viewer, kind), fans(entity, kind)
    cosines = [len(fans(i, kind) & theirs) / math.sqrt(len(fans(i, kind)) * len(theirs)) if theirs else 0 for i in own]
    common = friends & has(entity, "people")
    tastes = [{(k, e) for w, k, e in rows if w == v and k != "people"} for v in (viewer, entity)]
    size = math.sqrt(len(tastes[0]) * len(tastes[1]))
    of_people = {
        "friends_of_friends": len(common),
        "adamic_adar": sum(1 / math.log(len(has(f, "people"))) for f in common),
        "taste_similarity": len(tastes[0] & tastes[1]) / size if size else 0.0,
    }
    return {
        "friends_with_edge": len(friends & theirs),
        "co_occurrence": sum(cosines) / len(own) if own else 0.0,
        "popularity": math.log1p(len(theirs)),
        "viewer_degree": math.log1p(len(own)),
        **(of_people if kind == "people" else dict.fromkeys(of_people, math.nan)),
    }


@given(edge_tables())
@settings(deadline=None, max_examples=25)
def test_features_follow_their_definitions(edges):
    found = EdgeGraph.from_edges(edges).features(ALL_PAIRS)[LOCAL]
    expected = pd.DataFrame([_expected(edges, *pair) for pair in ALL_PAIRS.itertuples(index=False)])
    pd.testing.assert_frame_equal(found, expected[LOCAL], check_dtype=False, atol=1e-12)


@given(edge_tables())
@settings(deadline=None, max_examples=15)
def test_features_excluding_own_are_those_of_the_graph_without_that_edge(edges):
    found = EdgeGraph.from_edges(edges).features(ALL_PAIRS, exclude_own=True)
    for place, pair in enumerate(ALL_PAIRS.itertuples(index=False)):
        reverse = (pair.entity_id, pair.entity_type, pair.viewer_id)
        own = [tuple(row) in (tuple(pair), reverse) for row in edges.itertuples(index=False)]
        without = EdgeGraph.from_edges(edges[~np.array(own, dtype=bool)]) if any(own) else None
        if without is not None:
            expected = without.features(ALL_PAIRS.iloc[[place]])
            pd.testing.assert_frame_equal(found.iloc[[place]][LOCAL], expected[LOCAL], atol=1e-9)


@given(edge_tables(), st.data())
@settings(deadline=None, max_examples=15)
def test_features_depend_on_the_given_edges_alone(edges, data):
    given_edges = edges.copy()
    graph = EdgeGraph.from_edges(given_edges)
    whole = graph.features(ALL_PAIRS)
    # Not on the other pairs asked about, which hold the edges to predict ...
    asked = data.draw(st.lists(st.integers(0, len(ALL_PAIRS) - 1), min_size=1, max_size=5))
    pd.testing.assert_frame_equal(graph.features(ALL_PAIRS.iloc[asked]), whole.iloc[asked], atol=1e-12)
    # ... nor on the table once it is read, its order, or how often it says the same ...
    given_edges["entity_id"] = "z"
    pd.testing.assert_frame_equal(graph.features(ALL_PAIRS), whole)
    again = EdgeGraph.from_edges(pd.concat([edges.iloc[::-1], edges]).assign(weight=0.5)).features(ALL_PAIRS)
    pd.testing.assert_frame_equal(again, whole)
    # ... nor, but for the embedding, on edges between strangers.
    strangers = pd.concat([edges, _edges("s people t", "s artist u", "t film f")[KEYS]])
    pd.testing.assert_frame_equal(EdgeGraph.from_edges(strangers).features(ALL_PAIRS)[LOCAL], whole[LOCAL])


@pytest.mark.parametrize(
    ("edges", "error", "found"),
    [
        (EDGES.drop(columns="entity_id"), MissingColumn, r"edges: column 'entity_id' is missing"),
        (EDGES.assign(viewer_id=range(len(EDGES))), InvalidTable, r"viewer_id must be.*row 0, 0 \(int\)"),
        (EDGES.assign(entity_id=[*"abc", None] * 3 + ["a", "b"]), InvalidTable, "entity_id must be.*row 3, (nan|None)"),
        (_edges("ann people ann"), InvalidTable, "a person has an edge to himself in 1 of 1 rows.*'ann'"),
        (EDGES.assign(weight=0.0), InvalidTable, "weight must be a positive number; 14 of 14"),
        (EDGES.assign(weight=math.inf), InvalidTable, "weight must be a positive number"),
        (EDGES.assign(weight="heavy"), InvalidTable, "first: row 0, 'heavy'"),
    ],
)
def test_from_edges_refuses_a_table_it_cannot_read(edges, error, found):
    with pytest.raises(error, match=found):
        EdgeGraph.from_edges(edges)


def test_features_refuse_pairs_they_cannot_read():
    graph = EdgeGraph.from_edges(EDGES)
    with pytest.raises(MissingColumn, match="pairs: column 'viewer_id' is missing"):
        graph.features(EDGES.drop(columns="viewer_id"))
    with pytest.raises(InvalidTable, match="pairs: entity_type must be a string"):
        graph.features(EDGES.assign(entity_type=None))


WAYS = {
    "friends_of_friends": ("friends_of_friends", ["people"]),
    "taste": ("taste_similarity", ["people"]),
    "friends_with_edge": ("friends_with_edge", ["people", "artist", "tag"]),
    "co_occurrence": ("co_occurrence", ["people", "artist", "tag"]),
    "popularity": ("popularity", ["people", "artist", "tag"]),
    "affinity": ("affinity", ["people", "artist", "tag"]),
}


@pytest.mark.parametrize("how", WAYS)
@given(edges=edge_tables(), n=st.integers(1, 4))
@settings(deadline=None, max_examples=10)
def test_candidates_are_the_strongest_new_entities_by_the_feature_of_that_name(how, edges, n):
    feature, entity_types = WAYS[how]
    graph = EdgeGraph.from_edges(edges)
    viewers = ["g", *"fedcba", "a"]
    held = {tuple(row) for row in edges.itertuples(index=False)}
    held |= {(e, kind, v) for v, kind, e in held if kind == "people"}
    for entity_type in [each for each in entity_types if each in graph.links]:
        found = graph.candidates(viewers, how, n, entity_type=entity_type)
        pairs = ALL_PAIRS[ALL_PAIRS["entity_type"] == entity_type]
        pairs = pairs[[tuple(row) not in held for row in pairs.itertuples(index=False)]]
        pairs = pairs.assign(strength=graph.features(pairs)[feature].round(12))
        pairs = pairs[pairs["strength"] > 0].sort_values(
            ["viewer_id", "strength", "entity_id"], ascending=[True, False, True]
        )
        expected = pairs.groupby("viewer_id").head(n).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, atol=1e-12)


def test_candidates_by_path_go_through_the_viewers_who_have_both():
    found = EdgeGraph.from_edges(EDGES).candidates(["ann", "cat"], "path", 5, path=("artist", "tag"))
    # ann has blur (fans ann, dan), cat has cher (cat, dan); pop is bob's and dan's, rock dan's alone.
    rock, pop = 1 / math.sqrt(2 * 1), 1 / math.sqrt(2 * 2)
    assert found["viewer_id"].tolist() == ["ann", "ann", "cat", "cat"]
    assert found["entity_id"].tolist() == ["rock", "pop", "rock", "pop"]
    assert set(found["entity_type"]) == {"tag"}
    np.testing.assert_allclose(found["strength"], [rock, pop, rock, pop])


def test_candidates_break_ties_by_entity_id():
    edges = _edges("ann people bob", *(f"bob artist {each}" for each in ("d", "b", "a", "c")))
    found = EdgeGraph.from_edges(edges).candidates(["ann"], "friends_with_edge", 3, entity_type="artist")
    assert found["entity_id"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["friends_with_edge", "co_occurrence", "popularity", "affinity"])
def test_candidates_and_features_do_not_depend_on_chunks(how, monkeypatch):
    graph = EdgeGraph.from_edges(EDGES)
    viewers = graph.viewer_ids.tolist()
    found = graph.candidates(viewers, how, 3, entity_type="artist")
    features = graph.features(ALL_PAIRS)
    monkeypatch.setattr(first_pass.graph, "_CHUNK_CELLS", 1)
    pd.testing.assert_frame_equal(graph.candidates(viewers, how, 3, entity_type="artist"), found)
    pd.testing.assert_frame_equal(graph.features(ALL_PAIRS), features, atol=1e-12)
    alone = pd.concat(
        [graph.candidates([viewer], how, 3, entity_type="artist") for viewer in viewers], ignore_index=True
    )
    pd.testing.assert_frame_equal(alone, found)


def test_candidates_of_an_unknown_viewer_are_the_popular_ones():
    graph = EdgeGraph.from_edges(EDGES)
    popular = graph.candidates(["zoe"], "popularity", 2, entity_type="tag")
    assert popular["entity_id"].tolist() == ["pop", "rock"]
    for how in ("friends_with_edge", "co_occurrence", "affinity"):
        assert graph.candidates(["zoe"], how, 2, entity_type="tag").empty


@pytest.mark.parametrize(
    ("arguments", "error", "found"),
    [
        ({"how": "friends_of_friend"}, UnknownName, "Did you mean 'friends_of_friends'"),
        ({"how": "popularity"}, FirstPassError, "needs entity_type; known: artist, people, tag"),
        ({"how": "popularity", "entity_type": "atrist"}, UnknownName, "Did you mean 'artist'"),
        ({"how": "taste", "entity_type": "artist"}, FirstPassError, "gives 'people', not entity_type='artist'"),
        ({"how": "path"}, FirstPassError, "path is None with how='path'"),
        ({"how": "taste", "path": ("artist", "tag")}, FirstPassError, "only then"),
        ({"how": "path", "path": ("artist", "tag"), "entity_type": "artist"}, FirstPassError, "gives 'tag'"),
        ({"how": "path", "path": ("artist", "tga")}, UnknownName, "Did you mean 'tag'"),
        ({"how": "path", "path": ("artist", "tag", "artist")}, FirstPassError, "must be two entity types"),
        ({"how": "taste", "n": 0}, FirstPassError, "n is 0"),
    ],
)
def test_candidates_refuse_arguments_that_do_not_go_together(arguments, error, found):
    with pytest.raises(error, match=found):
        EdgeGraph.from_edges(EDGES).candidates(["ann"], **{"n": 3, **arguments})
