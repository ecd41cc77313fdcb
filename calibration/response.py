"""From checked rows to a fitted curve: bin, fit the method asked for, make it servable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from calibration.curve import Interpolation, ResponseCurve
from calibration.errors import CalibrationError
from calibration.isotonic import fit_isotonic
from calibration.loglinear import Transforms, binned_log_loss, fit_loglinear, logit
from calibration.quantiles import QuantileTable, sum_by_group
from calibration.shrinkage import shrink_to_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.rows import CalibrationRows

Method = Literal["auto", "loglinear", "shrunken", "isotonic"]
N_FOLDS = 5


def fit_curve(
    rows: CalibrationRows, *, method: str = "auto", transforms: str = "rank", n_bins: int = 1000
) -> ResponseCurve:
    """Fit the expected response of one ranker's raw scores.

    Parameters
    ----------
    rows : CalibrationRows
        At least one.
    method : {"auto", "loglinear", "shrunken", "isotonic"}
        ``"loglinear"``: a smooth curve. ``"shrunken"``: that curve, corrected by the data where it
        misfits. ``"isotonic"``: no shape but monotone; depends on ranks only. ``"auto"``: the better of the
        last two by cross-validated log loss; isotonic must win by more than one standard error.
    transforms : {"rank", "all"}
        What the smooth curve is made of: ranks only (then every method depends on ranks only), or the score's
        own scale too.
    n_bins : int
        At most so many quantile bins.

    Returns
    -------
    ResponseCurve
        Its ``method`` is the one that was chosen.

    Raises
    ------
    CalibrationError
        An unknown method or transforms, or n_bins < 1.

    Examples
    --------
    >>> from calibration.rows import CalibrationRows
    >>> rows = CalibrationRows.checked(np.arange(100.0), np.arange(100) >= 50)
    >>> fit_curve(rows, method="isotonic").predict(np.array([20.0, 80.0])).round(3)
    array([0.01, 0.99])
    """
    _refuse_unknown("method", method, get_args(Method))
    _refuse_unknown("transforms", transforms, get_args(Transforms))
    table = QuantileTable.fit(rows.raw_score, rows.weight, n_bins=n_bins)
    bins = table.assign(rows.raw_score)
    m = table.lower.size
    positives = sum_by_group(bins, rows.weight * rows.response, m)
    exposure = sum_by_group(bins, rows.weight * rows.examination, m)
    if method == "auto":
        method = _choose_method(table, positives, exposure, transforms)
    values = fit_values(table, positives, exposure, method=method, transforms=transforms)
    return ResponseCurve(
        method=method,
        interpolation=_interpolation(table, method, transforms),
        table=table,
        values=values,
        n_rows=rows.raw_score.size,
        n_positive=int(np.count_nonzero(rows.response)),
        base_rate=float(positives.sum() / exposure.sum()),
    )


def fit_values(
    table: QuantileTable,
    positives: NDArray[np.float64],
    exposure: NDArray[np.float64],
    *,
    method: str,
    transforms: str,
) -> NDArray[np.float64]:
    """Fit the expected response of each bin of a given table.

    Parameters
    ----------
    table : QuantileTable
        The bins, m of them.
    positives : float64[m]
        Weighted sum of responses.
    exposure : float64[m]
        Weighted sum of examinations. A bin with 0 is only predicted.
    method : {"loglinear", "shrunken", "isotonic"}
        As in ``fit_curve``, already chosen.
    transforms : {"rank", "all"}
        As in ``fit_curve``.

    Returns
    -------
    float64[m]
        Non-decreasing, inside (0, 1). Without any response (1/2) / (n + 1), n the total exposure; with
        nothing but responses the mirror image.

    Examples
    --------
    >>> table = QuantileTable.fit([1.0, 2.0])
    >>> fit_values(table, np.zeros(2), np.array([2.0, 2.0]), method="isotonic", transforms="all")
    array([0.1, 0.1])
    """
    total_positives, total_exposure = float(positives.sum()), float(exposure.sum())
    half_a_row = 0.5 / (total_exposure + 1.0)
    if total_positives <= 0.0:
        return np.full(positives.size, half_a_row)
    if total_positives >= total_exposure:
        return np.full(positives.size, 1.0 - half_a_row)
    if method == "isotonic":
        return fit_isotonic(table.quantile, positives, exposure)
    smooth = fit_loglinear(table, positives, exposure, "rank" if transforms == "rank" else "all")
    if method == "loglinear":
        return smooth
    return shrink_to_curve(smooth, table, positives, exposure)


def _choose_method(
    table: QuantileTable, positives: NDArray[np.float64], exposure: NDArray[np.float64], transforms: str
) -> str:
    # A fold is every fifth bin. Whole bins keep tied rows together, and make the choice independent of the
    # order of the rows, of weights written as repeated rows and, for rank-only curves, of distortions.
    m = positives.size
    if m < 2:
        return "shrunken"
    fold = np.arange(m) % N_FOLDS
    loss = {"shrunken": np.zeros(m), "isotonic": np.zeros(m)}
    for number in range(min(N_FOLDS, m)):
        held_out = fold == number
        learnt_positives = np.where(held_out, 0.0, positives)
        learnt_exposure = np.where(held_out, 0.0, exposure)
        for method, bin_loss in loss.items():
            values = fit_values(table, learnt_positives, learnt_exposure, method=method, transforms=transforms)[
                held_out
            ]
            bin_loss[held_out] = binned_log_loss(logit(values), positives[held_out], exposure[held_out])
    gain = loss["shrunken"] - loss["isotonic"]
    # Isotonic is the noisier of the two, so it must win by more than one standard error.
    return "isotonic" if gain.sum() > np.sqrt(m) * gain.std() else "shrunken"


def _interpolation(table: QuantileTable, method: str, transforms: str) -> Interpolation:
    if method == "isotonic" or transforms == "rank":
        return "step"  # exact under every strictly increasing distortion of the raw score
    with np.errstate(over="ignore"):
        gap = np.diff(table.centre)
    # Gaps that overflow, or whose inverse does, would make straight lines meaningless.
    return "linear" if np.all((gap > 1e-290) & np.isfinite(gap)) else "step"


def _refuse_unknown(name: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise CalibrationError(f"unknown {name} {found!r}; known: {', '.join(known)}")
