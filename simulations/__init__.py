"""Networks to learn, test and experiment on: made ones whose truth is known, and one real one."""

from __future__ import annotations

from simulations.behaviour import Behaviour
from simulations.run import Run
from simulations.truth import WorldTruth
from simulations.world import World, WorldTables
from spr.edge_drop import EdgeDropExperiment

__all__ = ["Behaviour", "EdgeDropExperiment", "Run", "World", "WorldTables", "WorldTruth"]
