"""Compiling the loops ahead of time, as a step of building an image: ``spr warm``."""

from __future__ import annotations

import functools
import logging
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from spr.glmix.kernels import newton_step

logger = logging.getLogger(__name__)


def warm() -> tuple[float, Path]:
    """Compile every loop of `spr.glmix` into numba's cache, by fitting tiny models of all kinds.

    The cache is ``NUMBA_CACHE_DIR`` where that is set, else beside the code. Run it where the service will run: the
    machine code is that of the processor, and a cache that was filled on another kind of processor is filled anew.

    Returns
    -------
    seconds : float
        What it took; a few where the cache was warm.
    path : Path
        Where the loops are cached.
    """
    from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, NearlineUpdater, RandomEffect, Trees

    note_cold_cache()
    started = time.perf_counter()
    X, y = _few_rows()
    bounded = RandomEffect("user", "user", ["x"], max_rows=8, min_rows=2, max_features=1, parent="segment")
    # a penalty of their own keeps two from being dropped, so that there is a posterior to update
    segment, item = RandomEffect("segment", "segment", l2=1.0), RandomEffect("item", "item", ["z"], l2=1.0)
    effects = [segment, bounded, item]
    full = GLMixClassifier(Linear(["x", "age"]), effects, variance="full", sweeps=2).fit(X, y, groups=X["user"])
    full.sample_margins(X, rng=np.random.default_rng(0))
    NearlineUpdater(full, "item").update(X[:4], y[:4])
    GLMixClassifier(Linear(["x", "age"]), effects, variance="full", sweeps=2).fit(X, y, start=full, forgetting=0.9)
    diagonal = GLMixClassifier(
        Trees(["x", "z"], n_rounds=4), [segment, RandomEffect("user", "user")], variance="diagonal", sweeps=2
    )
    NearlineUpdater(diagonal.fit(X, y, groups=X["user"]), "segment").update(X[:4], y[:4])
    for family in ("gaussian", "poisson"):
        GLMixRegressor(None, effects, family=family, variance="full", sweeps=2).fit(X, y)
    return time.perf_counter() - started, Path(newton_step.stats.cache_path)


@functools.cache
def note_cold_cache() -> None:
    """Say, once in a process, that a first fit compiles, and where nothing keeps what it compiled."""
    path = Path(newton_step.stats.cache_path)
    if not any(path.glob("kernels.newton_step-*.nbi")):
        logger.warning(
            "compiling the loops of spr.glmix, which takes up to a minute; `spr warm` does it once and for all, "
            "for instance in the build of an image"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        logger.warning(
            "the cache of compiled loops, %s, cannot be written to: what it lacks is compiled anew in each process. "
            "Set NUMBA_CACHE_DIR to a folder that can, or fill it with `spr warm` where it can",
            path,
        )


def _few_rows() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(120), 6)
    frame = pd.DataFrame({"user": user, "segment": user % 6, "item": rng.integers(0, 30, user.size)})
    frame["age"] = (user % 9).astype(float)
    frame["x"], frame["z"] = rng.normal(size=(2, user.size))
    return frame, (rng.random(user.size) < 0.4).astype(float)
