"""The command line: the whole job on small files, and errors that people can read."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import spr
from spr.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from simulations.world import WorldTables

CONFIG = """
seed = 3
[entity_types]
people        = { edge_type = "connection" }
hashtag       = { edge_type = "follow" }
company       = { edge_type = "follow" }
member_follow = { edge_type = "follow" }
group         = { edge_type = "subscribe" }
newsletter    = { edge_type = "subscribe" }
event         = { edge_type = "subscribe" }
[trees]
n_rounds = 16
max_depth = 3
[features]
viewer_in_trees = "no"
"""


@pytest.fixture(scope="module")
def files(small_tables: WorldTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 500 page views, and a configuration."""
    folder = tmp_path_factory.mktemp("files")
    rows = small_tables.impressions
    request_ids = rows["request_id"].unique()
    train, test = (rows[rows["request_id"].isin(some)] for some in (request_ids[:400], request_ids[400:500]))
    train.to_parquet(folder / "train.parquet", index=False)
    test.to_parquet(folder / "test.parquet", index=False)
    test.to_csv(folder / "test.csv", index=False)
    small_tables.viewers.to_parquet(folder / "viewers.parquet", index=False)
    small_tables.entities.to_parquet(folder / "entities.parquet", index=False)
    (folder / "small.toml").write_text(CONFIG)
    return folder


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _tables(files: Path) -> list[object]:
    return ["--viewers", files / "viewers.parquet", "--entities", files / "entities.parquet"]


@pytest.fixture(scope="module")
def fitted(files: Path) -> tuple[Path, Result]:
    out = files / "made" / "bundle"
    config, train = files / "small.toml", files / "train.parquet"
    return out, _run("fit", config, "--impressions", train, *_tables(files), "--out", out)


@pytest.fixture
def saved(fitted: tuple[Path, Result], tmp_path: Path) -> Path:
    return shutil.copytree(fitted[0], tmp_path / "bundle")


