"""Which types take responses from which: what one more cohort of a type above does to the cohorts of another below."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from spr.errors import ConfigError, name_unknown
from spr.evaluation.arrangements import fit_weights, read_arrangements, varying, weighted_shuffle
from spr.multiplicity import holm
from spr.progress import Progress, ignore
from spr.tables import read_impressions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from spr.config import Config
    from spr.evaluation.arrangements import Arrangements
    from spr.tables import Table

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

By = Literal["entity_type", "edge_type"]
Label = Literal["response", "downstream"]

LEAST_INFORMATION: Final = 10.0  # a standard error of log_ratio of 0.32


@dataclass(frozen=True, slots=True, eq=False)
class AboveEffects:
    """Log rate ratios of one type's labels, per cohort of each type above; known up to a constant.

    Parameters
    ----------
    coefficient : float64[T]
        Only differences between them mean something; NaN where nothing is known.
    covariance : float64[T, T]
        Robust, clustered by viewer.
    information, information_at_zero : float64[T, T]
        Of the labels, as of counts of single events, at the coefficients and at 0.
    share_above : float64[T]
        Of each type among all that the shuffle puts above cohorts of this one; sums to 1, 0 where none ever stands
        below another.
    n_cohorts, n_viewers : int
        Cohorts whose label is known, and viewers with one that is above 0.
    total : float
        Of the label.
    """

    coefficient: Floats
    covariance: Floats
    information: Floats
    information_at_zero: Floats
    share_above: Floats
    n_cohorts: int
    n_viewers: int
    total: float


@dataclass(frozen=True, eq=False)
class Cannibalization:
    """How the label of each type changes with what stands above it.

    Parameters
    ----------
    types : tuple of str, length T
        Entity types or edge types, sorted.
    effects : tuple of AboveEffects, length T
        One for each type whose label it is.
    by : {"entity_type", "edge_type"}
    label : {"response", "downstream"}
    level : float
        Confidence level of the intervals; an effect is marked where its adjusted p-value is below 1 - level.
    n_pages : int
        Pages of the random policy.
    reference : str, optional
        The type that an effect is relative to; None = the average cohort of the other types.
    """

    types: tuple[str, ...]
    effects: tuple[AboveEffects, ...] = field(repr=False)
    by: By
    label: Label
    level: float
    n_pages: int
    reference: str | None = None

    def relative_to(self, reference: str | None) -> Cannibalization:
        """State the effects relative to another type, which costs no new fit.

        Parameters
        ----------
        reference : str or None
            A type, for "one more of *above* in place of one of *reference*"; None for "in place of the average cohort
            of the other types". A type that is known to leave the others alone makes the effects absolute.

        Returns
        -------
        Cannibalization

        Raises
        ------
        ConfigError
            A type that is not on the pages.
        """
        if reference is not None and reference not in self.types:
            raise ConfigError(f"cannibalization: {name_unknown('reference', reference, self.types)}")
        return replace(self, reference=reference)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per pair of types.

        Returns
        -------
        DataFrame
            ``type`` (whose label it is), ``above``; ``log_ratio``, ``standard_error``, ``low``, ``high``; ``ratio``,
            ``ratio_low``, ``ratio_high``, their exponentials; ``p_value``; ``adjusted``, by Holm over all pairs;
            ``marked``; ``share_above``, of the type among what the shuffle puts above; ``n_cohorts`` and ``total``, the
            cohorts of ``type`` with a known label and its sum. Null where the labels tell too little (an information
            below 10, a standard error above 0.32), and p-values of the reference.
        """
        parts = [self._contrast(effects) for effects in self.effects]
        log_ratio, error = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        size = len(self.types)
        tested = error > 0
        p_value = np.full(size**2, np.nan)
        p_value[tested] = 2 * ndtr(-np.abs(log_ratio[tested] / error[tested]))
        adjusted = holm(p_value)
        half = ndtri(0.5 + self.level / 2) * error
        low, high = log_ratio - half, log_ratio + half
        return pd.DataFrame(
            {
                "type": np.repeat(self.types, size),
                "above": np.tile(self.types, size),
                "log_ratio": log_ratio,
                "standard_error": error,
                "low": low,
                "high": high,
                "ratio": np.exp(log_ratio),
                "ratio_low": np.exp(low),
                "ratio_high": np.exp(high),
                "p_value": p_value,
                "adjusted": adjusted,
                "marked": adjusted < 1 - self.level,
                "share_above": np.concatenate([effects.share_above for effects in self.effects]),
                "n_cohorts": np.repeat([effects.n_cohorts for effects in self.effects], size),
                "total": np.repeat([effects.total for effects in self.effects], size),
            }
        )

    def matrix(self, column: str = "log_ratio") -> pd.DataFrame:
        """Return one column of :meth:`to_pandas` as a matrix: rows the type whose label it is, columns the type above.

        Raises
        ------
        ConfigError
            A column that is not there.
        """
        table = self.to_pandas()
        if column not in table.columns[2:]:
            raise ConfigError(f"cannibalization: {name_unknown('column', column, map(str, table.columns[2:]))}")
        wide = table.pivot(index="type", columns="above", values=column)
        return wide.loc[list(self.types), list(self.types)]

    @property
    def headline(self) -> str:
        """What the matrix is about, in one sentence."""
        instead = "the average cohort of the other types" if self.reference is None else f"one of {self.reference}"
        return f"Change of the {self.label} of a cohort, %, for one more of a type above it in place of {instead}"

    def written(self) -> pd.DataFrame:
        """Return the matrix as text: change in percent, a star where it is marked, empty where too little is known."""
        table = self.to_pandas()
        text = [
            "ref."
            if above == self.reference
            else ""
            if np.isnan(ratio)
            else f"{round(100 * (ratio - 1)):+d}{'*' * marked}"
            for above, ratio, marked in zip(table["above"], table["ratio"], table["marked"], strict=True)
        ]
        cells = np.array(text, dtype=object).reshape(len(self.types), len(self.types))
        return pd.DataFrame(cells, index=pd.Index(self.types, name="type"), columns=pd.Index(self.types, name="above"))

    def __str__(self) -> str:
        star = f"* = told apart from 0 at {1 - self.level:.3g}, adjusted for all {len(self.types) ** 2} pairs"
        return f"{self.headline}; {self.n_pages:,} shuffled pages\n{self.written().to_string()}\n{star}"

    def _contrast(self, effects: AboveEffects) -> tuple[Floats, Floats]:
        """Return the effect of each type above relative to the reference, and its standard error."""
        size = len(self.types)
        contrast = np.eye(size)
        if self.reference is None:
            # Relative to the types other than the one above; there are none where it alone is ever above.
            contrast = (contrast - effects.share_above) / np.maximum(1.0 - effects.share_above, 1e-12)[:, None]
        else:
            contrast[:, self.types.index(self.reference)] -= 1.0
        log_ratio = contrast @ effects.coefficient
        error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", contrast, effects.covariance, contrast), 0.0))
        known = np.isfinite(log_ratio) & np.isfinite(error)
        for information in (effects.information, effects.information_at_zero):
            known &= [_information_of(information, row) >= LEAST_INFORMATION for row in contrast]
        if self.reference is not None and not np.isnan(effects.coefficient).all():
            place = self.types.index(self.reference)
            log_ratio[place], error[place], known[place] = 0.0, 0.0, True
        return np.where(known, log_ratio, np.nan), np.where(known, error, np.nan)


