"""The contract suite of delivery ledgers: run it on a ledger of your own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from spr.errors import InvalidRequest
from spr.ledger.contract import Delivered

if TYPE_CHECKING:
    from collections.abc import Callable

    from spr.ledger.contract import DeliveryLedger

_WINDOW = timedelta(days=7)
_AT = datetime(2026, 2, 2, 12, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_NOTHING = Delivered({}, 0)


def check_delivery_ledger(fresh: Callable[[timedelta], DeliveryLedger]) -> None:
    """Hold a ledger to the contract of :class:`spr.ledger.DeliveryLedger`.

    Parameters
    ----------
    fresh : callable
        Takes a window and returns a ledger with that window and without records; each call's ledger is closed before
        the next call.

    Raises
    ------
    AssertionError
        Which rule is broken, what was found and what was expected.

    Examples
    --------
    >>> from spr.ledger import MemoryLedger
    >>> check_delivery_ledger(lambda window: MemoryLedger(window=window))
    """
    for check in (
        _check_counts,
        _check_redelivery,
        _check_window,
        _check_order,
        _check_moments,
        _check_viewers,
        _check_refusals,
        _check_threads,
    ):
        with fresh(_WINDOW) as ledger:
            _require(ledger.window == _WINDOW, f"window is {ledger.window}; it must be the one asked for, {_WINDOW}")
            check(ledger)
        ledger.close()  # a second time


def _check_counts(ledger: DeliveryLedger) -> None:
    _expect(ledger, "v1", _AT, _NOTHING, "a viewer without records")
    _require(ledger.record("r1", "v1", _AT, {"a": 2, "b": 0}, 5), "record must return True for a new page")
    _expect(ledger, "v1", _AT, Delivered({"a": 2}, 5, {"a": 5, "b": 5}), "one page; a count of 0 is not named")
    odd = "größer \u0000 {x}"
    counts = {"a": 2, "b": 1, odd: 3}
    ledger.record("r2", "v1", _AT, {"b": 1, odd: 3}, 3)
    _expect(ledger, "v1", _AT, Delivered(counts, 8, {"a": 5, "b": 8, odd: 3}), "two pages at one moment")
    ledger.record("r3", "v1", _AT, {}, 0)
    most = 2**32 - 2
    ledger.record("r4", "v1", _AT, {"a": most}, most)
    expected = Delivered(counts | {"a": most + 2}, most + 8, {"a": most + 5, "b": 8, odd: 3})
    _expect(ledger, "v1", _AT, expected, "a page of nothing and a page of 2^32 - 2")


def _check_redelivery(ledger: DeliveryLedger) -> None:
    ledger.record("r1", "v1", _AT, {"a": 1}, 5)
    again = ledger.record("r1", "v1", _AT, {"a": 1}, 5)
    _require(again is False, f"a redelivered request: record gave {again}; it must be False")
    other = ledger.record("r1", "v1", _AT + _TICK, {"a": 4, "b": 4}, 9)
    _require(other is False, f"the same request with other counts: record gave {other}; the first write wins")
    _expect(ledger, "v1", _AT + _TICK, Delivered({"a": 1}, 5, {"a": 5}), "after two redeliveries")
    _require(ledger.record("r1", "v2", _AT, {"a": 2}, 2), "the same request id of another viewer is another page")
    _expect(ledger, "v1", _AT, Delivered({"a": 1}, 5, {"a": 5}), "after the same request id of another viewer")


def _check_window(ledger: DeliveryLedger) -> None:
    ledger.record("r1", "v1", _AT, {"a": 1}, 5)
    one = Delivered({"a": 1}, 5, {"a": 5})
    for at, expected in (
        (_AT - _TICK, _NOTHING),
        (_AT, one),
        (_AT + _WINDOW - _TICK, one),
        (_AT + _WINDOW, _NOTHING),
        (_AT + 99 * _WINDOW, _NOTHING),
    ):
        _expect(ledger, "v1", at, expected, f"a record of {_AT}, window {_WINDOW}")
    ledger.record("r2", "v1", _AT + _WINDOW, {"b": 1}, 1)
    _expect(ledger, "v1", _AT + _WINDOW, Delivered({"b": 1}, 1, {"b": 1}), "when the older record has just left")
    late = ledger.record("r3", "v1", _AT, {"c": 1}, 1)
    _require(late is False, f"a late record out of the newest record's window: record gave {late}; it must be False")
    _expect(ledger, "v1", _AT, _NOTHING, "records that left the window of the newest are dropped")


def _check_order(ledger: DeliveryLedger) -> None:
    hours = (5, 1, 9, 3, 160)
    for hour in hours:
        ledger.record(f"r{hour}", "v1", _AT + timedelta(hours=hour), {"a": hour}, hour)
    for hour in range(12):
        seen = sum(h for h in hours if h <= hour)
        expected = Delivered({"a": seen}, seen, {"a": seen}) if seen else _NOTHING
        _expect(ledger, "v1", _AT + timedelta(hours=hour), expected, f"records came out of order, read at hour {hour}")


def _check_moments(ledger: DeliveryLedger) -> None:
    ledger.record("r1", "v1", _AT.replace(tzinfo=None), {}, 1)
    _expect(ledger, "v1", _AT - _TICK, _NOTHING, "a moment without a zone is UTC")
    _expect(ledger, "v1", _AT, Delivered({}, 1), "a moment without a zone is UTC")
    ledger.record("r2", "v1", _AT.astimezone(timezone(timedelta(hours=5, minutes=30))), {}, 1)
    _expect(ledger, "v1", _AT.replace(tzinfo=None), Delivered({}, 2), "a moment in another zone is the same moment")


def _check_viewers(ledger: DeliveryLedger) -> None:
    viewers = ["v1", "v2", "v", "v1:", "{v1}", "}", "日本", "x" * 500]
    for n, viewer_id in enumerate(viewers, start=1):
        ledger.record("r1", viewer_id, _AT, {"a": n}, n)
    asked = [*reversed(viewers), "nobody", "v1"]
    found = ledger.delivered_many(asked, _AT)
    each = [ledger.delivered(viewer_id, _AT) for viewer_id in asked]
    _require(found == each, f"delivered_many gave {found}; delivered of each gave {each}")
    for n, viewer_id in enumerate(viewers, start=1):
        _expect(ledger, viewer_id, _AT, Delivered({"a": n}, n, {"a": n}), "viewers are apart")
    _require(ledger.delivered_many([], _AT) == [], "delivered_many of nobody must be an empty list")
    ledger.forget("v1")
    ledger.forget("nobody")
    _expect(ledger, "v1", _AT, _NOTHING, "a forgotten viewer")
    _expect(ledger, "v2", _AT, Delivered({"a": 2}, 2, {"a": 2}), "another viewer was forgotten")
    _require(ledger.record("r1", "v1", _AT, {}, 1), "a forgotten viewer starts anew")


def _check_refusals(ledger: DeliveryLedger) -> None:
    refused: dict[str, Callable[[], object]] = {
        "an empty request id": lambda: ledger.record("", "v1", _AT, {}, 1),
        "an empty viewer id": lambda: ledger.record("r1", "", _AT, {}, 1),
        "a request id of 501 bytes": lambda: ledger.record("é" * 250 + "x", "v1", _AT, {}, 1),
        "a viewer id that UTF-8 cannot hold": lambda: ledger.record("r1", "\ud800", _AT, {}, 1),
        "an empty name": lambda: ledger.record("r1", "v1", _AT, {"": 1}, 1),
        "a negative count": lambda: ledger.record("r1", "v1", _AT, {"a": -1}, 1),
        "a count above the total": lambda: ledger.record("r1", "v1", _AT, {"a": 1, "b": 2}, 1),
        "a negative total": lambda: ledger.record("r1", "v1", _AT, {}, -1),
        "a total of 2^32 - 1": lambda: ledger.record("r1", "v1", _AT, {}, 2**32 - 1),
        "a moment before 1970": lambda: ledger.record("r1", "v1", datetime(1969, 12, 31, tzinfo=UTC), {}, 1),
        "reading an empty viewer id": lambda: ledger.delivered("", _AT),
        "reading one empty viewer id of two": lambda: ledger.delivered_many(["v1", ""], _AT),
        "forgetting an empty viewer id": lambda: ledger.forget(""),
        # what a type checker would find, and a service in a hurry would not
        "a count of 1.0": lambda: ledger.record("r1", "v1", _AT, {"a": 1.0}, 1),  # type: ignore[dict-item]  # on purpose
        "a count of True": lambda: ledger.record("r1", "v1", _AT, {"a": True}, 1),
        "a total of NaN": lambda: ledger.record("r1", "v1", _AT, {}, float("nan")),  # type: ignore[arg-type]  # on purpose
        "a date that is text": lambda: ledger.record("r1", "v1", "2026-02-02", {}, 1),  # type: ignore[arg-type]  # on purpose
    }
    for what, call in refused.items():
        try:
            call()
        except InvalidRequest:
            _expect(ledger, "v1", _AT, _NOTHING, f"{what} was refused: nothing must be written")
        else:
            raise AssertionError(f"{what} must be refused with InvalidRequest; it was not")


def _check_threads(ledger: DeliveryLedger) -> None:
    accepted: list[bool] = []

    def write(thread: int) -> None:
        # each page is sent by two of the four threads
        accepted.extend(
            ledger.record(f"{thread % 2}-{n}", "v1", _AT + n * _TICK, {f"g{n % 3}": 1}, 2) for n in range(40)
        )

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _require(len(accepted) == 160, f"four threads: {160 - len(accepted)} of 160 calls failed")
    _require(sum(accepted) == 80, f"four threads, 80 pages sent twice: {sum(accepted)} were accepted as new")
    counts = {"g0": 28, "g1": 26, "g2": 26}
    expected = Delivered(counts, 160, {name: 2 * n for name, n in counts.items()})
    _expect(ledger, "v1", _AT + _WINDOW / 2, expected, "four threads at once")


def _expect(ledger: DeliveryLedger, viewer_id: str, at: datetime, expected: Delivered, where: str) -> None:
    found = ledger.delivered(viewer_id, at)
    _require(found == expected, f"{where}: delivered at {at} is {found}; expected {expected}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
