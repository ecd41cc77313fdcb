from __future__ import annotations

import os
import pickle
import subprocess
import sys
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.errors import ConfigError, InfeasibleGuarantee
from spr.reorder import ImpressionGuarantee, check_guarantees


def floor(name="g", label="connection", kind="edge_type", **terms):
    return ImpressionGuarantee(name, kind, label, **terms)


def test_minima_of_a_share_do_not_rise_by_rounding():
    # 0.1 * 30 is 3.0000000000000004: nothing is due before the 31st impression.
    minima = floor(share=0.1, within_top=2).minima(2, delivered=2, delivered_total=29)
    assert minima.tolist() == [0, 1]


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 100), st.integers(0, 10_000_000), st.integers(-30, 30), st.integers(1, 4), st.integers(0, 15))
def test_minima_of_a_share_equal_exact_arithmetic(percent, total, ahead, half_slack, n):
    delivered = min(max(percent * total // 100 + ahead, 0), total)
    slack = 0.5 + half_slack / 2
    share = floor(share=percent / 100, slack=slack, within_top=10, catch_up=1e9)
    exact = [
        max(0, ceil(Fraction(percent, 100) * (total + p) - delivered - Fraction(slack)))
        for p in range(1, min(n, 10) + 1)
    ]
    assert share.minima(n, delivered=delivered, delivered_total=total).tolist() == exact


def test_minima_of_a_fixed_minimum_are_due_at_the_end():
    guarantee = floor(minimum=2, within_top=4)
    assert guarantee.minima(9).tolist() == [0, 0, 0, 2]
    assert guarantee.minima(3).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    "terms",
    [
        {"minimum": 3, "within_top": 2},
        {"minimum": -1},
        {"minimum": float("nan")},
        {"minimum": 10.5},
        {"minimum": True},
        {"share": 0.0},
        {"share": 1.2},
        {"share": float("nan")},
        {"share": 0.2, "slack": 0.5},
        {"share": 0.2, "slack": float("inf")},
        {"share": 0.2, "within_top": 0},
    ],
)
def test_impression_guarantee_refuses_terms_no_page_could_meet(terms):
    with pytest.raises(InfeasibleGuarantee, match="guarantee 'g'"):
        floor(**terms)


@pytest.mark.parametrize("terms", [{}, {"minimum": 1, "share": 0.5}, {"kind": "edge", "minimum": 1}])
def test_impression_guarantee_refuses_contradictory_terms(terms):
    with pytest.raises(ConfigError, match="guarantee 'g'"):
        floor(**terms)


@pytest.mark.parametrize(
    ("guarantees", "message"),
    [
        ([floor("a", minimum=1), floor("a", "follow", minimum=1)], "more than once: a"),
        ([floor("a", share=0.6), floor("b", "follow", share=0.5)], "shares of edge_type sum to 1.1"),
        (
            [floor("a", minimum=2, within_top=3), floor("b", "follow", minimum=2, within_top=3)],
            "minima of edge_type sum to 4 within the top 3",
        ),
        (
            [floor("a", minimum=2, within_top=2), floor("b", "follow", minimum=2, within_top=3)],
            "sum to 4 within the top 3",
        ),
        ([floor("a", share=0.2, within_top=5), floor("b", "follow", share=0.2)], r"tops \[5, 10\]"),
    ],
)
def test_check_guarantees_refuses_what_cannot_be_met_together(guarantees, message):
    with pytest.raises(InfeasibleGuarantee, match=message):
        check_guarantees(guarantees)


def test_check_guarantees_accepts_floors_that_overlap():
    check_guarantees(
        [
            floor("a", share=0.7),
            floor("b", "follow", share=0.3),
            floor("c", share=0.5),  # the same label: the larger share holds
            floor("d", "hashtag", "entity_type", share=0.3),  # inside follow
            floor("e", minimum=2, within_top=2),
            floor("f", minimum=2, within_top=3),
        ]
    )


def test_equal_guarantees_have_one_hash_in_every_process():
    pickled = pickle.dumps(floor(share=0.3)).hex()
    code = (
        "import pickle; from spr.reorder import ImpressionGuarantee;"
        f"read = pickle.loads(bytes.fromhex('{pickled}'));"
        "assert read in {ImpressionGuarantee('g', 'edge_type', 'connection', share=0.3)}"
    )
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": seed})
