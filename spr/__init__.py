"""SPR ranks cohorts (carousels) of different kinds of things against each other for one viewer.

>>> import spr
>>> config = spr.Config.named("network")
>>> sorted(config.edge_types)
['connection', 'follow', 'subscribe']
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spr.bundle import load
    from spr.config import Config
    from spr.errors import SPRError
    from spr.page import Page, Placement
    from spr.ranker import SecondPassRanker
    from spr.training import fit
    from spr.types import Cohort, RankingRequest, Viewer

__version__ = _version("spr")

# Imported when first used, so that `import spr` stays fast: a notebook may want only the configuration.
_HOME = {
    "Cohort": "spr.types",
    "Config": "spr.config",
    "Page": "spr.page",
    "Placement": "spr.page",
    "RankingRequest": "spr.types",
    "SPRError": "spr.errors",
    "SecondPassRanker": "spr.ranker",
    "Viewer": "spr.types",
    "fit": "spr.training",
    "load": "spr.bundle",
}

__all__ = [
    "Cohort",
    "Config",
    "Page",
    "Placement",
    "RankingRequest",
    "SPRError",
    "SecondPassRanker",
    "Viewer",
    "fit",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'spr' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
