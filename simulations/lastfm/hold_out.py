"""The curtain: which edges the first pass may see, and which are left to be formed on a page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import numpy.typing as npt

    from simulations.lastfm.reading import Network

EDGE_TYPES = {"people": "connection", "artist": "follow", "tag": "subscribe"}
KEY = ["viewer_id", "entity_type", "entity_id"]


@dataclass(frozen=True)
class HoldOut:
    """A network in two parts.

    Parameters
    ----------
    kept : Network
        What features may be made of: without the held-out edges, their plays and their tag assignments.
    held_out, standing : DataFrame
        viewer_id, edge_type, entity_type, entity_id, weight: the edges left to be formed, and all others. A
        tag that the viewer gave to held-out artists only stands, yet the kept part does not show it.
    """

    kept: Network
    held_out: pd.DataFrame
    standing: pd.DataFrame

    def with_response(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Return the pairs that could be recommended, and which of them are held-out edges.

        Parameters
        ----------
        pairs : DataFrame
            viewer_id, entity_type, entity_id, and any other columns.

        Returns
        -------
        DataFrame
            Without the pairs whose edge stands, and with the column ``would_respond`` (bool).
        """
        index = pd.MultiIndex.from_frame(pairs[KEY])
        free = pairs.loc[~index.isin(pd.MultiIndex.from_frame(self.standing[KEY]))]
        held_out = pd.MultiIndex.from_frame(self.held_out[KEY])
        would_respond = pd.MultiIndex.from_frame(free[KEY]).isin(held_out)
        return free.assign(would_respond=would_respond).reset_index(drop=True)


def list_edges(network: Network) -> pd.DataFrame:
    """Return the network's edges: a friend is a connection, an artist played a follow, a tag a subscription.

    Parameters
    ----------
    network : Network
        Whole, or the kept part.

    Returns
    -------
    DataFrame
        viewer_id, edge_type, entity_type, entity_id, weight: log(1 + plays) of an artist, log(1 + assignments)
        of a tag, 1 of a friend. Sorted.

    Examples
    --------
    >>> from simulations.lastfm.reading import Network
    >>> network = Network(
    ...     friends=pd.DataFrame({"viewer_id": ["u1", "u2"], "friend_id": ["u2", "u1"]}),
    ...     plays=pd.DataFrame({"viewer_id": ["u1"], "artist_id": ["a1"], "plays": [9]}),
    ...     assignments=pd.DataFrame(columns=["viewer_id", "artist_id", "tag_id", "day"]),
    ...     names=pd.DataFrame(),
    ... )
    >>> list_edges(network).round(2)
      viewer_id   edge_type entity_type entity_id  weight
    0        u1      follow      artist        a1     2.3
    1        u1  connection      people        u2     1.0
    2        u2  connection      people        u1     1.0
    """
    uses = network.assignments.groupby(["viewer_id", "tag_id"], as_index=False).size()
    friends, plays = network.friends, network.plays
    edges = pd.concat(
        [
            _edges("people", friends["viewer_id"], friends["friend_id"], np.ones(len(friends))),
            _edges("artist", plays["viewer_id"], plays["artist_id"], np.log1p(plays["plays"])),
            _edges("tag", uses["viewer_id"], uses["tag_id"], np.log1p(uses["size"])),
        ]
    )
    return edges.sort_values(KEY, ignore_index=True)


def hold_out(network: Network, share: float, *, seed: int) -> HoldOut:
    """Hold out a share of the edges, each by a hash of itself and the seed.

    Parameters
    ----------
    network : Network
        Whole, or the kept part of another hold-out.
    share : float
        Chance of each edge, in [0, 1].
    seed : int
        Another seed, other edges.

    Returns
    -------
    HoldOut
        A friendship is held out in both directions or in none. Since the hash looks at nothing but the edge,
        what is kept does not change when held-out edges come, go or change.

    Examples
    --------
    >>> from simulations.lastfm.reading import Network
    >>> network = Network(
    ...     friends=pd.DataFrame({"viewer_id": ["u1", "u2"], "friend_id": ["u2", "u1"]}),
    ...     plays=pd.DataFrame({"viewer_id": ["u1"], "artist_id": ["a1"], "plays": [9]}),
    ...     assignments=pd.DataFrame(columns=["viewer_id", "artist_id", "tag_id", "day"]),
    ...     names=pd.DataFrame(),
    ... )
    >>> split = hold_out(network, 1.0, seed=7)
    >>> len(split.held_out), len(split.standing), len(split.kept.friends)
    (3, 0, 0)
    """
    friends, plays, assignments = network.friends, network.plays, network.assignments
    in_order = friends["viewer_id"] < friends["friend_id"]
    first = friends["viewer_id"].where(in_order, friends["friend_id"])
    second = friends["friend_id"].where(in_order, friends["viewer_id"])
    hidden_friends = _is_hidden("people", first, second, share, seed)
    hidden_plays = _is_hidden("artist", plays["viewer_id"], plays["artist_id"], share, seed)
    hidden_tags = _is_hidden("tag", assignments["viewer_id"], assignments["tag_id"], share, seed)
    # also where the viewer tagged an artist without playing it: else the assignment would tell of the play
    hidden_artists = _is_hidden("artist", assignments["viewer_id"], assignments["artist_id"], share, seed)
    kept = replace(
        network,
        friends=friends.loc[~hidden_friends].reset_index(drop=True),
        plays=plays.loc[~hidden_plays].reset_index(drop=True),
        assignments=assignments.loc[~hidden_tags & ~hidden_artists].reset_index(drop=True),
    )
    hidden = replace(
        network,
        friends=friends.loc[hidden_friends],
        plays=plays.loc[hidden_plays],
        assignments=assignments.loc[hidden_tags],
    )
    shown = replace(
        network,
        friends=kept.friends,
        plays=kept.plays,
        assignments=assignments.loc[~hidden_tags],
    )
    return HoldOut(kept=kept, held_out=list_edges(hidden), standing=list_edges(shown))


def _edges(entity_type: str, viewer: pd.Series[str], entity: pd.Series[str], weight: npt.ArrayLike) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "viewer_id": viewer.to_numpy(),
            "edge_type": EDGE_TYPES[entity_type],
            "entity_type": entity_type,
            "entity_id": entity.to_numpy(),
            "weight": np.asarray(weight, dtype=np.float64),
        }
    )


def _is_hidden(
    entity_type: str, viewer: pd.Series[str], entity: pd.Series[str], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    edge = f"{seed}:{entity_type}:" + viewer.astype(object) + ":" + entity.astype(object)
    uniform = pd.util.hash_array(edge.to_numpy(dtype=object), categorize=False) / 2.0**64
    return np.asarray(uniform < share)
