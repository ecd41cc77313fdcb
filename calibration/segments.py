"""One ranker, several segments of viewers: each segment's curve is drawn to the ranker's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from calibration.binned import BinnedResponses
from calibration.forms.shrinkage import dispersion, shrink_to_curve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.binned import ScoredResponses
    from calibration.curve import ResponseCurve
    from calibration.families import ResponseFamily
    from calibration.rows import CalibrationRows

    Floats = NDArray[np.float64]

PRIOR_SPREAD = (0.3, 0.2)
"""How much a segment's level and steepness usually differ: standard deviations on the link scale."""

PRIOR_SEGMENTS = 2.0
"""So many segments' worth of belief in PRIOR_SPREAD: with two segments alone, no spread can be estimated."""

SMALLEST_UNIT = 0.1

FREE = 100.0
"""Times the customary variances: so far apart are segments where only their noise is measured."""

DISPERSION_STEPS = 5
EM_STEPS = 30
NEWTON_STEPS = 25


@dataclass(frozen=True, eq=False)
class _Deviation:
    """A segment's level and steepness beside its ranker's curve, and the inverse of their information."""

    mode: Floats
    covariance: Floats


def segment_curves(curve: ResponseCurve, segments: Mapping[str, ScoredResponses]) -> dict[str, ResponseCurve]:
    """Fit one curve per segment, partially pooled to the ranker's curve.

    Parameters
    ----------
    curve : ResponseCurve
        Of the ranker, over all segments; its bins and form are used.
    segments : mapping of name to CalibrationRows or ScoreCells
        Each segment's rows.

    Returns
    -------
    dict of name to ResponseCurve
        Its ``base_rate`` and counts are the segment's own; its table is the ranker's.

    Notes
    -----
    eta_s = eta + a_s + b_s * (eta - mean eta), with a_s ~ N(0, tau_a^2) and b_s ~ N(0, tau_b^2) over segments,
    eta the ranker's curve on the link scale. The spreads are estimated by EM on the segments' posterior modes
    and variances (Laplace; Gelman and Hill 2007, chapter 12, for the model), beginning from and weighed against
    two segments' worth of a customary spread. A segment without rows is the ranker's curve itself. A large
    segment's bins may then depart from a_s + b_s * eta as far as ``shrink_to_curve`` finds evidence for. The
    dispersion is one for all segments: fifty rows without a response would seem to vary not at all.

    Examples
    --------
    >>> from calibration.response import fit_curve
    >>> from calibration.rows import CalibrationRows
    >>> rng = np.random.default_rng(0)
    >>> score, is_frequent = rng.normal(size=20_000), rng.random(20_000) < 0.02
    >>> rows = CalibrationRows.checked(score, rng.random(20_000) < np.where(is_frequent, 0.4, 0.1))
    >>> parts = {"frequent": rows.take(np.flatnonzero(is_frequent)), "rare": rows.take(np.flatnonzero(~is_frequent))}
    >>> {name: round(each.mean_response, 1) for name, each in segment_curves(fit_curve(rows), parts).items()}
    {'frequent': 0.4, 'rare': 0.1}
    """
    family = curve.form.family
    unshifted = curve.values if curve.shift == 0.0 else family.mean(family.link(curve.values) - curve.shift)
    eta = family.link(unshifted)
    centred = eta - np.average(eta, weights=curve.table.weight)
    basis = np.column_stack([np.ones_like(eta), centred])
    sums = {name: BinnedResponses.of(rows, curve.table) for name, rows in segments.items()}
    unit = 1.0
    if family.name == "continuous":  # it has units: the curve's own spread, or a part of the noise beside a flat one
        noise = max((dispersion(unshifted, each, family) for each in sums.values()), default=1.0)
        unit = max(float(np.std(eta)), SMALLEST_UNIT * float(np.sqrt(noise)))
    customary = np.square(np.array(PRIOR_SPREAD) * np.array([unit, 1.0]))

    scale = _common_dispersion(eta, basis, sums, FREE * customary, family)
    variance, deviations = customary, dict[str, _Deviation]()
    for _ in range(EM_STEPS):
        deviations = {name: _posterior(eta, basis, binned, scale, variance, family) for name, binned in sums.items()}
        moments = sum(each.mode**2 + np.diag(each.covariance) for each in deviations.values())
        updated = (moments + PRIOR_SEGMENTS * customary) / (len(deviations) + PRIOR_SEGMENTS)
        if np.allclose(updated, variance, rtol=1e-4, atol=0.0):
            break
        variance = updated
    answer = {}
    for name, rows in segments.items():
        straight = np.maximum.accumulate(family.mean(eta + basis @ deviations[name].mode))
        values = shrink_to_curve(straight, sums[name], family, scale)
        own = replace(
            curve,
            values=values,
            shift=0.0,
            n_rows=rows.n_rows,
            n_positive=rows.n_positive,
            base_rate=float(sums[name].responses.sum() / sums[name].exposure.sum()),
        )
        answer[name] = own.shifted(curve.shift) if curve.shift else own
    return answer


