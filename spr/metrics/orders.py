"""How good an order is, with position at its reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from spr.metrics.sums import (
    GroupMean,
    Sums,
    check_finite,
    check_gains,
    check_k,
    check_labels,
    check_weights,
    code_groups,
    divide,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def auc(label: ArrayLike, order_by: ArrayLike, *, weight: ArrayLike | None = None) -> float:
    """Estimate the probability that a positive is ordered above a negative, ties counting half.

    Parameters
    ----------
    label : array of 0 and 1, shape (n_rows,)
    order_by : float array, shape (n_rows,)
        Higher = nearer to the top.
    weight : float array, shape (n_rows,), optional
        Weight of each row, >= 0; 1 each where not given.

    Returns
    -------
    float
        NaN where all rows have one label.

    Raises
    ------
    InvalidModelInput
        As in `log_loss`; an ``order_by`` that is not finite.

    Examples
    --------
    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    y = check_labels(label)
    s, w = check_finite("order_by", order_by, y), check_weights(weight, y)
    return sum_auc(y, s, w).estimate()


def grouped_auc(
    label: ArrayLike,
    order_by: ArrayLike,
    group: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    average: Literal["rows", "groups"] = "rows",
) -> GroupMean:
    """Average the AUC within each group that has both labels.

    Parameters
    ----------
    label, order_by, weight
        As in `auc`.
    group : array, shape (n_rows,)
        The viewer, or the page.
    average : {"rows", "groups"}, default "rows"
        Weigh each group by its rows (their weight), or all alike.

    Returns
    -------
    GroupMean
        Groups with one label are left out and counted.

    Raises
    ------
    InvalidModelInput
        As in `auc`.

    References
    ----------
    Zhou et al. 2018, "Deep interest network for click-through rate prediction", KDD, equation 6 (weighted by
    rows).

    Examples
    --------
    >>> grouped_auc([0, 1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4, 0.5], ["a", "a", "b", "b", "c"])
    GroupMean(mean=0.5, groups=2, left_out=1)
    """
    y = check_labels(label)
    s, w = check_finite("order_by", order_by, y), check_weights(weight, y)
    return sum_grouped_auc(y, s, code_groups("group", group, y), w, average).group_mean()


def ndcg(label: ArrayLike, order_by: ArrayLike, page: ArrayLike) -> GroupMean:
    """Average the normalized discounted cumulative gain of pages; gain = label, discount = 1 / log2(position + 2).

    Parameters
    ----------
    label : float array, shape (n_rows,)
        Gain of each cohort, >= 0.
    order_by : float array, shape (n_rows,)
        Higher = nearer to the top. Ties give the expectation over all their orders.
    page : array, shape (n_rows,)
        The request.

    Returns
    -------
    GroupMean
        Pages without a positive label are left out and counted.

    Raises
    ------
    InvalidModelInput
        No rows, lengths that differ, negative or missing labels, an ``order_by`` that is not finite.

    References
    ----------
    Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", TOIS 20(4); ties: McSherry
    and Najork 2008, "Computing information retrieval performance measures efficiently in the presence of tied
    scores", ECIR.

    Examples
    --------
    >>> ndcg([0, 1, 0, 0], [0.9, 0.8, 0.9, 0.1], ["a", "a", "b", "b"])
    GroupMean(mean=0.6309297535714575, groups=1, left_out=1)
    """
    y = check_gains(label)
    s = check_finite("order_by", order_by, y)
    return sum_ndcg(y, s, code_groups("page", page, y)).group_mean()


def top1_rate(label: ArrayLike, order_by: ArrayLike, page: ArrayLike) -> GroupMean:
    """Average the label of the cohort at the top of each page; tied cohorts are averaged.

    Parameters
    ----------
    label, order_by, page
        As in `ndcg`.

    Returns
    -------
    GroupMean
        No page is left out.

    Raises
    ------
    InvalidModelInput
        As in `ndcg`.

    Examples
    --------
    >>> top1_rate([1, 0, 1, 0], [0.9, 0.1, 0.5, 0.5], ["a", "a", "b", "b"])
    GroupMean(mean=0.75, groups=2, left_out=0)
    """
    y = check_gains(label)
    s = check_finite("order_by", order_by, y)
    return sum_top1_rate(y, s, code_groups("page", page, y)).group_mean()


