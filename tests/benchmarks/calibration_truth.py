"""Seven entity types whose expected response is known at every raw score.

Each type has a raw-score scale and a base rate of its own. Each of the seven families of response curves meets each
type as the rotation goes round: type i has family (i + rotation) mod 7. The seed also perturbs slopes, places of steps
and ceilings, so that no two seeds have the same curves; the size does not, so that sizes can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Curve = Callable[[float, Floats, Floats], Floats]  # intercept, margin, quantile -> expected response

N_TEST = 20_000
_GRID = (np.arange(400_000) + 0.5) / 400_000  # the score's distribution, for the base rate


@dataclass(frozen=True)
class EntityType:
    """One entity type: the scale of its raw scores and its base rate.

    Parameters
    ----------
    scale : str
        In words.
    base_rate : float
        Mean expected response.
    raw_score : callable
        Quantile function of the raw scores: float64[n] in (0, 1) to float64[n], non-decreasing.
    margin : callable
        The raw score on a scale of about unit size without end, increasing.
    """

    scale: str
    base_rate: float
    raw_score: Callable[[Floats], Floats]
    margin: Callable[[Floats], Floats]


@dataclass(frozen=True)
class Draw:
    """Rows to learn from, and test scores with the exact truth."""

    family: str
    raw_score: Floats
    response: Floats
    test_score: Floats
    test_truth: Floats


def _probability(u: Floats) -> Floats:
    return (1.0 - (1.0 - u) ** (1.0 / 4.0)) ** (1.0 / 1.5)  # Kumaraswamy: mean about 0.3


def _count(u: Floats) -> Floats:
    return np.floor(np.exp(0.9 * ndtri(u) + 0.8))


TYPES = {
    "people": EntityType("probability in [0, 1]", 0.083, _probability, logit),
    "hashtag": EntityType("log-odds margin", 0.014, lambda u: 1.2 * logit(u) - 3.0, lambda s: (s + 3.0) / 2.0),
    "company": EntityType("heavy-tailed, positive", 0.0059, lambda u: np.exp(1.5 * ndtri(u) + 2.0), np.log),
    "member_follow": EntityType("negative distance", 0.001, lambda u: -((-np.log(u)) ** 0.6) * 3.0, lambda s: s + 3.0),
    "group": EntityType("cosine in [-1, 1]", 0.034, lambda u: np.tanh(0.5 * ndtri(u) + 0.3), lambda s: 2 * np.atanh(s)),
    "newsletter": EntityType("count with ties", 0.2, _count, lambda s: 1.3 * np.log1p(s)),
    "event": EntityType("biased sigmoid", 0.0024, lambda u: expit(1.5 * ndtri(u) + 2.0), logit),
}
"""Base rates are spread evenly in logarithms between 0.1 % and 20 %."""


# ------------------------------------------------------------------ families of curves


def _logistic(rng: np.random.Generator) -> Curve:
    slope = rng.uniform(0.6, 1.6)
    return lambda a, m, _: expit(a + slope * m)


def _beta(rng: np.random.Generator) -> Curve:
    # The beta curve's log-odds in x = expit(m): a + left * log x - right * log(1 - x).
    left, right = rng.uniform(0.2, 1.8, 2)
    return lambda a, m, _: expit(a + left * np.log(expit(m)) - right * np.log(expit(-m)))


def _power(rng: np.random.Generator) -> Curve:
    power = rng.uniform(1.5, 6.0)
    return lambda a, _, q: -np.expm1(-np.exp(a) * q**power)  # about exp(a) q ** power where that is small


def _steps(rng: np.random.Generator) -> Curve:
    places = np.array([0.3, 0.6, 0.85, 0.96]) + rng.uniform(-0.1, 0.03, 4)
    levels = np.append(0.0, np.cumsum(rng.uniform(0.5, 1.3, 4)))
    return lambda a, _, q: expit(a + levels[np.searchsorted(places, q, side="right")])


def _saturating(rng: np.random.Generator) -> Curve:
    slope, ceiling = rng.uniform(1.5, 3.0), rng.uniform(1.6, 3.5)
    # The ceiling is in units of the base rate, which `_curve_of` divides out.
    return lambda a, m, _: ceiling * expit(a + slope * m)


def _kink(rng: np.random.Generator) -> Curve:
    slopes = rng.permutation([rng.uniform(0.05, 0.3), rng.uniform(1.2, 2.2)])
    place = rng.uniform(-0.5, 0.8)
    return lambda a, m, _: expit(a + slopes[0] * np.minimum(m - place, 0.0) + slopes[1] * np.maximum(m - place, 0.0))


def _top_tail(rng: np.random.Generator) -> Curve:
    share, height = rng.uniform(0.02, 0.08), rng.uniform(2.5, 4.0)
    return lambda a, m, q: expit(a + 0.05 * m + height * np.maximum(q - 1.0 + share, 0.0) / share)


FAMILIES = {
    "beta": _beta,  # in this order, so that rotation 0 gives people beta, hashtag logistic and so on
    "logistic": _logistic,
    "power": _power,
    "saturating": _saturating,
    "kink": _kink,
    "steps": _steps,
    "top tail": _top_tail,
}


# ------------------------------------------------------------------ draws


def draw(entity_type: str, n: int, seed: int, *, rotation: int | None = None) -> Draw:
    """Draw rows to learn from and test scores of the same distribution.

    Parameters
    ----------
    entity_type : str
        A key of ``TYPES``.
    n : int
        Rows to learn from.
    seed : int
        Of the curve and, with n, of the rows.
    rotation : int, optional
        Which family the type meets; default: the seed.

    Returns
    -------
    Draw
    """
    number = list(TYPES).index(entity_type)
    of_type = TYPES[entity_type]
    family = list(FAMILIES)[(number + (seed if rotation is None else rotation)) % len(FAMILIES)]
    truth = _truth(of_type, FAMILIES[family](np.random.default_rng([seed, number])), family)
    rng = np.random.default_rng([seed, number, n])
    u, test_u = rng.random(n) + 2.0**-54, rng.random(N_TEST) + 2.0**-54  # never 0
    response = (rng.random(n) < truth(u)).astype(np.float64)
    return Draw(family, of_type.raw_score(u), response, of_type.raw_score(test_u), truth(test_u))


def _truth(of_type: EntityType, curve: Curve, family: str) -> Callable[[Floats], Floats]:
    """Return the expected response as a function of the rank u of a raw score, its mean the base rate."""
    grid_score = of_type.raw_score(_GRID)
    margin = of_type.margin(grid_score)
    middle, spread = float(np.median(margin)), float(margin.std())
    if family == "beta" and of_type.scale in ("probability in [0, 1]", "biased sigmoid"):
        middle, spread = 0.0, 1.0  # x is the score itself
    unit = of_type.base_rate if family == "saturating" else 1.0

    def expected(a: float, u: Floats) -> Floats:
        score = of_type.raw_score(u)
        return np.minimum(unit * curve(a, (of_type.margin(score) - middle) / spread, _quantile(score, u)), 0.999)

    # Newton needs slopes; this is a monotone function of one number, so brentq cannot fail.
    intercept = brentq(lambda a: np.log(expected(a, _GRID[::20]).mean() / of_type.base_rate), -30.0, 12.0, xtol=1e-3)
    intercept = brentq(
        lambda a: np.log(expected(a, _GRID).mean() / of_type.base_rate), intercept - 0.05, intercept + 0.05, xtol=1e-9
    )
    return lambda u: expected(intercept, u)


def _quantile(score: Floats, u: Floats) -> Floats:
    """Return the mid-rank of a score in its distribution: its u, or where scores are tied the middle of their u's."""
    if not np.array_equal(score, np.floor(score)):
        return u
    from scipy.special import ndtr

    with np.errstate(divide="ignore"):
        below, above = (ndtr((np.log(edge) - 0.8) / 0.9) for edge in (score, score + 1.0))
    return (below + above) / 2.0
