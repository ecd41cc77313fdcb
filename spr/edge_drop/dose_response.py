"""Dose and response: what a viewer loses as a share of its edges is dropped, by regression with robust errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from statsmodels.stats.sandwich_covariance import S_crosssection

from spr.errors import InvalidExperiment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.edge_drop.table import EdgeDropRows

    Floats = NDArray[np.float64]

Form = Literal["concave", "linear", "quadratic"]

# Networks whose content saturates lie between a logarithm (0) and a straight line (1).
_LEAST_CURVATURE, _MOST_CURVATURE = 0.05, 1.0
PRIOR_CURVATURE, PRIOR_SD = 0.5, 0.5
_LEAST_FREE = 20


@dataclass(frozen=True)
class DoseResponse:
    """A fitted curve of loss in dose for each edge type.

    Parameters
    ----------
    loss : float64[T]
        Metric lost per viewer and unit of dose, at dose 0 of all edge types: the slope there.
    influence : float64[n, T]
        Of each viewer on ``loss``: the covariance of ``loss`` is that of the mean of these, see :func:`covariance_of`.
    form : str
        ``"concave"``, ``"linear"`` or ``"quadratic"``.
    curvature, curvature_error : float
        The exponent of the remaining share, common to all edge types, and its standard error; 1 is a straight line.
        NaN of a quadratic.
    prior_error : float64[T]
        What an error of one standard deviation in the curvature's prior does to ``loss``; its square is to be added to
        the variance. 0 where the form has no prior.
    residual : float64[n]
    design : float64[n, k]
        Columns of the regression at the solution.
    """

    loss: Floats
    influence: Floats
    form: Form
    curvature: float
    curvature_error: float
    prior_error: Floats
    residual: Floats
    design: Floats


def fit_dose_response(rows: EdgeDropRows, form: Form = "concave") -> DoseResponse:
    r"""Regress the metric on the doses of all edge types together.

    Parameters
    ----------
    rows : EdgeDropRows
        n viewers, T edge types.
    form : {"concave", "linear", "quadratic"}, default "concave"
        ``concave``: the loss is a power of the remaining share with one exponent for all types; ``linear``: the
        exponent is 1; ``quadratic``: a slope and a square for each type.

    Returns
    -------
    DoseResponse

    Raises
    ------
    InvalidExperiment
        When two edge types were always dropped together, so that their losses cannot be told apart.

    Notes
    -----
    With dose :math:`d_{it}` and centred covariates :math:`x_i`,

    .. math:: E[y_i] = \alpha_{s(i)} + x_i'\beta - \sum_t \phi_\gamma(d_{it}) (\tau_t + x_i'\delta_t),
              \qquad \phi_\gamma(d) = (1 - (1 - d)^\gamma) / \gamma,

    where :math:`\alpha_s` is the level of a stratum. Since :math:`\phi_\gamma'(0) = 1`, :math:`\tau_t` is the slope of
    the loss at dose 0. Content that grows as a power :math:`\gamma` of the number of edges gives this curve exactly;
    one exponent for all types costs little variance, and cancels from the ratio of two types that had the same doses.
    The exponent is the mode under a wide normal prior (mean 0.5, sd 0.5), cut to [0.05, 1]; at a bound the errors still
    count it as free, and they count the prior's own error. Covariates enter as
    deviations and interact with the dose (Lin, 2013, "Agnostic notes on regression adjustments", Annals of Applied
    Statistics 7), so that the adjustment (CUPED: Deng et al., WSDM 2013) cannot bias the average loss. Where no type
    has two different doses above 0, the exponent is not identified and the form is linear up to that dose.
    """
    several = any(len(np.unique(dose[dose > 0])) > 1 for dose in rows.dropped.T)
    form = form if several else "linear"
    if form != "concave":
        return _solve_known(rows, form)
    levels, curvature = _levels(rows), PRIOR_CURVATURE
    for _ in range(30):
        moved = float(np.clip(curvature + _At(rows, levels, curvature).step, _LEAST_CURVATURE, _MOST_CURVATURE))
        if abs(moved - curvature) < 1e-6:
            break
        curvature = moved
    return _solve_concave(rows, _At(rows, levels, moved))


def covariance_of(influence: Floats, cluster: NDArray[np.int64] | None = None) -> Floats:
    """Return the robust covariance of estimates from the influence of each viewer on them.

    Parameters
    ----------
    influence : float64[n, q]
        Mean 0; an estimate's error is about the mean of its column.
    cluster : int64[n], optional
        Viewers of one cluster may depend on each other.

    Returns
    -------
    float64[q, q]
        White's (HC1 without the degrees of freedom of the regression, which ``influence`` already holds), or summed by
        cluster and scaled by G / (G - 1) for G clusters.
    """
    n = len(influence)
    if cluster is None:
        return np.asarray(influence.T @ influence) / n**2
    n_clusters = len(np.unique(cluster))
    if n_clusters < 2:
        raise InvalidExperiment("all viewers are in one cluster; at least two are needed for an error")
    return np.asarray(S_crosssection(influence, cluster)) / n**2 * n_clusters / (n_clusters - 1)


def power_loss(dose: Floats, curvature: float) -> Floats:
    """Return the loss of a share of edges, relative to its slope at 0: ``(1 - (1 - dose)^c) / c``.

    Parameters
    ----------
    dose : float64[...]
        In [0, 1].
    curvature : float
        c > 0.

    Returns
    -------
    float64[...]

    Examples
    --------
    >>> power_loss(np.array([0.0, 0.5, 1.0]), 0.5)
    array([0.        , 0.58578644, 2.        ])
    """
    return np.asarray((1.0 - (1.0 - dose) ** curvature) / curvature)


def power_loss_slope(dose: Floats, curvature: float) -> Floats:
    """Return the derivative of :func:`power_loss` in the curvature.

    Parameters
    ----------
    dose : float64[...]
        In [0, 1].
    curvature : float
        Above 0.

    Returns
    -------
    float64[...]
    """
    left = 1.0 - dose
    power = left**curvature
    log_left = np.log(np.where(left > 0, left, 1.0))
    return np.asarray(-(power * log_left * curvature + 1.0 - power) / curvature**2)


def _levels(rows: EdgeDropRows) -> Floats:
    """Return the columns that hold whatever the dose: a constant, the strata, other types' doses, the covariates."""
    columns = [np.ones((rows.n, 1))]
    if rows.stratum is not None and rows.stratum.max() > 0:
        strata = np.eye(rows.stratum.max() + 1)[rows.stratum][:, 1:]
        columns.append(strata)
    # Doses of types that are not valued: their viewers lost something, and are no controls.
    other = rows.other_dropped[:, rows.other_dropped.any(axis=0)]
    return np.hstack([*columns, other, other**2, rows.covariates])


