from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from spr.errors import InvalidModelInput, TableError
from spr.metrics import (
    Prediction,
    auc,
    calibration_error,
    evaluate_predictions,
    grouped_auc,
    log_loss,
    ndcg,
    normalized_cross_entropy,
    paired_difference,
    placement_shares,
    precision_at_k,
    top1_rate,
)
from spr.metrics.orders import sum_auc
from spr.metrics.table import METRICS


def draw_rows(rng, n_viewers=60, pages=3, cohorts=5, viewer_sd=1.0):
    """Logged pages whose true probabilities are known, alike within a viewer."""
    viewer = np.repeat(np.arange(n_viewers), pages * cohorts)
    n = len(viewer)
    margin = -1.0 + viewer_sd * rng.normal(size=n_viewers)[viewer] + rng.normal(size=n)
    truth = expit(margin)
    frame = pd.DataFrame(
        {
            "request_id": np.char.add("r", (np.arange(n) // cohorts).astype(str)),
            "viewer_id": np.char.add("v", viewer.astype(str)),
            "entity_type": rng.choice(["people", "hashtag"], n),
            "label": (rng.random(n) < truth).astype(int),
        }
    )
    return frame, truth


def blur(truth, rng, sd):
    worse = expit(np.log(truth / (1 - truth)) + sd * rng.normal(size=len(truth)))
    return Prediction(probability=worse, order_by=worse)


rows = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@settings(deadline=None, max_examples=40)
@given(rows)
def test_log_loss_and_auc_equal_scikit_learn(rng):
    n = int(rng.integers(4, 60))
    label = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    probability, weight = rng.integers(0, 11, n) / 10, rng.integers(1, 4, n).astype(float)
    assert log_loss(label, probability, weight=weight) == pytest.approx(
        sklearn.metrics.log_loss(label, probability, sample_weight=weight)
    )
    assert auc(label, probability, weight=weight) == pytest.approx(
        sklearn.metrics.roc_auc_score(label, probability, sample_weight=weight)
    )


@settings(deadline=None, max_examples=40)
@given(rows)
def test_ndcg_and_grouped_auc_equal_scikit_learn_page_by_page(rng):
    n = int(rng.integers(4, 80))
    page, label, order_by = rng.integers(0, 9, n), rng.integers(0, 2, n), rng.integers(0, 4, n) / 2
    gain = label * rng.integers(1, 4, n)
    gains, rates, sizes = [], [], []
    for p in np.unique(page):
        at = page == p
        if gain[at].any():
            gains.append(1.0 if at.sum() == 1 else sklearn.metrics.ndcg_score([gain[at]], [order_by[at]]))
        if 0 < label[at].sum() < at.sum():
            rates.append(sklearn.metrics.roc_auc_score(label[at], order_by[at]))
            sizes.append(at.sum())
    found = ndcg(gain, order_by, page)
    assert found.groups == len(gains)
    assert found.left_out == len(np.unique(page)) - len(gains)
    np.testing.assert_allclose(found.mean, np.mean(gains) if gains else np.nan)
    by_rows, alike = grouped_auc(label, order_by, page), grouped_auc(label, order_by, page, average="groups")
    assert by_rows.groups == len(rates)
    np.testing.assert_allclose(by_rows.mean, np.average(rates, weights=sizes) if rates else np.nan)
    np.testing.assert_allclose(alike.mean, np.mean(rates) if rates else np.nan)


def test_ndcg_of_ties_is_the_expectation_over_their_orders():
    rng = np.random.default_rng(0)
    label, order_by = np.array([1, 0, 2, 0, 1]), np.array([1.0, 1.0, 0.5, 0.5, 0.5])
    drawn = [ndcg(label, order_by + 1e-6 * rng.random(5), np.zeros(5)).mean for _ in range(4000)]
    assert ndcg(label, order_by, np.zeros(5)).mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 60)


def test_top1_rate_averages_ties_and_keeps_all_pages():
    found = top1_rate([1, 0, 0, 0, 1, 1, 0], [2, 2, 1, 5, 4, 1, 1], ["a", "a", "a", "b", "b", "c", "c"])
    assert found.mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert (found.groups, found.left_out) == (3, 0)


def test_normalized_cross_entropy_is_one_at_the_base_rate_and_weighs_rows():
    label = np.array([0, 0, 0, 1])
    assert normalized_cross_entropy(label, np.full(4, 0.25)) == pytest.approx(1.0)
    weight = np.array([1.0, 2.0, 3.0, 2.0])
    repeated = np.repeat(np.arange(4), weight.astype(int))
    probability = np.array([0.1, 0.3, 0.2, 0.6])
    assert normalized_cross_entropy(label, probability, weight=weight) == pytest.approx(
        normalized_cross_entropy(label[repeated], probability[repeated])
    )


@pytest.mark.parametrize("label", [0, 1])
def test_metrics_of_one_class_are_nan(label):
    labels, probability = np.full(5, label), np.linspace(0.1, 0.9, 5)
    assert np.isnan(normalized_cross_entropy(labels, probability))
    assert np.isnan(auc(labels, probability))
    assert np.isnan(grouped_auc(labels, probability, np.arange(5)).mean)


def test_calibration_error_finds_a_shift_and_clears_the_truth():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.6, 40_000)
    label = rng.random(40_000) < truth
    assert calibration_error(label, truth) < 0.01
    assert calibration_error(label, truth + 0.1) == pytest.approx(0.1, abs=0.01)
    # Over- and underestimates do not cancel as they would in the overall mean.
    assert calibration_error(label, np.where(truth > 0.35, truth + 0.1, truth - 0.1)) == pytest.approx(0.1, abs=0.01)


