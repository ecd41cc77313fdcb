"""Compiling the loops that fill pages ahead of time, as a step of building an image: ``spr warm``."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np


def warm() -> tuple[float, Path]:
    """Compile every loop of `spr.reorder` into numba's cache, by making a page of each kind.

    Returns
    -------
    seconds : float
        What it took; well below one where the cache was warm.
    path : Path
        Where the loops are cached.
    """
    from spr.reorder.arrangement import arrange
    from spr.reorder.bounded import PageBounds
    from spr.reorder.exploration import PageExploration, explore
    from spr.reorder.filling import fill
    from spr.reorder.guarantees import ImpressionGuarantee

    started = time.perf_counter()
    value, edge_type = np.array([0.4, 0.3, 0.2, 0.1]), ["follow", "follow", "connection", "subscribe"]
    floors = [
        ImpressionGuarantee("share", "edge_type", "connection", share=0.3, within_top=3, price=0.1),
        ImpressionGuarantee("steps", "edge_type", "subscribe", minimum_by_prefix=(0, 0, 1)),
        ImpressionGuarantee("most", "edge_type", "follow", maximum=1, within_top=3),
    ]
    page = arrange(value, {"edge_type": edge_type}, floors)
    floors[0].minima(len(page.order), delivered_total=4.0)
    arrange(value, {}, ())
    bounds = PageBounds(len(value), {"edge_type": edge_type}, floors[:2], {}, 0.0)
    explore(bounds, value, PageExploration("epsilon"), "r", "warm")
    return time.perf_counter() - started, Path(fill.stats.cache_path)
