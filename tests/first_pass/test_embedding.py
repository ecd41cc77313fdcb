from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from first_pass import EdgeGraph
from first_pass.embedding import embed_blocks
from first_pass.errors import FirstPassError


def _two_communities(n: int = 30, inside: float = 0.4, across: float = 0.02) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    sides = np.arange(n) % 2
    rows = [
        (f"v{v}", kind, f"{kind[0]}{e}" if kind == "artist" else f"v{e}")
        for kind in ("artist", "people")
        for v in range(n)
        for e in range(n)
        if rng.random() < (inside if sides[v] == sides[e] else across) and (kind == "artist" or v < e)
    ]
    return pd.DataFrame(rows, columns=["viewer_id", "entity_type", "entity_id"])


def test_embedding_finds_planted_communities():
    graph = EdgeGraph.from_edges(_two_communities())
    table = graph.embedding(n_components=2)
    products = np.array(
        [[table.viewer(f"v{v}") @ table.entity("artist", f"a{a}") for a in range(30)] for v in range(30)]
    )
    same = np.equal.outer(np.arange(30) % 2, np.arange(30) % 2)
    assert (products[same] > np.quantile(products[~same], 0.95)).mean() > 0.95


def test_affinity_is_the_dot_product_in_the_embedding():
    edges = _two_communities()
    graph = EdgeGraph.from_edges(edges)
    table = graph.embedding()
    expected = [table.viewer(v) @ table.entity(kind, e) for v, kind, e in edges.itertuples(index=False)]
    np.testing.assert_allclose(graph.features(edges)["affinity"], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("n_components", [3, 12, 40])
def test_embed_blocks_is_the_best_approximation_of_the_normalised_matrix(n_components):
    rng = np.random.default_rng(0)
    blocks = {name: rng.poisson(0.4, (20, n)).astype(float) for name, n in (("artist", 25), ("tag", 9))}
    rows, columns = embed_blocks({k: sparse.csr_array(b) for k, b in blocks.items()}, n_components=n_components, seed=1)
    assert rows.shape == (20, n_components)
    assert {name: each.shape for name, each in columns.items()} == {
        "artist": (25, n_components),
        "tag": (9, n_components),
    }
    normalised = []
    for block in blocks.values():
        row_degree, column_degree = block.sum(1), block.sum(0)
        scale = np.sqrt(np.outer(row_degree + row_degree.mean(), column_degree + column_degree.mean()))
        normalised.append(block / scale)
    u, s, v = np.linalg.svd(np.hstack(normalised), full_matrices=False)
    best = (u[:, :n_components] * s[:n_components]) @ v[:n_components]
    np.testing.assert_allclose(rows @ np.vstack([columns["artist"], columns["tag"]]).T, best, atol=1e-5)


def test_embedding_does_not_depend_on_the_seed_or_the_order_of_the_edges():
    edges = _two_communities()
    table = EdgeGraph.from_edges(edges).embedding(n_components=4)
    for other in (
        EdgeGraph.from_edges(edges.sample(frac=1.0, random_state=1)).embedding(n_components=4),
        EdgeGraph.from_edges(edges).embedding(n_components=4, seed=9),
    ):
        np.testing.assert_allclose(other.viewer_vectors, table.viewer_vectors, atol=1e-5)
        np.testing.assert_allclose(other.entity_vectors, table.entity_vectors, atol=1e-5)


def test_embedding_of_the_same_graph_repeats_exactly():
    edges = _two_communities()
    first, second = (EdgeGraph.from_edges(edges).embedding(n_components=8) for _ in range(2))
    np.testing.assert_array_equal(first.viewer_vectors, second.viewer_vectors)
    np.testing.assert_array_equal(first.entity_vectors, second.entity_vectors)


def test_embedding_pads_with_zeros_past_the_rank():
    edges = pd.DataFrame({"viewer_id": list("abcdef"), "entity_type": "tag", "entity_id": list("xxxyyz")})
    table = EdgeGraph.from_edges(edges).embedding(n_components=5)
    assert (table.viewer_vectors[:, 3:] == 0).all()
    assert (np.abs(table.viewer_vectors[:, :3]).max(axis=0) > 0).all()
    assert table.viewer_vectors.dtype == np.float32


def test_embedding_table_as_frames_gives_the_same_vectors():
    table = EdgeGraph.from_edges(_two_communities(12)).embedding(n_components=3)
    viewers, entities = table.viewer_frame(), table.entity_frame()
    assert list(viewers) == ["viewer_id", "embedding"]
    assert list(entities) == ["entity_type", "entity_id", "embedding"]
    np.testing.assert_allclose(viewers.set_index("viewer_id").loc["v3", "embedding"], table.viewer("v3"), rtol=1e-6)
    row = entities[(entities["entity_type"] == "people") & (entities["entity_id"] == "v3")].iloc[0]
    np.testing.assert_allclose(row["embedding"], table.entity("people", "v3"), rtol=1e-6)
    assert (table.entity("people", "nobody") == 0).all()


def test_embedding_refuses_no_components():
    with pytest.raises(FirstPassError, match="n_components is 0"):
        EdgeGraph.from_edges(_two_communities(12)).embedding(n_components=0)
