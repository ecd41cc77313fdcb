"""Seven first-pass rankers on seven scales, each with the response curve that is true of its raw scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ResponseCurve:
    """A first-pass ranker's scale, and what its raw scores are worth.

    Parameters
    ----------
    entity_type, edge_type : str
        What the ranker recommends, and the edge that a response forms.
    to_scale : callable
        Increasing map from relevance (about standard normal) to the ranker's own scale.
    from_scale : callable
        Its inverse (for a scale with ties, one relevance for each raw score).
    ceiling : float
        The response rate that the best entities approach, in (0, 1].
    intercept, slope : float
        Log-odds of ``response rate / ceiling`` are ``intercept + slope * from_scale(raw_score)``; slope > 0.

    Examples
    --------
    >>> people = CURVES["people"]
    >>> people.raw_score(np.array([-1.0, 0.0, 1.0]))
    array([-3.6, -2.2, -0.8])
    >>> people.response_probability(np.array([-3.6, -0.8, np.nan])).round(3)
    array([0.019, 0.139,   nan])
    """

    entity_type: str
    edge_type: str
    to_scale: Callable[[Floats], Floats]
    from_scale: Callable[[Floats], Floats]
    ceiling: float
    intercept: float
    slope: float

    def raw_score(self, relevance: Floats) -> Floats:
        """Return the raw score of a relevance: the ranker's own scale, higher is better.

        Parameters
        ----------
        relevance : ndarray of float
            About standard normal; clipped to [-4, 4], so that no scale overflows or saturates.

        Returns
        -------
        ndarray of float
            Same shape.
        """
        return self.to_scale(np.clip(relevance, -4.0, 4.0))

    def response_probability(self, raw_score: Floats) -> Floats:
        """Return the true P(response | raw_score, examined).

        Parameters
        ----------
        raw_score : ndarray of float
            On this ranker's scale; NaN = not scorable.

        Returns
        -------
        ndarray of float
            Same shape, in (0, ceiling), increasing in the raw score; NaN where the raw score is NaN.
        """
        return self.ceiling * expit(self.intercept + self.slope * self.from_scale(raw_score))


def _curve(
    entity_type: str,
    edge_type: str,
    *,
    to_scale: Callable[[Floats], Floats],
    from_scale: Callable[[Floats], Floats],
    shape: tuple[float, float, float],
) -> ResponseCurve:
    return ResponseCurve(entity_type, edge_type, to_scale, from_scale, *shape)


CURVES: dict[str, ResponseCurve] = {
    curve.entity_type: curve
    for curve in (
        # log-odds, as a boosted tree ensemble's margin
        _curve(
            "people",
            "connection",
            to_scale=lambda z: 1.4 * z - 2.2,
            from_scale=lambda s: (s + 2.2) / 1.4,
            shape=(0.6, -2.3, 1.1),
        ),
        # a probability of something else (a click), in (0, 1)
        _curve(
            "hashtag",
            "follow",
            to_scale=lambda z: expit(0.9 * z + 0.5),
            from_scale=lambda s: (logit(s) - 0.5) / 0.9,
            shape=(0.4, -1.8, 0.8),
        ),
        # counts (employees known to the viewer), with ties
        _curve(
            "company",
            "follow",
            to_scale=lambda z: np.floor(np.exp(1.0 + 0.9 * z)),
            from_scale=lambda s: (np.log1p(s) - 1.0) / 0.9,
            shape=(0.5, -2.6, 0.9),
        ),
        # points from 0 to 1000
        _curve(
            "member_follow",
            "follow",
            to_scale=lambda z: 1000.0 * ndtr(z),
            from_scale=lambda s: ndtri(s / 1000.0),
            shape=(0.3, -1.9, 1.3),
        ),
        # a negative distance
        _curve(
            "group",
            "subscribe",
            to_scale=lambda z: -np.exp(-0.7 * z),
            from_scale=lambda s: -np.log(-s) / 0.7,
            shape=(0.35, -2.4, 0.7),
        ),
        # heavy-tailed (the author's readers)
        _curve(
            "newsletter",
            "subscribe",
            to_scale=lambda z: 40.0 * np.exp(1.6 * z),
            from_scale=lambda s: np.log(s / 40.0) / 1.6,
            shape=(0.8, -2.8, 1.2),
        ),
        # a cosine, in (-1, 1)
        _curve(
            "event",
            "subscribe",
            to_scale=lambda z: np.tanh(0.5 * z),
            from_scale=lambda s: np.arctanh(s) / 0.5,
            shape=(0.25, -1.7, 1.0),
        ),
    )
}
"""The seven entity types of ``configs/network.toml``, in its order."""
