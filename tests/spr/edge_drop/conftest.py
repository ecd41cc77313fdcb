"""Edge-drop experiments whose truth is exact: content is a power of the number of edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CURVATURE = 0.6
DOSES = np.array([0.0, 0.1, 0.25, 0.5])


@dataclass(frozen=True)
class Made:
    """A table, and the value of its average edge, engaged or any, by type."""

    table: pd.DataFrame
    per_downstream_edge: NDArray[np.float64]
    per_edge: NDArray[np.float64]


@pytest.fixture(scope="session")
def make_experiment() -> Callable[..., Made]:
    """Make an experiment of n viewers whose activity is log-normal; ``worth`` scales the content of each type."""

    def make(n: int, rng: np.random.Generator, worth: tuple[float, ...] = (1.0, 0.7, 0.4)) -> Made:
        size = len(worth)
        activity = np.exp(rng.normal(0.0, 0.7, n))
        edges = rng.poisson(8.0 * np.sqrt(activity)[:, None] * np.ones(size))
        downstream = rng.binomial(edges, np.linspace(0.5, 0.2, size))
        dropped = rng.choice(DOSES, size=(n, size), p=[0.5, 1 / 6, 1 / 6, 1 / 6])

        def engagement(dose: NDArray[np.float64]) -> NDArray[np.int64]:
            content = (np.array(worth) * (downstream * (1.0 - dose)) ** CURVATURE).sum(axis=1)
            return rng.poisson(4.0 * activity * (2.0 + content) * rng.gamma(10.0, 0.1, n))

        columns: dict[str, object] = {"viewer_id": [f"v{i}" for i in range(n)]}
        columns |= {"pre_likes": engagement(np.zeros((n, size))), "likes": engagement(dropped)}
        for t in range(size):
            name = f"t{t}"
            columns |= {
                f"dropped_{name}": dropped[:, t],
                f"edges_{name}": edges[:, t],
                f"downstream_edges_{name}": downstream[:, t],
            }
        # in the population: E[4 activity worth c m^c], by a sample of its own
        many = np.random.default_rng(0)
        a = np.exp(many.normal(0.0, 0.7, 400_000))
        e = many.poisson(8.0 * np.sqrt(a)[:, None] * np.ones(size))
        m = many.binomial(e, np.linspace(0.5, 0.2, size))
        loss = (4.0 * a[:, None] * np.array(worth) * CURVATURE * m**CURVATURE).mean(axis=0)
        return Made(pd.DataFrame(columns), loss / m.mean(axis=0), loss / e.mean(axis=0))

    return make
