"""The scikit-learn estimator: raw scores of one ranker to expected responses."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from calibration.errors import CalibrationError
from calibration.families import ResponseFamily
from calibration.response import fit_curve
from calibration.rows import CalibrationRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from calibration.curve import ResponseCurve


class NotFitted(CalibrationError, NotFittedError):  # type: ignore[misc]  # scikit-learn has no types
    """A calibrator that was asked before it was fitted."""


class QuantileResponseCalibrator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Expected response of a raw score, monotone, learnt from logged responses.

    Parameters
    ----------
    method : {"auto", "loglinear", "spline", "isotonic", "steps", "sigmoid", "beta"}
        ``"loglinear"``: a smooth curve, the log-odds a non-negative sum of increasing transforms.
        ``"spline"``: a monotone spline in the log-odds of the quantile, its straightness by cross-validation.
        ``"isotonic"``: centred isotonic regression of the quantile bins; ``"steps"``: isotonic regression with
        its own plateaus. ``"sigmoid"``: log-odds linear in the score (Platt). ``"beta"``: log-odds linear in
        log s and log(1 - s), for scores in [0, 1]. ``"auto"``: the best of these by cross-validated log loss,
        where a bolder one must win by more than one standard error; the bins of a smooth one are then shrunken
        towards it by empirical Bayes, so that data correct it where it misfits beyond noise.
    transforms : {"rank", "all"}
        ``"rank"``: ``"loglinear"`` sees the score's quantile only, and ``"auto"`` considers rank curves only.
        Then a strictly increasing distortion of the ranker, refitted on the same rows, gets the same answers:
        exactly, on new scores too (the curve is a step function over the quantile bins). ``"all"``: they also
        see the score's own scale, and those that do are joined by straight lines; about as accurate, but a
        distortion of the ranker then moves the answers by a few per cent. ``"sigmoid"`` and ``"beta"`` see the
        scale in any case.
    response : {"binary", "count", "continuous"}
        What the ranker's label is: 0 or 1 (or a share in between), a number of events >= 0, any number. The
        curve is then fitted as a Bernoulli, Poisson or Gaussian model with its canonical link, and expected
        responses are inside (0, 1), above 0, or anywhere.
    negative_sampling_rate : float
        The share of rows without a response that was kept in the log, in (0, 1]; the answers are corrected for
        it. Binary responses only.
    n_bins : int
        At most so many quantile bins; rows are summed into them before anything is fitted.

    Attributes
    ----------
    curve_ : ResponseCurve
        What serving touches; ``curve_.method`` says what ``"auto"`` chose.
    n_dropped_ : int
        Rows left out of the fit: raw score NaN, or weight 0.

    Notes
    -----
    Weights are frequency weights: a row of weight 2 counts as the row twice. Weights of another meaning
    should be scaled to mean 1 first. With ``examination`` the response rate is modelled as
    examination * expected_response (the position-based model), so the answer holds at the reference
    position; see ``calibration.families.ResponseFamily`` for the loss.

    References
    ----------
    LinkedIn Engineering, "Building a heterogeneous social network recommendation system" (the SPR post).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> raw_score = rng.normal(size=5000)
    >>> response = rng.random(5000) < 1 / (1 + np.exp(3 - raw_score))
    >>> calibrator = QuantileResponseCalibrator().fit(raw_score, response)
    >>> calibrator.predict([-1.0, 0.0, 1.0]).round(2)
    array([0.02, 0.05, 0.11])
    """

    curve_: ResponseCurve
    n_dropped_: int

    def __init__(
        self,
        method: str = "auto",
        transforms: str = "rank",
        response: str = "binary",
        negative_sampling_rate: float = 1.0,
        n_bins: int = 1000,
    ) -> None:
        self.method = method
        self.transforms = transforms
        self.response = response
        self.negative_sampling_rate = negative_sampling_rate
        self.n_bins = n_bins

    def fit(
        self,
        raw_score: ArrayLike,
        response: ArrayLike,
        sample_weight: ArrayLike | None = None,
        examination: ArrayLike | None = None,
    ) -> QuantileResponseCalibrator:
        """Fit the curve.

        Parameters
        ----------
        raw_score : float[n] or float[n, 1]
            The ranker's own scale; NaN = not scorable, the row is dropped.
        response : float[n]
            Inside the response family's range; usually 0 or 1.
        sample_weight : float[n], optional
            Frequency weights >= 0; default 1.
        examination : float[n], optional
            P(examined at the row's position) / P(examined at the reference position), in (0, 1]; default 1.

        Returns
        -------
        QuantileResponseCalibrator
            Itself.

        Raises
        ------
        CalibrationError
            A value out of range (with its row), unequal lengths, no row left, or an unknown parameter.

        Warns
        -----
        CalibrationWarning
            Rows that a curve can be fitted on but hardly relied upon, for instance without any response; see
            ``curve_.warnings``.
        """
        rows = CalibrationRows.checked(
            _one_column(raw_score),
            response,
            sample_weight,
            examination,
            family=ResponseFamily.named(self.response),
        )
        if self.response != "binary" and self.negative_sampling_rate != 1.0:
            raise CalibrationError(
                f"negative_sampling_rate is {self.negative_sampling_rate}; it must be 1 unless the response is binary "
                f"(it is {self.response})"
            )
        self.curve_ = fit_curve(
            rows.of_population(self.negative_sampling_rate),
            method=self.method,
            transforms=self.transforms,
            response=self.response,
            n_bins=self.n_bins,
        )
        self.n_dropped_ = rows.n_dropped
        for warning in self.curve_.warnings:
            warnings.warn(warning, stacklevel=2)
        return self

    def predict(self, raw_score: ArrayLike) -> NDArray[np.float64]:
        """Return the expected response at the reference position.

        Parameters
        ----------
        raw_score : float[...]
            NaN = not scorable. One column, as a pipeline hands it over, is taken as float[n].

        Returns
        -------
        float64[...]
            Same shape, non-decreasing in the raw score, inside the family's range, NaN where the raw score is.

        Raises
        ------
        NotFitted
            Before ``fit``; a CalibrationError and scikit-learn's NotFittedError.
        CalibrationError
            An infinite raw score, with its row.
        """
        if not hasattr(self, "curve_"):
            raise NotFitted("this calibrator is not fitted; call fit(raw_score, response) first")
        scores = np.asarray(_one_column(raw_score), dtype=np.float64)
        if np.isinf(scores).any():
            first = np.unravel_index(int(np.argmax(np.isinf(scores))), scores.shape)
            row = ", ".join(str(each) for each in first)
            raise CalibrationError(
                f"raw_score must be finite, or NaN where not scorable; row {row} has {scores[first]}"
            )
        return self.curve_.predict(scores)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, False
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


def _one_column(raw_score: ArrayLike) -> NDArray[Any]:
    # a pipeline hands one column over as float[n, 1]
    scores = np.asarray(raw_score)
    return scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores
