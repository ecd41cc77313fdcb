"""Engagement that a viewer causes on other members, credited to the viewer by a stated share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import pydantic

from spr.edge_drop.columns import numbers, refuse_where, require_columns
from spr.errors import ConfigError, TableError
from spr.sections import Duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_DURATION: Final = pydantic.TypeAdapter(Duration)


def credit_downstream(
    interactions: pd.DataFrame, engagement: pd.DataFrame, *, share: float, window: str | timedelta
) -> pd.DataFrame:
    """Credit viewers with a share of the engagement of the members whom they interacted with.

    Parameters
    ----------
    interactions : DataFrame
        One row per like, comment or other signal that a viewer gave to another member: ``viewer_id``, ``other_id`` (the
        member), ``at``.
    engagement : DataFrame
        One row per engagement of a member: ``viewer_id`` (the member), ``at``, optional ``amount`` (>= 0, default 1).
    share : float
        Part of the engagement that is credited, in [0, 1].
    window : str or timedelta
        How long an interaction is remembered, > 0; text as in a config, such as ``"3d"`` or ``"12h"``.

    Returns
    -------
    DataFrame
        ``viewer_id`` and ``credited``, one row per viewer who interacted with another member, in the order of ids; 0
        where no engagement followed.

    Raises
    ------
    TableError
        When a column is missing, an id or a moment is null, the moments of only one table have a time zone, or an
        amount is negative, null or infinite.
    ConfigError
        When the share or the window is outside its range.

    Notes
    -----
    A unit of a member's engagement at time s is split equally over the k interactions that others directed at the
    member in the open interval (s - window, s), and the viewer of each is credited share / k of it. So the credits add
    up to at most share times all engagement, exactly where every unit has an interaction before it. A viewer's
    interactions with its own posts do not count. After LinkedIn's posts on downstream impact ("Spreading the love in
    the LinkedIn feed with creator-side optimization"): what an edge is worth to the network is more than what its owner
    does. The member keeps its engagement, so that a credited metric counts this part twice, by the stated share.

    To read an edge-drop experiment with it, credit both periods alike and add the credits to the metric, a viewer
    without one getting 0::

        of = credited.set_index("viewer_id")["credited"]
        table["likes"] += table["viewer_id"].map(of).fillna(0.0)

    Examples
    --------
    >>> interactions = pd.DataFrame({"viewer_id": ["v1", "v2", "v2"], "other_id": ["m", "m", "v2"],
    ...     "at": pd.to_datetime(["2024-05-01", "2024-05-02", "2024-05-02"])})
    >>> engagement = pd.DataFrame({"viewer_id": ["m", "m"], "amount": [2.0, 6.0],
    ...     "at": pd.to_datetime(["2024-05-01 12:00", "2024-05-03 00:00"])})
    >>> credit_downstream(interactions, engagement, share=0.5, window="7d")
      viewer_id  credited
    0        v1       2.5
    1        v2       1.5
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}; allowed: a part of the engagement, 0 to 1")
    length = _window(window)
    _check(interactions, "interactions", ["viewer_id", "other_id", "at"])
    _check(engagement, "engagement", ["viewer_id", "at"])
    if (interactions["at"].dt.tz is None) != (engagement["at"].dt.tz is None):
        raise TableError("interactions and engagement: at has a time zone in one of them only; give both in UTC")
    amount = _amount(engagement)

    given = interactions[interactions["viewer_id"] != interactions["other_id"]]
    member = pd.Index(given["other_id"].unique())
    engaged = member.get_indexer(pd.Index(engagement["viewer_id"]))
    credit = share * _amount_following(
        member.get_indexer(pd.Index(given["other_id"])),
        _nanoseconds(given["at"]),
        engaged[engaged >= 0],
        _nanoseconds(engagement["at"])[engaged >= 0],
        amount[engaged >= 0],
        length,
    )
    by_viewer = pd.Series(credit, index=given["viewer_id"].to_numpy(dtype=object)).groupby(level=0).sum()
    return pd.DataFrame({"viewer_id": by_viewer.index.to_numpy(dtype=object), "credited": by_viewer.to_numpy()})


def _amount_following(
    member: NDArray[np.intp],
    at: NDArray[np.int64],
    engaged: NDArray[np.intp],
    when: NDArray[np.int64],
    amount: Floats,
    length: int,
) -> Floats:
    """Return, for each interaction, the engagement of its member within the window after it, each over its k."""
    # Moments as ranks, so that (member, moment) is one sorted whole number.
    moments = np.unique(at)
    own = member.astype(np.int64) * (len(moments) + 1)
    order = np.argsort(own + np.searchsorted(moments, at), kind="stable")
    keys = (own + np.searchsorted(moments, at))[order]
    base = engaged.astype(np.int64) * (len(moments) + 1)
    first = np.searchsorted(keys, base + np.searchsorted(moments, when - length, side="right"))
    past = np.searchsorted(keys, base + np.searchsorted(moments, when, side="left"))
    k = past - first
    each = amount / np.maximum(k, 1)
    each[k == 0] = 0.0
    steps = np.bincount(first, each, len(keys) + 1) - np.bincount(past, each, len(keys) + 1)
    # Sums of differences end a rounding beside 0 where nothing followed; whole numbers do not.
    followed = np.cumsum(np.bincount(first, minlength=len(keys) + 1) - np.bincount(past, minlength=len(keys) + 1))
    following = np.empty(len(keys))
    following[order] = np.where(followed > 0, np.maximum(np.cumsum(steps), 0.0), 0.0)[:-1]
    return following


def _window(window: str | timedelta) -> int:
    """Return the window in nanoseconds; written as in a config."""
    try:
        length = pd.Timedelta(_DURATION.validate_python(window))
    except ValueError as error:
        raise ConfigError(f"window is {window!r}; allowed: a timedelta, or a number and s, m, h or d: '3d'") from error
    if length <= pd.Timedelta(0):
        raise ConfigError(f"window is {window!r}; allowed: above 0")
    return length.as_unit("ns").value


def _nanoseconds(at: pd.Series) -> NDArray[np.int64]:
    moments = at if at.dt.tz is None else at.dt.tz_convert("UTC").dt.tz_localize(None)
    return moments.to_numpy(dtype="datetime64[ns]").view(np.int64)


def _check(table: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    require_columns(table, name, columns)
    for column in columns:
        null = table[column].isna()
        if null.any():
            raise TableError(
                f"{name}: {column} is null in {null.sum():,} of {len(table):,} rows; first: row {null.argmax()}"
            )
    if not pd.api.types.is_datetime64_any_dtype(table["at"]):
        raise TableError(f"{name}: at is of type {table['at'].dtype}; it must hold moments, see pandas.to_datetime")


def _amount(engagement: pd.DataFrame) -> Floats:
    if "amount" not in engagement:
        return np.ones(len(engagement))
    amount = numbers(engagement, "engagement", "amount")
    wrong = ~np.isfinite(amount) | (amount < 0)
    refuse_where(engagement, "engagement", wrong, "amount is negative, null or infinite")
    return amount