def cannibalization(
    impressions: Table,
    config: Config,
    *,
    by: By = "entity_type",
    label: Label = "response",
    reference: str | None = None,
    level: float = 0.95,
    progress: Progress = ignore,
) -> Cannibalization:
    r"""Estimate what cohorts of each type do to the labels of those below them, from shuffled pages.

    Parameters
    ----------
    impressions : DataFrame or path
        The impressions table; pages of the policy "random" count. Every cohort of a page must be there, whether or not
        it was seen: where the log stops where the viewer stopped, what is there depends on the order.
    config : Config
        Names the entity types and their edge types, and when labels are mature.
    by : {"entity_type", "edge_type"}, default "entity_type"
        What counts as one type, both above and below.
    label : {"response", "downstream"}, default "response"
        Summed over the entities of a cohort; a cohort with a null one counts above others, and tells nothing itself.
    reference : str, optional
        See :meth:`Cannibalization.relative_to`. Default: the average cohort of the other types.
    level : float, default 0.95
        Confidence level, in (0, 1).
    progress : callable, optional
        ``progress(stage, done, total)``.

    Returns
    -------
    Cannibalization

    Raises
    ------
    ConfigError
        An unknown label, type or way to group them, or a level outside (0, 1).
    TableError
        When the table breaks its contract, or holds no shuffled page of two cohorts with a mature label.

    Notes
    -----
    *Model.* For a cohort c of type a, with :math:`X_b` cohorts of type b above it and :math:`p = \sum_b X_b` in all,

    .. math:: E[Y_c \mid \text{page, order}] = m_c(p) \exp(\sum_b \beta_{ab} X_b),

    where :math:`m_c(p)` is *anything*: it may differ by cohort, viewer, page and place. No position effect is modelled.

    *What is identified.* What any cohort above costs by taking attention goes with p into :math:`m_c`, and a constant
    added to all :math:`\beta_{ab}` of a row is not to be told from it. So effects are relative: the ratio of the
    expected label when, the page and the place of c held, a cohort of type b from below c changes places with one from
    above c: one of ``reference``, or the average cohort of the types other than b (weighed by how often the shuffle
    puts each above a). Below 1: b takes more from a than they do. Relative to the average, one strong type shows up in
    the rest of its row with the opposite sign; ``relative_to`` a type that leaves a alone shows it where it is. What is
    above and what is below go together, so that an effect is that of standing above and not below.

    *Estimator.* Given the page and p, the shuffle puts a uniform subset of p of the others above c, so that the
    distribution of X is known exactly (multivariate hypergeometric). With :math:`E_\beta` its mean weighed by
    :math:`\exp(\beta' X)`, the row solves

    .. math:: \sum_c Y_c \, \bigl(X_c - E_\beta[X \mid \text{page}, p]\bigr) = 0,
        \qquad E_\beta[X] = E[X e^{\beta' X}] / E[e^{\beta' X}].

    It is unbiased at the truth, page by page, because
    :math:`E[Y_c (X_c - E_\beta[X]) \mid \text{page}, p] = m_c(p) \, E[e^{\beta' X} (X - E_\beta[X])] = 0`
    whatever :math:`m_c` and whatever the distribution of Y. At :math:`\beta = 0` it is the randomisation test that
    compares the number above with its expectation under the shuffle. It is g-estimation of a multiplicative structural
    model (Robins 1994, "Correcting for non-compliance in randomized trials using structural nested mean models",
    Communications in Statistics 23) with a known assignment, as in the E-estimator of Robins, Mark and Newey (1992,
    "Estimating exposure effects by modelling the expectation of exposure conditional on confounders", Biometrics 48).
    Of the functions that are unbiased so, this one is taken because it is the gradient of a concave function, so that
    there is one root; because its weights do not grow with X, as those of :math:`Y e^{-\beta' X} (X - E[X])` do; and
    because for rare labels it is the score of the conditional likelihood, efficient as long as nothing is assumed of
    :math:`m_c`. Where labels are not rare, noise is taken off: in one more step :math:`Y_c` is replaced by
    :math:`Y_c - h(p) e^{\beta' X_c} / E[e^{\beta' X}]`, with the mean label h of the type at that place. The part
    taken off has mean 0 under the shuffle for every h, so that h need not be right.

    A Poisson regression on position also compares pages of different composition; it has smaller errors, and is wrong
    where composition goes with the viewer: who is fond of a type may be shown more of it.

    *Errors* are sandwich estimates, summed by viewer, so that a viewer's labels may depend on each other in any way,
    and scaled by G / (G - k) for G viewers with a label above 0 and k free effects, since fitted scores are too small.
    Where an effect is no constant per cohort, or differs between viewers, the estimate is an average; the test of no
    effect at all stands. Marks are Holm's (1979) over all pairs: the chance of one wrong mark is at most 1 - level.

    Examples
    --------
    >>> import spr
    >>> from simulations import Behaviour, World
    >>> behaviour = Behaviour(cannibalization={"company": {"people": 1.0}})  # times exp(-1) per cohort above
    >>> log = World(300, seed=1, behaviour=behaviour).impressions(3000, random_share=1.0)
    >>> found = cannibalization(log, spr.Config.named("network"), reference="newsletter")
    >>> row = found.to_pandas().set_index(["type", "above"]).loc[("company", "people")]
    >>> bool(row["low"] < -1.0 < row["high"]), bool(row["marked"])
    (True, True)
    """
    allowed = {"by": (by, ("entity_type", "edge_type")), "label": (label, ("response", "downstream"))}
    for name, (given, known) in allowed.items():
        if given not in known:
            raise ConfigError(f"cannibalization: {name_unknown(name, given, known)}")
    if not 0.0 < level < 1.0:
        raise ConfigError(f"cannibalization: level is {level}; allowed: between 0 and 1, without them")
    rows = read_impressions(impressions, config)
    type_of = {name: name if by == "entity_type" else kind.edge_type for name, kind in config.entity_types.items()}
    arrangements = read_arrangements(rows, type_of, label)
    effects = estimate_above_effects(arrangements, progress=progress)
    n_pages = int(arrangements.page.max()) + 1
    return Cannibalization(arrangements.types, effects, by, label, level, n_pages).relative_to(reference)


