"""ONNX networks as first-pass rankers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from first_pass.adapters.features import choose_features
from first_pass.contract import PairRanker
from first_pass.errors import InvalidRanker, MissingDependency, UnknownName, name_unknown
from first_pass.pairs import numeric_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import ArrayLike

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class OnnxRanker(PairRanker):
    """An ONNX network: an ``onnxruntime.InferenceSession``, or the path of an .onnx file.

    The network has either one input of shape (n, number of features), or one input of shape (n, 1) per
    feature, by name. Needs the extra ``spr[onnx]``.

    Parameters
    ----------
    model : InferenceSession, str or Path
        A path is opened on one thread of the CPU; make a session for anything else.
    entity_type, version : str
    features : sequence of str, optional
        Needed for the single input; by default the names of the inputs where there are several.
    output : str, optional
        The output that holds raw scores; by default the last. Of two columns the second is taken, the
        probability of a classifier's positive class.
    accepts_null : bool, default False
        Whether the network takes NaN. Otherwise a row with a null is not scorable.

    Raises
    ------
    MissingDependency
        When onnxruntime is not installed and a path is given.
    InvalidRanker, UnknownName
        When the features or the output do not fit the network.

    Examples
    --------
    >>> import onnxruntime, pandas as pd
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy")
    >>> twice = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [x], [y])
    >>> network = helper.make_model(twice, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    >>> session = onnxruntime.InferenceSession(network.SerializeToString())
    >>> ranker = OnnxRanker(session, entity_type="people", version="pymk-7", features=["common_friends"])
    >>> ranker.raw_scores({}, pd.DataFrame({"common_friends": [1.0, 3.0]}))
    array([2., 6.])
    """

    def __init__(
        self,
        model: Any,
        *,
        entity_type: str,
        version: str,
        features: Sequence[str] | None = None,
        output: str | None = None,
        accepts_null: bool = False,
    ) -> None:
        name = f"OnnxRanker {version!r}"
        self._session = model if hasattr(model, "get_inputs") else _open_session(model)
        self._inputs = {each.name: each.type for each in self._session.get_inputs()}
        single = len(self._inputs) == 1
        width = self._session.get_inputs()[0].shape[-1]
        n_features = width if single and isinstance(width, int) else None
        chosen = choose_features(features, None if single else list(self._inputs), n_features, name)
        super().__init__(entity_type=entity_type, version=version, features=chosen)
        self.accepts_null = accepts_null
        outputs = {each.name: each.type for each in self._session.get_outputs()}
        if output is not None and output not in outputs:
            raise UnknownName(name_unknown("output", output, outputs, where=name))
        self._output = output if output is not None else list(outputs)[-1]
        if not outputs[self._output].startswith("tensor"):
            raise InvalidRanker(
                f"{name}: output {self._output!r} is {outputs[self._output]}, allowed: a tensor; "
                "with skl2onnx convert with options={'zipmap': False}"
            )

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        float (n,) or (n, 1)
        """
        if len(self._inputs) == 1:
            feeds = {name: self._tensor(pairs, kind) for name, kind in self._inputs.items()}
        else:
            feeds = {name: self._tensor(pairs[[name]], kind) for name, kind in self._inputs.items()}
        predicted = np.asarray(self._session.run([self._output], feeds)[0])
        return predicted[:, 1] if predicted.shape[1:] == (2,) else predicted

    def _tensor(self, columns: pd.DataFrame, kind: str) -> Any:
        if kind == "tensor(string)":
            return columns.astype(object).to_numpy()
        return numeric_matrix(columns, self._name).astype(_DTYPES.get(kind, np.float32))


def _open_session(path: str | Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            f"OnnxRanker: {path} needs onnxruntime, which is not installed; run: pip install 'spr[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
