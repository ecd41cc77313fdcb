"""Random effects alone: 200k rows, 5k members, 1k items, 11 + 11 coefficients, a given margin, fixed penalties.

The peer is one scipy L-BFGS-B fit per entity (peer_scipy.py), with as many sweeps, warm-started. CPU time, one thread;
`fit` is timed whole, from the DataFrame on, after a fit on a small table has compiled what there is to compile.
"""

from __future__ import annotations

import measuring as m  # isort: split

import numpy as np
from peer_scipy import PeerEffect, fit_by_coordinates

from spr.glmix import GLMixClassifier, RandomEffect

N_ROWS, N_MEMBERS, N_ITEMS, SWEEPS = 200_000, 5_000, 1_000, 4
MEMBER_L2, ITEM_L2 = 12.0, 30.0
BAR, AIM, EQUAL = 25, 50, 1e-4


def fit_ours(feed: m.Feed) -> GLMixClassifier:
    effects = [
        RandomEffect("member", "member", m.MEMBER_FEATURES, l2=MEMBER_L2),
        RandomEffect("item", "item", m.ITEM_FEATURES, l2=ITEM_L2),
    ]
    return GLMixClassifier(None, effects, sweeps=SWEEPS).fit(feed.frame, feed.clicked, offset=feed.given)


def fit_peer(feed: m.Feed) -> np.ndarray:
    ones = np.ones((len(feed.frame), 1), dtype=np.float32)
    members = np.hstack([feed.frame[m.MEMBER_FEATURES].to_numpy(), ones])
    items = np.hstack([feed.frame[m.ITEM_FEATURES].to_numpy(), ones])
    effects = [
        PeerEffect(feed.frame["member"].to_numpy(), members, np.full(m.N_FEATURES + 1, MEMBER_L2)),
        PeerEffect(feed.frame["item"].to_numpy(), items, np.full(m.N_FEATURES + 1, ITEM_L2)),
    ]
    return fit_by_coordinates(effects, feed.clicked.astype(float), feed.given, SWEEPS)


def main() -> None:
    fit_ours(m.make_feed(2_000, 60, 20))
    feed = m.make_feed(N_ROWS, N_MEMBERS, N_ITEMS)
    rounds = [m.cpu_and_result(lambda: fit_ours(feed)) for _ in range(3)]
    ours = float(np.median([seconds for seconds, _ in rounds]))
    model = rounds[-1][1]
    peer, peer_margin = m.cpu_and_result(lambda: fit_peer(feed))
    our_loss = m.mean_log_loss(feed.clicked, model.decision_function(feed.frame, offset=feed.given))
    peer_loss = m.mean_log_loss(feed.clicked, peer_margin)
    m.print_table(
        f"random effects: {N_ROWS:,} rows, {N_MEMBERS:,} members, {N_ITEMS:,} items, {SWEEPS} sweeps",
        [
            {"fit": "spr.glmix", "CPU s": ours, "log loss": f"{our_loss:.6f}"},
            {"fit": "scipy L-BFGS-B per entity", "CPU s": peer, "log loss": f"{peer_loss:.6f}"},
        ],
    )
    print(f"ratio {peer / ours:.1f} (bar {BAR}, aim {AIM}); log loss {our_loss - peer_loss:+.1e} (bar {EQUAL})")


if __name__ == "__main__":
    main()
