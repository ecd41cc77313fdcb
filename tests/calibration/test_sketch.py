from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from calibration.response import fit_curve
from calibration.rows import CalibrationRows
from calibration.sketch import QuantileSketch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILES = st.lists(st.lists(st.integers(-40, 40), min_size=0, max_size=40), min_size=1, max_size=8)
RESOLUTION = st.integers(2, 30)


def _sketch(scores: list[int] | NDArray[np.float64], resolution: int, seed: int = 0) -> QuantileSketch:
    rng = np.random.default_rng([seed, len(scores)])
    weight = rng.integers(1, 4, len(scores)).astype(float)
    response = rng.integers(-2, 3, len(scores)).astype(float)
    return QuantileSketch(resolution).update(np.array(scores, dtype=float), response, weight, np.full(len(scores), 0.5))


def _true_rank(
    scores: NDArray[np.float64], weight: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    order = np.argsort(scores)
    through = np.append(0.0, np.cumsum(weight[order]))
    share: NDArray[np.float64] = through[np.searchsorted(scores[order], at, side="right")] / through[-1]
    return share


def _assert_rank_error_holds(sketch: QuantileSketch, scores: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
    edges = np.unique(np.concatenate([scores, sketch.cells.raw_score]))
    at = np.concatenate([edges, np.nextafter(edges, -np.inf)])
    error = np.abs(sketch.rank(at) - _true_rank(scores, weight, at)).max()
    assert error <= sketch.rank_error + 1e-12


@settings(deadline=None, max_examples=150)
@given(files=FILES, resolution=RESOLUTION, as_tree=st.booleans(), data=st.data())
def test_merges_in_any_order_stay_within_rank_error_and_lose_nothing(
    files: list[list[int]], resolution: int, as_tree: bool, data: st.DataObject
) -> None:
    files[0].append(7)
    parts = [_sketch(scores, resolution, seed) for seed, scores in enumerate(files)]
    exact = [_sketch(scores, 1000, seed).cells for seed, scores in enumerate(files)]
    parts = data.draw(st.permutations(parts))
    while len(parts) > 1:
        parts = [*parts[2:], parts[0].merge(parts[1])] if as_tree else [parts[0].merge(parts[1]), *parts[2:]]
    cells = parts[0].cells
    assert cells.raw_score.size == len(parts[0]) <= resolution
    assert cells.n_rows == sum(map(len, files))
    assert cells.n_positive == sum(part.n_positive for part in exact)
    for name in ("weight", "exposure", "response_sum", "response_squares"):
        assert getattr(cells, name).sum() == sum(getattr(part, name).sum() for part in exact)
    scores = np.concatenate([part.raw_score for part in exact])
    weight = np.concatenate([part.weight for part in exact])
    assert np.isin(cells.raw_score, scores).all()
    assert np.all(np.diff(cells.raw_score) > 0)
    _assert_rank_error_holds(parts[0], scores, weight)
    if np.unique(scores).size <= resolution:
        assert parts[0].rank_error == 0.0


@settings(deadline=None, max_examples=60)
@given(one=FILES, other=FILES, resolution=RESOLUTION)
def test_merge_commutes_and_follows_a_distortion_of_the_scores(
    one: list[list[int]], other: list[list[int]], resolution: int
) -> None:
    def both(distort: bool) -> list[QuantileSketch]:
        files = (np.array(sum(file, [0]), dtype=float) for file in (one, other))
        return [_sketch(np.exp(scores / 9) if distort else scores, resolution) for scores in files]

    a, b = both(distort=False)
    for name, array in a.merge(b).to_arrays().items():
        np.testing.assert_array_equal(array, b.merge(a).to_arrays()[name])
    c, d = both(distort=True)
    np.testing.assert_array_equal(np.exp(a.merge(b).cells.raw_score / 9), c.merge(d).cells.raw_score)
    np.testing.assert_array_equal(a.merge(b).cells.response_sum, c.merge(d).cells.response_sum)


@settings(deadline=None, max_examples=60)
@given(scores=st.lists(st.integers(-9, 9), min_size=1, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_few_distinct_scores_give_the_exact_table(scores: list[int], cuts: list[int]) -> None:
    raw_score = np.array(scores, dtype=float)
    response = np.arange(raw_score.size) % 3.0
    sketch = QuantileSketch(19)
    for part in np.split(np.arange(raw_score.size), sorted(cuts)):
        sketch.update(raw_score[part], response[part])
    distinct, group = np.unique(raw_score, return_inverse=True)
    np.testing.assert_array_equal(sketch.cells.raw_score, distinct)
    np.testing.assert_array_equal(sketch.cells.weight, np.bincount(group))
    np.testing.assert_array_equal(sketch.cells.response_sum, np.bincount(group, response))
    np.testing.assert_array_equal(sketch.cells.response_squares, np.bincount(group, response**2))
    assert sketch.rank_error == 0.0
    np.testing.assert_array_equal(sketch.quantile([0.0, 1.0]), distinct[[0, -1]])


def test_reading_does_not_change_what_is_learnt() -> None:
    rng = np.random.default_rng(0)
    read, unread = QuantileSketch(100), QuantileSketch(100)
    for size in (30, 80, 20, 500, 60):
        scores, response = rng.normal(size=size), rng.random(size)
        unread.update(scores, response)
        assert len(read.update(scores, response)) <= 100
        scores[:] = 0.0  # a caller may reuse its buffer
    np.testing.assert_array_equal(read.to_arrays()["table"], unread.to_arrays()["table"])


def test_a_heavy_tie_stays_a_cell_of_its_own() -> None:
    rng = np.random.default_rng(1)
    sketch = QuantileSketch(200)
    for _ in range(5):
        scores = np.where(rng.random(4000) < 0.3, 0.25, rng.random(4000))
        sketch.update(scores, scores == 0.25)
    heaviest = int(np.argmax(sketch.cells.weight))
    assert sketch.cells.raw_score[heaviest] == 0.25
    assert sketch.cells.response_sum[heaviest] == sketch.n_positive
    assert sketch.cells.weight[heaviest] == pytest.approx(sketch.n_positive, rel=0.01)


@pytest.mark.parametrize("kind", ["normal", "widths", "drift", "sorted", "ties"])
@pytest.mark.parametrize("one_sketch", [True, False])
def test_hundred_files_stay_within_a_ten_thousandth(kind: str, one_sketch: bool) -> None:
    rng = np.random.default_rng(2)
    total, scores = QuantileSketch(), []
    for number in range(100):
        x = rng.normal(size=3000)
        if kind == "widths":
            x *= 10.0 ** rng.integers(-6, 6)
        elif kind == "drift":
            x += number / 10
        elif kind == "sorted":
            x = number + np.sort(rng.random(3000))
        elif kind == "ties":
            x = np.where(rng.random(3000) < 0.5, np.round(x), x)
        scores.append(x)
        if one_sketch:
            total.update(x, x > 0)
        else:
            total = total.merge(QuantileSketch().update(x, x > 0))
    assert total.rank_error <= 1e-4
    everything = np.concatenate(scores)
    _assert_rank_error_holds(total, everything, np.ones(everything.size))
    assert total.to_arrays()["table"].nbytes < 4e6


@pytest.mark.parametrize(
    ("method", "transforms", "mean", "most"),
    [
        ("loglinear", "all", 3e-4, 3e-3),
        ("spline", "rank", 5e-4, 1e-2),
        ("auto", "all", 5e-4, 3e-3),
        ("auto", "rank", 5e-4, 1e-2),
    ],
)
def test_curve_of_cells_is_the_curve_of_the_rows(method: str, transforms: str, mean: float, most: float) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=200_000)
    response = (rng.random(scores.size) < 1 / (1 + np.exp(3 - scores))).astype(float)
    sketch = QuantileSketch()
    for part in np.array_split(np.arange(scores.size), 10):
        sketch.update(scores[part], response[part])
    exact = fit_curve(CalibrationRows.checked(scores, response), method=method, transforms=transforms)
    summary = fit_curve(sketch.cells, method=method, transforms=transforms)
    assert (summary.n_rows, summary.n_positive) == (exact.n_rows, exact.n_positive)
    difference = np.abs(summary.predict(scores) / exact.predict(scores) - 1)
    assert difference.mean() < mean
    assert np.quantile(difference, 0.99) < most


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1.0]), "response has 1 values for 2"),
        (([np.inf], [1.0]), "raw_score must be a finite number"),
        (([1.0], [np.nan]), "response must be finite"),
        (([1.0], [1.0], [-1.0]), "sample_weight must be finite and >= 0"),
        (([1.0], [1.0], None, [0.0]), r"examination must be in \(0, 1\]"),
        (([1.0], [1e200]), "overflow"),
        (([["a"]], [1.0]), "does not hold numbers"),
    ],
)
def test_bad_rows_are_refused_and_leave_the_sketch_alone(arguments: tuple[list[float], ...], message: str) -> None:
    sketch = QuantileSketch().update([1.0, np.nan, 2.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0])
    with pytest.raises(CalibrationError, match=message):
        sketch.update(*arguments)
    assert (sketch.n_rows, sketch.n_dropped, sketch.total_weight) == (1, 2, 1.0)


