"""The peer that needs no cluster: one scipy L-BFGS-B fit per entity, coordinate by coordinate, warm-started.

It is how gdmix trains its random effects, without the TFRecord files and with the gradient in plain numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def fit_logistic(rows: Floats, labels: Floats, offset: Floats, l2: Floats, start: Floats) -> Floats:
    """Minimise the summed log loss + l2/2 |b|^2."""

    def loss_and_slope(b: Floats) -> tuple[float, Floats]:
        margin = rows @ b + offset
        loss = np.logaddexp(0.0, margin).sum() - labels @ margin + 0.5 * (l2 * b * b).sum()
        return float(loss), rows.T @ (1.0 / (1.0 + np.exp(-margin)) - labels) + l2 * b

    return minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x


@dataclass
class PeerEffect:
    """One coordinate: rows sorted by entity; a single entity makes it a fixed effect.

    Parameters
    ----------
    codes : int array of n
        The entity of each row.
    rows : float array of (n, d)
        With a column of ones where there is an intercept.
    l2 : float array of d
    """

    codes: NDArray[np.integer]
    rows: Floats
    l2: Floats

    def __post_init__(self) -> None:
        self.order = np.argsort(self.codes, kind="stable")
        self.sorted_rows = np.ascontiguousarray(self.rows[self.order], dtype=np.float64)
        sizes = np.bincount(self.codes)
        self.ends = np.cumsum(sizes)
        self.starts = self.ends - sizes
        self.coefficients = np.zeros((len(sizes), self.rows.shape[1]))
        self.margin = np.zeros(len(self.codes))

    def sweep(self, labels: Floats, rest: Floats) -> None:
        """Fit each entity with the margin of everything else as its offset."""
        sorted_labels, sorted_rest = labels[self.order], rest[self.order]
        sorted_margin = np.zeros(len(rest))
        for entity, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            if start == end:
                continue
            rows = self.sorted_rows[start:end]
            fitted = fit_logistic(
                rows, sorted_labels[start:end], sorted_rest[start:end], self.l2, self.coefficients[entity]
            )
            self.coefficients[entity] = fitted
            sorted_margin[start:end] = rows @ fitted
        self.margin[self.order] = sorted_margin

    def margin_of(self, codes: NDArray[np.integer], rows: Floats) -> Floats:
        """Return the margin of other rows; an entity without coefficients (beyond the end, or -1) adds 0."""
        known = (codes >= 0) & (codes < len(self.coefficients))
        own = self.coefficients[np.where(known, codes, 0)]
        return np.where(known, np.einsum("ij,ij->i", own, rows), 0.0)


def fit_by_coordinates(effects: Sequence[PeerEffect], labels: Floats, offset: Floats, sweeps: int) -> Floats:
    """Fit the coordinates in turn, `sweeps` times; return the total margin."""
    total = offset.astype(np.float64).copy()
    for _ in range(sweeps):
        for effect in effects:
            rest = total - effect.margin
            effect.sweep(labels, rest)
            total = rest + effect.margin
    return total
