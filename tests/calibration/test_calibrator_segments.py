"""Calibrator sets of several segments and response families: fitted, asked, cross-fitted, kept as a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    CalibratorSet,
    PositionExamination,
    QuantileResponseCalibrator,
    UnknownCalibrator,
)
from calibration.examination import Examination
from calibration.families import expit
from calibration.settings import CalibrationSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N = 12_000
ACTIVITY = np.array(["daily", "weekly", "rare"])
LEVEL = np.array([0.8, 0.0, -0.8])
RESPONSE = {"newsletter": "count", "advert": "continuous"}


def _activity_impressions(seed: int = 0) -> pd.DataFrame:
    """Return rows of two rankers; how active the viewer is moves the level of people, not of events."""
    rng = np.random.default_rng(seed)
    z, activity, is_people = rng.normal(size=N), rng.integers(0, 3, N), rng.random(N) < 0.7
    eta = np.where(is_people, -1.0 + LEVEL[activity], -2.0) + 0.7 * z
    return pd.DataFrame(
        {
            "entity_type": np.where(is_people, "people", "event"),
            "ranker_version": "v1",
            "raw_score": np.where(is_people, z, np.exp(z)),
            "response": (rng.random(N) < expit(eta)).astype(float),
            "activity": ACTIVITY[activity],
            "truth": expit(eta),
            "position": rng.integers(0, 3, N),
            "viewer": rng.integers(0, 500, N),
        }
    )


@pytest.fixture(scope="module")
def impressions() -> pd.DataFrame:
    return _activity_impressions()


@pytest.fixture(scope="module")
def calibrators(impressions: pd.DataFrame) -> CalibratorSet:
    return CalibratorSet.fit(impressions, segment="activity")


def _page(impressions: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.intp], list[Any]]:
    names = list(zip(impressions["entity_type"], impressions["ranker_version"], impressions["activity"], strict=True))
    rankers = sorted(set(names))
    return impressions["raw_score"].to_numpy(copy=True), np.array([rankers.index(each) for each in names]), rankers


def test_every_segment_gets_a_curve_and_the_rankers_keep_theirs(
    impressions: pd.DataFrame, calibrators: CalibratorSet
) -> None:
    assert sorted(calibrators.segments) == [
        (entity_type, "v1", activity) for entity_type in ("event", "people") for activity in sorted(ACTIVITY)
    ]
    plain = CalibratorSet.fit(impressions)
    for key in plain:
        assert calibrators[key].to_dict() == plain[key].to_dict()
    assert plain.version != calibrators.version
    assert list(calibrators) == list(plain)
    for segment, curve in calibrators.segments.items():
        rows = impressions[(impressions["entity_type"] == segment[0]) & (impressions["activity"] == segment[2])]
        assert (curve.n_rows, curve.n_positive) == (len(rows), rows["response"].sum())


def test_segments_are_nearer_to_the_truth_than_the_ranker_where_they_differ(calibrators: CalibratorSet) -> None:
    fresh = _activity_impressions(1)
    score, number, rankers = _page(fresh)
    by_segment = calibrators.predict(score, number, rankers)
    by_ranker = calibrators.predict(score, number, [key[:2] for key in rankers])
    people = (fresh["entity_type"] == "people").to_numpy()
    own, ranker = (np.abs(each - fresh["truth"]) / fresh["truth"].mean() for each in (by_segment, by_ranker))
    assert own[people].mean() < 0.07
    assert ranker[people].mean() > 0.3
    assert own[~people].mean() < ranker[~people].mean() + 0.03


def test_predict_answers_three_part_rankers_as_their_curves_do(calibrators: CalibratorSet) -> None:
    score, number, rankers = _page(_activity_impressions(2).head(300))
    score[::7] = np.nan
    expected = [calibrators[rankers[n]].predict(np.array([s]))[0] for n, s in zip(number, score, strict=True)]
    np.testing.assert_allclose(calibrators.predict(score, number, rankers), expected, rtol=3e-16)


def test_an_unknown_segment_is_answered_by_the_ranker_and_an_unknown_ranker_refused(calibrators: CalibratorSet) -> None:
    curve = calibrators["people", "v1"]
    assert calibrators["people", "v1", "never seen"] is curve
    assert calibrators["people", "v1", "daily"] is calibrators.segments["people", "v1", "daily"]
    score = np.array([0.3, 0.3, np.nan])
    rankers: list[Any] = [("people", "v1", "never seen"), ("people", "v1", "daily"), ("event", "v1")]
    answer = calibrators.predict(score, np.array([0, 1, 2]), rankers)
    expected = [curve.predict(score[:1])[0], calibrators["people", "v1", "daily"].predict(score[:1])[0], np.nan]
    np.testing.assert_array_equal(answer, expected)
    with pytest.raises(UnknownCalibrator, match="no calibrator for 'people', 'v9'"):
        calibrators.predict(score[:1], np.array([0]), [("people", "v9", "daily")])
    with pytest.raises(UnknownCalibrator, match="no calibrator for 'group', 'v1'"):
        calibrators["group", "v1", "daily"]


def test_segment_names_may_be_booleans_categories_or_null_but_no_numbers(impressions: pd.DataFrame) -> None:
    levels = impressions["activity"].map({"daily": 3, "weekly": 2, "rare": 1})
    with pytest.raises(CalibrationError, match="'activity' must hold strings or booleans; found"):
        CalibratorSet.fit(impressions.assign(activity=levels), segment="activity")
    told = CalibratorSet.fit(impressions.assign(activity=levels > 1), segment="activity")
    assert {key[2] for key in told.segments} == {"False", "True"}
    categories = CalibratorSet.fit(impressions.astype({"activity": "category"}), segment="activity")
    assert categories.version == CalibratorSet.fit(impressions, segment="activity").version
    some = CalibratorSet.fit(
        impressions.assign(activity=impressions["activity"].where(impressions["activity"] != "rare")),
        segment="activity",
    )
    assert {key[2] for key in some.segments} == {"daily", "weekly"}
    assert some["people", "v1"].to_dict() == CalibratorSet.fit(impressions)["people", "v1"].to_dict()
    none = CalibratorSet.fit(impressions.assign(activity=None), segment="activity")
    assert none.segments == {}
    with pytest.raises(CalibrationError, match="missing country"):
        CalibratorSet.fit(impressions, segment="country")


def test_cross_fitted_segments_do_not_know_their_own_fold(
    impressions: pd.DataFrame, calibrators: CalibratorSet
) -> None:
    fold = impressions["viewer"].to_numpy() % 4
    original = calibrators.cross_fitted(impressions, fold, 4)
    own = fold == 1
    flipped = impressions.assign(response=np.where(own, 1.0 - impressions["response"], impressions["response"]))
    after = calibrators.cross_fitted(flipped, fold, 4)
    cross = np.array(
        [
            calibrators[key].n_positive >= 500
            for key in zip(impressions["entity_type"], impressions["ranker_version"], strict=True)
        ]
    )
    assert (own & cross).sum() > 1000
    np.testing.assert_array_equal(original[own & cross], after[own & cross])
    assert np.mean(original[~own & cross] != after[~own & cross]) > 0.99
    for activity in ACTIVITY:
        inside = cross & (impressions["activity"] == activity).to_numpy()
        error = np.abs(original[inside] - impressions["truth"][inside]).mean() / impressions["truth"][inside].mean()
        assert error < 0.15
    people = (impressions["entity_type"] == "people").to_numpy()
    for number in range(4):
        for activity in ACTIVITY:
            rows = np.flatnonzero(people & (fold == number) & (impressions["activity"] == activity).to_numpy())
            order = rows[np.argsort(impressions["raw_score"].to_numpy()[rows])]
            assert np.all(np.diff(original[order]) >= 0)


def test_cross_fitted_answers_a_null_or_unknown_segment_by_the_ranker(
    impressions: pd.DataFrame, calibrators: CalibratorSet
) -> None:
    fold = impressions["viewer"].to_numpy() % 2
    table = impressions.copy()
    table.loc[:9, ["activity", "response"]] = [None, np.nan]
    table.loc[10:19, "activity"] = "never seen"
    table.loc[10:19, "response"] = np.nan
    answer = calibrators.cross_fitted(table, fold, 2)
    plain = CalibratorSet.fit(impressions).cross_fitted(table, fold, 2)
    np.testing.assert_array_equal(answer[:20], plain[:20])
    assert np.isfinite(answer).all()


def test_refitted_replaces_the_segments_of_one_ranker(impressions: pd.DataFrame, calibrators: CalibratorSet) -> None:
    distorted = impressions.assign(raw_score=np.exp(3 * impressions["raw_score"].clip(upper=50)))
    new = calibrators.refitted(distorted[distorted["activity"] != "rare"], entity_type="people", ranker_version="v1")
    assert ("people", "v1", "rare") not in new.segments
    assert new.settings == calibrators.settings
    for key, curve in calibrators.segments.items():
        if key[0] == "event":
            assert new.segments[key] is curve
    same = calibrators.refitted(distorted, entity_type="people", ranker_version="v1")
    fresh = np.random.default_rng(3).normal(size=500)
    for activity in ACTIVITY:
        before, after = (each["people", "v1", activity] for each in (calibrators, same))
        np.testing.assert_array_equal(before.predict(fresh), after.predict(np.exp(3 * fresh)))
    with pytest.raises(CalibrationError, match="missing activity"):
        calibrators.refitted(impressions.drop(columns="activity"), entity_type="people", ranker_version="v1")


def test_saved_segments_are_read_back_bit_by_bit(impressions: pd.DataFrame, tmp_path: Path) -> None:
    calibrators = CalibratorSet.fit(
        impressions,
        transforms="all",
        segment="activity",
        negative_sampling_rate={"event": 0.25},
        examination=Examination(PositionExamination(np.array([1.0, 0.8, 0.5]))),
    )
    calibrators.save(tmp_path)
    again = CalibratorSet.load(tmp_path)
    assert again.version == calibrators.version
    assert again.settings == calibrators.settings
    assert set(again.segments) == set(calibrators.segments)
    score, number, rankers = _page(impressions)
    np.testing.assert_array_equal(again.predict(score, number, rankers), calibrators.predict(score, number, rankers))
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice" / "calibrators.json").read_bytes() == (tmp_path / "calibrators.json").read_bytes()


def _rehashed(content: dict[str, Any]) -> dict[str, Any]:
    stated = {name: content[name] for name in content if name not in ("schema", "version")}
    content["version"] = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:12]
    return content


def _drop(content: dict[str, Any], entity_type: str) -> None:
    content["curves"] = [
        each for each in content["curves"] if each["segment"] is not None or each["entity_type"] != entity_type
    ]


@pytest.mark.parametrize("is_rehashed", [True, False])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: _drop(content, "people"), "segment .'people', 'v1', 'daily'. has no curve of its ranker"),
        (lambda content: content.update(curves=[]), "at least one curve"),
        (lambda content: content["curves"][-1].update(segment=7), "must be strings and a curve"),
        (lambda content: content["curves"][-1].update(segment=["a"]), "must be strings and a curve"),
        (lambda content: content["curves"][-1].pop("segment"), "must hold entity_type, ranker_version, segment"),
        (lambda content: content["curves"].append(dict(content["curves"][-1])), "was altered"),
        (lambda content: content["curves"][-1]["curve"]["form"].update(method="cubic"), "unknown method 'cubic'"),
        (lambda content: content["curves"][-1]["curve"].update(shift="much"), "shift of a curve is 'much'"),
        (lambda content: content["curves"][-1]["curve"]["values"].reverse(), r"'weekly'.*must not decrease"),
        (lambda content: content["settings"].update(segment=3), "segment is 3"),
        (lambda content: content["settings"].pop("segment"), "settings have the fields"),
    ],
)
def test_load_names_what_is_wrong_even_where_the_version_was_written_anew(
    calibrators: CalibratorSet, tmp_path: Path, spoil: Any, message: str, *, is_rehashed: bool
) -> None:
    calibrators.save(tmp_path)
    path = tmp_path / "calibrators.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(_rehashed(content) if is_rehashed else content))
    with pytest.raises(CalibrationError, match=message if is_rehashed else f"{message}|was altered"):
        CalibratorSet.load(tmp_path)


def test_to_frame_lists_segments_below_their_ranker(calibrators: CalibratorSet) -> None:
    frame = calibrators.to_frame()
    assert len(frame) == len(calibrators.curves) + len(calibrators.segments)
    people = frame[frame["entity_type"] == "people"]
    assert people["segment"].isna().tolist() == [True, False, False, False]
    assert people["n_rows"].iloc[1:].sum() == people["n_rows"].iloc[0]
    rates = people.set_index("segment")["base_rate"]
    assert rates["daily"] > rates["weekly"] > rates["rare"]


def _mixed_impressions(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    z, kind = rng.normal(size=9000), rng.integers(0, 3, 9000)
    responses = [rng.random(z.size) < expit(-1 + z), rng.poisson(np.exp(0.5 * z)), -2.0 + z + rng.normal(size=z.size)]
    return pd.DataFrame(
        {
            "entity_type": np.array(["people", "newsletter", "advert"])[kind],
            "ranker_version": "v1",
            "raw_score": z,
            "response": np.select([kind == 0, kind == 1], responses[:2], responses[2]),
        }
    )


def test_types_of_other_families_are_fitted_and_answered_side_by_side(tmp_path: Path) -> None:
    impressions = _mixed_impressions()
    calibrators = CalibratorSet.fit(impressions, response=RESPONSE)
    grid = np.array([-1.0, 0.0, 1.0])
    truths = {"people": expit(-1 + grid), "newsletter": np.exp(0.5 * grid), "advert": -2.0 + grid}
    for entity_type, truth in truths.items():
        curve = calibrators[entity_type, "v1"]
        assert curve.form.response == RESPONSE.get(entity_type, "binary")
        np.testing.assert_allclose(curve.predict(grid), truth, atol=0.15)
        rows = impressions[impressions["entity_type"] == entity_type]
        alone = QuantileResponseCalibrator(response=curve.form.response).fit(rows["raw_score"], rows["response"])
        assert curve.to_dict() == alone.curve_.to_dict()
    page = calibrators.predict(grid, np.array([0, 1, 2]), [(each, "v1") for each in truths])
    np.testing.assert_allclose(page, [each[j] for j, each in enumerate(truths.values())], atol=0.15)
    calibrators.save(tmp_path)
    again = CalibratorSet.load(tmp_path)
    assert again.settings.family("newsletter").name == "count"
    assert again.version == calibrators.version
    refitted = again.refitted(impressions, entity_type="newsletter", ranker_version="v1")
    assert refitted.version == calibrators.version


def test_counts_are_cross_fitted_without_their_own_fold() -> None:
    impressions = _mixed_impressions(1)
    calibrators = CalibratorSet.fit(impressions, response=RESPONSE)
    fold = np.arange(len(impressions)) % 3
    original = calibrators.cross_fitted(impressions, fold, 3)
    moved = impressions.assign(
        response=impressions["response"] + (fold == 0) * (impressions["entity_type"] != "people")
    )
    after = calibrators.cross_fitted(moved, fold, 3)
    inside = (fold == 0) & (impressions["entity_type"] != "people").to_numpy()
    np.testing.assert_array_equal(original[inside], after[inside])


def test_one_fold_with_every_row_is_answered_by_the_pooled_curves() -> None:
    impressions = _mixed_impressions(2)
    calibrators = CalibratorSet.fit(impressions, response=RESPONSE)
    answer = calibrators.cross_fitted(impressions, np.zeros(len(impressions), dtype=np.intp), 2)
    for entity_type, rows in impressions.groupby("entity_type"):
        expected = calibrators[str(entity_type), "v1"].predict(rows["raw_score"].to_numpy())
        np.testing.assert_array_equal(answer[rows.index], expected)


def test_a_count_where_a_click_is_expected_is_refused_by_row() -> None:
    impressions = _mixed_impressions()
    with pytest.raises(CalibrationError, match=r"response must be in \[0, 1\]"):
        CalibratorSet.fit(impressions, response={"advert": "continuous"})
    with pytest.raises(CalibrationError, match="response must be finite and >= 0"):
        CalibratorSet.fit(impressions, response={"advert": "count", "newsletter": "count"})


def test_prior_of_an_unknown_type_is_pooled_over_types_of_its_family(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="calibration")
    impressions = _mixed_impressions()
    more = impressions[impressions["entity_type"] == "newsletter"].assign(
        entity_type="podcast", response=lambda rows: 4 * rows["response"]
    )
    response = {**RESPONSE, "podcast": "count", "magazine": "count"}
    calibrators = CalibratorSet.fit(pd.concat([impressions, more]), response=response)
    newsletter, podcast = calibrators.prior("newsletter"), calibrators.prior("podcast")
    assert podcast == pytest.approx(4 * newsletter, rel=0.05)
    assert calibrators.prior("magazine") == pytest.approx(np.sqrt(newsletter * podcast))
    assert calibrators.prior("group") == pytest.approx(calibrators.prior("people"))
    assert [message.split(",")[0] for message in caplog.messages] == [
        "magazine has no calibrator: the pooled prior of newsletter",
        "group has no calibrator: the pooled prior of people",
    ]


def test_negative_sampling_is_undone_for_the_type_that_was_sampled() -> None:
    impressions = pd.concat([_activity_impressions(seed) for seed in range(4)], ignore_index=True)
    rng = np.random.default_rng(4)
    kept = (
        (impressions["entity_type"] == "event") | (impressions["response"] > 0) | (rng.random(len(impressions)) < 0.1)
    )
    found = CalibratorSet.fit(impressions[kept], negative_sampling_rate={"people": 0.1}, segment="activity")
    truth = CalibratorSet.fit(impressions, segment="activity")
    assert found.prior("people") == pytest.approx(truth.prior("people"), rel=0.05)
    assert found["event", "v1"].to_dict() == truth["event", "v1"].to_dict()
    for activity in ACTIVITY:
        rates = [each["people", "v1", activity].predict(np.zeros(1))[0] for each in (found, truth)]
        assert rates[0] == pytest.approx(rates[1], rel=0.12)
    with pytest.raises(CalibrationError, match="1 unless the response is binary"):
        CalibratorSet.fit(impressions, response={"people": "count"}, negative_sampling_rate={"people": 0.1})


@pytest.mark.parametrize("segment", ["activity", None])
@pytest.mark.parametrize("is_examined", [True, False])
def test_negative_sampling_is_undone_with_and_without_examination_and_across_folds(
    segment: str | None, *, is_examined: bool
) -> None:
    impressions = pd.concat([_activity_impressions(seed) for seed in range(6)], ignore_index=True)
    rng = np.random.default_rng(5)
    position = PositionExamination(np.array([1.0, 0.5, 0.25]) if is_examined else np.ones(1))
    impressions["response"] *= rng.random(len(impressions)) < position.at(impressions["position"])
    sampled = impressions[(impressions["response"] > 0) | (rng.random(len(impressions)) < 0.2)].reset_index(drop=True)
    found = CalibratorSet.fit(
        sampled,
        negative_sampling_rate={"people": 0.2, "event": 0.2},
        segment=segment,
        examination=Examination(position) if is_examined else None,
    )
    score, number, rankers = _page(sampled)
    truth = sampled["truth"].to_numpy()
    if segment is None:
        people = (impressions["entity_type"] == "people").to_numpy()
        levels = impressions["truth"].to_numpy()
        assert found.prior("people") == pytest.approx(levels[people].mean(), rel=0.04)
    fold = sampled["viewer"].to_numpy() % 2
    for answer in (found.predict(score, number, rankers), found.cross_fitted(sampled, fold, 2)):
        # clicks are kept and come from the active: a curve of all viewers answers below the truth of these rows
        assert answer.mean() == pytest.approx(truth.mean(), rel=0.06 if segment else 0.2)
        assert np.abs(answer - truth).mean() / truth.mean() < (0.1 if segment else 0.45)


def test_settings_survive_a_dict_and_json() -> None:
    settings = CalibrationSettings("spline", "all", {"b": "count", "a": "continuous"}, {"people": 0.1}, "activity")
    assert CalibrationSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert list(settings.response) == ["a", "b"]
    assert CalibrationSettings.from_dict(CalibrationSettings().to_dict()) == CalibrationSettings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "shrunken"}, "unknown method 'shrunken'; known: auto"),
        ({"method": None}, "unknown method None"),
        ({"method": ["auto"]}, "unknown method"),
        ({"transforms": "some"}, "unknown transforms 'some'"),
        ({"response": {"people": "clicks"}}, "unknown response of 'people' 'clicks'"),
        ({"response": ["count"]}, "must map entity types"),
        ({"negative_sampling_rate": [0.1]}, "must map entity types"),
        ({"negative_sampling_rate": {"people": 0.0}}, "negative_sampling_rate of 'people' is 0.0"),
        ({"negative_sampling_rate": {"people": 1.5}}, "is 1.5"),
        ({"negative_sampling_rate": {"people": float("nan")}}, "is nan"),
        ({"negative_sampling_rate": {"people": "half"}}, "rates must be numbers"),
        ({"negative_sampling_rate": {"people": True}}, "rates must be numbers"),
        (
            {"response": {"people": "count"}, "negative_sampling_rate": {"people": 0.5}},
            "is 0.5; it must be 1 unless the response is binary .it is count",
        ),
        ({"segment": 3}, "segment is 3"),
        ({"extra": 1}, "settings have the fields"),
    ],
)
def test_settings_from_dict_refuses(change: dict[str, object], message: str) -> None:
    content = CalibrationSettings().to_dict()
    with pytest.raises(CalibrationError, match=message):
        CalibrationSettings.from_dict({**content, **change})
    del content["response"]
    with pytest.raises(CalibrationError, match="settings have the fields"):
        CalibrationSettings.from_dict(content)
    with pytest.raises(CalibrationError, match="settings have the fields"):
        CalibrationSettings.from_dict("auto")


def test_load_refuses_curves_of_another_family_than_the_settings_say(impressions: pd.DataFrame, tmp_path: Path) -> None:
    calibrators = CalibratorSet.fit(impressions)
    kind = CalibrationSettings(response={calibrators.entity_types[0]: "count"})
    replace(calibrators, settings=kind).save(tmp_path)
    with pytest.raises(CalibrationError, match="is of binary responses, the settings say count"):
        CalibratorSet.load(tmp_path)