def test_empty_sketches_and_bad_questions() -> None:
    empty = QuantileSketch().update([], []).merge(QuantileSketch())
    assert (len(empty), empty.rank_error, empty.total_weight) == (0, 0.0, 0.0)
    for ask in (empty.rank, empty.quantile):
        with pytest.raises(CalibrationError, match="no row"):
            ask(0.5)
    with pytest.raises(CalibrationError, match=r"in \[0, 1\]"):
        QuantileSketch().update([1.0], [1.0]).quantile(1.5)
    with pytest.raises(CalibrationError, match="at least 2"):
        QuantileSketch(1)


@pytest.mark.parametrize("n", [0, 5, 500])
def test_saved_sketches_load_bit_for_bit(tmp_path: Path, n: int) -> None:
    rng = np.random.default_rng(4)
    sketch = QuantileSketch(40).update(rng.normal(size=n), rng.random(n))
    sketch.save(tmp_path / "sketch")
    loaded = QuantileSketch.load(tmp_path / "sketch")
    for name, array in sketch.to_arrays().items():
        np.testing.assert_array_equal(array, loaded.to_arrays()[name], strict=True)


def test_corrupted_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sketch.npz"
    sketch = QuantileSketch(40).update(np.arange(30.0), np.ones(30))
    sketch.save(path)
    content = path.read_bytes()
    for broken in (b"", b"no", content[:200], content[:-30], content[:900] + b"?" * 40 + content[940:]):
        path.write_bytes(broken)
        with pytest.raises(CalibrationError, match=r"sketch\.npz"):
            QuantileSketch.load(path)
    with pytest.raises(CalibrationError, match="cannot be read"):
        QuantileSketch.load(tmp_path / "none")
    with path.open("wb") as file:
        np.savez(file, table=np.array([{}], dtype=object))
    with pytest.raises(CalibrationError, match="cannot be read"):
        QuantileSketch.load(path)

    arrays = sketch.to_arrays()
    table = np.asarray(arrays["table"], dtype=np.float64)
    for name, value, message in (
        ("schema", np.array("calibration.sketch/9"), "schema"),
        ("n_rows", np.array(29), "cannot have 30 cells"),
        ("n_rows", np.array(-1), "int64 >= 0"),
        ("n_positive", np.array(31), "n_positive"),
        ("resolution", np.array(4.0), "int64"),
        ("table", table[:6], "float64"),
        ("table", table[:, ::-1], "strictly increasing"),
        ("table", table * np.nan, "finite"),
        ("table", table * np.array([[1, 1, 1, 0, 1, 1, 1]]).T, "weights"),
        ("table", table - np.array([[0, 1, 0, 0, 0, 0, 0]]).T, "errors"),
        ("more", np.array(1), "found"),
    ):
        with pytest.raises(CalibrationError, match=message):
            QuantileSketch.from_arrays({**arrays, name: value})
