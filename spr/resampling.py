"""Balanced training rows, and the exact way back from what a model says of them to probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_ALL = "all"


@dataclass(frozen=True, slots=True, eq=False)
class BalancedRows:
    """Which rows were kept, and with what chance those without the label were; see :func:`balance`.

    Parameters
    ----------
    kept : bool[n]
        Every row with the label, and some of the others.
    rate : mapping of str to float
        By group, the share of its rows without the label that was kept, in (0, 1]; ``"all"`` without groups.
    offset : float64[kept rows]
        -log rate of each kept row.
    """

    kept: NDArray[np.bool_]
    rate: Mapping[str, float]
    offset: Floats

    def correct(self, probability: ArrayLike, group: ArrayLike | None = None) -> Floats:
        """Return probabilities of the untouched rows, from a model that was fitted on the kept ones without an offset.

        Parameters
        ----------
        probability : float array, shape (m,)
            What the model says, in [0, 1].
        group : array of str, shape (m,), optional
            The group of each, where rows were balanced by group.

        Returns
        -------
        float64[m]

        Raises
        ------
        InvalidModelInput
            Groups that were not there, or that are not given.
        """
        said = np.asarray(probability, dtype=np.float64)
        given = np.full(said.shape, _ALL, dtype=object) if group is None else np.asarray(group, dtype=object)
        rate = pd.Series(given).map(dict(self.rate)).to_numpy(dtype=np.float64)
        if np.isnan(rate).any():
            unknown = given[int(np.isnan(rate).argmax())]
            known = ", ".join(sorted(self.rate))
            raise InvalidModelInput(f"correct: no rate of group {unknown!r}; groups that were balanced: {known}")
        return correct_probability(said, rate)


def balance(
    label: ArrayLike,
    *,
    group: ArrayLike | None = None,
    positive_share: float = 0.5,
    rng: np.random.Generator | int,
) -> BalancedRows:
    r"""Leave out rows without the label at random, until those with it are a given share.

    Parameters
    ----------
    label : array of 0 and 1, shape (n,)
    group : array of str, shape (n,), optional
        Balanced one by one, e.g. the entity type of each cohort; default: all rows together.
    positive_share : float, default 0.5
        That rows with the label shall be of the kept ones, in (0, 1). A group that has more of them keeps all its rows,
        and so does one that has none.
    rng : Generator or int
        Draws the rows.

    Returns
    -------
    BalancedRows

    Raises
    ------
    InvalidModelInput
        Labels other than 0 and 1, lengths that differ, a null group, a share outside (0, 1).

    Notes
    -----
    *Rows are those of a model's matrix*: in the second pass cohorts with a mature label, whose features are built
    before any are left out. Rows of the impressions table cannot be left out one by one, since a cohort's features and
    its label are of all its top k; and whole pages kept by what happened on them would keep a cohort by the labels of
    its neighbours, which no correction of its own probability undoes.

    *The correction is exact.* The chance to be kept depends on the label y and the group alone, so that for every x the
    odds among kept rows are the odds p / (1 - p) over the rate r: with q the probability among them,

    .. math:: p = \frac{q}{q + (1 - q) / r}

    (He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook", section 6.3; for estimates of
    logistic models King and Zeng 2001, "Logistic regression in rare events data", Political Analysis 9). A model of
    log-odds takes it as it learns: fitted with ``offset``, its own margins are those of all rows, and nothing is to be
    corrected. Exactly the wanted number of rows is drawn, so that the rate is the share that was kept.

    Metrics belong on rows of the untouched distribution, corrected: normalised cross entropy of balanced rows is about
    another base rate. ``negative_share`` of :class:`spr.glmix.GLMixClassifier` weighs the kept rows by 1 / r in place
    of an offset: consistent for the best fit even of a wrong model, and noisier where the model is right. A log that
    came thinned out is told of by ``negative_sampling_rate`` of the entity type.

    Examples
    --------
    >>> label = np.array([1.0] * 10 + [0.0] * 90)
    >>> rows = balance(label, rng=0)
    >>> int(rows.kept.sum()), rows.rate
    (20, {'all': 0.1111111111111111})
    >>> rows.correct([0.5, 0.9]).round(3)  # the base rate is 0.1
    array([0.1, 0.5])
    """
    y = np.asarray(label, dtype=np.float64)
    if y.ndim != 1 or not np.isin(y, (0.0, 1.0)).all():
        raise InvalidModelInput("balance: label must be one 0 or 1 per row; leave out rows that are not mature")
    if not 0.0 < positive_share < 1.0:
        raise InvalidModelInput(f"balance: positive_share is {positive_share}; allowed: between 0 and 1, without them")
    groups = np.full(len(y), _ALL, dtype=object) if group is None else np.asarray(group, dtype=object)
    if groups.shape != y.shape or pd.isna(groups).any():
        raise InvalidModelInput(
            f"balance: group has shape {groups.shape} for {len(y)} labels, or a null; name each row's"
        )
    draw = np.random.default_rng(rng).random(len(y))
    kept, rate, offset = y == 1.0, dict[Any, float](), np.zeros(len(y))
    for name in sorted(set(groups)):
        here = groups == name
        others = np.flatnonzero(here & (y == 0.0))
        positives = int(here.sum()) - len(others)
        wanted = round(positives * (1.0 - positive_share) / positive_share) if positives else len(others)
        n_kept = min(max(wanted, 1), len(others))
        kept[others[np.argsort(draw[others], kind="stable")[:n_kept]]] = True
        rate[str(name)] = n_kept / len(others) if len(others) else 1.0
        offset[here] = -np.log(rate[str(name)])
    return BalancedRows(kept, rate, offset[kept])


def correct_probability(probability: ArrayLike, rate: ArrayLike) -> Floats:
    """Return probabilities of all rows, from those among rows of which a share without the label was kept.

    Parameters
    ----------
    probability : float array, shape (m,)
        Among the kept rows, in [0, 1].
    rate : float or float array, shape (m,)
        The share of rows without the label that was kept, in (0, 1].

    Returns
    -------
    float64[m]
        ``q / (q + (1 - q) / r)``; see :func:`balance`.

    Raises
    ------
    InvalidModelInput
        A probability or a rate outside its range.

    Examples
    --------
    >>> correct_probability([0.0, 0.5, 1.0], 0.1).round(4)
    array([0.    , 0.0909, 1.    ])
    """
    q, r = np.asarray(probability, dtype=np.float64), np.asarray(rate, dtype=np.float64)
    for name, values, right in (
        ("probability", q, (q >= 0.0) & (q <= 1.0)),
        ("rate", r, (r > 0.0) & (r <= 1.0)),
    ):
        if not right.all():
            raise InvalidModelInput(f"{name} is {values[~right].flat[0]}; allowed: numbers from 0 to 1, a rate above 0")
    return np.asarray(q * r / (q * r + (1.0 - q)))
