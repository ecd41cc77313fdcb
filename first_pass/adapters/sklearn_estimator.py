"""scikit-learn estimators as first-pass rankers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from first_pass.adapters.features import choose_features
from first_pass.contract import PairRanker
from first_pass.errors import InvalidRanker
from first_pass.pairs import numeric_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

_METHODS = ("decision_function", "predict_proba", "predict")


class SklearnRanker(PairRanker):
    """Any fitted estimator with scikit-learn's methods: logistic regression, MLP, regressor, pipeline.

    Parameters
    ----------
    model : estimator
    entity_type, version : str
    features : sequence of str, optional
        By default those the estimator was fitted on; needed when that was an array without names.
    method : {"decision_function", "predict_proba", "predict"}, optional
        Where raw scores come from; by default the first of these that the estimator has. Of
        ``predict_proba`` it is the second class's probability.
    accepts_null : bool, optional
        Whether the estimator takes nulls. By default what the estimator says of itself, which a pipeline
        with an imputer does not say: give True there. Otherwise a row with a null is not scorable.

    Raises
    ------
    InvalidRanker
        When the features do not fit the model, or it lacks the method.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0]}), [0, 0, 1, 1]
    >>> ranker = SklearnRanker(LogisticRegression().fit(X, y), entity_type="group", version="groups-3")
    >>> ranker.raw_scores({}, pd.DataFrame({"size": [1.0, 4.0, None]})).round(2)
    array([-1.44,  1.44,   nan])
    """

    def __init__(
        self,
        model: Any,
        *,
        entity_type: str,
        version: str,
        features: Sequence[str] | None = None,
        method: str | None = None,
        accepts_null: bool | None = None,
    ) -> None:
        name = f"SklearnRanker {version!r}"
        self._model = model
        own = getattr(model, "feature_names_in_", None)
        chosen = choose_features(
            features, None if own is None else list(own), getattr(model, "n_features_in_", None), name
        )
        super().__init__(entity_type=entity_type, version=version, features=chosen)
        self._has_names = own is not None
        candidates = [each for each in _METHODS if hasattr(model, each)]
        if not candidates or (method is not None and method not in candidates):
            raise InvalidRanker(
                f"{name}: {type(model).__name__} has {', '.join(candidates) or 'no method that predicts'}, "
                f"asked for {method or 'any'}; allowed: {', '.join(_METHODS)}"
            )
        self._method = method or candidates[0]
        self.accepts_null = _takes_null(model) if accepts_null is None else accepts_null

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        float64 (n,)
        """
        X = pairs if self._has_names else numeric_matrix(pairs, self._name)
        predicted = np.asarray(getattr(self._model, self._method)(X))
        two_classes = self._method == "predict_proba" and predicted.shape[1:] == (2,)
        return predicted[:, 1] if two_classes else predicted


def _takes_null(model: Any) -> bool:
    if hasattr(model, "__sklearn_tags__"):  # scikit-learn >= 1.6
        return bool(model.__sklearn_tags__().input_tags.allow_nan)
    return bool(model._get_tags()["allow_nan"]) if hasattr(model, "_get_tags") else False
