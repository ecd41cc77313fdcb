"""One line that turns a model into a first-pass ranker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from first_pass.adapters.function import FunctionRanker
from first_pass.adapters.lightgbm_model import LightGBMRanker
from first_pass.adapters.onnx_network import OnnxRanker
from first_pass.adapters.precomputed import Precomputed
from first_pass.adapters.sklearn_estimator import SklearnRanker
from first_pass.adapters.statsmodels_results import StatsmodelsRanker
from first_pass.adapters.xgboost_model import XGBoostRanker
from first_pass.errors import InvalidRanker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from first_pass.contract import PairRanker

_BY_LIBRARY: dict[str, Callable[..., PairRanker]] = {
    "xgboost": XGBoostRanker,
    "lightgbm": LightGBMRanker,
    "statsmodels": StatsmodelsRanker,
    "onnxruntime": OnnxRanker,
}


def ranker(model: Any, *, entity_type: str, version: str, features: Sequence[str] | None = None) -> PairRanker:
    """Turn a model into a first-pass ranker, by the library it comes from.

    Parameters
    ----------
    model : object
        An XGBoost, LightGBM or scikit-learn model, statsmodels results, an onnxruntime session or the
        path of an .onnx file, a function of a table of pairs, or a DataFrame of raw scores by viewer_id and
        entity_id. For an adapter's own options make the adapter itself: ``XGBoostRanker(model, margin=False,
        ...)``.
    entity_type : str
        The type of the entities it ranks.
    version : str
        Names this model and its scale, e.g. ``"pymk-7"``.
    features : sequence of str, optional
        What it reads of the viewer and the entities; may be left out where the model remembers it.

    Returns
    -------
    PairRanker
        Meets :class:`first_pass.FirstPassRanker`.

    Raises
    ------
    InvalidRanker
        When no adapter takes the model, or the features do not fit it.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"size": [1.0, 2.0], "age": [3.0, 5.0]})
    >>> people = ranker(LinearRegression().fit(X, [1.0, 2.0]), entity_type="people", version="pymk-7")
    >>> people.raw_scores({"age": 3.0}, pd.DataFrame({"size": [1.0, 6.0]})).round(6)
    array([1., 2.])
    """
    if isinstance(model, pd.DataFrame):
        if features is not None:
            raise InvalidRanker(f"ranker {version!r}: a table of raw scores takes no features")
        return Precomputed(model, entity_type=entity_type, version=version)
    adapter = _adapter_of(model)
    if adapter is FunctionRanker and features is None:
        raise InvalidRanker(f"ranker {version!r}: a function needs features=[...]; it does not say what it reads")
    return adapter(model, entity_type=entity_type, version=version, features=features)


def _adapter_of(model: Any) -> Callable[..., PairRanker]:
    # By the name of the library, since importing a library to ask isinstance would be slow.
    libraries = {parent.__module__.partition(".")[0] for parent in type(model).__mro__}
    for library, adapter in _BY_LIBRARY.items():
        if library in libraries:
            return adapter
    if isinstance(model, str | Path):
        return OnnxRanker
    if any(hasattr(model, method) for method in ("decision_function", "predict_proba", "predict")):
        return SklearnRanker
    if callable(model):
        return FunctionRanker
    raise InvalidRanker(
        f"ranker: no adapter takes a {type(model).__module__}.{type(model).__qualname__}; allowed: an XGBoost, "
        "LightGBM or scikit-learn model, statsmodels results, an ONNX session or path, a function, a DataFrame"
    )
