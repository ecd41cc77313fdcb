"""The main job from an empty folder, as a newcomer runs it, and the figures it must reach on Last.fm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spr
from simulations.lastfm.reading import SHA256
from simulations.quickstart import QuickstartTables, make_lastfm
from spr.evaluation import SPR, Comparison, compare

SIMPLE = ("entity-type prior", "mean raw score", "mean calibrated response")
TREES = ("XGBoost", "XGBoost, no viewer columns")


@pytest.fixture(scope="session")
def data() -> Path:
    places = [os.environ.get("SPR_DATA"), Path(__file__).parents[3] / "shared" / "data"]
    for place in places:
        if place and all((Path(place) / "lastfm_hetrec" / name).is_file() for name in SHA256):
            return Path(place)
    pytest.skip("no Last.fm data: set SPR_DATA, or put it in ../shared/data")


def _quickstart(folder: Path, *arguments: str, **environment: str) -> str:
    command = [str(Path(sys.executable).with_name("spr")), "quickstart", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


def _check_files(folder: Path) -> spr.SecondPassRanker:
    assert [entry.name for entry in folder.iterdir()] == ["quickstart"]
    assert sorted(entry.name for entry in (folder / "quickstart").iterdir()) == ["bundle", "reliability.png"]
    assert (folder / "quickstart" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    ranker = spr.load(folder / "quickstart" / "bundle")
    assert [effect.name for effect in ranker.effects] == ["member"]
    manifest = json.loads((folder / "quickstart" / "bundle" / "manifest.json").read_text())
    assert manifest["versions"] == dict(ranker.versions)
    return ranker


def _check_output(output: str) -> None:
    for shown in ("calibrators", "what training chose", "page of", "held-out pages", "reliability plot"):
        assert shown in output
    for name in (SPR, *SIMPLE, *TREES):
        assert name in output


def test_quickstart_runs_in_an_empty_folder(tmp_path: Path) -> None:
    _check_output(_quickstart(tmp_path))
    assert set(_check_files(tmp_path).config.entity_types) == set(spr.Config.named("network").entity_types)


def test_quickstart_runs_on_lastfm(tmp_path: Path, data: Path) -> None:
    _check_output(_quickstart(tmp_path, "--data", "lastfm", SPR_DATA=str(data)))
    assert set(_check_files(tmp_path).config.entity_types) == {"people", "artist", "tag"}


def test_quickstart_without_lastfm_says_where_to_put_it(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("spr")), "quickstart", str(tmp_path), "--data", "lastfm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DataNotFound" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


# ------------------------------------------------------------------ the acceptance figures


@pytest.fixture(scope="session")
def tables(data: Path) -> QuickstartTables:
    return make_lastfm(data)


@pytest.fixture(scope="session")
def lastfm(tables: QuickstartTables) -> Comparison:
    ranker = spr.fit(tables.train, tables.viewers, tables.entities, config=tables.config)
    return compare(ranker, tables.test, tables.viewers, tables.entities, train=tables.train, frequency=tables.frequency)


def _difference(comparison: Comparison, segment: str, other: str, metric: str) -> dict[str, float]:
    """SPR minus another prediction: less normalised cross entropy and more NDCG is better."""
    key = segment if segment == "all" else f"segment={segment}"
    rows = comparison.differences()
    wanted = (rows["segment"] == key) & (rows["prediction"] == f"{SPR} - {other}") & (rows["metric"] == metric)
    ((low, high),) = rows.loc[wanted, ["low", "high"]].to_numpy()
    return {"low": float(low), "high": float(high)}


@pytest.mark.parametrize("other", SIMPLE)
def test_lastfm_ranker_beats_simple_answers(lastfm: Comparison, other: str) -> None:
    assert _difference(lastfm, "all", other, "normalized_cross_entropy")["high"] < 0
    assert _difference(lastfm, "all", other, "ndcg")["low"] > 0


@pytest.mark.parametrize("segment", ["frequent", "infrequent"])
@pytest.mark.parametrize("other", TREES)
def test_lastfm_random_effects_lower_the_loss_of_seen_viewers(lastfm: Comparison, segment: str, other: str) -> None:
    assert _difference(lastfm, segment, other, "normalized_cross_entropy")["high"] < 0


@pytest.mark.parametrize("other", TREES)
def test_lastfm_random_effects_order_pages_of_frequent_viewers_better(lastfm: Comparison, other: str) -> None:
    assert _difference(lastfm, "frequent", other, "ndcg")["low"] > 0


@pytest.mark.parametrize("other", TREES)
def test_lastfm_ranker_is_no_worse_for_unseen_viewers(lastfm: Comparison, other: str) -> None:
    assert _difference(lastfm, "unseen", other, "normalized_cross_entropy")["low"] <= 0
    assert _difference(lastfm, "unseen", other, "ndcg")["high"] >= 0


def test_lastfm_ranker_is_the_same_again(lastfm: Comparison, tables: QuickstartTables) -> None:
    ranker = spr.fit(tables.train, tables.viewers, tables.entities, config=tables.config)
    again = compare(ranker, tables.test, tables.viewers, tables.entities, frequency=tables.frequency, n_replicates=10)
    np.testing.assert_array_equal(again.predictions[SPR].probability, lastfm.predictions[SPR].probability)