def test_calibration_error_bins_have_equal_mass_and_keep_ties_together():
    probability = np.r_[np.full(50, 0.2), np.full(50, 0.4)]
    label = np.r_[np.arange(50) < 20, np.arange(50) < 10]
    assert calibration_error(label, probability, n_bins=10) == pytest.approx(0.2)
    weight = np.r_[np.full(50, 3.0), np.full(50, 1.0)]
    label = np.r_[np.arange(50) < 20, np.arange(50) < 20]
    assert calibration_error(label, probability, weight=weight) == pytest.approx(0.15)


def test_sum_auc_moves_like_the_auc_of_reweighted_rows():
    rng = np.random.default_rng(0)
    n = 20_000
    label = rng.integers(0, 2, n).astype(float)
    order_by = label + rng.normal(size=n)
    sums = sum_auc(label, order_by, np.ones(n))
    weight = np.where((order_by > 1) == (label == 1), 1.02, 1.0)
    totals = weight @ sums.by_owner(np.arange(n), n)
    change = auc(label, order_by, weight=weight) - auc(label, order_by)
    assert change > 1e-3
    assert float(sums.combine(totals)) - auc(label, order_by) == pytest.approx(change, rel=0.02)


def test_evaluate_predictions_agrees_with_each_formula():
    rng = np.random.default_rng(0)
    frame, truth = draw_rows(rng)
    prediction = Prediction(probability=truth, order_by=blur(truth, rng, 0.5).order_by)
    segment = np.where(frame["viewer_id"].str[1:].astype(int) < 20, "frequent", "unseen")
    table = evaluate_predictions(frame, {"truth": prediction}, segment=segment, top_k=2, n_replicates=20)
    long = table.to_pandas().set_index(["segment", "prediction", "metric"])
    for name, at in [("all", slice(None)), ("segment=unseen", segment == "unseen")]:
        y, p, s = frame["label"].to_numpy()[at], truth[at], np.asarray(prediction.order_by)[at]
        page, viewer = frame["request_id"].to_numpy()[at], frame["viewer_id"].to_numpy()[at]
        expected = {
            "log_loss": log_loss(y, p),
            "normalized_cross_entropy": normalized_cross_entropy(y, p),
            "calibration_error": calibration_error(y, p),
            "auc": auc(y, s),
            "grouped_auc": grouped_auc(y, s, viewer).mean,
            "page_auc": grouped_auc(y, s, page).mean,
            "ndcg": ndcg(y, s, page).mean,
            "top1_rate": top1_rate(y, s, page).mean,
            "precision_at_k": precision_at_k(y, s, page, 2).mean,
        }
        assert long.loc[(name, "truth"), "estimate"].to_dict() == pytest.approx(expected)
    at = (frame["entity_type"] == "people").to_numpy()
    people = long.loc[("entity_type=people", "truth"), "estimate"]
    assert people["calibration_error"] == pytest.approx(calibration_error(frame["label"][at], truth[at]))
    assert np.isnan(people["ndcg"])
    kept = ndcg(frame["label"], prediction.order_by, frame["request_id"])
    assert long.loc[("all", "truth", "ndcg"), ["units", "left_out"]].tolist() == [kept.groups, kept.left_out]
    finite = long.dropna()
    assert (finite["low"] <= finite["high"]).all()
    assert list(table.formatted().columns) == list(METRICS)
    assert "[" in str(table)


