from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    CalibratorSet,
    PositionExamination,
    QuantileResponseCalibrator,
    SlotExamination,
    UnknownCalibrator,
)
from calibration.examination import Examination
from calibration.families import expit, logit
from calibration.settings import CalibrationSettings

if TYPE_CHECKING:
    from pathlib import Path

RANKERS = [("people", "p1"), ("people", "p2"), ("event", "e1")]


def _impressions(seed: int = 0, n: int = 6000) -> pd.DataFrame:
    """Return random-policy rows of three rankers; p1 and p2 are scales of the same truth."""
    rng = np.random.default_rng(seed)
    quality, ranker, position = rng.normal(size=n), rng.integers(0, 3, n), rng.integers(0, 4, n)
    truth = np.where(ranker == 2, expit(-3 + quality), expit(-1 + 0.5 * quality))
    raw_score = np.select([ranker == 0, ranker == 1], [quality, np.exp(quality)], expit(quality))
    names = np.array(RANKERS)[ranker]
    return pd.DataFrame(
        {
            "entity_type": names[:, 0],
            "ranker_version": names[:, 1],
            "policy": "random",
            "position": position,
            "raw_score": raw_score,
            "response": (rng.random(n) < truth).astype(float),
            "viewer": rng.integers(0, 400, n),
        }
    )


@pytest.fixture(scope="module")
def impressions() -> pd.DataFrame:
    return _impressions()


@pytest.fixture(scope="module")
def calibrators(impressions: pd.DataFrame) -> CalibratorSet:
    return CalibratorSet.fit(impressions)


def test_set_fits_one_curve_per_ranker_as_the_estimator_does(
    impressions: pd.DataFrame, calibrators: CalibratorSet
) -> None:
    assert list(calibrators) == sorted(RANKERS)
    assert len(calibrators) == 3
    for entity_type, version in RANKERS:
        rows = impressions[(impressions["entity_type"] == entity_type) & (impressions["ranker_version"] == version)]
        alone = QuantileResponseCalibrator().fit(rows["raw_score"], rows["response"]).curve_
        assert calibrators[entity_type, version].to_dict() == alone.to_dict()


def test_fit_uses_mature_scorable_random_rows_only(impressions: pd.DataFrame, calibrators: CalibratorSet) -> None:
    noise = impressions.iloc[:300].copy()
    served = noise.assign(policy="served", response=1.0)
    without_policy_name = noise.assign(policy=None, response=1.0)
    open_window = noise.assign(response=np.nan, raw_score=77.0)
    not_scorable = noise.assign(raw_score=np.nan, response=1.0)
    table = pd.concat([impressions, served, without_policy_name, open_window, not_scorable])
    assert CalibratorSet.fit(table).version == calibrators.version
    nullable = impressions.astype({"raw_score": "Float64", "response": "Float64", "policy": "string"})
    assert CalibratorSet.fit(nullable).version == calibrators.version


def test_fit_uses_every_row_of_a_table_without_policy(impressions: pd.DataFrame, calibrators: CalibratorSet) -> None:
    assert CalibratorSet.fit(impressions.drop(columns="policy")).version == calibrators.version


