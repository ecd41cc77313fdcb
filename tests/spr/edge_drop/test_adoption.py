from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spr.edge_drop.adoption import page_mix
from spr.errors import ConfigError
from spr.reorder import ImportanceFactors, is_random

if TYPE_CHECKING:
    import spr
    from simulations.world import WorldTables


def test_the_same_factors_change_no_page(ranker: spr.SecondPassRanker, small_tables: WorldTables) -> None:
    rows = small_tables.impressions.head(6000)
    mix = page_mix(ranker, ranker.factors, rows, small_tables.viewers, small_tables.entities)
    assert mix.n_changed == 0
    assert mix.value_given_up == pytest.approx(0.0)
    np.testing.assert_allclose(mix.table["share_before"], mix.table["share_after"])
    assert mix.table["share_before"].sum() == pytest.approx(1.0)


def test_a_higher_factor_moves_its_type_up_and_the_mix_is_that_of_the_pages(
    ranker: spr.SecondPassRanker, small_tables: WorldTables
) -> None:
    rows = small_tables.impressions.head(6000)
    tables = rows, small_tables.viewers, small_tables.entities
    new = ImportanceFactors.of({"subscribe": 5.0})
    mix = page_mix(ranker, new, *tables, within_top=3)
    assert mix.table.loc["subscribe", "share_after"] > mix.table.loc["subscribe", "share_before"]
    assert mix.table.loc["subscribe", "position_after"] < mix.table.loc["subscribe", "position_before"]
    assert mix.value_given_up > 0
    pages = ranker.with_factors(new).rank_table(*tables)
    kept = pages[pages["policy"] != "random"]
    exploration = ranker.config.exploration
    assert mix.n_pages == kept["request_id"].nunique()
    assert not any(is_random(r, exploration.random_share, exploration.salt) for r in kept["request_id"].unique())
    share = kept.loc[kept["position"] < 3, "edge_type"].value_counts(normalize=True)
    np.testing.assert_allclose(mix.table["share_after"], share.reindex(mix.table.index, fill_value=0.0))


def test_unknown_edge_types_and_nothing_to_count_are_refused(
    ranker: spr.SecondPassRanker, small_tables: WorldTables
) -> None:
    rows, viewers = small_tables.impressions.head(600), small_tables.viewers
    with pytest.raises(ConfigError, match="Did you mean 'follow'"):
        page_mix(ranker, ImportanceFactors.of({"folow": 2.0}), rows, viewers)
    with pytest.raises(ConfigError, match="within_top is 0"):
        page_mix(ranker, ranker.factors, rows, viewers, within_top=0)
    exploration = ranker.config.exploration
    random = [
        r
        for r in small_tables.impressions["request_id"].unique()
        if is_random(r, exploration.random_share, exploration.salt)
    ]
    shuffled = small_tables.impressions[small_tables.impressions["request_id"].isin(random)]
    with pytest.raises(ConfigError, match="every request is of the random policy"):
        page_mix(ranker, ranker.factors, shuffled, viewers, small_tables.entities)
