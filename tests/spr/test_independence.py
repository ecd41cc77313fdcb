"""The passes are independent: another first-pass ranker is another calibrator, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from calibration import CalibratorSet
from spr.errors import UnknownRankerVersion
from spr.tables import read_impressions

if TYPE_CHECKING:
    import spr
    from simulations.world import WorldTables


def _distort(impressions: pd.DataFrame) -> pd.DataFrame:
    """Put people's raw scores on another scale, as version people-2; their order stays."""
    people = impressions["entity_type"] == "people"
    distorted = np.exp(impressions["raw_score"].where(people) / 3.0) * 100.0
    return impressions.assign(
        raw_score=distorted.where(people, impressions["raw_score"]),
        ranker_version=impressions["ranker_version"].mask(people, "people-2"),
    )


def _calibrated(ranker: spr.SecondPassRanker, tables: WorldTables, method: str, transforms: str) -> CalibratorSet:
    """Fit all calibrators on the original scores, with the ranker's own examination."""
    rows = read_impressions(tables.impressions, ranker.config)
    examination = ranker.calibrators.examination
    return CalibratorSet.fit(rows, method=method, transforms=transforms, examination=examination)


def _top_cohorts(ranker: spr.SecondPassRanker, impressions: pd.DataFrame, tables: WorldTables) -> pd.Series:
    pages = ranker.rank_table(impressions, tables.viewers, tables.entities)
    served = pages[(pages["position"] == 0) & (pages["policy"] != "random")]
    return served.set_index("request_id")["cohort_id"]


@pytest.fixture(scope="module")
def held_out(small_tables: WorldTables) -> pd.DataFrame:
    rows = small_tables.impressions
    return rows[rows["request_id"].isin(rows["request_id"].unique()[-400:])]


@pytest.mark.parametrize(
    ("method", "transforms", "least"),  # "all" sees the score's own scale, which a distortion does change
    [("isotonic", "rank", 1.0), ("auto", "rank", 1.0), ("loglinear", "rank", 1.0), ("auto", "all", 0.97)],
)
def test_recalibrating_a_distorted_ranker_keeps_the_top_cohorts(
    ranker: spr.SecondPassRanker,
    small_tables: WorldTables,
    held_out: pd.DataFrame,
    method: str,
    transforms: str,
    least: float,
) -> None:
    before = ranker.with_calibrators(_calibrated(ranker, small_tables, method, transforms))
    distorted = _distort(small_tables.impressions)
    new = before.calibrators.refitted(distorted, entity_type="people", ranker_version="people-2")
    after = before.with_calibrators(new)
    tops = _top_cohorts(before, held_out, small_tables)
    new_tops = _top_cohorts(after, _distort(held_out), small_tables)
    assert len(tops) > 300
    assert (tops.index == new_tops.index).all()
    assert (tops == new_tops).mean() >= least
    # people lead some pages, so that a wrong calibrator would have been noticed
    kind = held_out.set_index(["request_id", "cohort_id"])["entity_type"]
    leaders = kind[~kind.index.duplicated()].reindex(pd.MultiIndex.from_arrays([tops.index, tops]))
    assert (leaders == "people").sum() > 20


def test_recalibrating_changes_the_calibrators_alone(ranker: spr.SecondPassRanker, small_tables: WorldTables) -> None:
    rows = _distort(small_tables.impressions)
    new = ranker.calibrators.refitted(rows, entity_type="people", ranker_version="people-2")
    assert set(new) == set(ranker.calibrators) | {("people", "people-2")}
    assert all(new[key] is ranker.calibrators[key] for key in ranker.calibrators)
    after = ranker.with_calibrators(new)
    same = {part for part in ranker.versions if ranker.versions[part] == after.versions[part]}
    assert same == set(ranker.versions) - {"bundle", "calibrators"}


def test_several_versions_are_live_on_one_page(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, held_out: pd.DataFrame
) -> None:
    new = ranker.calibrators.refitted(
        _distort(small_tables.impressions), entity_type="people", ranker_version="people-2"
    )
    both = ranker.with_calibrators(new)
    # every second entity is scored by the new version: rank-only calibrators answer the same
    second = held_out["slot"] % 2 == 1
    mixed = pd.concat([held_out[~second], _distort(held_out)[second]]).sort_index()
    old_pages = ranker.rank_table(held_out, small_tables.viewers, small_tables.entities)
    new_pages = both.rank_table(mixed, small_tables.viewers, small_tables.entities)
    versions = new_pages[new_pages["entity_type"] == "people"]["ranker_version"].map(set)
    assert {"people-1", "people-2"} in list(versions)
    assert old_pages["cohort_id"].tolist() == new_pages["cohort_id"].tolist()
    np.testing.assert_array_equal(old_pages["value"], new_pages["value"])


def test_distorted_scores_without_a_calibrator_are_refused_by_name(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, held_out: pd.DataFrame
) -> None:
    with pytest.raises(UnknownRankerVersion, match=r"'people-2'.*people-1"):
        ranker.rank_table(_distort(held_out), small_tables.viewers, small_tables.entities)


def test_distorted_scores_under_the_old_version_do_change_the_pages(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, held_out: pd.DataFrame
) -> None:
    passed_off = _distort(held_out).assign(ranker_version=held_out["ranker_version"])
    tops = _top_cohorts(ranker, held_out, small_tables)
    assert (tops == _top_cohorts(ranker, passed_off, small_tables)).mean() < 0.9


def test_version_without_calibrator_is_served_from_the_prior_where_configured(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, held_out: pd.DataFrame
) -> None:
    calibration = ranker.config.calibration.model_copy(update={"unknown_version": "prior"})
    lenient = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"calibration": calibration}))
    distorted = _distort(held_out)
    pages = lenient.rank_table(distorted, small_tables.viewers, small_tables.entities)
    with_people = set(distorted.loc[distorted["entity_type"] == "people", "request_id"])
    noted = set(pages.loc[pages["fallbacks"].notna(), "request_id"])
    assert noted == with_people
    people = pages[pages["entity_type"] == "people"]
    assert people["expected_response"].map(set).map(lambda found: found == {ranker.calibrators.prior("people")}).all()