def test_fit_leaves_out_rankers_below_minimum_rows_and_reports_progress(
    impressions: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    rare = impressions.iloc[:20].assign(entity_type="group", ranker_version="g1")
    seen: list[tuple[int, int]] = []
    calibrators = CalibratorSet.fit(
        pd.concat([impressions, rare]), minimum_rows=21, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert ("group", "g1") not in calibrators
    assert caplog.messages == ["no calibrator for ('group', 'g1'): 20 usable rows, minimum_rows is 21"]
    assert ("group", "g1") in CalibratorSet.fit(pd.concat([impressions, rare]), minimum_rows=20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw_score": np.inf}, "raw_score must be a finite number.*first: row 5000 has inf"),
        ({"response": 3.0}, r"response must be in \[0, 1\].*row 5000 has 3.0"),
        ({"entity_type": None}, "entity_type or ranker_version is null"),
    ],
)
def test_fit_refuses_a_broken_table_by_row(impressions: pd.DataFrame, change: dict[str, Any], message: str) -> None:
    broken = impressions.copy()
    for column, value in change.items():
        broken.loc[5000, column] = value
    with pytest.raises(CalibrationError, match=message):
        CalibratorSet.fit(broken)


def test_fit_refuses_tables_without_what_it_needs(impressions: pd.DataFrame) -> None:
    with pytest.raises(CalibrationError, match="missing raw_score; found: entity_type"):
        CalibratorSet.fit(impressions.drop(columns="raw_score"))
    with pytest.raises(CalibrationError, match="missing position"):
        CalibratorSet.fit(impressions.drop(columns="position"), examination=Examination(PositionExamination.constant()))
    with pytest.raises(CalibrationError, match="no ranker has 50 usable rows"):
        CalibratorSet.fit(impressions.assign(policy="served"))
    with pytest.raises(CalibrationError, match="raw_score does not hold numbers"):
        CalibratorSet.fit(impressions.astype({"raw_score": "str"}).assign(raw_score="high"))


def test_fit_with_examination_answers_at_the_top_position() -> None:
    rng = np.random.default_rng(3)
    position = PositionExamination(np.array([1.0, 0.5, 0.25, 0.25]))
    table = _impressions(3, n=60_000)
    table["response"] *= rng.random(len(table)) < position.at(table["position"])
    corrected, ignored = CalibratorSet.fit(table, examination=Examination(position)), CalibratorSet.fit(table)
    truth = CalibratorSet.fit(_impressions(3, n=60_000))
    assert corrected.prior("people") == pytest.approx(truth.prior("people"), rel=0.05)
    assert ignored.prior("people") == pytest.approx(0.5 * truth.prior("people"), rel=0.05)


def test_predict_of_a_page_answers_each_row_by_its_own_curve(calibrators: CalibratorSet) -> None:
    raw_score = np.array([0.5, 0.5, 0.5, np.nan, 2.0])
    ranker = np.array([2, 0, 1, 1, 0])
    answer = calibrators.predict(raw_score, ranker, RANKERS)
    expected = [calibrators[RANKERS[r]].predict(np.array([s]))[0] for s, r in zip(raw_score, ranker, strict=True)]
    np.testing.assert_array_equal(answer, expected)
    assert calibrators.predict(np.empty(0), np.empty(0, dtype=int), RANKERS).shape == (0,)


def test_predict_names_an_unknown_ranker(calibrators: CalibratorSet) -> None:
    with pytest.raises(UnknownCalibrator, match=r"no calibrator for 'peple', 'p1'; known: event e1.*mean 'people p1'"):
        calibrators.predict(np.zeros(1), np.zeros(1, dtype=int), [("peple", "p1")])
    with pytest.raises(LookupError):
        calibrators["people", "p9"]
    with pytest.raises(CalibrationError, match=r"ranker numbers must be in 0 .. 2; 1 of 2 are not"):
        calibrators.predict(np.zeros(2), np.array([0, 3]), RANKERS)


def test_known_and_prior_describe_a_type(
    calibrators: CalibratorSet, impressions: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    assert calibrators.known("people") == ("p1", "p2")
    assert calibrators.known("group") == ()
    people = impressions[impressions["entity_type"] == "people"]
    assert calibrators.prior("people") == pytest.approx(people["response"].mean(), rel=0.02)
    priors = np.array([calibrators.prior("event"), calibrators.prior("people")])
    assert caplog.messages == []
    caplog.set_level("DEBUG", logger="calibration")
    assert calibrators.prior("group") == pytest.approx(expit(logit(priors).mean(keepdims=True))[0])
    assert caplog.messages == [
        f"group has no calibrator: the pooled prior of event, people, {calibrators.prior('group'):.4g}"
    ]


def test_refitted_changes_one_curve_and_nothing_else(impressions: pd.DataFrame) -> None:
    calibrators = CalibratorSet.fit(
        impressions, method="isotonic", examination=Examination(PositionExamination.constant())
    )
    shadow = impressions[impressions["ranker_version"] == "p1"].assign(
        ranker_version="p3", raw_score=lambda rows: np.exp(rows["raw_score"])
    )
    new = calibrators.refitted(pd.concat([impressions, shadow]), entity_type="people", ranker_version="p3")
    assert set(new) == {*RANKERS, ("people", "p3")}
    assert all(new[key] is calibrators[key] for key in RANKERS)
    assert new["people", "p3"].method == "isotonic"
    assert new.examination is calibrators.examination
    assert new.version != calibrators.version
    fresh = np.random.default_rng(8).normal(size=500)
    np.testing.assert_array_equal(new["people", "p3"].predict(np.exp(fresh)), new["people", "p1"].predict(fresh))
    replaced = new.refitted(impressions.iloc[::2], entity_type="people", ranker_version="p1")
    assert replaced["people", "p1"].n_rows < new["people", "p1"].n_rows
    with pytest.raises(CalibrationError, match="no usable row of 'people', 'p4': 0 of 6,000"):
        calibrators.refitted(impressions, entity_type="people", ranker_version="p4")


def test_recalibrating_a_distorted_ranker_keeps_every_top_cohort_on_new_requests(impressions: pd.DataFrame) -> None:
    calibrators = CalibratorSet.fit(impressions)
    distorted = impressions.assign(
        raw_score=impressions["raw_score"].where(
            impressions["ranker_version"] != "p1", np.sinh(2 * impressions["raw_score"])
        )
    )
    new = calibrators.refitted(distorted, entity_type="people", ranker_version="p1")
    rng = np.random.default_rng(5)
    scores = np.column_stack([rng.normal(size=3000), np.exp(rng.normal(size=3000)), expit(rng.normal(size=3000))])
    ranker = np.tile([0, 1, 2], 3000)
    before = calibrators.predict(scores.ravel(), ranker, RANKERS).reshape(scores.shape)
    scores[:, 0] = np.sinh(2 * scores[:, 0])
    after = new.predict(scores.ravel(), ranker, RANKERS).reshape(scores.shape)
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))


