from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from spr.errors import ConfigError, InvalidRequest
from spr.reorder import is_random, shuffle_propensity, shuffled


def test_is_random_keeps_its_share():
    chosen = sum(is_random(f"request-{i}", 0.05, "salt") for i in range(20_000))
    assert abs(chosen - 1000) < 4 * np.sqrt(20_000 * 0.05 * 0.95)
    assert not any(is_random(f"r{i}", 0.0, "salt") for i in range(200))
    assert all(is_random(f"r{i}", 1.0, "salt") for i in range(200))


def test_is_random_does_not_depend_on_the_viewer():
    chosen = np.array([[is_random(f"viewer{v}-{i}", 0.2, "salt") for i in range(500)] for v in range(20)]).sum(axis=1)
    assert chi2_contingency([chosen, 500 - chosen]).pvalue > 1e-3


def test_is_random_of_two_salts_is_independent():
    one, other = (np.array([is_random(f"r{i}", 0.3, salt) for i in range(5000)]) for salt in ("a", "b"))
    table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
    assert chi2_contingency(table).pvalue > 1e-3


def test_is_random_widens_with_the_share():
    small = {i for i in range(2000) if is_random(f"r{i}", 0.05, "salt")}
    large = {i for i in range(2000) if is_random(f"r{i}", 0.10, "salt")}
    assert small < large


def test_is_random_and_shuffled_are_the_same_in_each_process():
    script = (
        "from spr.reorder import is_random, shuffled\n"
        "print([i for i in range(100) if is_random(f'r{i}', 0.1, 's')], shuffled(7, 'r1', 's').tolist())"
    )
    here = f"{[i for i in range(100) if is_random(f'r{i}', 0.1, 's')]} {shuffled(7, 'r1', 's').tolist()}"
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_shuffled_is_uniform_over_positions_and_matches_its_propensity():
    n, requests = 5, 20_000
    counts = np.zeros((n, n))
    for i in range(requests):
        counts[np.arange(n), shuffled(n, f"r{i}", "salt")] += 1
    expected = requests * shuffle_propensity(n)
    assert chisquare(counts.ravel(), np.tile(expected, n), ddof=2 * n - 2).pvalue > 1e-3


def test_shuffled_is_independent_of_the_assignment():
    first = np.array([shuffled(4, f"r{i}", "salt")[0] for i in range(8000) if is_random(f"r{i}", 0.5, "salt")])
    assert chisquare(np.bincount(first, minlength=4)).pvalue > 1e-3


def test_shuffled_holds_each_cohort_once():
    assert sorted(shuffled(50, "r1", "salt").tolist()) == list(range(50))
    assert shuffled(0, "r1", "salt").tolist() == []
    assert shuffle_propensity(0).tolist() == []


def test_exploration_refuses_impossible_input():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="share of the random policy"):
            is_random("r1", share, "salt")
    with pytest.raises(InvalidRequest, match="-1 cohorts"):
        shuffled(-1, "r1", "salt")
