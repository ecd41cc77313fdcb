"""How far random effects are shrunk: learnt prior variances, a scale from held-out rows, unseen entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from spr.glmix.kernels import line_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spr.glmix.families import Family

    Floats = NDArray[np.float64]

# what held-out rows may prefer to 1; conditional posteriors bias empirical Bayes low, hence the larger half
SCALES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
_SMALLEST_SHARE, _LARGEST_SHARE = 1e-6, 25.0
_LONGEST_STEP = float(np.log(10.0))
_CORRECTION_SD = np.array([0.5, 0.25])  # of the unseen intercept and slope around (0, 1)


def variance_bounds(mean_square: Floats, spread: float) -> tuple[Floats, Floats]:
    """Return the least and the largest prior variance of each coefficient.

    They bound the variance that a coefficient adds to a margin: between 1e-6 and 25 times `spread`.

    Parameters
    ----------
    mean_square : array of d
        Mean square of each feature over its non-zero values.
    spread : float
        1 for log-odds and log-means; the variance of the labels about the offset for gaussian.

    Returns
    -------
    tuple of two arrays of d

    Examples
    --------
    >>> low, high = variance_bounds(np.array([1.0, 4.0]), 1.0)
    >>> high.tolist()
    [25.0, 6.25]
    """
    unit = spread / np.where(mean_square > 0, mean_square, 1.0)
    return _SMALLEST_SHARE * unit, _LARGEST_SHARE * unit


def updated_variance(variance: Floats, squares: Floats, shares: Floats, coupling: Floats) -> Floats:
    r"""Take one step towards the fixed point of empirical Bayes for a random effect's prior variances.

    Parameters
    ----------
    variance : array of d
        The prior variances v that the posteriors were computed under.
    squares : array of d
        Sum over entities of the squared posterior means.
    shares : array of d
        Sum over entities of the diagonal of S = I - v^(-1/2) V v^(-1/2), V the posterior covariance.
    coupling : array of (d, d)
        Sum over entities of the squared elements of S.

    Returns
    -------
    array of d
        The new variances, each within a factor ten of the old; the old where the data say nothing.

    Notes
    -----
    The fixed point is v_j = mean(b_j^2 + V_jj) over entities, that of EM, reached where squares = v * shares.
    MacKay (1992, "Bayesian interpolation", eq. 4.5 ff.) takes v := squares / shares; that step in log v is lengthened
    by shares / (row sum of coupling): Newton's step for one coefficient, and for collinear ones, where Newton's
    step oscillates, short enough to rise in each coordinate (the row sum bounds the information matrix).

    Examples
    --------
    Balanced gaussian data, 10 rows an entity, residual variance 1: entity means vary by v + 0.1.

    >>> means = np.array([-1.2, -0.4, 0.1, 1.5])
    >>> variance = np.array([0.5])
    >>> for _ in range(4):
    ...     share = variance / (variance + 0.1)
    ...     squares = ((share * means) ** 2).sum(keepdims=True)
    ...     variance = updated_variance(variance, squares, 4 * share, 4 * share[:, None] ** 2)
    >>> bool(np.isclose(variance[0], (means**2).mean() - 0.1))
    True
    """
    information = coupling.sum(axis=1)
    told = (shares > 0.0) & (information > 0.0)
    ratio = np.where(told, squares / np.where(told, variance * shares, 1.0), 1.0)
    step = np.log(np.maximum(ratio, 1e-12)) * np.where(told, shares / np.where(told, information, 1.0), 0.0)
    return cast("Floats", variance * np.exp(np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)))


def chosen_scale(
    losses_at: Callable[[float], Floats], without: Floats, entities: NDArray[np.int64], *, known: bool
) -> float:
    """Choose the scale of an effect's prior variances by its held-out losses, climbing from 1 along `SCALES`.

    Held-out rows are few, the rows behind the estimate are not. Where the estimate itself is far from 0 (`known`), the
    effect must beat its absence by one standard error of the difference (Breiman et al. 1984), else by three.
    A scale above 1 must beat 1 by two. One below 1 is safe: where the effect itself is in doubt (less than two errors)
    it need only be better, else it must beat 1 by one.

    Parameters
    ----------
    losses_at : callable
        The weighted held-out losses, an array of n, once the effect is refitted at a scale.
    without : float64 array of n
        The same without the effect.
    entities : int64 array of n
        The entity of each row, -1 = none: rows of an entity gain or lose together, so the error is over entities.
    known : bool
        Whether the rows that teach leave no doubt that the variance is above 0.

    Returns
    -------
    float
        0 = the effect is to be dropped.

    Examples
    --------
    >>> entities = np.arange(100) % 20
    >>> noise = np.random.default_rng(0).normal(size=100)
    >>> chosen_scale(lambda scale: (scale - 2.2) ** 2 + noise, 9.0 + noise, entities, known=True)
    2.0
    >>> chosen_scale(lambda scale: 1.0 + noise, np.ones(100), entities, known=True)
    0.0
    """
    start = SCALES.index(1.0)
    place, losses = start, losses_at(1.0)
    best = losses
    for direction in (1, -1):
        while 0 <= place + direction < len(SCALES):
            tried = losses_at(SCALES[place + direction])
            if tried.sum() >= best.sum():
                break
            place, best = place + direction, tried
        if place != start:
            break
    doubtful = not is_better(losses, without, entities, 2.0)
    errors = 2.0 if place > start else 0.0 if doubtful else 1.0
    if place != start and not is_better(best, losses, entities, errors):
        place, best = start, losses
    needed = 1.0 if known else 3.0
    return SCALES[place] if is_better(best, without, entities, needed) else 0.0


def is_better(new: Floats, old: Floats, entities: NDArray[np.int64], errors: float) -> bool:
    """Return whether the losses `new` are lower in sum than `old` by more than `errors` standard errors."""
    by_entity = np.bincount(entities + 1, old - new)
    return bool(by_entity.sum() > errors * np.sqrt(by_entity @ by_entity))


def fit_line(
    family: Family, labels: Floats, weights: Floats, fixed: Floats, rest: Floats, start: tuple[float, float]
) -> tuple[float, float]:
    """Fit intercept and slope >= 0 of `rest + intercept + slope * fixed` by damped Newton steps.

    A weak ridge (a thousandth of a row) around (0, 1) keeps constant margins and one-class labels finite.

    Parameters
    ----------
    family : Family
    labels, weights, fixed, rest : arrays of n
    start : tuple of (intercept, slope)
        Where to start: close to the answer, two steps are enough.

    Returns
    -------
    tuple of (intercept, slope)
    """
    line = np.array(start)
    target, ridge = np.array([0.0, 1.0]), 1e-3
    for _ in range(25):
        sums = line_sums(family.code, labels, weights, fixed, rest, line[0], line[1])
        matrix = np.array([[sums[2] + ridge, sums[3]], [sums[3], sums[4] + ridge]])
        slopes = sums[:2] + ridge * (line - target)
        step = -np.linalg.solve(matrix, slopes)
        largest = np.abs(step).max()
        line += step / max(1.0, largest)
        line[1] = max(line[1], 0.0)
        if largest < 1e-3:
            break
    return float(line[0]), float(line[1])


def unseen_correction(
    family: Family, labels: Floats, weights: Floats, fixed: Floats, rest: Floats, groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Fit the (intercept, slope) of the fixed margin for entities that have no random effect, shrunk to (0, 1).

    A random effect of 0 is the middle of its prior, not the mean response: with an intercept sd of 1 it is off
    by half at a response rate of 5 %. Rows of a group are not independent: the line's own uncertainty is
    cluster-robust (Liang and Zeger 1986), and the line is weighed against a normal prior around (0, 1) with sds
    0.5 and 0.25. What is left is multiplied by ``max(0, 1 - E / T2)``, T2 being Hotelling's statistic of the line
    and E its mean where nothing is to be corrected (positive-part James-Stein; Efron and Morris 1973): a line that
    chance explains corrects nothing.

    Parameters
    ----------
    family : Family
    labels, weights, fixed, rest : arrays of n
        Rows of groups that no random effect was fitted on; `rest` is everything but the fixed margin.
    groups : int64 array of n
        The group of each row.

    Returns
    -------
    tuple of (intercept, slope)
        (0, 1) where there are fewer than four groups with a weight.
    """
    members = np.unique(groups[weights > 0], return_inverse=True)[1]
    count = int(members.max()) + 1 if members.size else 0
    if count < 4:
        return 0.0, 1.0
    labels, fixed, rest = labels[weights > 0], fixed[weights > 0], rest[weights > 0]
    weights = weights[weights > 0]
    line = np.array(fit_line(family, labels, weights, fixed, rest, (0.0, 1.0)))
    gradient, hessian = family.derivatives(labels, rest + line[0] + line[1] * fixed, weights)
    design = np.column_stack([np.ones_like(fixed), fixed])
    bread = np.linalg.inv((design * hessian[:, None]).T @ design + 1e-3 * np.eye(2))
    scores = np.column_stack([np.bincount(members, gradient * column) for column in design.T])
    covariance = bread @ (scores.T @ scores) @ bread * count / (count - 1)
    prior = np.diag(_CORRECTION_SD**2)
    target = np.array([0.0, 1.0])
    # posterior mean of a normal prior and a normal estimate, written without inverting a singular covariance
    statistic = float((line - target) @ np.linalg.solve(covariance + 1e-9 * np.eye(2), line - target))
    by_chance = 2.0 * (count - 1) / (count - 3)
    kept = max(0.0, 1.0 - by_chance / statistic) if statistic > 0.0 else 0.0
    shrunk = target + kept * (prior @ np.linalg.solve(prior + covariance, line - target))
    return float(shrunk[0]), float(max(shrunk[1], 0.0))
