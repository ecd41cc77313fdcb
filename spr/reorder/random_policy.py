"""The random policy: which requests get a completely shuffled page, and the shuffle itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

from spr.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHUFFLE_PROPENSITY_KIND: Final = "exact"


def is_random(request_id: str, share: float, salt: str) -> bool:
    """Say whether a request belongs to the random policy.

    Parameters
    ----------
    request_id : str
        One page view. Never the viewer: else most viewers would have no random page, and a few only those.
    share : float
        Part of the requests that is shuffled, in [0, 1].
    salt : str
        The policy's own salt; another salt draws an independent sample of requests.

    Returns
    -------
    bool
        The same in every process, on every machine and under every bundle.

    Raises
    ------
    ConfigError
        A share outside [0, 1].

    Examples
    --------
    >>> [is_random(f"r{i}", 0.05, "spr") for i in range(200)].count(True)
    13
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"share of the random policy is {share}; allowed: 0 to 1")
    return first_uniform(request_id, salt, b"assignment") < share


def shuffled(n: int, request_id: str, salt: str) -> NDArray[np.intp]:
    """Order n cohorts uniformly at random, by a generator seeded from the salt and the request id.

    Parameters
    ----------
    n : int
        Cohorts on the page, >= 0.
    request_id : str
        One page view.
    salt : str
        The policy's own salt.

    Returns
    -------
    int array, shape (n,)
        Indices of the cohorts, top first; independent of whether `is_random` chose the request.

    Raises
    ------
    InvalidRequest
        A negative n.

    Notes
    -----
    Sorting raw PCG64 words is a uniform shuffle (two of 64 bits tie with probability n² / 2⁶⁵). Unlike
    ``Generator.permutation``, whose stream may change, raw words are the same in every numpy version (NEP
    19), so that a logged request replays exactly.

    Examples
    --------
    >>> shuffled(5, "r1", "spr").tolist()
    [0, 1, 4, 3, 2]
    """
    _check_size(n)
    return np.argsort(_words(n, request_id, salt, b"shuffle"), kind="stable")


def shuffle_propensity(n: int) -> NDArray[np.float64]:
    """Probability of each placement of a shuffled page: 1/n, of kind ``SHUFFLE_PROPENSITY_KIND``.

    Parameters
    ----------
    n : int
        Cohorts on the page, >= 0.

    Returns
    -------
    float array, shape (n,)
        Marginal probability of the cohort at its position, given that the request is of the random policy.

    Raises
    ------
    InvalidRequest
        A negative n.

    Examples
    --------
    >>> shuffle_propensity(4)
    array([0.25, 0.25, 0.25, 0.25])
    """
    _check_size(n)
    return np.full(n, 1.0 / max(n, 1))


def first_uniform(request_id: str, salt: str, purpose: bytes) -> float:
    """Return one uniform draw in [0, 1) of a request, by its hash alone."""
    return float((int.from_bytes(_digest(request_id, salt, purpose)[:8], "big") >> 11) * 2.0**-53)


def uniforms(n: int, request_id: str, salt: str, purpose: bytes) -> NDArray[np.float64]:
    """Return n uniform draws in [0, 1) of a request: the same on every machine; each purpose has draws of its own."""
    return (_words(n, request_id, salt, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _words(n: int, request_id: str, salt: str, purpose: bytes) -> NDArray[np.uint64]:
    return np.random.PCG64(int.from_bytes(_digest(request_id, salt, purpose), "big")).random_raw(n)


def _digest(request_id: str, salt: str, purpose: bytes) -> bytes:
    # The salt's length goes first, so that no other split of the same text gives the same digest.
    return hashlib.blake2b(f"{len(salt)}:{salt}{request_id}".encode(), digest_size=16, person=purpose).digest()


def _check_size(n: int) -> None:
    if n < 0:
        raise InvalidRequest(f"a page of {n} cohorts; allowed: 0 or more")
