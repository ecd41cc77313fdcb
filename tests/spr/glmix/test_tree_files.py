from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import InvalidModelInput
from spr.glmix import FittedLinear, FittedTrees
from spr.glmix.tree_files import check_booster
from spr.glmix.ubjson import parse_ubjson

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def trees() -> FittedTrees:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    data = xgboost.DMatrix(X, X[:, 0] + X[:, 1] ** 2, base_margin=np.zeros(400))
    booster = xgboost.train({"base_score": 0.0, "max_depth": 3, "nthread": 1}, data, 5)
    return FittedTrees(("a", "b", "c"), 0.25, booster)


def _raw(trees: FittedTrees) -> bytes:
    return bytes(trees.booster.save_raw("ubj"))


def _altered(raw: bytes, name: bytes, place: int, value: int) -> bytes:
    """Overwrite one int32 of the first tree's typed array `name`."""
    start = raw.index(name + b"[$l#L") + len(name) + 5 + 8 + 4 * place
    return raw[:start] + struct.pack(">i", value) + raw[start + 4 :]


def test_parse_ubjson_reads_what_xgboost_writes(trees: FittedTrees) -> None:
    plain = json.loads(bytes(trees.booster.save_raw("json")))
    parsed = parse_ubjson(_raw(trees))
    assert isinstance(parsed, dict)
    assert parsed["version"] == plain["version"]
    theirs = plain["learner"]["gradient_booster"]["model"]["trees"][2]
    ours = parsed["learner"]["gradient_booster"]["model"]["trees"][2]
    assert ours["left_children"].tolist() == theirs["left_children"]
    np.testing.assert_allclose(ours["split_conditions"], theirs["split_conditions"], rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"i\xff", -1),
        (b"I\x01\x00", 256),
        (b"D" + struct.pack(">d", 0.5), 0.5),
        (b"[TFZ]", [True, False, None]),
        (b"[#U\x02U\x01U\x02", [1, 2]),
        (b"SU\x02hi", "hi"),
        (b"{}", {}),
        (b"Ca", "a"),
    ],
)
def test_parse_ubjson_reads_each_kind_of_value(data: bytes, value: object) -> None:
    assert parse_ubjson(data) == value


@pytest.mark.parametrize(
    "data", [b"", b"?", b"U", b"SU\x05hi", b"[$S#U\x01", b"[#i\xff", b"{U\x01a", b"TT", b"[" * 500, b"{U\x01aTU\x01aF}"]
)
def test_parse_ubjson_refuses_what_is_not_ubjson(data: bytes) -> None:
    with pytest.raises(InvalidModelInput, match="UBJSON"):
        parse_ubjson(data)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_check_booster_never_raises_anything_else_on_altered_bytes(trees: FittedTrees, data: st.DataObject) -> None:
    raw = bytearray(_raw(trees))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidModelInput):
        check_booster(bytes(raw), n_features=3)


def test_trees_load_returns_what_was_saved_to_the_bit(trees: FittedTrees, tmp_path: Path) -> None:
    trees.save(tmp_path)
    loaded = FittedTrees.load(tmp_path)
    rows = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    assert loaded.margin(rows).tobytes() == trees.margin(rows).tobytes()
    assert _raw(loaded) == _raw(trees)
    assert (loaded.features, loaded.intercept, loaded.n_rounds) == (("a", "b", "c"), 0.25, 5)


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        (b"left_children", 0, 10_000_000, "children out of range"),
        (b"left_children", 0, -7, "children out of range"),
        (b"right_children", 1, 0, "children out of range"),
        (b"split_indices", 0, 3, "feature out of range"),
        (b"parents", 1, 2, "parents and children"),
    ],
)
def test_trees_load_refuses_an_altered_file_without_crashing(
    trees: FittedTrees, tmp_path: Path, name: bytes, place: int, value: int, message: str
) -> None:
    trees.save(tmp_path)
    (tmp_path / "trees.ubj").write_bytes(_altered(_raw(trees), name, place, value))
    with pytest.raises(InvalidModelInput, match=message):
        FittedTrees.load(tmp_path)


def test_trees_load_of_a_corrupted_file_leaves_the_process_alive(trees: FittedTrees, tmp_path: Path) -> None:
    trees.save(tmp_path)
    (tmp_path / "trees.ubj").write_bytes(_altered(_raw(trees), b"left_children", 0, 10_000_000))
    script = (
        "import sys; from spr.glmix import FittedTrees; from spr.errors import InvalidModelInput\n"
        "try: FittedTrees.load(sys.argv[1]).margin(__import__('numpy').zeros((9, 3), 'f'))\n"
        "except InvalidModelInput: print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "refused"), run.stderr


def test_check_booster_refuses_another_number_of_features_and_another_base_score(trees: FittedTrees) -> None:
    with pytest.raises(InvalidModelInput, match="num_feature is '3'"):
        check_booster(_raw(trees), n_features=4)
    data = xgboost.DMatrix(np.zeros((4, 3)), np.ones(4))
    other = xgboost.train({"base_score": 0.5, "nthread": 1}, data, 1)
    with pytest.raises(InvalidModelInput, match="base_score"):
        check_booster(bytes(other.save_raw("ubj")), n_features=3)


def test_trees_margin_does_not_depend_on_how_xgboost_is_asked(trees: FittedTrees) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    other = trees.booster.predict(xgboost.DMatrix(rows), output_margin=True).astype(np.float64) + 0.25
    np.testing.assert_allclose(trees.margin(rows), other, atol=1e-6)


def test_linear_load_returns_what_was_saved_to_the_bit(tmp_path: Path) -> None:
    linear = FittedLinear(("a", "b"), 1 / 3, np.array([np.pi, -1e-17]))
    linear.save(tmp_path)
    loaded = FittedLinear.load(tmp_path)
    assert loaded.intercept == linear.intercept
    assert loaded.coefficients.tobytes() == linear.coefficients.tobytes()
    (tmp_path / "linear.json").write_text("{")
    with pytest.raises(InvalidModelInput, match="cannot be read"):
        FittedLinear.load(tmp_path)
