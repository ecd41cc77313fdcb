"""The command that replays a log: how fast the parts of a ranker grow old."""

# Annotations are read by typer when the program runs, so that they are not postponed here.
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from spr.cli.arguments import Entities, Impressions, Viewers
from spr.cli.bundles import read_config
from spr.cli.terminal import console, print_table, progress_bars, readable_errors, write_table

if TYPE_CHECKING:
    from spr.evaluation.replay import Moment


def replay(
    config: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped configuration.")],
    impressions: Impressions,
    viewers: Viewers,
    cut: Annotated[list[str], typer.Option(help="Moment (UTC) to train up to, e.g. 2026-01-10; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder of the report: report.html, its pictures and ageing.parquet.")],
    entities: Entities = None,
    every: Annotated[
        str | None, typer.Option(help="Further cuts at this distance after the last --cut, to the log's end: 7d.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="How much of the log before its cut a fit learns from: 14d. Default: all.")
    ] = None,
    replicates: Annotated[int, typer.Option(help="Bootstrap replicates, over viewers.")] = 500,
) -> None:
    """Walk through a log: train up to each cut, judge on what came next, and show how fast each part grows old."""
    from spr import tables
    from spr.evaluation.ageing import METRIC_NAMES, SELECTION_BIAS
    from spr.evaluation.replay import cut_schedule, fits_needed
    from spr.evaluation.replay import replay as walk
    from spr.evaluation.replay_report import replay_sections
    from spr.evaluation.report import check_folder, write_report

    with readable_errors():
        check_folder(out)
        settings = read_config(config)
        rows = tables.read_impressions(impressions, settings)
        cuts: list[Moment] = list(cut)
        if every is not None:
            cuts[-1:] = cut_schedule(rows, settings, cut[-1], read_span("--every", every))
        learnt = None if window is None else read_span("--window", window)
        console.print(f"{len(cuts)} cuts: {fits_needed(len(cuts))}", highlight=False)
        with progress_bars() as progress:
            found = walk(
                rows,
                viewers,
                settings,
                cuts,
                entities,
                window=learnt,
                n_replicates=replicates,
                progress=progress,
            )
        sections = replay_sections(found)
        page = write_report(out, "Replay", sections)
        write_table(found.to_pandas(), out / "ageing.parquet")
    for metric, name in METRIC_NAMES.items():
        title = f"{name}, kept - fresh [95 % interval]; * = worse, all looked at at once"
        print_table(found.ageing_table(metric), title)
    (ranks,) = sections[-1].tables.values()
    print_table(ranks, "mean rank of the cohorts that were acted on, 1 = top [95 % interval]")
    for sentence in (*found.sentences(), SELECTION_BIAS):
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    console.print(f"saved [bold]{escape(str(page))}[/bold]", soft_wrap=True)


def read_span(option: str, text: str) -> timedelta:
    """Read the duration that an option was given.

    Raises
    ------
    ConfigError
        When it is none.
    """
    from spr.errors import ConfigError
    from spr.sections import read_duration

    try:
        return read_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
