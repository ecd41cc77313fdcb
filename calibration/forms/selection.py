"""Which form of curve? The best by cross-validated loss, where a bolder form must win by more than chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.binned import BinnedResponses
    from calibration.forms.form import CurveForm

    Floats = NDArray[np.float64]

N_FOLDS = 5


def choose_form(binned: BinnedResponses, forms: list[CurveForm]) -> CurveForm:
    """Return the form with the lowest cross-validated loss.

    Parameters
    ----------
    binned : BinnedResponses
        m bins.
    forms : list of CurveForm
        At least one, of one response family, the tamest first: a later one must beat the best before it by
        more than one standard error of the difference.

    Returns
    -------
    CurveForm

    Notes
    -----
    A fold is every fifth bin. Whole bins keep tied rows together, and make the choice independent of the
    order of the rows, of weights written as repeated rows and, for rank-only curves, of distortions.
    """
    if len(forms) == 1 or binned.responses.size < 2:
        return forms[0]
    best, best_loss = forms[0], cross_validated_loss(binned, forms[0])
    for form in forms[1:]:
        loss = cross_validated_loss(binned, form)
        gain = best_loss - loss
        if gain.sum() > np.sqrt(gain.size) * gain.std():
            best, best_loss = form, loss
    return best


def cross_validated_loss(binned: BinnedResponses, form: CurveForm) -> Floats:
    """Return each bin's loss under the curve fitted without its fold.

    Parameters
    ----------
    binned : BinnedResponses
        m bins, at least two.
    form : CurveForm

    Returns
    -------
    float64[m]
    """
    fold = np.arange(binned.responses.size) % N_FOLDS
    loss = np.zeros(fold.size)
    for number in range(min(N_FOLDS, fold.size)):
        held_out = fold == number
        eta = form.family.link(form.fit(binned.only(~held_out))[held_out])
        loss[held_out] = form.family.loss(eta, binned.responses[held_out], binned.exposure[held_out])
    return loss
