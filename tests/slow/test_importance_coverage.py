"""Two hundred simulated experiments: intervals of importance factors cover, A/A alarms are rare, variance is low."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import bench_importance as bench

N = 200


@pytest.mark.parametrize("n_types", [3, 7])
def test_intervals_cover(n_types: int) -> None:
    found = bench.run(partial(bench.covered, n_types=n_types), range(N))
    reference = found[0]["types"].index(bench.REFERENCE[n_types])
    each = np.delete(np.array([one["each"] for one in found]), reference, axis=1).mean(axis=0)
    assert (each >= 0.90).all()
    assert (each <= 0.995).all()  # of 200; more would be intervals that say nothing
    assert 0.90 <= np.mean([one["all"] for one in found]) <= 0.995
    # shrunk log factors are nearer to the truth than raw ones
    assert np.mean([one["shrunk"] for one in found]) < np.mean([one["raw"] for one in found])


def test_nothing_dropped_is_seldom_taken_for_something() -> None:
    found = bench.run(partial(bench.rejected, n_types=3), range(10_000, 10_000 + N))
    assert np.mean([one["each"] for one in found]) < 0.1
    assert np.mean([one["joint"] for one in found]) < 0.1


def test_a_factorial_with_the_past_needs_a_fraction_of_the_viewers() -> None:
    found = bench.run(partial(bench.ratios_of, n_types=3), range(20_000, 20_000 + N))
    factor = bench.true_factors(3)[list(bench.edge_types(3))].to_numpy()
    variance = {}
    for design in ("factorial", "arms"):
        value = np.array([one[design] for one in found])
        variance[design] = (value - factor * value[:, [0]])[:, 1:].var(axis=0)
    assert np.mean(variance["factorial"] / variance["arms"]) < 0.3
