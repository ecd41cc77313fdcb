"""`spr replay`: a report, a table, and errors that people can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from spr.cli import app
from spr.evaluation.ageing import PARTS, SELECTION_BIAS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.spr.evaluation.conftest import MakeLog


@pytest.fixture(scope="module")
def files(make_log: MakeLog, plain_viewers: pd.DataFrame, labels_toml: str, tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("replay")
    make_log(700).to_parquet(folder / "log.parquet")
    plain_viewers.to_parquet(folder / "viewers.parquet")
    (folder / "small.toml").write_text(labels_toml)
    return folder


def _run(files: Path, *arguments: object) -> Result:
    tables = ["--impressions", files / "log.parquet", "--viewers", files / "viewers.parquet"]
    given = ["replay", files / "small.toml", *tables, "--replicates", 20, *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in given])


def test_replay_writes_a_report_and_says_its_cost_first(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = _run(files, "--cut", "2026-03-09", "--every", "6d", "--window", "8d", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("2 cuts: 2 fits of everything and 2 of the random effects\n")
    assert sorted(path.name for path in out.iterdir()) == [
        "ageing.parquet",
        "ageing.png",
        "calibration.png",
        "report.html",
    ]
    table = pd.read_parquet(out / "ageing.parquet")
    assert set(table["part"]) == set(PARTS)
    assert table["age_days"].unique().tolist() == [6.0]
    assert SELECTION_BIAS in result.output
    page = (out / "report.html").read_text(encoding="utf-8")
    for sentence in [line for line in result.output.splitlines() if line.startswith(tuple(f"{p}: " for p in PARTS))]:
        assert sentence in page
    assert "mean rank of the cohorts that were acted on" in result.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--cut", "2026-03-15", "--cut", "2026-03-09"], "2026-03-09 00:00:00 comes after"),
        (["--cut", "2026-03-09"], "at least two"),
        (["--cut", "2026-03-09", "--every", "weekly"], "--every: 'weekly' is not a duration"),
        (["--cut", "2026-03-09", "--every", "6d", "--window", "long"], "--window: 'long' is not a duration"),
        (["--cut", "tomorrow", "--cut", "2026-03-09"], "'tomorrow' is no date"),
    ],
)
def test_bad_arguments_are_one_line_and_nothing_is_written(
    files: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    result = _run(files, *arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("ConfigError: ")]
    assert named in line
    assert not (tmp_path / "out").exists()
