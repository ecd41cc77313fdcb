"""The walk of a replay: what a fit may know, which pages judge, and what is refused before any work."""

from __future__ import annotations

import dataclasses
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr.errors import ConfigError, TableError
from spr.evaluation import SPR, Replay, compare, cut_schedule, replay
from spr.evaluation.ageing import EVERYTHING, NOTHING, OPTIONS, PARTS
from spr.evaluation.replay import config_at, fits_needed
from spr.tables import mask_immature

if TYPE_CHECKING:
    import spr
    from tests.spr.evaluation.conftest import MakeLog

CUTS = ("2026-03-09", "2026-03-15")
FIRST, SECOND = (pd.Timestamp(cut, tz="UTC") for cut in CUTS)
SPAN = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def log(make_log: MakeLog) -> pd.DataFrame:
    """Two days after the first cut a new version of one ranker goes live on half the pages."""
    rows = make_log(1500)
    new = (rows["at"] >= FIRST + 2 * SPAN) & (rows["entity_type"] == "people")
    odd = rows["request_id"].str[-1].isin(list("13579"))
    return rows.assign(ranker_version=rows["ranker_version"].mask(new & odd, "people-2"))


def _replay(log: pd.DataFrame, viewers: pd.DataFrame, config: spr.Config, **options: Any) -> Replay:
    return replay(log, viewers, config, CUTS, n_replicates=50, **options)


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def found(
    log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config, stages: list[tuple[str, int, int]]
) -> Replay:
    return _replay(log, plain_viewers, small_labels, progress=lambda *step: stages.append(step))


# ------------------------------------------------------------------ leakage


def test_no_fit_knows_what_matured_after_its_cut(
    found: Replay, log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config
) -> None:
    """Labels that were open at the second cut, also of rows before it, are turned over: what was fitted stays."""
    open_then = log["at"] + SPAN > SECOND
    assert (open_then & (log["at"] < SECOND)).any(), "the test needs rows that would leak"
    turned = log.assign(
        response=log["response"].mask(open_then, 1.0 - log["response"]),
        downstream=log["downstream"].mask(open_then, 1.0 - log["downstream"]),
    )
    again = _replay(turned, plain_viewers, small_labels)
    assert [dict(r.versions) for r in again.rankers.values()] == [dict(r.versions) for r in found.rankers.values()]
    for option in OPTIONS:
        for one, other in zip(_arrays(found, option), _arrays(again, option), strict=True):
            np.testing.assert_array_equal(one, other)
    # What judges is the log as it is known now.
    late = found.frame["cut"] == SECOND.tz_convert(None)
    assert (found.frame.loc[late, "label"].to_numpy() != again.frame.loc[late, "label"].to_numpy()).any()


def test_a_fit_knows_what_had_matured_by_its_cut(
    found: Replay, log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config
) -> None:
    """The counterpart: one page that is a moment older than the windows does change the fit, and the later one only."""
    known = log[(log["at"] + SPAN <= SECOND) & (log["at"] >= FIRST) & (log["policy"] == "random")]
    page = known.loc[known["at"].idxmax(), "request_id"]
    own = log["request_id"] == page
    turned = log.assign(
        response=log["response"].mask(own, 1.0 - log["response"]),
        downstream=log["downstream"].mask(own, 1.0 - log["downstream"]),
    )
    again = _replay(turned, plain_viewers, small_labels)
    (first, second), (first_again, second_again) = (
        [ranker.versions for ranker in each.rankers.values()] for each in (found, again)
    )
    assert first == first_again
    assert second["calibrators"] != second_again["calibrators"]
    for option in OPTIONS:
        changed = not np.array_equal(_arrays(found, option)[1], _arrays(again, option)[1])
        assert changed == (option != NOTHING), option


def _arrays(found: Replay, option: str) -> tuple[np.ndarray, np.ndarray]:
    prediction = found.predictions[option]
    return np.asarray(prediction.probability), np.asarray(prediction.order_by)


@given(hours=st.lists(st.floats(-100.0, 10.0), min_size=1, max_size=20))
def test_labels_are_null_while_a_window_is_open_at_the_cut(hours: list[float], small_labels: spr.Config) -> None:
    ends = [pd.Timedelta(-24, "h"), pd.Timedelta(-24, "h") + pd.Timedelta(1, "us")]
    at = SECOND.tz_convert(None) + pd.Series([*pd.to_timedelta(hours, unit="h"), *ends])
    rows = pd.DataFrame({"at": at, "response": 1.0, "downstream": 1.0})
    masked = mask_immature(rows, config_at(small_labels, SECOND.tz_convert(None)))
    mature = at + SPAN <= SECOND.tz_convert(None)
    assert mature.tolist()[-2:] == [True, False], "a window that closes at the cut is closed"
    assert masked["response"].notna().tolist() == mature.tolist()
    assert masked["downstream"].notna().tolist() == mature.tolist()


