"""After `spr warm` nothing compiles; with a cold or read-only cache the fit says what it is doing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from spr.glmix import warm

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CHILD = """
import numpy as np, pandas as pd, pyarrow as pa, pkgutil, importlib
import spr.glmix
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, NearlineUpdater, RandomEffect, Trees

rng = np.random.default_rng(0)
n = 3000
X = pd.DataFrame({"k": [f"u{i}" for i in rng.integers(0, 80, n)], "g": rng.integers(0, 5, n), "x": rng.normal(size=n),
                  "b": rng.random(n) < 0.5, "s": rng.choice(["p", "q"], n), "i": rng.integers(0, 9, n)})
y = (rng.random(n) < 0.4).astype(int)
frozen = np.zeros(n, dtype=np.float32); frozen.setflags(write=False)
effects = [RandomEffect("m", "k", ["x", "b", "s"], l2=1.0), RandomEffect("g", "g", ["i"])]
one = GLMixClassifier(Linear(["x", "b", "s"]), effects, variance="full")
one.fit(pa.Table.from_pandas(X), pa.array(y), offset=frozen)
one.predict_proba(pa.Table.from_pandas(X)); one.sample_margins(X, rng=rng); one.explain(X[:1])
one.model_.save("kept"); spr.glmix.MixedModel.load("kept").margins(X)
NearlineUpdater(one, "m").update(X[:9], y[:9])
two = GLMixClassifier(Trees(["x", "i"], n_rounds=5), effects, variance="diagonal", negative_share=0.5, n_threads=2)
two.fit(X, y == 1, sample_weight=np.ones(n, dtype=np.float32), groups=X["k"])
GLMixClassifier(None, [RandomEffect("m", "k", l2=1.0, max_rows=5)]).fit(X, y, start=None)
for family in ("gaussian", "poisson"):
    GLMixRegressor(Linear(["x"]), effects, family=family, variance="full").fit(X, y).predict(X)
missed = {}
for module in pkgutil.iter_modules(spr.glmix.__path__, "spr.glmix."):
    if module.name.endswith(("avro", "tuning")):
        continue
    for name, thing in vars(importlib.import_module(module.name)).items():
        if hasattr(thing, "stats") and hasattr(thing, "signatures") and thing.stats.cache_misses:
            missed[name] = dict(thing.stats.cache_misses)
print("missed", missed)
"""


def _run(code: str, folder: Path, cache: Path) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_nothing_compiles_after_warm(tmp_path: Path) -> None:
    cold = _run("from spr.glmix.warm import warm; warm()", tmp_path, tmp_path / "cache")
    assert "compiling the loops of spr.glmix" in cold
    assert "missed {}" in _run(CHILD, tmp_path, tmp_path / "cache")


def test_read_only_cache_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    warm.note_cold_cache.cache_clear()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with caplog.at_level(logging.WARNING, logger="spr.glmix.warm"):
        warm.note_cold_cache()
        warm.note_cold_cache()
    assert sum("cannot be written to" in message for message in caplog.messages) == 1
    assert any("Set NUMBA_CACHE_DIR" in message for message in caplog.messages)
