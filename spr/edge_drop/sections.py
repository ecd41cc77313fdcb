"""Sections of a report: importance factors, and what they do to the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.edge_drop.plots import forest_plot, page_mix_plot
from spr.evaluation.report import Section

if TYPE_CHECKING:
    from spr.edge_drop.adoption import PageMix
    from spr.reorder import ImportanceFactors


def factors_section(factors: ImportanceFactors, title: str, name: str = "factors") -> Section:
    """Show factors: the forest plot, the numbers, and where they come from.

    Parameters
    ----------
    factors : ImportanceFactors
    title : str
    name : str, default "factors"
        Of the picture.

    Returns
    -------
    Section

    Examples
    --------
    >>> from spr.reorder import ImportanceFactors
    >>> factors_section(ImportanceFactors.of({}), "Factors").sentences[0]
    'No edge type has a factor of its own: all are worth the same.'
    """
    if not factors.factor:
        return Section(title, ["No edge type has a factor of its own: all are worth the same."])
    source = ", ".join(f"{what} {said}" for what, said in factors.source.items())
    where = f"From an experiment: {source}." if source else "Chosen numbers; no experiment stands behind them."
    return Section(
        title,
        [f"{where} Version {factors.version}."],
        {"Factors": factors_table(factors)},
        {name: forest_plot(factors)},
    )


def page_mix_section(mix: PageMix) -> Section:
    """Show where cohorts of each type stand, before and after where the factors differ.

    Parameters
    ----------
    mix : PageMix

    Returns
    -------
    Section
    """
    sentences = [f"{mix.n_pages:,} pages were ranked; {mix.n_random:,} more are of the random policy and left out."]
    tables = {"By edge type": mix.by_edge_type, "By entity type": mix.by_entity_type}
    if mix.before == mix.after:
        tables = {
            caption: table.filter(regex="_before$").rename(columns=lambda column: column.removesuffix("_before"))
            for caption, table in tables.items()
        }
    else:
        sentences += [
            f"The new factors change the order of {mix.n_changed:,} pages ({mix.n_changed / mix.n_pages:.1%}).",
            f"If they are right, the order served now gives up {mix.value_given_up:.2%} of the expected value, "
            "placements discounted by position as in normalized discounted cumulative gain.",
        ]
    tables = {caption: table.reset_index().set_index(table.index.names[-1]) for caption, table in tables.items()}
    return Section("Page mix", sentences, tables, {"page_mix": page_mix_plot(mix)})


def factors_table(factors: ImportanceFactors) -> pd.DataFrame:
    """Return factors and their parts, one row per edge type.

    Parameters
    ----------
    factors : ImportanceFactors

    Returns
    -------
    DataFrame
        By edge_type: factor, and where the factors have them: estimate, low and high (infinite where unbounded),
        value_per_edge, probability_downstream, decision. Null where a type has no such part.

    Examples
    --------
    >>> from spr.reorder import ImportanceFactors
    >>> factors_table(ImportanceFactors({"a": 1.5}, interval={"a": (1.1, None)})).loc["a"].to_dict()
    {'factor': 1.5, 'low': 1.1, 'high': inf}
    """
    columns: dict[str, dict[str, float | str]] = {
        "factor": dict(factors.factor),
        "estimate": dict(factors.estimate),
        "low": {t: -np.inf if low is None else low for t, (low, _) in factors.interval.items()},
        "high": {t: np.inf if high is None else high for t, (_, high) in factors.interval.items()},
        "value_per_edge": dict(factors.value_per_edge),
        "probability_downstream": dict(factors.probability_downstream),
        "decision": dict(factors.decision),
    }
    found = {name: pd.Series(column) for name, column in columns.items() if column}
    return pd.DataFrame(found, index=pd.Index(list(factors.factor), name="edge_type"))
