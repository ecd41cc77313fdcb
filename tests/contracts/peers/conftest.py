"""Where the peers' data is: small files beside the checkout, the rest in the cache that `make peer-data` fills."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that `SPR_DATA` names, by default ../shared/data."""
    return Path(os.environ.get("SPR_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def peer_data() -> ModuleType:
    """tests/benchmarks/peer_data.py, which is a command and in no package."""
    spec = importlib.util.spec_from_file_location("peer_data", ROOT / "tests" / "benchmarks" / "peer_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peer_data"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
