"""End to end: 300 rounds of trees with two learnt random effects, beside XGBoost alone with the same rounds.

The data of bench_random_effects.py, the margin not given. Both see the same 20 columns, on one thread, with the same
parameters and no early stopping; XGBoost's time includes its matrix, ours everything from the DataFrame on. CPU time;
the normalised cross entropy is of 50k other rows of the same members and items.
"""

from __future__ import annotations

import measuring as m  # isort: split

import numpy as np
import xgboost

from spr.glmix import GLMixClassifier, RandomEffect, Trees

N_ROWS, N_TEST, N_MEMBERS, N_ITEMS, N_ROUNDS = 200_000, 50_000, 5_000, 1_000, 300
COLUMNS = [*m.MEMBER_FEATURES, *m.ITEM_FEATURES]
BAR_RATIO, BAR_GAIN = 1.35, 0.05
TREES = Trees(COLUMNS, n_rounds=N_ROUNDS, early_stopping_rounds=N_ROUNDS)


def fit_ours(feed: m.Feed, trees: Trees = TREES) -> GLMixClassifier:
    effects = [
        RandomEffect("member", "member", m.MEMBER_FEATURES),
        RandomEffect("item", "item", m.ITEM_FEATURES),
    ]
    return GLMixClassifier(trees, effects).fit(feed.frame, feed.clicked)


def fit_peer(feed: m.Feed) -> xgboost.Booster:
    matrix = xgboost.DMatrix(feed.frame[COLUMNS].to_numpy(), feed.clicked, nthread=1)
    parameters = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": TREES.max_depth,
        "learning_rate": TREES.learning_rate,
        "min_child_weight": TREES.min_child_weight,
        "lambda": TREES.l2,
        "nthread": 1,
    }
    return xgboost.train(parameters, matrix, num_boost_round=N_ROUNDS)


def main() -> None:
    fit_ours(m.make_feed(2_000, 60, 20), Trees(COLUMNS, n_rounds=4))
    feed = m.make_feed(N_ROWS + N_TEST, N_MEMBERS, N_ITEMS)
    train = m.Feed(feed.frame[:N_ROWS], feed.clicked[:N_ROWS], feed.given[:N_ROWS])
    test = m.Feed(feed.frame[N_ROWS:], feed.clicked[N_ROWS:], feed.given[N_ROWS:])
    peer, booster = m.cpu_and_result(lambda: fit_peer(train))
    ours, model = m.cpu_and_result(lambda: fit_ours(train))
    theirs = booster.inplace_predict(test.frame[COLUMNS].to_numpy(), predict_type="margin")
    our_entropy = m.normalized_cross_entropy(test.clicked, model.decision_function(test.frame))
    peer_entropy = m.normalized_cross_entropy(test.clicked, np.asarray(theirs))
    m.print_table(
        f"trees and random effects: {N_ROWS:,} rows, {len(COLUMNS)} columns, {N_ROUNDS} rounds",
        [
            {"fit": "spr.glmix", "CPU s": ours, "trees": model.fixed_.n_rounds, "held-out NCE": f"{our_entropy:.4f}"},
            {"fit": "XGBoost alone", "CPU s": peer, "trees": N_ROUNDS, "held-out NCE": f"{peer_entropy:.4f}"},
        ],
    )
    print(f"ratio {ours / peer:.2f} (bar {BAR_RATIO}); NCE lower by {peer_entropy - our_entropy:.4f} (bar {BAR_GAIN})")
    shown = ["stage", "coordinate", "seconds"]
    spent = model.history_[shown].groupby(["stage", "coordinate"], sort=False)["seconds"].sum()
    print("seconds by coordinate: " + ", ".join(f"{s} {c} {x:.2f}" for (s, c), x in spent.items()))


if __name__ == "__main__":
    main()
