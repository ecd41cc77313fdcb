"""The contract of a calibrator, as checks that a user's own calibrator can run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np
from sklearn.base import clone

from calibration.errors import CalibrationWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray


class Calibrator(Protocol):
    """What can stand in for a ``QuantileResponseCalibrator``: a scikit-learn estimator of this shape."""

    def fit(self, raw_score: ArrayLike, response: ArrayLike, sample_weight: ArrayLike | None = None) -> Calibrator:
        """Learn from float[n] raw scores (NaN = not scorable), responses in [0, 1] and frequency weights."""
        ...

    def predict(self, raw_score: ArrayLike) -> NDArray[np.float64]:
        """Return expected responses, same shape, in (0, 1), NaN where the raw score is."""
        ...


class ContractViolation(AssertionError):
    """A calibrator breaks its contract; the message says which part and shows the numbers."""


def check_calibrator(calibrator: Calibrator) -> None:
    """Check that a calibrator keeps the contract that the second pass relies on.

    Parameters
    ----------
    calibrator : Calibrator
        Not fitted; it is cloned for every check and left alone.

    Raises
    ------
    ContractViolation
        The first broken part: monotone, inside (0, 1), NaN to NaN, shape, repeatable, order of rows, weights
        as repetition, flat outside the range, degenerate rows, true on average and in the extremes, or bad
        input not refused with a ValueError.

    Examples
    --------
    >>> from calibration import QuantileResponseCalibrator
    >>> check_calibrator(QuantileResponseCalibrator(method="isotonic"))
    """
    for check in (
        _check_shape_and_range,
        _check_monotone,
        _check_flat_outside,
        _check_repeatable,
        _check_weights,
        _check_degenerate_rows,
        _check_truth,
        _check_refusals,
    ):
        with warnings.catch_warnings():
            # degenerate rows are part of the contract; that a calibrator warns of them is welcome
            warnings.simplefilter("ignore", CalibrationWarning)
            check(lambda: clone(calibrator))


def _rows(seed: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scores on a skewed scale with ties, their responses, and the true rates."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=n).round(2)
    truth = 1.0 / (1.0 + np.exp(2.5 - 1.2 * latent))
    return np.exp(latent), (rng.random(n) < truth).astype(np.float64), truth


def _require(holds: bool | np.bool, message: str) -> None:
    if not holds:
        raise ContractViolation(message)


def _check_shape_and_range(fresh: Callable[[], Calibrator]) -> None:
    raw_score, response, _ = _rows(1, 800)
    fitted = fresh().fit(raw_score, response)
    asked = np.append(raw_score[:50], np.nan)
    answer = fitted.predict(asked)
    _require(
        isinstance(answer, np.ndarray) and answer.shape == asked.shape and answer.dtype == np.float64,
        f"predict must return float64 of shape {asked.shape}; it returned {type(answer).__name__}",
    )
    _require(np.isnan(answer[-1]), f"predict must give NaN for NaN; it gave {answer[-1]}")
    inside = (answer[:-1] > 0) & (answer[:-1] < 1)
    _require(inside.all(), f"expected responses must be inside (0, 1); found {answer[:-1][~inside][:3]}")
    _require(fitted.predict(np.empty(0)).shape == (0,), "predict must accept no rows at all")


def _check_monotone(fresh: Callable[[], Calibrator]) -> None:
    for seed, n in ((2, 30), (3, 300), (4, 3000)):
        raw_score, response, _ = _rows(seed, n)
        grid = np.sort(np.concatenate([raw_score, np.linspace(-1.0, 2 * raw_score.max(), 2000)]))
        drop = np.diff(fresh().fit(raw_score, response).predict(grid)).min()
        _require(drop >= -1e-12, f"a higher raw score must not lower the expected response; n={n}: drop of {-drop:.3g}")


def _check_flat_outside(fresh: Callable[[], Calibrator]) -> None:
    raw_score, response, _ = _rows(5, 800)
    fitted = fresh().fit(raw_score, response)
    low, high = raw_score.min(), raw_score.max()
    inside, outside = fitted.predict(np.array([low, high])), fitted.predict(np.array([low - 1e3, high + 1e3]))
    _require(
        np.allclose(inside, outside, rtol=1e-9),
        f"outside the fitted range the curve must stay flat; at its ends {inside}, beyond {outside}",
    )


def _check_repeatable(fresh: Callable[[], Calibrator]) -> None:
    raw_score, response, _ = _rows(6, 800)
    once, again = (fresh().fit(raw_score, response).predict(raw_score) for _ in range(2))
    _require(np.array_equal(once, again), "two fits on the same rows must agree exactly")
    order = np.random.default_rng(0).permutation(raw_score.size)
    shuffled = fresh().fit(raw_score[order], response[order]).predict(raw_score)
    _require(np.allclose(once, shuffled, rtol=1e-6), "the order of the rows must not matter")
    with_nan = fresh().fit(np.append(raw_score, np.nan), np.append(response, 1.0)).predict(raw_score)
    _require(np.allclose(once, with_nan, rtol=1e-6), "rows whose raw score is NaN must not change the fit")


def _check_weights(fresh: Callable[[], Calibrator]) -> None:
    raw_score, response, _ = _rows(7, 600)
    weight = np.random.default_rng(0).integers(0, 4, raw_score.size)
    weighted = fresh().fit(raw_score, response, sample_weight=weight.astype(np.float64)).predict(raw_score)
    repeated = fresh().fit(np.repeat(raw_score, weight), np.repeat(response, weight)).predict(raw_score)
    worst = np.abs(weighted / repeated - 1).max()
    _require(worst < 1e-6, f"a row of weight 2 must count as the row twice; answers differ by {worst:.2%}")


def _check_degenerate_rows(fresh: Callable[[], Calibrator]) -> None:
    five = np.array([-2.0, 0.0, 1.0, 5.0, 9.0])
    cases = {
        "no positives": (five, np.zeros(5)),
        "only positives": (five, np.ones(5)),
        "one row": (five[:1], np.ones(1)),
        "five rows": (five, np.array([0.0, 0.0, 1.0, 0.0, 1.0])),
        "five rows, decreasing": (five, np.array([1.0, 1.0, 0.0, 0.0, 0.0])),
        "one distinct score": (np.full(40, 3.0), np.arange(40) % 4 == 0),
        "huge scores": (five * 1e300 / 9.0, np.array([0.0, 0.0, 1.0, 0.0, 1.0])),
    }
    for name, (raw_score, response) in cases.items():
        answer = fresh().fit(raw_score, response).predict(np.linspace(-10.0, 10.0, 50))
        _require(
            np.all((answer > 0) & (answer < 1)) and np.diff(answer).min() >= -1e-12,
            f"{name}: expected responses must be monotone and inside (0, 1); found {answer[[0, 24, -1]]}",
        )


def _check_truth(fresh: Callable[[], Calibrator]) -> None:
    raw_score, response, truth = _rows(8, 20_000)
    answer = fresh().fit(raw_score, response).predict(raw_score)
    bias = answer.mean() / response.mean() - 1
    _require(abs(bias) < 0.05, f"the mean expected response must be the base rate; it is off by {bias:+.1%}")
    order = np.argsort(raw_score)
    for name, part in (("lowest", order[:4000]), ("highest", order[-4000:])):
        ratio = answer[part].mean() / truth[part].mean()
        _require(
            0.75 < ratio < 1.33,
            f"the {name} fifth of the scores has {ratio:.2f} times its true rate; 0.75 to 1.33 is fine",
        )


def _check_refusals(fresh: Callable[[], Calibrator]) -> None:
    raw_score, response, _ = _rows(9, 100)
    infinite, negative, too_large = raw_score.copy(), np.ones(100), response.copy()
    infinite[3], negative[3], too_large[3] = np.inf, -1.0, 2.0
    cases: dict[str, tuple[ArrayLike, ArrayLike, ArrayLike | None]] = {
        "an infinite raw score": (infinite, response, None),
        "a response above 1": (raw_score, too_large, None),
        "a response that is NaN": (raw_score, np.where(np.arange(100) == 3, np.nan, response), None),
        "a negative weight": (raw_score, response, negative),
        "unequal lengths": (raw_score, response[:99], None),
        "no rows": (raw_score[:0], response[:0], None),
    }
    for name, (scores, responses, weights) in cases.items():
        try:
            fresh().fit(scores, responses, sample_weight=weights)
        except ValueError:
            continue
        raise ContractViolation(f"fit must refuse {name} with a ValueError; it did not")
