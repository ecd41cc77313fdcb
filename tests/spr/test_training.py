"""Which rows train what, small and broken logs, and what training chose."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spr
from simulations import World
from spr.assembly import assemble
from spr.errors import ConfigError, SPRError, TableError
from spr.history import history_table
from spr.tables import read_impressions
from spr.training import cross_fit, fit_calibrators, refit_effects, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulations.world import WorldTables

LABELS = ["response", "downstream"]


@pytest.fixture(scope="module")
def config(small_config: spr.Config) -> spr.Config:
    """Trees that are fitted once and in half a second."""
    trees = small_config.trees.model_copy(update={"n_rounds": 24, "max_depth": 3})
    features = small_config.features.model_copy(update={"viewer_in_trees": "no"})
    return small_config.model_copy(update={"trees": trees, "features": features})


@pytest.fixture(scope="module")
def log(small_world: World) -> WorldTables:
    return small_world.tables(600)


@pytest.fixture(scope="module")
def fitted(log: WorldTables, config: spr.Config) -> spr.SecondPassRanker:
    return _fit(log, config)


def _fit(tables: WorldTables, config: spr.Config, **changes: Any) -> spr.SecondPassRanker:
    made = dataclasses.replace(tables, **changes)
    return spr.fit(made.impressions, made.viewers, made.entities, config=config)


def _flip(impressions: pd.DataFrame, rows: pd.Series[bool]) -> pd.DataFrame:
    """Turn every label of some rows around."""
    return impressions.assign(**{name: impressions[name].mask(rows, 1.0 - impressions[name]) for name in LABELS})


# ------------------------------------------------------------------ which rows train what


def test_effects_refitted_on_the_same_rows_are_the_same(small_tables: WorldTables, config: spr.Config) -> None:
    """And those of other rows are not: which policies taught is kept."""
    tables = small_tables
    trained = train(tables.impressions, tables.viewers, tables.entities, config=config)
    assert [effect.name for effect in trained.effects] == ["member"], "the test needs an effect that was adopted"
    assert trained.from_every_policy == ("every policy" in trained.ranker.history[-1].chosen)
    rows = read_impressions(tables.impressions, config)
    batch = assemble(rows, tables.viewers, tables.entities)
    expected_response = cross_fit(rows, trained.ranker.calibrators, config)
    (again,) = refit_effects(trained, rows, batch, expected_response)
    assert again.version == trained.ranker.effects[0].version
    turned = dataclasses.replace(trained, from_every_policy=not trained.from_every_policy)
    (other,) = refit_effects(turned, rows, batch, expected_response)
    assert other.version != again.version


def test_fit_is_the_same_again_and_leaves_its_tables(
    fitted: spr.SecondPassRanker, log: WorldTables, config: spr.Config
) -> None:
    frames = (log.impressions, log.viewers, log.entities)
    before = [frame.copy() for frame in frames]
    assert _fit(log, config).versions == fitted.versions
    for frame, copy in zip(frames, before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


def test_fit_does_not_depend_on_the_order_of_rows(
    fitted: spr.SecondPassRanker, log: WorldTables, config: spr.Config
) -> None:
    shuffled = {name: getattr(log, name).sample(frac=1.0, random_state=3) for name in ("impressions", "viewers")}
    again = _fit(log, config, **shuffled, entities=log.entities.sample(frac=1.0, random_state=4))
    assert again.versions == fitted.versions
    assert again.history == fitted.history


def test_fit_calibrators_and_trees_know_nothing_of_other_policies(
    fitted: spr.SecondPassRanker, log: WorldTables, config: spr.Config
) -> None:
    other = log.impressions["policy"] != "random"
    assert 0.3 < other.mean() < 0.7
    flipped = _fit(log, config, impressions=_flip(log.impressions, other))
    assert flipped.versions["calibrators"] == fitted.versions["calibrators"]
    assert flipped.versions["trees"] == fitted.versions["trees"]
    # without these rows other random pages are a viewer's first, so that others are held out: same calibrators only
    without = _fit(log, config, impressions=log.impressions[~other])
    assert without.versions["calibrators"] == fitted.versions["calibrators"]


def test_fit_labels_of_random_rows_do_matter(
    fitted: spr.SecondPassRanker, log: WorldTables, config: spr.Config
) -> None:
    rows = log.impressions
    # one cohort's downstream changes the trees alone; a response changes the calibrators
    positive = rows[(rows["policy"] == "random") & (rows["downstream"] == 1.0)].iloc[0]
    cohort = (rows["request_id"] == positive["request_id"]) & (rows["cohort_id"] == positive["cohort_id"])
    tree_only = _fit(log, config, impressions=rows.assign(downstream=rows["downstream"].mask(cohort, 0.0)))
    assert tree_only.versions["calibrators"] == fitted.versions["calibrators"]
    assert tree_only.versions["trees"] != fitted.versions["trees"]
    some = (rows["policy"] == "random") & (rows["entity_type"] == "people") & (rows["slot"] == 3)
    assert _fit(log, config, impressions=_flip(rows, some)).versions["calibrators"] != fitted.versions["calibrators"]


def test_fit_random_effects_learn_from_every_policy_where_that_helps(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, small_config: spr.Config
) -> None:
    choice = next(choice for choice in ranker.history if choice.what == "random effects learn from")
    assert choice.chosen.startswith("every policy")
    other = small_tables.impressions["policy"] != "random"
    seen = small_tables.impressions.loc[other, "viewer_id"].unique()
    flipped = _fit(small_tables, small_config, impressions=_flip(small_tables.impressions, other))
    if flipped.effects:
        assert flipped.versions["coefficients_member"] != ranker.versions["coefficients_member"]
    assert set(ranker.effects[0].keys.tolist()) >= set(seen)


def test_fit_immature_rows_have_no_influence(log: WorldTables, config: spr.Config) -> None:
    snapshot = pd.Timestamp("2026-02-01", tz="UTC")
    dated = config.model_copy(update={"labels": config.labels.model_copy(update={"snapshot": snapshot})})
    immature = log.impressions["at"] + pd.Timedelta(days=10) > snapshot
    assert 0.2 < immature.mean() < 0.6
    masked = log.impressions.assign(**{name: log.impressions[name].mask(immature) for name in LABELS})
    as_logged, flipped, null = (
        _fit(log, dated, impressions=rows) for rows in (log.impressions, _flip(log.impressions, immature), masked)
    )
    assert as_logged.versions == flipped.versions == null.versions
    assert _fit(log, config).versions["trees"] != as_logged.versions["trees"]


def test_cross_fit_keeps_a_viewer_out_of_his_own_rates(small_config: spr.Config) -> None:
    # 500 positives of a type are needed before rates are cross-fitted: one type, many rows
    impressions = World(n_viewers=120, seed=4, n_entities=60).impressions(4000, random_share=1.0)
    rows = read_impressions(impressions[impressions["entity_type"] == "newsletter"], small_config)
    assert (rows["response"] > 0).sum() > 600
    calibrators = fit_calibrators(rows, small_config)
    before = cross_fit(rows, calibrators, small_config)
    for viewer in rows["viewer_id"].value_counts().index[:3]:
        own = (rows["viewer_id"] == viewer).to_numpy()
        after = cross_fit(_flip(rows, pd.Series(own)), calibrators, small_config)
        np.testing.assert_array_equal(after[own], before[own])
        assert np.nanmax(np.abs(after - before)) > 1e-4


def test_cross_fit_is_null_where_the_raw_score_is(log: WorldTables, config: spr.Config) -> None:
    rows = read_impressions(log.impressions, config)
    expected_response = cross_fit(rows, fit_calibrators(rows, config), config)
    np.testing.assert_array_equal(np.isnan(expected_response), rows["raw_score"].isna())
    assert np.nanmin(expected_response) > 0.0
    assert np.nanmax(expected_response) < 1.0


# ------------------------------------------------------------------ what training says of itself


def test_history_holds_each_choice_with_the_losses_that_decided(ranker: spr.SecondPassRanker) -> None:
    assert [choice.what for choice in ranker.history] == ["what the trees see", "random effects learn from"]
    for choice in ranker.history:
        assert len(choice.losses) >= 2
        assert choice.chosen == min(choice.losses, key=lambda option: choice.losses[option])
        assert all(0.0 < loss < 1.0 for loss in choice.losses.values())
        assert any(letter.isdigit() for letter in choice.judged_on)
    table = history_table(ranker.history)
    assert list(table) == ["what", "option", "log_loss", "chosen", "judged_on"]
    assert table.groupby("what")["chosen"].sum().eq(1).all()
    assert table["log_loss"].notna().all()


def test_history_says_what_the_configuration_decided(fitted: spr.SecondPassRanker) -> None:
    choice = fitted.history[0]
    assert choice.chosen == "without viewer columns"
    assert not any(feature.startswith("viewer.") for feature in fitted.trees.fitted.features)


def test_fit_reports_progress_of_each_stage(log: WorldTables, config: spr.Config) -> None:
    calls: list[tuple[str, int, int]] = []
    spr.fit(
        log.impressions,
        log.viewers,
        config=config,
        progress=lambda stage, done, total: calls.append((stage, done, total)),
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages[0] == "calibrators"
    assert any(stage.startswith("trees") for stage in stages)
    for stage in stages:
        done = [(d, total) for name, d, total in calls if name == stage]
        assert done[-1][0] == done[-1][1]
        assert [d for d, _ in done] == sorted(d for d, _ in done)


# ------------------------------------------------------------------ small logs


def _few_viewers(log: WorldTables) -> dict[str, Any]:
    some = log.impressions["viewer_id"].value_counts().index[:30]
    return {"impressions": log.impressions[log.impressions["viewer_id"].isin(some)]}


def _one_type(log: WorldTables) -> dict[str, Any]:
    return {"impressions": log.impressions[log.impressions["entity_type"] == "people"]}


def _no_viewer_features(log: WorldTables) -> dict[str, Any]:
    return {"viewers": log.viewers[["viewer_id"]]}


def _no_viewers(log: WorldTables) -> dict[str, Any]:
    return {"viewers": log.viewers.iloc[:0]}


def _no_entities(_: WorldTables) -> dict[str, Any]:
    return {"entities": None}


def _one_policy(log: WorldTables) -> dict[str, Any]:
    return {"impressions": log.impressions[log.impressions["policy"] == "random"]}


def _one_request_a_viewer(log: WorldTables) -> dict[str, Any]:
    rows = log.impressions
    random = rows[rows["policy"] == "random"]
    first = random.drop_duplicates("viewer_id")["request_id"]
    return {"impressions": rows[rows["request_id"].isin(first)]}


def _everything_at_once(log: WorldTables) -> dict[str, Any]:
    return {"impressions": log.impressions.assign(at=pd.Timestamp("2026-01-05", tz="UTC"))}


@pytest.mark.parametrize(
    ("shrink", "viewer_in_trees"),
    [
        (_few_viewers, "auto"),  # no whole viewers are held out
        (_few_viewers, "yes"),
        (_one_request_a_viewer, "auto"),  # no viewer has later pages
        (_everything_at_once, "auto"),
        (_one_type, "no"),
        (_no_viewer_features, "auto"),
        (_no_viewers, "no"),
        (_no_entities, "no"),
        (_one_policy, "no"),
    ],
)
def test_fit_small_log_still_gives_a_ranker(
    log: WorldTables,
    config: spr.Config,
    shrink: Callable[[WorldTables], dict[str, Any]],
    viewer_in_trees: str,
) -> None:
    features = config.features.model_copy(update={"viewer_in_trees": viewer_in_trees})
    made = dataclasses.replace(log, **shrink(log))
    ranker = _fit(made, config.model_copy(update={"features": features}))
    request_ids = made.impressions["request_id"].unique()[:5]
    rows = made.impressions[made.impressions["request_id"].isin(request_ids)]
    pages = ranker.rank_table(rows, made.viewers, made.entities)
    assert set(pages["request_id"]) == set(request_ids)
    assert np.isfinite(pages["value"]).all()
    assert len(history_table(ranker.history)) >= 1


def test_fit_ranker_version_with_few_rows_has_no_calibrator_and_harms_nothing(
    log: WorldTables, config: spr.Config
) -> None:
    rows = log.impressions
    few = rows[(rows["entity_type"] == "people") & (rows["policy"] == "random")].index[:20]
    other = rows[(rows["entity_type"] == "event") & (rows["policy"] != "random")].index
    versions = rows["ranker_version"].mask(rows.index.isin(few), "people-2").mask(rows.index.isin(other), "event-2")
    ranker = _fit(log, config, impressions=rows.assign(ranker_version=versions))
    assert set(ranker.calibrators.known("people")) == {"people-1"}
    assert set(ranker.calibrators.known("event")) == {"event-1"}


# ------------------------------------------------------------------ logs nobody can learn from


def test_fit_without_a_random_row_is_refused(log: WorldTables, config: spr.Config) -> None:
    rows = log.impressions
    with pytest.raises(TableError, match=r"no mature row of policy 'random'.*production"):
        _fit(log, config, impressions=rows[rows["policy"] != "random"])


def test_fit_without_a_mature_random_row_is_refused(log: WorldTables, config: spr.Config) -> None:
    early = config.labels.model_copy(update={"snapshot": pd.Timestamp("2026-01-03", tz="UTC")})
    with pytest.raises(TableError, match="no mature row of policy 'random'"):
        _fit(log, config.model_copy(update={"labels": early}))


def test_fit_without_a_positive_is_refused(log: WorldTables, config: spr.Config) -> None:
    with pytest.raises(TableError, match="no downstream interaction"):
        _fit(log, config, impressions=log.impressions.assign(downstream=0.0))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"response": 0.0}, "response"),
        ({"response": 2.0}, "response"),
        ({"raw_score": np.nan}, "raw score"),
    ],
)
def test_fit_labels_that_no_calibrator_can_read_are_refused(
    log: WorldTables, config: spr.Config, changes: dict[str, float], named: str
) -> None:
    with pytest.raises(TableError, match=f"impressions.*{named}"):
        _fit(log, config, impressions=log.impressions.assign(**changes))


def test_fit_positions_counted_from_one_are_refused(log: WorldTables, config: spr.Config) -> None:
    with pytest.raises(TableError, match="position 0"):
        _fit(log, config, impressions=log.impressions.assign(position=log.impressions["position"] + 1))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"features": ("entity_typ",)}, r"'entity_typ'.*entity_type"),
        ({"key": "viewer"}, r"'viewer'.*viewer_id"),
        ({"key": "context_surface"}, r"'context_surface'"),
    ],
)
def test_fit_random_effect_over_something_unknown_is_refused_by_name(
    log: WorldTables, config: spr.Config, settings: dict[str, Any], named: str
) -> None:
    effect = config.random_effects[0].model_copy(update=settings)
    with pytest.raises(ConfigError, match=named):
        _fit(log, config.model_copy(update={"random_effects": (effect,)}))


def test_fit_entity_type_that_is_not_configured_is_refused(log: WorldTables, config: spr.Config) -> None:
    types = {name: kind for name, kind in config.entity_types.items() if name != "event"}
    with pytest.raises(SPRError, match="entity_type is not one of people"):
        _fit(log, config.model_copy(update={"entity_types": types}))


# ------------------------------------------------------------------ other random effects


def test_fit_without_random_effects_gives_a_fixed_ranker(log: WorldTables, config: spr.Config) -> None:
    ranker = _fit(log, config.model_copy(update={"random_effects": ()}))
    page = next(ranker.rank_pages(log.impressions.iloc[:80], log.viewers, log.entities))
    assert ranker.effects == ()
    assert all(set(p.margins) == {"fixed", "unseen"} for p in page.placements)
    assert all(p.margins["unseen"] == 0.0 for p in page.placements)


def test_fit_effect_of_the_cohort_kind_is_looked_up_by_kind(small_tables: WorldTables, config: spr.Config) -> None:
    kind = config.random_effects[0].model_copy(update={"name": "kind", "key": "cohort_kind", "features": ("scorable",)})
    ranker = _fit(small_tables, config.model_copy(update={"random_effects": (*config.random_effects, kind)}))
    member, effect = ranker.effects
    assert (member.key, effect.key) == ("viewer_id", "cohort_kind")
    rows = small_tables.impressions
    assert set(effect.keys) == set(rows["cohort_kind"])
    pages = ranker.rank_table(rows.iloc[:3000], small_tables.viewers, small_tables.entities)
    assert pages.groupby("cohort_kind")["margin_kind"].nunique().max() <= 6  # one a number of scorable slots
    assert pages["margin_kind"].abs().max() > 0.0


def test_cross_fit_type_without_calibrator_has_the_prior_only_where_rank_takes_it(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, small_config: spr.Config
) -> None:
    rows = read_impressions(small_tables.impressions, small_config)
    curves = {key: curve for key, curve in ranker.calibrators.curves.items() if key[0] != "event"}
    without = dataclasses.replace(ranker.calibrators, curves=curves)
    event = ((rows["entity_type"] == "event") & rows["raw_score"].notna()).to_numpy()
    assert np.isnan(cross_fit(rows, without, small_config)[event]).all()
    calibration = small_config.calibration.model_copy(update={"unknown_version": "prior"})
    lenient = small_config.model_copy(update={"calibration": calibration})
    assert (cross_fit(rows, without, lenient)[event] == without.prior("event")).all()


def test_fit_sampled_rows_weigh_in_position_examination(small_tables: WorldTables, small_config: spr.Config) -> None:
    rows = read_impressions(small_tables.impressions, small_config)
    kept = rows[(rows["response"] > 0) | (np.random.default_rng(0).random(len(rows)) < 0.2)]
    types = {
        name: kind.model_copy(update={"negative_sampling_rate": 0.2})
        for name, kind in small_config.entity_types.items()
    }
    sampled = small_config.model_copy(update={"entity_types": types})
    found, true, naive = (
        fit_calibrators(some, config).examination.position.at(np.arange(8)).mean()
        for some, config in ((kept, sampled), (rows, small_config), (kept, small_config))
    )
    assert abs(found - true) < abs(naive - true)


def test_fit_takes_clicks_counts_and_numbers_on_one_page(small_tables: WorldTables, small_config: spr.Config) -> None:
    rng = np.random.default_rng(0)
    impressions = small_tables.impressions.astype({"response": float})
    for entity_type, factor in (("newsletter", rng.integers(1, 6, len(impressions))), ("event", 30.0)):
        own = impressions["entity_type"] == entity_type
        impressions["response"] = impressions["response"].where(~own, impressions["response"] * factor)
    kinds = {"newsletter": ("count", "slot_weighted_mean"), "event": ("continuous", "mean")}
    types = {
        name: kind.model_copy(update=dict(zip(("response", "aggregation"), kinds[name], strict=True)))
        if name in kinds
        else kind
        for name, kind in small_config.entity_types.items()
    }
    config = small_config.model_copy(update={"entity_types": types})
    ranker = spr.fit(impressions, small_tables.viewers, small_tables.entities, config=config)
    curves = ranker.calibrators.to_frame().groupby("entity_type")["maximum_response"].max()
    assert curves["newsletter"] > 1.0
    assert curves["event"] > 1.0
    assert (curves.drop(["newsletter", "event"]) < 1.0).all()
    pages = ranker.rank_table(small_tables.impressions.head(2000), small_tables.viewers, small_tables.entities)
    assert pages["probability"].between(0.0, 1.0).all()
    shown = pages.explode(["expected_response", "raw_score"])
    assert shown.loc[shown["raw_score"].notna(), "expected_response"].notna().all()