def by_segment(rows: CalibrationRows, names: NDArray[np.object_]) -> dict[str, CalibrationRows]:
    """Split rows by their segment, object[n]; those without one, None, are in no part."""
    return {name: rows.take(np.flatnonzero(names == name)) for name in sorted({*names.tolist()} - {None})}


def answer_by_segment(
    curve: ResponseCurve, segments: Mapping[str, ResponseCurve], raw_score: Floats, names: NDArray[np.object_]
) -> Floats:
    """Return expected responses, float64[n], by each row's segment, or by the ranker's own curve."""
    answer = curve.predict(raw_score)
    for name, own in segments.items():
        inside = names == name
        answer[inside] = own.predict(raw_score[inside])
    return answer


def _common_dispersion(
    eta: Floats, basis: Floats, sums: Mapping[str, BinnedResponses], variance: Floats, family: ResponseFamily
) -> float:
    # about each segment's own level and steepness: differences between segments are not noise
    modes, taken, scale = {name: np.zeros(2) for name in sums}, 0.0, 1.0
    rows = {name: float(binned.weight.sum()) for name, binned in sums.items()}
    for _ in range(DISPERSION_STEPS if family.name != "binary" and sums else 0):
        pearson = sum(
            dispersion(family.mean(eta + basis @ modes[name]), binned, family) * max(rows[name] - 1.0, 1.0)
            for name, binned in sums.items()
        )
        scale = float(pearson / max(sum(rows.values()) - taken, 1.0))
        fits = {name: _posterior(eta, basis, binned, scale, variance, family) for name, binned in sums.items()}
        modes = {name: each.mode for name, each in fits.items()}
        taken = sum(2.0 - float(np.diag(each.covariance) @ (1.0 / variance)) for each in fits.values())
    return scale


def _posterior(
    eta: Floats, basis: Floats, binned: BinnedResponses, scale: float, variance: Floats, family: ResponseFamily
) -> _Deviation:
    prior, mode = np.diag(1.0 / variance), np.zeros(2)
    trials, responses = binned.exposure / scale, binned.responses / scale

    def loss(at: Floats) -> float:
        return float(family.loss(eta + basis @ at, responses, trials).sum() + at @ prior @ at / 2)

    hessian, value = prior, loss(mode)
    for _ in range(NEWTON_STEPS):
        mean = family.mean(eta + basis @ mode)
        hessian = (basis.T * (trials * family.variance(mean))) @ basis + prior
        step = np.linalg.solve(hessian, basis.T @ (responses - trials * mean) - prior @ mode)
        size = 1.0
        while (reached := loss(mode + size * step)) > value and size > 1e-6:
            size /= 2
        mode, gained, value = mode + size * step, value - reached, min(value, reached)
        if gained <= 1e-10 * abs(value):
            break
    mode[1] = max(mode[1], -1.0)  # a segment may be flat, never decreasing
    return _Deviation(mode, np.asarray(np.linalg.inv(hessian), dtype=np.float64))
