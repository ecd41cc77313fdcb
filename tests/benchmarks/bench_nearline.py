"""A near-line update: a mini-batch of 50 rows moves the members that it touches, among 100,000.

The peer fits each touched member anew by scipy's L-BFGS-B, with the same normal prior. CPU time, one thread.
"""

from __future__ import annotations

import measuring as m  # isort: split

import numpy as np
from scipy.optimize import minimize

from spr.glmix import GLMixClassifier, NearlineUpdater, RandomEffect

N_ROWS, N_MEMBERS, BATCH, N_BATCHES = 500_000, 100_000, 50, 100


def main() -> None:
    feed = m.make_feed(N_ROWS + BATCH * N_BATCHES, N_MEMBERS, 1_000)
    old = slice(0, N_ROWS)
    effect = RandomEffect("member", "member", m.MEMBER_FEATURES, l2=12.0)
    model = GLMixClassifier(None, [effect], variance="full")
    model.fit(feed.frame[old], feed.clicked[old], offset=feed.given[old])
    updater = NearlineUpdater(model, "member")
    before = model.random_effects_["member"]
    d = len(before.columns)
    ours, theirs, gaps = [], [], []
    for first in range(N_ROWS, N_ROWS + BATCH * N_BATCHES, BATCH):
        rows = slice(first, first + BATCH)
        frame, clicked, given = feed.frame[rows], feed.clicked[rows], feed.given[rows]
        features = np.column_stack([frame[m.MEMBER_FEATURES].to_numpy(np.float64), np.ones(BATCH)])
        keys = frame["member"].to_numpy()

        def peer(
            keys: np.ndarray = keys,
            features: np.ndarray = features,
            clicked: np.ndarray = clicked,
            given: np.ndarray = given,
        ) -> dict[int, np.ndarray]:
            return {key: _fit_anew(before, d, key, features, clicked, given, keys) for key in np.unique(keys).tolist()}

        cpu, moved = m.cpu_and_result(lambda a=frame, b=clicked, c=given: updater.update(a, b, offset=c))
        ours.append(cpu)
        if first == N_ROWS:  # the same posterior before it: the answers can be held against each other
            cpu, fitted = m.cpu_and_result(peer)
            gaps = [np.abs(moved.lookup(key) - b).max() for key, b in fitted.items()]
        else:
            cpu, _ = m.cpu_and_result(peer)
        theirs.append(cpu)
    ms = [1000 * float(np.median(times[5:])) for times in (ours, theirs)]
    print(f"\nnear-line: {BATCH} rows of {N_MEMBERS:,} members, {d} coefficients")
    print(f"spr.glmix {ms[0]:.1f} ms a batch; scipy L-BFGS-B per member {ms[1]:.1f} ms; ratio {ms[1] / ms[0]:.1f}")
    print(f"largest difference of a coefficient in the first batch {max(gaps):.1e}")


def _fit_anew(before, d, key, features, clicked, given, keys) -> np.ndarray:
    mine, row = keys == key, before.position(key)
    mean = np.zeros(d) if row is None else before.matrix[row].astype(np.float64)
    precision = 12.0 * np.eye(d) if row is None else np.linalg.inv(before.covariance[row].astype(np.float64))
    x, y, offset = features[mine], clicked[mine], given[mine]

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        margin, pull = x @ b + offset, precision @ (b - mean)
        p = 1.0 / (1.0 + np.exp(-margin))
        value = float(np.sum(np.logaddexp(0.0, margin) - y * margin) + 0.5 * (b - mean) @ pull)
        return value, x.T @ (p - y) + pull

    return minimize(loss, mean, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).x


if __name__ == "__main__":
    main()
