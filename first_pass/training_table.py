"""Unbiased training data for the first-pass teams: the shuffled pages of the log, one entity type at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from first_pass.edges import read_ids
from first_pass.errors import InvalidTable, MissingColumn, UnknownName, name_missing, name_unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_IDS = ("request_id", "cohort_id", "viewer_id", "entity_id", "ranker_version")
_NUMBERS = ("position", "slot", "raw_score", "response")
_READ = (*_IDS, "policy", "entity_type", "at", *_NUMBERS)
_LEADING = ("request_id", "cohort_id", "at", "viewer_id", "entity_id", "slot", "position", "propensity")
_KEY = ("request_id", "cohort_id", "slot")
_ROUNDING = 1e-3  # of a logged propensity, relative; 1/50 and 1/51 are twenty times as far apart


def training_table(impressions: pd.DataFrame | str | Path, entity_type: str) -> pd.DataFrame:
    """Return the shuffled pages' entities of one type, with what people did: what a first-pass ranker learns from.

    Parameters
    ----------
    impressions : DataFrame or path of Parquet or CSV
        The log: one row per entity shown. Columns request_id, at, viewer_id, policy, cohort_id, entity_type, position,
        slot, entity_id, ranker_version, raw_score and response; optional propensity, seen, cohort_kind,
        ``context_*``, ``cohort_*``. All entity types, so that the cohorts of a page can be counted.
    entity_type : str
        Whose rows are wanted.

    Returns
    -------
    DataFrame
        One row per entity shown on a page of policy "random" whose response is known, in the log's order, with an
        index from 0: request_id, cohort_id, at (UTC), viewer_id, entity_id, slot and position (0 = first), propensity,
        ranker_version, raw_score (null: the ranker in service could not score it), response (>= 0), and where the log
        has them seen (null = not known), ``context_*`` and ``cohort_*``. Features of viewers and entities are joined
        by the reader, as they were at ``at``.

    Raises
    ------
    MissingColumn
        A required column is absent.
    UnknownName
        No row of the log is of this entity type.
    InvalidTable
        There is no such file or it is neither Parquet nor CSV; no row is of policy "random" or none has a known
        response; an id is null; a number is out of range; a key is there twice; a cohort has two positions; or a
        logged propensity is not that of a shuffled page.

    Notes
    -----
    *What is randomised.* On these pages every order of the n cohorts is as likely, so that a cohort's ``position`` is
    independent of what is in it, and its propensity is 1 / n. Which page, which cohort and which entities in it were
    candidates is not randomised, and neither is the ``slot``: inside a cohort, entities stand in the order of the
    raw score of the ranker in service. A model that is fitted on these rows is about the candidates that were
    proposed. If its features follow that raw score, they take up some of the effect of the slot; give it the slot as a
    further feature, held at 0 when it scores, or compare entities of equal slot.

    *How to use position and propensity.* Position is part of what made the response (a cohort below is seen less) and
    not of what the entity is worth. Let it enter as a feature of its own that is held at 0 when the model scores; or
    keep the rows that were ``seen``; or divide by examination estimated from these pages (the package calibration).
    Without any of these, an estimate is for the average position, and the order of entities stays right. Weights of
    1 / propensity are equal on pages of equal size: they serve to estimate sums over positions, and to join these rows
    with those of another policy whose propensities were logged. The propensity does not correct for the slot.

    n counts the request's cohorts in the log. A service may place cohorts without any scorable entity below a shuffle
    of the others; then the number of the others is accepted, too. A cohort with no logged propensity gets 1 / n.

    Examples
    --------
    >>> log = pd.DataFrame({
    ...     "request_id": ["r1", "r1", "r2"], "at": "2026-01-01", "viewer_id": ["v1", "v1", "v2"],
    ...     "policy": ["random", "random", "spr"], "cohort_id": ["a", "b", "a"],
    ...     "entity_type": ["group", "people", "group"], "position": [1, 0, 0], "slot": 0,
    ...     "entity_id": ["g1", "v7", "g1"], "ranker_version": "1", "raw_score": 0.5, "response": [0.0, 1.0, 1.0]})
    >>> training_table(log, "group")[["request_id", "entity_id", "slot", "position", "propensity", "response"]]
      request_id entity_id  slot  position  propensity  response
    0         r1        g1     0         1         0.5       0.0
    """
    log = _read_file(impressions) if isinstance(impressions, (str, Path)) else impressions
    for column in _READ:
        if column not in log.columns:
            raise MissingColumn(name_missing("column", column, map(str, log.columns), "impressions"))
    types = read_ids(log, "entity_type", "impressions")
    if entity_type not in types:
        raise UnknownName(name_unknown("entity type", entity_type, set(types.tolist()), "impressions"))
    random = (log["policy"] == "random").to_numpy(dtype=bool, na_value=False)
    pages = _checked(log[random].reset_index(drop=True))
    of_type = types[random] == entity_type
    if not of_type.any():
        raise InvalidTable(
            f"impressions: none of the {int((types == entity_type).sum()):,} rows of {entity_type!r} is of policy "
            f"'random'; found: {', '.join(sorted(map(str, log['policy'].dropna().unique())))}. "
            "Only shuffled pages are unbiased: serve a share of the requests by the random policy"
        )
    kept = of_type & pages["response"].notna().to_numpy()
    if not kept.any():
        raise InvalidTable(
            f"impressions: the response of all {int(of_type.sum()):,} random rows of {entity_type!r} is null: "
            "their windows are still open; wait until they are over"
        )
    pages = pages.assign(propensity=_propensity(pages))
    features = [
        str(column)
        for column in pages.columns
        if str(column).startswith(("context_", "cohort_")) and column not in _LEADING
    ]
    seen = [column for column in ("seen",) if column in pages]
    columns = [*_LEADING, "ranker_version", "raw_score", "response", *seen, *features]
    table: pd.DataFrame = pages.loc[kept, columns]
    return table.reset_index(drop=True)


def _read_file(path: str | Path) -> pd.DataFrame:
    path = Path(path)
    if not path.exists():
        raise InvalidTable(f"impressions: no file at {path}")
    try:
        if path.suffix == ".csv":
            # Ids like 007 stay as they are written, and an entity may be called NA.
            texts = dict.fromkeys((*_IDS, "policy", "entity_type", "cohort_kind"), str)
            table: pd.DataFrame = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
            return table
        if path.is_dir() or path.suffix in (".parquet", ".pq"):
            return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InvalidTable(f"impressions: {path} cannot be read: {error}") from error
    raise InvalidTable(f"impressions: {path.name} is neither .parquet nor .csv")


def _checked(pages: pd.DataFrame) -> pd.DataFrame:
    """Return the random pages with uniform columns, or refuse them."""
    made: dict[str, Any] = {column: read_ids(pages, column, "impressions") for column in _IDS}
    try:
        made["at"] = pd.to_datetime(pages["at"], utc=True)
        optional = [column for column in ("propensity", "seen") if column in pages]
        for column in (*_NUMBERS, *optional):
            made[column] = pages[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidTable(f"impressions: a column does not hold what it should: {error}") from error
    pages = pages.assign(**made)
    for column in ("position", "slot"):
        number = pages[column].to_numpy()
        _refuse(pages, ~((number >= 0) & (number == np.round(number))), f"{column} is not a whole number >= 0")
    response = pages["response"].to_numpy()
    _refuse(pages, (response < 0) | np.isinf(response), "response is negative or infinite")
    _refuse(pages, np.isinf(pages["raw_score"].to_numpy()), "raw_score is infinite")
    _refuse(pages, pages.duplicated([*_KEY]).to_numpy(), f"({', '.join(_KEY)}) is there twice")
    position = pages.groupby(["request_id", "cohort_id"], sort=False)["position"]
    _refuse(pages, (position.transform("first") != pages["position"]).to_numpy(), "a cohort has two positions")
    cohorts = pages.drop_duplicates(["request_id", "cohort_id"])
    twice = cohorts.duplicated(["request_id", "position"]).to_numpy()
    _refuse(cohorts, twice, "two cohorts of a page have one position")
    of_page = cohorts.groupby("request_id", sort=False)["position"]
    gap = (of_page.transform("max") >= of_page.transform("size")).to_numpy()
    _refuse(
        cohorts, gap, "positions of a page are not 0 to its number of cohorts less 1: cohorts are missing from the log"
    )
    return pages.astype({"position": np.int64, "slot": np.int64})


def _propensity(pages: pd.DataFrame) -> NDArray[np.float64]:
    """Return P(this cohort at this position) of each row: 1 / cohorts of its page, or the logged one if it agrees."""
    cohorts = pages.drop_duplicates(["request_id", "cohort_id"])
    n_cohorts = pages["request_id"].map(cohorts["request_id"].value_counts()).to_numpy(dtype=np.float64)
    if "propensity" not in pages:
        return np.asarray(1.0 / n_cohorts)
    logged = pages["propensity"].to_numpy()
    scorable = pages[pages["raw_score"].notna()].drop_duplicates(["request_id", "cohort_id"])["request_id"]
    n_scorable = pages["request_id"].map(scorable.value_counts()).fillna(0.0).to_numpy(dtype=np.float64)
    agrees = [np.abs(logged * n - 1.0) <= _ROUNDING for n in (n_cohorts, n_scorable)]
    _refuse(
        pages,
        ~(np.isnan(logged) | agrees[0] | agrees[1]),
        "propensity of a random page is not 1 / its number of cohorts",
        lambda row: (
            f", propensity={logged[row]:.6g} with {n_cohorts[row]:.0f} cohorts. Either cohorts are missing from the "
            "log, or the page was not shuffled as a whole and its policy has another name"
        ),
    )
    return np.asarray(np.where(np.isnan(logged), 1.0 / n_cohorts, logged))


def _refuse(
    pages: pd.DataFrame, wrong: NDArray[np.bool_], rule: str, more: Callable[[int], str] = lambda _: ""
) -> None:
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    key = ", ".join(f"{column}={pages[column].iloc[first]!r}" for column in _KEY)
    raise InvalidTable(
        f"impressions: {rule} in {int(wrong.sum()):,} of {len(pages):,} random rows; first: {key}{more(first)}"
    )
