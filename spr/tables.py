"""The tables as contracts: read, made uniform, and refused whole with the rule, the count and the first row.

Each ``read_*`` takes a DataFrame, or the path of a Parquet or CSV file, and returns a new DataFrame with strings
as objects, moments in UTC without a zone, and numbers as float64.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spr.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandera.pandas as pa
    from numpy.typing import NDArray

    from spr.config import Config

Table = pd.DataFrame | str | Path
IMPRESSION_KEY = ("request_id", "cohort_id", "slot")
_IDS = ("request_id", "viewer_id", "cohort_id", "entity_type", "entity_id", "ranker_version")
_STRINGS = (*_IDS, "policy", "cohort_kind")
_NUMBERS = ("position", "slot", "raw_score", "response", "downstream", "seen", "dismissed", "propensity")
IMPRESSION_COLUMNS = (*_STRINGS, "at", *_NUMBERS)
"""Names that the impressions table keeps to itself."""


def read_impressions(impressions: Table, config: Config) -> pd.DataFrame:
    """Read one row per entity shown in a request.

    Parameters
    ----------
    impressions : DataFrame or path
        Columns request_id, at, viewer_id, policy, cohort_id, entity_type, position, slot, entity_id,
        ranker_version, raw_score (null = not scorable), response and downstream (null = window open); optional
        cohort_kind, seen, dismissed, propensity, ``context_*``, ``cohort_*``.
    config : Config
        Names the entity types and the maturity windows.

    Returns
    -------
    DataFrame
        Sorted by request, position, cohort and slot, with an index from 0. Labels are null until the row is
        mature: ``at`` + both windows <= snapshot, whatever happened.

    Raises
    ------
    TableError
        When a rule is broken; the table is refused whole.
    """
    frame = _read_pages(impressions, "impressions", config, logged=True)
    return mask_immature(frame, config).sort_values(
        ["request_id", "position", "cohort_id", "slot"], kind="stable", ignore_index=True
    )


def read_requests(requests: Table, config: Config) -> pd.DataFrame:
    """Read impressions without policy, position and labels; columns ``delivered_*`` are counters.

    Null in ``delivered_<guarantee>``: the share has none yet, and is not behind.

    Parameters
    ----------
    requests : DataFrame or path
        Further columns of impressions may be there and are left alone.
    config : Config
        Names the entity types.

    Returns
    -------
    DataFrame
        In the order of first appearance of requests and cohorts, slots sorted, with an index from 0.

    Raises
    ------
    TableError
        When a rule is broken.
    """
    frame = _read_pages(requests, "requests", config, logged=False)
    first_request = frame.groupby("request_id", sort=False).ngroup()
    first_cohort = frame.groupby(["request_id", "cohort_id"], sort=False).ngroup()
    order = np.lexsort((frame["slot"], first_cohort, first_request))
    return frame.iloc[order].reset_index(drop=True)


def read_viewers(viewers: Table) -> pd.DataFrame:
    """Read one row per viewer (or per viewer and ``at``).

    Parameters
    ----------
    viewers : DataFrame or path
        viewer_id, optional ``at``, and numeric, boolean, string or list-of-float columns; null = not known.

    Returns
    -------
    DataFrame
        With an index from 0.

    Raises
    ------
    TableError
        When a rule is broken.
    """
    return _read_features(viewers, "viewers", ("viewer_id",), moments=("at",))


def read_entities(entities: Table) -> pd.DataFrame:
    """Read one row per entity (or per entity and ``at``).

    Parameters
    ----------
    entities : DataFrame or path
        entity_type, entity_id, optional ``at`` and ``created_at`` (gives the age), and feature columns as of viewers.

    Returns
    -------
    DataFrame
        With an index from 0.

    Raises
    ------
    TableError
        When a rule is broken.
    """
    return _read_features(entities, "entities", ("entity_type", "entity_id"), moments=("at", "created_at"))


def rows_stood_for(impressions: pd.DataFrame, config: Config) -> NDArray[np.float64]:
    """Tell how many rows each one stands for, where the log kept only some rows without a response.

    Parameters
    ----------
    impressions : DataFrame
        n rows of :func:`read_impressions` whose response is known.
    config : Config
        Gives the entity types' ``negative_sampling_rate``.

    Returns
    -------
    float64[n]
        1 where there is a response, else 1 / rate.
    """
    rate = impressions["entity_type"].map(config.negative_sampling_rates).to_numpy(dtype=np.float64)
    response = impressions["response"].to_numpy(dtype=np.float64)
    return np.where(response > 0, 1.0, 1.0 / rate)


def mask_immature(impressions: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Make both labels null on rows whose windows are open at the snapshot, even where an interaction was seen.

    Otherwise positives would mature before negatives. Without a snapshot in the configuration the labels stay as
    they were logged.
    """
    labels = config.labels
    if labels.snapshot is None:
        return impressions
    snapshot = pd.Timestamp(labels.snapshot)
    snapshot = snapshot.tz_convert(None) if snapshot.tzinfo else snapshot
    open_until = impressions["at"] + labels.response_window + labels.downstream_window
    mature = (open_until <= snapshot).to_numpy()
    return impressions.assign(
        response=impressions["response"].where(mature), downstream=impressions["downstream"].where(mature)
    )


