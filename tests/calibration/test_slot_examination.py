from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from calibration import (
    CalibrationError,
    PositionExamination,
    SlotExamination,
    SlotExaminationNotIdentified,
)

TRUTH = np.array([1.0, 0.8, 0.65, 0.6, 0.45, 0.4])
POSITIONS = 1.0 / np.sqrt(1.0 + np.arange(5))
K = TRUTH.size


def log_of(
    n_requests: int, n_viewers: int, *, seed: int, shuffled: bool = False, versions: int = 1, policy: str = "random"
) -> pd.DataFrame:
    """Make cohorts of personalised entities; version v ranks by affinity plus an error of its own."""
    rng = np.random.default_rng(seed)
    affinity = rng.normal(size=(n_viewers, K))
    error = rng.normal(size=(versions, n_viewers, K))
    error[0] *= 0.2
    viewer, version = rng.integers(0, n_viewers, n_requests), rng.integers(0, versions, n_requests)
    position = rng.integers(0, POSITIONS.size, n_requests)
    if policy != "random":
        position = np.where(version == 1, 4, 0)
    score = affinity[viewer] + error[version, viewer]
    order = np.argsort(rng.random(score.shape) if shuffled else -score, axis=1)
    entity = order[:, :K]
    relevance = np.take_along_axis(1.0 / (1.0 + np.exp(1.2 - affinity[viewer])), entity, axis=1)
    response = rng.random(entity.shape) < relevance * TRUTH * POSITIONS[position][:, None]
    return pd.DataFrame(
        {
            "request_id": np.repeat(np.arange(n_requests), K),
            "viewer_id": np.repeat(viewer, K),
            "policy": policy,
            "cohort_id": "c",
            "entity_type": "people",
            "entity_id": entity.ravel(),
            "position": np.repeat(position, K),
            "slot": np.tile(np.arange(K), n_requests),
            "ranker_version": np.repeat(np.char.add("v", version.astype(str)), K),
            "raw_score": np.take_along_axis(score, entity, axis=1).ravel(),
            "response": response.ravel().astype(float),
            "slots_shuffled": shuffled,
        }
    )


@pytest.fixture(scope="module")
def shuffled() -> pd.DataFrame:
    return log_of(40_000, 4000, seed=0, shuffled=True)


@pytest.fixture(scope="module")
def two_rankers() -> pd.DataFrame:
    return log_of(60_000, 3000, seed=1, versions=2)


def test_fit_shuffled_recovers_the_truth_within_three_hundredths(shuffled: pd.DataFrame) -> None:
    np.testing.assert_allclose(SlotExamination.fit_shuffled(shuffled).relative, TRUTH, atol=0.03)


def test_fit_shuffled_uses_marked_rows_only(shuffled: pd.DataFrame) -> None:
    plain = log_of(5000, 500, seed=2).assign(slots_shuffled=None)
    plain["request_id"] += len(shuffled)
    both = pd.concat([shuffled.astype({"slots_shuffled": "boolean"}), plain.astype({"slots_shuffled": "boolean"})])
    np.testing.assert_array_equal(
        SlotExamination.fit_shuffled(both).relative, SlotExamination.fit_shuffled(shuffled).relative
    )


def test_fit_shuffled_compares_cohorts_of_one_size(shuffled: pd.DataFrame) -> None:
    # Small cohorts respond three times as often and have no late slots: without strata these would look unseen.
    small = shuffled["request_id"] % 2 == 0
    rng = np.random.default_rng(4)
    kept = ~small | (shuffled["slot"] < 2)
    dropped = ~small & (rng.random(len(shuffled)) > 1 / 3)
    rows = shuffled[kept].assign(response=shuffled["response"].mask(dropped, 0.0))
    np.testing.assert_allclose(SlotExamination.fit_shuffled(rows).relative, TRUTH, atol=0.06)


def test_fit_shuffled_ignores_open_windows_and_unscorable_entities(shuffled: pd.DataFrame) -> None:
    rng = np.random.default_rng(5)
    rows = shuffled.assign(
        raw_score=shuffled["raw_score"].mask(rng.random(len(shuffled)) < 0.1),
        response=shuffled["response"].mask(shuffled["request_id"] % 5 == 0),
    )
    np.testing.assert_allclose(SlotExamination.fit_shuffled(rows).relative, TRUTH, atol=0.05)


def test_uncertainty_of_shuffled_slots_is_of_the_size_of_the_error(shuffled: pd.DataFrame) -> None:
    fitted = SlotExamination.fit_shuffled(shuffled[shuffled["viewer_id"] < 2000], n_resamples=20)
    assert fitted.uncertainty is not None
    assert np.all(np.abs(fitted.relative - TRUTH) <= 3 * fitted.uncertainty.standard_error + 1e-12)
    assert 0.002 < fitted.uncertainty.standard_error[1:].max() < 0.03


def test_fit_rankers_recovers_the_truth_within_five_hundredths(two_rankers: pd.DataFrame) -> None:
    np.testing.assert_allclose(SlotExamination.fit_rankers(two_rankers).relative, TRUTH, atol=0.05)


def test_fit_rankers_of_any_policy_takes_the_examination_of_positions() -> None:
    # The policy puts cohorts of the second version low: not comparable by default, corrected with known positions.
    rows = log_of(60_000, 3000, seed=6, versions=2, policy="low for v1")
    with pytest.raises(SlotExaminationNotIdentified, match="0 usable impressions"):
        SlotExamination.fit_rankers(rows)
    known = SlotExamination.fit_rankers(rows, position=PositionExamination(POSITIONS))
    np.testing.assert_allclose(known.relative, TRUTH, atol=0.06)


