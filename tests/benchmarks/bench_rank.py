"""One page: `rank` of 50 cohorts x 7 entities, 100 columns, 300 trees, beside XGBoost's own predict call.

Both run in turn in the same process, on one thread; CPU time. The peer scores the very matrix that `rank` builds.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import spr
from simulations import World
from spr.batch import CohortBatch

if TYPE_CHECKING:
    from collections.abc import Callable

N_COHORTS, N_ENTITIES, N_COLUMNS, N_TREES, N_CALLS = 50, 7, 100, 300, 400


def fit_ranker() -> spr.SecondPassRanker:
    # Below 50 viewers nothing is held out, so that boosting goes its whole length.
    network = World(45, seed=5).tables(4_000)
    config = spr.Config.named("network").to_dict()
    config["trees"] |= {"n_rounds": N_TREES, "early_stopping_rounds": N_TREES}
    config["features"] = {"viewer_in_trees": "yes"}
    rng = np.random.default_rng(0)
    viewers = network.viewers
    n_extra = N_COLUMNS - 43
    extra = rng.normal(size=(len(viewers), n_extra)).round(3)
    viewers = viewers.assign(**{f"number_{i:02d}": extra[:, i] for i in range(n_extra)})
    return spr.fit(network.impressions, viewers, network.entities, config=spr.Config.from_dict(config))


def make_request(ranker: spr.SecondPassRanker, r: int) -> spr.RankingRequest:
    rng = np.random.default_rng(r)
    viewer: dict[str, object] = {}
    for source in ranker.features.sources:
        if source.scope == "viewer":
            numbers = rng.normal(size=source.size).tolist()
            by_kind = {"number": numbers[0], "embedding": numbers}
            viewer[source.name] = source.levels[0] if source.kind == "category" else by_kind[source.kind]
    rankers = sorted(ranker.calibrators)
    cohorts = []
    for c in range(N_COHORTS):
        entity_type, version = rankers[c % len(rankers)]
        knots = ranker.calibrators[entity_type, version].knots
        raw_score = np.sort(rng.choice(knots, N_ENTITIES))[::-1].tolist()
        cohorts.append(spr.Cohort(f"cohort-{c}", entity_type, [f"e{i}" for i in range(N_ENTITIES)], raw_score, version))
    keys = ranker.effects[0].keys if ranker.effects else ["nobody"]
    chosen = spr.Viewer(str(keys[r % len(keys)]), viewer)
    return spr.RankingRequest(f"request-{r}", datetime(2026, 2, 1, tzinfo=UTC), chosen, cohorts)


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fit_ranker().save(f"{folder}/bundle")
        ranker = spr.load(f"{folder}/bundle")
    requests = [make_request(ranker, r) for r in range(20)]
    batch = CohortBatch.of_request(requests[0], ranker.config.entity_types)
    matrix = ranker.features.build(batch, ranker.value_cohorts(batch).expected_response)
    rows = np.ascontiguousarray(matrix[:, [ranker.features.columns.index(c) for c in ranker.trees.fitted.features]])
    booster = ranker.trees.fitted.booster
    base_margin = np.zeros(len(rows), dtype=np.float32)

    def peer() -> None:
        booster.inplace_predict(rows, predict_type="margin", base_margin=base_margin, validate_features=False)

    ours, theirs = [], []
    for call in range(N_CALLS + 50):
        request = requests[call % len(requests)]
        a, b = cpu_seconds(partial(ranker.rank, request)), cpu_seconds(peer)
        if call >= 50:
            ours.append(a)
            theirs.append(b)
    rank_p50, peer_p50 = np.median(ours), np.median(theirs)
    print(
        f"rank: {N_COHORTS} cohorts x {N_ENTITIES} entities, {rows.shape[1]} columns, "
        f"{ranker.trees.fitted.n_rounds} trees, {len(ranker.effects)} random effect(s), "
        f"{len(ranker.guarantees)} guarantee(s)"
    )
    print(f"rank                  p50 {rank_p50 * 1e6:7.0f} us   p99 {np.quantile(ours, 0.99) * 1e6:7.0f} us")
    print(f"xgboost's own predict p50 {peer_p50 * 1e6:7.0f} us   p99 {np.quantile(theirs, 0.99) * 1e6:7.0f} us")
    print(f"ratio of medians {rank_p50 / peer_p50:.2f}")


if __name__ == "__main__":
    main()
