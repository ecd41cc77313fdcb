from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    calibration_in_the_large,
    calibration_line,
    calibration_summary,
    calibration_test,
    debiased_calibration_error,
    smooth_calibration_error,
)


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 6000
    truth = rng.uniform(0.05, 0.3, n)
    version = np.where(np.arange(n) % 3 == 0, "v2", "v1")
    return pd.DataFrame(
        {
            "entity_type": np.where(np.arange(n) % 2 == 0, "people", "event"),
            "ranker_version": version,
            "viewer_id": rng.integers(0, 500, n),
            "expected_response": truth * np.where(version == "v2", 1.5, 1.0),
            "response": (rng.random(n) < truth).astype(float),
        }
    )


def test_each_figure_is_that_of_its_own_function(table: pd.DataFrame) -> None:
    summary = calibration_summary(table, by=["entity_type", "ranker_version"]).set_index(
        ["entity_type", "ranker_version"]
    )
    assert list(summary.index) == [("event", "v1"), ("event", "v2"), ("people", "v1"), ("people", "v2")]
    rows = table[(table["entity_type"] == "people") & (table["ranker_version"] == "v2")]
    figures = summary.loc[("people", "v2")]
    data = (rows["expected_response"], rows["response"])
    viewer = rows["viewer_id"]
    line = calibration_line(*data, cluster=viewer)
    for name, estimate in (
        ("in_the_large", calibration_in_the_large(*data, cluster=viewer)),
        ("slope", line.slope),
        ("intercept", line.intercept),
        ("ece", debiased_calibration_error(*data, cluster=viewer)),
        ("smooth_ece", smooth_calibration_error(*data, cluster=viewer)),
    ):
        assert figures[name] == pytest.approx(estimate.estimate)
        assert figures[f"{name}_low"] == pytest.approx(estimate.low)
        assert figures[f"{name}_high"] == pytest.approx(estimate.high)
    assert figures["p_value"] == pytest.approx(calibration_test(*data, cluster=viewer).p_value)
    assert figures["n"] == len(rows)
    assert figures["n_clusters"] == viewer.nunique()
    assert figures["base_rate"] == pytest.approx(rows["response"].mean())
    assert figures["mean_prediction"] == pytest.approx(rows["expected_response"].mean())
    assert summary["p_value"].xs("v2", level=1).max() < 1e-3 < summary["p_value"].xs("v1", level=1).min()


def test_open_and_unscorable_rows_are_left_out_and_counted(table: pd.DataFrame) -> None:
    whole = calibration_summary(table)
    more = pd.concat([table, table.head(30).assign(response=None), table.head(5).assign(expected_response=np.nan)])
    with_null = calibration_summary(more)
    assert with_null["n_left_out"][0] == 35
    pd.testing.assert_frame_equal(with_null.drop(columns="n_left_out"), whole.drop(columns="n_left_out"))


def test_order_of_rows_does_not_matter(table: pd.DataFrame) -> None:
    shuffled = table.sample(frac=1.0, random_state=1)
    pd.testing.assert_frame_equal(
        calibration_summary(shuffled, by=["ranker_version"]),
        calibration_summary(table, by=["ranker_version"]),
        rtol=1e-4,
    )


def test_groups_too_small_or_uniform_have_no_figure_yet_stand_in_the_table(table: pd.DataFrame) -> None:
    odd = pd.DataFrame(
        {
            "entity_type": ["one", "open", "never", "never", "never", None],
            "ranker_version": "v1",
            "viewer_id": [1, 1, 1, 2, 3, 1],
            "expected_response": [0.1, 0.1, 0.0, 0.2, 0.1, 0.5],
            "response": [1.0, None, 0.0, 0.0, 0.0, 1.0],
        }
    )
    summary = calibration_summary(pd.concat([table, odd]), by=["entity_type"])
    assert summary["entity_type"].tolist()[:5] == ["event", "never", "one", "open", "people"]
    assert summary["entity_type"].isna().tolist() == [False] * 5 + [True]
    by_type = summary.set_index("entity_type")
    assert by_type.loc["open", "n"] == 0
    assert by_type.loc["open", ["base_rate", "slope", "ece", "p_value"]].isna().all()
    assert by_type.loc["never", "in_the_large"] == 0
    assert np.isnan(by_type.loc["never", "slope"])
    assert np.isnan(by_type.loc["one", "p_value"])


def test_weights_viewers_and_other_responses(table: pd.DataFrame) -> None:
    renamed = table.rename(columns={"expected_response": "forecast", "response": "clicks"})
    renamed["clicks"] *= 3
    renamed["forecast"] *= 3
    renamed["copies"] = np.arange(len(table)) % 3
    names = {"prediction_column": "forecast", "response_column": "clicks", "cluster_column": None, "response": "count"}
    weighted = calibration_summary(renamed, weight_column="copies", **names)
    repeated = calibration_summary(renamed.loc[np.repeat(renamed.index, renamed["copies"])], **names)
    assert weighted["n_left_out"][0] == 2000
    pd.testing.assert_frame_equal(weighted.drop(columns="n_left_out"), repeated.drop(columns="n_left_out"), rtol=1e-4)
    assert np.isnan(weighted["smooth_ece"][0])
    assert weighted["slope"][0] > 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"response": 2.0}, {}, "label must be in .0, 1.; row 0 has 2.0"),
        ({"viewer_id": None}, {}, "cluster must not be null; row 0"),
        ({"expected_response": "x"}, {}, "expected_response does not hold numbers"),
        ({}, {"by": ["segment"]}, "missing segment"),
        ({}, {"response": "rate"}, "unknown response 'rate'"),
    ],
)
def test_bad_tables_are_refused(
    table: pd.DataFrame, change: dict[str, object], options: dict[str, object], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibration_summary(table.assign(**change), **options)
    with pytest.raises(CalibrationError, match="no rows"):
        calibration_summary(table.head(0))