def test_evaluate_predictions_is_the_same_for_one_seed_and_any_company():
    rng = np.random.default_rng(0)
    frame, truth = draw_rows(rng, n_viewers=20)
    one, other = blur(truth, rng, 0.0), blur(truth, rng, 1.0)
    alone = evaluate_predictions(frame, {"one": one}, n_replicates=30, seed=5)
    both = evaluate_predictions(frame, {"other": other, "one": one}, n_replicates=30, seed=5)
    again = evaluate_predictions(frame, {"one": one}, n_replicates=30, seed=6)
    mine = both.to_pandas().query("prediction == 'one'").reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.to_pandas(), mine)
    assert not np.allclose(again.low, alone.low, equal_nan=True)


def test_evaluate_predictions_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    frame, truth = draw_rows(rng, n_viewers=50_000, pages=1, cohorts=4)
    model = blur(truth, rng, 0.5)
    population = evaluate_predictions(frame, {"m": model}, n_replicates=2).estimate[0]
    covered = np.zeros(len(METRICS))
    trials = 200
    for trial in range(trials):
        at = np.arange(trial * 1000, (trial + 1) * 1000)  # 250 whole viewers
        prediction = Prediction(np.asarray(model.probability)[at], np.asarray(model.order_by)[at])
        small = evaluate_predictions(frame.iloc[at], {"m": prediction}, n_replicates=200, level=0.9)
        covered += (small.low[0] <= population) & (population <= small.high[0])
    rate = dict(zip(METRICS, covered / trials, strict=True))
    del rate["calibration_error"]  # its bias is of the size of its spread on so few rows
    assert min(rate.values()) > 0.9 - 0.07, rate  # 3 standard errors of 200 trials
    assert max(rate.values()) < 0.9 + 0.07, rate


def test_evaluate_predictions_draws_viewers_and_not_rows():
    rng = np.random.default_rng(0)
    frame, truth = draw_rows(rng, n_viewers=150, pages=1)
    tripled = pd.concat([frame.assign(request_id=frame["request_id"] + f"-{i}") for i in range(3)])
    once = evaluate_predictions(frame, {"m": Prediction(truth, truth)}, n_replicates=400)
    thrice = evaluate_predictions(tripled, {"m": Prediction(np.tile(truth, 3), np.tile(truth, 3))}, n_replicates=400)
    np.testing.assert_allclose(thrice.estimate[0], once.estimate[0])
    np.testing.assert_allclose((thrice.high - thrice.low)[0], (once.high - once.low)[0], rtol=1e-6)


