"""``spr quickstart``: the whole main job on a made network or on Last.fm, with no data of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from spr import Config, Page, SecondPassRanker
    from spr.evaluation import Comparison

_VIEWERS, _REQUESTS, _TRAINING_DAYS = 600, 24_000, 25


class Data(StrEnum):
    """What the quickstart runs on."""

    WORLD = "world"
    LASTFM = "lastfm"


@dataclass(frozen=True)
class QuickstartTables:
    """What a quickstart learns from and is judged on; ``names`` are for people to read."""

    config: Config
    train: pd.DataFrame
    test: pd.DataFrame
    viewers: pd.DataFrame
    entities: pd.DataFrame
    frequency: Mapping[str, str]
    names: Mapping[str, str]


def quickstart(
    path: Annotated[Path | None, typer.Argument(help="Where the Last.fm data is; default: SPR_DATA.")] = None,
    data: Annotated[Data, typer.Option(help="A made network of seven types, or Last.fm.")] = Data.WORLD,
    out: Annotated[Path, typer.Option(help="Where the bundle and the plot go.")] = Path("quickstart"),
    pages: Annotated[int, typer.Option(help="How many pages to show.")] = 3,
) -> None:
    """Run the main job: tables, fit, save, load, rank, compare with baselines, plot."""
    import spr
    from spr.cli import console, print_comparison, print_table, progress_bars, readable_errors
    from spr.evaluation import compare
    from spr.history import history_table

    with readable_errors(), progress_bars() as progress:
        progress("tables", 0, 1)
        tables = make_world() if data is Data.WORLD else make_lastfm(path)
        progress("tables", 1, 1)
        fitted = spr.fit(tables.train, tables.viewers, tables.entities, config=tables.config, progress=progress)
        fitted.save(out / "bundle")
        ranker = spr.load(out / "bundle")
        comparison = compare(
            ranker,
            tables.test,
            tables.viewers,
            tables.entities,
            train=tables.train,
            frequency=tables.frequency,
            progress=progress,
        )
        plot_reliability(comparison, out / "reliability.png")
    print_table(ranker.calibrators.to_frame().set_index("entity_type"), "calibrators")
    print_table(history_table(ranker.history).set_index("what"), "what training chose (held-out log loss)")
    for page in rank_some(ranker, tables, pages):
        print_table(page_table(page, tables.names), f"page of {page.viewer_id}, policy {page.policy}{_notes(page)}")
    print_comparison(comparison)
    console.print(f"bundle: [bold]{out / 'bundle'}[/bold]   reliability plot: [bold]{out / 'reliability.png'}[/bold]")


def make_world() -> QuickstartTables:
    """Make the seven-type network, whose truth is known."""
    import pandas as pd

    from simulations.splitting import split_pages
    from simulations.world import World
    from spr import Config

    config = Config.named("network")
    world = World(_VIEWERS, seed=config.seed)
    made = world.tables(_REQUESTS)
    start = made.impressions["at"].min().normalize()
    split = split_pages(
        made.impressions,
        until=start + pd.Timedelta(days=_TRAINING_DAYS),
        seed=config.seed,
        windows=config.labels.response_window + config.labels.downstream_window,
    )
    return QuickstartTables(config, split.train, split.test, made.viewers, made.entities, split.frequency, names={})


def make_lastfm(path: Path | None) -> QuickstartTables:
    """Read the Last.fm network; see :func:`simulations.lastfm.build_tables`."""
    from simulations.lastfm import build_tables
    from spr import Config

    config = Config.named("lastfm")
    made = build_tables(path, seed=config.seed)
    names = dict(zip(made.names["entity_id"], made.names["name"], strict=True))
    return QuickstartTables(config, made.train, made.test, made.viewers, made.entities, made.frequency, names=names)


def rank_some(ranker: SecondPassRanker, tables: QuickstartTables, n: int) -> list[Page]:
    """Rank the first test page (not a shuffled one) of some frequent viewers, and of one who was never seen."""
    import numpy as np

    from spr.reorder import is_random

    exploration = ranker.config.exploration
    first = tables.test.drop_duplicates("viewer_id")
    shuffled = [is_random(r, exploration.random_share, exploration.salt) for r in first["request_id"]]
    first = first[~np.array(shuffled)]
    often = first["viewer_id"].map(tables.frequency)
    wanted = [*first.loc[often == "frequent", "request_id"][: n - 1], *first.loc[often == "unseen", "request_id"][:1]]
    logged = tables.test[tables.test["request_id"].isin(wanted)]
    return list(ranker.rank_pages(logged, tables.viewers, tables.entities))


def page_table(page: Page, names: Mapping[str, str]) -> pd.DataFrame:
    """Return a page as people read it: one row per placement, its first two entities by name."""
    import pandas as pd

    rows = [
        {
            "position": placement.position,
            "cohort": placement.cohort_kind,
            "type": placement.entity_type,
            "edge": placement.edge_type,
            "probability": placement.probability,
            "factor": placement.importance,
            "value": placement.value,
            "reason": placement.reason,
            "first entities": ", ".join(names.get(entity, entity) for entity in placement.entity_id[:2]),
        }
        for placement in page.placements
    ]
    return pd.DataFrame(rows).set_index("position")


def plot_reliability(comparison: Comparison, path: Path) -> None:
    """Save the reliability of the ranker, overall and per entity type."""
    import numpy as np

    from calibration.diagnostics import reliability_table
    from calibration.plots import reliability_plot
    from spr.evaluation import SPR

    probability = np.asarray(comparison.predictions[SPR].probability)
    label, entity_type = comparison.frame["label"].to_numpy(), comparison.frame["entity_type"]
    tables = {"all": reliability_table(probability, label)}
    for name in sorted(entity_type.unique()):
        rows = (entity_type == name).to_numpy()
        tables[name] = reliability_table(probability[rows], label[rows])
    figure = reliability_plot(tables, title="Probability of a downstream interaction: predicted and observed")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _notes(page: Page) -> str:
    notes = [f"short of {name} by {n}" for name, n in page.shortfall.items()]
    notes += list(page.fallbacks)
    return f" ({'; '.join(notes)})" if notes else ""
