"""Worlds that drift, and one that does not: which part a replay finds to grow old."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.evaluation import Replay, replay
from spr.evaluation.ageing import CALIBRATORS, EFFECTS, EVERYTHING, NOTHING

if TYPE_CHECKING:
    import spr
    from tests.spr.evaluation.conftest import MakeLog

CUTS = ("2026-03-09", "2026-03-17")
"""Whatever drifts does so on day 8, the first cut, and the window of the second reaches back to it."""


def _replay(log: pd.DataFrame, viewers: pd.DataFrame, config: spr.Config) -> Replay:
    return replay(log, viewers, config, CUTS, window=timedelta(days=8), n_replicates=400)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def still(make_log: MakeLog, plain_viewers: pd.DataFrame, small_labels: spr.Config) -> Replay:
    return _replay(make_log(4000), plain_viewers, small_labels)


@pytest.fixture(scope="module")
def scores_drift(make_log: MakeLog, plain_viewers: pd.DataFrame, small_labels: spr.Config) -> Replay:
    return _replay(make_log(4000, shift_from=8), plain_viewers, small_labels)


@pytest.fixture(scope="module")
def tastes_drift(make_log: MakeLog, plain_viewers: pd.DataFrame, small_labels: spr.Config) -> Replay:
    return _replay(make_log(4000, tastes_from=8), plain_viewers, small_labels)


def _rows(found: Replay, metric: str = "normalized_cross_entropy") -> pd.DataFrame:
    table = found.to_pandas()
    return table[table["metric"] == metric].set_index("part")


def test_nothing_grows_old_where_nothing_drifts(still: Replay) -> None:
    assert still.adopted_effects == ("member",), "the test needs effects that can be refitted"
    table = still.to_pandas().set_index("part")
    assert not table.loc[["calibrators", "random effects"], "worse"].any()
    assert still.worse_from().loc[["calibrators", "random effects"]].isna().all(axis=None)


def test_calibrators_grow_old_where_scores_drift(scores_drift: Replay) -> None:
    row = _rows(scores_drift).loc["calibrators"]
    assert row["worse"]
    assert row["low"] > 0.0
    assert scores_drift.worse_from().loc["calibrators", "normalized_cross_entropy"] == 8.0


def test_refitted_calibrators_undo_a_shift_of_the_scores_exactly(still: Replay, scores_drift: Replay) -> None:
    """Ranks and labels of all rows since the drift are the same in both worlds, and so is all that is refitted."""
    late = (still.frame["cut"] == pd.Timestamp(CUTS[1])).to_numpy()
    for option, alike in ((CALIBRATORS, True), (EVERYTHING, True), (NOTHING, False), (EFFECTS, False)):
        one, other = (np.asarray(found.predictions[option].probability)[late] for found in (still, scores_drift))
        assert np.allclose(one, other, rtol=0, atol=1e-6) == alike, option


def test_random_effects_grow_old_where_tastes_drift(tastes_drift: Replay) -> None:
    for metric in ("normalized_cross_entropy", "ndcg"):
        assert _rows(tastes_drift, metric).loc["random effects", "worse"]
        assert not _rows(tastes_drift, metric).loc["calibrators", "worse"]
    assert _rows(tastes_drift).loc["random effects", "low"] > 0.0
    assert _rows(tastes_drift, "ndcg").loc["random effects", "high"] < 0.0


def test_the_match_with_actions_tells_the_same(tastes_drift: Replay) -> None:
    match = tastes_drift.match_table()
    late = match[(match["cut"] == pd.Timestamp(CUTS[1])) & (match["pages"] == "random")].set_index("order")
    assert late.loc[NOTHING, "difference_low"] > 0.0
    assert late.loc[EFFECTS, "mean_rank"] < late.loc[NOTHING, "mean_rank"]
    assert (late.loc[EVERYTHING, ["difference", "difference_low", "difference_high"]] == 0.0).all()


def test_what_agrees_with_the_policy_matches_its_pages(still: Replay) -> None:
    """The order that was shown fits actions better on served pages than a shuffle does on random ones."""
    match = still.match_table()
    shown = match[match["order"] == "as shown"].groupby("pages")["mean_rank"].mean()
    assert shown["other policies"] < shown["random"]
