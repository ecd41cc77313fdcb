"""From checked rows to a fitted curve: bin, choose the form asked for, fit, make it servable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from calibration.binned import BinnedResponses
from calibration.curve import Interpolation, ResponseCurve, can_be_joined
from calibration.errors import CalibrationError
from calibration.forms import CurveForm
from calibration.forms.selection import choose_form
from calibration.forms.spline import CURVATURES
from calibration.quantiles import QuantileTable

if TYPE_CHECKING:
    from calibration.binned import ScoredResponses

TAILS = 0.5
"""Share of the bins cut evenly in the log-odds of the quantile: what is shown to viewers is a ranker's top."""

Method = Literal["auto", "loglinear", "spline", "isotonic", "steps", "sigmoid", "beta"]


def fit_curve(
    rows: ScoredResponses,
    *,
    method: str = "auto",
    transforms: str = "rank",
    response: str = "binary",
    n_bins: int = 1000,
) -> ResponseCurve:
    """Fit the expected response of one ranker's raw scores.

    Parameters
    ----------
    rows : CalibrationRows or ScoreCells
        At least one.
    method, transforms, response, n_bins
        As in ``QuantileResponseCalibrator``.

    Returns
    -------
    ResponseCurve
        Its ``form`` is the one that was chosen.

    Raises
    ------
    CalibrationError
        An unknown method, transforms or response, n_bins < 1, or ``"beta"`` on scores outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from calibration.rows import CalibrationRows
    >>> rows = CalibrationRows.checked(np.arange(100.0), np.arange(100) >= 50)
    >>> fit_curve(rows, method="isotonic").predict(np.array([20.0, 80.0])).round(3)
    array([0.01, 0.99])
    """
    if method not in get_args(Method):
        raise CalibrationError(f"unknown method {method!r}; known: {', '.join(get_args(Method))}")
    lowest, highest = float(rows.raw_score.min()), float(rows.raw_score.max())
    are_probabilities = lowest >= 0.0 and highest <= 1.0
    if method == "beta" and not are_probabilities:
        raise CalibrationError(
            f"method 'beta' needs raw scores in [0, 1]; they are between {lowest} and {highest}. Use 'auto'"
        )
    binned = BinnedResponses.of(rows, QuantileTable.fit(rows.raw_score, rows.weight, n_bins=n_bins, tails=TAILS))
    tame = CurveForm("loglinear", transforms, response)
    if method == "spline":
        form = _straightest_spline(binned, tame)
    elif method == "auto":
        form = _best_form(binned, tame, are_probabilities=are_probabilities)
    else:
        form = replace(tame, method=method)
    return ResponseCurve(
        form=form,
        interpolation=_interpolation(binned.table, form),
        table=binned.table,
        values=form.fit(binned),
        n_rows=rows.n_rows,
        n_positive=rows.n_positive,
        base_rate=float(binned.responses.sum() / binned.exposure.sum()),
    )


def _best_form(binned: BinnedResponses, tame: CurveForm, *, are_probabilities: bool) -> CurveForm:
    methods = ["loglinear"]
    if tame.transforms == "all":
        methods += ["sigmoid", "beta"] if are_probabilities else ["sigmoid"]
    shrunken = [replace(tame, method=method, is_shrunken=True) for method in methods]
    spline = replace(_straightest_spline(binned, tame), is_shrunken=True)
    free = [replace(tame, method=method) for method in ("isotonic", "steps")]
    return choose_form(binned, [*shrunken, spline, *free])


def _straightest_spline(binned: BinnedResponses, tame: CurveForm) -> CurveForm:
    return choose_form(
        binned, [replace(tame, method="spline", curvature=each) for each in sorted(CURVATURES, reverse=True)]
    )


def _interpolation(table: QuantileTable, form: CurveForm) -> Interpolation:
    if form.depends_on_ranks_only:
        return "step"  # exact under every strictly increasing distortion of the raw score
    return "linear" if can_be_joined(table) else "step"
