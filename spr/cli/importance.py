"""The commands around importance factors: estimate them, show what they do, adopt them."""

# Annotations are read by typer when the program runs, so that they are not postponed here.
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from rich.markup import escape

from spr.cli.arguments import BundleDir, Entities, Requests, Viewers
from spr.cli.terminal import console, note_missing_entities, print_table, readable_errors

if TYPE_CHECKING:
    from spr.edge_drop import FactorEstimates, Per


class PerEdge(StrEnum):
    """What the second pass's probability is of."""

    DOWNSTREAM_EDGE = "downstream-edge"
    EDGE = "edge"


_PER: Mapping[PerEdge, "Per"] = {PerEdge.DOWNSTREAM_EDGE: "downstream_edge", PerEdge.EDGE: "edge"}


def factors(
    table: Annotated[Path, typer.Argument(help="The edge_drop table of the experiment: Parquet or CSV.")],
    metric: Annotated[
        list[str], typer.Option(help="What the page is to maximise; several with weights: likes=1, comments=3.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the factors (.json); the plot goes beside it.")],
    per: Annotated[
        PerEdge, typer.Option(help="downstream-edge: the bundle predicts downstream interactions; edge: responses.")
    ] = PerEdge.DOWNSTREAM_EDGE,
    reference: Annotated[
        str | None, typer.Option(help="Edge type of factor 1; default: the one with most edges.")
    ] = None,
    covariate: Annotated[
        list[str] | None, typer.Option(help="Column from before the assignment, beside pre_<metric>; may be repeated.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="The experiment's name, kept with the factors.")] = None,
    date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Its date, kept with the factors.")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Also one file per value of the column `segment`, partially pooled.")
    ] = False,
) -> None:
    """Estimate importance factors from an edge-drop experiment."""
    from spr.edge_drop import estimate_edge_values, estimate_segment_factors

    with readable_errors():
        weights, of_what = read_metric(metric), _PER[per]
        check_json(out)
        source = {} if experiment is None else {"experiment": experiment}
        source |= {} if date is None else {"date": f"{date:%Y-%m-%d}"}
        covariates = covariate or ()
        if segments:
            found = estimate_segment_factors(table, weights, of_what, reference=reference, covariates=covariates)
            overall, by_segment, notes = found.overall, found.by_segment, found.notes
        else:
            values = estimate_edge_values(table, weights, covariates=covariates)
            overall, by_segment, notes = values.factors(of_what, reference=reference), {}, values.notes
        print_estimates(overall, "all viewers" if segments else "importance factors")
        for segment, estimates in by_segment.items():
            print_estimates(estimates, f"segment {segment}")
        print_checks(overall, notes)
        save_factors(overall, out, source, "Importance factors")
        for segment, estimates in by_segment.items():
            path = out.with_name(f"{out.stem}-{quote(segment, safe='')}.json")
            save_factors(estimates, path, {**source, "segment": segment}, f"Importance factors, segment {segment}")


def report(
    bundle: BundleDir,
    requests: Requests,
    viewers: Viewers,
    out: Annotated[Path, typer.Option(help="Folder of the report: report.html and its pictures.")],
    entities: Entities = None,
    factors: Annotated[Path | None, typer.Option(help="New factors (.json) to hold against the bundle's.")] = None,
    impressions: Annotated[
        Path | None, typer.Option(help="Logged impressions: also says which entity types have enough responses.")
    ] = None,
) -> None:
    """Show a bundle's factors and page mix, what new factors would change, and who has enough data, as an HTML page."""
    import spr
    from spr.edge_drop import page_mix
    from spr.edge_drop.sections import factors_section, page_mix_section
    from spr.evaluation.readiness import readiness, readiness_section
    from spr.evaluation.report import check_folder, write_report
    from spr.reorder import ImportanceFactors

    with readable_errors():
        check_folder(out)
        new = None if factors is None else ImportanceFactors.read(factors)
        ranker = spr.load(bundle)
        note_missing_entities(ranker, entities)
        with console.status("ranking"):
            mix = page_mix(ranker, new or ranker.factors, requests, viewers, entities)
        sections = [factors_section(ranker.factors, "Factors that are served now")]
        if new is not None:
            sections.append(factors_section(new, "New factors", "new_factors"))
        mixed = page_mix_section(mix)
        sections.append(mixed)
        said = list(mixed.sentences)
        if impressions is not None:
            enough = readiness_section(readiness(impressions, ranker.config, ranker=ranker))
            sections.append(enough)
            said += enough.sentences
        page = write_report(out, f"Bundle {ranker.versions['bundle']}", sections)
    print_table(next(iter(mixed.tables.values())).T.rename_axis("figure"), "page mix by edge type")
    for sentence in said:
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    console.print(f"saved [bold]{escape(str(page))}[/bold]", soft_wrap=True)


