"""What stands above a cohort of a shuffled page, and what the shuffle alone puts there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
import pandas as pd

from spr.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_LARGEST, _ROUNDS, _HALVINGS = 20.0, 100, 30


@dataclass(frozen=True, slots=True, eq=False)
class Arrangements:
    """The cohorts of shuffled pages and what stands above each; C cohorts, T types.

    Parameters
    ----------
    types : tuple of str, length T
        Those on the pages, sorted.
    type_code : int64[C]
        Index of each cohort's own type.
    others : int64[C, T]
        Other cohorts of each type on the page.
    above : int64[C, T]
        Of these, those that stand above.
    count : float64[C]
        Sum of the label over the cohort's entities; NaN while one of them is open.
    page, viewer : int64[C]
        Numbers, from 0.
    """

    types: tuple[str, ...]
    type_code: Ints
    others: Ints
    above: Ints
    count: Floats
    page: Ints
    viewer: Ints

    @property
    def place(self) -> Ints:
        """Number of cohorts above each, int64[C]."""
        return np.asarray(self.above.sum(axis=1))


def read_arrangements(rows: pd.DataFrame, type_of: Mapping[str, str], label: str) -> Arrangements:
    """Count what stands above each cohort of the random policy's pages.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`spr.tables.read_impressions`.
    type_of : mapping of str to str
        What to call each entity type: itself, or its edge type.
    label : {"response", "downstream"}
        Summed over the entities of a cohort.

    Returns
    -------
    Arrangements
        Without cohorts that have no scorable entity: they are not shuffled.

    Raises
    ------
    TableError
        Where no page of the policy "random" has two cohorts, or no label on them is known.
    """
    random = rows[rows["policy"] == "random"]
    cohorts = random.groupby(["request_id", "position"], sort=True).agg(
        viewer_id=("viewer_id", "first"),
        entity_type=("entity_type", "first"),
        scorable=("raw_score", "count"),
        known=(label, "count"),
        size=(label, "size"),
        count=(label, "sum"),
    )
    cohorts = cohorts[cohorts["scorable"] > 0]
    page = pd.factorize(cohorts.index.get_level_values("request_id"))[0]
    if not (np.bincount(page, minlength=1) > 1).any():
        raise TableError("impressions: no page of policy 'random' has two cohorts, so nothing is known to be shuffled")
    known = (cohorts["known"] == cohorts["size"]).to_numpy()
    if not known.any():
        raise TableError(f"impressions: {label} is null on all pages of policy 'random'; none is mature yet")
    code, types = pd.factorize(cohorts["entity_type"].map(type_of), sort=True)
    of_type = np.eye(len(types), dtype=np.int64)[code]
    so_far = of_type.cumsum(axis=0) - of_type
    first = np.flatnonzero(np.diff(page, prepend=-1))
    on_page = np.add.reduceat(of_type, first, axis=0)
    return Arrangements(
        tuple(map(str, types)),
        code.astype(np.int64),
        on_page[page] - of_type,
        so_far - so_far[first][page],
        np.where(known, cohorts["count"].to_numpy(dtype=np.float64), np.nan),
        page.astype(np.int64),
        pd.factorize(cohorts["viewer_id"])[0].astype(np.int64),
    )


def fit_weights(observed: Floats, others: Ints, place: Ints, mass: Floats) -> tuple[Floats, Floats, Floats]:
    """Find the log weights under which the shuffle puts above, in sum, what was observed there.

    Parameters
    ----------
    observed : float64[T]
        Sum of what stood above, each cohort times its label.
    others : int64[n, T]
        Other cohorts of each type on the page.
    place : int64[n]
        How many of them stand above.
    mass : float64[n]
        Of the labels of cohorts on such a page, at that place.

    Returns
    -------
    log_weight : float64[T]
        Where observed' w - sum of mass log E[exp(w' X)], which is concave, is highest; 0 on average over the types, and
        in what the shuffle does not vary. Large where there is no maximum, since all labels are on one side.
    at_zero, information : float64[T, T]
        Minus the second derivative without weights, and with these.
    """
    log_weight = np.zeros(len(observed))
    _, mean, covariance = weighted_shuffle(others, place, log_weight)
    at_zero = information = np.einsum("s,sij->ij", mass, covariance)
    basis, height = varying(at_zero), 0.0
    for _ in range(_ROUNDS):
        gradient = observed - mass @ mean
        step = basis @ np.linalg.lstsq(basis.T @ information @ basis, basis.T @ gradient, rcond=None)[0]
        step /= max(1.0, float(np.abs(step).max(initial=0.0)))
        if step @ gradient < 1e-12 * mass.sum() or np.abs(log_weight).max() > _LARGEST:
            break
        for _ in range(_HALVINGS):
            log_mean, mean, covariance = weighted_shuffle(others, place, log_weight + step)
            reached = float(observed @ (log_weight + step) - mass @ log_mean)
            if reached >= height:
                break
            step /= 2.0
        log_weight, height = log_weight + step, reached
        information = np.einsum("s,sij->ij", mass, covariance)
    return log_weight, at_zero, information


def varying(information: Floats) -> Floats:
    """Return an orthonormal basis, float64[T, rank], of the contrasts between types that the shuffle varies."""
    values, vectors = np.linalg.eigh(information)
    return np.asarray(vectors[:, values > 1e-9 * max(float(values[-1]), 1e-300)])


@numba.njit(cache=True, nogil=True)
def weighted_shuffle(others: Ints, place: Ints, log_weight: Floats) -> tuple[Floats, Floats, Floats]:
    r"""Moments of what a shuffle puts above a cohort, each arrangement weighed by the product of its cohorts' weights.

    Parameters
    ----------
    others : int64[n, T]
        Other cohorts of each type on the page.
    place : int64[n]
        How many of them stand above.
    log_weight : float64[T]
        Of one cohort of each type above; 0 everywhere: the shuffle alone.

    Returns
    -------
    log_mean : float64[n]
        :math:`\log E[\exp(w' X)]` for the number X of cohorts of each type above, under the shuffle.
    mean : float64[n, T]
        :math:`E[X \exp(w' X)] / E[\exp(w' X)]`.
    covariance : float64[n, T, T]
        Of X under the same weights.

    Notes
    -----
    The X of an unweighted shuffle are multivariate hypergeometric, and weighed they are Fisher's noncentral
    multivariate hypergeometric. Cohorts are added one by one: the k-th is among the j above with probability j / k, so
    that :math:`E_k[j] = (1 - j/k) E_{k-1}[j] + (j/k) e^{w_t} E_{k-1}[j - 1]`, and the first and second derivatives by
    w go along. Every term is positive: nothing cancels, and being expectations they neither overflow (the recursion of
    Gail, Lubin and Rubinstein 1981, "Likelihood calculations for matched case-control studies", Biometrika 68, in terms
    of means in place of sums).

    Examples
    --------
    Two of three others stand above; without weights, two thirds of each type do:

    >>> log_mean, mean, _ = weighted_shuffle(np.array([[2, 1]]), np.array([2]), np.zeros(2))
    >>> log_mean, mean.round(3)
    (array([0.]), array([[1.333, 0.667]]))

    A weight of 3 for the second type; the arrangements {1, 1}, {1, 2}, {1, 2} weigh 1, 3, 3:

    >>> weighted_shuffle(np.array([[2, 1]]), np.array([2]), np.log([1.0, 3.0]))[1].round(3)
    array([[1.143, 0.857]])
    """
    n, size = others.shape
    log_mean, mean, covariance = np.empty(n), np.empty((n, size)), np.empty((n, size, size))
    for i in range(n):
        top = place[i]
        value, slope, curve = np.zeros(top + 1), np.zeros((top + 1, size)), np.zeros((top + 1, size, size))
        value[0], k = 1.0, 0
        for t in range(size):
            for _ in range(others[i, t]):
                k += 1
                for j in range(min(k, top), 0, -1):
                    inside = j / k * np.exp(log_weight[t])
                    outside = 1.0 - j / k
                    for b in range(size):
                        for c in range(size):
                            added = curve[j - 1, b, c]
                            if b == t:
                                added += slope[j - 1, c]
                            if c == t:
                                added += slope[j - 1, b]
                            if b == t and c == t:
                                added += value[j - 1]
                            curve[j, b, c] = outside * curve[j, b, c] + inside * added
                    for b in range(size):
                        added = slope[j - 1, b] + (value[j - 1] if b == t else 0.0)
                        slope[j, b] = outside * slope[j, b] + inside * added
                    value[j] = outside * value[j] + inside * value[j - 1]
        log_mean[i] = np.log(value[top])
        mean[i] = slope[top] / value[top]
        for b in range(size):
            for c in range(size):
                covariance[i, b, c] = curve[top, b, c] / value[top] - mean[i, b] * mean[i, c]
    return log_mean, mean, covariance
