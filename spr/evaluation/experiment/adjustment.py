"""Values of the arms with regression adjustment, and what each unit adds to their errors: the one estimator of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_COLLINEAR = 1e-10
_LEAST = 1e-6  # a unit that is all of its arm has a residual of 0 and leverage 1


@dataclass(frozen=True, eq=False)
class ArmEstimates:
    """Values of K arms and the terms of their errors.

    Parameters
    ----------
    value : float64[K]
        NaN where the arm's denominators do not sum to more than 0.
    own : float64[units, K]
        What a unit's own outcome adds to the error of each arm, 0 in arms that it has no member in.
    shared : float64[units, K]
        What a unit's covariates add, whatever its arm: their mean is a sample's, too.
    df : float64[K]
        Degrees of freedom of the variance of each arm's own part; below 1 where no error can be stated.
    members : int64[K]
    """

    value: Floats
    own: Floats
    shared: Floats
    df: Floats
    members: Ints

    @property
    def terms(self) -> Floats:
        """The error of each value is about the sum of its column, float64[units, K]."""
        return self.own + self.shared

    @property
    def effective_units(self) -> Floats:
        """Equal terms that each arm's own are worth (Kish): (sum of squares)^2 / sum of fourth powers, float64[K]."""
        square = self.own**2
        fourth = (square**2).sum(axis=0)
        return np.asarray(square.sum(axis=0) ** 2 / np.where(fourth > 0, fourth, np.inf))


