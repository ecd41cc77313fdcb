"""Pages to learn from and pages to judge on: later pages of known viewers, and all pages of held-out viewers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

UNSEEN_SHARE = 0.1
FREQUENT_SHARE = 1 / 3


@dataclass(frozen=True)
class PageSplit:
    """Impressions, split.

    Parameters
    ----------
    train : DataFrame
        Pages whose labels were mature at the cut, of viewers who are not unseen.
    test : DataFrame
        Later pages of the same viewers, and all pages of unseen viewers.
    frequency : dict
        viewer_id -> "frequent" (the third with most training pages), "infrequent" or "unseen".
    """

    train: pd.DataFrame
    test: pd.DataFrame
    frequency: dict[str, str]


def split_pages(
    impressions: pd.DataFrame, *, until: pd.Timestamp, seed: int, windows: timedelta = timedelta(0)
) -> PageSplit:
    """Split impressions by time, and hold a tenth of the viewers out entirely.

    Parameters
    ----------
    impressions : DataFrame
        With request_id, viewer_id and at.
    until : Timestamp
        The first moment that is not learnt from.
    seed : int
        Draws the unseen viewers.
    windows : timedelta, default 0
        How long a label takes to mature. A page is learnt from when its labels were mature at ``until``; pages in
        between are in neither part.

    Returns
    -------
    PageSplit

    Examples
    --------
    >>> import pandas as pd
    >>> from simulations import World
    >>> split = split_pages(World(100, seed=1).impressions(400), until=pd.Timestamp("2026-01-24", tz="UTC"), seed=1)
    >>> sorted(set(split.frequency.values()))
    ['frequent', 'infrequent', 'unseen']
    """
    viewer_ids = sorted(impressions["viewer_id"].unique())
    n_unseen = round(UNSEEN_SHARE * len(viewer_ids))
    unseen = np.random.default_rng([seed, 3]).choice(viewer_ids, size=n_unseen, replace=False)
    is_unseen = impressions["viewer_id"].isin(unseen)
    learnt = ~is_unseen & (impressions["at"] + windows < until)
    judged = is_unseen | (impressions["at"] >= until)
    train = impressions.loc[learnt].reset_index(drop=True)
    n_pages = train.groupby("viewer_id")["request_id"].nunique()
    often = n_pages >= n_pages.quantile(1 - FREQUENT_SHARE)
    known = {str(viewer): "frequent" if frequent else "infrequent" for viewer, frequent in often.items()}
    return PageSplit(
        train=train,
        test=impressions.loc[judged].reset_index(drop=True),
        frequency={str(viewer): known.get(str(viewer), "unseen") for viewer in viewer_ids},
    )
