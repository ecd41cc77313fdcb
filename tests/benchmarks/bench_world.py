"""One million page views of twelve cohorts in a made network: time and memory, with and without the public tables.

There is no peer that makes the same; the bar is 60 seconds on two cores.
"""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

from simulations import World
from simulations.policies import ExpectedGain

if TYPE_CHECKING:
    import pandas as pd

PAGES, WITH_TABLES = 1_000_000, 100_000


def main() -> None:
    world = World(20_000, seed=1, cohorts_per_page=(12, 12))
    world.run(1000)  # what is drawn once: edges, truth
    for name, policy in (("production, 5 % shuffled", None), ("expected gain", ExpectedGain())):
        wall, cpu = time.perf_counter(), time.process_time()
        run = world.run(PAGES, policy=policy)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{PAGES:,} page views of 12 cohorts, {name}: {wall:.0f} s, {cpu:.0f} CPU s (bar: 60 s)")
        print(
            f"  {run.totals['formed']:,.0f} edges formed, {run.totals['downstream']:,.0f} with a downstream interaction"
        )
    rows = []

    def count(table: pd.DataFrame) -> None:
        rows.append(len(table))

    wall = time.perf_counter()
    world.run(WITH_TABLES, log=count)
    print(f"{WITH_TABLES:,} with the impressions table: {time.perf_counter() - wall:.0f} s, {sum(rows):,} rows")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()
