"""Sweeps at scale: 5M rows with one and two threads; with the argument ``large`` 20M rows, 1M members, in a few GB.

Random effects alone, 11 + 11 coefficients, a given margin, fixed penalties; each fit in a process of its own, whose
peak of resident memory includes the data. CPU time of one thread; the two threads are judged by the wall clock, so that
nothing else should be running.
"""

from __future__ import annotations

import measuring as m  # isort: split

import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spr.glmix import GLMixClassifier, RandomEffect

if TYPE_CHECKING:
    from collections.abc import Sequence

SWEEPS = 3
BAR_SWEEP, BAR_THREADS = 3.0, 1.7
BAR_LARGE_CPU, BAR_LARGE_GB = 40.0, 6.0


@dataclass(frozen=True)
class Size:
    rows: int
    members: int
    items: int


SIZES = {"5M": Size(5_000_000, 200_000, 20_000), "20M": Size(20_000_000, 1_000_000, 20_000)}


def resident_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def child(name: str) -> None:
    size, threads = SIZES[name], int(m.THREADS)
    fit(m.make_feed(2_000, 60, 20), threads)
    feed = m.make_feed(size.rows, size.members, size.items)
    data_gb = resident_gb()
    started = time.perf_counter()
    clock = m.SweepClock()
    cpu, model = m.cpu_and_result(lambda: fit(feed, threads, clock))
    sweeps = clock.sweeps()
    report = {
        "rows": name,
        "threads": threads,
        "sweeps": len(sweeps) + 1,
        "CPU s a sweep": float(np.median([cpu for cpu, _ in sweeps])),
        "wall s a sweep": float(np.median([wall for _, wall in sweeps])),
        "fit CPU s": cpu,
        "fit wall s": time.perf_counter() - started,
        "loss": float(model.history_["loss"].iloc[-1]),
        "data GB": data_gb,
        "peak GB": resident_gb(),
    }
    print(json.dumps(report))


def fit(feed: m.Feed, threads: int, clock: m.SweepClock | None = None) -> GLMixClassifier:
    effects = [
        RandomEffect("member", "member", m.MEMBER_FEATURES, l2=12.0),
        RandomEffect("item", "item", m.ITEM_FEATURES, l2=30.0),
    ]
    model = GLMixClassifier(None, effects, sweeps=SWEEPS, n_threads=threads)
    return model.fit(feed.frame, feed.clicked, offset=feed.given, progress=clock)


def measured(name: str, threads: int) -> dict[str, Any]:
    return m.in_child(__file__, name, {"SPR_BENCH_THREADS": str(threads)})


def main() -> None:
    one, two = measured("5M", 1), measured("5M", 2)
    m.print_table("sweeps at scale: 200k members, 20k items, 11 + 11 coefficients", [one, two])
    print(f"one sweep: {one['CPU s a sweep']:.2f} CPU s (bar {BAR_SWEEP})")
    sweep, whole = (one[wall] / two[wall] for wall in ("wall s a sweep", "fit wall s"))
    print(f"two threads: {sweep:.2f} x one in a sweep, {whole:.2f} x in the whole fit (bar {BAR_THREADS})")


def large() -> None:
    found = measured("20M", 1)
    m.print_table("sweeps at scale: 1M members, 20k items, 11 + 11 coefficients", [found])
    sweeps = SWEEPS * found["CPU s a sweep"]
    print(
        f"three sweeps: {sweeps:.1f} CPU s, {found['fit CPU s']:.1f} with the rest of the fit (bar {BAR_LARGE_CPU:g})"
    )
    print(f"peak resident: {found['peak GB']:.1f} GB, of which the data {found['data GB']:.1f} (bar {BAR_LARGE_GB:g})")


def run(arguments: Sequence[str]) -> None:
    if not arguments:
        main()
    elif arguments[0] == "large":
        large()
    else:
        child(arguments[0])


if __name__ == "__main__":
    run(sys.argv[1:])