def test_with_score_transforms_a_distorted_ranker_moves_few_top_cohorts(impressions: pd.DataFrame) -> None:
    calibrators = CalibratorSet.fit(impressions, transforms="all")
    people = impressions[impressions["ranker_version"] == "p1"]
    distorted = people.assign(raw_score=np.sinh(people["raw_score"]))
    new = calibrators.refitted(distorted, entity_type="people", ranker_version="p1")
    fresh = np.random.default_rng(6).normal(size=3000)
    change = new["people", "p1"].predict(np.sinh(fresh)) / calibrators["people", "p1"].predict(fresh) - 1
    assert 0 < np.abs(change).mean() < 0.05


def test_cross_fitted_rates_do_not_know_their_own_fold(impressions: pd.DataFrame, calibrators: CalibratorSet) -> None:
    fold = impressions["viewer"].to_numpy() % 4
    original = calibrators.cross_fitted(impressions, fold, 4)
    flipped = impressions.copy()
    own = fold == 2
    flipped.loc[own, "response"] = 1.0 - flipped.loc[own, "response"]
    after = calibrators.cross_fitted(flipped, fold, 4)
    people = (impressions["entity_type"] == "people").to_numpy()  # event has below 500 positives: pooled
    np.testing.assert_array_equal(original[own & people], after[own & people])
    assert np.all(original[~own & people] != after[~own & people])


def test_cross_fitted_rows_of_one_fold_stay_monotone_and_near_the_pooled_curve(
    impressions: pd.DataFrame, calibrators: CalibratorSet
) -> None:
    fold = impressions["viewer"].to_numpy() % 4
    answer = calibrators.cross_fitted(impressions, fold, 4)
    for (entity_type, version), rows in impressions.groupby(["entity_type", "ranker_version"]):
        curve = calibrators[str(entity_type), str(version)]
        pooled = curve.predict(rows["raw_score"].to_numpy())
        cross = answer[rows.index]
        if curve.n_positive < 500:
            np.testing.assert_array_equal(cross, pooled)
            continue
        assert np.mean(np.abs(cross / pooled - 1)) < 0.1
        for number in range(4):
            inside = fold[rows.index] == number
            order = np.argsort(rows["raw_score"].to_numpy()[inside])
            assert np.all(np.diff(cross[inside][order]) >= 0)


def test_cross_fitted_answers_rows_it_cannot_learn_from(impressions: pd.DataFrame, calibrators: CalibratorSet) -> None:
    fold = impressions["viewer"].to_numpy() % 3
    table = impressions.copy()
    table.loc[0, "response"] = np.nan
    table.loc[1, "policy"] = "served"
    table.loc[2, "raw_score"] = np.nan
    answer = calibrators.cross_fitted(table, fold, 3)
    assert np.isfinite(answer[[0, 1]]).all()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(answer)), [2])


def test_cross_fitted_refuses_bad_folds_and_unknown_rankers(
    impressions: pd.DataFrame, calibrators: CalibratorSet
) -> None:
    for fold, n_folds in ((np.zeros(3, dtype=int), 2), (np.full(6000, 2), 2), (np.zeros(6000, dtype=int), 1)):
        with pytest.raises(CalibrationError, match="fold must hold 6,000 numbers"):
            calibrators.cross_fitted(impressions, fold, n_folds)
    with pytest.raises(UnknownCalibrator, match="'event', 'p9'"):
        calibrators.cross_fitted(impressions.assign(ranker_version="p9"), np.zeros(6000, dtype=int), 2)


@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_saved_set_is_read_back_bit_by_bit(impressions: pd.DataFrame, tmp_path: Path, transforms: str) -> None:
    position = PositionExamination(np.array([1.0, 0.9, 0.1 + 0.2]))
    examination = Examination(position, SlotExamination(np.array([1.0, 0.7])))
    calibrators = CalibratorSet.fit(impressions.assign(slot=0), transforms=transforms, examination=examination)
    calibrators.save(tmp_path / "part")
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["calibrators.json"]
    again = CalibratorSet.load(tmp_path / "part")
    assert again.version == calibrators.version
    assert again.settings == calibrators.settings
    assert (again.settings.method, again.settings.transforms) == ("auto", transforms)
    assert again.examination is not None
    assert again.examination.to_dict() == examination.to_dict()
    scores = np.append(np.random.default_rng(0).normal(size=1000), np.nan)
    for key in calibrators:
        np.testing.assert_array_equal(again[key].predict(scores), calibrators[key].predict(scores))


