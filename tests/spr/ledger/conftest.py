"""The three ledgers, fresh for whoever asks; one redis-server of our own per session."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import pytest
import redis

from spr.ledger import LMDBLedger, MemoryLedger, RedisLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from spr.ledger import DeliveryLedger

    Fresh = Callable[[timedelta], DeliveryLedger]

_numbers = count()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Start a Redis on a socket of its own that keeps nothing on disk; a missing server is a failure."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.fail(
            "redis-server is missing, and RedisLedger is tested on a real one; run: apt-get install redis-server"
        )
    # a socket's path may have 107 characters: too few for the folders that pytest makes
    with tempfile.TemporaryDirectory(prefix="spr-") as folder:
        socket = f"{folder}/redis"
        options = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL)
        url = f"unix://{socket}"
        try:
            _wait(url, process)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    with redis.Redis.from_url(url) as client:
        for _ in range(200):
            with suppress(redis.ConnectionError):
                client.ping()
                return
            assert process.poll() is None, f"redis-server ended with {process.returncode}"
            time.sleep(0.05)
    pytest.fail("redis-server did not answer in 10 seconds")


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["memory", "lmdb", "redis"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fresh]:
    """Make ledgers without records; what a test leaves open is closed."""
    opened: list[DeliveryLedger] = []

    def make(window: timedelta) -> DeliveryLedger:
        ledger: DeliveryLedger
        if request.param == "memory":
            ledger = MemoryLedger(window=window)
        elif request.param == "lmdb":
            ledger = LMDBLedger(tmp_path / f"ledger-{next(_numbers)}", window=window)
        else:
            url = request.getfixturevalue("redis_url")
            ledger = RedisLedger(url, window=window, prefix=f"test-{next(_numbers)}:")
        opened.append(ledger)
        return ledger

    yield make
    for ledger in opened:
        ledger.close()
