"""What the benchmarks share: one thread for every library, CPU clocks, made data, small tables.

Import it before numpy, xgboost or spr: it sets the number of threads that they read when they are loaded.
"""

from __future__ import annotations

import os

THREADS = os.environ.setdefault("SPR_BENCH_THREADS", "1")
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = THREADS

import json  # noqa: E402 - after the threads are set
import subprocess  # noqa: E402 - after the threads are set
import sys  # noqa: E402 - after the threads are set
import time  # noqa: E402 - after the threads are set
from dataclasses import dataclass  # noqa: E402 - after the threads are set
from itertools import pairwise  # noqa: E402 - after the threads are set
from typing import TYPE_CHECKING, Any  # noqa: E402 - after the threads are set

import numpy as np  # noqa: E402 - after the threads are set
import pandas as pd  # noqa: E402 - after the threads are set

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_FEATURES = 10  # of the members' coefficients (columns of the item) and of the items' (columns of the member)
MEMBER_FEATURES = [f"of_item_{j}" for j in range(N_FEATURES)]
ITEM_FEATURES = [f"of_member_{j}" for j in range(N_FEATURES)]
_CHUNK = 1_000_000


@dataclass(frozen=True)
class Feed:
    """Made responses of members to items.

    Parameters
    ----------
    frame : DataFrame
        member, item (int32) and 20 float32 columns.
    clicked : float32 array
    given : float32 array
        The part of the margin that is not the members' or the items' own.
    """

    frame: pd.DataFrame
    clicked: NDArray[np.float32]
    given: NDArray[np.float32]


def make_feed(n_rows: int, n_members: int, n_items: int, seed: int = 0) -> Feed:
    """Draw responses at a rate of about 0.3: given margin + member's and item's intercepts and 10 slopes each.

    The columns of an item are its own, with a little noise a row, and so are a member's. Filled in chunks of float32.
    """
    rng = np.random.default_rng(seed)
    of_item = rng.normal(size=(n_items, N_FEATURES)).astype(np.float32)
    of_member = rng.normal(size=(n_members, N_FEATURES)).astype(np.float32)
    member_own = (rng.normal(size=(n_members, N_FEATURES + 1)) * ([0.25] * N_FEATURES + [0.7])).astype(np.float32)
    item_own = (rng.normal(size=(n_items, N_FEATURES + 1)) * ([0.15] * N_FEATURES + [0.5])).astype(np.float32)
    member = rng.integers(0, n_members, n_rows, dtype=np.int32)
    item = np.minimum(rng.exponential(n_items / 4, n_rows), n_items - 1).astype(np.int32)
    columns = np.empty((2 * N_FEATURES, n_rows), dtype=np.float32)  # a column each: the frame takes them as they are
    given, clicked = np.empty(n_rows, dtype=np.float32), np.empty(n_rows, dtype=np.float32)
    for start in range(0, n_rows, _CHUNK):
        rows = slice(start, min(start + _CHUNK, n_rows))
        n = rows.stop - start
        left = of_item[item[rows]] + 0.3 * rng.standard_normal((n, N_FEATURES), dtype=np.float32)
        right = of_member[member[rows]] + 0.3 * rng.standard_normal((n, N_FEATURES), dtype=np.float32)
        given[rows] = -1.2 + 0.4 * left[:, 0] * right[:, 0] + 0.4 * np.abs(left[:, 1]) - 0.5 * (right[:, 2] > 0.5)
        own, theirs = member_own[member[rows]], item_own[item[rows]]
        margin = given[rows] + own[:, -1] + theirs[:, -1]
        margin += np.einsum("ij,ij->i", own[:, :-1], left) + np.einsum("ij,ij->i", theirs[:, :-1], right)
        clicked[rows] = rng.random(n) < 1.0 / (1.0 + np.exp(-margin))
        columns[:N_FEATURES, rows], columns[N_FEATURES:, rows] = left.T, right.T
    frame = pd.DataFrame(columns.T, columns=[*MEMBER_FEATURES, *ITEM_FEATURES], copy=False)
    return Feed(frame.assign(member=member, item=item), clicked, given)


def cpu_and_result(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a call, of all threads of this process, and what it returns."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def mean_log_loss(labels: NDArray[np.floating], margin: NDArray[np.floating]) -> float:
    """Return the mean log loss at a margin."""
    signed = np.where(labels > 0, -margin, margin).astype(np.float64)
    return float(np.logaddexp(0.0, signed).mean())


def normalized_cross_entropy(labels: NDArray[np.floating], margin: NDArray[np.floating]) -> float:
    """Return the mean log loss over that of the base rate."""
    rate = float(labels.mean())
    return mean_log_loss(labels, margin) / -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))


class SweepClock:
    """The CPU and wall time of each sweep: pass it to `fit` as `progress`."""

    def __init__(self) -> None:
        self._ends: dict[int, tuple[float, float]] = {}

    def __call__(self, record: Any) -> None:
        if record.sweep > 0:  # what comes before the first sweep is no sweep
            self._ends[record.sweep] = (time.process_time(), time.perf_counter())

    def sweeps(self) -> list[tuple[float, float]]:
        """Return CPU and wall seconds of the second sweep and those after it; the first is behind the sorting."""
        ends = [self._ends[sweep] for sweep in sorted(self._ends)]
        return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ends)]


def in_child(file: str, task: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run ``file task`` in a process of its own and return the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, file, task],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{file} {task} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print a title and the rows beneath it, numbers to four digits."""
    print(f"\n{title}")
    table = pd.DataFrame(list(rows)).astype(object).fillna("")
    print(table.map(lambda x: f"{x:,.4g}" if isinstance(x, float) else str(x)).to_string(index=False))