def load_table(table: Table, name: str) -> pd.DataFrame:
    """Return a DataFrame as it is, or read a ``.parquet`` or ``.csv`` file.

    Raises
    ------
    TableError
        When there is no such file, or it is neither.
    """
    if isinstance(table, pd.DataFrame):
        return table
    path = Path(table)
    if not path.exists():
        raise TableError(f"{name}: no file at {path}")
    try:
        if path.suffix == ".csv":
            # Ids like 007 stay as they are written, and a country may be called NA.
            return pd.read_csv(path, dtype=dict.fromkeys(_STRINGS, str), keep_default_na=False, na_values=[""])
        if path.is_dir() or path.suffix in (".parquet", ".pq"):
            return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise TableError(f"{name}: {path} cannot be read: {error}") from error
    raise TableError(f"{name}: {path.name} is neither .parquet nor .csv")


def _read_pages(table: Table, name: str, config: Config, *, logged: bool) -> pd.DataFrame:
    import pandera.pandas as pa

    frame = load_table(table, name)
    logged_columns = ("policy",) if logged else ()
    strings = (*_IDS, *logged_columns)
    numbers = ("position", "slot", "raw_score", "response", "downstream") if logged else ("slot", "raw_score")
    require_columns(frame, name, (*strings, "at", *numbers))
    if frame.empty:
        raise TableError(f"{name}: the table has no rows")
    optional = [c for c in ("seen", "dismissed", "propensity") if c in frame]
    delivered = [str(c) for c in frame.columns if str(c).startswith("delivered_")]
    kind = frame["cohort_kind"] if "cohort_kind" in frame else frame["cohort_id"]
    frame = frame.assign(cohort_kind=kind.fillna(frame["cohort_id"]))
    frame = _make_uniform(frame, name, (*strings, "cohort_kind"), ("at",), (*numbers, *optional, *delivered))

    whole = [
        pa.Check(lambda s: s >= 0, error="is negative"),
        pa.Check(lambda s: s == s.round(), error="is not a whole number"),
    ]
    finite = pa.Check(np.isfinite, error="is infinite")
    binary = pa.Check(lambda s: s.isin((0.0, 1.0)), error="is neither 0 nor 1")
    columns = {column: pa.Column(nullable=False) for column in (*strings, "at")}
    columns["entity_type"] = pa.Column(
        checks=pa.Check(lambda s: s.isin(config.entity_types), error=f"is not one of {', '.join(config.entity_types)}"),
        nullable=False,
    )
    columns["slot"] = pa.Column(checks=whole)
    columns["raw_score"] = pa.Column(checks=finite, nullable=True)
    if logged:
        columns["position"] = pa.Column(checks=whole)
        columns["response"] = pa.Column(checks=[whole[0], finite], nullable=True)
        columns["downstream"] = pa.Column(checks=binary, nullable=True)
    for column in optional:
        check = binary if column != "propensity" else pa.Check(lambda s: s.between(0, 1), error="is outside [0, 1]")
        columns[column] = pa.Column(checks=check, nullable=True)
    for column in delivered:
        columns[column] = pa.Column(checks=[whole[0], finite], nullable=column != "delivered_total")
    _check(frame, name, columns, show=IMPRESSION_KEY)
    _check_unique(frame, name, IMPRESSION_KEY)
    _check_constant(
        frame,
        name,
        ("request_id",),
        ["viewer_id", "at", *logged_columns, *delivered, *_named(frame, "context_")],
    )
    per_cohort = ["entity_type", "cohort_kind", *(["position"] if logged else []), *_named(frame, "cohort_")]
    _check_constant(
        frame, name, ("request_id", "cohort_id"), [c for c in dict.fromkeys(per_cohort) if c != "cohort_id"]
    )
    if logged:
        cohorts = frame.drop_duplicates(["request_id", "cohort_id"]).reset_index(drop=True)
        _check_unique(cohorts, f"{name} (a row per cohort)", ("request_id", "position"))
    return frame.astype(dict.fromkeys(("slot", *(("position",) if logged else ())), np.int64))


def _read_features(table: Table, name: str, key: tuple[str, ...], moments: tuple[str, ...]) -> pd.DataFrame:
    import pandera.pandas as pa

    frame = load_table(table, name)
    require_columns(frame, name, key)
    there = tuple(column for column in moments if column in frame)
    for column in frame.columns:
        text = frame[column].dropna()
        if len(text) and isinstance(text.iloc[0], str) and text.iloc[0].startswith("["):
            raise TableError(f"{name}: {column} holds lists written as text; CSV cannot hold embeddings, use Parquet")
    frame = frame.assign(**{c: frame[c].astype("boolean") for c in frame.columns if _holds_booleans(frame[c])})
    features = [str(c) for c in frame.columns if c not in key + there]
    numbers = tuple(
        c for c in features if pd.api.types.is_bool_dtype(frame[c]) or pd.api.types.is_numeric_dtype(frame[c])
    )
    frame = _make_uniform(frame, name, key, there, numbers)
    columns = {column: pa.Column(nullable=False) for column in key}
    if "at" in there:
        columns["at"] = pa.Column(nullable=False)
    for column in numbers:
        columns[column] = pa.Column(checks=pa.Check(np.isfinite, error="is infinite"), nullable=True)
    _check(frame, name, columns, show=key)
    _check_unique(frame, name, (*key, "at") if "at" in there else key)
    return frame


