"""The commands around a bundle: fit, rank, evaluate, recalibrate, warm."""

# Annotations are read by typer when the program runs, so that they are not postponed here.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from spr.cli.arguments import BundleDir, Entities, Impressions, Requests, Viewers
from spr.cli.terminal import (
    console,
    note_missing_entities,
    print_comparison,
    print_table,
    progress_bars,
    readable_errors,
    write_table,
)

if TYPE_CHECKING:
    from spr.config import Config


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


def rank(
    bundle: BundleDir,
    requests: Requests,
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


def warm() -> None:
    """Compile what is compiled, so that no fit and no request waits for it: a step of building an image."""
    from spr.glmix.warm import warm as compile_fits
    from spr.reorder.warm import warm as compile_pages

    for loops, compile_them in (("spr.glmix", compile_fits), ("spr.reorder", compile_pages)):
        with console.status(f"compiling the loops of {loops}"):
            seconds, path = compile_them()
        console.print(f"{loops}: compiled in {seconds:.0f} s; cached in [bold]{path}[/bold]")


def read_config(name: str) -> "Config":
    """Read a TOML file, or a shipped configuration by its name."""
    from spr.config import Config

    return Config.read(name) if name.endswith(".toml") else Config.named(name)
