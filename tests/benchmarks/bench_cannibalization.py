"""Cannibalization held against the truth of made networks: estimates, coverage of the intervals, false marks.

``python tests/benchmarks/bench_cannibalization.py [worlds]``: 40 networks with planted effects and 40 with none, of
1,500 shuffled pages each. Exits with 1 where the 95 % intervals cover less than 93 %, or too much is found where there
is nothing.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from measuring import print_table
from scipy.stats import binom

from simulations import Behaviour, World
from simulations.behaviour import ENTITY_TYPES
from simulations.policies import Shuffled
from spr.evaluation.arrangements import read_arrangements
from spr.evaluation.cannibalization import Cannibalization, estimate_above_effects

STRENGTHS = {"company": {"hashtag": 0.4}, "member_follow": {"people": 0.5}, "event": {"group": -0.3}}
PAGES, VIEWERS = 1_500, 1_000
LEVEL, LEAST_COVERAGE = 0.95, 0.93
REFERENCES = (None, "newsletter")


def estimated(seed: int, strengths: dict[str, dict[str, float]]) -> Cannibalization:
    """Estimate on one network's log, which is known to keep the contract of the table, and so is not read again."""
    world = World(VIEWERS, seed=seed, behaviour=Behaviour(cannibalization=strengths))
    logs = []
    world.run(PAGES, policy=Shuffled(), log=logs.append)
    pages = read_arrangements(logs[0], {name: name for name in ENTITY_TYPES}, "response")
    return Cannibalization(pages.types, estimate_above_effects(pages), "entity_type", "response", LEVEL, PAGES)


def with_truth(found: Cannibalization, strengths: dict[str, dict[str, float]]):
    """Put the true contrast beside each estimate."""
    order = [ENTITY_TYPES.index(name) for name in found.types]
    truth = -Behaviour(cannibalization=strengths).cannibalization_matrix[np.ix_(order, order)]
    if found.reference is None:
        share = found.matrix("share_above").to_numpy()
        contrast = (truth - (truth * share).sum(axis=1, keepdims=True)) / (1 - share)
    else:
        contrast = truth - truth[:, [found.types.index(found.reference)]]
    table = found.to_pandas().assign(truth=contrast.ravel(), planted=truth.ravel() != 0)
    table["covered"] = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
    return table


def main() -> None:
    worlds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    started = time.perf_counter()
    rows, summary, failed = [], [], []
    for name, strengths in (("planted", STRENGTHS), ("nothing", {})):
        found = [estimated(1000 + seed, strengths) for seed in range(worlds)]
        for reference in REFERENCES:
            tables = [with_truth(one.relative_to(reference), strengths) for one in found]
            tested = [table[table["standard_error"] > 0] for table in tables]
            share = np.concatenate([table["covered"] for table in tested])
            by_world = np.array([table["covered"].mean() for table in tested])
            wrong = [bool((table["marked"] & (table["truth"] == 0)).any()) for table in tested]
            z = np.concatenate([(table["log_ratio"] - table["truth"]) / table["standard_error"] for table in tested])
            limit = binom.ppf(0.999, worlds, 1 - LEVEL)
            summary.append(
                {
                    "worlds": name,
                    "relative to": reference or "average of others",
                    "pairs": len(share),
                    "null": sum(int(table["log_ratio"].isna().sum()) for table in tables),
                    "coverage": float(share.mean()),
                    "+/-": float(by_world.std(ddof=1) / np.sqrt(worlds)),
                    "mean z": float(z.mean()),
                    "sd z": float(z.std()),
                    "worlds with a false mark": sum(wrong),
                    "allowed": int(limit),
                }
            )
            if share.mean() < LEAST_COVERAGE or sum(wrong) > limit:
                failed.append(f"{name}, {reference}")
            for a, of in strengths.items() if reference else ():
                for b in of:
                    pair = [table.set_index(["type", "above"]).loc[(a, b)] for table in tables]
                    estimates = np.array([one["log_ratio"] for one in pair], dtype=float)
                    errors = np.array([one["standard_error"] for one in pair], dtype=float)
                    rows.append(
                        {
                            "type": a,
                            "above": b,
                            "truth": float(pair[0]["truth"]),
                            "mean": float(np.nanmean(estimates)),
                            "+/-": float(np.nanstd(estimates) / np.sqrt(worlds)),
                            "sd": float(np.nanstd(estimates)),
                            "standard error": float(np.nanmean(errors)),
                            "coverage": float(np.mean([one["covered"] for one in pair])),
                            "marked": float(np.mean([one["marked"] for one in pair])),
                        }
                    )
    print_table(f"log ratio per cohort above, relative to newsletter, {PAGES:,} shuffled pages", rows)
    print_table(f"{LEVEL:.0%} intervals of all pairs; marks by Holm at {1 - LEVEL:.2f}", summary)
    print(f"\n{time.perf_counter() - started:.0f} s")
    if failed:
        sys.exit(f"coverage below {LEAST_COVERAGE:.0%}, or too many false marks: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