def _named(frame: pd.DataFrame, prefix: str) -> list[str]:
    return [str(column) for column in frame.columns if str(column).startswith(prefix)]


def require_columns(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    """Refuse a table that lacks one of these columns, or has two of one name.

    Raises
    ------
    TableError
        With the columns that there are, and the one that was probably meant.
    """
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise TableError(f"{name}: column {twice[0]!r} is there twice")
    there = [str(column) for column in frame.columns]
    for column in columns:
        if column not in there:
            close = difflib.get_close_matches(column, there, n=1)
            hint = f" Is it {close[0]!r}?" if close else ""
            raise TableError(f"{name}: column {column!r} is missing; found: {', '.join(there)}.{hint}")


def _make_uniform(
    frame: pd.DataFrame, name: str, strings: Sequence[str], moments: Sequence[str], numbers: Sequence[str]
) -> pd.DataFrame:
    made: dict[str, Any] = {}
    for column in strings:
        values = frame[column]
        text = values.astype(object).where(values.notna(), None)
        made[column] = text if pd.api.types.is_string_dtype(values) else text.map(str, na_action="ignore")
    for column in moments:
        if pd.api.types.is_numeric_dtype(frame[column]):
            raise TableError(f"{name}: {column} is a number; give timestamps, e.g. pd.to_datetime({column}, unit='s')")
        try:
            made[column] = pd.to_datetime(frame[column], utc=True).dt.tz_convert(None).astype("datetime64[us]")
        except (ValueError, TypeError) as error:
            raise TableError(f"{name}: {column} is not a timestamp: {error}") from error
    for column in numbers:
        try:
            made[column] = frame[column].astype(np.float64)
        except (ValueError, TypeError) as error:
            raise TableError(f"{name}: {column} is not a number: {error}") from error
    return frame.reset_index(drop=True).assign(**{c: s.reset_index(drop=True) for c, s in made.items()})


def _check(frame: pd.DataFrame, name: str, columns: dict[str, pa.Column], show: Sequence[str]) -> None:
    import pandera.errors
    import pandera.pandas as pa

    try:
        pa.DataFrameSchema(columns).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        first = cases.iloc[0]
        same = cases[(cases["column"] == first["column"]) & (cases["check"] == first["check"])]
        rule = "is null" if first["check"] == "not_nullable" else str(first["check"])
        raise TableError(_refuse(frame, name, f"{first['column']} {rule}", same["index"].to_numpy(), show)) from None


def _refuse(frame: pd.DataFrame, name: str, rule: str, rows: np.ndarray, show: Sequence[str]) -> str:
    row = frame.iloc[int(rows.min())]
    column = rule.split()[0]
    shown = [c for c in (*show, column) if c in frame.columns and c != "at"]
    where = ", ".join(f"{c}={_plain(row[c])}" for c in dict.fromkeys(shown) if c == column or c in show)
    return f"{name}: {rule} in {len(rows):,} of {len(frame):,} rows; first: {where}"


def _holds_lists(values: pd.Series) -> bool:
    there = values.dropna() if values.dtype == object else values.iloc[:0]
    return len(there) > 0 and isinstance(there.iloc[0], (list, tuple, np.ndarray))


def _holds_booleans(values: pd.Series) -> bool:
    there = values.dropna() if values.dtype == object else values.iloc[:0]
    return len(there) > 0 and all(isinstance(value, (bool, np.bool_)) for value in there)


def _plain(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return repr(value.item() if isinstance(value, np.generic) else value)


def _check_unique(frame: pd.DataFrame, name: str, key: Sequence[str]) -> None:
    again = frame.duplicated(list(key)).to_numpy()
    if again.any():
        rule = f"({', '.join(key)}) is not unique"
        raise TableError(_refuse(frame, name, rule, np.flatnonzero(again), key))


def _check_constant(frame: pd.DataFrame, name: str, key: Sequence[str], columns: Sequence[str]) -> None:
    group = frame.groupby(list(key), sort=False).ngroup().to_numpy()
    first = np.full(group.max() + 1, len(frame))
    np.minimum.at(first, group, np.arange(len(frame)))
    for column in columns:
        values = frame[column]
        if _holds_lists(values):
            continue
        held = values.iloc[first[group]].reset_index(drop=True)
        differs = ~((values == held) | (values.isna() & held.isna())).to_numpy()
        if differs.any():
            rule = f"{column} differs inside one ({', '.join(key)})"
            raise TableError(_refuse(frame, name, rule, np.flatnonzero(differs), key))