def test_evaluate_predictions_recomputes_the_base_rate_in_each_replicate():
    rng = np.random.default_rng(0)
    frame, truth = draw_rows(rng, n_viewers=80, viewer_sd=0.0)
    base = np.full(len(frame), frame["label"].mean())
    table = evaluate_predictions(frame, {"base": Prediction(base, truth)}, n_replicates=300)
    replicates = table.replicates[0, METRICS.index("normalized_cross_entropy")]
    # Against its own base rate no constant does better than 1; against the sample's it would on half the replicates.
    assert replicates.min() >= 1.0 - 1e-9
    assert replicates.max() > 1.0


def test_paired_difference_finds_the_better_model_and_not_a_twin():
    rng = np.random.default_rng(0)
    frame, truth = draw_rows(rng, n_viewers=400)
    noise = rng.normal(size=(2, len(truth)))
    twins = [expit(np.log(truth / (1 - truth)) + 0.5 * part) for part in noise]
    predictions = {"truth": Prediction(truth, truth), "worse": blur(truth, rng, 1.5)}
    predictions |= {f"twin{i}": Prediction(twin, twin) for i, twin in enumerate(twins)}
    table = evaluate_predictions(frame, predictions, n_replicates=300)
    better, equal = paired_difference(table, "truth", "worse"), paired_difference(table, "twin0", "twin1")
    assert better.prediction[0] == "truth - worse"
    for metric, sign in [("log_loss", -1), ("normalized_cross_entropy", -1), ("auc", 1), ("ndcg", 1), ("top1_rate", 1)]:
        j = METRICS.index(metric)
        assert better.estimate[0, j] == pytest.approx(table.estimate[0, j] - table.estimate[1, j])
        assert min(sign * better.low[0, j], sign * better.high[0, j]) > 0
    inside = (equal.low[0] <= 0) & (equal.high[0] >= 0)
    assert inside.sum() >= len(METRICS) - 1
    # Pairing pays: what is hard for one model is hard for the other.
    assert better.high[0, 0] - better.low[0, 0] < 0.7 * (table.high[:2, 0] - table.low[:2, 0]).sum()
    itself = paired_difference(table, "truth", "truth")
    assert itself.low[0].tolist() == itself.high[0].tolist() == [0.0] * len(METRICS)


def test_ndcg_reads_a_hundred_thousand_pages_within_a_second():
    rng = np.random.default_rng(0)
    page = np.repeat(np.arange(100_000), 7)
    label, order_by = rng.integers(0, 2, len(page)), rng.random(len(page))
    start = time.process_time()
    ndcg(label, order_by, page)
    assert time.process_time() - start < 3.0  # three times what is wanted: the machine may be shared


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_loss([0, 2], [0.5, 0.5]), "label is 2.0 in row 1"),
        (lambda: log_loss([0, np.nan], [0.5, 0.5]), "not mature"),
        (lambda: log_loss([0, 1], [0.5, 1.5]), "probability is 1.5"),
        (lambda: log_loss([0, 1], [0.5]), "1 entries for 2 labels"),
        (lambda: log_loss([], []), "at least one row"),
        (lambda: log_loss([0, 1], [0.5, 0.5], weight=[1, -1]), "weight is -1"),
        (lambda: log_loss([0, 1], [0.5, 0.5], weight=[0, 0]), "0 in all rows"),
        (lambda: auc([0, 1], [0.5, np.nan]), "order_by is nan"),
        (lambda: ndcg([-1, 1], [0.5, 0.5], [0, 0]), "label is -1"),
        (lambda: ndcg([0, 1], [0.5, 0.5], [0]), "page has shape"),
        (lambda: ndcg([0, 1], [0.5, 0.5], ["a", None]), "page is null in 1 of 2"),
    ],
)
def test_metrics_refuse_rows_they_cannot_read(call, message):
    with pytest.raises(InvalidModelInput, match=message):
        call()


