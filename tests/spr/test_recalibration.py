"""One calibrator fitted anew: accepted on good rows, refused on spoilt ones, and nothing else touched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import spr
from calibration import CalibrationError
from simulations import World
from spr.bundle import file_hashes, unchanged_parts
from spr.cli import app
from spr.errors import BundleError, ConfigError, TableError, UnknownEntityType
from spr.recalibration import Recalibration, recalibrated

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables

KEY = ["request_id", "cohort_id", "slot"]


@pytest.fixture(scope="module")
def world() -> WorldTables:
    return World(n_viewers=300, seed=0, n_entities=60).tables(4000)


@pytest.fixture(scope="module")
def later(world: WorldTables) -> pd.DataFrame:
    """Requests that the ranker below was not fitted on."""
    return world.impressions[world.impressions["request_id"].isin(world.impressions["request_id"].unique()[1500:])]


@pytest.fixture(scope="module")
def fitted(world: WorldTables) -> spr.SecondPassRanker:
    config = spr.Config.named("network")
    config = config.model_copy(
        update={"trees": config.trees.model_copy(update={"n_rounds": 10, "max_depth": 3}), "random_effects": ()}
    )
    rows = world.impressions
    earlier = rows[rows["request_id"].isin(rows["request_id"].unique()[:1500])]
    return spr.fit(earlier, world.viewers, world.entities, config=config)


def _people(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["entity_type"] == "people"]


def _of_people(
    ranker: spr.SecondPassRanker, rows: pd.DataFrame, version: str = "people-1", **more: object
) -> Recalibration:
    return recalibrated(ranker, rows, entity_type="people", ranker_version=version, **more)


def _with_responses(rows: pd.DataFrame, response: float) -> pd.DataFrame:
    return rows.assign(response=rows["response"].mask(rows["entity_type"] == "people", response))


# ------------------------------------------------------------------ judging


def test_recalibrated_live_version_is_accepted_on_later_rows(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    answer = _of_people(fitted, later)
    assert answer.accepted, answer.reasons
    table = answer.table
    assert list(table.index) == ["before", "after", "constant"]
    assert table["predicted_by"]["before"] == "people-1"
    assert table["log_loss"]["after"] < table["log_loss"]["constant"]
    assert table["calibration_in_the_large"].to_numpy() == pytest.approx(
        (table["mean_expected"] - table["mean_response"]).to_numpy()
    )
    assert 0.1 < table["n_viewers"]["after"] / _people(later)["viewer_id"].nunique() < 0.3
    random = _people(later)[_people(later)["policy"] == "random"]
    assert answer.new.calibrators["people", "people-1"].n_rows == random["raw_score"].notna().sum()  # all viewers


def test_recalibrated_touches_one_curve(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    new = _of_people(fitted, later).new
    assert (new.trees, new.effects, new.factors, new.features) == (
        fitted.trees,
        fitted.effects,
        fitted.factors,
        fitted.features,
    )
    assert {key for key in fitted.calibrators if new.calibrators[key] is not fitted.calibrators[key]} == {
        ("people", "people-1")
    }


def test_recalibrated_depends_on_no_order_of_rows(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    shuffled = later.sample(frac=1.0, random_state=3)
    pd.testing.assert_frame_equal(_of_people(fitted, later).table, _of_people(fitted, shuffled).table)


def test_recalibrated_judges_by_viewers_that_taught_nothing(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    """Spoiling the rows of viewers who judge cannot change the mean that the others taught."""
    from spr.glmix.holdout import salted_hashes, unit_interval
    from spr.recalibration import HELD_OUT

    hashes = salted_hashes(later["viewer_id"].to_numpy(dtype=object), fitted.config.seed + 2)
    judges = (unit_interval(hashes) < HELD_OUT) & (later["entity_type"] == "people").to_numpy()
    spoilt = later.assign(response=later["response"].mask(judges & later["response"].notna().to_numpy(), 1.0))
    clean, dirty = _of_people(fitted, later), _of_people(fitted, spoilt)
    assert dirty.table["mean_expected"]["after"] == pytest.approx(clean.table["mean_expected"]["after"])
    assert dirty.table["mean_response"]["after"] == 1.0
    assert not dirty.accepted


def test_recalibrated_permuted_responses_are_refused(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    permuted = np.random.default_rng(0).permutation(_people(later)["response"].to_numpy())
    rows = later.copy()
    rows.loc[rows["entity_type"] == "people", "response"] = permuted
    answer = _of_people(fitted, rows)
    assert any("no better than a constant" in reason for reason in answer.reasons)


def test_recalibrated_without_any_response_is_refused(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    answer = _of_people(fitted, _with_responses(later, 0.0))
    assert any("no response above 0" in reason for reason in answer.reasons)


def test_recalibrated_few_viewers_do_not_judge(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    few = later[later["viewer_id"].isin(later["viewer_id"].unique()[:30])]
    answer = _of_people(fitted, few)
    assert not answer.accepted
    assert "it takes 20" in answer.reasons[0]
    assert answer.table.empty
    assert answer.new.calibrators.version != fitted.calibrators.version


def test_recalibrated_new_version_without_shadow_is_judged_against_the_prior(
    fitted: spr.SecondPassRanker, later: pd.DataFrame
) -> None:
    renamed = later.assign(ranker_version=later["ranker_version"].replace("people-1", "people-2"))
    answer = _of_people(fitted, renamed, "people-2")
    assert answer.table["predicted_by"]["before"] == "the prior of the type"
    assert answer.accepted, answer.reasons
    assert answer.new.calibrators.known("people") == ("people-1", "people-2")


def test_recalibrated_shadow_is_judged_against_the_live_versions_own_scores(
    fitted: spr.SecondPassRanker, later: pd.DataFrame
) -> None:
    people = _people(later)
    scores = people[KEY].assign(raw_score=np.exp(people["raw_score"] / 3))
    answer = _of_people(fitted, later, "people-2", shadow=scores)
    assert answer.accepted, answer.reasons
    # The same order of entities on another scale: the same curve, and before = the live version's.
    live = _of_people(fitted, later)
    assert answer.table["log_loss"].to_numpy() == pytest.approx(live.table["log_loss"].to_numpy())
    assert answer.table["predicted_by"]["before"] == "people-1"


def test_recalibrated_shadow_scores_of_other_rows_are_refused(
    fitted: spr.SecondPassRanker, later: pd.DataFrame
) -> None:
    people = _people(later)
    scores = people[KEY].assign(raw_score=np.random.default_rng(0).permutation(people["raw_score"].to_numpy()))
    answer = _of_people(fitted, later, "people-2", shadow=scores)
    assert any("worse than before" in reason for reason in answer.reasons)


def test_recalibrated_counts_are_judged_by_poisson_loss(world: WorldTables, later: pd.DataFrame) -> None:
    config = spr.Config.parse(
        '[entity_types]\npeople = { edge_type = "connection", response = "count" }\n'
        '[trees]\nn_rounds = 3\n[features]\nviewer_in_trees = "no"\n'
    )
    rows = _people(world.impressions).copy()
    rows["response"] *= np.random.default_rng(0).poisson(2.0, len(rows))
    config = config.model_copy(update={"random_effects": ()})
    is_later = rows["request_id"].isin(later["request_id"])
    ranker = spr.fit(rows[~is_later], world.viewers, config=config)
    assert ranker.config.entity_types["people"].aggregation == "slot_weighted_mean"
    answer = _of_people(ranker, rows[is_later])
    assert answer.accepted, answer.reasons
    assert answer.table["poisson_loss"]["after"] < answer.table["poisson_loss"]["constant"]


def test_recalibrated_sampled_rows_stand_for_those_left_out(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    kept = (later["response"] > 0) | (np.random.default_rng(0).random(len(later)) < 0.25)
    types = dict(fitted.config.entity_types)
    types["people"] = types["people"].model_copy(update={"negative_sampling_rate": 0.25})
    settings = replace(fitted.calibrators.settings, negative_sampling_rate={"people": 0.25})
    whole = fitted.with_calibrators(replace(fitted.calibrators, examination=None))
    ranker = replace(
        whole,
        config=fitted.config.model_copy(update={"entity_types": types}),
        calibrators=replace(whole.calibrators, settings=settings),
    )
    full, sampled = _of_people(whole, later).table, _of_people(ranker, later[kept]).table
    for column in ("mean_expected", "mean_response", "log_loss"):
        assert sampled[column].to_numpy() == pytest.approx(full[column].to_numpy(), rel=0.1), column


def test_recalibrated_bad_arguments_are_named(fitted: spr.SecondPassRanker, later: pd.DataFrame) -> None:
    with pytest.raises(UnknownEntityType, match="'people'"):
        recalibrated(fitted, later, entity_type="peple", ranker_version="people-1")
    with pytest.raises(TableError, match=r"'people-9'.*known: people-1.*shadow scores"):
        _of_people(fitted, later, "people-9")
    with pytest.raises(TableError, match="shadow: people people-1 is live"):
        _of_people(fitted, later, "people-1", shadow=_people(later)[[*KEY, "raw_score"]])
    with pytest.raises(CalibrationError, match="none of 1 rows"):
        _of_people(fitted, later, "people-2", shadow=_people(later)[[*KEY, "raw_score"]].head(1).assign(slot=99))


def test_recalibrated_segments_of_a_viewers_column_need_the_viewers(
    fitted: spr.SecondPassRanker, later: pd.DataFrame, world: WorldTables
) -> None:
    settings = replace(fitted.calibrators.settings, segment="activity")
    split = fitted.with_calibrators(replace(fitted.calibrators, settings=settings))
    with pytest.raises(TableError, match=r"viewers: needed.*'activity'"):
        _of_people(split, later)
    with pytest.raises(ConfigError, match="unknown segment 'activity'"):
        _of_people(split, later, viewers=world.viewers)
    frequent = later["viewer_id"].value_counts().gt(later["viewer_id"].value_counts().median())
    viewers = world.viewers.assign(
        activity=np.where(world.viewers["viewer_id"].map(frequent).fillna(False).astype(bool), "frequent", "rare")
    )
    answer = _of_people(split, later, viewers=viewers)
    assert {key[2] for key in answer.new.calibrators.segments} == {"frequent", "rare"}


# ------------------------------------------------------------------ the command


@pytest.fixture
def files(fitted: spr.SecondPassRanker, later: pd.DataFrame, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "bundle")
    later.to_parquet(tmp_path / "later.parquet", index=False)
    return tmp_path


def _recalibrate(files: Path, *more: object, version: str = "people-1", rows: str = "later.parquet") -> Result:
    arguments = ["recalibrate", files / "bundle", "--impressions", files / rows, "--entity-type", "people"]
    return CliRunner().invoke(app, [str(a) for a in (*arguments, "--ranker-version", version, *more)])


def test_recalibrate_replaces_the_bundle_and_nothing_but_the_calibrators(files: Path) -> None:
    before, hashes = spr.load(files / "bundle"), file_hashes(files / "bundle")
    result = _recalibrate(files)
    assert result.exit_code == 0, result.output
    after = spr.load(files / "bundle")
    assert {part for part in before.versions if before.versions[part] != after.versions[part]} == {
        "bundle",
        "calibrators",
    }
    changed = {file for file, digest in file_hashes(files / "bundle").items() if hashes[file] != digest}
    # the golden rows' answers may follow the new curve
    assert changed - {"golden.json"} == {"calibrators/calibrators.json"}
    for said in ("before", "after", "log_loss", "factors, features, prices, trees: unchanged (sha256)", "people-1"):
        assert said in result.output


def test_recalibrate_shadow_version_into_another_folder_keeps_the_live_one(files: Path, later: pd.DataFrame) -> None:
    people = _people(later)
    people[KEY].assign(raw_score=people["raw_score"] * 2).to_csv(files / "shadow.csv", index=False)
    old = spr.load(files / "bundle")
    result = _recalibrate(files, "--shadow", files / "shadow.csv", "--out", files / "new", version="people-2")
    assert result.exit_code == 0, result.output
    assert "versions of people with a curve: people-1, people-2" in result.output
    assert spr.load(files / "bundle").versions == old.versions
    new = spr.load(files / "new").calibrators
    assert set(new) == {*old.calibrators, ("people", "people-2")}
    raw = np.array([-1.0, 0.5])
    np.testing.assert_array_equal(
        new["people", "people-1"].predict(raw), old.calibrators["people", "people-1"].predict(raw)
    )


def test_recalibrate_refuses_spoilt_responses_unless_forced(files: Path, later: pd.DataFrame) -> None:
    _with_responses(later, 0.0).to_parquet(files / "spoilt.parquet", index=False)
    old = spr.load(files / "bundle").versions
    result = _recalibrate(files, rows="spoilt.parquet")
    assert result.exit_code == 1
    assert "no response above 0" in result.output
    assert "--force" in result.output
    assert spr.load(files / "bundle").versions == old
    forced = _recalibrate(files, "--force", rows="spoilt.parquet")
    assert forced.exit_code == 0, forced.output
    assert "against it" in forced.output
    assert spr.load(files / "bundle").versions != old


def test_recalibrate_worse_shadow_scores_exit_with_1_and_say_why(files: Path, later: pd.DataFrame) -> None:
    people = _people(later)
    people[KEY].assign(raw_score=-people["raw_score"]).to_parquet(files / "shadow.parquet", index=False)
    result = _recalibrate(files, "--shadow", files / "shadow.parquet", "--out", files / "new", version="people-2")
    assert result.exit_code == 1
    assert "worse than before" in result.output
    assert not (files / "new").exists()


def test_unchanged_parts_names_a_file_that_changed(files: Path) -> None:
    hashes = file_hashes(files / "bundle")
    assert unchanged_parts(hashes, files / "bundle", changed="calibrators") == (
        "factors",
        "features",
        "prices",
        "trees",
    )
    with pytest.raises(BundleError, match=r"factors\.json changed"):
        unchanged_parts({**hashes, "factors.json": "0"}, files / "bundle", changed="calibrators")
