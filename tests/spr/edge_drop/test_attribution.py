"""Credit for downstream engagement: against the definition in a loop, and what must hold of any of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spr.edge_drop.attribution import credit_downstream
from spr.errors import ConfigError, TableError

START = pd.Timestamp("2024-05-01")


def tables(
    n_members: int, n_interactions: int, n_engagements: int, seed: int, hours: int = 48
) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    names = np.array([f"v{i}" for i in range(n_members)], dtype=object)

    def moments(n: int) -> Any:
        # Whole hours, so that many moments are equal or exactly a window apart.
        return START + pd.to_timedelta(rng.integers(0, hours, n), unit="h")

    return (
        pd.DataFrame(
            {
                "viewer_id": rng.choice(names, n_interactions),
                "other_id": rng.choice(names, n_interactions),
                "at": moments(n_interactions),
            }
        ),
        pd.DataFrame(
            {
                "viewer_id": rng.choice(names, n_engagements),
                "at": moments(n_engagements),
                "amount": rng.exponential(1.0, n_engagements),
            }
        ),
    )


def by_definition(interactions: pd.DataFrame, engagement: pd.DataFrame, share: float, window: Any) -> dict[str, float]:
    others = interactions[interactions["viewer_id"] != interactions["other_id"]]
    credit = dict.fromkeys(sorted(others["viewer_id"]), 0.0)
    for _, unit in engagement.iterrows():
        before = others[
            (others["other_id"] == unit["viewer_id"])
            & (others["at"] < unit["at"])
            & (others["at"] > unit["at"] - pd.Timedelta(window))
        ]
        for viewer in before["viewer_id"]:
            credit[viewer] += share * unit["amount"] / len(before)
    return credit


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 8), st.integers(0, 60), st.integers(0, 40), st.integers(0, 10_000), st.sampled_from([1, 5, 100]))
def test_credit_is_as_defined(n_members: int, n_interactions: int, n_engagements: int, seed: int, hours: int) -> None:
    interactions, engagement = tables(n_members, n_interactions, n_engagements, seed)
    found = credit_downstream(interactions, engagement, share=0.4, window=timedelta(hours=hours))
    expected = by_definition(interactions, engagement, 0.4, timedelta(hours=hours))
    assert found["viewer_id"].to_list() == list(expected)
    assert found["credited"].to_numpy() == pytest.approx(list(expected.values()), abs=1e-12)
    assert (found["credited"] >= 0).all()
    assert (found["credited"] == 0).to_list() == [credit == 0 for credit in expected.values()]
    assert found["credited"].sum() <= 0.4 * engagement["amount"].sum() + 1e-9


def test_credit_is_all_of_the_share_where_every_unit_has_an_interaction() -> None:
    interactions, engagement = tables(50, 3000, 2000, 1)
    early = pd.DataFrame({"viewer_id": "x", "other_id": [f"v{i}" for i in range(50)], "at": START - pd.Timedelta("1h")})
    credited = credit_downstream(pd.concat([interactions, early]), engagement, share=0.3, window="30d")["credited"]
    assert credited.sum() == pytest.approx(0.3 * engagement["amount"].sum(), rel=1e-12)


def test_credit_does_not_depend_on_rows_units_or_time_zone_and_is_linear_in_the_share() -> None:
    interactions, engagement = tables(20, 500, 300, 2)
    one = credit_downstream(interactions, engagement, share=0.2, window="6h")
    shuffled = credit_downstream(
        interactions.sample(frac=1, random_state=0), engagement.sample(frac=1, random_state=1), share=0.2, window="6h"
    )
    pd.testing.assert_frame_equal(one, shuffled)
    zoned = [each.assign(at=each["at"].dt.tz_localize("UTC").dt.as_unit("us")) for each in (interactions, engagement)]
    pd.testing.assert_frame_equal(one, credit_downstream(*zoned, share=0.2, window="6h"))
    double = credit_downstream(interactions, engagement, share=0.4, window="6h")
    assert double["credited"].to_numpy() == pytest.approx(2 * one["credited"].to_numpy())


def test_an_amount_is_1_by_default_and_own_interactions_do_not_count() -> None:
    interactions = pd.DataFrame({"viewer_id": ["a", "b"], "other_id": ["b", "b"], "at": START})
    engagement = pd.DataFrame({"viewer_id": ["b", "b", "stranger"], "at": START + pd.Timedelta("1h")})
    credited = credit_downstream(interactions, engagement, share=1.0, window="1d")
    assert credited.to_dict("list") == {"viewer_id": ["a"], "credited": [2.0]}


def test_credits_are_added_to_the_metric_as_documented() -> None:
    table = pd.DataFrame({"viewer_id": ["a", "b"], "likes": [1.0, 2.0]})
    of = pd.DataFrame({"viewer_id": ["b"], "credited": [0.5]}).set_index("viewer_id")["credited"]
    table["likes"] += table["viewer_id"].map(of).fillna(0.0)
    assert table["likes"].to_list() == [1.0, 2.5]


@pytest.mark.parametrize(("share", "window"), [(1.5, "1d"), (-0.1, "1d"), (0.5, "0d"), (0.5, "-1d"), (0.5, "soon")])
def test_shares_and_windows_out_of_range_are_refused(share: float, window: str) -> None:
    with pytest.raises(ConfigError, match="share is" if window == "1d" else "window is"):
        credit_downstream(*tables(3, 5, 5, 0), share=share, window=window)


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        (0, {"other_id": None}, "interactions: other_id is null in 5 of 5"),
        (0, {"at": "yesterday"}, "interactions: at is of type"),
        (1, {"at": pd.NaT}, "engagement: at is null in 5"),
        (1, {"amount": -1.0}, "amount is negative, null or infinite in 5 of 5 rows; first: viewer_id="),
        (1, {"amount": "one"}, "amount is not a number"),
        (0, {"at": START.tz_localize("UTC")}, "a time zone in one of them only"),
    ],
)
def test_tables_that_break_a_rule_are_refused(which: int, change: dict[str, Any], message: str) -> None:
    pair = list(tables(3, 5, 5, 0))
    pair[which] = pair[which].assign(**change)
    with pytest.raises(TableError) as error:
        credit_downstream(*pair, share=0.5, window="1d")
    assert message in str(error.value)


def test_a_missing_column_is_refused() -> None:
    interactions, engagement = tables(3, 5, 5, 0)
    with pytest.raises(TableError, match="interactions: unknown column 'other_id'"):
        credit_downstream(interactions.drop(columns="other_id"), engagement, share=0.5, window="1d")
