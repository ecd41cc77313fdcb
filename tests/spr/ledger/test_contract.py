"""The contract suite on the three ledgers, on broken ones, and any history beside a model in plain Python."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spr.errors import ConfigError, InvalidRequest, MissingDependency
from spr.ledger import DEFAULT_WINDOW, Delivered, LMDBLedger, MemoryLedger, RedisLedger
from spr.ledger.testing import check_delivery_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from spr.ledger import DeliveryLedger

    Fresh = Callable[[timedelta], DeliveryLedger]

MONDAY = datetime(2026, 2, 2)
HOUR = timedelta(hours=1)
WINDOW = 10 * HOUR
_numbers = count()


def test_check_delivery_ledger_holds_for_the_three(fresh: Fresh) -> None:
    check_delivery_ledger(fresh)


class CountsTwice(MemoryLedger):
    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        if super().record(request_id, viewer_id, at, counts, total):
            return True
        return super().record(request_id + "+", viewer_id, at, counts, total)


class LastWins(MemoryLedger):
    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        self.forget(viewer_id)
        return super().record(request_id, viewer_id, at, counts, total)


class ReadsAhead(MemoryLedger):
    def delivered_many(self, viewer_ids: Sequence[str], at: datetime) -> list[Delivered]:
        return super().delivered_many(viewer_ids, at + timedelta(microseconds=1))


class NeverForgets(MemoryLedger):
    def forget(self, viewer_id: str) -> None:
        super().delivered(viewer_id, MONDAY)


class LosesAcrossThreads(MemoryLedger):
    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        known = request_id in self.__dict__.setdefault("seen", set())
        super().record(request_id, viewer_id, at, counts, total)
        self.__dict__["seen"].add(request_id)
        return not known and super().delivered(viewer_id, at).total > 0


class WritesBeforeItChecks(MemoryLedger):
    def record(self, request_id: str, viewer_id: str, at: datetime, counts: Mapping[str, int], total: int) -> bool:
        for name, number in counts.items():
            if isinstance(number, int) and number < 0:
                super().record("half", viewer_id, at, {}, 1)
                raise InvalidRequest(f"{name} is negative")
        return super().record(request_id, viewer_id, at, counts, total)


class Unsorted(MemoryLedger):
    def delivered_many(self, viewer_ids: Sequence[str], at: datetime) -> list[Delivered]:
        return super().delivered_many(sorted(viewer_ids), at)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (CountsTwice, "redelivered request"),
        (LastWins, "two pages at one moment"),
        (ReadsAhead, "a record of"),
        (NeverForgets, "forgotten"),
        (LosesAcrossThreads, "same request id of another viewer|page of nothing"),
        (WritesBeforeItChecks, "a negative count was refused: nothing must be written"),
        (Unsorted, "delivered_many gave"),
    ],
)
def test_check_delivery_ledger_finds_what_is_broken(broken: type[MemoryLedger], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_delivery_ledger(lambda window: broken(window=window))


class Model:
    """What the words of the contract say, as slowly as need be."""

    def __init__(self, window: timedelta) -> None:
        self.window = window
        self.pages: dict[str, dict[str, tuple[datetime, dict[str, int], int]]] = {}

    def record(self, request_id: str, viewer_id: str, at: datetime, counts: dict[str, int], total: int) -> bool:
        pages = self.pages.setdefault(viewer_id, {})
        edge = max([at, *(moment for moment, _, _ in pages.values())]) - self.window
        if request_id in pages or at <= edge:
            return False
        pages[request_id] = (at, counts, total)
        self.pages[viewer_id] = {name: page for name, page in pages.items() if page[0] > edge}
        return True

    def delivered(self, viewer_id: str, at: datetime) -> Delivered:
        counts: dict[str, int] = {}
        counted: dict[str, int] = {}
        total = 0
        for moment, of_page, impressions in self.pages.get(viewer_id, {}).values():
            if at - self.window < moment <= at:
                total += impressions
                for name, number in of_page.items():
                    if number:
                        counts[name] = counts.get(name, 0) + number
                    if impressions:
                        counted[name] = counted.get(name, 0) + impressions
        return Delivered(counts, total, counted)

    def forget(self, viewer_id: str) -> None:
        self.pages.pop(viewer_id, None)


VIEWERS = st.sampled_from(["a", "b"])
PAGES = st.tuples(
    st.just("record"),
    st.sampled_from("123456"),
    VIEWERS,
    st.integers(0, 30),
    st.dictionaries(st.sampled_from(["connection", "follow", "ü"]), st.integers(0, 5)),
    st.integers(5, 9),
)
EVENTS = st.lists(st.one_of(PAGES, PAGES, PAGES, st.tuples(st.just("forget"), VIEWERS)), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_ledger_agrees_with_the_model_after_any_history(fresh: Fresh, events: list[tuple[Any, ...]]) -> None:
    ledger, model = _ledger_of(fresh), Model(WINDOW)
    example = f"{next(_numbers)}-"  # one ledger for all examples; each has viewers of its own
    for event in events:
        if event[0] == "forget":
            ledger.forget(example + event[1])
            model.forget(event[1])
        else:
            _, request_id, viewer_id, hour, counts, total = event
            at = MONDAY + hour * HOUR
            expected = model.record(request_id, viewer_id, at, counts, total)
            assert ledger.record(request_id, example + viewer_id, at, counts, total) is expected
    for hour in range(42):
        at = MONDAY + hour * HOUR
        found = ledger.delivered_many([example + "a", example + "b"], at)
        assert found == [model.delivered("a", at), model.delivered("b", at)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=st.lists(st.integers(0, 30), min_size=1, max_size=12), data=st.data())
def test_counters_do_not_depend_on_the_order_of_records(fresh: Fresh, hours: list[int], data: st.DataObject) -> None:
    ledger, example = _ledger_of(fresh), f"{next(_numbers)}-"
    shuffled = data.draw(st.permutations(list(enumerate(hours)) * 2))  # and each page is delivered twice
    for viewer_id, order in (("sorted", sorted(enumerate(hours), key=lambda page: page[1])), ("shuffled", shuffled)):
        for n, hour in order:
            ledger.record(f"r{n}", example + viewer_id, MONDAY + hour * HOUR, {f"g{n % 3}": 1}, 2)
    for hour in range(42):
        left, right = ledger.delivered_many([example + "sorted", example + "shuffled"], MONDAY + hour * HOUR)
        assert left == right


_made: dict[Fresh, DeliveryLedger] = {}


def _ledger_of(fresh: Fresh) -> DeliveryLedger:
    """One ledger for all examples of a test: opening LMDB for each would be most of the time."""
    if fresh not in _made:
        _made.clear()
        _made[fresh] = fresh(WINDOW)
    return _made[fresh]


def test_record_takes_the_types_of_numpy_and_pandas(fresh: Fresh) -> None:
    ledger = fresh(WINDOW)
    at = pd.Timestamp("2026-02-02 05:00", tz="Europe/Berlin")
    assert ledger.record("r1", "v1", at, {"a": np.int64(2)}, np.uint8(3))
    assert ledger.delivered("v1", datetime(2026, 2, 2, 4)) == Delivered({"a": 2}, 3, {"a": 3})
    assert ledger.delivered("v1", datetime(2026, 2, 2, 3, 59)) == Delivered({}, 0)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (("r1", "v1", pd.NaT, {}, 1), "at is NaT; allowed: a datetime"),
        (("r1", "v1", datetime(2300, 1, 1), {}, 1), "at is 2300-01-01T00:00:00; allowed: from 1970 to June 2255"),
        (("r1", "v1", MONDAY, {"a": float("inf")}, 1), "request 'r1': delivered 'a' is inf; allowed: a whole number"),
        (("r1", "v1", MONDAY, {"a": 3}, 2), "delivered 'a' is 3; allowed: 0 to the page's total, 2"),
        (("r1", "v1", MONDAY, [("a", 3)], 2), "counts is a list; allowed: a mapping"),
        (("r1", 7, MONDAY, {}, 2), "viewer_id is 7; allowed: a string"),
        (("r1", "v" * 501, MONDAY, {}, 2), "has 501 bytes of UTF-8; allowed: at most 500"),
        (("r1", "\ud800", MONDAY, {}, 2), "UTF-8 cannot hold"),
    ],
)
def test_record_says_what_it_refuses(page: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        MemoryLedger().record(*page)
    assert message in str(raised.value)


@pytest.mark.parametrize("window", [timedelta(0), timedelta(days=-1), 28, None])
def test_ledger_refuses_a_window_that_holds_nothing(fresh: Fresh, window: Any) -> None:
    with pytest.raises(ConfigError, match=r"window is .*; allowed: a timedelta above 0"):
        fresh(window)


def test_ledger_counts_28_days_where_nothing_is_said(tmp_path: Any) -> None:
    with LMDBLedger(tmp_path) as on_disk:
        windows = {MemoryLedger().window, on_disk.window, RedisLedger("redis://localhost").window, DEFAULT_WINDOW}
    assert windows == {timedelta(days=28)}


def test_memory_ledger_expires_viewers_who_stayed_away() -> None:
    ledger = MemoryLedger(window=WINDOW)
    for hour in range(5):
        ledger.record("r1", f"v{hour}", MONDAY + hour * HOUR, {}, 1)
    assert ledger.expire(MONDAY + 2 * HOUR + WINDOW) == 3
    assert ledger.expire(MONDAY + 2 * HOUR + WINDOW) == 0
    found = ledger.delivered_many([f"v{hour}" for hour in range(5)], MONDAY + 5 * HOUR)
    assert [had.total for had in found] == [0, 0, 0, 1, 1]


def test_importing_the_package_needs_neither_lmdb_nor_redis() -> None:
    code = "import sys, spr.ledger, spr.ledger.testing; print({'lmdb', 'redis'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("package", "name", "command"),
    [
        ("redis", "RedisLedger", r"pip install 'spr\[redis\]'"),
        ("lmdb", "LMDBLedger", "pip install lmdb"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    package: str, name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import spr.ledger

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"spr.ledger.in_{package}", raising=False)
    with pytest.raises(MissingDependency, match=command):
        getattr(spr.ledger, name)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import spr.ledger

    assert "RedisLedger" in dir(spr.ledger)
    with pytest.raises(AttributeError, match="has no attribute 'SQLLedger'"):
        _ = spr.ledger.SQLLedger
