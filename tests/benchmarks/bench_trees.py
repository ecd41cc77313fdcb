"""CPU of boosting in blocks against xgboost.train alone: python tests/benchmarks/bench_trees.py (a minute)."""

from __future__ import annotations

import time

import numpy as np
import xgboost

from spr.glmix import Trees
from spr.glmix.boosting import TreesDescent
from spr.glmix.encoding import Encoding
from spr.glmix.families import Family

N, D, ROUNDS, BLOCKS = 200_000, 20, 300, 4


def main() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(N, D)).astype(np.float32)
    margin = rows[:, 0] + 0.5 * rows[:, 1] * rows[:, 2] + np.sin(2 * rows[:, 3]) - 0.5
    labels = (rng.random(N) < 1 / (1 + np.exp(-margin))).astype(float)
    hashes, draw = rng.integers(0, 2**63, N).astype(np.uint64), rng.random(N)
    encoding, family = Encoding(tuple(f"x{i}" for i in range(D)), {}), Family.named("binomial")

    def alone() -> float:
        started = time.process_time()
        data = xgboost.QuantileDMatrix(rows, labels, nthread=1)
        parameters = {"objective": "binary:logistic", "max_depth": 6, "learning_rate": 0.1, "nthread": 1}
        xgboost.train(parameters, data, ROUNDS)
        return time.process_time() - started

    def in_blocks(*, held_out: bool, out_of_fold: int = 0) -> float:
        started = time.process_time()
        watch, weights = np.where(held_out & (draw < 0.1), 1.0, 0.0), np.where(held_out & (draw < 0.235), 0.0, 1.0)
        spec = Trees(n_rounds=ROUNDS, early_stopping_rounds=ROUNDS, out_of_fold=out_of_fold)
        descent = TreesDescent(spec, encoding, rows, hashes, watch, -0.5, family, BLOCKS)
        for _ in range(BLOCKS):
            descent.advance(labels, weights, np.zeros(N))
        descent.finish()
        return time.process_time() - started

    in_blocks(held_out=True)  # compiles
    peer = min(alone() for _ in range(2))
    print(f"xgboost.train alone: {peer:.2f} CPU s")
    for name, seconds in (
        ("all rows teach", min(in_blocks(held_out=False) for _ in range(2))),
        ("10 % watched, 13.5 % held out", min(in_blocks(held_out=True) for _ in range(2))),
        ("the same, 2 folds", in_blocks(held_out=True, out_of_fold=2)),
    ):
        print(f"in blocks, {name}: {seconds:.2f} CPU s, ratio {seconds / peer:.3f}")


if __name__ == "__main__":
    main()
