"""Which curves have to be fitted again, and why, in plain sentences with figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from calibration.drift.log import RankerRows, read_log
from calibration.drift.responses import CHANGE_TO_SEE, fit_error_of, refuse_options, rows_to_see_change
from calibration.drift.scores import CUSTOMARY_MODERATE, score_figures
from calibration.drift.sums import MINIMUM_VIEWERS, ResponseSums
from calibration.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from calibration.calibrator_set import CalibratorSet
    from calibration.curve import ResponseCurve
    from calibration.impressions import Ranker

Status = Literal["no_calibrator", "responses_drifted", "scores_moved", "too_few_rows", "stable"]
_NEEDED = ("no_calibrator", "responses_drifted")


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """What the log says about one curve. NaN = no such figure (no curve, or no row).

    Parameters
    ----------
    entity_type, ranker_version : str
    status : {"no_calibrator", "responses_drifted", "scores_moved", "too_few_rows", "stable"}
        The first that holds. Scores that moved while responses follow the curve need no new curve.
    reasons : tuple of str
        Sentences with figures.
    since, until : Timestamp
        First and last row of the ranker, any policy.
    n_logged : int
        Its rows, any policy.
    n_scores, n_responses, n_viewers : int
        Rows compared with the fit: with a raw score; with a known response too; viewers of the latter.
    observed, expected, ratio : float
        Responses, expected responses, observed / expected.
    interval_low, interval_high : float
        Of the ratio, always valid, at level alpha / curves compared; 0 and infinity below 50 viewers.
    rows_needed : int or None
        Responses that show a 10 % change with 80 % power; None = no number does, or no curve.
    psi, psi_noise : float
        Population stability index of the scores, and what it stays below without drift.
    ks, ks_p_value : float
        Kolmogorov-Smirnov distance of the scores.
    mean_quantile : float
        Of the scores among those of the fit; 0.5 = unmoved.
    """

    entity_type: str
    ranker_version: str
    status: Status
    reasons: tuple[str, ...]
    since: pd.Timestamp
    until: pd.Timestamp
    n_logged: int
    n_scores: int
    n_responses: int
    n_viewers: int
    observed: float = np.nan
    expected: float = np.nan
    ratio: float = np.nan
    interval_low: float = np.nan
    interval_high: float = np.nan
    rows_needed: int | None = None
    psi: float = np.nan
    psi_noise: float = np.nan
    ks: float = np.nan
    ks_p_value: float = np.nan
    mean_quantile: float = np.nan

    @property
    def needed(self) -> bool:
        """Whether this curve has to be fitted, or fitted again."""
        return self.status in _NEEDED


@dataclass(frozen=True, eq=False)
class DriftReport:
    """One verdict per ranker in the log; iterating gives the keys, ``[]`` a verdict.

    Parameters
    ----------
    verdicts : mapping of (entity_type, ranker_version) to DriftVerdict
    """

    verdicts: Mapping[Ranker, DriftVerdict]

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", MappingProxyType(dict(self.verdicts)))

    @property
    def needed(self) -> bool:
        """Whether any curve has to be fitted, or fitted again."""
        return any(verdict.needed for verdict in self.verdicts.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """All sentences, each headed by its ranker."""
        return tuple(
            f"{verdict.entity_type} {verdict.ranker_version}: {reason}"
            for verdict in self.verdicts.values()
            for reason in verdict.reasons
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per ranker.

        Returns
        -------
        DataFrame
            The fields of ``DriftVerdict``, ``needed`` after the ranker, the reasons joined by "; ".
        """
        rows = [
            {**asdict(verdict), "reasons": "; ".join(verdict.reasons), "needed": verdict.needed}
            for verdict in self.verdicts.values()
        ]
        frame = pd.DataFrame(rows).astype({"rows_needed": "Int64"})
        frame.insert(2, "needed", frame.pop("needed"))
        return frame

    def __getitem__(self, key: Ranker) -> DriftVerdict:
        try:
            return self.verdicts[key]
        except KeyError:
            known = ", ".join(" ".join(each) for each in self.verdicts)
            raise CalibrationError(f"no row of {key!r} in the log; it has: {known}") from None

    def __iter__(self) -> Iterator[Ranker]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)