def estimate_above_effects(arrangements: Arrangements, *, progress: Progress = ignore) -> tuple[AboveEffects, ...]:
    """Estimate one row of effects for each type; see :func:`cannibalization`.

    Parameters
    ----------
    arrangements : Arrangements
    progress : callable, optional

    Returns
    -------
    tuple of AboveEffects
    """
    size, effects = len(arrangements.types), []
    for code in range(size):
        progress("cannibalization", code, size)
        effects.append(_estimate_row(arrangements, arrangements.type_code == code))
    progress("cannibalization", size, size)
    return tuple(effects)


def cannibalization_plot(found: Cannibalization, *, title: str | None = None) -> Figure:
    """Draw the matrix: rows whose label it is, columns the type above; red is less, blue is more, with the figures.

    Parameters
    ----------
    found : Cannibalization
    title : str, optional
        Default: the headline.

    Returns
    -------
    Figure
        Changes in percent with their signs; a star where one is marked; empty where too little is known.
    """
    from textwrap import fill

    from matplotlib.figure import Figure

    from spr.evaluation.heat_map import draw_heat_map

    across = 2.4 + 0.7 * len(found.types)
    figure = Figure(figsize=(across, across - 0.6), layout="constrained")
    figure.suptitle(fill(title or found.headline, int(9 * across)), fontsize=11)
    panel = figure.add_subplot()
    change = 100 * (found.matrix("ratio") - 1)
    limit = float(np.nanmax(np.abs(change.to_numpy()), initial=1.0))
    draw_heat_map(panel, change, found.written(), limit=limit)
    panel.set_xlabel("above")
    panel.set_ylabel(f"{found.label} of")
    return figure