def test_personal_rankers_are_not_compared_across_viewers(two_rankers: pd.DataFrame) -> None:
    with pytest.raises(SlotExaminationNotIdentified, match=r"^0 entities \(by entity_type, entity_id\)"):
        SlotExamination.fit_rankers(two_rankers, comparable_by=())


def test_fit_rankers_leaves_out_entities_that_a_version_moves_itself(two_rankers: pd.DataFrame) -> None:
    # On odd requests v1 swaps its last two slots and puts what responds first: no experiment, and not used.
    last = (two_rankers["ranker_version"] == "v1") & (two_rankers["request_id"] % 2 == 1) & (two_rankers["slot"] > 3)
    moved = two_rankers.assign(slot=two_rankers["slot"].mask(last, 9 - two_rankers["slot"]))
    moved["response"] = moved["response"].where(~last, (moved["slot"] == 4).astype(float))
    np.testing.assert_allclose(SlotExamination.fit_rankers(moved).relative[:4], TRUTH[:4], atol=0.05)


def test_naive_ratio_of_response_rates_is_biased_on_pages_ordered_by_score() -> None:
    rows = log_of(20_000, 2000, seed=7)
    naive = PositionExamination.fit(rows["slot"], rows["response"]).relative
    assert (naive[1:] < TRUTH[1:] - 0.1).all()


@pytest.mark.parametrize("fit", [SlotExamination.fit_shuffled, SlotExamination.fit_rankers])
def test_pages_ordered_by_score_are_refused_with_the_ways_out(fit) -> None:
    rows = log_of(2000, 200, seed=8)
    for found in (rows, rows.drop(columns="slots_shuffled")):
        with pytest.raises(SlotExaminationNotIdentified, match=r"\(1\) shuffle.*\(2\) assign.*\(3\) give the curve"):
            fit(found)


def test_rows_wrongly_marked_as_shuffled_are_refused_with_the_figure(shuffled: pd.DataFrame) -> None:
    rows = log_of(2000, 200, seed=9).assign(slots_shuffled=True)
    with pytest.raises(SlotExaminationNotIdentified, match=r"within cohorts is -1\.00, 10\d standard errors"):
        SlotExamination.fit_shuffled(rows)
    some = pd.concat([shuffled, log_of(6000, 200, seed=9).assign(slots_shuffled=True)])
    some["request_id"] = np.repeat(np.arange(len(some) // K), K)
    with pytest.raises(SlotExaminationNotIdentified, match=r"within cohorts is -0\.1"):
        SlotExamination.fit_shuffled(some)


def test_versions_that_ran_one_after_the_other_are_refused(two_rankers: pd.DataFrame) -> None:
    rng = np.random.default_rng(10)
    day = rng.integers(0, 28, len(two_rankers) // K).repeat(K)
    together = two_rankers.assign(at=pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(day, unit="D"))
    SlotExamination.fit_rankers(together)
    later = pd.to_timedelta(np.where(two_rankers["ranker_version"] == "v1", 28, 0), unit="D")
    with pytest.raises(SlotExaminationNotIdentified, match=r"explains 75% of when requests were made"):
        SlotExamination.fit_rankers(together.assign(at=together["at"] + later))


def test_slots_that_no_chain_links_to_the_first_take_the_value_above() -> None:
    def pair(first: int, second: int, unit: int) -> list[tuple[int, str, int, float]]:
        return [(unit, "a", first, 1.0), (unit, "b", second, float(unit % 2))]

    rows = [row for unit in range(200) for row in (pair(0, 1, unit) if unit < 100 else pair(2, 3, unit))]
    table = pd.DataFrame(rows, columns=["entity_id", "ranker_version", "slot", "response"]).assign(
        viewer_id="ann", entity_type="people", request_id=np.arange(400), raw_score=0.0
    )
    relative = SlotExamination.fit_rankers(table).relative
    assert relative.size == 2
    assert relative[1] == pytest.approx(0.5, abs=0.02)
    assert SlotExamination(relative).at(3) == relative[1]
    with pytest.raises(SlotExaminationNotIdentified, match="0 entities"):
        SlotExamination.fit_rankers(table[table["slot"] > 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slot": -1}, "slot must be a whole number >= 0; row 0 has -1"),
        ({"response": -1.0}, "response must be finite and >= 0; row 0 has -1"),
        ({"response": "yes"}, "response does not hold numbers"),
    ],
)
@pytest.mark.parametrize("fit", [SlotExamination.fit_shuffled, SlotExamination.fit_rankers])
def test_bad_values_are_refused_by_row(fit, change, message: str) -> None:
    rows = log_of(200, 20, seed=11, shuffled=True, versions=2).assign(**change)
    with pytest.raises(CalibrationError, match=message):
        fit(rows)


def test_missing_columns_are_named(shuffled: pd.DataFrame) -> None:
    with pytest.raises(CalibrationError, match="missing cohort_id"):
        SlotExamination.fit_shuffled(shuffled.drop(columns="cohort_id"))
    with pytest.raises(CalibrationError, match="missing viewer_id"):
        SlotExamination.fit_rankers(shuffled.drop(columns="viewer_id"))
    with pytest.raises(CalibrationError, match="missing viewer_id"):
        SlotExamination.fit_shuffled(shuffled.drop(columns="viewer_id"), n_resamples=5)


def test_no_rows_and_one_entity_cohorts_are_not_identified(shuffled: pd.DataFrame) -> None:
    for fit in (SlotExamination.fit_shuffled, SlotExamination.fit_rankers):
        with pytest.raises(SlotExaminationNotIdentified):
            fit(shuffled.iloc[:0])
    with pytest.raises(SlotExaminationNotIdentified, match="two entities"):
        SlotExamination.fit_shuffled(shuffled[shuffled["slot"] == 0])
