"""XGBoost models as first-pass rankers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from first_pass.adapters.features import choose_features
from first_pass.contract import PairRanker
from first_pass.errors import InvalidRanker
from first_pass.pairs import numeric_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


class XGBoostRanker(PairRanker):
    """An XGBoost Booster, or a fitted XGBClassifier, XGBRegressor or XGBRanker.

    Nulls are passed on; trees know what to do with them. A model that stopped early uses its best
    iteration where it is a scikit-learn wrapper, and all its trees where it is a Booster, as XGBoost itself
    does. To change the number of threads, set ``nthread`` on the model.

    Parameters
    ----------
    model : Booster or XGBModel
    entity_type, version : str
    features : sequence of str, optional
        By default those the model was trained on; needed when that was an array without names.
    margin : bool, default True
        Raw scores are margins (log-odds of a classifier); False: what ``predict`` of a Booster gives.

    Raises
    ------
    InvalidRanker
        When the features do not fit the model, or its booster is gblinear, which XGBoost cannot evaluate
        in place.

    Examples
    --------
    >>> import xgboost
    >>> X, y = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0]}), [0, 0, 1, 1]
    >>> model = xgboost.XGBClassifier(n_estimators=2, min_child_weight=0.0, n_jobs=1).fit(X, y)
    >>> ranker = XGBoostRanker(model, entity_type="group", version="groups-3")
    >>> small, large = ranker.raw_scores({}, pd.DataFrame({"size": [1.0, 4.0]}))
    >>> bool(small < 0 < large)
    True
    """

    accepts_null = True

    def __init__(
        self,
        model: Any,
        *,
        entity_type: str,
        version: str,
        features: Sequence[str] | None = None,
        margin: bool = True,
    ) -> None:
        self._booster = model.get_booster() if hasattr(model, "get_booster") else model
        name = f"XGBoostRanker {version!r}"
        if json.loads(self._booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear":
            raise InvalidRanker(
                f"{name}: the booster is gblinear, allowed: gbtree, dart; "
                "wrap a function that calls its predict in FunctionRanker"
            )
        own = self._booster.feature_names
        chosen = choose_features(features, own, self._booster.num_features(), name)
        super().__init__(entity_type=entity_type, version=version, features=chosen)
        types = self._booster.feature_types or []
        self._categorical = {name for name, kind in zip(chosen, types, strict=False) if kind == "c"}
        self._best_iteration = getattr(model, "best_iteration", None) if model is not self._booster else None
        self._missing = getattr(model, "missing", np.nan)
        self._margin = margin

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        float32 (n,)
        """
        raw_score: ArrayLike = self._booster.inplace_predict(
            self._encoded(pairs),
            iteration_range=(0, 0 if self._best_iteration is None else self._best_iteration + 1),
            predict_type="margin" if self._margin else "value",
            missing=self._missing,
        )
        return raw_score

    def _encoded(self, pairs: pd.DataFrame) -> Any:
        if not self._categorical:
            return numeric_matrix(pairs, self._name)
        numeric = [name for name in pairs.columns if name not in self._categorical]
        matrix = numeric_matrix(pairs[numeric], self._name)
        # XGBoost recodes categories by their names, so that those of this table need not be those of training.
        categories = pairs.drop(columns=numeric).astype("category")
        return pd.concat([pd.DataFrame(matrix, columns=numeric), categories], axis=1)[list(self.features)]
