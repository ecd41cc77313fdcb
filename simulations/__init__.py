"""Networks to learn, test and experiment on: made ones whose truth is known, and one real one."""

from __future__ import annotations

from simulations.truth import WorldTruth
from simulations.world import World, WorldTables

__all__ = ["World", "WorldTables", "WorldTruth"]
