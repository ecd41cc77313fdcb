"""The scikit-learn estimator: raw scores of one ranker to expected responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator

from calibration.errors import CalibrationError
from calibration.response import fit_curve
from calibration.rows import CalibrationRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from calibration.curve import ResponseCurve


class QuantileResponseCalibrator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Expected response of a raw score, monotone, learnt from logged responses.

    Parameters
    ----------
    method : {"auto", "loglinear", "shrunken", "isotonic"}
        ``"loglinear"``: a smooth curve, log-odds as a non-negative sum of increasing transforms.
        ``"shrunken"``: that curve, corrected by the data where it misfits beyond noise. ``"isotonic"``:
        centred isotonic regression of the quantile bins. ``"auto"``: the better of the last two by
        cross-validated log loss, where isotonic must win by more than one standard error.
    transforms : {"rank", "all"}
        ``"rank"``: the smooth curve sees the score's quantile only. Then every method gives the same answers
        to a strictly increasing distortion of the ranker, refitted on the same rows: exactly, on new scores
        too (the curve is a step function over the quantile bins). ``"all"``: the smooth curve also sees the
        score's own scale, and is joined by straight lines; a little more accurate where the response is
        smooth in the score, but a distortion of the ranker then moves the answers by a few per cent.
    n_bins : int
        At most so many equal-mass quantile bins; rows are summed into them before anything is fitted.

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
    position; see ``calibration.loglinear.binned_log_loss`` for the loss.

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

    def __init__(self, method: str = "auto", transforms: str = "rank", n_bins: int = 1000) -> None:
        self.method = method
        self.transforms = transforms
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
        raw_score : float[n]
            The ranker's own scale; NaN = not scorable, the row is dropped.
        response : float[n]
            In [0, 1]; usually 0 or 1.
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
            A value out of range (with its row), unequal lengths, no row left, an unknown method.
        """
        rows = CalibrationRows.checked(raw_score, response, sample_weight, examination)
        self.curve_ = fit_curve(rows, method=self.method, transforms=self.transforms, n_bins=self.n_bins)
        self.n_dropped_ = rows.n_dropped
        return self

    def predict(self, raw_score: ArrayLike) -> NDArray[np.float64]:
        """Return the expected response at the reference position.

        Parameters
        ----------
        raw_score : float[...]
            NaN = not scorable.

        Returns
        -------
        float64[...]
            Same shape, non-decreasing in the raw score, inside (0, 1), NaN where the raw score is.

        Raises
        ------
        CalibrationError
            Before ``fit``.
        """
        if not hasattr(self, "curve_"):
            raise CalibrationError("this calibrator is not fitted; call fit(raw_score, response) first")
        return self.curve_.predict(np.asarray(raw_score, dtype=np.float64))
