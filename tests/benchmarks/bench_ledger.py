"""Delivery ledgers: record a page and read the counters, beside a table in sqlite with an index and a SUM.

All in the same process, in turn; CPU time of the client per call, and wall time beside it: on disk a record waits for
the disk, and Redis works in a process of its own. Each viewer has 200 pages in the window, seven guarantees.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from measuring import print_table

from spr.ledger import Delivered, LMDBLedger, MemoryLedger, RedisLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

N_VIEWERS, N_PAGES, N_CALLS = 50, 200, 2_000
NAMES = [f"guarantee-{k}" for k in range(7)]
START, WINDOW = datetime(2026, 2, 2), timedelta(days=28)
STEP = WINDOW / N_PAGES


class Counters(Protocol):
    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool: ...

    def delivered(self, viewer_id: str, at: datetime) -> Delivered: ...


class SqliteTable:
    """What one would write without a ledger: a row per page and guarantee, INSERT OR IGNORE, a SUM over an index."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(
            """
            PRAGMA journal_mode = WAL;
            CREATE TABLE page (viewer_id TEXT, request_id TEXT, at REAL, name TEXT, n INTEGER,
                               PRIMARY KEY (viewer_id, request_id, name)) WITHOUT ROWID;
            CREATE INDEX page_at ON page (viewer_id, at, name, n);
            """
        )

    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        moment = at.timestamp()
        rows = [(viewer_id, request_id, moment, name, n) for name, n in {**counts, "": total}.items()]
        self.connection.execute("BEGIN IMMEDIATE")
        new = self.connection.executemany("INSERT OR IGNORE INTO page VALUES (?, ?, ?, ?, ?)", rows).rowcount
        old = (viewer_id, moment - WINDOW.total_seconds())
        self.connection.execute("DELETE FROM page WHERE viewer_id = ? AND at <= ?", old)
        self.connection.execute("COMMIT")
        return new > 0

    def delivered(self, viewer_id: str, at: datetime) -> Delivered:
        moment = at.timestamp()
        found = self.connection.execute(
            "SELECT name, SUM(n) FROM page WHERE viewer_id = ? AND at > ? AND at <= ? GROUP BY name",
            (viewer_id, moment - WINDOW.total_seconds(), moment),
        )
        counts = dict(found.fetchall())
        return Delivered({name: n for name, n in counts.items() if name and n}, counts.get("", 0))


def page(n: int) -> tuple[str, str, datetime, dict[str, int], int]:
    """Return the n-th page: viewers in turn, a step of time for each round; 2 to 6 guarantees get impressions."""
    counts = {name: 1 + (n + k) % 3 for k, name in enumerate(NAMES) if (n + k) % 7 < 2 + n % 5}
    return f"request-{n:08d}", f"viewer-{n % N_VIEWERS}", START + n // N_VIEWERS * STEP, counts, 10


def start_redis(stack: ExitStack, folder: Path) -> RedisLedger:
    server = shutil.which("redis-server")
    if server is None:
        sys.exit("redis-server is missing; run: apt-get install redis-server")
    socket = folder / "redis"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    ledger = stack.enter_context(RedisLedger(f"unix://{socket}", window=WINDOW))
    for _ in range(200):
        with suppress(ValueError):  # it is away until it has started
            ledger.delivered("nobody", START)
            return ledger
        time.sleep(0.05)
    sys.exit("redis-server did not answer in 10 seconds")


def microseconds(calls: int, call: Callable[[int], object]) -> tuple[float, float]:
    """Return CPU and wall time of a call, mean over calls with rising numbers."""
    cpu, wall = time.process_time(), time.perf_counter()
    for n in range(calls):
        call(n)
    return (time.process_time() - cpu) / calls * 1e6, (time.perf_counter() - wall) / calls * 1e6


def main() -> None:
    n_before = N_VIEWERS * N_PAGES
    end = START + (n_before + N_CALLS) // N_VIEWERS * STEP
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spr-")))
        ledgers: dict[str, Counters] = {
            "sqlite table, the peer": SqliteTable(folder / "peer.sqlite"),
            "MemoryLedger": MemoryLedger(window=WINDOW),
            "LMDBLedger": stack.enter_context(LMDBLedger(folder / "lmdb", window=WINDOW)),
            "RedisLedger": start_redis(stack, folder),
        }
        rows: list[dict[str, object]] = []
        answers = []
        for name, ledger in ledgers.items():
            for n in range(n_before):
                ledger.record(*page(n))
            record = microseconds(N_CALLS, lambda n, ledger=ledger: ledger.record(*page(n_before + n)))
            read = microseconds(N_CALLS, lambda n, ledger=ledger: ledger.delivered(f"viewer-{n % N_VIEWERS}", end))
            had = [ledger.delivered(f"viewer-{n}", end) for n in range(N_VIEWERS)]
            answers.append([(of_viewer.counts, of_viewer.total) for of_viewer in had])  # the peer knows no more
            rows.append(
                {
                    "ledger": name,
                    "record CPU us": record[0],
                    "read CPU us": read[0],
                    "record wall us": record[1],
                    "read wall us": read[1],
                }
            )
        if any(answer != answers[0] for answer in answers):
            sys.exit("the ledgers and the peer do not count the same")
        for row in rows:
            for what in ("record", "read"):
                ours, peer = row[f"{what} CPU us"], rows[0][f"{what} CPU us"]
                assert isinstance(ours, float)
                assert isinstance(peer, float)
                row[f"{what}, ratio to the peer"] = ours / peer
    print_table(f"{N_VIEWERS} viewers of {N_PAGES} pages in the window, {N_CALLS:,} calls each", rows)


if __name__ == "__main__":
    main()
