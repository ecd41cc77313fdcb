"""The command line: ``spr fit | rank | evaluate | recalibrate | warm``, and the commands of other files and packages.

These are found through the entry-point group ``spr.commands``.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as Sheet

from spr.errors import SPRError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from spr.config import Config
    from spr.evaluation import Comparison
    from spr.progress import Progress
    from spr.ranker import SecondPassRanker

_terminal = Console()
# Where output goes to a file or a log, tables are not squeezed into 80 columns.
console = _terminal if _terminal.is_terminal else Console(width=165)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Rank cohorts of different kinds of things against each other.",
    pretty_exceptions_enable=False,
)

Impressions = Annotated[Path, typer.Option(help="Impressions table: Parquet or CSV.")]
Viewers = Annotated[Path, typer.Option(help="Viewers table.")]
Entities = Annotated[Path | None, typer.Option(help="Entities table, where there is one.")]
BundleDir = Annotated[Path, typer.Argument(help="A bundle, as written by `spr fit`.")]


@app.command()
def fit(
    config: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped configuration.")],
    impressions: Impressions,
    viewers: Viewers,
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
    entities: Entities = None,
) -> None:
    """Fit a ranker on logged tables and save it as a bundle."""
    import spr
    from spr.bundle import check_destination
    from spr.history import history_table

    with readable_errors(), progress_bars() as progress:
        check_destination(out)
        ranker = spr.fit(impressions, viewers, entities, config=read_config(config), progress=progress)
        ranker.save(out)
    print_table(history_table(ranker.history).set_index("what"), "what training chose")
    console.print(f"saved [bold]{out}[/bold], bundle {ranker.versions['bundle']}")


@app.command()
def rank(
    bundle: BundleDir,
    requests: Annotated[Path, typer.Option(help="Requests table: impressions without policy, position, labels.")],
    viewers: Viewers,
    out: Annotated[Path, typer.Option(help="Where to write the pages table (.parquet or .csv).")],
    entities: Entities = None,
) -> None:
    """Rank every request of a table."""
    import spr

    with readable_errors():
        ranker = spr.load(bundle)
        note_missing_entities(ranker, entities)
        with console.status("ranking"):
            pages = ranker.rank_table(requests, viewers, entities)
        write_table(pages, out)
    n_pages = pages["request_id"].nunique()
    console.print(f"{n_pages:,} pages, {len(pages):,} placements -> [bold]{out}[/bold]")


@app.command()
def evaluate(
    bundle: BundleDir,
    impressions: Impressions,
    viewers: Viewers,
    entities: Entities = None,
    train: Annotated[
        Path | None,
        typer.Option(help="Impressions the bundle was fitted on: adds baselines fitted on the same rows."),
    ] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates, over viewers.")] = 500,
) -> None:
    """Compare a bundle with baselines on held-out impressions of the random policy."""
    import spr
    from spr.evaluation.comparison import compare

    with readable_errors(), progress_bars() as progress:
        ranker = spr.load(bundle)
        note_missing_entities(ranker, entities)
        comparison = compare(
            ranker, impressions, viewers, entities, train=train, n_replicates=replicates, progress=progress
        )
    print_comparison(comparison)


@app.command()
def recalibrate(
    bundle: BundleDir,
    impressions: Impressions,
    entity_type: Annotated[str, typer.Option(help="Entity type of the first-pass ranker.")],
    ranker_version: Annotated[str, typer.Option(help="Its version.")],
    shadow: Annotated[
        Path | None,
        typer.Option(help="For a version that is not live yet, its scores: request_id, cohort_id, slot, raw_score."),
    ] = None,
    viewers: Annotated[Path | None, typer.Option(help="Viewers table, where calibrators are split by one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the new bundle; default: replace this one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Save even what held-out viewers speak against.")] = False,
) -> None:
    """Fit the calibrator of one first-pass ranker version, if held-out viewers agree; other parts stay as they are."""
    import spr
    from spr.bundle import check_destination, file_hashes, save, unchanged_parts
    from spr.recalibration import recalibrated

    with readable_errors():
        path = check_destination(out or bundle)
        ranker, before = spr.load(bundle), file_hashes(bundle)
        answer = recalibrated(
            ranker, impressions, entity_type=entity_type, ranker_version=ranker_version, shadow=shadow, viewers=viewers
        )
        if len(answer.table):
            rows, viewers_held_out = answer.table[["n_rows", "n_viewers"]].iloc[0]
            title = f"{entity_type} {ranker_version}, on {rows:,} rows of {viewers_held_out:,} viewers held out"
            print_table(answer.table.drop(columns=["n_rows", "n_viewers"]).T.rename_axis("figure"), title)
        for reason in answer.reasons:
            console.print(f"[red]against it[/red]: {escape(reason)}", highlight=False, soft_wrap=True)
        if not (answer.accepted or force):
            console.print("refused: nothing was written; --force saves it all the same")
            raise typer.Exit(1)
        save(answer.new, path, check=lambda fresh: unchanged_parts(before, fresh, changed="calibrators"))
        unchanged = unchanged_parts(before, path, changed="calibrators")
    console.print(f"{', '.join(unchanged)}: unchanged (sha256)")
    console.print(f"versions of {entity_type} with a curve: {', '.join(answer.new.calibrators.known(entity_type))}")
    console.print(f"saved [bold]{path}[/bold], bundle {answer.new.versions['bundle']}")


@app.command()
def warm() -> None:
    """Compile what is compiled, so that no fit and no request waits for it: a step of building an image."""
    from spr.glmix.warm import warm as compile_all

    with console.status("compiling the loops of spr.glmix"):
        seconds, path = compile_all()
    console.print(f"compiled in {seconds:.0f} s; cached in [bold]{path}[/bold]")


def read_config(name: str) -> Config:
    """Read a TOML file, or a shipped configuration by its name."""
    from spr.config import Config

    return Config.read(name) if name.endswith(".toml") else Config.named(name)


def note_missing_entities(ranker: SecondPassRanker, entities: Path | None) -> None:
    """Say so when a bundle was fitted with entity features and none are given: they are null to the trees."""
    if entities is None and any(source.scope == "entity" for source in ranker.features.sources):
        console.print(
            "[yellow]note[/yellow]: the bundle was fitted with an entities table and none is given (--entities)"
        )


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show an error that says what to do as one line; anything else is a defect and keeps its traceback."""
    from calibration import CalibrationError

    try:
        yield
    except (SPRError, CalibrationError) as error:
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
    sheet.add_column(str(frame.index.name or ""))
    for column in frame.columns:
        numeric = frame[column].dtype.kind in "if"
        sheet.add_column(str(column), justify="right" if numeric else "left", overflow="fold")
    for name, *values in frame.itertuples(name=None):
        sheet.add_row(str(name), *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values))
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


for _command in entry_points(group="spr.commands"):
    app.command(_command.name)(_command.load())
