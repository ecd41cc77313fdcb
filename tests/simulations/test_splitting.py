from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from simulations import World
from simulations.splitting import FREQUENT_SHARE, UNSEEN_SHARE, PageSplit, split_pages

UNTIL = pd.Timestamp("2026-01-20", tz="UTC")


@pytest.fixture(scope="module")
def impressions() -> pd.DataFrame:
    return World(200, seed=2, n_entities=40).impressions(1500)


@pytest.fixture(scope="module")
def split(impressions: pd.DataFrame) -> PageSplit:
    return split_pages(impressions, until=UNTIL, seed=5)


def _viewers(split: PageSplit, segment: str) -> set[str]:
    return {viewer for viewer, often in split.frequency.items() if often == segment}


def test_split_pages_parts_are_all_rows_once(impressions: pd.DataFrame, split: PageSplit) -> None:
    both = pd.concat([split.train, split.test])
    key = ["request_id", "cohort_id", "slot"]
    pd.testing.assert_frame_equal(
        both.sort_values(key).reset_index(drop=True), impressions.sort_values(key).reset_index(drop=True)
    )
    for part in (split.train, split.test):
        assert part.index.tolist() == list(range(len(part)))


def test_split_pages_learns_from_earlier_pages_only(split: PageSplit) -> None:
    assert (split.train["at"] < UNTIL).all()
    known = ~split.test["viewer_id"].isin(_viewers(split, "unseen"))
    assert (split.test.loc[known, "at"] >= UNTIL).all()
    assert set(split.train["request_id"]).isdisjoint(split.test["request_id"])


def test_split_pages_moment_of_the_cut_is_not_learnt_from() -> None:
    rows = World(100, seed=1, n_entities=40).impressions(60).assign(at=UNTIL)
    split = split_pages(rows, until=UNTIL, seed=0)
    assert len(split.train) == 0
    assert len(split.test) == len(rows)
    assert set(split.frequency.values()) == {"unseen"}


def test_split_pages_unseen_viewers_are_in_no_training_page(impressions: pd.DataFrame, split: PageSplit) -> None:
    unseen = _viewers(split, "unseen")
    assert unseen.isdisjoint(split.train["viewer_id"])
    everyone = set(impressions["viewer_id"])
    assert set(split.frequency) == everyone
    assert everyone - unseen == set(split.train["viewer_id"])
    # a tenth is held out whole, early pages too; some others have only late pages
    early = set(split.test.loc[split.test["at"] < UNTIL, "viewer_id"])
    assert early <= unseen
    late_only = everyone - set(impressions.loc[impressions["at"] < UNTIL, "viewer_id"])
    held_out = unseen - late_only
    assert early == held_out
    assert abs(len(held_out) - UNSEEN_SHARE * len(everyone)) <= 1 + len(late_only)


def test_split_pages_frequent_viewers_have_most_training_pages(split: PageSplit) -> None:
    pages = split.train.groupby("viewer_id")["request_id"].nunique()
    frequent, infrequent = _viewers(split, "frequent"), _viewers(split, "infrequent")
    assert pages[sorted(frequent)].min() > pages[sorted(infrequent)].max()
    assert len(frequent) / len(pages) == pytest.approx(FREQUENT_SHARE, abs=0.12)  # ties at the border
    assert len(frequent) / len(pages) >= FREQUENT_SHARE - 1 / len(pages)


def test_split_pages_depends_on_ids_and_seed_not_on_the_order(impressions: pd.DataFrame, split: PageSplit) -> None:
    shuffled = split_pages(impressions.sample(frac=1.0, random_state=0), until=UNTIL, seed=5)
    assert shuffled.frequency == split.frequency
    assert set(shuffled.train["request_id"]) == set(split.train["request_id"])
    other = split_pages(impressions, until=UNTIL, seed=6)
    assert _viewers(other, "unseen") != _viewers(split, "unseen")


def test_split_pages_does_not_look_at_labels(impressions: pd.DataFrame, split: PageSplit) -> None:
    rng = np.random.default_rng(0)
    other = impressions.assign(**{n: rng.permutation(impressions[n]) for n in ("response", "downstream")})
    assert split_pages(other, until=UNTIL, seed=5).frequency == split.frequency


def test_split_pages_does_not_change_its_input(impressions: pd.DataFrame) -> None:
    before = impressions.copy()
    split = split_pages(impressions, until=UNTIL, seed=5)
    split.train.loc[:, "position"] = -1
    pd.testing.assert_frame_equal(impressions, before)
