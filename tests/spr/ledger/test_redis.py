"""What is Redis' own: keys that expire, records that others wrote, a server that is away."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import redis

from spr.errors import ConfigError, LedgerError
from spr.ledger import Delivered, RedisLedger
from spr.ledger.testing import check_delivery_ledger

if TYPE_CHECKING:
    from pathlib import Path

MONDAY = datetime(2026, 2, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = 10 * HOUR
RECORDS, MOMENTS = "spr:delivered:{v1}:records", "spr:delivered:{v1}:moments"


@pytest.fixture
def ledger(redis_client: redis.Redis) -> RedisLedger:
    return RedisLedger(redis_client, window=WINDOW)


def test_record_drops_what_left_the_window_from_both_keys(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    for hour in (0, 3, 12, 2.5):
        ledger.record(f"r{hour}", "v1", MONDAY + hour * HOUR, {"a": 1}, 2)
    assert set(redis_client.hkeys(RECORDS)) == {b"r3", b"r12", b"r2.5"}
    ledger.record("r13", "v1", MONDAY + 13 * HOUR, {"a": 1}, 2)
    assert set(redis_client.hkeys(RECORDS)) == {b"r12", b"r13"}
    assert redis_client.zrange(MOMENTS, 0, -1) == [b"r12", b"r13"]
    assert sorted(redis_client.keys("*")) == [MOMENTS.encode(), RECORDS.encode()]


def test_record_is_stored_as_the_docstring_says(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    ledger.record("r1", "v1", MONDAY, {"a": 1, "b": 0}, 2)
    found = redis_client.hget(RECORDS, "r1")
    assert found == f'1 {int(MONDAY.timestamp()) * 1_000_000} 2 1 0 ["a", "b"]'.encode()


def test_keys_expire_a_window_after_the_later_of_now_and_the_newest_record(
    ledger: RedisLedger, redis_client: redis.Redis
) -> None:
    window = int(WINDOW.total_seconds() * 1000)
    ledger.record("r1", "v1", MONDAY, {}, 1)
    for key in (RECORDS, MOMENTS):
        assert window - 600_000 < redis_client.pttl(key) <= window
    ledger.record("r2", "v1", datetime.now(UTC) + 5 * HOUR, {}, 1)
    for key in (RECORDS, MOMENTS):
        assert 1.5 * window - 600_000 < redis_client.pttl(key) <= 1.5 * window


def test_a_redelivered_request_changes_no_expiry(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    ledger.record("r1", "v1", MONDAY, {}, 1)
    redis_client.pexpire(RECORDS, 500_000)
    assert ledger.record("r1", "v1", MONDAY, {}, 1) is False
    assert redis_client.pttl(RECORDS) <= 500_000


def test_a_viewer_who_stays_away_is_gone_from_the_server(redis_client: redis.Redis) -> None:
    RedisLedger(redis_client, window=timedelta(milliseconds=50)).record("r1", "v1", datetime.now(UTC), {}, 1)
    for _ in range(100):
        if not redis_client.exists(RECORDS, MOMENTS):
            return
        time.sleep(0.1)
    pytest.fail("the keys are there ten seconds after they should have expired")


def test_ledger_takes_a_client_that_decodes(redis_url: str, redis_client: redis.Redis) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:

        def fresh(window: timedelta) -> RedisLedger:
            redis_client.flushall()
            return RedisLedger(client, window=window)

        check_delivery_ledger(fresh)


def test_close_leaves_a_client_that_was_handed_over(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    client_id = redis_client.client_id()
    ledger.close()
    assert redis_client.client_id() == client_id


def test_prefixes_keep_ledgers_apart(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    ledger.record("r1", "v1", MONDAY, {}, 1)
    other = RedisLedger(redis_client, window=WINDOW, prefix="other:")
    assert other.delivered("v1", MONDAY) == Delivered({}, 0)
    other.forget("v1")
    assert ledger.delivered("v1", MONDAY) == Delivered({}, 1)


def test_record_goes_on_when_the_server_has_lost_its_scripts(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    ledger.record("r1", "v1", MONDAY, {}, 1)
    redis_client.script_flush()
    assert ledger.record("r2", "v1", MONDAY, {}, 1)
    assert ledger.delivered("v1", MONDAY).total == 2


@pytest.mark.parametrize(
    "record",
    [
        b"\xff\x00",
        b"",
        b"{}",
        b"1",
        b"1 2 3",
        b"1 2 3 {}",
        b"1 2 []",
        b'1 2 3 ["a"]',
        b'1 2 3 4 ["a"',
        b"1 2 3 4 []",
        b"1 2 -3 []",
        b"1 2.5 3 []",
        b"1 2 three []",
        b"0 2 3 []",
        b"1 2 3 4 [5]",
        b'1 2 3 4 ["a\xff"]]',
    ],
)
def test_a_record_that_cannot_be_read_is_named_until_it_is_forgotten(
    ledger: RedisLedger, redis_client: redis.Redis, record: bytes
) -> None:
    ledger.record("r1", "v1", MONDAY, {}, 1)
    redis_client.hset(RECORDS, "r2", record)
    with pytest.raises(LedgerError, match=r"a record of viewer 'v1' cannot be read: .*forget the viewer"):
        ledger.delivered("v1", MONDAY)
    ledger.forget("v1")
    assert ledger.delivered("v1", MONDAY) == Delivered({}, 0)


def test_a_record_that_a_decoding_client_cannot_read_is_a_ledger_error(
    redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.hset(RECORDS, "r1", b"\xff")
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        pytest.raises(LedgerError, match="can't decode byte 0xff"),
    ):
        RedisLedger(client).delivered("v1", MONDAY)


def test_a_record_of_a_later_library_is_said_to_be_one(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    redis_client.hset(RECORDS, "r1", b"2 anything")
    with pytest.raises(LedgerError, match="has the form 2; this library reads 1"):
        ledger.delivered("v1", MONDAY)


def test_a_key_of_another_kind_is_a_ledger_error(ledger: RedisLedger, redis_client: redis.Redis) -> None:
    redis_client.set(RECORDS, "a string")
    for call in (lambda: ledger.record("r1", "v1", MONDAY, {}, 1), lambda: ledger.delivered("v1", MONDAY)):
        with pytest.raises(LedgerError, match="WRONGTYPE"):
            call()


def test_a_server_that_is_away_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with RedisLedger(f"unix://{tmp_path}/none") as ledger:
        for call in (
            lambda: ledger.record("r1", "v1", MONDAY, {}, 1),
            lambda: ledger.delivered("v1", MONDAY),
            lambda: ledger.forget("v1"),
        ):
            with pytest.raises(LedgerError, match=r"Serve the page without counters, and record it later"):
                call()


def test_ledger_refuses_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="'localhost' is no address of a Redis"):
        RedisLedger("localhost")


def test_a_server_that_does_not_answer_costs_a_page_little() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ledger = RedisLedger(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout=0.05)
        options = ledger._client.connection_pool.connection_kwargs
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.05, 0.05)
        with pytest.raises(LedgerError, match="delivered: Redis did not do it"):
            ledger.delivered("v1", MONDAY)
        ledger.close()
