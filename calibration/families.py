"""What a response is: a click or none, a count, or any number; with its link and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Response = Literal["binary", "count", "continuous"]

LARGEST_LOG_ODDS = 30.0
"""Beyond it 1 - probability loses its last digits in float64."""


def expit(log_odds: Floats) -> Floats:
    """Return probabilities strictly inside (0, 1).

    Parameters
    ----------
    log_odds : float64[...]

    Returns
    -------
    float64[...]

    Examples
    --------
    >>> expit(np.array([0.0]))
    array([0.5])
    """
    bounded = np.clip(log_odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)))


def logit(probability: Floats) -> Floats:
    """Return log-odds.

    Parameters
    ----------
    probability : float64[...]
        Inside (0, 1).

    Returns
    -------
    float64[...]

    Examples
    --------
    >>> logit(np.array([0.5]))
    array([0.])
    """
    return np.asarray(np.log(probability) - np.log1p(-probability))


@dataclass(frozen=True)
class ResponseFamily:
    """An exponential family with its canonical link, where an expected response is ``mean(eta)``.

    Parameters
    ----------
    name : {"binary", "count", "continuous"}
        Bernoulli with log-odds, Poisson with logarithm, Gaussian with identity.
    lowest, highest : float
        Of a response, inclusive; expected responses are strictly inside.

    Notes
    -----
    ``loss`` is exposure * b(eta) - responses * eta, with b the family's cumulant function (McCullagh and
    Nelder 1989, section 2.2.2): the negative log likelihood of ``exposure`` rows, up to a constant and, for
    the Gaussian, the variance. A row examined with relative probability e counts as e rows; the gradient
    exposure * mean - responses has expectation 0 at the truth, since E[response] = e * mean: the estimate
    is consistent at the reference position, and responses / exposure is its answer for a free bin.

    Examples
    --------
    >>> family = ResponseFamily.named("count")
    >>> family.mean(family.link(np.array([2.5])))
    array([2.5])
    >>> ResponseFamily.named("binary").loss(np.array([0.0]), np.array([1.0]), np.array([2.0])).round(4)
    array([1.3863])
    """

    name: Response
    lowest: float
    highest: float

    @classmethod
    def named(cls, name: str) -> ResponseFamily:
        """Return a family by its name.

        Parameters
        ----------
        name : {"binary", "count", "continuous"}

        Returns
        -------
        ResponseFamily

        Raises
        ------
        CalibrationError
            An unknown name.
        """
        for family in (BINARY, COUNT, CONTINUOUS):
            if family.name == name:
                return family
        raise CalibrationError(f"unknown response {name!r}; known: {', '.join(get_args(Response))}")

    @property
    def allowed(self) -> str:
        """What a response of this family may be, for messages."""
        return {
            "binary": "in [0, 1]",
            "count": "finite and >= 0",
            "continuous": "finite",
        }[self.name]

    def link(self, mean: Floats) -> Floats:
        """Return eta of expected responses, float64[...]: log-odds, logarithm or themselves."""
        if self.name == "binary":
            return logit(mean)
        return np.log(mean) if self.name == "count" else mean

    def mean(self, eta: Floats) -> Floats:
        """Return the expected responses of eta, float64[...], strictly inside the family's range."""
        if self.name == "binary":
            return expit(eta)
        return np.asarray(np.exp(np.clip(eta, -700.0, 700.0))) if self.name == "count" else eta

    def variance(self, mean: Floats) -> Floats:
        """Return a response's variance at an expected response, float64[...], in units of the dispersion."""
        if self.name == "binary":
            return mean * (1.0 - mean)
        return mean if self.name == "count" else np.ones_like(mean)

    def loss(self, eta: Floats, responses: Floats, exposure: Floats) -> Floats:
        """Return the loss of each bin, float64[m], summed over its rows; responses and exposure are float64[m]."""
        if self.name == "binary":
            cumulant = np.logaddexp(0.0, eta)
        else:
            cumulant = self.mean(eta) if self.name == "count" else eta**2 / 2
        return np.asarray(exposure * cumulant - responses * eta)


BINARY = ResponseFamily("binary", 0.0, 1.0)
COUNT = ResponseFamily("count", 0.0, np.inf)
CONTINUOUS = ResponseFamily("continuous", -np.inf, np.inf)


def shifted_to_total(mean: Floats, exposure: Floats, total: float, family: ResponseFamily) -> Floats:
    """Shift expected responses on the link scale until they sum to a total.

    Parameters
    ----------
    mean : float64[m]
        Inside the family's range.
    exposure : float64[m]
        Rows of each.
    total : float
        sum(exposure * result), strictly inside what the family allows.
    family : ResponseFamily

    Returns
    -------
    float64[m]

    Examples
    --------
    >>> shifted_to_total(np.array([0.5, 0.5]), np.ones(2), 0.5, BINARY).round(3)
    array([0.25, 0.25])
    """
    if family.name == "continuous":
        return np.asarray(mean + (total - exposure @ mean) / exposure.sum())
    if family.name == "count":
        return np.asarray(mean * (total / (exposure @ mean)))
    eta, low, high = family.link(mean), -2 * LARGEST_LOG_ODDS, 2 * LARGEST_LOG_ODDS
    for _ in range(60):
        shift = (low + high) / 2
        low, high = (shift, high) if exposure @ family.mean(eta + shift) < total else (low, shift)
    return family.mean(eta + (low + high) / 2)