def precision_at_k(
    label: ArrayLike,
    order_by: ArrayLike,
    group: ArrayLike,
    k: int,
    *,
    weight: ArrayLike | None = None,
    average: Literal["rows", "groups"] = "groups",
) -> GroupMean:
    """Average the share of positives among the k rows at the top of each group.

    Parameters
    ----------
    label, order_by, group
        As in `grouped_auc`.
    k : int
        Places, >= 1; those that a group of fewer rows leaves empty count as misses.
    weight : float array, shape (n_rows,), optional
        How much each row counts among the k, >= 0; it moves no row up or down, but a row of weight 0 takes no place.
    average : {"groups", "rows"}, default "groups"
        Weigh all groups alike, or each by its rows (their weight).

    Returns
    -------
    GroupMean
        Groups without a positive count, with 0; groups whose rows all weigh 0 are left out. Rows that tie for the
        last places count by their chance of one.

    Raises
    ------
    InvalidModelInput
        As in `auc`; a ``k`` that is not a positive integer.

    Examples
    --------
    >>> precision_at_k([1, 0, 1, 0, 1], [0.9, 0.5, 0.5, 0.1, 0.2], ["a", "a", "a", "a", "b"], k=2)
    GroupMean(mean=0.625, groups=2, left_out=0)
    """
    check_k("k", k)
    y = check_labels(label)
    s, w = check_finite("order_by", order_by, y), check_weights(weight, y)
    return sum_precision_at_k(y, s, code_groups("group", group, y), k, w, average).group_mean()


def sum_auc(label: Floats, order_by: Floats, weight: Floats) -> Sums:
    """Add up `auc`, one unit per row.

    The AUC compares rows of different viewers, so it is no sum over viewers. It is linearised: a positive's
    placement is the share of negatives below it, a negative's that of positives above it; the AUC is the mean of
    either, and to first order it moves with both (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44; for
    clusters Obuchowski 1997, Biometrics 53).
    """
    placement, _, _ = _place(label, order_by, np.zeros(len(label), dtype=np.int64), weight)
    positive, negative = weight * label, weight * (1.0 - label)
    exact = divide((positive * placement).sum(), positive.sum())

    def move(total: Floats) -> Floats:
        return divide(total[..., 0], total[..., 1]) + divide(total[..., 2], total[..., 3]) - exact

    return Sums(4, [(0, positive * placement), (1, positive), (2, negative * placement), (3, negative)], move)


def sum_grouped_auc(
    label: Floats, order_by: Floats, group: Ints, weight: Floats, average: Literal["rows", "groups"] = "rows"
) -> Sums:
    """Add up `grouped_auc`, one unit per group."""
    placement, positive, negative = _place(label, order_by, group, weight)
    kept = np.flatnonzero((positive > 0.0) & (negative > 0.0))
    within = np.bincount(group, weight * label * placement, len(positive))[kept] / positive[kept]
    mass = (positive + negative)[kept] if average == "rows" else np.ones(len(kept))
    return _mean_over(kept, within, mass, group)


def sum_ndcg(label: Floats, order_by: Floats, page: Ints) -> Sums:
    """Add up `ndcg`, one unit per page."""
    order, tie = _sort_within(-order_by, page)
    ideal_order, _ = _sort_within(-label, page)
    sorted_page = page[order]
    start = np.flatnonzero(np.diff(sorted_page, prepend=-1))
    position = np.arange(len(page)) - start[sorted_page]
    discount = 1.0 / np.log2(position + 2.0)
    tied_discount = (np.bincount(tie, discount) / np.bincount(tie))[tie]
    gain = np.bincount(sorted_page, label[order] * tied_discount)
    ideal_gain = np.bincount(sorted_page, label[ideal_order] * discount)
    kept = np.flatnonzero(ideal_gain > 0.0)
    return _mean_over(kept, gain[kept] / ideal_gain[kept], np.ones(len(kept)), page)


