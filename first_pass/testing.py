"""The contract suite of first-pass rankers: run it on a ranker of your own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from first_pass.contract import FirstPassRanker


def check_first_pass_ranker(
    ranker: FirstPassRanker, viewers: pd.DataFrame, entities: pd.DataFrame, *, rtol: float = 1e-5
) -> None:
    """Hold a ranker to the contract of :class:`first_pass.FirstPassRanker`.

    Every viewer is scored on every entity, so a few of each are enough; take rows that differ in what the
    ranker reads, and one with a null.

    Parameters
    ----------
    ranker : FirstPassRanker
    viewers : DataFrame, at least 2 rows
        What the ranker needs of a viewer, one row per viewer.
    entities : DataFrame, at least 2 rows
        What it needs of an entity, one row per entity.
    rtol : float, default 1e-5
        How far raw scores of the same pair may differ between calls of different shape, relative to the
        largest: single precision rounds by the batch.

    Raises
    ------
    AssertionError
        Which rule is broken, and where.
    ValueError
        When there are fewer than 2 viewers or entities, which would check nothing.

    Examples
    --------
    >>> from first_pass import FunctionRanker
    >>> ranker = FunctionRanker(lambda pairs: pairs["size"] * pairs["age"], entity_type="group",
    ...                         version="v1", features=["size", "age"])
    >>> check_first_pass_ranker(ranker, pd.DataFrame({"age": [30, 40]}), pd.DataFrame({"size": [1, 2, None]}))
    """
    if len(viewers) < 2 or len(entities) < 2:
        raise ValueError(f"{len(viewers)} viewers and {len(entities)} entities; the checks need at least 2 of each")
    for name in ("entity_type", "version"):
        value = getattr(ranker, name, None)
        _require(isinstance(value, str) and value != "", f"{name} is {value!r}; it must be a non-empty string")
    rows = [{str(key): value for key, value in row.items()} for row in viewers.to_dict("records")]
    raw_score = _check_single(ranker, rows, entities, rtol)
    _check_batch(ranker, viewers, entities, raw_score, rtol)


def _check_single(
    ranker: FirstPassRanker, viewers: list[dict[str, object]], entities: pd.DataFrame, rtol: float
) -> np.ndarray:
    permutation = np.roll(np.arange(len(entities)), 1)
    raw_scores = []
    for place, viewer in enumerate(viewers):
        where = f"raw_scores for viewer row {place}"
        entities_before, viewer_before = entities.copy(deep=True), copy.deepcopy(viewer)
        raw_score = ranker.raw_scores(viewer, entities)
        _require(_same_frame(entities, entities_before), f"{where}: the entities were changed")
        _require(_same_viewer(viewer, viewer_before), f"{where}: the viewer was changed")
        _check_form(raw_score, len(entities), where)
        raw_score = raw_score.copy()  # a ranker may hand out a buffer that its next call overwrites
        again = ranker.raw_scores(viewer, entities)
        _check_form(again, len(entities), where)
        _check_equal(again, raw_score, 0.0, f"{where}: a second call gave another result")
        permuted = ranker.raw_scores(viewer, entities.iloc[permutation])
        _check_form(permuted, len(entities), where)
        _check_equal(permuted, raw_score[permutation], rtol, f"{where}: row order matters")
        empty = ranker.raw_scores(viewer, entities.iloc[:0])
        _check_form(empty, 0, f"{where}, no entities")
        raw_scores.append(raw_score)
    return np.array(raw_scores)


def _check_batch(
    ranker: FirstPassRanker, viewers: pd.DataFrame, entities: pd.DataFrame, single: np.ndarray, rtol: float
) -> None:
    # Viewers change from row to row, and the two indexes share no label: rows are joined by position.
    viewer_rows, entity_rows = (cells.ravel(order="F") for cells in np.indices((len(viewers), len(entities))))
    batch_viewers, batch_entities = viewers.iloc[viewer_rows], entities.iloc[entity_rows]
    batch_viewers = batch_viewers.set_axis(np.arange(len(batch_viewers)) + len(batch_viewers), axis=0)
    batch_entities = batch_entities.set_axis(np.arange(len(batch_entities))[::-1], axis=0)
    viewers_before, entities_before = batch_viewers.copy(deep=True), batch_entities.copy(deep=True)
    where = "raw_scores_batch"
    raw_score = ranker.raw_scores_batch(batch_viewers, batch_entities)
    _require(_same_frame(batch_viewers, viewers_before), f"{where}: the viewers were changed")
    _require(_same_frame(batch_entities, entities_before), f"{where}: the entities were changed")
    _check_form(raw_score, len(batch_viewers), where)
    raw_score = raw_score.copy()
    again = ranker.raw_scores_batch(batch_viewers, batch_entities)
    _check_form(again, len(batch_viewers), where)
    _check_equal(again, raw_score, 0.0, f"{where}: a second call gave another result")
    _check_equal(raw_score, single[viewer_rows, entity_rows], rtol, f"{where}: it differs from raw_scores")
    empty = ranker.raw_scores_batch(batch_viewers.iloc[:0], batch_entities.iloc[:0])
    _check_form(empty, 0, f"{where}, no rows")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _check_form(raw_score: object, n: int, where: str) -> None:
    found = f"a {type(raw_score).__name__}"
    if isinstance(raw_score, np.ndarray):
        found = f"{raw_score.dtype} of shape {raw_score.shape}"
    right = isinstance(raw_score, np.ndarray) and raw_score.dtype == np.float64 and raw_score.shape == (n,)
    _require(right, f"{where}: gave {found}; it must be a numpy array, float64 of shape ({n},)")
    infinite = np.flatnonzero(np.isinf(np.asarray(raw_score)))
    if infinite.size:
        raise AssertionError(f"{where}: raw_score is infinite in row {infinite[0]}; NaN means not scorable")


def _check_equal(found: np.ndarray, expected: np.ndarray, rtol: float, otherwise: str) -> None:
    size = np.nanmax(np.abs(expected), initial=0.0, where=~np.isnan(expected))
    equal = np.isclose(found, expected, rtol=0.0, atol=rtol * size, equal_nan=True)
    if not equal.all():
        row = int(np.flatnonzero(~equal)[0])
        raise AssertionError(f"{otherwise}; first: row {row}, {found[row]} instead of {expected[row]}")


def _same_frame(found: pd.DataFrame, before: pd.DataFrame) -> bool:
    try:
        pd.testing.assert_frame_equal(found, before)
    except AssertionError:
        return False
    return True


def _same_viewer(found: dict[str, object], before: dict[str, object]) -> bool:
    return found.keys() == before.keys() and _same_frame(pd.DataFrame([found]), pd.DataFrame([before]))
