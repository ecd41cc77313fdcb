"""How good a probability is, at the logged position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from spr.metrics.sums import Sums, check_labels, check_probabilities, check_weights, divide

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

N_BINS: Final = 15
SMALLEST: Final = float(np.finfo(np.float64).eps)


def log_loss(label: ArrayLike, probability: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Average the negative log-likelihood of 0/1 labels, in nats.

    Parameters
    ----------
    label : array of 0 and 1, shape (n_rows,)
    probability : float array, shape (n_rows,)
        In [0, 1]; moved off 0 and 1 by the float64 epsilon, as scikit-learn does.
    weight : float array, shape (n_rows,), optional
        Weight of each row, >= 0; 1 each where not given.

    Returns
    -------
    float

    Raises
    ------
    InvalidModelInput
        No rows, lengths that differ, labels other than 0 and 1, probabilities outside [0, 1].

    Examples
    --------
    >>> round(log_loss([0, 1], [0.5, 0.25]), 4)
    1.0397
    """
    y = check_labels(label)
    p, w = check_probabilities(probability, y), check_weights(weight, y)
    return sum_log_loss(y, p, w).estimate()


def normalized_cross_entropy(label: ArrayLike, probability: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Divide the log loss by that of the rows' own base rate; below 1 is better than knowing the base rate.

    Parameters
    ----------
    label, probability, weight
        As in `log_loss`.

    Returns
    -------
    float
        NaN where all rows have one label: the base rate then has no entropy to divide by.

    Raises
    ------
    InvalidModelInput
        As in `log_loss`.

    References
    ----------
    He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook", ADKDD, equation 1.

    Examples
    --------
    >>> normalized_cross_entropy([0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5])
    1.0
    """
    y = check_labels(label)
    p, w = check_probabilities(probability, y), check_weights(weight, y)
    return sum_normalized_cross_entropy(y, p, w).estimate()


def calibration_error(
    label: ArrayLike, probability: ArrayLike, *, n_bins: int = N_BINS, weight: ArrayLike | None = None
) -> float:
    """Average the absolute gap between mean label and mean probability, over bins of equal mass.

    Parameters
    ----------
    label, probability, weight
        As in `log_loss`.
    n_bins : int, default 15
        Equal probabilities share a bin, so that there may be fewer.

    Returns
    -------
    float
        Never quite 0, even for true probabilities: noise in a bin of m rows adds about ``0.8 sqrt(p (1 - p) /
        m)``.

    Raises
    ------
    InvalidModelInput
        As in `log_loss`.

    References
    ----------
    Nguyen and O'Connor 2015, "Posterior calibration and exploratory analysis for natural language processing
    models", EMNLP, section 3 (adaptive bins, with the absolute in place of the squared gap).

    Examples
    --------
    >>> calibration_error([0, 1, 0, 1], [0.25, 0.25, 0.75, 0.75], n_bins=2)
    0.25
    """
    y = check_labels(label)
    p, w = check_probabilities(probability, y), check_weights(weight, y)
    return sum_calibration_error(y, p, w, n_bins).estimate()


def sum_log_loss(label: Floats, probability: Floats, weight: Floats) -> Sums:
    """Add up `log_loss`, one unit per row."""
    loss = _cross_entropy(label, probability)
    return Sums(2, [(0, weight * loss), (1, weight)], lambda total: divide(total[..., 0], total[..., 1]))


def sum_normalized_cross_entropy(label: Floats, probability: Floats, weight: Floats) -> Sums:
    """Add up `normalized_cross_entropy`, one unit per row."""

    def divide_by_base_rate(total: Floats) -> Floats:
        loss, base_rate = divide(total[..., 0], total[..., 2]), divide(total[..., 1], total[..., 2])
        return divide(loss, _entropy(base_rate))

    parts = [(0, weight * _cross_entropy(label, probability)), (1, weight * label), (2, weight)]
    return Sums(3, parts, divide_by_base_rate)


def sum_calibration_error(label: Floats, probability: Floats, weight: Floats, n_bins: int = N_BINS) -> Sums:
    """Add up `calibration_error`, one unit per row; the bins are those of all rows."""
    _, tie = np.unique(probability, return_inverse=True)
    mass = np.bincount(tie, weight)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    bin_of = np.minimum((middle * n_bins).astype(np.int64), n_bins - 1)[tie]
    parts = [(bin_of, weight * (label - probability)), (n_bins, weight)]
    return Sums(n_bins + 1, parts, lambda total: divide(np.abs(total[..., :-1]).sum(axis=-1), total[..., -1]))


def _cross_entropy(label: Floats, probability: Floats) -> Floats:
    probability = np.clip(probability, SMALLEST, 1.0 - SMALLEST)
    return -np.log(np.where(label == 1.0, probability, 1.0 - probability))


def _entropy(rate: Floats) -> Floats:
    inside = np.clip(rate, SMALLEST, 1.0 - SMALLEST)
    return np.where(rate == inside, -(inside * np.log(inside) + (1.0 - inside) * np.log1p(-inside)), 0.0)