def _losses(rows: EdgeDropRows, amount: Floats) -> Floats:
    """Return what the amounts lost take away: themselves, then their products with each covariate, all negative."""
    return np.hstack([-amount, *(-amount * x[:, None] for x in rows.covariates.T)])


def _least_squares(rows: EdgeDropRows, design: Floats, start: int, size: int) -> tuple[Floats, Floats]:
    """Solve for the coefficients; give also the pseudo-inverse of the Gram matrix, and refuse what is confounded."""
    if rows.n - design.shape[1] < _LEAST_FREE:
        raise InvalidExperiment(
            f"{rows.n:,} viewers for a regression of {design.shape[1]} columns; at least {_LEAST_FREE} more viewers "
            "than columns are needed: take fewer edge types, covariates or strata"
        )
    scale = np.sqrt((design**2).mean(axis=0))
    scale[scale == 0] = 1.0
    scaled = design / scale
    gram = scaled.T @ scaled
    inverse = np.linalg.pinv(gram, rcond=1e-10, hermitian=True)
    told_apart = np.diag(inverse @ gram)[start : start + size]
    if (told_apart < 1.0 - 1e-6).any():
        names = [t for t, apart in zip(rows.edge_types * 2, told_apart, strict=False) if apart < 1.0 - 1e-6]
        raise InvalidExperiment(
            f"the losses of {', '.join(dict.fromkeys(names))} cannot be told apart: their doses move together, or with "
            "the strata or covariates"
        )
    return (inverse @ (scaled.T @ rows.outcome)) / scale, inverse / np.outer(scale, scale)


