"""Click models: how much of a cohort's relevance is acted on, by its position and by what stands above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from spr.errors import InvalidModelInput
from spr.evaluation.off_policy.click_kernels import predict_shares, sum_above, sum_derivatives
from spr.evaluation.off_policy.inverse_propensity import require_shuffled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration import PositionExamination
    from spr.evaluation.off_policy.logged_pages import LoggedPages

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

POSITION: Final = "position"
INTERACTIONS_ABOVE: Final = "interactions above"
SAME_KIND_ABOVE: Final = "same kind above"
EACH_KIND_ABOVE: Final = "each kind above"
DEPTH_BY_KIND: Final = "depth, by own kind"
MODELS: Final[dict[str, tuple[str, ...]]] = {
    POSITION: (),
    "cascade": (INTERACTIONS_ABOVE,),
    "cannibalization": (SAME_KIND_ABOVE,),
    "cascade and cannibalization": (INTERACTIONS_ABOVE, SAME_KIND_ABOVE),
    "decay by kind": (DEPTH_BY_KIND,),
    "all kinds": (INTERACTIONS_ABOVE, SAME_KIND_ABOVE, EACH_KIND_ABOVE),
}
"""Click models by name, and what stands above that each of them reads."""

_FEWEST_AT_PLACE: Final = 20
_MOST_STEPS: Final = 50
_LONGEST_STEP: Final = 2.0
_TOLERANCE: Final = 1e-6
_RIDGE: Final = 1e-6  # relative: for a column that does not vary


@dataclass(frozen=True, eq=False)
class ClickModel:
    r"""A fitted click model.

    Under it the reward of cohort c at position k of page p, with the set A above it, has the mean

    .. math:: \alpha_{pc} \, e_k \exp\Bigl(\sum_{j \in A} \beta^T t_{cj}\Bigr)

    where :math:`\alpha_{pc}` is anything, :math:`e_k` is the examination of the position relative to the top, and
    :math:`t_{cj}` says what j above does to c: its relevance (the interactions that it is expected to bring), whether
    it is of the same kind, of which kind it is. One more model has a power of 1 + k of each kind's own in place of the
    sum: kinds that lose faster further down.

    Parameters
    ----------
    name : str
        One of ``MODELS``.
    place : int64[K]
        The place of each position: positions with few interactions share one.
    log_place : float64[k]
        Log examination of each place, 0 at the first.
    relevance : float64[C]
        As it was given.
    own : float64[C, m]
        Log relevance over its mean, and its square; where kinds lose differently, the kind, too.
    own_slope : float64[m]
        Of these in the margin of a cohort itself; (1, 0) where the relevance is right.
    terms : int64[d]
        Columns of :func:`~spr.evaluation.off_policy.click_kernels.sum_above` that are read.
    slope : float64[d]
        beta.
    logged_above, new_above : float64[C, d]
        Sums of t over what stands above, in the logged and the new order.
    residual : float64[C]
        Label less its conditional expectation: the score of the likelihood by margin.
    covariance : float64[k + m + d, k + m + d]
        Inverse information of log place, own slopes and beta (0 for the first place, which is the reference).
        All 0 where the examination is given.
    held_out : float64[P]
        Conditional log-likelihood of each page under the coefficients of the other folds of viewers.
    """

    name: str
    place: Integers
    log_place: Floats
    relevance: Floats
    own: Floats
    own_slope: Floats
    terms: Integers
    slope: Floats
    logged_above: Floats
    new_above: Floats
    residual: Floats
    covariance: Floats
    held_out: Floats

    @property
    def examination(self) -> Floats:
        """Examination of each position relative to the top, with nothing that matters above, float64[K]."""
        return np.exp(self.log_place)[self.place]

    def error_of(self, gradient: Floats, pages: LoggedPages) -> Floats:
        """Return what the error of the coefficients adds to the influence of each page.

        Parameters
        ----------
        gradient : float64[k + m + d]
            Of an estimate by log place, own slopes and beta.
        pages : LoggedPages
            That the model was fitted on.

        Returns
        -------
        float64[P]
        """
        direction = self.covariance @ gradient
        columns = np.column_stack([self.own, self.logged_above])
        along = direction[self.place[pages.position]] + columns @ direction[len(self.log_place) :]
        return pages.n_pages * pages.sum_by_page(self.residual * along)


def pool_positions(pages: LoggedPages) -> Integers:
    """Return the place of each position: from the bottom up, positions are pooled until a place has 20 interactions.

    Returns
    -------
    int64[K]
        0, 1, ..., non-decreasing.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> n = 100
    >>> label = np.tile([1, 1, 0, 0], n)
    >>> place = np.tile(np.arange(4), n)
    >>> pool_positions(LoggedPages.of(np.repeat(np.arange(n), 4), place, place, label))
    array([0, 1, 1, 1])
    """
    counts = np.bincount(pages.position, pages.label > 0)
    first_of_place, found = [], 0.0
    for position in range(len(counts) - 1, -1, -1):
        found += counts[position]
        if found >= _FEWEST_AT_PLACE or position == 0:
            first_of_place.append(position)
            found = 0.0
    starts = np.zeros(len(counts), dtype=np.int64)
    starts[first_of_place[:-1]] = 1  # the top is place 0
    return starts.cumsum()


def fit_click_model(pages: LoggedPages, relevance: Floats, name: str = POSITION, *, n_folds: int = 5) -> ClickModel:
    r"""Fit a click model to fully shuffled pages, given how many interactions each of them had.

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled.
    relevance : float64[C]
        > 0, of the rows of the pages, as of :func:`~spr.evaluation.off_policy.relevance.cross_fit_relevance`.
    name : str, default "position"
        One of ``MODELS``.
    n_folds : int, default 5
        Of viewers, for ``held_out``.

    Returns
    -------
    ClickModel

    Raises
    ------
    InvalidModelInput
        An unknown name, pages that are not full shuffles, or pages without any interaction.

    Notes
    -----
    With :math:`\eta` the log of the mean above and the log relevance in place of :math:`\log\alpha`, up to a slope, the
    log-likelihood of a page's labels given their sum Y is

    .. math:: \sum_c y_c \eta_c - Y \log \sum_c e^{\eta_c}

    the conditional likelihood of Poisson counts (Hausman, Hall and Griliches 1984, "Econometric models for count data",
    section 2), consistent when the means hold, whatever their distribution. Whatever page and viewer do to all
    cohorts alike cancels: active viewers, time of day, the number of cohorts. Since positions are drawn, what is wrong
    with the relevance does not bias :math:`e`. Nearly so :math:`\beta`: what stands above at a given position is drawn,
    too, but a page's best cohort has less relevance above it than the others, so that a relevance that exaggerates
    would pass for a cascade. Hence the square among the columns of a cohort's own relevance.

    ``calibration.PositionExamination`` answers the same question for the calibrators; it shrinks to a smooth
    curve, whose bias has no place in an interval, and knows nothing of what stands above.

    The coefficients that leave a fold out are one Newton step from those of all folds.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> rng = np.random.default_rng(0)
    >>> place = np.tile(np.arange(2), 20_000)
    >>> label = rng.random(40_000) < np.where(place == 0, 0.2, 0.1)
    >>> pages = LoggedPages.of(np.repeat(np.arange(20_000), 2), place, place, label)
    >>> fit_click_model(pages, np.ones(40_000)).examination.round(1)
    array([1. , 0.5])
    """
    require_shuffled(pages, "a click model")
    if name not in MODELS:
        raise InvalidModelInput(f"unknown click model {name!r}; known: {', '.join(MODELS)}")
    total = pages.sum_by_page(pages.label)
    if not total.any():
        raise InvalidModelInput(f"no interaction on {pages.n_pages} pages; a click model needs some")
    place_of, terms = pool_positions(pages), _terms(pages, MODELS[name])
    logged = _above(pages, np.arange(len(pages.label)), relevance, terms)
    own = _own_columns(relevance)
    if (
        DEPTH_BY_KIND in MODELS[name]
    ):  # the relevance is that of a random position, which each kind loses by differently
        own = np.column_stack([own, np.eye(int(pages.group.max()) + 1)[pages.group][:, 1:]])
    columns, place = np.column_stack([own, logged]), place_of[pages.position]
    k, fold = int(place_of.max()) + 1, pages.folds(n_folds)
    theta = np.zeros(k + columns.shape[1])
    theta[k] = 1.0
    free = np.arange(len(theta)) > 0
    for _ in range(_MOST_STEPS):
        share = predict_shares(pages.offset, total, place, columns, theta[:k], theta[k:])
        score, information = sum_derivatives(pages.offset, total, place, columns, pages.label, share, fold, n_folds, k)
        step = _solve(information.sum(axis=0), score.sum(axis=0), free)
        if np.abs(step).max() < _TOLERANCE:
            break
        theta += step * min(1.0, _LONGEST_STEP / float(np.abs(step).max()))
    held_out = np.zeros(pages.n_pages)
    for number in np.flatnonzero(np.bincount(fold)):
        left_out = theta + _solve(information.sum(axis=0) - information[number], -score[number], free)
        predicted = predict_shares(
            pages.offset, np.where(fold == number, total, 0.0), place, columns, left_out[:k], left_out[k:]
        )
        held_out += pages.sum_by_page(pages.label * np.log(np.where(predicted > 0, predicted, 1.0)))
    inverse = np.zeros_like(information[0])
    inverse[np.ix_(free, free)] = np.linalg.inv(_ridged(information.sum(axis=0)[np.ix_(free, free)]))
    return ClickModel(
        name=name,
        place=place_of,
        log_place=theta[:k],
        relevance=relevance,
        own=own,
        own_slope=theta[k : k + own.shape[1]],
        terms=terms,
        slope=theta[k + own.shape[1] :],
        logged_above=logged,
        new_above=_above(pages, pages.new_order, relevance, terms),
        residual=pages.label - total[pages.page] * share,
        covariance=inverse,
        held_out=held_out,
    )


def given_examination(pages: LoggedPages, relevance: Floats, examination: PositionExamination) -> ClickModel:
    """Take the examination of positions as known, e.g. of :class:`calibration.PositionExamination`.

    Parameters
    ----------
    pages : LoggedPages
    relevance : float64[C]
    examination : PositionExamination
        Its uncertainty is not in the intervals.

    Returns
    -------
    ClickModel
        Of positions alone.
    """
    place = np.arange(int(pages.length.max()))
    none = np.empty((len(pages.label), 0))
    return ClickModel(
        name=POSITION,
        place=place,
        log_place=np.log(examination.at(place)),
        relevance=relevance,
        own=_own_columns(relevance),
        own_slope=np.array([1.0, 0.0]),
        terms=np.empty(0, dtype=np.int64),
        slope=np.empty(0),
        logged_above=none,
        new_above=none,
        residual=np.zeros(len(pages.label)),
        covariance=np.zeros((len(place) + 2, len(place) + 2)),
        held_out=np.zeros(pages.n_pages),
    )


def _terms(pages: LoggedPages, read: Sequence[str]) -> Integers:
    kinds = int(pages.group.max()) + 1
    terms: list[int] = []
    if INTERACTIONS_ABOVE in read:
        terms.append(0)
    if SAME_KIND_ABOVE in read and kinds > 1:
        terms.append(1)
    if EACH_KIND_ABOVE in read:
        terms += range(3, 2 + kinds)  # all but the first: with the position they would sum to it
    if DEPTH_BY_KIND in read:
        terms += range(3 + kinds, 2 + 2 * kinds)
    return np.array(terms, dtype=np.int64)


def _own_columns(relevance: Floats) -> Floats:
    log = np.log(relevance / relevance.mean())
    return np.column_stack([log, log**2])


def _above(pages: LoggedPages, order: Integers, relevance: Floats, terms: Integers) -> Floats:
    if not len(terms):
        return np.empty((len(order), 0))
    above: Floats = sum_above(pages.offset, order, relevance, pages.group, int(pages.group.max()) + 1)
    return above[:, terms]


def _solve(information: Floats, score: Floats, free: NDArray[np.bool_]) -> Floats:
    step = np.zeros_like(score)
    step[free] = np.linalg.solve(_ridged(information[np.ix_(free, free)]), score[free])
    return step


def _ridged(information: Floats) -> Floats:
    scale = np.diag(information)
    return np.asarray(information + _RIDGE * np.diag(np.maximum(scale, scale.max() * 1e-6)))
