"""Several processes at one ledger: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from spr.ledger import LMDBLedger, RedisLedger

TASKS = Path(__file__).with_name("process.py")
MONDAY_EVENING = datetime(2026, 2, 2, 20)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TASKS), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def run(*arguments: str) -> str:
    command = [sys.executable, str(TASKS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_two_processes_of_four_threads_lose_nothing_and_count_nothing_twice(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path)
    if kind == "redis":
        request.getfixturevalue("redis_client")
        place = request.getfixturevalue("redis_url")
    writers = [start("write", kind, place, name) for name in ("one", "two")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    answers = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    # 2 x 60 pages of each process and 2 x 60 of both; each was sent twice or four times
    assert sum(int(answer) for answer in answers) == 360
    with LMDBLedger(place) if kind == "lmdb" else RedisLedger(place, prefix="shared:") as ledger:
        found = ledger.delivered_many(["v0", "v1", "v2"], MONDAY_EVENING)
    assert [had.total for had in found] == [240, 240, 240]
    assert [dict(had.counts) for had in found] == [{f"g{k}": 30 for k in range(4)}] * 3


def test_lmdb_ledger_reads_on_when_another_process_has_made_the_map_larger(tmp_path: Path) -> None:
    with LMDBLedger(tmp_path, map_size=65_536) as ledger:
        run("fill", "lmdb", str(tmp_path))
        assert (tmp_path / "data.mdb").stat().st_size > 300_000
        found = ledger.delivered_many([f"filled-{viewer}" for viewer in range(400)], MONDAY_EVENING)
        assert {had.total for had in found} == {1}
        assert ledger.record("r1", "v1", MONDAY_EVENING, {}, 1)


def test_lmdb_ledger_goes_on_after_a_writer_was_killed(tmp_path: Path) -> None:
    for _ in range(3):
        writer = start("forever", "lmdb", str(tmp_path))
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        writer.kill()
        writer.communicate()
        with LMDBLedger(tmp_path) as ledger:
            had = ledger.delivered("v1", MONDAY_EVENING)
            assert had.total == had.counts["g"] >= 21
            ledger.forget("v1")
            assert ledger.record("r1", "v2", MONDAY_EVENING, {}, 1)
            ledger.forget("v2")


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_ledger_works_on_both_sides_of_a_fork(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = str(tmp_path)
    if kind == "redis":
        request.getfixturevalue("redis_client")
        place = request.getfixturevalue("redis_url")
    assert run("fork", kind, place) == "forked\n"
