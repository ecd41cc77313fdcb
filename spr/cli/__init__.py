"""The command line: ``spr fit | rank | evaluate | replay | recalibrate | factors | report | adopt | warm``, and more.

Commands of other packages are found through the entry-point group ``spr.commands``.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

from spr.cli.ageing import replay
from spr.cli.bundles import evaluate, fit, rank, read_config, recalibrate, warm
from spr.cli.importance import adopt, factors, report
from spr.cli.terminal import (
    console,
    note_missing_entities,
    print_comparison,
    print_table,
    progress_bars,
    readable_errors,
    write_table,
)

__all__ = [
    "app",
    "console",
    "note_missing_entities",
    "print_comparison",
    "print_table",
    "progress_bars",
    "read_config",
    "readable_errors",
    "write_table",
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Rank cohorts of different kinds of things against each other.",
    pretty_exceptions_enable=False,
)
for _command in (fit, rank, evaluate, replay, recalibrate, factors, report, adopt, warm):
    app.command()(_command)
for _other in entry_points(group="spr.commands"):
    app.command(_other.name)(_other.load())
