"""gdmix: its MovieLens-100K example, test AUC of a fixed effect with per-user and per-movie effects.

Source: linkedin/gdmix (BSD-2-Clause), its README and scripts/download_process_movieLens_data.py. The label is
rating > 3; a row is for training where a uniform number is < 0.8. Fixed: age / 100, gender, occupation, 19 genres,
year / 2000; per user: genres and year; per movie: age, gender, occupation. A movie without a year has the year 0, as
in that script (15 rows). Trees are fitted twice: held-out rows choose rounds and shrinkage, then all rows teach
(peer_data.py). gdmix publishes AUC 0.6237 -> 0.7058 -> 0.7599 (fixed, + user, + movie) and 0.7680 with a deep fixed
effect; its trainer averages 0.7592 over the seeds 0-4. The data comes from the PyPI package recbole 1.2.1
(`make peer-data`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spr.glmix import Linear, RandomEffect

if TYPE_CHECKING:
    from types import ModuleType

SEEDS = range(5)
GDMIX_AUC = 0.7592
PEOPLE = ["age", "gender", "occupation"]


@pytest.fixture(scope="module")
def areas(peer_data: ModuleType) -> dict[str, np.ndarray]:
    """Test AUC by fixed effect: a row a seed, a column each for fixed, + user, + movie."""
    rows, liked, genres = peer_data.read_movielens()
    columns = [*PEOPLE, "year", *genres]
    effects = [RandomEffect("user", "user_id", [*genres, "year"]), RandomEffect("movie", "movie_id", PEOPLE)]
    found: dict[str, np.ndarray] = {}
    for name, fixed in {"linear": Linear(columns), "trees": peer_data.movielens_trees(columns)}.items():
        table = []
        for seed in SEEDS:
            train = np.random.default_rng(seed).random(len(rows)) < 0.8
            model = peer_data.fit_movielens(fixed, effects, rows[train], liked[train], seed)
            margins = model.margins(rows[~train])
            partial = [margins["fixed"], margins["fixed"] + margins["user"], model.decision_function(rows[~train])]
            table.append([roc_auc_score(liked[~train], margin) for margin in partial])
        found[name] = np.array(table)
    return found


@pytest.mark.parametrize(("fixed", "bar"), [("linear", 0.783), ("trees", 0.785)])
def test_mean_area_reaches_the_bar(areas: dict[str, np.ndarray], fixed: str, bar: float) -> None:
    assert areas[fixed][:, 2].mean() >= bar


@pytest.mark.parametrize("fixed", ["linear", "trees"])
def test_each_effect_adds_and_each_seed_beats_gdmix(areas: dict[str, np.ndarray], fixed: str) -> None:
    assert (np.diff(areas[fixed], axis=1) > 0.02).all()
    assert (areas[fixed][:, 2] > GDMIX_AUC + 0.01).all()