class _At:
    """The regression at one curvature, and what it says of the curvature."""

    def __init__(self, rows: EdgeDropRows, levels: Floats, curvature: float) -> None:
        self.curvature, self.start = curvature, levels.shape[1]
        self.design = np.hstack([levels, _losses(rows, power_loss(rows.dropped, curvature))])
        self.coefficient, inverse = _least_squares(rows, self.design, self.start, len(rows.edge_types))
        self.residual = rows.outcome - self.design @ self.coefficient
        # How the fitted values turn with the curvature, and what of it no other coefficient can follow.
        self.turn = _losses(rows, power_loss_slope(rows.dropped, curvature)) @ self.coefficient[self.start :]
        self.free = self.turn - self.design @ (inverse @ (self.design.T @ self.turn))
        # The variance of the residuals as the curvature meets them, so that its prior weighs what it should.
        met = covariance_of((self.free * self.residual)[:, None], rows.cluster)[0, 0] * rows.n**2
        self.noise = float(met / max(self.free @ self.free, 1e-300))

    @property
    def step(self) -> float:
        """The Gauss-Newton step of the curvature, its prior included."""
        precision = self.noise / PRIOR_SD**2
        information = self.free @ self.free + precision
        if information <= 0:
            return 0.0
        return float((self.free @ self.residual + precision * (PRIOR_CURVATURE - self.curvature)) / information)


def _solve_concave(rows: EdgeDropRows, at: _At) -> DoseResponse:
    size, start = len(rows.edge_types), at.start
    full = np.column_stack([at.design, at.turn])
    scale = np.sqrt((full**2).mean(axis=0))
    scale[scale == 0] = 1.0
    gram = full.T @ full
    gram[-1, -1] += at.noise / PRIOR_SD**2
    bread = np.linalg.pinv(gram / np.outer(scale, scale), rcond=1e-12, hermitian=True) / np.outer(scale, scale)
    prior_error = bread[:, -1] * at.noise / PRIOR_SD
    influence = _influence(full, bread, at.residual)
    error = np.hypot(np.sqrt(covariance_of(influence[:, -1:], rows.cluster)[0, 0]), prior_error[-1])
    return DoseResponse(
        loss=at.coefficient[start : start + size],
        influence=_at_the_mean(rows, influence[:, start:], at.coefficient[start:], size),
        form="concave",
        curvature=at.curvature,
        curvature_error=float(error),
        prior_error=prior_error[start : start + size],
        residual=at.residual,
        design=full,
    )


def _solve_known(rows: EdgeDropRows, form: Form) -> DoseResponse:
    """Solve a form whose curve has no parameter of its own: slopes, or slopes and squares."""
    size, levels = len(rows.edge_types), _levels(rows)
    amount = rows.dropped if form == "linear" else np.hstack([rows.dropped, rows.dropped**2])
    design, start = np.hstack([levels, _losses(rows, amount)]), levels.shape[1]
    coefficient, inverse = _least_squares(rows, design, start, amount.shape[1])
    residual = rows.outcome - design @ coefficient
    influence = _influence(design, inverse, residual)[:, start:]
    return DoseResponse(
        loss=coefficient[start : start + size],
        influence=_at_the_mean(rows, influence, coefficient[start:], amount.shape[1])[:, :size],
        form=form,
        curvature=1.0 if form == "linear" else float("nan"),
        curvature_error=0.0 if form == "linear" else float("nan"),
        prior_error=np.zeros(size),
        residual=residual,
        design=design,
    )


def _influence(design: Floats, bread: Floats, residual: Floats) -> Floats:
    """Return n x coefficients: the effect of each viewer on them, with HC1's degrees of freedom."""
    n, k = design.shape
    return np.asarray(design @ bread * residual[:, None] * (n * np.sqrt(n / (n - k))))


def _at_the_mean(rows: EdgeDropRows, influence: Floats, coefficient: Floats, size: int) -> Floats:
    """Add that the average loss is taken at the mean of covariates which are a sample's, not the population's."""
    moved = influence[:, :size].copy()
    for place, x in enumerate(rows.covariates.T, start=1):
        moved += x[:, None] * coefficient[place * size : (place + 1) * size]
    return moved