def _estimate_row(arrangements: Arrangements, of_type: NDArray[np.bool_]) -> AboveEffects:
    others, place = arrangements.others[of_type], arrangements.place[of_type]
    size = others.shape[1]
    expected = place @ (others / np.maximum(others.sum(axis=1, keepdims=True), 1))
    share_above = expected / max(float(expected.sum()), 1.0)
    count = arrangements.count[of_type]
    known = ~np.isnan(count)
    total = float(count[known].sum())
    # A cohort at the top has nothing above it, whatever the order.
    used = known & (place > 0)
    hit = count[used] > 0
    if not hit.any():
        unknown, nothing = np.full(size, np.nan), np.zeros((size, size))
        return AboveEffects(unknown, nothing, nothing, nothing, share_above, int(known.sum()), 0, total)
    others, place, above = others[used], place[used], arrangements.above[of_type][used].astype(np.float64)
    # In units in which the label is as noisy as a count of single events, so that the information is one of events.
    count = count[used] * (total / float((count[known] ** 2).sum()))
    pages, places, mass, _ = _strata(others[hit], place[hit], count[hit])
    coefficient, at_zero, information = fit_weights(count[hit] @ above[hit], pages, places, mass)
    basis = varying(information)
    bread = basis @ np.linalg.inv(basis.T @ information @ basis) @ basis.T

    pages, places, mass, stratum = _strata(others, place, np.ones(len(place)))
    log_mean, mean, _ = weighted_shuffle(pages, places, coefficient)
    usual = (np.bincount(place, count) / np.maximum(np.bincount(place), 1))[place]
    surprise = count - usual * np.exp(above @ coefficient - log_mean[stratum])
    by_cohort = surprise[:, None] * (above - mean[stratum])
    viewer = pd.factorize(arrangements.viewer[of_type][used])[0]
    score = np.zeros((int(viewer.max()) + 1, size))
    np.add.at(score, viewer, by_cohort)
    coefficient = coefficient + bread @ by_cohort.sum(axis=0)
    n_viewers = len(np.unique(viewer[hit]))
    freedom = n_viewers - basis.shape[1]
    covariance = bread @ (score.T @ score) @ bread * (n_viewers / freedom if freedom > 0 else np.nan)
    return AboveEffects(coefficient, covariance, information, at_zero, share_above, int(known.sum()), n_viewers, total)


def _strata(others: Ints, place: Ints, weight: Floats) -> tuple[Ints, Ints, Floats, Ints]:
    """Return others and place of each different pair, the weight in it, and the stratum of each cohort."""
    strata, stratum = np.unique(np.column_stack([others, place]), axis=0, return_inverse=True)
    mass = np.bincount(stratum, weight).astype(np.float64)  # the stubs do not know that weights make it float
    return strata[:, :-1].copy(), strata[:, -1].copy(), mass, stratum


def _information_of(information: Floats, contrast: Floats) -> float:
    """Return one over the variance that the information leaves a contrast; 0 where it says nothing of it."""
    basis = varying(information)
    inside = basis.T @ contrast
    if np.linalg.norm(contrast - basis @ inside) > 1e-6 * np.linalg.norm(contrast):
        return 0.0
    variance = float(inside @ np.linalg.solve(basis.T @ information @ basis, inside))
    return 1.0 / variance if variance > 0 else 0.0
