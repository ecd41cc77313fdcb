"""After `spr warm` no page compiles anything."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHILD = """
import numpy as np
from spr.reorder import ImpressionGuarantee, PageBounds, PageExploration, arrange, explore, reorder
from spr.reorder import bounds, filling

rng = np.random.default_rng(0)
types, edges = np.array(["people", "event", "group"], dtype=object), {"people": "connection"}
for n in (1, 5, 20):
    entity_type = types[rng.integers(0, 3, n)]
    labels = {"entity_type": entity_type, "edge_type": [edges.get(t, "subscribe") for t in entity_type]}
    value = rng.random(n).astype(np.float32)
    arrange(value, labels, [])
    reorder(value.tolist(), labels["edge_type"], {"connection": 1}, within_top=4)
    both = [
        ImpressionGuarantee("a", "edge_type", "connection", share=0.4, maximum=3, within_top=5),
        ImpressionGuarantee("b", "entity_type", "event", minimum=1.5, within_top=5),
        ImpressionGuarantee("c", "entity_type", "group", maximum_by_prefix=(0, 1, 1)),
    ]
    arrange(value, labels, both, delivered={"a": 1}, delivered_total=7, uniform=0.2)
    page = PageBounds(n, labels, both, {"a": 1.0}, 7)
    for method in ("shuffle_top", "adjacent_swaps", "epsilon", "plackett_luce"):
        explore(page, value.astype(np.float64), PageExploration(method, draws=2), "r", "salt")
missed = {
    name: dict(thing.stats.cache_misses)
    for module in (bounds, filling) for name, thing in vars(module).items()
    if hasattr(thing, "stats") and hasattr(thing, "signatures") and thing.stats.cache_misses
}
print("missed", missed)
"""


def _run(code: str, folder: Path, cache: Path) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_nothing_compiles_after_warm(tmp_path: Path) -> None:
    _run("from spr.reorder.warm import warm; warm()", tmp_path, tmp_path / "cache")
    assert "missed {}" in _run(CHILD, tmp_path, tmp_path / "cache")
