"""What the first fit of a process costs: with numba's cache filled, and with none.

Each fit is a process of its own: seconds of the import (beyond numpy and pandas), of the first fit of a tiny model, and
of a second one. Wall time, for it is a person or a server that waits. Bar: with a warm cache a pause of 2 s.
"""

from __future__ import annotations

import measuring as m  # isort: split

import json
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = 2.0


def child(fixed: str) -> None:
    started = time.perf_counter()
    from spr.glmix import GLMixClassifier, Linear, RandomEffect, Trees

    imported = time.perf_counter()
    feed = m.make_feed(2_000, 60, 20)
    effects = [RandomEffect("member", "member", m.MEMBER_FEATURES), RandomEffect("item", "item", m.ITEM_FEATURES)]
    spec = Linear(m.MEMBER_FEATURES) if fixed == "linear" else Trees(m.MEMBER_FEATURES, n_rounds=4)
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        GLMixClassifier(spec, effects, variance="full").fit(feed.frame, feed.clicked).predict_proba(feed.frame)
        times.append(time.perf_counter() - begun)
    print(json.dumps({"import s": imported - started, "first fit s": times[0], "second fit s": times[1]}))


def main() -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("cold", "warm"):
            for fixed in ("linear", "trees"):
                # the second kind of fixed effect finds what the first has compiled, so that it has a folder of its own
                found = m.in_child(__file__, fixed, {"NUMBA_CACHE_DIR": f"{folder}/{fixed}"})
                rows.append({"numba cache": cache, "fixed effect": fixed} | found)
    m.print_table("the first fit of a process", rows)
    warm = [row for row in rows if row["numba cache"] == "warm"]
    pauses = [float(str(row["first fit s"])) - float(str(row["second fit s"])) for row in warm]
    print(f"pause with a warm cache: at most {max(pauses):.2f} s (bar {BAR})")


def run(arguments: Sequence[str]) -> None:
    if arguments:
        child(arguments[0])
    else:
        main()


if __name__ == "__main__":
    run(sys.argv[1:])
