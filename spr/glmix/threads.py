"""Work in chunks over threads; the chunks, and so the results, do not depend on how many there are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# a fixed number, not one per thread: the order of summation must not depend on the threads
N_CHUNKS = 64


def over_chunks(work: Callable[[int], None], n_chunks: int, n_threads: int) -> None:
    """Call ``work(chunk)`` for each chunk; `work` writes only to places of its own and lets go of the lock.

    Examples
    --------
    >>> done = [0] * 5
    >>> over_chunks(lambda chunk: done.__setitem__(chunk, chunk + 1), 5, n_threads=2)
    >>> done
    [1, 2, 3, 4, 5]
    """
    if n_threads == 1:
        for chunk in range(n_chunks):
            work(chunk)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(n_chunks)))
