"""What a replay says of its numbers: made predictions whose ageing is known, without any fit."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from spr.errors import InvalidModelInput
from spr.evaluation import Replay
from spr.evaluation.ageing import (
    ALL_BUT_TREES,
    CALIBRATORS,
    EFFECTS,
    EVERYTHING,
    NOTHING,
    OPTIONS,
    PARTS,
    SELECTION_BIAS,
    WORSE_WHEN,
    above_zero_at_once,
)
from spr.evaluation.replay_report import ageing_plot, calibration_plot, replay_sections
from spr.metrics import Prediction, clustered_mean, evaluate_predictions

CUTS = pd.DatetimeIndex(["2026-01-01", "2026-01-08", "2026-01-15", "2026-01-22"])


def make_replay(
    off: dict[str, float], *, from_age: float = 0.0, seed: int = 0, n_viewers: int = 150, silent: bool = False
) -> Replay:
    """Return a replay in which some options' margins are off by noise, from an age on; in the last period nobody acts.

    The truth is a margin per cohort, 4 cohorts on each of 2 pages a viewer and period; labels follow it.
    """
    rng = np.random.default_rng(seed)
    n = len(CUTS) * n_viewers * 8
    cut = np.repeat(np.arange(len(CUTS)), n // len(CUTS))
    truth = rng.normal(-1.0, 1.0, n)
    label = (rng.random(n) < expit(truth)).astype(float)
    if silent:
        label[cut == len(CUTS) - 1] = 0.0
    frame = pd.DataFrame(
        {
            "cut": CUTS[cut],
            "request_id": [f"r{number}" for number in np.arange(n) // 4],
            "viewer_id": [f"v{number}" for number in np.arange(n) // 8 % n_viewers],
            "entity_type": np.tile(np.array(["a", "b", "c", "d"], dtype=object), n // 4),
            "label": label,
        }
    )
    age = (frame["cut"] - CUTS[0]) / pd.Timedelta(days=1)
    old = ((age > 0) & (age >= from_age)).to_numpy()
    noise = rng.normal(size=n)
    margin = {option: truth + off.get(option, 0.0) * old * noise for option in OPTIONS}
    predictions = {option: Prediction.of_margins(own, own) for option, own in margin.items()}
    ranks = pd.DataFrame(margin).groupby(frame["request_id"], sort=False).rank(ascending=False)
    acted_on = pd.concat([frame[["cut", "request_id", "viewer_id"]], ranks], axis=1)
    acted_on = acted_on.assign(policy="random", **{"as shown": 1.0})[label > 0]
    periods = pd.DataFrame(
        {"until": [*CUTS[1:], pd.Timestamp("2026-01-29")], "age_days": [0.0, 7.0, 14.0, 21.0]},
        index=pd.Index(CUTS, name="cut"),
    ).assign(pages_of_unknown_versions=0, viewers=n_viewers)
    metrics = evaluate_predictions(frame, predictions, segment=frame["cut"].map(str), n_replicates=200)
    return Replay(periods, metrics, frame, predictions, acted_on, {}, ("member",))


@pytest.fixture(scope="module")
def calibrators_age() -> Replay:
    """Everything that keeps the first calibrators is off from 14 days on."""
    return make_replay({NOTHING: 1.5, EFFECTS: 1.5}, from_age=14.0)


def test_the_age_from_which_a_part_is_worse_is_found(calibrators_age: Replay) -> None:
    ages = calibrators_age.worse_from()
    assert list(ages.index) == list(PARTS)
    assert list(ages.columns) == list(WORSE_WHEN)
    assert (ages.loc[["calibrators", "everything"], ["normalized_cross_entropy", "ndcg"]] == 14.0).all(axis=None)
    assert ages.loc[["random effects", "trees"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("off", "part"),
    [({NOTHING: 1.5, CALIBRATORS: 1.5}, "random effects"), ({ALL_BUT_TREES: 1.5, NOTHING: 1.5}, "trees")],
)
def test_each_part_is_told_by_the_options_that_differ_in_it(off: dict[str, float], part: str) -> None:
    assert make_replay(off).worse_from().loc[part, "normalized_cross_entropy"] == 7.0


def test_a_fresh_part_that_is_worse_is_not_ageing() -> None:
    found = make_replay({EVERYTHING: 1.5})
    assert found.worse_from().isna().all(axis=None)
    table = found.to_pandas()
    rows = table[(table["part"] == "trees") & (table["metric"] == "normalized_cross_entropy")]
    assert (rows["high"] < 0.0).all()


def test_the_table_has_a_row_for_each_part_age_and_metric(calibrators_age: Replay) -> None:
    table = calibrators_age.to_pandas()
    assert len(table) == len(PARTS) * 3 * len(WORSE_WHEN)
    assert not table.duplicated(["part", "cut", "metric"]).any()
    assert table["age_days"].unique().tolist() == [7.0, 14.0, 21.0]
    exact = table[table["part"] == "trees"]
    assert (exact[["difference", "low", "high"]] == 0.0).all(axis=None)
    table["worse"] = False
    assert calibrators_age.to_pandas()["worse"].any(), "the table is a copy"


def test_sentences_and_text_name_the_age(calibrators_age: Replay) -> None:
    said = calibrators_age.sentences()
    assert re.match(
        r"calibrators: worse than fresh ones from an age of 14 days \(normalised cross entropy\), ", said[0]
    )
    assert said[1] == "random effects: not worse than fresh ones up to an age of 21 days."
    text = str(calibrators_age)
    assert all(sentence in text for sentence in said)
    lines = {line.split()[0]: line for line in text.splitlines() if line[:1].isdigit()}
    assert lines["14.0"].count("*") == lines["21.0"].count("*") == 2
    assert "*" not in lines["7.0"]


def test_a_metric_that_is_not_followed_is_refused(calibrators_age: Replay) -> None:
    with pytest.raises(InvalidModelInput, match=r"unknown metric 'ndgc' in a replay; .*Did you mean 'ndcg'"):
        calibrators_age.ageing_table("ndgc")
    assert calibrators_age.ageing_table("ndcg")["calibrators"].str.endswith("*").tolist() == [False, True, True]


def test_nothing_to_refit_and_unknown_versions_are_said() -> None:
    made = make_replay({})
    bare = Replay(
        made.periods.assign(pages_of_unknown_versions=[0, 3, 4, 0], viewers=[90, 49, 80, 90]),
        *(made.metrics, made.frame, made.predictions, made.acted_on, {}, ()),
    )
    said = bare.sentences()
    assert "adopted none" in said[1]
    assert said[-2].startswith("7 pages hold ranker versions")
    assert said[-1].startswith("A period is judged by 49 viewers")


def test_calibration_is_told_where_it_can_be() -> None:
    table = make_replay({}, silent=True).calibration_table()
    silent = table["cut"] == CUTS[-1]
    assert (table.loc[silent, "ratio"] == 0.0).all()
    assert table.loc[silent, ["low", "high"]].isna().all(axis=None)
    others = table[~silent & (table["option"] == EVERYTHING)]
    inside = (others["low"] < 1.0) & (others["high"] > 1.0)
    assert inside.sum() >= 9  # of 12 intervals at 95 %; fewer has a chance of 0.2 %


def test_mean_ranks_are_plain_means_with_clustered_errors(calibrators_age: Replay) -> None:
    match = calibrators_age.match_table()
    assert len(match) == len(CUTS) * (1 + len(OPTIONS))
    row = match[(match["cut"] == CUTS[2]) & (match["order"] == NOTHING)].iloc[0]
    own = calibrators_age.acted_on[calibrators_age.acted_on["cut"] == CUTS[2]]
    assert row["mean_rank"] == pytest.approx(own[NOTHING].mean())
    assert row["difference"] == pytest.approx((own[NOTHING] - own[EVERYTHING]).mean())
    rng = np.random.default_rng(0)
    by_viewer = [group.to_numpy() for _, group in own.groupby("viewer_id")[NOTHING]]
    drawn = [
        np.concatenate([by_viewer[i] for i in rng.integers(len(by_viewer), size=len(by_viewer))]).mean()
        for _ in range(1000)
    ]
    # A standard deviation of 1000 draws is known to 2.2 %; four of these, and a tenth for the linearisation.
    assert (row["high"] - row["low"]) / (2 * 1.959964) == pytest.approx(np.std(drawn), rel=0.12)


def test_clustered_mean_of_one_cluster_has_no_error() -> None:
    mean, error = clustered_mean(np.array([1.0, 2.0]), np.zeros(2, dtype=np.int64))
    assert mean == 1.5
    assert np.isnan(error)


# ------------------------------------------------------------------ many looks


def test_looking_at_everything_at_once_keeps_its_level() -> None:
    rng = np.random.default_rng(4)
    m, draws, repeats = 12, 300, 600
    alone = at_once = 0
    for _ in range(repeats):
        estimate = rng.normal(size=m)
        replicates = estimate[:, None] + rng.normal(size=(m, draws))
        at_once += above_zero_at_once(estimate, replicates, 0.95).any()
        alone += (estimate > 1.96).any()
    # The two-sided interval gives at most 5 %, here half of it; a binomial share is known to sqrt(p (1 - p) / 600).
    assert at_once / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
    assert at_once / repeats >= 0.025 - 3 * np.sqrt(0.025 * 0.975 / repeats)
    assert alone / repeats > 0.15


def test_what_has_no_spread_or_no_number_is_never_above() -> None:
    rng = np.random.default_rng(0)
    replicates = np.vstack([np.zeros(50), np.full(50, np.nan), 9.0 + rng.normal(size=50), np.full(50, 2.0)])
    replicates[2, :3] = np.nan
    above = above_zero_at_once(np.array([0.0, np.nan, 9.0, 2.0]), replicates, 0.95)
    assert above.tolist() == [False, False, True, False]
    assert not above_zero_at_once(np.zeros(1), np.zeros((1, 50)), 0.95).any()


# ------------------------------------------------------------------ pictures


def test_the_picture_of_ageing_fills_what_is_worse(calibrators_age: Replay) -> None:
    figure = ageing_plot(calibrators_age)
    figure.canvas.draw()
    assert [panel.get_title() for panel in figure.axes] == ["normalised cross entropy", "NDCG", "top-1 rate"]
    table = calibrators_age.to_pandas()
    for panel, metric in zip(figure.axes, WORSE_WHEN, strict=True):
        marks = [line for line in panel.lines if line.get_linestyle() == "None"]
        filled = sum(len(line.get_xdata()) for line in marks if line.get_markerfacecolor() != "white")
        assert filled == table.loc[table["metric"] == metric, "worse"].sum()
        assert sum(len(line.get_xdata()) for line in marks) == len(PARTS) * 3


def test_pictures_are_drawn_where_nobody_acted() -> None:
    found = make_replay({NOTHING: 1.0}, silent=True)
    for figure in (ageing_plot(found), calibration_plot(found)):
        figure.canvas.draw()
    assert [panel.get_title() for panel in calibration_plot(found).axes] == ["a", "b", "c", "d"]


def test_the_report_states_the_selection_bias(calibrators_age: Replay) -> None:
    sections = replay_sections(calibrators_age)
    assert [name for section in sections for name in section.figures] == ["ageing", "calibration"]
    assert SELECTION_BIAS in sections[-1].sentences
    (first, *_) = sections[0].tables.values()
    assert first["calibrators"].str.endswith("*").tolist() == [False, True, True]
