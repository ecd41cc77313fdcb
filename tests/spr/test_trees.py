"""The fixed effect: position is additive and never helps, expected responses never harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import spr
from spr.assembly import assemble
from spr.tables import read_entities, read_impressions, read_viewers
from spr.trees import specify_trees

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulations.world import WorldTables


@pytest.fixture(scope="module")
def matrix(ranker: spr.SecondPassRanker, small_tables: WorldTables) -> NDArray[np.float32]:
    """Real cohorts, and as many rows of noise that no cohort would give; some of it null."""
    rows = read_impressions(small_tables.impressions.iloc[:6000], ranker.config)
    batch = assemble(rows, read_viewers(small_tables.viewers), read_entities(small_tables.entities))
    response = ranker.calibrators.predict(batch.raw_score, batch.ranker, batch.rankers)
    real = ranker.features.build(batch, response)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=real.shape).astype(np.float32)
    noise[rng.random(real.shape) < 0.1] = np.nan
    noise[:, -1] = 0
    return np.vstack([real, noise])


def test_trees_are_additive_in_position(ranker: spr.SecondPassRanker, matrix: NDArray[np.float32]) -> None:
    assert ranker.features.columns[-1] == "position"
    at_top = ranker.trees.margin(matrix)
    examined = ranker.trees.position_margin(14)
    for position in range(14):
        lower = matrix.copy()
        lower[:, -1] = position
        np.testing.assert_allclose(ranker.trees.margin(lower) - at_top, examined[position], rtol=0, atol=2e-5)


def test_position_margin_falls_from_zero(ranker: spr.SecondPassRanker) -> None:
    examined = ranker.trees.position_margin(14)
    assert examined[0] == 0.0
    assert (np.diff(examined) <= 1e-6).all()
    assert examined[11] < -0.5
    assert examined[13] == pytest.approx(examined[11], abs=1e-6)  # no page was longer: the last value holds


def test_trees_never_fall_with_an_expected_response(ranker: spr.SecondPassRanker, matrix: NDArray[np.float32]) -> None:
    before = ranker.trees.margin(matrix)
    rose = False
    for name in ranker.features.response_columns:
        column = ranker.features.columns.index(name)
        for step in (0.01, 0.1, 1.0):
            raised = matrix.copy()
            raised[:, column] += np.float32(step)
            after = ranker.trees.margin(raised)
            assert (after >= before).all(), name
            rose |= bool((after > before).any())
    assert rose


def test_trees_read_viewer_columns_only_where_asked(ranker: spr.SecondPassRanker, small_config: spr.Config) -> None:
    with_viewer, without = (
        specify_trees(ranker.features, small_config.trees, viewer_columns=seen, seed=0) for seen in (True, False)
    )
    assert set(with_viewer.features or ()) == set(ranker.features.columns)
    left_out = set(with_viewer.features or ()) - set(without.features or ())
    assert left_out == {c for c in ranker.features.columns if c.startswith("viewer.")}
    assert left_out


def test_trees_version_is_of_their_content(ranker: spr.SecondPassRanker, bundle: object) -> None:
    assert ranker.trees.version == spr.load(str(bundle)).trees.version
    assert len(ranker.trees.version) == 12