def test_viewers_are_as_they_were(log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config) -> None:
    """What is learnt about viewers after the second cut reaches the pages from then on, and no fit."""
    rng = np.random.default_rng(1)
    start, later = (plain_viewers.assign(at=at, tenure=rng.random(60)) for at in (log["at"].min(), SECOND + SPAN))
    features = small_labels.features.model_copy(update={"viewer_in_trees": "yes"})
    config = small_labels.model_copy(update={"features": features})
    told = _replay(log, pd.concat([start, later]), config)
    before = _replay(log, start, config)
    assert [dict(r.versions) for r in told.rankers.values()] == [dict(r.versions) for r in before.rankers.values()]
    assert "viewer.tenure" in told.rankers[SECOND.tz_convert(None)].features.columns


# ------------------------------------------------------------------ the walk


def test_fresh_metrics_are_those_of_compare(
    found: Replay, log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config
) -> None:
    cut = FIRST.tz_convert(None)
    assert found.rankers[cut].config == small_labels
    calibration = small_labels.calibration.model_copy(update={"unknown_version": "prior"})
    config = small_labels.model_copy(update={"calibration": calibration})
    ranker = dataclasses.replace(found.rankers[cut], config=config)
    period = log[(log["at"] >= FIRST) & (log["at"] < SECOND)]
    reference = compare(ranker, period, plain_viewers, n_replicates=10).metrics
    cell = list(zip(reference.segment, reference.prediction, strict=True)).index(("all", SPR))
    own = list(zip(found.metrics.segment, found.metrics.prediction, strict=True)).index((f"segment={cut}", EVERYTHING))
    np.testing.assert_allclose(found.metrics.estimate[own], reference.estimate[cell], rtol=1e-9)


def test_periods_count_mature_random_pages(found: Replay, log: pd.DataFrame) -> None:
    periods = found.periods
    assert periods["age_days"].tolist() == [0.0, 6.0]
    assert periods["until"].iloc[0] == SECOND.tz_convert(None)
    random = log[log["policy"] == "random"].drop_duplicates("request_id")
    counts = [((random["at"] >= FIRST) & (random["at"] < SECOND)).sum(), (random["at"] >= SECOND).sum()]
    assert periods["random_pages"].tolist() == counts
    assert (periods["cohorts"] == 4 * periods["random_pages"]).all()


def test_versions_that_kept_calibrators_do_not_know_are_counted_and_said(found: Replay, log: pd.DataFrame) -> None:
    pages = log[log["ranker_version"] == "people-2"].drop_duplicates("request_id")["at"]
    expected = [int((pages < SECOND).sum()), int((pages >= SECOND).sum())]
    assert found.periods["pages_of_unknown_versions"].tolist() == expected
    assert any(f"{sum(expected):,} pages hold ranker versions" in said for said in found.sentences())


def test_nothing_differs_before_anything_is_refitted(found: Replay) -> None:
    first = (found.frame["cut"] == FIRST.tz_convert(None)).to_numpy()
    for option in OPTIONS:
        for one, other in zip(_arrays(found, option), _arrays(found, EVERYTHING), strict=True):
            np.testing.assert_array_equal(one[first], other[first])
    distinct = {tuple(_arrays(found, option)[1][~first].round(9)) for option in OPTIONS}
    assert len(distinct) == (len(OPTIONS) if found.adopted_effects else 3)


def test_the_table_is_what_metrics_say(found: Replay) -> None:
    table = found.to_pandas()
    assert len(table) == len(PARTS) * 3
    np.testing.assert_allclose(table["difference"], table["kept"] - table["fresh"], rtol=0, atol=1e-12)
    whole = table[table["part"] == "everything"].set_index("metric")
    wide = found.metrics_table().loc[SECOND.tz_convert(None)]
    for metric in whole.index:
        assert wide.loc[NOTHING, metric].startswith(f"{whole.loc[metric, 'kept']:.4f} [")
        assert wide.loc[EVERYTHING, metric].startswith(f"{whole.loc[metric, 'fresh']:.4f} [")


def test_ranks_of_what_was_acted_on_are_those_of_ranked_pages(
    found: Replay, log: pd.DataFrame, plain_viewers: pd.DataFrame
) -> None:
    cut = SECOND.tz_convert(None)
    rows = log[log["at"] >= SECOND]
    pages = found.rankers[cut].rank_table(rows, plain_viewers)
    rank = (
        pages.groupby("request_id")["margin"]
        .rank(ascending=False)
        .set_axis(pd.MultiIndex.from_frame(pages[["request_id", "cohort_id"]]))
    )
    acted = rows[rows["downstream"] > 0].drop_duplicates(["request_id", "cohort_id"])
    key = pd.MultiIndex.from_frame(acted[["request_id", "cohort_id"]])
    own = found.acted_on[found.acted_on["cut"] == cut]
    assert len(own) == len(acted)
    by_page = pd.Series(rank.loc[key].to_numpy()).groupby(acted["request_id"].to_numpy()).sum()
    pd.testing.assert_series_equal(own.groupby("request_id")[EVERYTHING].sum(), by_page, check_names=False)
    shown = (acted["position"] + 1.0).groupby(acted["request_id"]).sum()
    pd.testing.assert_series_equal(own.groupby("request_id")["as shown"].sum(), shown, check_names=False)
    assert set(own["policy"]) == {"random", "production"}


