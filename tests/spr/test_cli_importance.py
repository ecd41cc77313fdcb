"""From an experiment's table to a bundle with its factors, on the command line."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import spr
from spr.cli import app
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables

LOSS = {"connection": 12.0, "follow": 6.0, "subscribe": 0.0}
PNG = b"\x89PNG\r\n"


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _check_one_line(result: Result, error: str, *named: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.output.splitlines() if line.strip()]
    assert line.startswith(f"{error}: ")
    assert [name for name in named if name not in line] == []


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edge_drop table of 4,000 viewers whose losses are known."""
    rng, n = np.random.default_rng(5), 4000
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "age": rng.normal(40, 9, n)})
    likes = rng.normal(30, 3, n) + 0.5 * table["age"]
    table["pre_likes"] = likes + rng.normal(0, 2, n)
    table["pre_comments"] = table["pre_likes"] / 2
    for edge_type, loss in LOSS.items():
        dose = rng.choice([0, 0, 0, 0.1, 0.25, 0.5], n)
        edges = rng.integers(8, 13, n)
        table[f"dropped_{edge_type}"], table[f"edges_{edge_type}"] = dose, edges
        table[f"downstream_edges_{edge_type}"] = rng.binomial(edges, 0.25 if edge_type == "follow" else 0.5)
        likes -= loss * (1 - np.sqrt(1 - dose)) / 0.5
    table["likes"], table["comments"] = likes, likes / 2
    table["segment"] = np.where(rng.random(n) < 0.5, "new/comer", "old")
    path = tmp_path_factory.mktemp("experiment") / "drop.parquet"
    table.to_parquet(path, index=False)
    return path


