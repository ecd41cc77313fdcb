"""``spr factors``, ``spr report`` and ``spr adopt``: from an experiment's table into a bundle."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

import spr
from simulations import EdgeDropExperiment, World
from spr.bundle import file_hashes
from spr.cli import app
from spr.reorder import ImportanceFactors
from spr.report import Section, write_report

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(12_000, seed=1)
    design = EdgeDropExperiment(("connection", "follow", "subscribe"), salt="cli")
    table = world.edge_drop(design.assign(world.viewers, stratum="sessions_per_week"), rng=1)
    path = tmp_path_factory.mktemp("experiment") / "edge_drop.parquet"
    table.assign(segment=["often" if s > 2 else "seldom" for s in world.activity]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def files(small_tables: WorldTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    small_tables.impressions.head(3000).to_parquet(folder / "requests.parquet")
    small_tables.viewers.to_parquet(folder / "viewers.parquet")
    small_tables.entities.to_parquet(folder / "entities.parquet")
    return folder


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _tables(files: Path) -> list[object]:
    return [item for name in ("requests", "viewers", "entities") for item in (f"--{name}", files / f"{name}.parquet")]


def _check_one_line(result: Result, *named: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert [word for word in named if word not in result.output] == []


def test_factors_are_estimated_saved_and_drawn(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "factors.json"
    result = _run(
        "factors", experiment, "--metric", "likes", "--metric", "comments=3", "--reference", "connection",
        "--experiment", "q4", "--date", "2026-11-25", "--covariate", "pre_sessions", "--segments", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    factors = ImportanceFactors.read(out)
    assert factors.source["metric"] == "1 likes + 3 comments"
    assert factors.source["experiment"] == "q4"
    assert factors.factor["connection"] == 1.0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for segment in ("often", "seldom"):
        assert ImportanceFactors.read(out.with_name(f"factors-{segment}.json")).source["segment"] == segment
    assert factors.version in result.output
    per_edge = _run("factors", experiment, "--metric", "likes", "--per", "edge", "--out", tmp_path / "edge.json")
    assert per_edge.exit_code == 0, per_edge.output
    assert ImportanceFactors.read(tmp_path / "edge.json").source["per"] == "edge"


def test_wrong_questions_are_answered_in_words(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    _check_one_line(_run("factors", experiment, "--metric", "joy", "--out", out), "column 'joy' is missing")
    _check_one_line(_run("factors", experiment, "--metric", "likes=many", "--out", out), "NAME=WEIGHT")
    _check_one_line(_run("factors", experiment, "--metric", "likes", "--out", tmp_path / "f.txt"), ".json")
    _check_one_line(_run("factors", tmp_path / "no.csv", "--metric", "likes", "--out", out), "no file at")
    assert not out.exists()


def test_report_shows_what_new_factors_would_do(bundle: Path, files: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.json"
    ImportanceFactors.of({"connection": 4.0, "follow": 1.0}).save(new)
    page = tmp_path / "report" / "index.html"
    result = _run("report", bundle, *_tables(files), "--factors", new, "--out", page)
    assert result.exit_code == 0, result.output
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 3
    assert "<script" not in html
    assert "Page mix" in html
    assert "would give up" in result.output
    alone = _run("report", bundle, *_tables(files), "--out", page)
    assert alone.exit_code == 0, alone.output
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 2


def test_adopt_changes_the_factors_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    own, new = shutil.copytree(bundle, tmp_path / "bundle"), tmp_path / "new.json"
    ImportanceFactors.of({"connection": 4.0}, reference="follow").save(new)
    result = _run("adopt", own, new, "--out", tmp_path / "adopted")
    assert result.exit_code == 0, result.output
    before, after = file_hashes(own), file_hashes(tmp_path / "adopted")
    assert {file for file in before if before[file] != after[file]} == {"factors.json"}
    adopted = spr.load(tmp_path / "adopted")
    assert adopted.factors == ImportanceFactors.read(new)
    assert _run("adopt", own, new).exit_code == 0
    assert spr.load(own).factors == ImportanceFactors.read(new)
    ImportanceFactors.of({"conection": 4.0}).save(new)
    _check_one_line(_run("adopt", own, new), "Did you mean 'connection'")
    new.write_text(json.dumps({"factor": {"connection": 1.0}, "version": "0"}))
    _check_one_line(_run("adopt", own, new), "remove the version")


def test_a_configuration_takes_the_factors_of_a_file(tmp_path: Path) -> None:
    factors = ImportanceFactors(
        {"connection": 2.0, "follow": 1.0}, "follow", {"connection": (1.5, None)}, source={"experiment": "q4"}
    )
    factors.save(tmp_path / "factors.json")
    text = '[entity_types]\npeople = { edge_type = "connection" }\nhashtag = { edge_type = "follow" }\n[importance]\n'
    (tmp_path / "c.toml").write_text(text + 'file = "factors.json"\n')
    config = spr.Config.read(tmp_path / "c.toml")
    assert config.importance_factors == factors
    assert spr.Config.from_dict(config.to_dict()) == config
    assert config.hash != spr.Config.parse(text + "connection = 2.0\nfollow = 1.0").hash
    for also, message in (
        ('file = "factors.json"\nfollow = 1.0', "names a file and follow"),
        ('file = "none.json"', "cannot be read"),
    ):
        (tmp_path / "c.toml").write_text(text + also)
        with pytest.raises(spr.SPRError, match=message):
            spr.Config.read(tmp_path / "c.toml")
    ImportanceFactors.of({"subscribe": 2.0}).save(tmp_path / "factors.json")
    (tmp_path / "c.toml").write_text(text + 'file = "factors.json"\n')
    with pytest.raises(spr.SPRError, match="unknown edge type 'subscribe'"):
        spr.Config.read(tmp_path / "c.toml")


def test_the_hash_of_a_configuration_without_a_file_is_as_before() -> None:
    assert "factors" not in spr.Config.named("network").to_dict()


def test_report_text_is_text(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "<b>", [Section("<i>", ["<script>alert(1)</script>"])])
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