def test_evaluate_predictions_refuses_tables_it_cannot_read():
    frame, truth = draw_rows(np.random.default_rng(0), n_viewers=3)
    prediction = {"m": Prediction(truth, truth)}
    with pytest.raises(TableError, match=r"unknown column 'lable'.*Did you mean 'label'"):
        evaluate_predictions(frame, prediction, label="lable")
    with pytest.raises(TableError, match="rows of two viewers"):
        evaluate_predictions(frame.assign(request_id="r"), prediction)
    with pytest.raises(InvalidModelInput, match="no prediction"):
        evaluate_predictions(frame, {})
    with pytest.raises(InvalidModelInput, match="probability of 'm'"):
        evaluate_predictions(frame, {"m": Prediction(truth + 1, truth)})
    with pytest.raises(InvalidModelInput, match="label is nan"):
        evaluate_predictions(frame.assign(label=np.nan), prediction)
    with pytest.raises(InvalidModelInput, match="level=1"):
        evaluate_predictions(frame, prediction, level=1.0)
    with pytest.raises(InvalidModelInput, match="top_k is 0"):
        evaluate_predictions(frame, prediction, top_k=0)
    table = evaluate_predictions(frame, prediction, n_replicates=5)
    with pytest.raises(InvalidModelInput, match="unknown prediction 'x'"):
        paired_difference(table, "m", "x")


def draw_placements(rng, viewers, cohorts=6):
    """A page of each viewer: the more a viewer is fond of "a", the more of it there is, most of it near the top."""
    fond = rng.beta(1.0, 2.0, viewers)
    kind = np.where(rng.random((viewers, cohorts)) < fond[:, None] * np.linspace(1, 0.2, cohorts), "a", "b")
    return kind.ravel(), np.tile(np.arange(cohorts), viewers), np.repeat(np.arange(viewers), cohorts)


@settings(deadline=None, max_examples=30)
@given(rows)
def test_placement_shares_are_weighted_means(rng):
    kind, position, viewer = draw_placements(rng, 30)
    weight, within_top = rng.integers(0, 3, len(kind)) + (position == 0), int(rng.integers(1, 7))
    found = placement_shares(kind, position, viewer, within_top=within_top, weight=weight, n_replicates=20)
    top = position < within_top
    for name, row in found.iterrows():
        assert row["share"] == pytest.approx(np.average((kind == name)[top], weights=weight[top]))
        assert row["placements"] == (kind == name)[top].sum()
        assert 0 <= row["low"] <= row["high"] <= 1
    assert found["share"].sum() == pytest.approx(1.0)
    assert list(found.index) == sorted(set(kind[top]))


def test_placement_shares_intervals_are_over_viewers_and_cover():
    covered, trials = 0, 300
    truth = np.linspace(1, 0.2, 6)[:3].mean() / 3  # the mean fondness is 1/3
    for trial in range(trials):
        placed = draw_placements(np.random.default_rng([1, trial]), 120)
        found = placement_shares(*placed, within_top=3, n_replicates=200, level=0.9)
        covered += found.loc["a", "low"] <= truth <= found.loc["a", "high"]
    assert abs(covered / trials - 0.9) < 0.06  # 3.3 standard errors
    kind, position, viewer = draw_placements(np.random.default_rng(0), 120)
    once, thrice = (placement_shares(np.tile(kind, n), np.tile(position, n), np.tile(viewer, n)) for n in (1, 3))
    pd.testing.assert_frame_equal(once[["share", "low", "high"]], thrice[["share", "low", "high"]])


def test_placement_shares_refuse_what_has_none():
    for arguments, message in [
        (([], [], []), "at least one row"),
        ((["a", None], [0, 1], ["v", "v"]), "kind is null in 1 of 2"),
        ((["a", "b"], [0, np.nan], ["v", "v"]), "position is nan in row 1"),
        ((["a"], [0, 1], ["v", "v"]), "kind has shape"),
    ]:
        with pytest.raises(InvalidModelInput, match=message):
            placement_shares(*arguments)
    with pytest.raises(InvalidModelInput, match="within the top 2"):
        placement_shares(["a"], [5], ["v"], within_top=2)
    with pytest.raises(InvalidModelInput, match="within_top is 0"):
        placement_shares(["a"], [5], ["v"], within_top=0)