def test_calibration_is_by_cut_type_and_option(found: Replay) -> None:
    table = found.calibration_table()
    assert len(table) == 2 * 4 * len(OPTIONS)
    row = table.iloc[0]
    own = ((found.frame["cut"] == row["cut"]) & (found.frame["entity_type"] == row["entity_type"])).to_numpy()
    predicted = np.asarray(found.predictions[row["option"]].probability)[own].sum()
    assert row["ratio"] == pytest.approx(found.frame.loc[own, "label"].sum() / predicted)
    assert row["low"] < row["ratio"] < row["high"]


def test_a_replay_is_the_same_again_whatever_the_order_of_rows(
    found: Replay, log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config
) -> None:
    again = _replay(log.sample(frac=1.0, random_state=1), plain_viewers, small_labels)
    pd.testing.assert_frame_equal(again.to_pandas(), found.to_pandas())
    pd.testing.assert_frame_equal(again.match_table(), found.match_table())


def test_the_cost_is_stated_beforehand(found: Replay, stages: list[tuple[str, int, int]]) -> None:
    assert len(found.rankers) == 2
    assert stages[0] == (fits_needed(2), 0, 4)
    assert fits_needed(2) == "2 fits of everything and 2 of the random effects"
    assert [step for step in stages if step[0] == fits_needed(2)][-1] == (fits_needed(2), 4, 4)


# ------------------------------------------------------------------ refusals, before anything is fitted


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something was fitted before the cuts were checked")

    # The function of that name hides the module from a dotted path.
    monkeypatch.setattr(sys.modules["spr.evaluation.replay"], "train", fail)


@pytest.mark.usefixtures("no_fit")
@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (["2026-03-15", "2026-03-09"], "2026-03-09 00:00:00 comes after 2026-03-15"),
        (["2026-03-09", "2026-03-09"], "must be later"),
        (["2026-03-09"], "at least two"),
        ([], "found 0"),
        ("2026-03-09", "is one string"),
        (["2026-03-09", "soon"], "'soon' is no date"),
        (["2026-03-09", None], "is no date"),
        (["2026-02-01", "2026-03-09"], "2026-02-01 00:00:00 is outside the log"),
        (["2026-03-09", "2026-04-09"], "2026-04-09 00:00:00 is outside the log"),
        (["2026-03-01 18:00", "2026-03-09"], "at 2026-03-01 18:00:00 no random page .* was mature"),
    ],
)
def test_bad_cuts_are_refused(
    log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config, cuts: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replay(log, plain_viewers, small_labels, cuts)


@pytest.mark.usefixtures("no_fit")
def test_a_period_without_mature_random_pages_is_named(
    log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config
) -> None:
    late = log["at"] >= SECOND
    named = r"from 2026-03-15 00:00:00 to .* no page of policy 'random' is mature"
    for spoilt in (
        log.assign(policy=log["policy"].mask(late, "production")),
        log.assign(downstream=log["downstream"].mask(late)),
        log.assign(raw_score=log["raw_score"].mask(late)),
    ):
        with pytest.raises(ConfigError, match=named):
            _replay(spoilt, plain_viewers, small_labels)
    labels = small_labels.labels.model_copy(update={"snapshot": SECOND.to_pydatetime()})
    with pytest.raises(ConfigError, match=f"{named} by the snapshot"):
        _replay(log, plain_viewers, small_labels.model_copy(update={"labels": labels}))
    with pytest.raises(ConfigError, match="its window of"):
        _replay(log, plain_viewers, small_labels, window=timedelta(hours=20))
    with pytest.raises(ConfigError, match="window is"):
        _replay(log, plain_viewers, small_labels, window=timedelta(0))
    with pytest.raises(TableError, match="'policy' is missing"):
        _replay(log.drop(columns="policy"), plain_viewers, small_labels)


def test_a_cut_with_too_few_rows_to_fit_is_named(
    log: pd.DataFrame, plain_viewers: pd.DataFrame, small_labels: spr.Config
) -> None:
    with pytest.raises(TableError, match=r"nothing can be fitted at 2026-03-02 08:00:00: .*50 usable rows"):
        replay(log, plain_viewers, small_labels, ["2026-03-02 08:00", "2026-03-09"])


def test_a_schedule_ends_with_the_mature_random_pages(log: pd.DataFrame, small_labels: spr.Config) -> None:
    every = timedelta(days=5)
    cuts = [cut.tz_convert(None) for cut in (FIRST, FIRST + every)]
    assert cut_schedule(log, small_labels, CUTS[0], every) == [*cuts, FIRST.tz_convert(None) + 2 * every][:3]
    labels = small_labels.labels.model_copy(update={"snapshot": (FIRST + 10 * SPAN).to_pydatetime()})
    assert cut_schedule(log, small_labels.model_copy(update={"labels": labels}), FIRST, every) == cuts
    assert cut_schedule(log, small_labels, "2026-09-01", every) == [pd.Timestamp("2026-09-01")]
    with pytest.raises(ConfigError, match="distance"):
        cut_schedule(log, small_labels, FIRST, timedelta(0))