def sum_top1_rate(label: Floats, order_by: Floats, page: Ints) -> Sums:
    """Add up `top1_rate`, one unit per page."""
    order, tie = _sort_within(-order_by, page)
    sorted_page = page[order]
    first_tie = tie[np.flatnonzero(np.diff(sorted_page, prepend=-1))]
    top = tie == first_tie[sorted_page]
    rate = np.bincount(sorted_page[top], label[order][top]) / np.bincount(sorted_page[top])
    return _mean_over(np.arange(len(rate)), rate, np.ones(len(rate)), page)


def sum_precision_at_k(
    label: Floats,
    order_by: Floats,
    group: Ints,
    k: int,
    weight: Floats,
    average: Literal["rows", "groups"] = "groups",
) -> Sums:
    """Add up `precision_at_k`, one unit per group."""
    n_groups = int(group.max()) + 1
    shown = np.flatnonzero(weight > 0.0)
    order, tie = _sort_within(-order_by[shown], group[shown])
    rows, sorted_group = shown[order], group[shown][order]
    place = np.arange(len(rows)) - np.searchsorted(sorted_group, sorted_group)
    first_place, tied = place[np.flatnonzero(np.diff(tie, prepend=-1))], np.bincount(tie)
    chance = (np.clip(k - first_place, 0, tied) / tied)[tie]
    counted = np.bincount(sorted_group, weight[rows] * chance, n_groups)
    hits = np.bincount(sorted_group, weight[rows] * chance * label[rows], n_groups)
    filled = np.minimum(np.bincount(sorted_group, minlength=n_groups), k) / k
    kept = np.flatnonzero(counted > 0.0)
    mass = _total(weight, group)[kept] if average == "rows" else np.ones(len(kept))
    return _mean_over(kept, filled[kept] * hits[kept] / counted[kept], mass, group)


def _mean_over(kept: Ints, metric: Floats, mass: Floats, group: Ints) -> Sums:
    n_groups = int(group.max()) + 1
    row_of = np.empty(n_groups, dtype=np.int64)
    row_of[group] = np.arange(len(group))
    return Sums(
        2,
        [(0, mass * metric), (1, mass)],
        lambda total: divide(total[..., 0], total[..., 1]),
        row=row_of[kept],
        left_out=n_groups - len(kept),
    )


def _place(label: Floats, order_by: Floats, group: Ints, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Find the share of the other label that each row beats in its group, and the mass of either label per group."""
    order, tie = _sort_within(order_by, group)
    positive, negative = weight * label, weight * (1.0 - label)
    placement = np.empty(len(label))
    beaten = _share_below(negative[order], tie, group[order])
    unbeaten = 1.0 - _share_below(positive[order], tie, group[order])
    placement[order] = np.where(label[order] == 1.0, beaten, unbeaten)
    return placement, _total(positive, group), _total(negative, group)


def _share_below(mass: Floats, tie: Ints, group: Ints) -> Floats:
    """Find the share of its group's mass below each row, ties counting half; rows are sorted."""
    total, tied = _total(mass, group), _total(mass, tie)
    below = (np.cumsum(tied) - tied / 2)[tie] - (np.cumsum(total) - total)[group]
    return divide(below, total[group])


def _total(mass: Floats, code: Ints) -> Floats:
    return np.bincount(code, mass).astype(np.float64)  # the stubs do not know that weights make it float


def _sort_within(key: Floats, group: Ints) -> tuple[Ints, Ints]:
    """Sort rows by group, then key; number the runs of equal keys in that order."""
    order = np.lexsort((key, group))
    new_run = (np.diff(group[order], prepend=-1) != 0) | (np.diff(key[order], prepend=np.nan) != 0.0)
    return order, np.cumsum(new_run) - 1
