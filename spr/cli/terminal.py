"""What commands share: the console, errors as one line, progress bars, tables."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as Sheet

from spr.errors import SPRError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from spr.evaluation import Comparison
    from spr.progress import Progress
    from spr.ranker import SecondPassRanker

_terminal = Console()
# Where output goes to a file or a log, tables are not squeezed into 80 columns.
console = _terminal if _terminal.is_terminal else Console(width=165)


def note_missing_entities(ranker: SecondPassRanker, entities: Path | None) -> None:
    """Say so when a bundle was fitted with entity features and none are given: they are null to the trees."""
    if entities is None and any(source.scope == "entity" for source in ranker.features.sources):
        console.print(
            "[yellow]note[/yellow]: the bundle was fitted with an entities table and none is given (--entities)"
        )


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show an error that says what to do, or a file that cannot be used, as one line; a defect keeps its traceback."""
    from calibration import CalibrationError

    try:
        yield
    except (SPRError, CalibrationError, OSError) as error:
        console.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show each stage of long work as a bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, int] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = int(bars.add_task(stage, total=total))
            bars.update(bars.task_ids[tasks[stage]], completed=done, total=total)

        yield show


def print_table(frame: pd.DataFrame, title: str) -> None:
    """Print a DataFrame, its index first; floats with four digits."""
    sheet = Sheet(title=title, title_justify="left", header_style="bold")
    for level in frame.index.names:
        sheet.add_column(str(level or ""))
    for column in frame.columns:
        numeric = frame[column].dtype.kind in "if"
        sheet.add_column(str(column), justify="right" if numeric else "left", overflow="fold")
    for name, *values in frame.itertuples(name=None):
        named = name if isinstance(name, tuple) else (name,)
        sheet.add_row(*map(str, named), *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values))
    console.print(sheet)


def print_comparison(comparison: Comparison) -> None:
    """Print the metrics on all pages, then the ranker's difference to each other prediction by segment."""
    metrics = comparison.table()
    of_all = metrics[metrics.index.get_level_values("segment") == "all"].droplevel("segment")
    title = "held-out pages of the random policy [95 % interval, bootstrap over viewers]"
    print_table(of_all[["normalized_cross_entropy", "ndcg", "auc"]], title)
    print_table(of_all[["top1_rate", "grouped_auc", "calibration_error"]], "further metrics of the same")
    print_table(comparison.entity_type_table(), "SPR by entity type")
    for segment, part in comparison.difference_table().groupby("segment", sort=False):
        print_table(part.droplevel("segment"), f"difference, {segment} viewers (* = the interval excludes 0)")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write Parquet, or CSV where the path says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
