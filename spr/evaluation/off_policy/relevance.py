"""How likely each cohort is to bring an interaction wherever it stands, predicted for viewers that did not teach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from spr.errors import InvalidModelInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.evaluation.off_policy.logged_pages import LoggedPages

    Floats = NDArray[np.float64]

_ZEROS_KEPT: Final = 3.0
_KNOTS: Final = (-1.3, 0.0, 1.3)  # normal scores of the quantiles 0.1, 0.5 and 0.9
_PENALTY: Final = 1e-4
_LEAST: Final = 1e-6


def cross_fit_relevance(pages: LoggedPages, *, n_folds: int = 5, seed: int = 0) -> Floats:
    """Predict the interactions with each cohort from its kind and its features, over all positions.

    Parameters
    ----------
    pages : LoggedPages
        Fully shuffled. Positions are not read: a shuffle makes them independent of the features, so that the answer is
        what a cohort brings at a random position.
    n_folds : int, default 5
        At least 2; viewers are dealt out to folds by a hash of their id, and each fold is predicted by a model of the
        others.
    seed : int, default 0
        Of the rows without an interaction that are left out: about three are kept for each row with one, and weighted
        up. More teach little and cost most.

    Returns
    -------
    float64[C]
        > 0.

    Raises
    ------
    InvalidModelInput
        Fewer than 2 folds.

    Notes
    -----
    A Poisson regression (scikit-learn's ``PoissonRegressor``) on the kind and, of each feature, its normal score (of
    its quantile within the kind): linear with knots at the quantiles 0.1, 0.5 and 0.9, and a slope of its own for each
    kind. Scores on different scales need no other preparation. It has few coefficients on purpose: noise of
    the prediction is an error in what the click models read above a cohort, and draws their coefficients to 0. A fold
    whose model would have no interaction to learn from is predicted by the mean.

    Examples
    --------
    >>> from spr.evaluation.off_policy import LoggedPages
    >>> rng = np.random.default_rng(1)
    >>> good, page = rng.random(4000) < 0.5, np.repeat(np.arange(1000), 4)
    >>> label = rng.random(4000) < np.where(good, 0.4, 0.1)
    >>> place = np.tile(np.arange(4), 1000)
    >>> pages = LoggedPages.of(page, place, place, label, features=good[:, None])
    >>> relevance = cross_fit_relevance(pages)
    >>> [round(float(relevance[good == which].mean()), 1) for which in (True, False)]
    [0.4, 0.1]
    """
    if n_folds < 2:
        raise InvalidModelInput(f"n_folds is {n_folds}; allowed: 2 or more")
    from sklearn.linear_model import PoissonRegressor  # a second to import, and only this needs it

    label, fold = pages.label, pages.folds(n_folds)[pages.page]
    mean = max(float(label.mean()), _LEAST)
    relevance = np.full(len(label), mean)
    positive = label > 0
    kept_share = min(1.0, _ZEROS_KEPT * positive.sum() / max((~positive).sum(), 1))
    kept = positive | (np.random.default_rng(seed).random(len(label)) < kept_share)
    weight = np.where(positive, 1.0, 1.0 / max(kept_share, _LEAST))
    score = _normal_scores(pages)
    n_groups = int(pages.group.max()) + 1
    taught = np.flatnonzero(kept)
    design = _design(score[taught], pages.group[taught], n_groups)
    for number in range(n_folds):
        teaching, told = fold[taught] != number, np.flatnonzero(fold == number)
        if not len(told) or not positive[taught[teaching]].any() or design.shape[1] == 0:
            continue
        rows = taught[teaching]
        model = PoissonRegressor(alpha=_PENALTY, solver="newton-cholesky")
        with threadpool_limits(1, "blas"):  # threads that wait for busy cores cost 30 times more than they save here
            model.fit(design[teaching], label[rows], sample_weight=weight[rows])
        relevance[told] = model.predict(_design(score[told], pages.group[told], n_groups))
    return np.asarray(np.maximum(relevance, _LEAST))


def _normal_scores(pages: LoggedPages) -> Floats:
    """Return float64[C, F]: each feature's normal score within its group; NaN = not known."""
    quantile = np.empty_like(pages.features)
    for column in range(pages.features.shape[1]):
        by_group = pd.Series(pages.features[:, column]).groupby(pages.group)
        rank = by_group.rank().to_numpy(dtype=np.float64, na_value=np.nan)
        quantile[:, column] = (rank - 0.5) / by_group.transform("count").to_numpy(dtype=np.float64)
    return np.asarray(ndtri(quantile))


def _design(score: Floats, group: NDArray[np.int64], n_groups: int) -> Floats:
    kind = np.eye(n_groups)[group][:, 1:]
    columns = [kind]
    for values in score.T:
        known = np.where(np.isnan(values), 0.0, values)[:, None]
        columns += [known, np.maximum(known - np.array(_KNOTS), 0.0), kind * known, np.isnan(values)[:, None]]
    return np.hstack(columns).astype(np.float64)
