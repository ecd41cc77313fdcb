"""What new factors do to the pages, held against the pages themselves."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

import spr
from spr.edge_drop import page_mix
from spr.edge_drop.adoption import compare_factors, with_known_factors
from spr.errors import ConfigError, TableError
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from simulations.world import WorldTables

NEW = ImportanceFactors.of({"connection": 0.3, "subscribe": 2.5})


@pytest.fixture(scope="module")
def free(ranker: spr.SecondPassRanker) -> spr.SecondPassRanker:
    """The ranker without guarantees."""
    return dataclasses.replace(ranker, config=ranker.config.model_copy(update={"guarantees": ()}))


@pytest.fixture(scope="module")
def requests(small_tables: WorldTables) -> pd.DataFrame:
    rows = small_tables.impressions
    return rows[rows["request_id"].isin(rows["request_id"].unique()[:200])]


def _served(
    ranker: spr.SecondPassRanker, requests: pd.DataFrame, tables: WorldTables
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pages under the factors of the ranker and under the new ones, by the public way."""
    made = []
    for one in (ranker, ranker.with_factors(NEW)):
        pages = one.rank_table(requests, tables.viewers, tables.entities)
        made.append(pages[pages["policy"] != "random"])
    return made[0], made[1]


def test_page_mix_is_that_of_the_pages(
    free: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    mix = page_mix(free, NEW, requests, small_tables.viewers, small_tables.entities, within_top=3)
    before, after = _served(free, requests, small_tables)
    for side, pages in (("before", before), ("after", after)):
        shares = pages[pages["position"] < 3]["edge_type"].value_counts(normalize=True)
        first = pages[pages["position"] == 0]["edge_type"].value_counts(normalize=True)
        found = mix.by_edge_type
        assert found[f"share_{side}"].to_dict() == pytest.approx(shares.to_dict())
        assert found[f"first_{side}"][first.index].to_dict() == pytest.approx(first.to_dict())
        positions = pages.groupby("edge_type")["position"].mean()
        assert found[f"position_{side}"].to_dict() == pytest.approx(positions.to_dict())
        by_entity = pages.groupby(["edge_type", "entity_type"])["position"].mean()
        assert mix.by_entity_type[f"position_{side}"].to_dict() == pytest.approx(by_entity.to_dict())
    assert mix.by_edge_type["factor_after"].to_dict() == {"connection": 0.3, "follow": 1.0, "subscribe": 2.5}
    assert mix.by_edge_type["share_difference"].sum() == pytest.approx(0.0, abs=1e-12)
    orders = [pages.groupby("request_id", sort=False)["cohort_id"].agg(tuple) for pages in (before, after)]
    assert (mix.n_pages, mix.n_changed) == (len(orders[0]), int((orders[0] != orders[1]).sum()))
    assert mix.n_pages + mix.n_random == requests["request_id"].nunique()
    assert mix.n_random > 0


def test_page_mix_value_given_up_is_of_the_old_order_by_the_new_values(
    free: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    mix = page_mix(free, NEW, requests, small_tables.viewers, small_tables.entities)
    before, after = _served(free, requests, small_tables)
    worth = after.set_index(["request_id", "cohort_id"])["value"]
    old, best = (
        float(
            worth.loc[pd.MultiIndex.from_frame(pages[["request_id", "cohort_id"]])].to_numpy()
            @ (1 / np.log2(pages["position"].to_numpy() + 2.0))
        )
        for pages in (before, after)
    )
    assert mix.value_given_up == pytest.approx(1 - old / best)
    assert mix.value_given_up > 0.01


def test_page_mix_with_guarantees_gives_up_no_less_than_nothing(
    ranker: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    counted = requests.assign(delivered_total=7).assign(**{"delivered_connection-floor": 1})
    mix = page_mix(ranker, NEW, counted, small_tables.viewers, small_tables.entities)
    without = page_mix(ranker, NEW, requests, small_tables.viewers, small_tables.entities)
    assert mix.within_top == max(guarantee.within_top for guarantee in ranker.guarantees)
    assert mix.value_given_up >= -1e-12
    # A viewer who is owed connections sees them higher, also where their factor is small: the counters are read.
    above = [m.by_edge_type.loc["connection", "position_after"] for m in (mix, without)]
    assert above[0] < above[1]


def test_page_mix_of_equal_factors_changes_nothing(
    free: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    mix = page_mix(free, free.factors, requests, small_tables.viewers, small_tables.entities)
    assert (mix.n_changed, mix.value_given_up) == (0, 0.0)
    assert (mix.by_edge_type.filter(regex="_difference$") == 0).all(axis=None)
    assert mix.within_top == 5


def test_page_mix_of_one_constant_for_all_changes_no_page(
    free: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    tripled = ImportanceFactors.of({t: 3.0 * f for t, f in free.factors.factor.items()})
    mix = page_mix(free, tripled, requests, small_tables.viewers, small_tables.entities)
    assert mix.n_changed == 0


def test_page_mix_values_the_cohorts_once(
    free: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    value = spr.SecondPassRanker.value_cohorts
    with patch.object(spr.SecondPassRanker, "value_cohorts", autospec=True, side_effect=value) as counted:
        page_mix(free, NEW, requests, small_tables.viewers, small_tables.entities)
    assert counted.call_count == 1


def test_page_mix_bad_input_is_refused(
    free: spr.SecondPassRanker, requests: pd.DataFrame, small_tables: WorldTables
) -> None:
    with pytest.raises(ConfigError, match=r"unknown edge type 'conection'.*Did you mean 'connection'.*Take it out"):
        page_mix(free, ImportanceFactors.of({"conection": 2.0}), requests, small_tables.viewers)
    with pytest.raises(ConfigError, match="within_top=0; allowed"):
        page_mix(free, NEW, requests, small_tables.viewers, small_tables.entities, within_top=0)
    exploration = free.config.exploration.model_copy(update={"random_share": 1.0})
    shuffled = dataclasses.replace(free, config=free.config.model_copy(update={"exploration": exploration}))
    with pytest.raises(TableError, match="all 200 pages are of the random policy"):
        page_mix(shuffled, NEW, requests, small_tables.viewers, small_tables.entities)


def test_factors_beside_each_other_name_every_edge_type(free: spr.SecondPassRanker) -> None:
    decided = ImportanceFactors({"connection": 1.0}, decision={"connection": "kept at 1"})
    table = compare_factors(free, decided)
    assert table["before"].to_dict() == {"connection": 1.4, "follow": 1.0, "subscribe": 1.2}
    assert table["after"].to_dict() == dict.fromkeys(free.config.edge_types, 1.0)
    assert table["decision"].to_list() == ["kept at 1", "not named: 1", "not named: 1"]
    assert with_known_factors(free, decided).trees is free.trees