def needs_recalibration(
    log: pd.DataFrame, calibrators: CalibratorSet, *, tolerance: float = 0.05, alpha: float = 0.05
) -> DriftReport:
    """Say of each ranker in a log whether its curve has to be fitted again, and why.

    Parameters
    ----------
    log : DataFrame
        Impressions since the calibrators were fitted: entity_type, ranker_version, raw_score (null = not
        scorable), response in [0, 1] (null = window still open), at (datetime), viewer_id, position where the
        set has an examination; policy, optional: where it is there, only rows of the "random" policy
        are compared with the fit, which saw no others.
    calibrators : CalibratorSet
    tolerance : float
        A curve is kept while observed / expected responses are within 1 +- tolerance; >= 0.
    alpha : float
        P(any curve is ever called drifted although response rates are those of its fit), asymptotically at
        most, however often this is asked while the log grows; in (0, 1).

    Returns
    -------
    DriftReport
        Rankers without a row in the log are not in it.

    Raises
    ------
    CalibrationError
        No row, a missing column, a value out of range or null (with its row), or an option out of range.

    Notes
    -----
    Responses have drifted where the always-valid interval of observed / expected (``response_drift``) excludes 1
    and the ratio is beyond the tolerance. The interval allows for the fit's own noise: the level of a curve
    fitted on k responses has the relative variance dispersion * (1 - base rate) / k. Each curve gets
    alpha / curves compared (Bonferroni). Scores have moved where PSI exceeds its noise and the customary 0.1;
    that is a test for one look, which only notes: a curve maps scores wherever they are.

    Examples
    --------
    >>> from calibration import CalibratorSet
    >>> rng = np.random.default_rng(0)
    >>> def shown(n, rate):
    ...     score = rng.random(n)
    ...     return pd.DataFrame({"entity_type": "people", "ranker_version": "p1", "raw_score": score,
    ...                          "response": (rng.random(n) < rate * score).astype(float),
    ...                          "at": pd.Timestamp("2026-05-01") + pd.to_timedelta(np.arange(n), unit="s"),
    ...                          "viewer_id": np.arange(n) // 10})
    >>> calibrators = CalibratorSet.fit(shown(60_000, 0.30))
    >>> report = needs_recalibration(shown(60_000, 0.25), calibrators)
    >>> report.needed
    True
    >>> print(report["people", "p1"].reasons[0].split(",")[0])
    responses are 18.1 % below what was expected (always-valid 95 % interval 13.6 to 22.6 % below)
    """
    refuse_options(alpha, "day")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise CalibrationError(f"tolerance is {tolerance}; it must be finite and >= 0")
    rankers = read_log(log, calibrators)
    n_compared = max(sum(key in calibrators for key in rankers), 1)
    verdicts = {
        key: _judge(key, rows, calibrators[key], tolerance, alpha / n_compared)
        if key in calibrators
        else _without_calibrator(key, rows)
        for key, rows in rankers.items()
    }
    return DriftReport(verdicts)


def _without_calibrator(key: Ranker, rows: RankerRows) -> DriftVerdict:
    reason = (
        f"this version has no calibrator ({rows.n_logged:,} rows {_period(rows)}); fit one on its shadow scores "
        "joined to logged responses, CalibratorSet.refitted"
    )
    return DriftVerdict(
        entity_type=key[0],
        ranker_version=key[1],
        status="no_calibrator",
        reasons=(reason,),
        since=rows.since,
        until=rows.until,
        n_logged=rows.n_logged,
        n_scores=rows.raw_score.size,
        n_responses=rows.response.size,
        n_viewers=np.unique(rows.response_viewer).size,
    )