def _check_one_line(result: Result, error: str, *named: str) -> None:
    """An error is one line that says what is wrong, and exit code 1; a traceback would be an exception."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.output.splitlines() if line.strip()]
    assert line.startswith(f"{error}: ")
    assert [name for name in named if name not in line] == []


COMMANDS = ("fit", "rank", "evaluate", "replay", "recalibrate", "factors", "report", "adopt", "quickstart")


def test_help_lists_all_commands() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    assert [command for command in COMMANDS if f" {command} " not in result.output] == []
    for command in COMMANDS:
        assert _run(command, "--help").exit_code == 0


def test_fit_saves_a_bundle_and_shows_what_was_chosen(fitted: tuple[Path, Result]) -> None:
    out, result = fitted
    assert result.exit_code == 0, result.output
    ranker = spr.load(out)
    assert ranker.versions["bundle"] in result.output
    assert "what training chose" in result.output
    assert ranker.config.seed == 3


@pytest.mark.parametrize("requests", ["test.parquet", "test.csv"])
@pytest.mark.parametrize("out", ["pages.parquet", "pages.csv"])
def test_rank_writes_the_pages_table(saved: Path, files: Path, tmp_path: Path, requests: str, out: str) -> None:
    path = tmp_path / "new" / out
    result = _run("rank", saved, "--requests", files / requests, *_tables(files), "--out", path)
    assert result.exit_code == 0, result.output
    pages = pd.read_csv(path) if out.endswith("csv") else pd.read_parquet(path)
    tables = [files / name for name in ("test.parquet", "viewers.parquet", "entities.parquet")]
    expected = spr.load(saved).rank_table(*tables)
    assert pages["cohort_id"].tolist() == expected["cohort_id"].tolist()
    assert pages["value"].to_numpy() == pytest.approx(expected["value"].to_numpy(), rel=1e-9)
    assert f"{expected['request_id'].nunique():,} pages" in result.output


def test_evaluate_shows_the_ranker_beside_its_fixed_effect(saved: Path, files: Path) -> None:
    result = _run("evaluate", saved, "--impressions", files / "test.parquet", *_tables(files), "--replicates", 20)
    assert result.exit_code == 0, result.output
    assert "SPR, fixed effect" in " ".join(result.output.split())
    assert "XGBoost" not in result.output


def test_evaluate_with_train_adds_baselines(saved: Path, files: Path) -> None:
    result = _run(
        "evaluate",
        saved,
        "--impressions",
        files / "test.parquet",
        *_tables(files),
        "--train",
        files / "train.parquet",
        "--replicates",
        20,
    )
    assert result.exit_code == 0, result.output
    assert "XGBoost" in result.output
    assert "prior" in result.output


# ------------------------------------------------------------------ errors


def test_fit_unknown_configuration_is_one_line(files: Path, tmp_path: Path) -> None:
    tables = ["--impressions", files / "train.parquet", *_tables(files), "--out", tmp_path / "bundle"]
    _check_one_line(_run("fit", "netwrk", *tables), "ConfigError", "'netwrk'", "'network'")
    _check_one_line(_run("fit", "missing.toml", *tables), "ConfigError", "missing.toml")
    (tmp_path / "typo.toml").write_text(CONFIG.replace("n_rounds", "rounds"))
    _check_one_line(_run("fit", tmp_path / "typo.toml", *tables), "ConfigError", "'rounds'", "n_rounds")
    (tmp_path / "broken.toml").write_text("[trees")
    _check_one_line(_run("fit", tmp_path / "broken.toml", *tables), "ConfigError", "not TOML")
    effect = '[[random_effects]]\nname = "member"\nfeatures = ["entity_typ"]\n'
    (tmp_path / "effect.toml").write_text(CONFIG + effect)
    _check_one_line(_run("fit", tmp_path / "effect.toml", *tables), "ConfigError", "'entity_typ'", "entity_type")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("missing.parquet", None, ["impressions", "missing.parquet"]),
        ("notes.txt", b"hello", ["impressions", "notes.txt"]),
        ("broken.parquet", b"hello", ["impressions", "broken.parquet"]),
        ("empty.csv", b"", ["impressions", "empty.csv"]),
        ("other.csv", b"a,b\n1,2\n", ["impressions", "'request_id'"]),
        ("binary.csv", b"\xff\xfe\x00\x01" * 10, ["impressions", "binary.csv"]),
    ],
)
def test_fit_bad_table_is_one_line(
    files: Path, tmp_path: Path, name: str, content: bytes | None, named: list[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = _run(
        "fit", files / "small.toml", "--impressions", tmp_path / name, *_tables(files), "--out", tmp_path / "bundle"
    )
    _check_one_line(result, "TableError", *named)


def test_fit_table_that_breaks_a_rule_is_one_line(files: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(files / "train.parquet")
    rows.assign(slot=-1 - rows["slot"]).to_parquet(tmp_path / "bad.parquet")
    result = _run(
        "fit", files / "small.toml", "--impressions", tmp_path / "bad.parquet", *_tables(files), "--out", tmp_path / "b"
    )
    _check_one_line(result, "TableError", "slot is negative", f"{len(rows):,} rows")


def test_rank_missing_bundle_is_one_line(files: Path, tmp_path: Path) -> None:
    result = _run("rank", tmp_path / "nowhere", "--requests", files / "test.parquet", *_tables(files), "--out", "p.csv")
    _check_one_line(result, "BundleError", "nowhere", "manifest.json")


def test_rank_altered_bundle_is_one_line(saved: Path, files: Path, tmp_path: Path) -> None:
    factors = json.loads((saved / "factors.json").read_text())
    (saved / "factors.json").write_text(json.dumps(factors, indent=3))
    out = tmp_path / "pages.csv"
    result = _run("rank", saved, "--requests", files / "test.parquet", *_tables(files), "--out", out)
    _check_one_line(result, "BundleError", "factors.json")
    assert not out.exists()


def test_rank_unknown_version_is_one_line(saved: Path, files: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(files / "test.parquet").assign(ranker_version="people-9")
    rows.to_parquet(tmp_path / "new.parquet")
    result = _run("rank", saved, "--requests", tmp_path / "new.parquet", *_tables(files), "--out", tmp_path / "p.csv")
    _check_one_line(result, "UnknownRankerVersion", "'people-9'")


def test_evaluate_without_random_pages_is_one_line(saved: Path, files: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(files / "test.parquet")
    rows[rows["policy"] != "random"].to_parquet(tmp_path / "served.parquet")
    _check_one_line(
        _run("evaluate", saved, "--impressions", tmp_path / "served.parquet", *_tables(files)), "TableError", "random"
    )


def test_recalibrate_without_rows_of_the_version_is_one_line(saved: Path, files: Path) -> None:
    before = spr.load(saved).versions
    result = _run(
        "recalibrate",
        saved,
        "--impressions",
        files / "train.parquet",
        "--entity-type",
        "people",
        "--ranker-version",
        "people-9",
    )
    _check_one_line(result, "TableError", "'people-9'")
    assert spr.load(saved).versions == before


def test_fit_over_a_foreign_folder_is_one_line(files: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    tables = ["--impressions", files / "train.parquet", *_tables(files)]
    result = _run("fit", files / "small.toml", *tables, "--out", tmp_path)
    _check_one_line(result, "BundleError", str(tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "irreplaceable"
