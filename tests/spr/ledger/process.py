"""What the tests run in processes of their own: ``process.py TASK KIND PLACE [...]``.

write   four threads write 60 pages each when a line comes in; every page is sent by two threads; prints what was new
fill    one thread writes viewers, 1 kB of counters each, and ends
forever one thread writes until it is killed; prints a line first
fork    writes, forks while threads write, and writes in the child and the parent
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from spr.ledger import DeliveryLedger, LMDBLedger, RedisLedger

if TYPE_CHECKING:
    from collections.abc import Callable

MONDAY = datetime(2026, 2, 2)


def opened(kind: str, place: str) -> DeliveryLedger:
    return LMDBLedger(place, map_size=65_536) if kind == "lmdb" else RedisLedger(place, prefix="shared:")


def write(ledger: DeliveryLedger, process: str) -> None:
    new = []

    def send(thread: int) -> None:
        for n in range(60):
            # "both" is sent by both processes, each of them twice
            for sender in (process, "both"):
                page = f"{sender}-{thread % 2}-{n}"
                new.append(ledger.record(page, f"v{n % 3}", MONDAY + timedelta(minutes=n), {f"g{n % 4}": 1}, 2))

    say("ready")
    sys.stdin.readline()
    run_threads(send)
    say(sum(new))


def fill(ledger: DeliveryLedger) -> None:
    for viewer in range(400):
        counts = {f"{'long name ' * 9}{k}": 1 for k in range(10)}
        ledger.record("r1", f"filled-{viewer}", MONDAY, counts, 1)


def write_forever(ledger: DeliveryLedger) -> None:
    n = 0
    while True:
        ledger.record(f"r{n}", "v1", MONDAY, {"g": 1}, 1)
        if n == 20:
            say("ready")
        n += 1


def fork(ledger: DeliveryLedger) -> None:
    ledger.record("before", "v1", MONDAY, {"g": 1}, 1)
    stop, counted = threading.Event(), {}

    def busy(thread: int) -> None:
        n = 0
        while not stop.is_set():
            ledger.record(f"{thread}-{n}", f"busy-{thread}", MONDAY, {}, 1)
            ledger.delivered(f"busy-{thread}", MONDAY)
            n += 1
        counted[thread] = n

    # redis-py does not stand a fork while another thread is taking a connection from its pool
    threads = [threading.Thread(target=busy, args=(n,)) for n in range(4 if isinstance(ledger, LMDBLedger) else 0)]
    for thread in threads:
        thread.start()
    try:
        for n in range(8):
            status = in_child(ledger, n)
            assert status == 0, f"child {n} ended with {status}"
            ledger.record(f"parent-{n}", "v1", MONDAY, {"g": 1}, 1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert ledger.delivered("v1", MONDAY).total == 17
    for thread, n in counted.items():
        assert ledger.delivered(f"busy-{thread}", MONDAY).total == n
    say("forked")


def in_child(ledger: DeliveryLedger, n: int) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ledger.record(f"child-{n}", "v1", MONDAY, {"g": 1}, 1)
            status = 0 if ledger.delivered("v1", MONDAY).total == 2 * n + 2 else 2
            ledger.close()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    task, kind, place, *more = sys.argv[1:]
    with opened(kind, place) as shared:
        if task == "write":
            write(shared, *more)
        else:
            {"fill": fill, "forever": write_forever, "fork": fork}[task](shared)