def _judge(key: Ranker, rows: RankerRows, curve: ResponseCurve, tolerance: float, alpha: float) -> DriftVerdict:
    n, n_viewers = rows.response.size, np.unique(rows.response_viewer).size
    observed, expected, ratio, low, high = 0.0, 0.0, np.nan, np.nan, np.nan
    dispersion, per_row, effective_viewers = 1.0, curve.mean_response, 0.0
    if n > 0:
        one_look = np.zeros(n, dtype=np.intp)
        sums = ResponseSums.by_window(one_look, rows.response, rows.expected, rows.response_viewer)
        dispersion, per_row = float(sums.dispersion[0]), float(rows.expected.mean())
        bounds = sums.always_valid(alpha, fit_error_of(curve, dispersion))
        observed, expected, ratio = float(sums.observed[0]), float(sums.expected[0]), float(sums.ratio[0])
        low, high = float(bounds[0][0]), float(bounds[1][0])
        effective_viewers = float(sums.effective_viewers[0])
    needed_rows = rows_to_see_change(
        per_row, dispersion=dispersion, alpha=alpha, fit_error=fit_error_of(curve, dispersion)
    )

    excludes_one = low > 1.0 or high < 1.0
    status: Status = "stable"
    reasons = []
    if n > 0:
        interval = f" (always-valid {100 * (1 - alpha):.4g} % interval {_interval(low, high)})" if high < np.inf else ""
        reasons.append(
            f"responses are {_relative(ratio)} what was expected{interval}, {n:,} rows of {n_viewers:,} viewers "
            f"{_period(rows)}"
        )
    if excludes_one and abs(ratio - 1.0) > tolerance:
        status = "responses_drifted"
    elif excludes_one:
        reasons.append(f"that is within the tolerance of {100 * tolerance:g} %")
    elif n > 0 and effective_viewers < MINIMUM_VIEWERS:
        status = "too_few_rows"
        reasons.append(
            f"too few viewers to tell: they are worth {effective_viewers:.0f} equally active ones, "
            f"and it takes {MINIMUM_VIEWERS:.0f}"
        )
    elif needed_rows is None:
        status = "too_few_rows"
        reasons.append(
            f"too few rows to tell: the curve was fitted on {curve.n_positive:,} responses, whose own noise hides "
            f"a {100 * CHANGE_TO_SEE:g} % change whatever comes in"
        )
    elif n < needed_rows:
        status = "too_few_rows"
        reasons.append(
            f"too few rows to tell: {n:,} with a known response; about {needed_rows:,} show a "
            f"{100 * CHANGE_TO_SEE:g} % change with 80 % power"
        )

    scores = score_figures(curve.table, rows.raw_score, rows.score_viewer, alpha)
    if scores["psi"] > max(scores["psi_noise"], CUSTOMARY_MODERATE):
        if status == "stable":
            status = "scores_moved"
        reasons.append(
            f"raw scores moved: PSI {scores['psi']:.3f} (without drift below {scores['psi_noise']:.3f}), "
            f"mean quantile {scores['mean_quantile']:.2f} instead of 0.5; by itself no reason to fit again"
        )
    return DriftVerdict(
        entity_type=key[0],
        ranker_version=key[1],
        status=status,
        reasons=tuple(reasons),
        since=rows.since,
        until=rows.until,
        n_logged=rows.n_logged,
        n_scores=rows.raw_score.size,
        n_responses=n,
        n_viewers=n_viewers,
        observed=observed,
        expected=expected,
        ratio=ratio,
        interval_low=low,
        interval_high=high,
        rows_needed=needed_rows,
        **scores,
    )


def _relative(ratio: float) -> str:
    return f"{100 * abs(ratio - 1):.1f} % {'below' if ratio < 1 else 'above'}"


def _interval(low: float, high: float) -> str:
    if high <= 1:
        return f"{100 * (1 - high):.1f} to {100 * (1 - low):.1f} % below"
    if low >= 1:
        return f"{100 * (low - 1):.1f} to {100 * (high - 1):.1f} % above"
    return f"{100 * (1 - low):.1f} % below to {100 * (high - 1):.1f} % above"


def _period(rows: RankerRows) -> str:
    return f"from {rows.since:%Y-%m-%d} to {rows.until:%Y-%m-%d}"
