"""What people did with the edges they formed: the second pass's label, from real plays and tag dates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from simulations.lastfm.hold_out import KEY

if TYPE_CHECKING:
    from simulations.lastfm.reading import Network


def interacts_downstream(network: Network, edges: pd.DataFrame) -> pd.Series[bool]:
    """Say of each edge whether its viewer made something of it.

    Parameters
    ----------
    network : Network
        Whole: behaviour is a label, not a feature.
    edges : DataFrame
        viewer_id, entity_type, entity_id; edges of the network.

    Returns
    -------
    Series of bool
        With the index of `edges`. A friend: the viewer tagged an artist on a later day than the friend first
        tagged it. An artist: the viewer played it at least twice as often as the median of the artists they
        played. A tag: the viewer gave it in a later month than the month of its first use by them.

    Examples
    --------
    >>> from simulations.lastfm.reading import Network
    >>> network = Network(
    ...     friends=pd.DataFrame(columns=["viewer_id", "friend_id"]),
    ...     plays=pd.DataFrame({"viewer_id": "u1", "artist_id": ["a1", "a2", "a3"], "plays": [9, 40, 20]}),
    ...     assignments=pd.DataFrame(
    ...         {"viewer_id": "u1", "artist_id": ["a1", "a2"], "tag_id": "t1",
    ...          "day": pd.to_datetime(["2009-01-01", "2009-02-01"], utc=True)}),
    ...     names=pd.DataFrame(),
    ... )
    >>> edges = pd.DataFrame(
    ...     {"viewer_id": "u1", "entity_type": ["artist", "artist", "tag"], "entity_id": ["a2", "a3", "t1"]})
    >>> interacts_downstream(network, edges).tolist()
    [True, False, True]
    """
    keys = pd.MultiIndex.from_frame(edges[KEY])
    done = pd.concat([_followed_friends(network, edges), _favourites(network), _lasting_tags(network)])
    return pd.Series(keys.isin(pd.MultiIndex.from_frame(done)), index=edges.index)


def _followed_friends(network: Network, edges: pd.DataFrame) -> pd.DataFrame:
    by_artist = network.assignments.groupby(["viewer_id", "artist_id"])["day"]
    first, last = by_artist.min().reset_index(), by_artist.max().reset_index()
    pairs = edges.loc[edges["entity_type"] == "people", KEY]
    friend_first = first.rename(columns={"viewer_id": "entity_id"})
    shared = pairs.merge(last, on="viewer_id").merge(
        friend_first, on=["entity_id", "artist_id"], suffixes=("", "_friend")
    )
    return shared.loc[shared["day"] > shared["day_friend"], KEY].drop_duplicates()


def _favourites(network: Network) -> pd.DataFrame:
    plays = network.plays
    often = plays["plays"] >= 2 * plays.groupby("viewer_id")["plays"].transform("median")
    favourites = plays.loc[often, ["viewer_id", "artist_id"]].rename(columns={"artist_id": "entity_id"})
    return favourites.assign(entity_type="artist")[KEY]


def _lasting_tags(network: Network) -> pd.DataFrame:
    month = 12 * network.assignments["day"].dt.year + network.assignments["day"].dt.month
    months = network.assignments.assign(month=month).groupby(["viewer_id", "tag_id"])["month"].agg(["min", "max"])
    lasting = months.index[months["max"] > months["min"]].to_frame(index=False)
    return lasting.rename(columns={"tag_id": "entity_id"}).assign(entity_type="tag")[KEY]