@pytest.fixture(scope="module")
def tables(small_tables: WorldTables, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("tables")
    rows = small_tables.impressions
    rows[rows["request_id"].isin(rows["request_id"].unique()[:120])].to_parquet(folder / "requests.parquet")
    small_tables.viewers.to_parquet(folder / "viewers.parquet")
    small_tables.entities.to_parquet(folder / "entities.parquet")
    return [o for name in ("requests", "viewers", "entities") for o in (f"--{name}", folder / f"{name}.parquet")]


@pytest.fixture
def saved(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "bundle")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    ImportanceFactors(
        {"connection": 0.3, "subscribe": 2.5},
        interval={"subscribe": (1.5, None)},
        decision={"subscribe": "use"},
        source={"experiment": "<spring>"},
    ).save(tmp_path / "new.json")
    return tmp_path / "new.json"


# ------------------------------------------------------------------ factors


def test_factors_are_estimated_saved_and_shown(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "factors.json"
    result = _run(
        "factors",
        experiment,
        "--metric",
        "likes",
        "--reference",
        "follow",
        "--covariate",
        "age",
        "--experiment",
        "spring",
        "--date",
        "2026-03-01",
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    made = ImportanceFactors.read(out)
    # Per downstream edge: 12 / 5 over 6 / 2.5.
    assert made.estimate["connection"] == pytest.approx(1.0, rel=0.1)
    assert made.factor["subscribe"] == 1.0
    assert made.decision["subscribe"].startswith("kept at 1")
    assert {"experiment": "spring", "date": "2026-03-01", "metric": "likes"}.items() <= made.source.items()
    assert out.with_suffix(".png").read_bytes().startswith(PNG)
    words = " ".join(result.output.split())
    for said in ("kept at 1: too noisy to act on", "losses add up, p-value", "curvature", "balance of edges_follow"):
        assert said in words
    assert made.version in result.output


def test_factors_per_edge_and_of_weighted_metrics(experiment: Path, tmp_path: Path) -> None:
    made = {}
    for name, metric in (("one", ["likes"]), ("sum", ["likes=1", "comments=4"])):
        options = [option for one in metric for option in ("--metric", one)]
        out = tmp_path / f"{name}.json"
        result = _run("factors", experiment, *options, "--per", "edge", "--reference", "follow", "--out", out)
        assert result.exit_code == 0, result.output
        made[name] = ImportanceFactors.read(out)
    # Twice the loss per edge, and no more per downstream edge.
    assert made["one"].estimate["connection"] == pytest.approx(2.0, rel=0.1)
    assert made["sum"].factor == pytest.approx(made["one"].factor)
    assert made["sum"].value_per_edge["follow"] == pytest.approx(3 * made["one"].value_per_edge["follow"])
    assert made["sum"].source["metric"] == "1 likes + 4 comments"


def test_factors_of_segments_are_files_of_their_own(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "factors.json"
    result = _run("factors", experiment, "--metric", "likes", "--segments", "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        f"factors{of}.{ending}" for of in ("", "-old", "-new%2Fcomer") for ending in ("json", "png")
    }
    made = ImportanceFactors.read(tmp_path / "factors-new%2Fcomer.json")
    assert made.source["segment"] == "new/comer"
    assert "segment new/comer" in result.output


def test_factors_says_what_was_left_out(experiment: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(experiment).assign(dropped_subscribe=0.0)
    table.loc[:9, "likes"] = None
    table.to_parquet(tmp_path / "drop.parquet")
    result = _run("factors", tmp_path / "drop.parquet", "--metric", "likes", "--out", tmp_path / "f.json")
    assert result.exit_code == 0, result.output
    assert "note: 10 of 4,000 viewers have no likes and are left out" in result.output
    assert "note: subscribe is left out: none of 3,990 viewers lost an edge of it" in result.output


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        (["--metric", "liks"], "TableError", ["'liks'", "likes"]),
        (["--metric", "likes=much"], "ConfigError", ["'much'", "comments=3"]),
        (["--metric", "likes", "--metric", "likes=2"], "ConfigError", ["likes=2", "named twice"]),
        (["--metric", "=2"], "ConfigError", ["names no column"]),
        (["--metric", "likes", "--reference", "folow"], "InvalidExperiment", ["'folow'", "'follow'"]),
        (["--metric", "likes", "--covariate", "wealth"], "TableError", ["'wealth'"]),
    ],
)
def test_factors_bad_option_is_one_line(
    experiment: Path, tmp_path: Path, options: list[str], error: str, named: list[str]
) -> None:
    _check_one_line(_run("factors", experiment, *options, "--out", tmp_path / "f.json"), error, *named)
    assert list(tmp_path.iterdir()) == []


def test_factors_bad_table_or_destination_is_one_line(experiment: Path, tmp_path: Path) -> None:
    known = ["--metric", "likes", "--out"]
    missing = _run("factors", tmp_path / "none.parquet", *known, tmp_path / "f.json")
    _check_one_line(missing, "TableError", "none.parquet")
    _check_one_line(_run("factors", experiment, *known, tmp_path / "f.png"), "ConfigError", "f.png", ".json")
    pd.read_parquet(experiment).drop(columns="segment").to_parquet(tmp_path / "whole.parquet")
    result = _run("factors", tmp_path / "whole.parquet", "--segments", *known, tmp_path / "f.json")
    _check_one_line(result, "TableError", "'segment'")
    assert _run("factors", experiment, "--date", "yesterday", *known, tmp_path / "f.json").exit_code == 2


# ------------------------------------------------------------------ report


def test_report_shows_new_factors_and_the_mix_before_and_after(
    saved: Path, new: Path, tables: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "reports" / "week-7"
    result = _run("report", saved, "--factors", new, *tables, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"report.html", "factors.png", "new_factors.png", "page_mix.png"}
    html = (out / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 3
    assert not re.search(r"<script|https?://|<link|<spring>", html)
    assert "experiment &lt;spring&gt;" in html
    for said in ("share_before", "position_after", "gives up", "newsletter", spr.load(saved).versions["bundle"]):
        assert said in html
    assert "share_difference" in result.output


def test_report_without_new_factors_shows_the_bundle_s_own(saved: Path, tables: list[object], tmp_path: Path) -> None:
    result = _run("report", saved, *tables, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/png;base64,') == 2
    assert not re.search(r"before|after|gives up", html)


def test_report_with_impressions_says_who_has_enough_data(
    saved: Path, tables: list[object], small_tables: WorldTables, tmp_path: Path
) -> None:
    log = small_tables.impressions
    newcomer = log["entity_type"] == "event"
    log = log.assign(ranker_version=log["ranker_version"].where(~newcomer, "event-2"))
    log.to_parquet(tmp_path / "log.parquet")
    result = _run("report", saved, *tables, "--impressions", tmp_path / "log.parquet", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report" / "readiness.png").read_bytes().startswith(PNG)
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    for said in ("When enough data has come", "brought 400 responses", "event: no calibrator for event-2."):
        assert said in html
        assert said in result.output or said.startswith("When")
    broken = tmp_path / "broken.parquet"
    log.drop(columns="position").to_parquet(broken)
    result = _run("report", saved, *tables, "--impressions", broken, "--out", tmp_path / "report")
    _check_one_line(result, "TableError", "position")


def test_report_of_a_bundle_without_factors(saved: Path, new: Path, tables: list[object], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    spr.load(saved).with_factors(ImportanceFactors.of({})).save(plain)
    result = _run("report", plain, "--factors", new, *tables, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "all are worth the same" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_report_bad_input_is_one_line(saved: Path, new: Path, tables: list[object], tmp_path: Path) -> None:
    result = _run("report", saved, "--factors", tmp_path / "none.json", *tables, "--out", tmp_path / "report")
    _check_one_line(result, "ConfigError", "none.json")
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    result = _run("report", saved, "--factors", new, *tables, "--out", tmp_path / "thesis.tex")
    _check_one_line(result, "ConfigError", "thesis.tex", "is a file")
    assert (tmp_path / "thesis.tex").read_text() == "irreplaceable"
    ImportanceFactors.of({"folow": 2.0}).save(tmp_path / "typo.json")
    result = _run("report", saved, "--factors", tmp_path / "typo.json", *tables, "--out", tmp_path / "report")
    _check_one_line(result, "ConfigError", "'folow'", "'follow'")


# ------------------------------------------------------------------ adopt


def test_adopt_replaces_the_factors_and_nothing_else(saved: Path, new: Path) -> None:
    before, hashes = spr.load(saved), json.loads((saved / "manifest.json").read_text())["sha256"]
    result = _run("adopt", saved, new)
    assert result.exit_code == 0, result.output
    after = spr.load(saved)
    assert after.factors == ImportanceFactors.read(new)
    assert after.config == before.config
    changed = json.loads((saved / "manifest.json").read_text())["sha256"].items() ^ hashes.items()
    assert {file for file, _ in changed} == {"factors.json"}
    assert "calibrators, coefficients, features, prices, trees: unchanged (sha256)" in result.output
    (row,) = [line for line in result.output.splitlines() if "subscribe" in line]
    assert ["1.2000" in row, "2.5000" in row, "use" in row] == [True] * 3


def test_adopt_to_another_place_leaves_the_bundle(saved: Path, new: Path, tmp_path: Path) -> None:
    before = spr.load(saved).versions
    result = _run("adopt", saved, new, "--out", tmp_path / "adopted")
    assert result.exit_code == 0, result.output
    assert spr.load(saved).versions == before
    assert spr.load(tmp_path / "adopted").versions["bundle"] in result.output


def test_adopt_bad_input_is_one_line(saved: Path, new: Path, tmp_path: Path) -> None:
    before = spr.load(saved).versions
    ImportanceFactors.of({"connection": 2.0, "folow": 2.0}).save(tmp_path / "typo.json")
    _check_one_line(_run("adopt", saved, tmp_path / "typo.json"), "ConfigError", "'folow'", "'follow'", "Take it out")
    content = json.loads(new.read_text())
    content["factor"]["subscribe"] = 9.0
    new.write_text(json.dumps(content))
    _check_one_line(_run("adopt", saved, new), "ConfigError", "version")
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    _check_one_line(_run("adopt", saved, new, "--out", tmp_path), "BundleError", str(tmp_path))
    assert spr.load(saved).versions == before


# ------------------------------------------------------------------ [importance] file


def test_fit_with_a_file_of_factors_keeps_their_parts(small_tables: WorldTables, new: Path, tmp_path: Path) -> None:
    network = spr.Config.named("network").to_dict()["entity_types"]
    lines = [f"{name} = {{ edge_type = '{kind['edge_type']}' }}" for name, kind in network.items()]
    text = "\n".join(["[entity_types]", *lines, "[trees]", "n_rounds = 4", "[importance]", f"file = '{new.name}'"])
    (tmp_path / "network.toml").write_text(text)
    config = spr.Config.read(tmp_path / "network.toml")
    expected = ImportanceFactors.read(new)
    rows = small_tables.impressions
    some = rows[rows["request_id"].isin(rows["request_id"].unique()[:400])]
    ranker = spr.fit(some, small_tables.viewers, config=config)
    assert ranker.factors == expected
    ranker.save(tmp_path / "bundle")
    new.unlink()
    loaded = spr.load(tmp_path / "bundle")
    assert loaded.factors == expected
    assert loaded.config == config
