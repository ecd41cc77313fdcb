"""From checked rows to a fitted curve: bin, choose the form asked for, fit, make it servable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from calibration.binned import BinnedResponses
from calibration.curve import Interpolation, ResponseCurve
from calibration.errors import CalibrationError
from calibration.form import CurveForm
from calibration.quantiles import QuantileTable
from calibration.selection import choose_form
from calibration.spline import CURVATURES

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
    negative_sampling_rate: float = 1.0,
) -> ResponseCurve:
    """Fit the expected response of one ranker's raw scores.

    Parameters
    ----------
    rows : CalibrationRows or ScoreCells
        At least one.
    method, transforms, response, n_bins, negative_sampling_rate
        As in ``QuantileResponseCalibrator``.

    Returns
    -------
    ResponseCurve
        Its ``form`` is the one that was chosen.

    Raises
    ------
    CalibrationError
        An unknown method, transforms or response, n_bins < 1, ``"beta"`` on scores outside [0, 1], or a
        negative sampling rate outside (0, 1], for a response that is not binary, or for rows with examination.

    Notes
    -----
    Where only a share w of the rows without a response was kept, the curve of the sample answers for odds that
    are 1 / w times too large: its log-odds are shifted by log w (He et al. 2014, "Practical lessons from
    predicting clicks on ads at Facebook", section 6.3). Bins are cut in the whole population. The shift is wrong
    where rows are examined less than the reference position: ``CalibrationRows.of_population`` is for these.

    Examples
    --------
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
    if not 0.0 < negative_sampling_rate <= 1.0 or (negative_sampling_rate < 1.0 and response != "binary"):
        raise CalibrationError(
            f"negative_sampling_rate is {negative_sampling_rate}; it must be in (0, 1], and 1 unless the response "
            f"is binary (it is {response})"
        )
    if negative_sampling_rate < 1.0 and np.any(rows.exposure < rows.weight * (1.0 - 1e-9)):
        raise CalibrationError(
            f"negative_sampling_rate is {negative_sampling_rate} and examination is below 1: weigh the rows instead, "
            "rows.of_population(negative_sampling_rate)"
        )
    population = rows.response_sum + (rows.weight - rows.response_sum) / negative_sampling_rate
    weight = rows.weight if negative_sampling_rate == 1.0 else population
    binned = BinnedResponses.of(rows, QuantileTable.fit(rows.raw_score, weight, n_bins=n_bins, tails=TAILS))
    tame = CurveForm("loglinear", transforms, response)
    if method == "spline":
        form = _straightest_spline(binned, tame)
    elif method == "auto":
        form = _best_form(binned, tame, are_probabilities=are_probabilities)
    else:
        form = replace(tame, method=method)
    curve = ResponseCurve(
        form=form,
        interpolation=_interpolation(binned.table, form),
        table=binned.table,
        values=form.fit(binned),
        n_rows=rows.n_rows,
        n_positive=rows.n_positive,
        base_rate=float(binned.responses.sum() / binned.exposure.sum()),
    )
    return curve if negative_sampling_rate == 1.0 else curve.shifted(float(np.log(negative_sampling_rate)))


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
    with np.errstate(over="ignore"):
        gap = np.diff(table.centre)
    # Gaps that overflow, or whose inverse does, would make straight lines meaningless.
    return "linear" if np.all((gap > 1e-290) & np.isfinite(gap)) else "step"
