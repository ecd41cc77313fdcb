"""LightGBM models as first-pass rankers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from first_pass.adapters.features import choose_features
from first_pass.contract import PairRanker
from first_pass.pairs import numeric_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


class LightGBMRanker(PairRanker):
    """A LightGBM Booster, or a fitted LGBMClassifier, LGBMRegressor or LGBMRanker.

    Nulls are passed on; trees know what to do with them. A model that stopped early uses its best iteration.

    Parameters
    ----------
    model : Booster or LGBMModel
    entity_type, version : str
    features : sequence of str, optional
        By default those the model was trained on; needed when that was an array without names.
    margin : bool, default True
        Raw scores are margins (log-odds of a classifier); False: what ``predict`` of a Booster gives.

    Raises
    ------
    InvalidRanker
        When the features do not fit the model.

    Examples
    --------
    >>> import lightgbm
    >>> X, y = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0]}), [0, 0, 1, 1]
    >>> model = lightgbm.LGBMClassifier(
    ...     n_estimators=2, min_child_samples=1, min_data_in_bin=1, n_jobs=1, verbose=-1).fit(X, y)
    >>> ranker = LightGBMRanker(model, entity_type="group", version="groups-3")
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
        self._booster = model if hasattr(model, "dump_model") else model.booster_
        names = list(self._booster.feature_name())
        unnamed = names == [f"Column_{i}" for i in range(len(names))]
        chosen = choose_features(features, None if unnamed else names, len(names), f"LightGBMRanker {version!r}")
        super().__init__(entity_type=entity_type, version=version, features=chosen)
        self._margin = margin
        self._categorical = []
        if self._booster.pandas_categorical:
            described = self._booster.dump_model(num_iteration=1)["feature_infos"]
            self._categorical = [name for name in names if described.get(name, {}).get("values")]

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        float64 (n,)
        """
        raw_score: ArrayLike = self._booster.predict(self._encoded(pairs), raw_score=self._margin)
        return raw_score

    def _encoded(self, pairs: pd.DataFrame) -> Any:
        if not self._categorical:
            return numeric_matrix(pairs, self._name)
        numeric = [name for name in pairs.columns if name not in self._categorical]
        matrix = numeric_matrix(pairs[numeric], self._name)
        # LightGBM recodes categories by their names; one that was not in training is a null.
        categories = pairs[self._categorical].astype("category")
        return pd.concat([pd.DataFrame(matrix, columns=numeric), categories], axis=1)[list(self.features)]
