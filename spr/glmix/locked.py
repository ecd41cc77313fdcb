"""A fixed effect that stays as it is while the random effects are fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csc_matrix

    from spr.glmix.fixed import FittedLinear, FittedTrees

    Floats = NDArray[np.float64]


class LockedFixed:
    """A fitted fixed effect in a descent that does not move it.

    Parameters
    ----------
    fitted : FittedTrees or FittedLinear
    rows : float32 array or sparse matrix of (n, d)
    """

    def __init__(self, fitted: FittedTrees | FittedLinear, rows: NDArray[np.float32] | csc_matrix) -> None:
        self._fitted = fitted
        self.margin: Floats = fitted.margin(rows)  # type: ignore[arg-type]  # sparse rows come with a linear effect
        self.margin_for_effects = self.margin

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:  # noqa: ARG002 - the descent's protocol
        """Do nothing."""
        return "locked"

    def shift_intercept(self, delta: float) -> None:
        """Do nothing."""

    def finish(self) -> str:
        """Do nothing."""
        return ""

    def fitted(self) -> FittedTrees | FittedLinear:
        """Return what was given."""
        return self._fitted
