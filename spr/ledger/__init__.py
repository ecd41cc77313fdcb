"""Delivery ledgers: what each viewer has had, so that impression guarantees hold over pages.

A guarantee of a share of a viewer's impressions needs two counters: all impressions that the viewer has had, and
those that counted for the guarantee. The ranker keeps no state; the service records each page that it delivered and
reads the counters into the next request:

>>> import spr
>>> from datetime import datetime, timedelta
>>> from spr.ledger import MemoryLedger
>>> ledger, monday = MemoryLedger(window=timedelta(days=28)), datetime(2026, 2, 2)
>>> ledger.record("r1", "v1", monday, {"connection-floor": 3}, total=12)
True
>>> at = monday + timedelta(hours=5)
>>> had = ledger.delivered("v1", at)
>>> cohorts = [spr.Cohort("pymk", "people", entity_id=["p1"], raw_score=[3.1], ranker_version="pymk-7")]
>>> request = spr.RankingRequest("r2", at, spr.Viewer("v1"), cohorts,
...                              delivered=had.counts, delivered_total=had.total)
>>> request.delivered, request.delivered_total
({'connection-floor': 3}, 12)

=====================  =========================================================================================
`MemoryLedger`         one process; gone with it
`LMDBLedger`           the processes of one machine, on its disk; the default choice
`RedisLedger`          many machines; the extra ``spr[redis]``
=====================  =========================================================================================

The three mean the same by every call, which :func:`spr.ledger.testing.check_delivery_ledger` checks of them and of a
ledger of your own. A page whose ledger is away can still be served: rank without counters, and record it later.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from spr.ledger.contract import DEFAULT_WINDOW, Delivered, DeliveryLedger
from spr.ledger.in_memory import MemoryLedger

if TYPE_CHECKING:
    from spr.ledger.in_lmdb import LMDBLedger
    from spr.ledger.in_redis import RedisLedger

# Imported when first used: a service needs one of the two packages at most.
_HOME = {"LMDBLedger": "spr.ledger.in_lmdb", "RedisLedger": "spr.ledger.in_redis"}

__all__ = ["DEFAULT_WINDOW", "Delivered", "DeliveryLedger", "LMDBLedger", "MemoryLedger", "RedisLedger"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'spr.ledger' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
