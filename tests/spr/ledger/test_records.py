"""One viewer's packed value: what goes in comes out, and nothing altered is read."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spr.errors import LedgerError
from spr.ledger.page import DeliveredPage
from spr.ledger.records import ViewerRecords

MONDAY = datetime(2026, 2, 2)
WINDOW = 10 * 3_600_000_000


def page(request_id: str, hour: float, **counts: int) -> DeliveredPage:
    at = MONDAY + timedelta(hours=hour)
    return DeliveredPage.checked(request_id, "v1", at, counts, max([3, *counts.values()]))


def recorded(*pages: DeliveredPage) -> ViewerRecords:
    records = ViewerRecords.of_page(pages[0])
    for later in pages[1:]:
        records = records.with_page(later, WINDOW) or records
    return records


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
            st.integers(0, 9),
            st.dictionaries(st.sampled_from(["a", "b", "ü\0"]), st.integers(0, 2**32 - 2)),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_unpack_gives_back_what_was_packed(pages: list[tuple[str, int, dict[str, int]]]) -> None:
    records = recorded(*(page(request_id, hour, **counts) for request_id, hour, counts in pages))
    again = ViewerRecords.unpack(records.pack(), "v1")
    assert again.names == records.names
    for column in ("at", "total", "counts", "digest"):
        np.testing.assert_array_equal(getattr(again, column), getattr(records, column))
    assert again.pack() == records.pack()


def test_unpack_refuses_a_value_with_any_byte_altered_or_cut_off() -> None:
    value = recorded(page("r1", 0, a=1), page("r2", 1, b=2)).pack()
    for place in range(len(value)):
        altered = bytearray(value)
        altered[place] ^= 0x10
        with pytest.raises(LedgerError, match="the records of viewer 'v1'"):
            ViewerRecords.unpack(bytes(altered), "v1")
        with pytest.raises(LedgerError, match="forget the viewer"):
            ViewerRecords.unpack(value[:place], "v1")
    with pytest.raises(LedgerError, match="altered"):
        ViewerRecords.unpack(value + b"\0", "v1")


def test_unpack_says_so_when_a_later_library_wrote_the_value() -> None:
    value = recorded(page("r1", 0)).pack()
    with pytest.raises(LedgerError, match="have the form b'spd3'; this library reads b'spd2'"):
        ViewerRecords.unpack(b"spd3" + value[4:], "v1")


def test_with_page_drops_old_records_and_names_that_none_counts_for() -> None:
    records = recorded(page("r1", 0, old=1), page("r2", 5, kept=1), page("r3", 10, new=1))
    assert records.names == ("kept", "new")
    assert len(records.at) == 2
    assert len(records.pack()) < len(recorded(page("r1", 0, old=1), page("r2", 5, kept=1), page("r3", 9, new=1)).pack())


def test_with_page_gives_none_where_nothing_changes() -> None:
    records = recorded(page("r1", 0), page("r2", 9))
    assert records.with_page(page("r1", 9), WINDOW) is None
    assert records.with_page(page("r3", -1), WINDOW) is None
    assert records.with_page(page("r3", -0.99), WINDOW) is not None