def adopt(
    bundle: BundleDir,
    factors: Annotated[Path, typer.Argument(help="Factors (.json), as written by `spr factors`.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the new bundle; default: replace this one.")] = None,
) -> None:
    """Put new importance factors into a bundle; other parts stay as they are."""
    import spr
    from spr.bundle import check_destination, file_hashes, save, unchanged_parts
    from spr.edge_drop.adoption import compare_factors, with_known_factors
    from spr.reorder import ImportanceFactors

    with readable_errors():
        path = check_destination(out or bundle)
        new = ImportanceFactors.read(factors)
        ranker, before = spr.load(bundle), file_hashes(bundle)
        adopted = with_known_factors(ranker, new)
        save(adopted, path, check=lambda fresh: unchanged_parts(before, fresh, changed="factors"))
        unchanged = unchanged_parts(before, path, changed="factors")
    print_table(compare_factors(ranker, new), "importance factors")
    console.print(f"{', '.join(unchanged)}: unchanged (sha256)")
    console.print(f"saved [bold]{escape(str(path))}[/bold], bundle {adopted.versions['bundle']}", soft_wrap=True)
    console.print(
        f'a later fit takes them, too, with \\[importance] file = "{escape(str(factors))}" in its configuration',
        highlight=False,
        soft_wrap=True,
    )


def read_metric(given: Sequence[str]) -> str | dict[str, float]:
    """Read metrics with their weights: ``["likes", "comments=3"]``.

    Raises
    ------
    ConfigError
        When a weight is not a number or a metric is named twice.
    """
    from spr.errors import ConfigError

    weights: dict[str, float] = {}
    for metric in given:
        name, _, weight = metric.partition("=")
        try:
            number = float(weight or 1.0)
        except ValueError:
            raise ConfigError(f"--metric {metric}: {weight!r} is no number; write a weight as in comments=3") from None
        if not name or name in weights:
            raise ConfigError(
                f"--metric {metric}: {'named twice' if name else 'names no column'}; name each column once"
            )
        weights[name] = number
    return next(iter(weights)) if list(weights.values()) == [1.0] else weights


def check_json(path: Path) -> None:
    """Refuse a destination that is not a .json file, before any work.

    Raises
    ------
    ConfigError
        When it ends in something else.
    """
    from spr.errors import ConfigError

    if path.suffix != ".json" or path.is_dir():
        raise ConfigError(f"--out {path}: factors are written to a file that ends in .json, the plot beside it as .png")


def print_estimates(estimates: "FactorEstimates", title: str) -> None:
    """Print the factors of one group of viewers, with 95 % intervals."""
    table = estimates.to_pandas()
    shown = table[["value", "standard_error", "ratio"]].copy()
    shown["interval"] = [_interval(*bounds) for bounds in estimates.interval.tolist()]
    shown["all at once"] = [_interval(*bounds) for bounds in estimates.simultaneous.tolist()]
    shown[["shrunk", "factor", "decision"]] = table[["shrunk", "factor", "decision"]]
    per = estimates.per.replace("_", " ")
    print_table(
        shown, f"{title}: {estimates.values.metric} lost per {per}, relative to {estimates.reference} [95 % intervals]"
    )


def print_checks(estimates: "FactorEstimates", notes: Sequence[str]) -> None:
    """Print what speaks for and against the estimates: balance, additivity, curvature, what was left out."""
    values = estimates.values
    figures: Mapping[str, str] = {
        "viewers": f"{values.n_viewers:,}",
        **({"clusters": f"{values.n_clusters:,}"} if values.n_clusters != values.n_viewers else {}),
        **{f"balance of {name}, p-value": f"{p:.3g}" for name, p in values.balance["p_value"].items()},
        "losses add up, p-value": f"{values.additivity_p_value:.3g}",
        "form of the loss": values.form,
        "curvature (1 = straight line)": f"{values.curvature:.2f}, standard error {values.curvature_error:.2f}",
        "correlation with the pre-period": f"{values.pre_correlation:.2f}",
    }
    import pandas as pd

    print_table(pd.DataFrame({"": pd.Series(figures)}).rename_axis("figure"), "checks")
    for note in notes:
        console.print(f"[yellow]note[/yellow]: {escape(note)}", highlight=False, soft_wrap=True)


def save_factors(estimates: "FactorEstimates", path: Path, source: Mapping[str, str], title: str) -> None:
    """Write the factors, and their forest plot beside them."""
    from spr.edge_drop.plots import forest_plot

    made = estimates.to_factors(source)
    made.save(path)
    forest_plot(made, title=title).savefig(path.with_suffix(".png"), dpi=150)
    shown = escape(str(path))
    console.print(f"saved [bold]{shown}[/bold] and its plot, factors {made.version}", soft_wrap=True)


def _interval(low: float, high: float) -> str:
    return "unbounded" if low == -float("inf") and high == float("inf") else f"[{low:.3g}, {high:.3g}]"