def estimate_arms(
    numerator: Floats, denominator: Floats, arm: Ints, n_arms: int, covariates: Floats, unit: Ints, n_units: int
) -> ArmEstimates:
    r"""Estimate a ratio of sums in each arm, each sum adjusted by the arm's own regression on the covariates.

    Parameters
    ----------
    numerator : float64[n]
        Of each member.
    denominator : float64[n]
        >= 0; ones for a mean.
    arm : int64[n]
        0 .. n_arms - 1.
    n_arms : int
    covariates : float64[n, p]
        From before the assignment, centred; p may be 0.
    unit : int64[n]
        What was assigned together or may depend on each other: 0 .. n_units - 1.
    n_units : int
        Units without a member have terms of 0.

    Returns
    -------
    ArmEstimates

    Notes
    -----
    *Value.* With :math:`\bar y_k, \bar z_k` the arm's means, :math:`\bar x_k` that of the covariates and :math:`B_k`
    the slopes of y and z on x within the arm, the adjusted means are :math:`(\bar y_k, \bar z_k) - \bar x_k B_k` (Lin,
    2013, "Agnostic notes on regression adjustments to experimental data", Annals of Applied Statistics 7: the
    regression on arm, covariates and their products) and the value is their ratio :math:`R_k`. It is consistent
    whatever the true regression. With pre-periods of y and z as the covariates, this is to first order CUPED for ratio
    metrics (Deng, Xu, Kohavi and Walker, 2013, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data", WSDM): the linearised metric :math:`(y - R_k z) / \bar z_k` less its best linear
    prediction, theta of each arm its own.

    *Terms.* With :math:`S_k` the arm's sum of squares of the covariates, member i of it adds
    :math:`r_i (1 / n_k - \bar x_k S_k^{-1} (x_i - \bar x_k))`, r its residual of the linearised metric, and every
    member :math:`x_i B_k / n` for the mean of the covariates (Deng, Knoblich and Lu, 2018, "Applying the delta method
    in metric analytics", KDD, for the ratio). Terms are summed by unit, so that the sum of their squares is a variance
    that is robust to dependence within units.

    *Few units.* A unit pulls the regression towards itself by its leverage h: its share of the arm's denominators, and
    :math:`t S_k^{-1} t / m`, t the sum of its m members' :math:`x_i - \bar x_k`. Its own term is divided by
    :math:`\sqrt{1 - h}`: HC2 where units are members, so Welch's variance without covariates, and Bell and McCaffrey's
    CR2 (2002, "Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology
    28) in the direction of the unit's sum where they are clusters. The degrees of freedom are
    :math:`(\sum w)^2 / \sum w^2`, less 1 and the covariates' leverages; :math:`w = m (1 - \rho) + m^2 \rho` is
    proportional to a unit's variance when members of it have the intra-class correlation rho, which is estimated by
    moments (after Imbens and Kolesár, 2016, "Robust standard errors in small samples", Review of Economics and
    Statistics 98): clusters of unequal size are worth fewer.

    Examples
    --------
    >>> y, arm = np.array([1.0, 3.0, 2.0, 6.0]), np.array([0, 0, 1, 1])
    >>> made = estimate_arms(y, np.ones(4), arm, 2, np.empty((4, 0)), np.arange(4), 4)
    >>> made.value, (made.terms**2).sum(axis=0)
    (array([2., 4.]), array([1., 4.]))
    """
    n = len(arm)
    value, df = np.full(n_arms, np.nan), np.zeros(n_arms)
    own, shared = np.zeros((n_units, n_arms), order="F"), np.zeros((n_units, n_arms), order="F")
    outcome = np.stack([numerator, denominator])
    known = np.ascontiguousarray(covariates.T)
    spread = np.sqrt((known**2).sum(axis=1))
    known = known[spread > 0] / spread[spread > 0, None]
    for k in range(n_arms):
        rows = np.flatnonzero(arm == k)
        of_arm = outcome[:, rows]
        mean = of_arm.mean(axis=1) if len(rows) else np.zeros(2)
        if mean[1] <= 0:
            continue
        x, y = known[:, rows], of_arm - mean[:, None]
        centre = x.mean(axis=1)
        x = x - centre[:, None]
        inverse = _inverse(x @ x.T)
        slope = y @ x.T @ inverse
        adjusted = mean - slope @ centre
        if adjusted[1] <= 0:
            continue
        value[k] = adjusted[0] / adjusted[1]
        linear = np.array([1.0, -value[k]]) / adjusted[1]
        residual = linear @ (y - slope @ x)
        of_unit = unit[rows]
        size = np.bincount(of_unit, minlength=n_units)
        together = np.array([np.bincount(of_unit, each, n_units) for each in x]).reshape(-1, n_units)
        pull = (inverse @ together * together).sum(axis=0) / np.maximum(size, 1)
        leverage = np.bincount(of_unit, of_arm[1], n_units) / of_arm[1].sum() + pull
        own[:, k] = np.bincount(of_unit, residual * (1.0 / len(rows) - inverse @ centre @ x), n_units)
        own[:, k] /= np.sqrt(np.maximum(1.0 - leverage, _LEAST))
        df[k] = _equal_units(residual, of_unit, size) - 1.0 - pull.sum()
        if len(known):
            shared[:, k] = np.bincount(unit, linear @ slope @ known, n_units) / n
    return ArmEstimates(value, own, shared, df, np.bincount(arm, minlength=n_arms))


def _inverse(square: Floats) -> Floats:
    """Return the pseudo-inverse of a positive matrix: covariates that others explain do not count."""
    values, vectors = np.linalg.eigh(square)
    kept = values > _COLLINEAR * values.max(initial=0.0)
    return np.asarray(vectors[:, kept] / values[kept] @ vectors[:, kept].T)


def _equal_units(residual: Floats, unit: Ints, size: Ints) -> float:
    """Return how many units of equal variance the units of an arm are worth."""
    pairs = float((size * (size - 1)).sum())
    correlation = 0.0
    if pairs > 0 and residual.any():
        square = float(residual @ residual)
        together = np.bincount(unit, residual)
        correlation = float(np.clip((together @ together - square) / (square / len(residual) * pairs), 0.0, 1.0))
    variance = size * (1.0 - correlation) + size**2 * correlation
    return float(variance.sum() ** 2 / (variance @ variance))
