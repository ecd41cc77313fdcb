"""Other people's calibrators, each as fit(raw_score, response) -> predict. Needs `.venv-peers`; see the Makefile.

Raw scores have any scale, and many peers want a probability. Such a peer gets the raw score where it is in [0, 1], else
its mid-rank quantile among the fitted rows, interpolated between them (`unit_scale`); betacal also gets min-max
scores, in a row of its own. Binning peers always get the quantile, for bins of equal mass. Isotonic regression and
Venn-ABERS use the order alone. That transformation is part of the peer's CPU.

What is left out, and why, is in ``LEFT_OUT``, which the benchmark prints.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Predict = Callable[[Floats], Floats]
    Fit = Callable[[Floats, Floats], Predict]

LEFT_OUT = {
    "scikit-learn temperature scaling": "one parameter, no intercept: it cannot learn a base rate",
    "statsmodels GLM (logit)": "Platt's model, without his smoothing of the targets",
    "netcal IsotonicRegression": "calls scikit-learn's on the same rows",
    "netcal NearIsotonicRegression": "alone it is the perfect fit to the rows, one step of ENIR's path",
    "netcal TemperatureScaling": "as scikit-learn's",
    "relplot": "diagnoses, calibrates nothing",
}


@dataclass(frozen=True)
class Peer:
    """One calibrator of another library.

    Parameters
    ----------
    distribution : str
        What its version is that of.
    fit : callable
        fit(raw_score, response) -> predict.
    most_rows : int
        Left out beyond.
    why_not_more : str
        What it would cost.
    """

    distribution: str
    fit: Fit
    most_rows: int = 10**9
    why_not_more: str = ""

    @property
    def version(self) -> str | None:
        """None where it is not installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None


# ------------------------------------------------------------------ to [0, 1]


def mid_rank_quantile(raw_score: Floats) -> Predict:
    """Return the map of a raw score to its mid-rank quantile among these, inside (0, 1)."""
    distinct, counts = np.unique(raw_score, return_counts=True)
    quantile = (np.cumsum(counts) - counts / 2) / raw_score.size
    return lambda score: np.interp(score, distinct, quantile)


def min_max(raw_score: Floats) -> Predict:
    """Return the linear map of these raw scores onto [0, 1], clipped."""
    low, high = raw_score.min(), raw_score.max()
    return lambda score: np.clip((score - low) / (high - low), 0.0, 1.0)


def unit_scale(raw_score: Floats, otherwise: Callable[[Floats], Predict] = mid_rank_quantile) -> Predict:
    """Return the identity where the raw scores are in [0, 1], else the other map."""
    if raw_score.min() >= 0.0 and raw_score.max() <= 1.0:
        return lambda score: np.clip(score, 0.0, 1.0)
    return otherwise(raw_score)


# ------------------------------------------------------------------ fits


def _isotonic(raw_score: Floats, response: Floats) -> Predict:
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(out_of_bounds="clip").fit(raw_score, response).predict


def _platt(raw_score: Floats, response: Floats) -> Predict:
    from sklearn.calibration import _SigmoidCalibration

    return _SigmoidCalibration().fit(raw_score, response).predict


def _betacal(to_unit: Callable[[Floats], Predict]) -> Fit:
    def fit(raw_score: Floats, response: Floats) -> Predict:
        from betacal import BetaCalibration

        unit = to_unit(raw_score)
        with warnings.catch_warnings():  # it silences every warning of the process
            fitted = BetaCalibration("abm").fit(unit(raw_score), response)
        return lambda score: fitted.predict(unit(score))

    return fit


def _venn_abers(raw_score: Floats, response: Floats) -> Predict:
    from venn_abers import VennAbers

    # Four decimals are its own remedy for many rows (`precision`), but it does not round the scores it is asked for,
    # which puts tied ones into the bin beside theirs. So both are rounded here.
    quantile, decimals = mid_rank_quantile(raw_score), 16 if raw_score.size <= 10_000 else 4

    def two_columns(score: Floats) -> Floats:
        rounded = quantile(score).round(decimals)
        return np.column_stack([1.0 - rounded, rounded])

    fitted = VennAbers()
    with _quiet():
        fitted.fit(two_columns(raw_score), response)
    return lambda score: fitted.predict_proba(two_columns(score))[0][:, 1]


def _splinecalib(raw_score: Floats, response: Floats) -> Predict:
    from splinecalib import SplineCalib

    # Its prior adds 20 rows at y = x: right for a probability, 10 responses too many for a quantile.
    unit = unit_scale(raw_score)
    fitted = SplineCalib(unity_prior=False)
    with _quiet():
        fitted.fit(unit(raw_score), response)
    return lambda score: np.asarray(fitted.calibrate(unit(score)))


def _netcal(module: str, name: str, to_unit: Callable[[Floats], Predict], **options: Any) -> Fit:
    def fit(raw_score: Floats, response: Floats) -> Predict:
        unit = to_unit(raw_score)
        with _quiet():
            fitted = getattr(importlib.import_module(f"netcal.{module}"), name)(**options)
            kept = {"tensorboard": False} if module == "scaling" else {}  # else it writes a folder of logs
            fitted.fit(unit(raw_score), response.astype(np.int64), **kept)

        def predict(score: Floats) -> Floats:
            with _quiet():
                return np.asarray(fitted.transform(unit(score)), dtype=np.float64).reshape(-1)

        return predict

    return fit


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),  # tqdm's bars
        warnings.catch_warnings(action="ignore"),
        np.errstate(all="ignore"),
    ):
        yield


PEERS = {
    "sklearn isotonic": Peer("scikit-learn", _isotonic),
    "sklearn Platt": Peer("scikit-learn", _platt),
    "betacal abm": Peer("betacal", _betacal(unit_scale)),
    "betacal abm, min-max": Peer("betacal", _betacal(lambda raw_score: unit_scale(raw_score, min_max))),
    "venn-abers": Peer("venn-abers", _venn_abers),
    "splinecalib": Peer("splinecalib", _splinecalib, 100_000, "88 CPU seconds at a million"),
    "netcal histogram": Peer("netcal", _netcal("binning", "HistogramBinning", mid_rank_quantile, bins=10)),
    "netcal BBQ": Peer("netcal", _netcal("binning", "BBQ", mid_rank_quantile), 10_000, "4-6 CPU seconds at 100,000"),
    "netcal ENIR": Peer("netcal", _netcal("binning", "ENIR", mid_rank_quantile), 1_000, "2-5 CPU seconds at 10,000"),
    "netcal logistic": Peer("netcal", _netcal("scaling", "LogisticCalibration", unit_scale)),
    "netcal beta": Peer("netcal", _netcal("scaling", "BetaCalibration", unit_scale)),
}
