"""What people do on pages that were placed: examination, responses, downstream interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulations.behaviour import ENTITY_TYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from simulations.page_views import PageViews

    Floats = npt.NDArray[np.float64]
    Booleans = npt.NDArray[np.bool_]

GOES_ON, GOES_ON_AFTER_RESPONSE = 0.9, 0.7  # cascade: after a cohort without and with a response


@dataclass(frozen=True)
class Outcomes:
    """What happened on a chunk of pages.

    Parameters
    ----------
    response, downstream : bool[C, 6]
    expected_edges : float64[C]
        Expected number of engaged edges that each cohort forms where it stands, given, under the cascade, how far the
        viewer read.
    """

    response: Booleans
    downstream: Booleans
    expected_edges: Floats


def behave(views: PageViews, position: npt.NDArray[np.int64]) -> Outcomes:
    """Draw what people do.

    Parameters
    ----------
    views : PageViews
        With every draw that they need.
    position : int64[C]

    Returns
    -------
    Outcomes
    """
    truth = views.world.truth
    wants = views.response_probability
    matrix = views.world.behaviour.cannibalization_matrix
    if matrix.any():
        strength = (_above(views, position) * matrix[views.entity_type]).sum(axis=1)
        wants = np.minimum(wants * np.exp(-strength)[:, None], 1.0)
    if views.world.behaviour.examination == "row_column":
        chance = truth.examination_table[position]
        examined = views.slot_uniform < chance
    elif views.world.behaviour.examination == "position":
        top = truth.position_examination[position]
        chance = top[:, None] * truth.slot_examination
        examined = (views.cohort_uniform < top)[:, None] & (views.slot_uniform < truth.slot_examination)
    else:
        would = (views.slot_uniform < truth.slot_examination) & (views.response_uniform < wants)
        read = _read(views, position, np.asarray(would.any(axis=1)))
        chance = read[:, None] * truth.slot_examination
        examined = read[:, None] & (views.slot_uniform < truth.slot_examination)
    response = examined & (views.response_uniform < wants)
    downstream = response & (views.downstream_uniform < views.downstream_probability[:, None])
    return Outcomes(response, downstream, (chance * wants).sum(axis=1) * views.downstream_probability)


def _table(views: PageViews, position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the cohort at each position of each request, -1 where there is none."""
    table = np.full((views.n_requests, int(position.max(initial=0)) + 1), -1)
    table[views.request, position] = np.arange(views.n_cohorts)
    return table


def _above(views: PageViews, position: npt.NDArray[np.int64]) -> Floats:
    """Return how many cohorts of each entity type stand above each cohort, float64[C, 7]."""
    table = _table(views, position)
    kinds = np.eye(len(ENTITY_TYPES) + 1)[:, :-1]
    there = kinds[np.where(table >= 0, views.entity_type[table], len(ENTITY_TYPES))]
    above = there.cumsum(axis=1) - there
    return np.asarray(above[views.request, position])


def _read(views: PageViews, position: npt.NDArray[np.int64], responds: Booleans) -> Booleans:
    """Return which cohorts a viewer who scans from the top gets to."""
    table, read = _table(views, position), np.zeros(views.n_cohorts, dtype=bool)
    reading = np.ones(views.n_requests, dtype=bool)
    on = views.cohort_uniform < np.where(responds, GOES_ON_AFTER_RESPONSE, GOES_ON)
    for cohorts in table.T:
        there = reading & (cohorts >= 0)
        read[cohorts[there]] = True
        reading[there] = on[cohorts[there]]
    return read
