"""The value of a new policy from the pages of a random one: every estimator, its interval, and which to believe."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from spr.errors import InvalidModelInput, name_unknown
from spr.evaluation.off_policy.choice import choose_click_model, choose_estimator
from spr.evaluation.off_policy.click_estimators import direct, doubly_robust, examination_weighted
from spr.evaluation.off_policy.click_model import MODELS, POSITION, fit_click_model, given_examination
from spr.evaluation.off_policy.inverse_propensity import iips, rips, self_normalised_iips, whole_page
from spr.evaluation.off_policy.page_estimate import logged_value
from spr.evaluation.off_policy.relevance import cross_fit_relevance
from spr.evaluation.off_policy.slates import pseudo_inverse
from spr.progress import ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration import PositionExamination
    from spr.evaluation.off_policy.choice import ClickModelChoice
    from spr.evaluation.off_policy.click_model import ClickModel
    from spr.evaluation.off_policy.logged_pages import LoggedPages
    from spr.evaluation.off_policy.page_estimate import PageEstimate
    from spr.progress import Progress

    Floats = NDArray[np.float64]

ESTIMATORS: Final = (
    *("whole_page", "iips", "self_normalised_iips", "rips", "pseudo_inverse"),
    *("position_based", "position_based_direct", "sequential", "sequential_direct", "doubly_robust"),
)
"""Every estimator by name, as :func:`evaluate_pages` takes them."""

MEASURES: Final = ("interactions", "value")
_OF_PLACEMENTS: Final = ("iips", "self_normalised_iips")
_OF_CLICK_MODELS: Final = ESTIMATORS[5:]
_FEWEST_EFFECTIVE: Final = 30.0
_SAME: Final = "no difference beyond chance"
_READ_ALWAYS: Final = "cascade and cannibalization"  # by sequential, where held-out viewers prefer positions alone


@dataclass(frozen=True, eq=False, repr=False)
class OffPolicyValue:
    """What a new policy would have brought per page, by several estimators.

    Parameters
    ----------
    estimators : tuple of str
        E names, of ``ESTIMATORS``.
    estimate : float64[2, E]
        Downstream interactions per page, and value per page (interactions times importance factors); NaN where the log
        holds nothing to estimate it from.
    influence : float64[2, E, V]
        What each viewer adds to the error of the estimate; its squares sum to about the variance. NaN where fewer than
        30 pages are effective.
    logged : float64[2]
        What the logged pages brought.
    logged_influence : float64[2, V]
    effective_pages : float64[2, E]
        See :class:`~spr.evaluation.off_policy.PageEstimate`.
    chosen, reason : mapping of str to str
        By measure, the estimator to believe and why; without the measure where there was no candidate.
    click_models : ClickModelChoice or None
        What held-out viewers say of the click models; None where none was needed.
    n_pages : int
        That were evaluated.
    n_left_out : int
        Pages of the policies that were asked for and left out: not mature, or not in the new policy's table.
    level : float
        Of the intervals.
    """

    estimators: tuple[str, ...]
    estimate: Floats
    influence: Floats = field(repr=False)
    logged: Floats
    logged_influence: Floats = field(repr=False)
    effective_pages: Floats
    chosen: Mapping[str, str]
    reason: Mapping[str, str]
    click_models: ClickModelChoice | None
    n_pages: int
    n_left_out: int
    level: float

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per measure and estimator.

        Returns
        -------
        DataFrame
            Columns measure, estimator, estimate, low, high, standard_error; logged (the mean of the logged pages), gain
            (estimate - logged), gain_low, gain_high (of the difference on the same pages); effective_pages; chosen.
            The estimate is null where the log holds nothing to estimate it from, its errors and intervals also where
            fewer than 30 pages are effective: the sum of so few weights is not normal, and mostly too low.
        """
        tables = []
        for m, measure in enumerate(MEASURES):
            error = _standard_errors(self.influence[m])
            gain, gain_error = (
                self.estimate[m] - self.logged[m],
                _standard_errors(self.influence[m] - self.logged_influence[m]),
            )
            width, gain_width = self._quantile * error, self._quantile * gain_error
            tables.append(
                pd.DataFrame(
                    {
                        "measure": measure,
                        "estimator": list(self.estimators),
                        "estimate": self.estimate[m],
                        "low": self.estimate[m] - width,
                        "high": self.estimate[m] + width,
                        "standard_error": error,
                        "logged": self.logged[m],
                        "gain": gain,
                        "gain_low": gain - gain_width,
                        "gain_high": gain + gain_width,
                        "effective_pages": self.effective_pages[m],
                        "chosen": np.array(self.estimators) == self.chosen.get(measure, ""),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def minus(self, other: OffPolicyValue) -> pd.DataFrame:
        """Subtract the value of another policy on the same pages.

        Parameters
        ----------
        other : OffPolicyValue
            Of the same logged pages.

        Returns
        -------
        DataFrame
            By measure and estimator (those that both have): difference, low, high, standard_error, p_value (that there
            is none), paired by viewer; chosen, where this value's estimator is the chosen one.

        Raises
        ------
        InvalidModelInput
            When the other value is of other pages.
        """
        if self.n_pages != other.n_pages or not np.array_equal(self.logged_influence, other.logged_influence):
            raise InvalidModelInput(
                f"values of {self.n_pages:,} and {other.n_pages:,} pages cannot be subtracted: they are not of the "
                "same logged pages; evaluate both policies on one log"
            )
        shared = [name for name in self.estimators if name in other.estimators]
        own, theirs = ([v.estimators.index(name) for name in shared] for v in (self, other))
        tables = []
        for m, measure in enumerate(MEASURES):
            difference = self.estimate[m, own] - other.estimate[m, theirs]
            error = _standard_errors(self.influence[m, own] - other.influence[m, theirs])
            table = self._tested(difference, error)
            table.insert(0, "measure", measure)
            table.insert(1, "estimator", shared)
            table["chosen"] = np.array(shared) == self.chosen.get(measure, "")
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def disagreements(self) -> pd.DataFrame:
        """Test whether estimators that assume more say the same as those that assume less, on the same pages.

        Returns
        -------
        DataFrame
            By measure and pair: first, second, difference (first - second), low, high, standard_error, p_value (that
            both estimate the same), and finding, a sentence.
        """
        tables = []
        for m, measure in enumerate(MEASURES):
            for first, second, meaning in _PAIRS:
                if first not in self.estimators or second not in self.estimators:
                    continue
                i, j = self.estimators.index(first), self.estimators.index(second)
                difference = self.estimate[m, [i]] - self.estimate[m, [j]]
                table = self._tested(difference, _standard_errors(self.influence[m, [i]] - self.influence[m, [j]]))
                table.insert(0, "measure", measure)
                table.insert(1, "first", first)
                table.insert(2, "second", second)
                p_value = float(table["p_value"].iloc[0])
                said = meaning if p_value < 1.0 - self.level else _SAME
                table["finding"] = "not known: too few pages are effective" if np.isnan(p_value) else said
                tables.append(table)
        columns = ["measure", "first", "second", "difference", "low", "high", "standard_error", "p_value", "finding"]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)

    def __str__(self) -> str:
        table = self.to_pandas()
        shown = table.set_index(["measure", "estimator"])[
            ["estimate", "low", "high", "gain", "gain_low", "gain_high", "effective_pages"]
        ]
        out = f", {self.n_left_out:,} left out" if self.n_left_out else ""
        lines = [
            f"{self.n_pages:,} pages of {self.influence.shape[2]:,} viewers{out}; "
            f"they brought {self.logged[0]:.4g} interactions and a value of {self.logged[1]:.4g} per page.",
            shown.to_string(float_format=lambda number: f"{number:.4g}", na_rep=""),
        ]
        lines += [f"{m}: believe {self.chosen[m]}: {self.reason[m]}." for m in MEASURES if m in self.chosen]
        if self.click_models is not None:
            lines.append(f"Held-out viewers prefer the click model {self.click_models.chosen!r}.")
        found = self.disagreements()
        for row in found[found["p_value"] < 1.0 - self.level].itertuples():
            lines.append(
                f"{row.measure}: {row.first} - {row.second} = {row.difference:+.3g} [{row.low:+.3g}, {row.high:+.3g}]: "
                f"{row.finding}."
            )
        return "\n".join(lines)

    __repr__ = __str__

    @property
    def _degrees(self) -> int:
        return int(self.influence.shape[2]) - 1

    @property
    def _quantile(self) -> float:
        return float(stdtrit(self._degrees, 0.5 + self.level / 2)) if self._degrees else np.nan

    def _tested(self, difference: Floats, error: Floats) -> pd.DataFrame:
        width = self._quantile * error
        t = np.divide(np.abs(difference), error, out=np.full_like(difference, np.nan), where=error > 0)
        return pd.DataFrame(
            {
                "difference": difference,
                "low": difference - width,
                "high": difference + width,
                "standard_error": error,
                "p_value": np.where((error == 0) & (difference == 0), 1.0, 2.0 * stdtr(max(self._degrees, 1), -t)),
            }
        )


_PAIRS: Final = (
    (
        "position_based",
        "iips",
        "rewards are not relevance times examination of the position: what stands above matters, or cohorts lose "
        "differently further down",
    ),
    (
        "sequential",
        "iips",
        "what stands above a cohort matters (a cascade, cannibalization), or the click model is wrong",
    ),
    (
        "sequential",
        "position_based",
        "what stands above a cohort matters: interactions above end the reading, or cohorts of a kind take from each "
        "other; or kinds lose differently further down",
    ),
    ("pseudo_inverse", "iips", "the reward of a page is not the sum of what its placements bring by themselves"),
)


def evaluate_pages(
    pages: LoggedPages,
    estimators: Sequence[str] | str = "all",
    *,
    clip: float | None = None,
    examination: PositionExamination | None = None,
    relevance: Floats | None = None,
    n_folds: int = 5,
    level: float = 0.95,
    seed: int = 0,
    n_left_out: int = 0,
    progress: Progress = ignore,
) -> OffPolicyValue:
    """Estimate what the new order of logged pages would have brought.

    Parameters
    ----------
    pages : LoggedPages
        Mature pages whose order was drawn at random.
    estimators : sequence of str or "all", default "all"
        Of ``ESTIMATORS``. "all" means all that the pages allow: pages that are not full shuffles allow ``iips`` and
        ``self_normalised_iips``.
    clip : float, optional
        Largest weight of the inverse propensity estimators and ``doubly_robust``; its bias is stated by each.
    examination : PositionExamination, optional
        Taken as known by ``position_based``, ``position_based_direct`` and ``doubly_robust``. Default: estimated.
    relevance : float64[C], optional
        Expected interactions of the rows of the pages at a random position, > 0, not learnt from these pages. Default:
        :func:`~spr.evaluation.off_policy.cross_fit_relevance`.
    n_folds : int, default 5
        Folds of viewers, for relevance and for the choice of a click model.
    level : float, default 0.95
        Of the intervals.
    seed : int, default 0
        Of the relevance.
    n_left_out : int, default 0
        Pages that were not given, for the result to say.
    progress : callable, optional
        ``progress(stage, done, total)``.

    Returns
    -------
    OffPolicyValue

    Raises
    ------
    InvalidModelInput
        An unknown estimator, one that the pages do not allow, a number out of range, or no interaction at all.

    Notes
    -----
    Intervals are normal (t with V - 1 degrees of freedom), from the squared sums of each viewer's influence: the
    sandwich for clusters. The coefficients of click models are part of the influence, so that nothing is fitted anew;
    the relevance is cross-fitted by viewer and taken as given. What each estimator assumes stands in
    spr/evaluation/README.md; the rule of the choice in :func:`~spr.evaluation.off_policy.choose_click_model` and
    :func:`~spr.evaluation.off_policy.choose_estimator`.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> rng = np.random.default_rng(0)
    >>> good, page = rng.random((4000, 3)), np.repeat(np.arange(4000), 3)
    >>> place = rng.random((4000, 3)).argsort(axis=1)
    >>> label = rng.random((4000, 3)) < 0.4 * good / (1 + place)
    >>> best_first = (-good).argsort(axis=1).argsort(axis=1)
    >>> pages = LoggedPages.of(page, *(a.ravel() for a in (place, best_first, label)), features=good.reshape(-1, 1))
    >>> found = evaluate_pages(pages, ["iips", "position_based"])  # the truth is 0.43; a shuffle brings 0.37
    >>> found.chosen["interactions"]
    'position_based'
    >>> found.to_pandas().loc[:1, ["estimator", "estimate", "low", "high"]].round(2)
            estimator  estimate   low  high
    0            iips      0.45  0.41  0.48
    1  position_based      0.44  0.42  0.47
    """
    names = _allowed(pages, estimators)
    if not 0.0 < level < 1.0:
        raise InvalidModelInput(f"level is {level}; allowed: between 0 and 1, without them")
    if not pages.reward.any():
        raise InvalidModelInput(
            f"no interaction of any importance on {pages.n_pages:,} pages; there is nothing to weigh"
        )
    calls: dict[str, Callable[[LoggedPages], PageEstimate]] = {
        "whole_page": partial(whole_page, clip=clip),
        "iips": partial(iips, clip=clip),
        "self_normalised_iips": partial(self_normalised_iips, clip=clip),
        "rips": partial(rips, clip=clip),
        "pseudo_inverse": pseudo_inverse,
    }
    choice = None
    if any(name in _OF_CLICK_MODELS for name in names):
        models, choice = _fit_click_models(pages, relevance, n_folds, seed, progress)
        by_position = models[POSITION]
        if examination is not None:
            by_position = given_examination(pages, by_position.relevance, examination)
        above = models[choice.chosen if choice.chosen != POSITION else _READ_ALWAYS]
        calls |= {
            "position_based": partial(examination_weighted, model=by_position),
            "position_based_direct": partial(direct, model=by_position),
            "sequential": partial(examination_weighted, model=above),
            "sequential_direct": partial(direct, model=above),
            "doubly_robust": partial(doubly_robust, model=by_position, clip=clip),
        }
    n_viewers, n_names = int(pages.viewer.max()) + 1, len(names)
    estimate, effective = np.empty((2, n_names)), np.empty((2, n_names))
    influence = np.empty((2, n_names, n_viewers))
    logged, logged_influence = np.empty(2), np.empty((2, n_viewers))
    chosen, reason = {}, {}
    for m, measured in enumerate((pages.counting_interactions(), pages)):
        of_log = logged_value(measured)
        logged[m], logged_influence[m] = of_log.value, _by_viewer(pages, of_log)
        for i, name in enumerate(names):
            progress("estimators", m * n_names + i, 2 * n_names)
            found = calls[name](measured)
            estimate[m, i], effective[m, i] = found.value, found.effective_pages
            few = found.effective_pages < _FEWEST_EFFECTIVE
            influence[m, i] = np.nan if few else _by_viewer(pages, found)
        picked = choose_estimator(
            names,
            estimate[m],
            influence[m] @ influence[m].T,
            click_model=POSITION if choice is None else choice.chosen,
        )
        if picked is not None:
            chosen[MEASURES[m]], reason[MEASURES[m]] = picked
    progress("estimators", 2 * n_names, 2 * n_names)
    return OffPolicyValue(
        estimators=tuple(names),
        estimate=estimate,
        influence=influence,
        logged=logged,
        logged_influence=logged_influence,
        effective_pages=effective,
        chosen=chosen,
        reason=reason,
        click_models=choice,
        n_pages=pages.n_pages,
        n_left_out=n_left_out,
        level=level,
    )


def _allowed(pages: LoggedPages, estimators: Sequence[str] | str) -> list[str]:
    if isinstance(estimators, str):
        if estimators != "all":
            raise InvalidModelInput(f'estimators is {estimators!r}; allowed: "all", or a list of names')
        return list(ESTIMATORS if pages.uniform else _OF_PLACEMENTS)
    names = list(dict.fromkeys(estimators))
    if not names:
        raise InvalidModelInput(f"no estimator is named; known: {', '.join(ESTIMATORS)}")
    for name in names:
        if name not in ESTIMATORS:
            raise InvalidModelInput(name_unknown("estimator", name, ESTIMATORS))
    return names


def _fit_click_models(
    pages: LoggedPages, relevance: Floats | None, n_folds: int, seed: int, progress: Progress
) -> tuple[dict[str, ClickModel], ClickModelChoice]:
    progress("click models", 0, len(MODELS) + 1)
    if relevance is None:
        relevance = cross_fit_relevance(pages, n_folds=n_folds, seed=seed)
    models: dict[str, ClickModel] = {}
    for name in MODELS:
        progress("click models", len(models) + 1, len(MODELS) + 1)
        models[name] = fit_click_model(pages, relevance, name, n_folds=n_folds)
    return models, choose_click_model(models, pages.viewer)


def _by_viewer(pages: LoggedPages, estimate: PageEstimate) -> Floats:
    return np.bincount(pages.viewer, estimate.influence) / pages.n_pages


def _standard_errors(influence: Floats) -> Floats:
    """Return float64[E] of the influence by viewer, float64[E, V]; NaN below two viewers."""
    n = influence.shape[-1]
    if n < 2:
        return np.full(influence.shape[:-1], np.nan)
    return np.asarray(np.sqrt(np.square(influence).sum(axis=-1) * n / (n - 1)))
