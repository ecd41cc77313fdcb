"""Which click model, and which estimator, to believe: decided from the log alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from spr.evaluation.off_policy.click_model import DEPTH_BY_KIND, MODELS, POSITION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spr.evaluation.off_policy.click_model import ClickModel

    Floats = NDArray[np.float64]

LADDER: Final = ("doubly_robust", "self_normalised_iips", "iips")
"""Candidates that suppose only that what stands above does not matter; the first has mostly the least variance."""

_TOLERANCE: Final = 3.0  # standard errors; to refuse the strongest candidate without reason costs most of the precision


@dataclass(frozen=True)
class ClickModelChoice:
    """Which click model the held-out viewers prefer.

    Parameters
    ----------
    chosen : str
        One of ``MODELS``.
    table : DataFrame
        By click model: ``terms``, ``gain`` of the held-out log-likelihood over examination by position, its
        ``standard_error``, ``behind`` (the best model's log-likelihood less its own) and the standard error of that.
    """

    chosen: str
    table: pd.DataFrame


def choose_click_model(models: Mapping[str, ClickModel], viewer: NDArray[np.int64]) -> ClickModelChoice:
    """Choose the simplest click model that predicts held-out viewers as well as the best one, but for chance.

    Parameters
    ----------
    models : mapping of str to ClickModel
        Fitted on the same pages and folds; simplest first.
    viewer : int64[P]

    Returns
    -------
    ClickModelChoice

    Notes
    -----
    The rule of one standard error (Breiman, Friedman, Olshen and Stone 1984, "Classification and regression trees",
    section 3.4.3): of the models whose held-out log-likelihood is behind the best one's by at most one standard error
    of that difference, paired by viewer, the one with the fewest coefficients. Only the order of interactions within a
    page is predicted, so that what makes viewers active says nothing here.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages, fit_click_model
    >>> rng = np.random.default_rng(0)
    >>> place = np.tile(np.arange(4), 2000)
    >>> label = rng.random(8000) < 0.3 / (1 + place)
    >>> pages = LoggedPages.of(np.repeat(np.arange(2000), 4), place, place, label)
    >>> models = {name: fit_click_model(pages, np.full(8000, 0.2), name) for name in ("position", "cascade")}
    >>> choose_click_model(models, pages.viewer).chosen
    'position'
    """
    likelihood: dict[str, Floats] = {
        name: np.bincount(viewer, model.held_out).astype(np.float64) for name, model in models.items()
    }
    best = max(likelihood, key=lambda name: likelihood[name].sum())
    rows = {}
    for name, model in models.items():
        gain, behind = likelihood[name] - likelihood[POSITION], likelihood[best] - likelihood[name]
        rows[name] = [len(model.slope), gain.sum(), _error_of_sum(gain), behind.sum(), _error_of_sum(behind)]
    columns = ["terms", "gain", "standard_error", "behind", "standard_error_behind"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("click_model")
    table["terms"] = table["terms"].astype(np.int64)
    close = table[table["behind"] <= table["standard_error_behind"]]
    return ClickModelChoice(str(close.sort_values("terms", kind="stable").index[0]), table)


def choose_estimator(
    names: Sequence[str], estimate: Floats, covariance: Floats, *, click_model: str
) -> tuple[str, str] | None:
    """Choose the estimator to believe, and say why.

    Parameters
    ----------
    names : sequence of str
        Of the estimators that were computed.
    estimate : float64[E]
        NaN where there is none.
    covariance : float64[E, E]
        Of the estimates, by viewer; NaN where it is not known.
    click_model : str
        That held-out viewers prefer (:func:`choose_click_model`).

    Returns
    -------
    (chosen, reason) or None
        None where no candidate was computed.

    Notes
    -----
    1. Where the click model reads what stands above a cohort, every estimator that supposes that it does not matter is
       out, and ``sequential``, with that click model, stays.
    2. Else the candidates are those of ``LADDER`` and the estimator of the click model, which supposes more:
       ``position_based``, or ``sequential`` where kinds decay differently. Taken is the one
       with the least variance among those whose estimate differs from that of no candidate before it by more than 3
       standard errors of the difference: Lepski's principle, as in SLOPE (Su, Srinath and Krishnamurthy 2020, "Adaptive
       estimator selection for off-policy evaluation", ICML, section 3), with the error of the paired difference in
       place of the sum of the widths. It trades squared bias for variance and needs to know no bias: one
       that the log cannot tell from 0 is smaller than the error that it saves.

    Direct methods are never chosen: they need the same click model, a relevance that is right within pages besides, and
    gain little.

    Examples
    --------
    >>> names, covariance = ["iips", "position_based"], np.diag([0.05, 0.01]) ** 2
    >>> choose_estimator(names, np.array([1.0, 1.05]), covariance, click_model="position")[0]
    'position_based'
    >>> choose_estimator(names, np.array([1.0, 1.25]), covariance, click_model="position")[0]
    'iips'
    """
    by_kind = MODELS[click_model] == (DEPTH_BY_KIND,)
    if click_model != POSITION and not by_kind and "sequential" in names:
        return "sequential", "held-out viewers say that what stands above a cohort matters"
    candidates = (*LADDER, "sequential" if by_kind else "position_based")
    known = np.isfinite(estimate) & np.isfinite(np.diag(covariance))
    there = [names.index(name) for name in candidates if name in names and known[names.index(name)]]
    if not there:
        return None
    kept: list[int] = []
    refused: list[int] = []
    for place, candidate in enumerate(there):
        differs = False
        for weaker in there[:place]:
            variance = covariance[candidate, candidate] + covariance[weaker, weaker] - 2 * covariance[candidate, weaker]
            differs |= abs(estimate[candidate] - estimate[weaker]) > _TOLERANCE * np.sqrt(max(variance, 0.0))
        (refused if differs else kept).append(candidate)
    chosen = min(kept, key=lambda candidate: float(covariance[candidate, candidate]))
    reason = "what stands above does not matter, and it has the least variance of those that do not differ"
    if refused:
        reason += f"; {', '.join(names[i] for i in refused)} differ from estimators that assume less"
    return names[chosen], reason


def _error_of_sum(of_viewer: Floats) -> float:
    return float(of_viewer.std(ddof=1) * np.sqrt(len(of_viewer))) if len(of_viewer) > 1 else 0.0
