from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t
from statsmodels.stats.proportion import proportion_confint

from calibration import CalibrationError, reliability_table
from calibration.diagnostics import clopper_pearson_interval, wilson_interval


def _clustered(rng: np.random.Generator, n_viewers: int, per_viewer: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which half repeat one label of their viewer."""
    viewer = np.repeat(np.arange(n_viewers), per_viewer)
    own, shared = rng.random(viewer.size) < rate, (rng.random(n_viewers) < rate)[viewer]
    return np.where(rng.random(viewer.size) < 0.7, shared, own).astype(float), viewer


def test_intervals_equal_statsmodels_and_scipy() -> None:
    positives, n = np.array([0.0, 1, 7, 40, 50]), np.full(5, 50.0)
    for limits, method in ((wilson_interval, "wilson"), (clopper_pearson_interval, "beta")):
        low, high = limits(positives / n, n)
        expected_low, expected_high = proportion_confint(positives, n, method=method)
        np.testing.assert_allclose(low, np.nan_to_num(expected_low), atol=1e-12)
        np.testing.assert_allclose(high, expected_high, atol=1e-12)
    exact = binomtest(7, 50).proportion_ci(method="exact")
    low, high = clopper_pearson_interval(np.array([0.14]), np.array([50.0]))
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high))


def test_reliability_table_sums_bins_of_equal_mass() -> None:
    probability = np.arange(100) / 100
    table = reliability_table(probability, probability > 0.5, n_bins=4)
    np.testing.assert_array_equal(table["n"], [25.0] * 4)
    np.testing.assert_allclose(table["mean_prediction"], [0.12, 0.37, 0.62, 0.87])
    np.testing.assert_allclose(table["observed_rate"], [0.0, 0.0, 24 / 25, 1.0])


@pytest.mark.parametrize("response", ["binary", "count", "continuous"])
@pytest.mark.parametrize("clustered", [False, True])
def test_reliability_table_weights_equal_repeated_rows(response: str, clustered: bool) -> None:
    rng = np.random.default_rng(0)
    probability, weight, cluster = rng.random(200), rng.integers(0, 3, 200), rng.integers(0, 20, 200)
    label = rng.random(200) < probability
    again = np.repeat(np.arange(200), weight)
    weighted = reliability_table(
        probability, label, sample_weight=weight, cluster=cluster if clustered else None, response=response
    )
    repeated = reliability_table(
        probability[again], label[again], cluster=cluster[again] if clustered else None, response=response
    )
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)


def test_reliability_table_leaves_out_open_rows() -> None:
    table = reliability_table([0.1, np.nan, 0.9, 0.5], [0, 1, 1, np.nan], n_bins=2, cluster=list("abca"))
    assert table["n"].sum() == 2


@pytest.mark.parametrize(("interval", "smallest"), [("wilson", 0.9), ("clopper-pearson", 0.94)])
def test_intervals_cover_a_true_small_rate(interval: str, smallest: float) -> None:
    rng = np.random.default_rng(1)
    tables = [reliability_table(np.full(400, 0.01), rng.random(400) < 0.01, interval=interval) for _ in range(300)]
    covered = [table["interval_low"][0] <= 0.01 <= table["interval_high"][0] for table in tables]
    assert smallest < np.mean(covered) < 1.0


def test_clusters_widen_intervals_to_their_coverage() -> None:
    rng = np.random.default_rng(2)
    covered = {"rows": [], "viewers": []}
    for _ in range(300):
        label, viewer = _clustered(rng, 100, 10, 0.2)
        for name, cluster in (("rows", None), ("viewers", viewer)):
            table = reliability_table(np.full(label.size, 0.2), label, cluster=cluster)
            covered[name].append(table["interval_low"][0] <= 0.2 <= table["interval_high"][0])
    assert np.mean(covered["rows"]) < 0.8
    assert 0.91 < np.mean(covered["viewers"]) < 0.985


def test_a_viewer_of_equal_rows_counts_once() -> None:
    label = np.repeat([0.0, 1.0, 0.0, 1.0, 1.0], 6)
    table = reliability_table(np.full(30, 0.5), label, cluster=np.repeat(np.arange(5), 6))
    low, high = wilson_interval(np.array([0.6]), np.array([5.0]))
    assert (table["interval_low"][0], table["interval_high"][0]) == pytest.approx((low[0], high[0]))


def test_clusters_never_narrow_an_interval() -> None:
    label = np.tile([0.0, 1.0], 20)
    pairs = reliability_table(np.full(40, 0.5), label, cluster=np.repeat(np.arange(20), 2))
    pd.testing.assert_frame_equal(pairs, reliability_table(np.full(40, 0.5), label))


@pytest.mark.parametrize("response", ["count", "continuous"])
def test_other_responses_have_students_interval(response: str) -> None:
    label = np.array([0.0, 3.0, 7.0, 2.0])
    table = reliability_table(np.full(4, 2.5), label, response=response)
    low, high = t.interval(0.95, 3, loc=3.0, scale=label.std(ddof=1) / 2)
    assert (table["interval_low"][0], table["interval_high"][0]) == pytest.approx((low, high))
    alone = reliability_table([2.0, 1.0], [5.0, 0.0], n_bins=2, response=response)
    assert alone["interval_low"].isna().all()


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0]), st.integers(0, 4), st.integers(1, 3)), min_size=1),
    st.sampled_from(["wilson", "clopper-pearson"]),
)
def test_intervals_hold_the_rate_and_order_does_not_matter(
    rows: list[tuple[float, float, int, int]], interval: str
) -> None:
    probability, label, cluster, weight = (np.array(column) for column in zip(*rows, strict=True))
    table = reliability_table(probability, label, 3, weight, interval, cluster=cluster)
    slack = 1e-9
    assert (table["interval_low"] <= table["observed_rate"] + slack).all()
    assert (table["interval_high"] >= table["observed_rate"] - slack).all()
    assert table["interval_low"].min() >= 0
    assert table["interval_high"].max() <= 1
    assert table["n"].sum() == weight.sum()
    back = reliability_table(probability[::-1], label[::-1], 3, weight[::-1], interval, cluster=cluster[::-1])
    np.testing.assert_allclose(table, back, atol=1e-9)


@pytest.mark.parametrize(
    ("probability", "label", "options", "message"),
    [
        ([0.5, 1.2], [0, 1], {}, "probability must be in .0, 1.; row 1 has 1.2"),
        ([0.5, 0.2], [0, -1], {}, "label must be in .0, 1.; row 1 has -1"),
        ([0.5, 0.2], [0, -1], {"response": "count"}, "label must be finite and >= 0; row 1 has -1"),
        ([0.5, np.inf], [0, -1], {"response": "continuous"}, "probability must be finite; row 1 has inf"),
        ([0.5, 0.2], [0, 1], {"sample_weight": [1, np.nan]}, "sample_weight must be finite and >= 0; row 1 has nan"),
        ([0.5, 0.2], [0, 1], {"cluster": ["a", None]}, "cluster must not be null; row 1 is"),
        ([0.5, 0.2], [0, 1], {"cluster": ["a"]}, "cluster has 1 values for 2 probabilities"),
        ([0.5, 0.2], [0, 1], {"response": "counts"}, "unknown response 'counts'; known: binary, count, continuous"),
        ([0.5, 0.2], [0, 1], {"interval": "wald"}, "unknown interval 'wald'; known: wilson, clopper-pearson"),
        ([0.5, 0.2], [0, 1], {"n_bins": 0}, "n_bins is 0"),
        (["x"], [0], {}, "probability does not hold numbers"),
        ([0.5], [0, 1], {}, "equally long"),
        ([np.nan], [0], {}, "no row has"),
    ],
)
def test_diagnostics_refuse_bad_rows(
    probability: list[float], label: list[float], options: dict[str, object], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        reliability_table(probability, label, **options)
