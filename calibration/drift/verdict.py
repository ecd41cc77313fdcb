"""Which curves have to be fitted again, and why, in plain sentences with figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from calibration.drift.comparison import CHANGE_TO_SEE, Comparison
from calibration.drift.log import RankerRows, read_log
from calibration.drift.responses import refuse_options
from calibration.drift.scores import CUSTOMARY_MODERATE, score_figures
from calibration.drift.sums import MINIMUM_VIEWERS
from calibration.errors import CalibrationError
from calibration.families import BINARY, CONTINUOUS

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
    response : {"binary", "count", "continuous"}
        What a response is.
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
    observed, expected : float
        Sums of responses and expected responses.
    ratio : float
        observed / expected; NaN where continuous.
    difference : float
        Mean of observed - expected over rows; NaN unless continuous.
    interval_low, interval_high : float
        Of the ratio or the difference, always valid, at level alpha / curves compared; without bounds (0 or
        -infinity, and infinity) below 50 viewers.
    response_sd : float
        Standard deviation of the responses, the unit of the tolerance where continuous; NaN elsewhere.
    rows_needed : int or None
        Responses that show, with 80 % power, a change of 10 %, or of a tenth of response_sd; None = no number
        does, or no curve.
    psi, psi_noise : float
        Population stability index of the scores, and what it stays below without drift.
    ks, ks_p_value : float
        Kolmogorov-Smirnov distance of the scores.
    mean_quantile : float
        Of the scores among those of the fit; 0.5 = unmoved.
    """

    entity_type: str
    ranker_version: str
    response: str
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
    difference: float = np.nan
    interval_low: float = np.nan
    interval_high: float = np.nan
    response_sd: float = np.nan
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

    def __repr__(self) -> str:
        lines = [
            f"{verdict.entity_type} {verdict.ranker_version}: {verdict.status}"
            + "".join(f"\n    {reason}" for reason in verdict.reasons)
            for verdict in self.verdicts.values()
        ]
        return "\n".join(lines)

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
        scorable), response (null = window still open), at (datetime), viewer_id; position and slot where the
        set corrects their examination, and the column it is segmented by; policy, optional: where it is there,
        only rows of the "random" policy are compared with the fit, which saw no others.
    calibrators : CalibratorSet
    tolerance : float
        A curve is kept while observed / expected responses are within 1 +- tolerance, or, where continuous, mean
        responses within +- tolerance standard deviations of a response of what is expected; >= 0.
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
    Responses have drifted where the always-valid interval (``response_drift``) of observed / expected excludes 1,
    or that of their mean difference 0, and they are beyond the tolerance. A continuous response may be near 0 or
    below, so its deviation is relative to the standard deviation of the responses compared: unlike the spread of
    the curve, it is not 0 for a ranker that tells nothing. The interval allows for the fit's own noise: the level
    of a curve fitted on k responses has the relative variance dispersion * (1 - base rate) / k, the mean of k
    continuous ones the variance dispersion * response variance / k. Each curve gets
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
    >>> print(report["people", "p1"].reasons[0].split(" (")[0])
    responses are 18.1 % below what was expected
    """
    refuse_options(alpha, "day")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise CalibrationError(f"tolerance is {tolerance}; it must be finite and >= 0")
    rankers = read_log(log, calibrators)
    n_compared = max(sum(key in calibrators for key in rankers), 1)
    verdicts = {
        key: _judge(key, rows, calibrators[key], tolerance, alpha / n_compared)
        if key in calibrators
        else _without_calibrator(key, rows, calibrators.settings.family(key[0]).name)
        for key, rows in rankers.items()
    }
    return DriftReport(verdicts)


def _without_calibrator(key: Ranker, rows: RankerRows, response: str) -> DriftVerdict:
    reason = (
        f"this version has no calibrator ({rows.n_logged:,} rows {_period(rows)}); fit one with "
        "CalibratorSet.refitted: on these rows, or before it is live on shadow scores (with_shadow_scores)"
    )
    return DriftVerdict(
        entity_type=key[0],
        ranker_version=key[1],
        response=response,
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
    found = Comparison.of(rows, curve, alpha)
    status, reason = _of_responses(found, curve, tolerance)
    scores = score_figures(curve.table, rows.raw_score, rows.score_viewer, alpha)
    moved = _of_scores(scores)
    figures = (_figures(found, rows, alpha), reason, moved)
    return DriftVerdict(
        entity_type=key[0],
        ranker_version=key[1],
        response=curve.form.response,
        status="scores_moved" if moved and status == "stable" else status,
        reasons=tuple(each for each in figures if each is not None),
        since=rows.since,
        until=rows.until,
        n_logged=rows.n_logged,
        n_scores=rows.raw_score.size,
        n_responses=found.n,
        n_viewers=found.n_viewers,
        observed=found.observed,
        expected=found.expected,
        ratio=found.ratio,
        difference=found.difference,
        interval_low=found.interval_low,
        interval_high=found.interval_high,
        response_sd=found.unit if found.family is CONTINUOUS else np.nan,
        rows_needed=found.rows_needed,
        **scores,
    )


def _figures(found: Comparison, rows: RankerRows, alpha: float) -> str | None:
    if found.n == 0:
        return None
    level, interval = f"always-valid {100 * (1 - alpha):.4g} % interval", ""
    if found.interval_high < np.inf:
        interval = f" ({level} {found.interval_in_words})"
    return f"responses are {found.in_words}{interval}, {found.n:,} rows of {found.n_viewers:,} viewers {_period(rows)}"


def _of_responses(found: Comparison, curve: ResponseCurve, tolerance: float) -> tuple[Status, str | None]:
    """Return what the responses say, and why where their figures alone do not."""
    if found.excludes_unchanged and found.is_beyond(tolerance):
        return "responses_drifted", None
    if found.excludes_unchanged:
        return "stable", f"that is within the tolerance of {found.share_in_words(tolerance)}"
    too_few = _too_few(found, curve)
    return ("stable", None) if too_few is None else ("too_few_rows", too_few)


def _too_few(found: Comparison, curve: ResponseCurve) -> str | None:
    change = found.share_in_words(CHANGE_TO_SEE)
    if found.n > 0 and found.effective_viewers < MINIMUM_VIEWERS:
        return (
            f"too few viewers to tell: they are worth {found.effective_viewers:.0f} equal ones, "
            f"and it takes {MINIMUM_VIEWERS:.0f}"
        )
    if found.rows_needed is None:
        fitted = f"{curve.n_positive:,} responses" if found.family is BINARY else f"{curve.n_rows:,} rows"
        return (
            f"too few rows to tell: the curve was fitted on {fitted}, whose own noise hides a change of {change} "
            "whatever comes in"
        )
    if found.n < found.rows_needed:
        return (
            f"too few rows to tell: {found.n:,} with a known response; about {found.rows_needed:,} show a change of "
            f"{change} with 80 % power"
        )
    return None


def _of_scores(scores: dict[str, float]) -> str | None:
    if not scores["psi"] > max(scores["psi_noise"], CUSTOMARY_MODERATE):
        return None
    return (
        f"raw scores moved: PSI {scores['psi']:.2g} (without drift below {scores['psi_noise']:.2g}), "
        f"mean quantile {scores['mean_quantile']:.2f} instead of 0.5; by itself no reason to fit again"
    )


def _period(rows: RankerRows) -> str:
    return f"from {rows.since:%Y-%m-%d} to {rows.until:%Y-%m-%d}"
