"""Two thousand logs with nothing wrong: the check of the random bucket alarms as often as it says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spr.reorder.balance import check_random_bucket

N_LOGS, N_REQUESTS, N_VIEWERS, SHARE = 2000, 400, 80, 0.2


def make_log(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make a log of pages of three types, heavy and light viewers, a bucket by request and a full shuffle."""
    activity = rng.pareto(1.5, N_VIEWERS) + 0.2
    viewer = rng.choice(N_VIEWERS, N_REQUESTS, p=activity / activity.sum())
    seconds = rng.integers(0, 7 * 86_400, N_REQUESTS)
    random = rng.random(N_REQUESTS) < SHARE
    size = rng.integers(3, 7, N_REQUESTS)
    request = np.repeat(np.arange(N_REQUESTS), size)
    entity_type = rng.integers(3, size=len(request))
    raw_score = rng.normal(entity_type, 1.0)
    order = np.lexsort((np.where(random[request], rng.random(len(request)), -raw_score), request))
    position = np.empty(len(request), dtype=np.int64)
    position[order] = np.arange(len(request)) - np.searchsorted(request, np.arange(N_REQUESTS))[request]
    log = pd.DataFrame(
        {
            "request_id": request,
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(seconds[request], unit="s"),
            "viewer_id": viewer[request].astype(str),
            "policy": np.where(random[request], "random", "spr"),
            "cohort_id": np.arange(len(request)),
            "entity_type": np.array(["a", "b", "c"])[entity_type],
            "position": position,
            "raw_score": raw_score,
        }
    )
    names = np.arange(N_VIEWERS).astype(str)
    return log, pd.DataFrame({"viewer_id": names, "activity": activity, "age": rng.normal(size=N_VIEWERS)})


def test_the_check_holds_its_level() -> None:
    alarms, p_values = 0, []
    for seed in range(N_LOGS):
        log, viewers = make_log(np.random.default_rng(seed))
        check = check_random_bucket(log, SHARE, viewers, alpha=0.05)
        alarms += not check.passed
        p_values.append(check.tests["p_value"])
    assert 0.035 <= alarms / N_LOGS <= 0.065
    below = (pd.concat(p_values, axis=1) < 0.05).mean(axis=1)
    assert (below <= 0.065).all(), below  # binomial counts and heavy viewers make some of them cautious
    assert below.mean() >= 0.035, below
