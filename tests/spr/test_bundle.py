"""Bundles: the same page in another process, and a clear refusal of everything that was tampered with."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spr
from spr import bundle as bundle_module
from spr.errors import BundleError
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from simulations.world import WorldTables

FILES = (
    "calibrators/calibrators.json",
    "coefficients/member/coefficients.json",
    "coefficients/member/keys.parquet",
    "coefficients/member/matrix.npy",
    "factors.json",
    "features.json",
    "golden.json",
    "prices.json",
    "trees/trees.json",
    "trees/trees.ubj",
)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "bundle")


def _edit_manifest(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def _sign(path: Path, name: str) -> None:
    """Put the sha256 of a changed file into the manifest."""
    digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
    _edit_manifest(path, lambda manifest: manifest["sha256"].update({name: digest}))


def _edit_json(path: Path, name: str, edit: Callable[[Any], object]) -> None:
    content = json.loads((path / name).read_text())
    edit(content)
    (path / name).write_text(json.dumps(content))
    _sign(path, name)


def _pages(ranker: spr.SecondPassRanker, rows: pd.DataFrame, tables: WorldTables) -> str:
    """Pages as JSON text; Python writes floats with every bit."""
    pages = ranker.rank_table(rows, tables.viewers, tables.entities)
    return json.dumps(pages.assign(at=pages["at"].astype(str)).to_dict("records"))


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)


# ------------------------------------------------------------------ what is written


def test_saved_bundle_has_plain_data_files_only(bundle: Path) -> None:
    found = sorted(file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file())
    assert found == sorted([*FILES, "manifest.json"])
    assert {file.rsplit(".")[-1] for file in found} <= {"json", "npy", "parquet", "ubj"}
    for file in bundle.rglob("*.npy"):
        np.load(file, allow_pickle=False)


def test_saved_bundle_names_viewers_in_coefficients_only(bundle: Path, small_tables: WorldTables) -> None:
    viewer_ids = [str(viewer).encode() for viewer in small_tables.viewers["viewer_id"]]
    named = {
        file.relative_to(bundle).parts[0]
        for file in bundle.rglob("*")
        if file.is_file() and any(viewer_id in file.read_bytes() for viewer_id in viewer_ids)
    }
    assert named == {"coefficients"}


def test_saved_manifest_says_what_it_holds(bundle: Path, ranker: spr.SecondPassRanker) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["sha256"]) == set(FILES)
    assert manifest["versions"] == dict(ranker.versions)
    assert manifest["config_hash"] == ranker.config.hash
    assert spr.Config.from_dict(manifest["config"]) == ranker.config
    assert manifest["monotone_in_raw_score"] is True
    assert {"spr", "xgboost", "numpy"} <= set(manifest["libraries"])


def test_loaded_ranker_is_the_saved_one(bundle: Path, ranker: spr.SecondPassRanker, small_tables: WorldTables) -> None:
    loaded = spr.load(bundle)
    assert loaded.versions == ranker.versions
    assert loaded.history == ranker.history
    assert loaded.unseen_correction == ranker.unseen_correction
    rows = small_tables.impressions
    rows = rows[rows["request_id"].isin(rows["request_id"].unique()[:50])]
    assert _pages(loaded, rows, small_tables) == _pages(ranker, rows, small_tables)


def test_loaded_ranker_of_a_new_process_gives_the_identical_page(
    bundle: Path, ranker: spr.SecondPassRanker, small_tables: WorldTables, tmp_path: Path
) -> None:
    rows = small_tables.impressions
    rows = rows[rows["request_id"].isin(rows["request_id"].unique()[:30])]
    rows.to_parquet(tmp_path / "requests.parquet")
    small_tables.viewers.to_parquet(tmp_path / "viewers.parquet")
    small_tables.entities.to_parquet(tmp_path / "entities.parquet")
    program = f"""
        import json
        import spr
        ranker = spr.load({str(bundle)!r})
        folder = {str(tmp_path)!r}
        pages = ranker.rank_table(*(f"{{folder}}/{{name}}.parquet" for name in ("requests", "viewers", "entities")))
        pages = pages.assign(at=pages["at"].astype(str))
        print(json.dumps([dict(ranker.versions), json.dumps(pages.to_dict("records"))]))
    """
    done = _run(program)
    assert done.returncode == 0, done.stderr
    versions, pages = json.loads(done.stdout)
    assert versions == dict(ranker.versions)
    assert pages == _pages(ranker, rows, small_tables)


# ------------------------------------------------------------------ saving over something


def test_save_replaces_a_bundle(copy: Path, ranker: spr.SecondPassRanker) -> None:
    other = ranker.with_factors(ImportanceFactors.of({"follow": 3.0}))
    other.save(copy)
    assert spr.load(copy).versions == other.versions
    assert [entry.name for entry in copy.parent.iterdir()] == ["bundle"]


def test_save_through_a_link_replaces_what_it_leads_to(copy: Path, ranker: spr.SecondPassRanker) -> None:
    link = copy.with_name("current")
    link.symlink_to(copy, target_is_directory=True)
    other = ranker.with_factors(ImportanceFactors.of({"follow": 3.0}))
    other.save(link)
    assert link.is_symlink()
    assert spr.load(copy).versions == spr.load(link).versions == other.versions
    assert sorted(entry.name for entry in copy.parent.iterdir()) == ["bundle", "current"]


def test_save_that_a_check_refuses_leaves_the_old_bundle(copy: Path, ranker: spr.SecondPassRanker) -> None:
    before = spr.load(copy).versions

    def refuse(fresh: Path) -> None:
        assert spr.load(fresh).versions != before
        raise BundleError("not this one")

    with pytest.raises(BundleError, match="not this one"):
        bundle_module.save(ranker.with_factors(ImportanceFactors.of({"follow": 3.0})), copy, check=refuse)
    assert spr.load(copy).versions == before
    assert [entry.name for entry in copy.parent.iterdir()] == ["bundle"]


def test_save_fills_an_empty_folder_and_makes_parents(tmp_path: Path, ranker: spr.SecondPassRanker) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "some" / "new" / "place"):
        ranker.save(path)
        assert spr.load(path).versions == ranker.versions


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_save_over_a_foreign_folder_is_refused(tmp_path: Path, ranker: spr.SecondPassRanker, name: str) -> None:
    folder = tmp_path / "website"
    folder.mkdir()
    (folder / name).write_text('{"name": "an app", "icons": []}')
    (folder / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(BundleError, match="website"):
        ranker.save(folder)
    assert (folder / "thesis.tex").read_text() == "irreplaceable"


def test_save_over_a_file_is_refused(tmp_path: Path, ranker: spr.SecondPassRanker) -> None:
    (tmp_path / "notes").write_text("irreplaceable")
    with pytest.raises(BundleError, match="notes"):
        ranker.save(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "irreplaceable"


@pytest.mark.parametrize("failing", ["_golden_margin", "_write_json", "_sha256"])
def test_save_interrupted_leaves_the_old_bundle(
    copy: Path, ranker: spr.SecondPassRanker, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    other = ranker.with_factors(ImportanceFactors.of({"follow": 3.0}))
    with monkeypatch.context() as patched:
        patched.setattr(bundle_module, failing, fail)
        with pytest.raises(OSError, match="no space left"):
            other.save(copy)
    assert spr.load(copy).versions == ranker.versions
    assert [entry.name for entry in copy.parent.iterdir()] == ["bundle"]


def test_save_makes_a_folder_that_others_may_read(tmp_path: Path, ranker: spr.SecondPassRanker) -> None:
    (tmp_path / "ordinary").mkdir()
    ranker.save(tmp_path / "bundle")
    assert (tmp_path / "bundle").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


# ------------------------------------------------------------------ faults


def test_load_nothing_is_refused_by_path(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BundleError, match=r"manifest\.json"):
            spr.load(path)


@pytest.mark.parametrize("name", FILES)
def test_load_altered_file_is_refused_by_name(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        spr.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_load_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        spr.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_load_damaged_file_that_was_signed_again_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for damaged in (b"", b"{}", content[: len(content) // 2]):
        (copy / name).write_bytes(damaged)
        _sign(copy, name)
        with pytest.raises(BundleError, match=str(copy)):
            spr.load(copy)


def test_load_extra_file_is_refused_by_name(copy: Path) -> None:
    (copy / "trees" / "more.pkl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(BundleError, match=r"trees/more\.pkl"):
        spr.load(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"manifest"', "{}", '{"schema_version": 1}'])
def test_load_damaged_manifest_is_refused_by_name(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        spr.load(copy)


@pytest.mark.parametrize("value", [None, 5, [1], "text"])
@pytest.mark.parametrize(
    "key", ["schema_version", "config", "libraries", "versions", "effects", "unseen_correction", "history", "sha256"]
)
def test_load_manifest_with_a_field_of_another_kind_is_refused(copy: Path, key: str, value: object) -> None:
    _edit_manifest(copy, lambda manifest: manifest.update({key: value}))
    with pytest.raises(BundleError, match=str(copy)):
        spr.load(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest.update(unseen_correction=[0.5, 1.5]),
        lambda manifest: manifest["config"]["importance"].update(connection=9.0),
        lambda manifest: manifest["config"]["guarantees"].clear(),
        lambda manifest: manifest["config"]["exploration"].update(random_share=1.0),
        lambda manifest: manifest["versions"].update(trees="000000000000"),
        lambda manifest: manifest.update(config_hash="000000000000"),
    ],
    ids=["unseen_correction", "importance", "guarantees", "exploration", "versions", "config_hash"],
)
def test_load_altered_manifest_is_refused(copy: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    _edit_manifest(copy, edit)
    with pytest.raises(BundleError, match="manifest"):
        spr.load(copy)


def test_load_newer_schema_is_refused_by_version(copy: Path) -> None:
    _edit_manifest(copy, lambda manifest: manifest.update(schema_version=99))
    with pytest.raises(BundleError, match="99"):
        spr.load(copy)


def test_load_under_an_older_xgboost_is_refused_by_version(copy: Path) -> None:
    _edit_manifest(copy, lambda manifest: manifest["libraries"].update(xgboost="99.0"))
    with pytest.raises(BundleError, match=r"xgboost 99\.0"):
        spr.load(copy)
    _edit_manifest(copy, lambda manifest: manifest["libraries"].update(xgboost="3.1.0"))
    spr.load(copy)


# ------------------------------------------------------------------ faults under a right sha256


def test_load_calibrators_of_another_bundle_are_refused(copy: Path, ranker: spr.SecondPassRanker) -> None:
    curves = dict(ranker.calibrators.curves)
    curves["people", "people-1"] = curves["event", "event-1"]
    swapped = type(ranker.calibrators)(curves, examination=ranker.calibrators.examination)
    swapped.save(copy / "calibrators")
    _sign(copy, "calibrators/calibrators.json")
    with pytest.raises(BundleError, match=str(copy)):
        spr.load(copy)


def test_load_coefficients_of_another_bundle_are_refused(copy: Path, ranker: spr.SecondPassRanker) -> None:
    np.save(copy / "coefficients" / "member" / "matrix.npy", -ranker.effects[0].matrix)
    _sign(copy, "coefficients/member/matrix.npy")
    with pytest.raises(BundleError, match=str(copy)):
        spr.load(copy)


def test_load_factors_of_another_bundle_are_refused(copy: Path) -> None:
    other = ImportanceFactors.of({"follow": 3.0})
    (copy / "factors.json").write_text(json.dumps(other.to_dict()))
    _sign(copy, "factors.json")
    with pytest.raises(BundleError, match=str(copy)):
        spr.load(copy)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("factors.json", lambda factors: factors["factor"].update(connection=-1.0)),
        ("factors.json", lambda factors: factors["factor"].update(connection=2.0)),
        ("features.json", lambda features: features["sources"].reverse()),
        ("features.json", lambda features: features["sources"].pop()),
        ("features.json", lambda features: features["entity_types"].pop("event")),
        ("trees/trees.json", lambda trees: trees.update(intercept=trees["intercept"] + 0.01)),
        ("trees/trees.json", lambda trees: trees["features"].reverse()),
        ("trees/trees.json", lambda trees: trees["features"].__setitem__(0, "no such column")),
        ("golden.json", lambda golden: golden["margin"].__setitem__(0, golden["margin"][0] + 0.001)),
        ("golden.json", lambda golden: golden["margin"].pop()),
        ("calibrators/calibrators.json", lambda found: found["curves"][0]["curve"]["values"].reverse()),
        ("coefficients/member/coefficients.json", lambda found: found["features"].__setitem__(0, "no such column")),
    ],
)
def test_load_edited_part_that_was_signed_again_is_refused(
    copy: Path, name: str, edit: Callable[[Any], object]
) -> None:
    _edit_json(copy, name, edit)
    with pytest.raises(BundleError, match=str(copy)):
        spr.load(copy)


def test_load_corrupted_tree_is_an_error_and_no_crash(bundle: Path, tmp_path: Path) -> None:
    raw = (bundle / "trees" / "trees.ubj").read_bytes()
    corruptions = [
        (b"left_children", 2**30),  # out of range
        (b"left_children", 0),  # a cycle
        (b"right_children", -7),
        (b"split_indices", 10_000),
    ]
    copies = []
    for number, (array, value) in enumerate(corruptions):
        copies.append(shutil.copytree(bundle, tmp_path / str(number)))
        start = raw.index(array + b"[$l#L") + len(array) + 5 + 8
        corrupted = raw[:start] + struct.pack(">i", value) + raw[start + 4 :]
        (copies[-1] / "trees" / "trees.ubj").write_bytes(corrupted)
        _sign(copies[-1], "trees/trees.ubj")
    program = f"""
        import spr, spr.errors
        for path in {[str(copy) for copy in copies]!r}:
            try:
                spr.load(path)
            except spr.errors.BundleError as error:
                print(error)
    """
    done = _run(program)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(copies)
    assert all(str(copy) in line and "tree 0" in line for copy, line in zip(copies, lines, strict=True))


def test_load_truncated_trees_are_an_error_and_no_crash(copy: Path) -> None:
    raw = (copy / "trees" / "trees.ubj").read_bytes()
    for length in np.linspace(0, len(raw) - 1, 12).astype(int):
        (copy / "trees" / "trees.ubj").write_bytes(raw[:length])
        _sign(copy, "trees/trees.ubj")
        with pytest.raises(BundleError, match="UBJSON"):
            spr.load(copy)
