from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import Coefficients

if TYPE_CHECKING:
    from pathlib import Path


def _member(keys: list[object], *, variance: bool = False) -> Coefficients:
    rng = np.random.default_rng(0)
    kind = np.int64 if isinstance(keys[0], int) else object
    matrix = rng.normal(size=(len(keys), 3)).astype(np.float32)
    return Coefficients(
        "member", "viewer_id", ("a", "b"), True, np.array(keys, dtype=kind), matrix, matrix**2 if variance else None
    )


@pytest.mark.parametrize("keys", [["x", "y", "ü"], [2, 5, 9]])
@pytest.mark.parametrize("variance", [True, False])
def test_coefficients_load_returns_what_was_saved_to_the_bit(
    tmp_path: Path, keys: list[object], variance: bool
) -> None:
    saved = _member(keys, variance=variance)
    saved.save(tmp_path)
    loaded = Coefficients.load(tmp_path)
    assert loaded.keys.tolist() == keys
    assert loaded.matrix.tobytes() == saved.matrix.tobytes()
    assert (loaded.name, loaded.key, loaded.columns) == ("member", "viewer_id", ("a", "b", "intercept"))
    if variance:
        assert loaded.variance is not None
        assert loaded.variance.tobytes() == (saved.matrix**2).tobytes()
    else:
        assert loaded.variance is None


def test_coefficients_margin_agrees_with_lookup_and_is_exactly_zero_elsewhere() -> None:
    member = _member(["x", "y"])
    rows = np.array([[1, 2], [1, np.nan], [1, 2], [1, 2]], dtype=np.float32)
    margin = member.margin(rows, np.array(["y", "x", "z", None], dtype=object))
    by_hand = [member.lookup("y") @ [1, 2, 1], member.lookup("x") @ [1, 0, 1]]
    np.testing.assert_allclose(margin[:2], by_hand, rtol=1e-6)
    assert margin[2:].tolist() == [0.0, 0.0]


def test_coefficients_positions_refuse_keys_of_the_other_type() -> None:
    with pytest.raises(InvalidModelInput, match=r"holds str, but held int in fit; convert it with \.astype\(int\)"):
        _member([1, 2]).positions(np.array(["1"], dtype=object))


@pytest.mark.parametrize(
    ("keys", "matrix", "message"),
    [
        (["b", "a"], np.zeros((2, 3), np.float32), "sorted"),
        (["a", "a"], np.zeros((2, 3), np.float32), "sorted"),
        (["a", "b"], np.zeros((2, 2), np.float32), "expected float32"),
        (["a", "b"], np.zeros((2, 3)), "expected float32"),
        (["a", "b"], np.full((2, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_coefficients_refuse_parts_that_do_not_fit(keys: list[str], matrix: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        Coefficients("member", "viewer_id", ("a", "b"), True, np.array(keys, dtype=object), matrix)


@pytest.mark.parametrize("damage", ["no json", "bad json", "short matrix", "no keys"])
def test_coefficients_load_refuses_damaged_files(tmp_path: Path, damage: str) -> None:
    _member(["x", "y"]).save(tmp_path)
    described = tmp_path / "coefficients.json"
    if damage == "no json":
        described.unlink()
    elif damage == "bad json":
        described.write_text(json.dumps({"name": "member"}))
    elif damage == "short matrix":
        np.save(tmp_path / "matrix.npy", np.zeros((1, 3), np.float32))
    else:
        (tmp_path / "keys.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidModelInput):
        Coefficients.load(tmp_path)
