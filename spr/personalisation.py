"""The margins of the random effects of a batch, and the correction of viewers who have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, ndtri

from spr.errors import InvalidRequest, name_unknown
from spr.glmix.row_kernels import entity_margins
from spr.reorder.random_policy import uniforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spr.batch import CohortBatch
    from spr.features import CohortFeatures
    from spr.glmix import Coefficients
    from spr.page import CohortValues

    GivenCoefficients = Mapping[str, NDArray[np.float32] | None]


def personal_margins(
    batch: CohortBatch,
    matrix: NDArray[np.float32],
    features: CohortFeatures,
    effects: Sequence[Coefficients],
    given: GivenCoefficients,
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Return each random effect's margin.

    Parameters
    ----------
    batch : CohortBatch
        C cohorts.
    matrix : float32[C, columns]
        Of :meth:`CohortFeatures.build`.
    features : CohortFeatures
        Names the matrix's columns and finds the keys.
    effects : sequence of Coefficients
        In the order of the margins.
    given : mapping of str to float32[d] or None
        Coefficients of a resolved request; effects that are not named are looked up by their key.

    Returns
    -------
    margins : dict of str to float64[C]
        Exactly 0 where a key is null or was not in training.
    seen : bool[C]
        Whether the viewer has coefficients in an effect keyed by viewer.

    Raises
    ------
    InvalidRequest
        When given coefficients are of no known effect, of another length, or not finite.
    """
    for name in given:
        if name not in [effect.name for effect in effects]:
            where = f"the coefficients of request {batch.request_id[0]!r}"
            raise InvalidRequest(name_unknown("random effect", name, [effect.name for effect in effects], where))
    margins: dict[str, NDArray[np.float64]] = {}
    seen = np.zeros(batch.n_cohorts, dtype=bool)
    for effect in effects:
        table, found = effect.matrix, np.full(batch.n_cohorts, -1)
        if effect.name not in given:
            found = effect.positions(features.keys(batch, effect.key))
        elif (own := given[effect.name]) is not None:
            table, found = _read_given(own, effect, str(batch.request_id[0])), np.zeros_like(found)
        rows = matrix[:, features.places(effect.features)]
        margins[effect.name] = entity_margins(rows, table, found, effect.intercept)
        if effect.key == "viewer_id":
            seen |= found >= 0
    return margins, seen


def personal_spread(
    batch: CohortBatch, matrix: NDArray[np.float32], features: CohortFeatures, effects: Sequence[Coefficients]
) -> list[NDArray[np.float64]]:
    """Return how far each coefficient of a viewer's random effects may carry the margin.

    Parameters
    ----------
    batch, matrix, features, effects
        As of :func:`personal_margins`; effects with variances.

    Returns
    -------
    list of float64[C, d]
        By effect keyed by viewer: each feature times the posterior standard deviation of its coefficient. A viewer that
        was not in training has the population's second moment, the mean of ``variance + coefficient ** 2``, which
        estimates the prior variance.
    """
    spread = []
    for effect in effects:
        if effect.key == "viewer_id" and effect.variance is not None and len(effect.keys):
            rows = np.nan_to_num(matrix[:, features.places(effect.features)].astype(np.float64))
            if effect.intercept:
                rows = np.hstack([rows, np.ones((len(rows), 1))])
            found = effect.positions(features.keys(batch, effect.key))
            variance = np.where((found >= 0)[:, None], effect.variance[found], effect.second_moment)
            spread.append(rows * np.sqrt(variance))
    return spread


def sample_values(
    values: CohortValues, cohorts: NDArray[np.int64], draws: int, request_id: str, salt: str
) -> NDArray[np.float64]:
    """Return the values of a request's cohorts under draws of the viewer's coefficients from their posterior.

    Parameters
    ----------
    values : CohortValues
        With ``spread``: the posterior of each coefficient is taken as normal, and apart from the others'.
    cohorts : int64[n]
        Of one request.
    draws : int
    request_id, salt : str
        Seed the draws.

    Returns
    -------
    float64[draws, n]
        Probability times importance at each draw's margin.
    """
    width = [spread.shape[1] for spread in values.spread]
    uniform = uniforms(draws * sum(width), request_id, salt, b"coefficients").reshape(draws, sum(width))
    normal = ndtri(np.maximum(uniform, 2.0**-54))  # a draw of exactly 0 is no number of deviations
    shift = np.zeros((draws, len(cohorts)))
    for spread, drawn in zip(values.spread, np.split(normal, np.cumsum(width)[:-1], axis=1), strict=True):
        shift += drawn @ spread[cohorts].T
    return np.asarray(expit(values.margin[cohorts] + shift) * values.importance[cohorts])


def _read_given(own: NDArray[np.float32], effect: Coefficients, request_id: str) -> NDArray[np.float32]:
    wanted = effect.matrix.shape[1]
    own = np.ascontiguousarray(own, dtype=np.float32)
    if own.shape != (wanted,) or not np.isfinite(own).all():
        raise InvalidRequest(
            f"request {request_id!r}: coefficients of {effect.name!r} have shape {own.shape}; "
            f"{wanted} finite numbers are needed"
        )
    return own[None, :]
