"""The scripts people run, on small settings: each says what its world was made to show."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from simulations.guarantee_sweep import GuaranteeSweepSettings, supply
from simulations.script import Results, Settings, read_settings
from spr.errors import ConfigError
from spr.progress import ignore

SHIPPED = Path(__file__).parents[2] / "configs" / "simulations"
SCRIPTS = sorted(path.stem for path in SHIPPED.glob("*.toml"))


def settings_type(script: str) -> type[Settings]:
    (kind,) = [
        kind
        for kind in vars(import_module(f"simulations.{script}")).values()
        if isinstance(kind, type) and issubclass(kind, Settings) and kind is not Settings
    ]
    return kind


def run(script: str, **settings: object) -> Results:
    results = import_module(f"simulations.{script}").job(settings_type(script)(**settings), ignore)
    assert isinstance(results, Results)
    for figure in results.figures.values():
        figure.canvas.draw()
    return results


def test_every_script_has_shipped_settings_which_are_its_defaults() -> None:
    assert [
        *("calibration_drift", "cannibalization", "edge_drop", "guarantee_sweep", "importance_sweep"),
        *("new_entity_type", "policy_comparison"),
    ] == SCRIPTS
    for script in SCRIPTS:
        kind = settings_type(script)
        shipped = read_settings(SHIPPED / f"{script}.toml", kind)
        assert shipped == kind(), script
        named = set(tomllib.loads((SHIPPED / f"{script}.toml").read_text()))
        optional = {"page_views", "bundle_a", "bundle_b"}
        assert set(kind.model_fields) - named <= optional, script


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("viewrs = 3", "viewrs: Extra inputs are not permitted; known settings: .*viewers"),
        ("viewers = 3", "viewers: Input should be greater than or equal to 1000"),
        ("viewers = ", "cannot be read"),
        ("seed = -1", "seed: Input should be greater"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path / "s.toml", settings_type("edge_drop"))


def test_edge_drop_finds_the_true_factors() -> None:
    results = run("edge_drop", viewers=30_000, page_views=3000)
    factors = results.tables["importance factors"]
    assert ((factors["all_low"] <= factors["truth"]) & (factors["truth"] <= factors["all_high"])).all()
    pages = results.tables["what pages make of the factors"]
    assert pages.loc["true", "gain lost %"] == 0
    assert pages.loc["estimated", "gain lost %"] < 1.0
    assert pages.loc["none", "gain lost %"] > pages.loc["estimated", "gain lost %"]
    forms = results.tables["value per edge by form of the curve"]
    assert (forms["quadratic error"] > 2 * forms["concave error"]).all()
    assert (np.abs(forms["concave"] - forms["truth"]) < 3.5 * forms["concave error"]).all()


def test_edge_drop_of_another_design_and_metric() -> None:
    results = run(
        "edge_drop", viewers=4000, page_views=300, doses=(0.5,), metric={"likes": 1, "comments": 5}, per="edge"
    )
    assert any("straight line" in remark for remark in results.remarks)
    assert "factors" in results.figures


def test_importance_sweep_trades_one_type_for_the_others() -> None:
    table = run("importance_sweep", viewers=400, requests=3000, multiples=(0.1, 1.0, 10.0)).tables["importance sweep"]
    assert table["top_connection"].is_monotonic_increasing
    assert table["top_follow"].is_monotonic_decreasing
    np.testing.assert_allclose(table[["top_connection", "top_follow", "top_subscribe"]].sum(axis=1), 1.0)
    assert table["gain"].idxmax() == 1.0
    assert (table["of optimal"] <= 1.0).all()


def test_cannibalization_is_told_from_competition_for_places() -> None:
    strengths = {"company": {"hashtag": 1.0}, "event": {"group": -0.8}}
    results = run("cannibalization", viewers=400, requests=4000, strengths=strengths)
    plain, full = results.tables.values()
    assert (np.diag(plain) > 0).all()  # what is promoted gains
    assert plain.to_numpy()[~np.eye(7, dtype=bool)].max() < 3  # and nothing else does
    assert full.loc["hashtag", "company"] < plain.loc["hashtag", "company"] - 5
    assert full.loc["group", "event"] > plain.loc["group", "event"] + 5
    assert full.loc["people", "people"] == pytest.approx(plain.loc["people", "people"])
    assert len(results.remarks) == 2


def test_guarantees_deliver_more_and_cost_more_as_they_grow() -> None:
    results = run("guarantee_sweep", viewers=100, requests=2500, shares=(0.0, 0.3, 0.5), slacks=(1.0, 4.0))
    table = results.tables["guarantee sweep"]
    for form in ("per viewer, slack 1", "per viewer, slack 4", "per population"):
        of_form = table.loc[form]
        assert of_form["delivered"].is_monotonic_increasing
        assert of_form["gain lost %"].iloc[0] == 0
        assert of_form.loc[0.5, "gain lost %"] > of_form.loc[0.3, "gain lost %"]
    lost, delivered = table["gain lost %"].xs(0.5, level="share"), table["delivered"].xs(0.5, level="share")
    assert lost["per population"] < lost["per viewer, slack 4"] < lost["per viewer, slack 1"]
    assert delivered["per population"] == pytest.approx(0.5, abs=0.002)
    missed = table["viewers miss %"].xs(0.5, level="share")
    assert missed["per viewer, slack 1"] < missed["per viewer, slack 4"] < 1 < missed["per population"]
    # Every viewer counted here was shown 40 impressions or more, of which the promise may lag by the slack.
    assert table.loc[("per viewer, slack 1", 0.5), "worst viewer misses %"] <= 100 / 40
    assert table["price"].xs(0.5, level="share").nunique() == 1


def test_a_floor_above_the_supply_gets_what_there_is() -> None:
    asked = {"viewers": 100, "requests": 600, "edge_type": "connection", "shares": (0.9,), "slacks": (1.0,)}
    results = run("guarantee_sweep", **asked)
    there_is = supply(GuaranteeSweepSettings(**asked))
    table = results.tables["guarantee sweep"]
    assert table.index.tolist() == [("per viewer, slack 1", 0.9), ("per population", 0.9)]
    assert (table["price"] > 0).all()
    assert table["delivered"].to_numpy() == pytest.approx(there_is, rel=2e-3)
    assert any(f"can have {100 * there_is:.1f} %" in remark for remark in results.remarks)


def test_a_newcomer_is_trained_on_the_random_pages_and_finds_its_place() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'group'"):
        run("new_entity_type", newcomer="grop")
    small = {"viewers": 200, "training_requests": 3000, "requests_a_day": 400, "days": 10}
    results = run("new_entity_type", **small, random_share=0.4, responses_needed=100)
    arrival, service, scores = results.tables.values()
    without, with_it = arrival["responses"]
    assert with_it > 1.1 * without
    assert arrival["random responses"].nunique() == 1  # guarantees are off there, and the moods are the same
    assert arrival["days until trainable"].nunique() == 1
    auc = scores["auc"]
    assert auc["newcomer-0"] + 0.02 < auc["newcomer-1"] <= auc["the truth"]
    assert scores.loc["newcomer-1", "error"] < 0.85 * scores.loc["newcomer-0", "error"]
    # The prior takes newsletters for worse than they are; what is known of them takes them up.
    expected, share = scores["expected response"], service.iloc[:, 0]
    assert expected["newcomer-0"] < 0.8 * expected["the truth"]
    assert expected["newcomer-1"] == pytest.approx(expected["the truth"], rel=0.3)
    assert share["without a guarantee, trained"] > 1.3 * share["without a guarantee, uninformed"]
    assert share["one in the top 1, trained"] > 50


def test_a_newcomer_without_enough_responses_is_not_trained() -> None:
    results = run("new_entity_type", viewers=100, training_requests=1000, requests_a_day=50, days=2)
    assert list(results.tables) == ["newsletter arrives"]
    assert set(results.tables["newsletter arrives"]["days until trainable"]) == {"more than 2"}
    assert "not trained" in results.remarks[-1]


def test_policy_comparison_holds_the_test_against_the_truth() -> None:
    results = run("policy_comparison", viewers=150, training_requests=1500, requests=1500, days=7)
    table = results.tables["A/B test"]
    assert (table["low"] < table["difference"]).all()
    assert (table["difference"] < table["high"]).all()
    held = (table["low"] <= table["true difference"]) & (table["true difference"] <= table["high"])
    assert held.mean() > 0.6
    assert table.loc["formed_connection", "true difference"] > 0  # B values connections
    with pytest.raises(ConfigError, match="one bundle is named"):
        run("policy_comparison", bundle_a=Path("nowhere"))


def test_drift_is_found_where_it_was_made_and_a_refit_mends_it() -> None:
    results = run("calibration_drift", viewers=1000, requests_a_week=6000, weeks=3, responses_fall={"newsletter": 0.4})
    status, errors = results.tables.values()
    assert "responses_drifted" in set(status.loc["newsletter"])
    assert "responses_drifted" not in set(status.loc["people"])
    never, asked = errors.filter(like="never").iloc[-1, 0], errors.filter(like="when asked").iloc[-1, 0]
    assert asked < never


def test_a_script_runs_from_an_empty_folder_and_shows_wrong_settings_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text("viewers = 300\nrequests = 600\nmultiples = [0.5, 1.0, 2.0]\n")
    command = [sys.executable, "-m", "simulations.importance_sweep", "small.toml", "--out", "made"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "importance sweep" in done.stdout
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "importance-sweep.csv",
        "importance_sweep.png",
    ]
    (tmp_path / "small.toml").write_text("viewers = 3\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("ConfigError: small.toml: viewers:")


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        ("importance_sweep", {"multiples": ()}, "at least 1 item"),
        ("guarantee_sweep", {"shares": (-0.2,)}, "greater than or equal to 0"),
        ("guarantee_sweep", {"slacks": ()}, "at least 1 item"),
        ("calibration_drift", {"responses_fall": {"evnt": 0.3}}, "Did you mean 'event'"),
        ("calibration_drift", {"responses_fall": {"event": 3.0}}, "less than or equal to 1"),
        ("calibration_drift", {"from_week": 9}, "from_week is 9, but there are 5 weeks"),
    ],
)
def test_settings_that_make_no_sense_are_refused(script: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_type(script)(**settings)


@pytest.mark.parametrize("script", ["importance_sweep", "guarantee_sweep"])
def test_an_unknown_edge_type_is_named_before_the_first_run(script: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'follow'"):
        run(script, viewers=100, requests=100, edge_type="folow")
