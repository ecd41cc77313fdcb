"""From the impressions table and a ranker, a table of pages or a column to logged pages, and their value."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from spr import tables
from spr.assembly import assemble
from spr.errors import ConfigError, TableError
from spr.evaluation.off_policy.logged_pages import LoggedPages
from spr.evaluation.off_policy.value import evaluate_pages
from spr.progress import ignore
from spr.ranker import SecondPassRanker
from spr.tables import read_impressions, require_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration import PositionExamination
    from spr.config import Config
    from spr.evaluation.off_policy.value import OffPolicyValue
    from spr.progress import Progress
    from spr.reorder import ImportanceFactors
    from spr.tables import Table

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_COHORT: Final = ["request_id", "cohort_id"]
_MARGINAL: Final = ("exact", "monte_carlo")
_PAGES_BETWEEN: Final = 1000  # calls of progress


def off_policy_value(
    impressions: Table,
    ranker_or_pages: SecondPassRanker | pd.DataFrame | str,
    estimators: Sequence[str] | str = "all",
    *,
    viewers: Table | None = None,
    entities: Table | None = None,
    config: Config | None = None,
    trained_until: pd.Timestamp | str | None = None,
    policies: Sequence[str] = ("random",),
    clip: float | None = None,
    examination: PositionExamination | None = None,
    n_folds: int = 5,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress = ignore,
) -> OffPolicyValue:
    """Estimate what a new ranking of the logged pages would have brought, from pages that were shuffled.

    Parameters
    ----------
    impressions : DataFrame or path
        The impressions table. Pages with an immature cohort are left out.
    ranker_or_pages : SecondPassRanker, DataFrame or str
        A ranker, whose pages are made anew (without its random policy; with its guarantees, for viewers who were
        delivered nothing yet, unless ``delivered_*`` columns say otherwise); or a table with request_id, cohort_id and
        position, such as the ``pages`` table of :meth:`~spr.SecondPassRanker.rank_table`; or the name of a column of
        the impressions: cohorts by its mean, highest on top, null last, ties as logged.
    estimators : sequence of str or "all", default "all"
        See :func:`~spr.evaluation.off_policy.evaluate_pages`.
    viewers, entities : DataFrame or path, optional
        As in :func:`spr.fit`; a ranker needs its viewers.
    config : Config, optional
        Names entity types, importance factors, and when labels are mature. Default: the ranker's own. A snapshot that
        the ranker was fitted with leaves all later pages immature: give the configuration with a later one.
    trained_until : Timestamp or str, optional
        The last moment of the pages that the ranker learnt from, UTC; earlier pages are refused. Default: the last
        moment that was mature at the snapshot in the ranker's configuration. Without either, a ranker is refused: a
        bundle does not keep which requests taught it, and on those its value is too high.
    policies : sequence of str, default ("random",)
        Whose pages are read. Those of other policies need a ``propensity`` in all rows, marginal (where there is a
        column ``propensity_kind``: "exact" or "monte_carlo"), and leave ``iips`` and ``self_normalised_iips``.
    clip, examination, n_folds, level, seed, progress
        See :func:`~spr.evaluation.off_policy.evaluate_pages`.

    Returns
    -------
    OffPolicyValue
        Interactions and value per logged page, and for each estimator the gain over what the logged pages brought.

    Raises
    ------
    TableError
        A table that breaks its contract; no mature page of these policies; pages from before ``trained_until``; pages
        with missing rows; a new page with cohorts that the logged one does not have; propensities that are missing or
        not marginal.
    ConfigError
        No configuration, or a ranker of which it is not known when it was trained, or without viewers.
    InvalidModelInput
        See :func:`~spr.evaluation.off_policy.evaluate_pages`.

    Notes
    -----
    The label of a cohort is a downstream interaction with any of its slots. A cohort that the new page leaves out (a
    ranker leaves out those without a scorable entity) stands below the others. The relevance of cohorts is predicted
    from their entity type, raw scores, numeric ``cohort_*`` columns, and their place on the new page.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> log = World(n_viewers=300, seed=1).impressions(2000, random_share=1.0)
    >>> config = spr.Config.named("network")
    >>> found = off_policy_value(log, "raw_score", ["iips", "position_based"], config=config)
    >>> found.chosen["interactions"]
    'position_based'
    >>> found.n_pages
    2000
    """
    ranker = ranker_or_pages if isinstance(ranker_or_pages, SecondPassRanker) else None
    if config is None:
        if ranker is None:
            raise ConfigError("off_policy_value: config is missing; it names entity types and importance factors")
        config = ranker.config
    rows = read_impressions(impressions, config)
    rows = rows[rows["policy"].isin(list(policies))].reset_index(drop=True)
    if rows.empty:
        raise TableError(f"impressions: no row of the policies {', '.join(policies)}")
    asked_for = int(rows["request_id"].nunique())
    rows = _keep_mature(rows)
    factors = config.importance
    if ranker is not None:
        _refuse_taught(rows, ranker, trained_until)
        position = _rank(rows, ranker, viewers, entities, progress)
        factors = ranker.factors
    elif isinstance(ranker_or_pages, pd.DataFrame):
        rows, position = _look_up(rows, ranker_or_pages)
    elif isinstance(ranker_or_pages, str):
        position = -_mean_by_cohort(rows, ranker_or_pages)
    else:
        given = type(ranker_or_pages).__name__
        raise ConfigError(f"off_policy_value: {given} is given; allowed: a ranker, a table of pages, a column's name")
    pages = _to_pages(rows, position, config, factors)
    return evaluate_pages(
        pages,
        estimators,
        clip=clip,
        examination=examination,
        n_folds=n_folds,
        level=level,
        seed=seed,
        n_left_out=asked_for - pages.n_pages,
        progress=progress,
    )


def _keep_mature(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the pages of which every row has its label."""
    open_pages = rows.loc[rows["downstream"].isna(), "request_id"].unique()
    mature = rows[~rows["request_id"].isin(open_pages)].reset_index(drop=True)
    if mature.empty:
        raise TableError(f"impressions: none of {len(open_pages):,} pages is mature; is the snapshot too early?")
    return mature


