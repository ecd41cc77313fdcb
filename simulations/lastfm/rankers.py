"""Three first-pass rankers, three algorithms, three scales; trained on edges hidden inside the kept ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightgbm
import numpy as np
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from first_pass import EdgeGraph, FirstPassRanker, LightGBMRanker, SklearnRanker
from simulations.lastfm.cohorts import propose
from simulations.lastfm.hold_out import KEY, hold_out, list_edges

if TYPE_CHECKING:
    import pandas as pd

    from simulations.lastfm.reading import Network

COUNTS = ["friends_with_edge", "adamic_adar"]
FEATURES = ["friends_with_edge", "co_occurrence", "popularity", "affinity", "viewer_degree"]
PEOPLE_FEATURES = [*FEATURES, "adamic_adar", "taste_similarity"]
_INNER_SHARE = 0.2
_TRAINING_CANDIDATES = 24
_LIGHTGBM = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def train_rankers(kept: Network, *, seed: int) -> tuple[FirstPassRanker, ...]:
    """Train a first-pass ranker per entity type, without a look at the edges held out of `kept`.

    Parameters
    ----------
    kept : Network
        The part that features may be made of. A fifth of its edges is hidden once more, the features of the
        training pairs are made of the rest, and the hidden ones are the positives.
    seed : int
        Which edges are hidden, and the trees.

    Returns
    -------
    tuple of FirstPassRanker
        Of rows of `pair_features`. People: the log-odds of boosted trees (LightGBM); artist: a probability
        (logistic regression); tag: how often the viewer is expected to give it (Poisson regression).
    """
    inner = hold_out(kept, _INNER_SHARE, seed=seed)
    graph = EdgeGraph.from_edges(list_edges(inner.kept))
    proposed = propose(graph, graph.viewer_ids[::2], n=_TRAINING_CANDIDATES)  # half of them teach enough
    pairs = inner.with_response(proposed[KEY].drop_duplicates())
    features = pair_features(graph, pairs)
    hidden = inner.held_out[[*KEY, "weight"]]
    uses = np.expm1(pairs.merge(hidden, on=KEY, how="left")["weight"].fillna(0.0).to_numpy())
    formed = pairs["would_respond"].to_numpy()
    people, artist, tag = (pairs["entity_type"].to_numpy() == name for name in ("people", "artist", "tag"))

    trees = lightgbm.train(
        {**_LIGHTGBM, "seed": seed},
        lightgbm.Dataset(features.loc[people, PEOPLE_FEATURES], formed[people].astype(np.int64)),
        num_boost_round=100,
    )
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    logistic.fit(features.loc[artist, FEATURES], formed[artist])
    poisson = make_pipeline(StandardScaler(), PoissonRegressor(alpha=1e-4, max_iter=1000))
    poisson.fit(features.loc[tag, FEATURES], uses[tag])
    return (
        LightGBMRanker(trees, entity_type="people", version="people-lgbm-1"),
        SklearnRanker(logistic, entity_type="artist", version="artist-logit-1", method="predict_proba"),
        SklearnRanker(poisson, entity_type="tag", version="tag-poisson-1"),
    )


def pair_features(graph: EdgeGraph, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the first-pass features of (viewer, entity) pairs: those of the graph, counts as log(1 + count).

    Parameters
    ----------
    graph : EdgeGraph
        Of kept edges.
    pairs : DataFrame
        viewer_id, entity_type, entity_id.

    Returns
    -------
    DataFrame
        The index of `pairs`; adamic_adar and taste_similarity are null for all but people.
    """
    features = graph.features(pairs)
    features[COUNTS] = np.log1p(features[COUNTS])
    return features
