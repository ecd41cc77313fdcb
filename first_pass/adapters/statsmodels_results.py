"""statsmodels results as first-pass rankers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from first_pass.adapters.features import choose_features
from first_pass.contract import PairRanker
from first_pass.pairs import numeric_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike


class StatsmodelsRanker(PairRanker):
    """What ``fit`` of a statsmodels model returns; raw scores are its ``predict``.

    The column that ``add_constant`` added is added again; it is not a feature. A row with a null is not
    scorable.

    Parameters
    ----------
    model : Results
    entity_type, version : str
    features : sequence of str, optional
        By default the columns of the DataFrame the model was fitted on. Needed for a formula (the
        variables it names) and for an array.

    Raises
    ------
    InvalidRanker
        When the features do not fit the model.

    Examples
    --------
    >>> import pandas as pd
    >>> import statsmodels.api as sm
    >>> X = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0]})
    >>> results = sm.OLS([3.0, 5.0, 7.0, 9.0], sm.add_constant(X)).fit()
    >>> ranker = StatsmodelsRanker(results, entity_type="group", version="groups-3")
    >>> ranker.raw_scores({}, pd.DataFrame({"size": [10.0, None]})).round(6)
    array([21., nan])
    """

    def __init__(self, model: Any, *, entity_type: str, version: str, features: Sequence[str] | None = None) -> None:
        self._results = model
        self._formula = getattr(model.model, "formula", None) is not None
        own: list[str] | None = None
        n_features: int | None = None
        self._constant: tuple[int, float] | None = None
        if not self._formula:
            exog, place = np.asarray(model.model.exog), model.model.data.const_idx
            if place is not None:
                self._constant = (int(place), float(exog[0, place]))
            n_features = exog.shape[1] - (place is not None)
            columns = getattr(model.model.data.orig_exog, "columns", None)
            if columns is not None:
                own = [str(name) for i, name in enumerate(columns) if i != place]
        chosen = choose_features(features, own, n_features, f"StatsmodelsRanker {version!r}")
        super().__init__(entity_type=entity_type, version=version, features=chosen)

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        float64 (n,)
        """
        raw_score: ArrayLike = self._results.predict(pairs if self._formula else self._exog(pairs))
        return raw_score

    def _exog(self, pairs: pd.DataFrame) -> Any:
        exog = numeric_matrix(pairs, self._name)
        return exog if self._constant is None else np.insert(exog, *self._constant, axis=1)