def _refuse_taught(rows: pd.DataFrame, ranker: SecondPassRanker, trained_until: pd.Timestamp | str | None) -> None:
    """Refuse pages that the ranker may have learnt from."""
    labels = ranker.config.labels
    if trained_until is not None:
        until = pd.Timestamp(trained_until)
    elif labels.snapshot is not None:
        until = pd.Timestamp(labels.snapshot) - labels.response_window - labels.downstream_window
    else:
        raise ConfigError(
            "off_policy_value: it is not known which pages taught the ranker, and on those its value is too high; give "
            "trained_until, and pages from after it"
        )
    until = until.tz_convert(None) if until.tzinfo else until
    taught = rows.loc[rows["at"] <= until, "request_id"]
    if len(taught):
        raise TableError(
            f"impressions: {taught.nunique():,} of {rows['request_id'].nunique():,} pages may have taught the ranker, "
            f"which was trained until {until}; first: {taught.iloc[0]!r}. Give later pages"
        )


def _rank(
    rows: pd.DataFrame, ranker: SecondPassRanker, viewers: Table | None, entities: Table | None, progress: Progress
) -> Floats:
    """Return the position of each cohort on the ranker's own page, NaN where it leaves the cohort out."""
    if viewers is None:
        raise ConfigError("off_policy_value: viewers are missing; the ranker reads their features")
    # The same request would be shuffled again, to the very page that was logged.
    exploration = ranker.config.exploration.model_copy(update={"random_share": 0.0})
    served = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"exploration": exploration}))
    batch = assemble(rows, tables.read_viewers(viewers), None if entities is None else tables.read_entities(entities))
    position = np.full(batch.n_cohorts, np.nan)
    for done, page in enumerate(served.place_pages(served.value_cohorts(batch), rows)):
        position[page.order] = np.arange(len(page.order))
        if done % _PAGES_BETWEEN == 0:
            progress("pages", done, batch.n_requests)
    progress("pages", batch.n_requests, batch.n_requests)
    return position


def _look_up(rows: pd.DataFrame, pages: pd.DataFrame) -> tuple[pd.DataFrame, Floats]:
    """Return the logged pages that the table has, and the position there of each cohort, NaN where it has none."""
    require_columns(pages, "pages", (*_COHORT, "position"))
    known = pages[[*_COHORT, "position"]].astype({"request_id": str, "cohort_id": str, "position": np.float64})
    twice = known.duplicated(_COHORT).to_numpy()
    if twice.any() or known["position"].isna().any():
        raise TableError(
            f"pages: a cohort stands twice on its page in {twice.sum():,} rows, and position is null in "
            f"{known['position'].isna().sum():,}"
        )
    rows = rows[rows["request_id"].isin(known["request_id"])].reset_index(drop=True)
    if rows.empty:
        raise TableError("pages: no request of the table is a mature logged page")
    cohorts = rows.iloc[_starts(rows)][_COHORT]
    theirs = known[known["request_id"].isin(cohorts["request_id"])]
    found = cohorts.merge(theirs, how="left", on=_COHORT, validate="one_to_one")["position"]
    unknown = len(theirs) - int(found.notna().sum())
    if unknown:
        raise TableError(f"pages: {unknown:,} placements are of cohorts that their logged page does not have")
    return rows, found.to_numpy(dtype=np.float64)


