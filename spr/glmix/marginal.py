"""Small random effects beside a large one that confounds them: steps and variances with the large one integrated out.

Where each instructor teaches in one or two departments, the effects of instructors can take up most of what the
department does. Given the instructors the department looks known almost exactly, and a prior variance learnt from
such a conditional posterior is too small. Here the large effect is profiled out entity by entity (its Hessian is block
diagonal, so this is a Schur complement), which leaves the joint posterior of the small one: Henderson's equations with
the large effect absorbed (Searle, Casella and McCulloch 1992, "Variance Components", section 7.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from spr.glmix.families import derivatives_at
from spr.glmix.kernels import factorise, invert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spr.glmix.effect_descent import EffectDescent
    from spr.glmix.families import Family

    Floats = NDArray[np.float64]
    Positions = NDArray[np.int64]

_LARGEST = 256  # coefficients of a small effect, all entities together: its posterior is one dense matrix
_LONGEST_MOVE = 1.0


class Marginal:
    """Steps of a small effect with a large one integrated out.

    Parameters
    ----------
    small, large : EffectDescent
    """

    def __init__(self, small: EffectDescent, large: EffectDescent) -> None:
        self._small, self._large = small, large
        place = np.full(len(small.codes), -1, dtype=np.int64)
        place[small.order] = np.arange(len(small.order))
        self._place = place[large.order]  # of each row of the large effect among the small one's rows
        self._codes = small.codes[large.order]

    def step(self, family: Family, total: Floats, dispersion: float, *, learn: bool) -> float:
        """Move the small effect and then the large one; return the small one's effective number of parameters."""
        small, large = self._small, self._large
        d, n_keys = len(small.columns), len(small.keys)
        gradient, hessian = np.zeros(n_keys * d), np.zeros((n_keys * d, n_keys * d))
        _absorb(
            family.code,
            large.rows,
            large.starts,
            large.labels,
            large.weights,
            total[large.order],
            large.precision(dispersion),
            large.coefficients,
            small.rows,
            self._codes,
            self._place,
            gradient,
            hessian,
        )
        penalty = np.tile(small.precision(dispersion), n_keys)
        gradient += penalty * small.coefficients.ravel()
        covariance = np.linalg.inv(hessian + np.diag(penalty))
        move = -(covariance @ gradient)
        longest = np.abs(move).max() / (_LONGEST_MOVE * np.sqrt(dispersion))
        move = (move / max(1.0, longest)).reshape(n_keys, d)
        for column in range(d):
            small.move(column, move[:, column], total)
        large.step(family, total, total[:0], dispersion, learn=False)
        root = np.sqrt(penalty)
        shrinkage = np.eye(n_keys * d) - root[:, None] * covariance * root
        shares = np.diag(shrinkage).reshape(n_keys, d)
        if learn and small.learns:
            seen = small.seen
            coupling = (shrinkage**2).reshape(n_keys, d, n_keys, d)[seen][:, :, seen].sum(axis=(0, 2))
            small.learn(np.stack([(small.coefficients[seen] ** 2).sum(axis=0), shares[seen].sum(axis=0)]), coupling)
        return float(shares.sum())


def pair_small_effects(effects: Sequence[EffectDescent]) -> dict[str, Marginal]:
    """Pair each small effect with the larger effect that is nested in its entities most.

    Nestedness is the share of rows that lie in the small entity where most rows of their large entity lie; an effect
    without a larger one beside it stands alone.
    """
    pairs = {}
    for small in effects:
        size = len(small.keys) * len(small.columns)
        if not 0 < size <= _LARGEST or small.remembers:
            continue
        larger = [
            other
            for other in effects
            if len(other.keys) > 2 * len(small.keys) and len(other.keys) * len(other.columns) > size
        ]
        if larger:
            pairs[small.spec.name] = Marginal(small, max(larger, key=lambda other: _nestedness(small, other)))
    return pairs


def _nestedness(small: EffectDescent, large: EffectDescent) -> float:
    known = (small.codes >= 0) & (large.codes >= 0)
    if not known.any():
        return 0.0
    pair = large.codes[known] * len(small.keys) + small.codes[known]
    met, rows = np.unique(pair, return_counts=True)
    most = np.zeros(len(large.keys))
    np.maximum.at(most, met // len(small.keys), rows)
    return float(most.sum() / known.sum())


@numba.njit(cache=True, nogil=True)
def _absorb(
    family: int,
    rows: NDArray[np.float32],
    starts: Positions,
    labels: Floats,
    weights: Floats,
    margins: Floats,
    precision: Floats,
    coefficients: Floats,
    small_rows: NDArray[np.float32],
    small_codes: Positions,
    small_place: Positions,
    gradient: Floats,
    hessian: Floats,
) -> None:
    """Sum gradient and Hessian of the small effect's loss with the large effect (`rows` by `starts`) profiled out."""
    d, e = rows.shape[1], small_rows.shape[1]
    own_gradient, own_hessian, inverse = np.zeros(d), np.zeros((d, d)), np.zeros((d, d))
    n_small = gradient.size // e
    local = np.full(n_small, -1, dtype=np.int64)
    met = np.empty(n_small, dtype=np.int64)
    cross = np.zeros((d, gradient.size))
    for key in range(starts.size - 1):
        own_gradient[:] = 0.0
        own_hessian[:] = 0.0
        n_met = 0
        for row in range(starts[key], starts[key + 1]):
            if weights[row] == 0.0:
                continue
            first, second = derivatives_at(family, labels[row], margins[row])
            first *= weights[row]
            second *= weights[row]
            for i in range(d):
                own_gradient[i] += first * rows[row, i]
                for j in range(i + 1):
                    own_hessian[i, j] += second * rows[row, i] * rows[row, j]
            code = small_codes[row]
            if code < 0:
                continue
            if local[code] < 0:
                local[code] = n_met
                met[n_met] = code
                for i in range(d):
                    for j in range(e):
                        cross[i, n_met * e + j] = 0.0
                n_met += 1
            place, at = small_place[row], local[code]
            for a in range(e):
                x = np.float64(small_rows[place, a])
                gradient[code * e + a] += first * x
                for b in range(e):
                    hessian[code * e + a, code * e + b] += second * x * small_rows[place, b]
                for i in range(d):
                    cross[i, at * e + a] += second * x * rows[row, i]
        if n_met == 0:
            continue
        for i in range(d):
            own_gradient[i] += precision[i] * coefficients[key, i]
            own_hessian[i, i] += precision[i]
        factorise(own_hessian)
        invert(own_hessian, inverse)
        for i in range(d):
            for j in range(i):
                inverse[j, i] = inverse[i, j]
        for m in range(n_met):
            local[met[m]] = -1
        width = n_met * e
        for p in range(width):
            row_of = met[p // e] * e + p % e
            for i in range(d):
                pulled = 0.0
                for j in range(d):
                    pulled += inverse[i, j] * cross[j, p]
                gradient[row_of] -= pulled * own_gradient[i]
                for q in range(width):
                    hessian[row_of, met[q // e] * e + q % e] -= pulled * cross[i, q]
