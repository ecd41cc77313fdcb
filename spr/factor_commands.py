"""``spr factors | report | adopt``: importance factors from an experiment, what they would do, and into a bundle."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from spr.cli import BundleDir, Entities, Viewers, console, print_table, progress_bars, readable_errors
from spr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from spr.edge_drop import FactorEstimates
    from spr.reorder import ImportanceFactors
    from spr.report import Section


def factors(
    table: Annotated[Path, typer.Argument(help="The edge_drop table of the experiment: Parquet or CSV.")],
    metric: Annotated[list[str], typer.Option(help="A column, or NAME=WEIGHT; several are summed.")],
    out: Annotated[Path, typer.Option(help="Where the factors go (.json); their picture beside them.")],
    per: Annotated[
        Literal["downstream-edge", "edge"],
        typer.Option(help="edge: for a second pass that is trained on responses."),
    ] = "downstream-edge",
    reference: Annotated[str | None, typer.Option(help="Its factor is 1; default: the type with most edges.")] = None,
    covariate: Annotated[list[str] | None, typer.Option(help="A further column from before the assignment.")] = None,
    experiment: Annotated[str, typer.Option(help="Its name, kept with the factors.")] = "",
    date: Annotated[str, typer.Option(help="Of the experiment, kept with the factors.")] = "",
    segments: Annotated[
        bool, typer.Option("--segments", help="One file per value of the column segment, too.")
    ] = False,
) -> None:
    """Estimate importance factors from an edge-drop experiment."""
    from spr.edge_drop import estimate_edge_values, estimate_segment_factors
    from spr.edge_drop.plots import forest_plot
    from spr.edge_drop.values import PER_BY_OPTION

    with readable_errors():
        weights, source = _weights(metric), {k: v for k, v in (("experiment", experiment), ("date", date)) if v}
        if out.suffix != ".json":
            raise ConfigError(f"--out is {out}; allowed: a .json file")
        values = estimate_edge_values(table, weights, covariates=covariate or ())
        estimates = values.factors(PER_BY_OPTION[per], reference=reference)
        by_segment: dict[str, FactorEstimates] = {}
        notes = list(values.notes)
        if segments:
            found = estimate_segment_factors(
                table, weights, PER_BY_OPTION[per], reference=reference, covariates=covariate or ()
            )
            by_segment, notes = dict(found.by_segment), list(found.notes)
        made = estimates.to_factors(source)
        made.save(out)
        forest_plot(made).savefig(out.with_suffix(".png"), dpi=120)
        for name, of_segment in by_segment.items():
            of_segment.to_factors({**source, "segment": name}).save(out.with_name(f"{out.stem}-{name}.json"))
    print_table(estimates.to_pandas(), f"importance factors, {values.metric}, {values.n_viewers:,} viewers")
    for name, of_segment in by_segment.items():
        print_table(of_segment.to_pandas(), f"segment {name}")
    curve = (
        f"curvature {values.curvature:.2f} ± {values.curvature_error:.2f}" if values.form == "concave" else values.form
    )
    checks = f"smallest p {values.balance['p_value'].min():.3f}; losses add up: p {values.additivity_p_value:.3f}"
    console.print(f"loss by dose: {curve}; doses against the past: {checks}", highlight=False, soft_wrap=True)
    for note in notes:
        console.print(f"[yellow]note[/yellow]: {escape(note)}", highlight=False, soft_wrap=True)
    console.print(f"saved [bold]{out}[/bold], factors {made.version}; picture: {out.with_suffix('.png')}")


def report(
    bundle: BundleDir,
    requests: Annotated[Path, typer.Option(help="Requests or impressions whose pages are ranked.")],
    viewers: Viewers,
    out: Annotated[Path, typer.Option(help="The HTML page.")],
    entities: Entities = None,
    new_factors: Annotated[
        Path | None, typer.Option("--factors", help="New factors (.json): their effect on the pages is shown.")
    ] = None,
) -> None:
    """Write a report of a bundle: its importance factors, and what new ones would do to the page mix."""
    import spr
    from spr.edge_drop.adoption import page_mix
    from spr.reorder import ImportanceFactors
    from spr.report import write_report

    with readable_errors(), progress_bars() as progress:
        ranker = spr.load(bundle)
        new = ranker.factors if new_factors is None else ImportanceFactors.read(new_factors)
        progress("pages", 0, 1)
        mix = page_mix(ranker, new, requests, viewers, entities)
        progress("pages", 1, 1)
        sections = [_factor_section("Importance factors of the bundle", ranker.factors)]
        if new_factors is not None:
            sections.append(_factor_section(f"New factors: {new_factors.name}", new))
        said = [f"{mix.n_pages:,} pages that are not of the random policy."]
        if new_factors is not None:
            said.append(
                f"{mix.n_changed:,} of them change. Keeping the old order would give up "
                f"{100 * mix.value_given_up:.2f} % of the value in the top {mix.within_top}, by the new factors."
            )
        sections.append(_mix_section(mix.table, mix.within_top, said))
        write_report(out, f"Bundle {ranker.versions['bundle']}", sections)
    print_table(mix.table, f"page mix in the top {mix.within_top}")
    for sentence in said:
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"report: [bold]{out}[/bold]")


def adopt(
    bundle: BundleDir,
    new_factors: Annotated[Path, typer.Argument(metavar="FACTORS", help="Importance factors (.json).")],
    out: Annotated[Path | None, typer.Option(help="Directory of the new bundle; default: replace this one.")] = None,
) -> None:
    """Put new importance factors into a bundle; other parts stay as they are."""
    import pandas as pd

    import spr
    from spr.bundle import check_destination, file_hashes, save, unchanged_parts
    from spr.edge_drop.adoption import require_known
    from spr.reorder import ImportanceFactors

    with readable_errors():
        path = check_destination(out or bundle)
        ranker, before, new = spr.load(bundle), file_hashes(bundle), ImportanceFactors.read(new_factors)
        require_known(ranker, new)
        adopted = ranker.with_factors(new)
        save(adopted, path, check=lambda fresh: unchanged_parts(before, fresh, changed="factors"))
        unchanged = unchanged_parts(before, path, changed="factors")
    types = sorted(ranker.config.edge_types)
    both = {"old": ranker.factors.at(types), "new": new.at(types)}
    print_table(pd.DataFrame(both, index=pd.Index(types, name="edge_type")), "importance factors")
    console.print(f"{', '.join(unchanged)}: unchanged (sha256)")
    console.print(f"saved [bold]{path}[/bold], bundle {adopted.versions['bundle']}")


def _weights(metric: Sequence[str]) -> dict[str, float]:
    weights = {}
    for one in metric:
        name, _, weight = one.partition("=")
        try:
            weights[name] = float(weight) if weight else 1.0
        except ValueError:
            raise ConfigError(f"--metric is {one!r}; allowed: NAME or NAME=WEIGHT, such as comments=3") from None
    return weights


def _factor_section(title: str, made: ImportanceFactors) -> Section:
    from spr.edge_drop.plots import forest_plot
    from spr.report import Section

    said = [", ".join(f"{name}: {what}" for name, what in made.source.items())] if made.source else []
    said = said or ["Chosen, not estimated: there is no interval."]
    return Section(
        title, said, {"": made.to_pandas()}, {"importance factors with intervals": forest_plot(made, title="")}
    )


def _mix_section(table: pd.DataFrame, within_top: int, said: Sequence[str]) -> Section:
    from spr.edge_drop.plots import page_mix_plot
    from spr.report import Section

    figure = page_mix_plot(table, within_top=within_top, title="")
    return Section("Page mix", said, {f"shares of the top {within_top}, mean positions": table}, {"page mix": figure})
