"""Response families: the loss of a label at a margin, its derivatives, and the way from margin to response."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numba
import numpy as np

from spr.errors import InvalidModelInput, name_unknown
from spr.glmix.threads import N_CHUNKS, over_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINOMIAL, GAUSSIAN, POISSON = 0, 1, 2
_LARGEST_LOG_MEAN = 30.0  # exp(30) = 1e13; beyond it a Poisson mean only overflows


@numba.njit(cache=True)
def derivatives_at(family: int, label: float, margin: float) -> tuple[float, float]:
    """Return the first and second derivative of the loss with respect to the margin (one row)."""
    if family == GAUSSIAN:
        return margin - label, 1.0
    if family == POISSON:
        mean = math.exp(min(margin, _LARGEST_LOG_MEAN))
        return mean - label, mean
    if margin >= 0:
        probability = 1.0 / (1.0 + math.exp(-margin))
    else:
        odds = math.exp(margin)
        probability = odds / (1.0 + odds)
    return probability - label, probability * (1.0 - probability)


@numba.njit(cache=True)
def expected_derivatives_at(family: int, label: float, margin: float, spread: float) -> tuple[float, float]:
    """Return the expected derivatives where the margin is normal with variance `spread` (one row).

    Exact for gaussian and poisson; for binomial a logistic function of the margin shrunk by
    sqrt(1 + pi * spread / 8) (MacKay 1992, "The evidence framework applied to classification networks", eq. 28).
    """
    shrunk = 1.0
    if family == POISSON:
        margin += 0.5 * spread
    elif family == BINOMIAL and spread > 0.0:
        shrunk = 1.0 / math.sqrt(1.0 + 0.125 * math.pi * spread)
    first, second = derivatives_at(family, label, shrunk * margin)
    return first, shrunk * second


@numba.njit(cache=True)
def loss_at(family: int, label: float, margin: float) -> float:
    """Return the loss of one row; see `Family.losses`."""
    if family == GAUSSIAN:
        return 0.5 * (label - margin) ** 2
    if family == POISSON:
        return math.exp(min(margin, _LARGEST_LOG_MEAN)) - label * margin
    return max(margin, 0.0) - label * margin + math.log1p(math.exp(-abs(margin)))


@numba.njit(cache=True, nogil=True)
def _losses(family: int, labels: Floats, margins: Floats) -> Floats:
    out = np.empty(labels.size)
    for row in range(labels.size):
        out[row] = loss_at(family, labels[row], margins[row])
    return out


@numba.njit(cache=True, nogil=True)
def _weighted_loss(family: int, labels: Floats, margins: Floats, weights: Floats) -> float:
    total = 0.0
    for row in range(labels.size):
        if weights[row] > 0.0:
            total += weights[row] * loss_at(family, labels[row], margins[row])
    return total


@numba.njit(cache=True, nogil=True)
def _two_losses(
    family: int,
    labels: Floats,
    margins: Floats,
    active: Floats,
    weights: Floats,
    held: NDArray[np.bool_],
    first: int,
    last: int,
    sums: Floats,
) -> None:
    taught = taught_weight = judged = judged_weight = 0.0
    product, factors = 1.0, 0  # of 1 + exp(-|margin|), at most 2 each: one logarithm for many
    for row in range(first, last):
        if active[row] > 0.0:
            if family == BINOMIAL and active[row] == 1.0:
                taught += max(margins[row], 0.0) - labels[row] * margins[row]
                product *= 1.0 + math.exp(-abs(margins[row]))
                factors += 1
                if factors == 256:
                    taught += math.log(product)
                    product, factors = 1.0, 0
            else:
                taught += active[row] * loss_at(family, labels[row], margins[row])
            taught_weight += active[row]
        elif held[row]:
            judged += weights[row] * loss_at(family, labels[row], margins[row])
            judged_weight += weights[row]
    taught += math.log(product)
    sums[0], sums[1], sums[2], sums[3] = taught, taught_weight, judged, judged_weight


@numba.njit(cache=True, nogil=True)
def _derivatives(family: int, labels: Floats, margins: Floats, weights: Floats) -> tuple[Floats, Floats]:
    gradient, hessian = np.empty(labels.size), np.empty(labels.size)
    for row in range(labels.size):
        first, second = derivatives_at(family, labels[row], margins[row])
        gradient[row], hessian[row] = weights[row] * first, weights[row] * second
    return gradient, hessian


@dataclass(frozen=True)
class Family:
    """A response family with its canonical link.

    Parameters
    ----------
    name : {"binomial", "gaussian", "poisson"}
        What it is called; also the name of glum's family, except for gaussian ("normal").
    code : int
        How the compiled kernels tell families apart.

    Examples
    --------
    >>> import numpy as np
    >>> poisson = Family.named("poisson")
    >>> poisson.response(np.log([1.0, 3.0])).round(6).tolist()
    [1.0, 3.0]
    """

    name: str
    code: int

    @classmethod
    def named(cls, name: str) -> Family:
        """Return the family called `name`, or raise InvalidModelInput with the known names."""
        codes = {"binomial": BINOMIAL, "gaussian": GAUSSIAN, "poisson": POISSON}
        if name not in codes:
            raise InvalidModelInput(name_unknown("family", str(name), codes))
        return cls(name, codes[name])

    def check_labels(self, labels: Floats) -> None:
        """Raise InvalidModelInput where a label lies outside the family's support, naming the first row."""
        wrong = ~np.isfinite(labels)
        allowed = "a finite number"
        if self.code == BINOMIAL:
            wrong |= (labels != 0) & (labels != 1)
            allowed = "0 or 1"
        elif self.code == POISSON:
            wrong |= labels < 0
            allowed = "a finite number >= 0"
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise InvalidModelInput(
                f"y: {int(wrong.sum())} of {labels.size} labels are outside the support of {self.name}; "
                f"allowed: {allowed}; first: {labels[first]!r} in row {first}. Drop or correct these rows."
            )

    def losses(self, labels: Floats, margins: Floats) -> Floats:
        """Return the loss of each row: minus the log-likelihood up to a term without the margin.

        binomial: log(1 + exp(m)) - y m; gaussian: (y - m)^2 / 2; poisson: exp(m) - y m.
        """
        return cast("Floats", _losses(self.code, labels, margins))

    def mean_loss(self, labels: Floats, margins: Floats, weights: Floats) -> float:
        """Return the weighted mean loss over rows with a positive weight; NaN where there are none."""
        total = float(weights.sum())
        return float(_weighted_loss(self.code, labels, margins, weights)) / total if total > 0 else float("nan")

    def mean_losses(
        self,
        labels: Floats,
        margins: Floats,
        active: Floats,
        weights: Floats,
        held: NDArray[np.bool_],
        n_threads: int = 1,
    ) -> tuple[float, float]:
        """Return the mean loss of the active rows, and of the held-out rows that are not active; NaN where none."""
        bounds = np.linspace(0, labels.size, N_CHUNKS + 1).astype(np.int64)
        sums = np.zeros((N_CHUNKS, 4))

        def work(chunk: int) -> None:
            first, last = bounds[chunk], bounds[chunk + 1]
            _two_losses(self.code, labels, margins, active, weights, held, first, last, sums[chunk])

        over_chunks(work, N_CHUNKS, n_threads)
        taught, taught_weight, judged, judged_weight = sums.sum(axis=0).tolist()
        return (
            taught / taught_weight if taught_weight > 0 else float("nan"),
            judged / judged_weight if judged_weight > 0 else float("nan"),
        )

    def derivatives(self, labels: Floats, margins: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Return weight times the first, and weight times the second derivative of each row's loss."""
        return cast("tuple[Floats, Floats]", _derivatives(self.code, labels, margins, weights))

    def response(self, margins: Floats) -> Floats:
        """Return the expected response: the inverse link of the margin."""
        if self.code == GAUSSIAN:
            return margins
        if self.code == POISSON:
            return cast("Floats", np.exp(np.minimum(margins, _LARGEST_LOG_MEAN)))
        return 0.5 * (1.0 + np.tanh(0.5 * margins))

    def intercept(self, labels: Floats, weights: Floats, offset: Floats) -> float:
        """Return the constant that, added to `offset`, gives the weighted mean of the labels.

        A mean at the edge of the support (all 0, all 1) is moved half a row inwards, so that the answer is finite.
        """
        from scipy.optimize import brentq  # half a second to import, and serving never comes here

        total = float(weights.sum())
        mean = float(labels @ weights) / total
        if self.code == GAUSSIAN:
            return mean - float(offset @ weights) / total
        edge = 0.5 / (total + 1.0)
        mean = max(mean, edge) if self.code == POISSON else min(max(mean, edge), 1.0 - edge)
        start = math.log(mean) if self.code == POISSON else math.log(mean / (1.0 - mean))
        if not offset.any():
            return start

        def excess(constant: float) -> float:
            return float(self.response(offset + constant) @ weights) / total - mean

        # the answer lies where every row alone would put it, hence between these two
        low, high = start - float(offset.max()) - 1e-9, start - float(offset.min()) + 1e-9
        return float(cast("Any", brentq(excess, low, high, xtol=1e-10)))
