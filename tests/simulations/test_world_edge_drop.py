"""Edge-drop experiments of a made network agree with its truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from simulations import Behaviour, EdgeDropExperiment, World
from simulations.policies import ExpectedGain, Production, Shuffled
from simulations.response_curves import CURVES
from spr.edge_drop import estimate_edge_values

SEVEN = Behaviour(
    edge_type_of={name: name for name in CURVES},
    engagement_per_edge=dict(zip(CURVES, (0.1, 0.05, 0.06, 0.07, 0.09, 0.08, 0.06), strict=True)),
)


@pytest.mark.parametrize("behaviour", [Behaviour(), SEVEN])
def test_edge_values_are_the_slope_of_the_loss_at_0(behaviour: Behaviour) -> None:
    world = World(n_viewers=3000, seed=2, behaviour=behaviour)
    truth = world.truth.edge_values()
    small = 1e-4
    weekly = (world.activity * world.sociability)[:, None] * behaviour.first_edge_engagement
    for place, edge_type in enumerate(behaviour.edge_types):
        full, less = (behaviour.content(world.engaged_counts[:, place] * left) for left in (1.0, 1 - small))
        lost = (weekly[:, place] * (full - less)).sum() / (small * world.edge_counts[:, place].sum())
        assert lost == pytest.approx(truth.loc[edge_type, "value_per_edge"], rel=1e-3)
    per_downstream = truth["value_per_edge"] / truth["probability_downstream"]
    np.testing.assert_allclose(truth["factor_per_downstream_edge"], per_downstream / per_downstream.iloc[0])
    # the average edge is worth more than the next to go, which is worth more than half of it here
    assert (truth["value_of_average_edge"] > truth["value_per_edge"]).all()
    assert (truth["value_of_next_edge"] > 0).all()


def test_an_experiment_loses_what_the_truth_says() -> None:
    world = World(n_viewers=20_000, seed=2)
    viewers = world.viewers[["viewer_id"]]
    full = world.edge_drop(viewers.assign(dropped_connection=0.0), rng=3)
    less = world.edge_drop(viewers.assign(dropped_connection=0.5), rng=3)
    assert (less["engagement"] <= full["engagement"]).all()  # the same viewers in the same mood
    pd.testing.assert_series_equal(full["pre_engagement"], less["pre_engagement"])
    behaviour, weeks = world.behaviour, 4
    engaged = world.engaged_counts[:, 0]
    lost = behaviour.first_edge_engagement[0] * (behaviour.content(engaged) - behaviour.content(engaged / 2))
    expected = (weeks * world.activity * world.sociability * lost).sum()
    assert (full["engagement"] - less["engagement"]).sum() == pytest.approx(expected, rel=0.02)


def test_an_experiment_has_the_law_of_a_run() -> None:
    behaviour = Behaviour(activity_noise=0.0)
    world = World(n_viewers=4000, seed=2, behaviour=behaviour)
    weeks = 4
    n_requests = int(world.activity.sum() * weeks)
    drop = world.viewers[["viewer_id"]].assign(dropped_subscribe=0.25)
    # a page view is a session; engaged edges that form on pages come on top, and are few in one hour
    ran = world.run(n_requests, days=1, policy=Production(), drop=drop).totals["expected_engagement"]
    table = world.edge_drop(drop, days=7 * weeks, rng=1)
    assert table["sessions"].sum() == pytest.approx(n_requests, rel=0.01)
    assert table["engagement"].sum() == pytest.approx(ran, rel=0.06)


def test_the_curve_is_concave_and_spillover_reaches_who_lost_nothing() -> None:
    world = World(n_viewers=4000, seed=2)
    viewers = world.viewers[["viewer_id"]]
    totals = [
        world.edge_drop(viewers.assign(dropped_follow=d, dropped_connection=d), rng=1)["engagement"].sum()
        for d in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert (np.diff(np.diff(totals)) < 0).all()
    social = World(n_viewers=4000, seed=2, behaviour=Behaviour(spillover=0.8))
    half = viewers.assign(dropped_follow=np.where(np.arange(4000) % 2, 1.0, 0.0))
    natural = np.arange(4000) % 2 == 0
    alone, together = (w.edge_drop(half, rng=1)["engagement"][natural].sum() for w in (world, social))
    assert together < 0.97 * alone


def test_factors_of_a_large_experiment_are_the_truth_s() -> None:
    world = World(n_viewers=100_000, seed=6)
    experiment = EdgeDropExperiment(world.behaviour.edge_types, salt="truth")
    table = world.edge_drop(experiment.assign(world.viewers, stratum="sessions_per_week"), rng=6)
    values = estimate_edge_values(table, "engagement")
    truth = world.truth.edge_values(reference="follow")
    per_month = truth["value_per_edge"] * 4
    found = values.to_pandas()
    assert (np.abs(found["value"] - per_month) < 3 * found["standard_error"]).all()
    factors = values.factors(reference="follow")
    for place, edge_type in enumerate(factors.values.edge_types):
        low, high = factors.simultaneous[place]
        assert low <= truth.loc[edge_type, "factor_per_downstream_edge"] <= high
    assert 0.6 < values.pre_correlation**2 < 0.85


def test_value_per_downstream_edge_makes_more_of_pages_than_value_per_edge() -> None:
    """Where P(downstream | edge) differs between types, V alone counts it twice."""
    # types whose edges seldom become engaged are worth more when they do
    per_edge = dict(zip(CURVES, (0.02, 0.2, 0.05, 0.03, 0.25, 0.02, 0.1), strict=True))
    behaviour = Behaviour(edge_type_of={name: name for name in CURVES}, engagement_per_edge=per_edge)
    world = World(n_viewers=3000, seed=2, behaviour=behaviour)
    truth = world.truth.edge_values(reference="people")
    share = truth["factor_per_edge"] / truth["factor_per_downstream_edge"]
    assert share.max() / share.min() > 1.4  # the worlds' P(downstream | edge) differ by as much
    gains, totals = {}, {}
    for per in ("downstream_edge", "edge"):
        factors = world.truth.importance_factors(reference="people", per=per)
        run = world.run(20_000, policy=ExpectedGain(factors))
        gains[per] = run.totals["expected_gain"]
        totals[per] = world.run(20_000, policy=Shuffled(), after=run).totals["expected_engagement"]
    assert gains["downstream_edge"] > gains["edge"]
    assert totals["downstream_edge"] > totals["edge"]
