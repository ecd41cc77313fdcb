"""What a replay finds in made logs: how often it calls a part old where nothing drifts, scores drift, or tastes drift.

``python tests/benchmarks/bench_replay.py [seeds]``: 6 seeds, under two minutes. Exits with 1 where a drift is missed in
any seed, or a part whose fit is nearly free of luck is called old in more seeds than 5 % explain. Trees have no bar: a
first fit may be unlucky, which no interval over viewers knows of, and the table shows how often.
"""

from __future__ import annotations

import runpy
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
from measuring import print_table
from scipy.stats import binom

import spr
from spr.evaluation import replay
from spr.evaluation.ageing import PARTS

MADE = runpy.run_path(str(Path(__file__).parents[1] / "spr" / "evaluation" / "conftest.py"))
DRIFTS: dict[str, dict[str, int]] = {
    "nothing drifts": {},
    "scores drift": {"shift_from": 8},
    "tastes drift": {"tastes_from": 8},
}
FOUND = {"scores drift": "calibrators", "tastes drift": "random effects"}
METRIC = "normalized_cross_entropy"


def main(n_seeds: int) -> int:
    config = spr.Config.parse(MADE["CONFIG"])
    viewers = pd.DataFrame({"viewer_id": [f"v{number:03d}" for number in range(60)]})
    called: dict[str, pd.DataFrame] = {}
    rows = []
    for drift, options in DRIFTS.items():
        tables = []
        for seed in range(n_seeds):
            log = MADE["make_log"](3000, seed=seed, **options)
            cuts = ["2026-03-09", "2026-03-17"]
            table = replay(log, viewers, config, cuts, window=timedelta(days=8), n_replicates=300).to_pandas()
            tables.append(table[table["metric"] == METRIC].set_index("part"))
        called[drift] = pd.DataFrame([table["worse"] for table in tables])
        mean = pd.DataFrame([table["difference"] for table in tables]).mean()
        rows += [
            {"world": drift, "part": part, "called old": f"{called[drift][part].sum()} of {n_seeds}", "kept - fresh": d}
            for part, d in mean[list(PARTS)].items()
        ]
    print_table("normalised cross entropy, kept 8 days against fresh", rows)
    most = int(binom.ppf(0.99, n_seeds, 0.05))
    missed = [f"{drift}: {part} missed" for drift, part in FOUND.items() if not called[drift][part].all()]
    still = called["nothing drifts"]
    missed += [f"{part} called old without drift" for part in FOUND.values() if still[part].sum() > most]
    print("\n".join(missed) or f"\nevery drift found; without drift at most {most} of {n_seeds} may be called old")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6))
