"""Any function as a first-pass ranker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from first_pass.contract import PairRanker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike


class FunctionRanker(PairRanker):
    """A function from a table of pairs to raw scores.

    Parameters
    ----------
    model : callable
        Takes a DataFrame with the features, one row per (viewer, entity), and returns a number per row,
        each from its own row alone.
    entity_type, version : str
    features : sequence of str
        The columns it takes.
    accepts_null : bool, default False
        Whether it takes nulls. Otherwise a row with a null is not scorable and not passed on.

    Raises
    ------
    InvalidRanker
        When there are no features.

    Examples
    --------
    >>> import pandas as pd
    >>> ranker = FunctionRanker(lambda pairs: pairs["members"] / pairs["friends"], entity_type="group",
    ...                         version="density-1", features=["members", "friends"])
    >>> ranker.raw_scores({"friends": 4}, pd.DataFrame({"members": [2, 8]}))
    array([0.5, 2. ])
    """

    def __init__(
        self,
        model: Callable[[pd.DataFrame], ArrayLike],
        *,
        entity_type: str,
        version: str,
        features: Sequence[str],
        accepts_null: bool = False,
    ) -> None:
        super().__init__(entity_type=entity_type, version=version, features=features)
        self._function = model
        self.accepts_null = accepts_null

    def predict_pairs(self, pairs: pd.DataFrame) -> ArrayLike:
        """Score each row; see ``PairRanker.predict_pairs``.

        Parameters
        ----------
        pairs : DataFrame, n rows

        Returns
        -------
        array-like (n,)
        """
        return self._function(pairs)