def test_version_depends_on_content_only(impressions: pd.DataFrame, calibrators: CalibratorSet) -> None:
    assert CalibratorSet.fit(impressions.sample(frac=1.0, random_state=1)).version == calibrators.version
    assert CalibratorSet.fit(impressions.iloc[1:]).version != calibrators.version
    assert len(calibrators.version) == 12
    int(calibrators.version, 16)


def _spoil_curve(field: str, value: object) -> Any:
    def spoil(content: dict[str, Any]) -> None:
        content["curves"][0]["curve"][field] = value

    return spoil


def _examined(relative: object) -> dict[str, Any]:
    return {"position": {"relative": relative}, "slot": None}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("curves"), "must hold the fields"),
        (lambda content: content.update(schema=99), "has schema 99; this library reads 2"),
        (lambda content: content.update(curves={}), "curves as a list"),
        (lambda content: content.update(curves=[]), "was altered"),
        (lambda content: content.update(curves=[1]), "an entry of curves must hold"),
        (lambda content: content["curves"].append(content["curves"][0]), "was altered"),
        (lambda content: content["settings"].update(method="isotonic"), "was altered"),
        (lambda content: content.update(version="0"), "was altered"),
        (lambda content: content.update(settings=None), "calibrators.json: settings have the fields"),
        (lambda content: content["settings"].update(method="shrunken"), "unknown method 'shrunken'"),
        (lambda content: content.update(examination=_examined([1.0, 2.0])), "relative examination must be 1"),
        (lambda content: content.update(examination=_examined("much")), "calibrators.json: "),
        (lambda content: content.update(examination="much"), "calibrators.json: "),
        (lambda content: content["curves"][0].update(entity_type=3), "must be strings and a curve"),
        (lambda content: content["curves"][0].update(segment=3), "must be strings and a curve"),
        (lambda content: content["curves"][0].update(segment="eager"), "was altered"),
        (
            lambda content: content["curves"][0]["curve"]["values"].reverse(),
            "curve .'event', 'e1'.: .*must not decrease",
        ),
        (_spoil_curve("values", None), "values of a curve is None"),
        (_spoil_curve("n_rows", 10**400), "calibrators.json"),
    ],
)
def test_load_names_what_is_wrong(calibrators: CalibratorSet, tmp_path: Path, spoil: Any, message: str) -> None:
    calibrators.save(tmp_path)
    path = tmp_path / "calibrators.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=message):
        CalibratorSet.load(tmp_path)


def test_set_needs_a_curve_and_every_segment_its_ranker(calibrators: CalibratorSet) -> None:
    with pytest.raises(CalibrationError, match="at least one curve"):
        CalibratorSet({})
    curve = calibrators["event", "e1"]
    with pytest.raises(CalibrationError, match=r"segment .'event', 'e2', 'eager'. has no curve of its ranker"):
        CalibratorSet({("event", "e1"): curve}, segments={("event", "e2", "eager"): curve})


def test_load_refuses_what_is_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot be read"):
        CalibratorSet.load(tmp_path)
    (tmp_path / "calibrators.json").write_text("{")
    with pytest.raises(CalibrationError, match="cannot be read"):
        CalibratorSet.load(tmp_path)


def test_to_frame_has_one_row_per_curve(calibrators: CalibratorSet, impressions: pd.DataFrame) -> None:
    frame = calibrators.to_frame().set_index(["entity_type", "ranker_version"])
    assert list(frame.index) == sorted(RANKERS)
    counts = impressions.groupby(["entity_type", "ranker_version"])["response"].agg(["size", "sum", "mean"])
    np.testing.assert_array_equal(frame["n_rows"], counts["size"])
    np.testing.assert_array_equal(frame["n_positive"], counts["sum"])
    np.testing.assert_allclose(frame["base_rate"], counts["mean"])
    assert (frame["minimum_response"] < frame["maximum_response"]).all()


def test_set_is_immutable(calibrators: CalibratorSet) -> None:
    with pytest.raises(FrozenInstanceError):
        calibrators.settings = CalibrationSettings("isotonic")
    with pytest.raises(FrozenInstanceError):
        calibrators.settings.method = "isotonic"
    with pytest.raises(TypeError):
        calibrators.settings.response["people"] = "count"
    with pytest.raises(TypeError):
        calibrators.curves["people", "p1"] = calibrators["people", "p2"]
