"""What is LMDB's own: the map, the folder, values on disk, expiry."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

from spr.errors import ConfigError, LedgerError
from spr.ledger import Delivered, LMDBLedger, in_lmdb

if TYPE_CHECKING:
    from pathlib import Path

MONDAY = datetime(2026, 2, 2)
HOUR = timedelta(hours=1)


def change(path: Path, viewer_id: str, value: bytes | None) -> bytes:
    """Put other bytes where a viewer's value is, and return what was there."""
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        before = transaction.get(viewer_id.encode())
        assert before is not None
        if value is not None:
            transaction.put(viewer_id.encode(), value)
        return before


def test_lmdb_ledger_keeps_its_records_when_it_is_opened_again(tmp_path: Path) -> None:
    with LMDBLedger(tmp_path / "made" / "here") as ledger:
        ledger.record("r1", "v1", MONDAY, {"a": 1}, 2)
    with LMDBLedger(tmp_path / "made" / "here") as ledger:
        assert ledger.delivered("v1", MONDAY) == Delivered({"a": 1}, 2, {"a": 2})
        assert ledger.record("r1", "v1", MONDAY, {"a": 1}, 2) is False


def test_lmdb_ledger_grows_past_the_size_of_its_map(tmp_path: Path) -> None:
    names = {f"{'a long name ' * 5}{k}": 1 for k in range(10)}
    with LMDBLedger(tmp_path, map_size=65_536) as ledger:
        for n in range(600):
            assert ledger.record(f"r{n}", f"v{n % 300}", MONDAY + n * HOUR / 60, names, 1)
    assert (tmp_path / "data.mdb").stat().st_size > 5 * 65_536
    with LMDBLedger(tmp_path, map_size=65_536) as ledger:
        found = ledger.delivered_many([f"v{n}" for n in range(300)], MONDAY + 10 * HOUR)
        assert {had.total for had in found} == {2}
        assert ledger.record("more", "v1", MONDAY, names, 1)


def test_lmdb_ledger_refuses_a_folder_that_is_open_already(tmp_path: Path) -> None:
    with LMDBLedger(tmp_path), pytest.raises(LedgerError, match="already open in this process"):
        LMDBLedger(tmp_path)
    LMDBLedger(tmp_path).close()


def test_lmdb_ledger_refuses_what_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match=r"cannot be opened: .*not an LMDB file"):
        LMDBLedger(tmp_path)
    with pytest.raises(LedgerError, match="cannot be opened"):
        LMDBLedger(tmp_path / "data.mdb")


@pytest.mark.parametrize("map_size", [0, -1, 1.5, True, "1GB"])
def test_lmdb_ledger_refuses_a_map_size_that_is_none(tmp_path: Path, map_size: Any) -> None:
    with pytest.raises(ConfigError, match="map_size is"):
        LMDBLedger(tmp_path, map_size=map_size)
    assert list(tmp_path.iterdir()) == []


def test_lmdb_ledger_says_that_it_is_closed(tmp_path: Path) -> None:
    ledger = LMDBLedger(tmp_path)
    ledger.close()
    ledger.close()
    for call in (
        lambda: ledger.record("r1", "v1", MONDAY, {}, 1),
        lambda: ledger.delivered("v1", MONDAY),
        lambda: ledger.forget("v1"),
        lambda: ledger.expire(MONDAY),
    ):
        with pytest.raises(LedgerError, match="is closed"):
            call()


def test_lmdb_ledger_says_whose_records_are_altered_until_they_are_forgotten(tmp_path: Path) -> None:
    with LMDBLedger(tmp_path) as ledger:
        ledger.record("r1", "v1", MONDAY, {"a": 1}, 2)
        ledger.record("r1", "v2", MONDAY, {"a": 1}, 2)
    value = change(tmp_path, "v1", None)
    change(tmp_path, "v1", value[:-3] + b"\0\0\0")
    with LMDBLedger(tmp_path) as ledger:
        for call in (
            lambda: ledger.record("r2", "v1", MONDAY, {}, 1),
            lambda: ledger.delivered_many(["v2", "v1"], MONDAY),
            lambda: ledger.expire(MONDAY),
        ):
            with pytest.raises(LedgerError, match=r"the records of viewer 'v1' are altered.*forget the viewer"):
                call()
        assert ledger.delivered("v2", MONDAY).total == 2
        ledger.forget("v1")
        assert ledger.record("r2", "v1", MONDAY, {}, 1)
        assert ledger.delivered("v1", MONDAY) == Delivered({}, 1)


@pytest.mark.parametrize("sweep", [1, 3, 7, 20, 1000])
def test_expire_removes_whole_viewers_in_small_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: int
) -> None:
    monkeypatch.setattr(in_lmdb, "_SWEEP", sweep)
    with LMDBLedger(tmp_path, window=10 * HOUR) as ledger:
        assert ledger.expire(MONDAY) == 0
        for n in range(20):
            ledger.record("old", f"v{n:02d}", MONDAY, {"a": 1}, 1)
            if n % 3 == 0:
                ledger.record("new", f"v{n:02d}", MONDAY + 5 * HOUR, {"a": 1}, 1)
        assert ledger.expire(MONDAY + 10 * HOUR - timedelta(microseconds=1)) == 0
        assert ledger.expire(MONDAY + 10 * HOUR) == 13
        assert ledger.expire(MONDAY + 10 * HOUR) == 0
        found = ledger.delivered_many([f"v{n:02d}" for n in range(20)], MONDAY + 5 * HOUR)
        assert [had.total for had in found] == [2 if n % 3 == 0 else 0 for n in range(20)]
    with lmdb.open(str(tmp_path)) as environment:
        assert environment.stat()["entries"] == 7


def test_lmdb_ledger_holds_more_readers_than_lmdb_does_by_itself(tmp_path: Path) -> None:
    with LMDBLedger(tmp_path):
        pass
    # the size of the table of readers is the first process's to choose, and stays while one has the folder open
    with LMDBLedger(tmp_path) as ledger:
        assert ledger._environment is not None
        assert ledger._environment.max_readers() >= 1024


def test_expire_leaves_a_viewer_who_comes_back_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = in_lmdb._remove

    with LMDBLedger(tmp_path, window=10 * HOUR) as ledger:
        for viewer_id in ("v1", "v2"):
            ledger.record("old", viewer_id, MONDAY, {}, 1)

        def come_back(old: list[bytes], edge: int) -> Any:
            ledger.record("new", "v1", MONDAY + 30 * HOUR, {}, 1)
            return remove(old, edge)

        monkeypatch.setattr(in_lmdb, "_remove", come_back)
        assert ledger.expire(MONDAY + 20 * HOUR) == 1
        assert ledger.delivered("v1", MONDAY + 30 * HOUR).total == 1
