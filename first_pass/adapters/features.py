"""Which columns a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from first_pass.errors import InvalidRanker

if TYPE_CHECKING:
    from collections.abc import Sequence


def choose_features(
    given: Sequence[str] | None, own: Sequence[str] | None, n_features: int | None, ranker: str
) -> list[str]:
    """Choose the columns a model reads, in the model's order.

    Parameters
    ----------
    given : sequence of str, optional
        What the caller named.
    own : sequence of str, optional
        What the model remembers from its training; None where it remembers no names.
    n_features : int, optional
        How many the model reads; None where it does not say.
    ranker : str
        For the error.

    Returns
    -------
    list of str
        The model's own names where it has them, else those given.

    Raises
    ------
    InvalidRanker
        When neither says, or the two do not fit each other.

    Examples
    --------
    >>> choose_features(["size", "age"], ["age", "size"], 2, "a ranker")
    ['age', 'size']
    """
    if given is None and own is None:
        raise InvalidRanker(
            f"{ranker}: the model does not remember its feature names; give features=[...] in the order of training"
        )
    if given is not None and own is not None and set(given) != set(own):
        raise InvalidRanker(
            f"{ranker}: features is {sorted(given)}, but the model was trained on {sorted(own)}; "
            "leave features out to take the model's own"
        )
    features = list(own if own is not None else given or ())
    if n_features is not None and len(features) != n_features:
        raise InvalidRanker(f"{ranker}: {len(features)} features given, the model reads {n_features}")
    return features