def _to_pages(rows: pd.DataFrame, new_position: Floats, config: Config, factors: ImportanceFactors) -> LoggedPages:
    """Make arrays of the rows; NaN in the new position is below the others, as logged."""
    start = _starts(rows)
    cohorts = rows.iloc[start]
    request = cohorts["request_id"].to_numpy(dtype=object)
    code, _ = pd.factorize(request)
    logged = cohorts["position"].to_numpy()
    order = np.lexsort((logged, new_position, code))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.searchsorted(code[order], code[order])
    size = np.bincount(code)[code]
    short = np.bincount(code, logged) != np.bincount(code) * (np.bincount(code) - 1) / 2
    if short.any():
        raise TableError(
            f"impressions: {short.sum():,} of {len(short):,} pages do not have positions 0, 1, ..., n - 1; first: "
            f"{request[np.argmax(short[code])]!r}. Rows are missing, and with them what stood there"
        )
    edge_type = cohorts["entity_type"].map({name: kind.edge_type for name, kind in config.entity_types.items()})
    return LoggedPages.of(
        page=code,
        position=logged,
        new_position=place,
        label=np.maximum.reduceat(rows["downstream"].to_numpy(), start),
        viewer=cohorts["viewer_id"].to_numpy(dtype=object),
        group=cohorts["entity_type"].to_numpy(dtype=object),
        features=np.column_stack([place / size, *_features(rows, start)]),
        importance=factors.at(edge_type),
        propensity=_propensity(cohorts, size),
    )


def _features(rows: pd.DataFrame, start: Integers) -> list[Floats]:
    """Return what is known of each cohort: the mean and the largest raw score, and its own numeric columns."""
    raw_score = rows["raw_score"].to_numpy(dtype=np.float64)
    features = [_mean_by_cohort(rows, "raw_score"), np.fmax.reduceat(raw_score, start)]
    for column in map(str, rows.columns):
        values = rows[column]
        if column.startswith("cohort_") and pd.api.types.is_numeric_dtype(values):
            features.append(values.iloc[start].to_numpy(dtype=np.float64, na_value=np.nan))
    return [np.where(np.isfinite(values), values, np.nan) for values in features]


def _propensity(cohorts: pd.DataFrame, size: Integers) -> Floats:
    """Return the propensities; those of random pages need not be in the log."""
    random = (cohorts["policy"] == "random").to_numpy()
    given = cohorts["propensity"].to_numpy() if "propensity" in cohorts else np.full(len(cohorts), np.nan)
    propensity = np.where(random & np.isnan(given), 1.0 / size, given)
    wrong = ~(propensity > 0)
    if "propensity_kind" in cohorts:
        wrong |= ~random & ~cohorts["propensity_kind"].isin(_MARGINAL).to_numpy()
    if wrong.any():
        first = cohorts.iloc[int(np.argmax(wrong))]
        raise TableError(
            f"impressions: {wrong.sum():,} of {len(wrong):,} placements have no marginal propensity above 0; first: "
            f"request_id={first['request_id']!r}, policy={first['policy']!r}"
        )
    return propensity


def _mean_by_cohort(rows: pd.DataFrame, column: str) -> Floats:
    """Return the mean of a column over each cohort's rows, NaN where all are null."""
    require_columns(rows, "impressions", (column,))
    if not pd.api.types.is_numeric_dtype(rows[column]):
        raise TableError(f"impressions: {column} is not a number, and cannot order cohorts")
    start, values = _starts(rows), rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
    known = ~np.isnan(values)
    total, count = np.add.reduceat(np.where(known, values, 0.0), start), np.add.reduceat(known.astype(np.int64), start)
    return np.asarray(np.divide(total, count, out=np.full(len(start), np.nan), where=count > 0))


def _starts(rows: pd.DataFrame) -> Integers:
    """Return the first row of each cohort; the rows of a cohort stand together."""
    same = np.ones(len(rows) - 1, dtype=bool)
    for column in _COHORT:
        values = rows[column].to_numpy(dtype=object)
        same &= values[1:] == values[:-1]
    return np.concatenate([[0], 1 + np.flatnonzero(~same)]).astype(np.int64)
