"""HetRec 2011 Last.fm-2k as the public tables of SPR: real edges and behaviour, simulated attention."""

from __future__ import annotations

from simulations.lastfm.reading import find_data
from simulations.lastfm.tables import LastFMTables, build_tables

__all__ = ["LastFMTables", "build_tables", "find_data"]
