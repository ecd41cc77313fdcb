"""Before new factors are adopted: what they would do to the pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.errors import ConfigError, name_unknown

if TYPE_CHECKING:
    from spr.page import Page
    from spr.ranker import SecondPassRanker
    from spr.reorder import ImportanceFactors
    from spr.tables import Table

WITHIN_TOP = 5


@dataclass(frozen=True)
class PageMix:
    """The pages of logged requests under a ranker's own factors and under new ones.

    Parameters
    ----------
    table : DataFrame
        By edge_type: share_before, share_after of the placements above ``within_top``; position_before,
        position_after, the mean over all placements of the type.
    within_top : int
    n_pages : int
        Pages that are not of the random policy, which no factor moves.
    n_changed : int
        Of these, pages on which at least one cohort stands elsewhere.
    value_given_up : float
        By keeping the old order, as a share of the total value above ``within_top`` by the new factors.
    """

    table: pd.DataFrame
    within_top: int
    n_pages: int
    n_changed: int
    value_given_up: float


def page_mix(
    ranker: SecondPassRanker,
    factors: ImportanceFactors,
    requests: Table,
    viewers: Table,
    entities: Table | None = None,
    *,
    within_top: int = WITHIN_TOP,
) -> PageMix:
    """Rank requests under the ranker's factors and under new ones, guarantees kept in both.

    Parameters
    ----------
    ranker : SecondPassRanker
    factors : ImportanceFactors
        New ones.
    requests, viewers, entities : DataFrame or path
        As of :meth:`spr.SecondPassRanker.rank_table`.
    within_top : int, default 5
        Positions that the mix is counted on; at least 1.

    Returns
    -------
    PageMix

    Raises
    ------
    ConfigError
        When a factor is of an edge type that the ranker does not know, or there is nothing to count.
    TableError, UnknownRankerVersion
        As of ``rank_table``.
    """
    require_known(ranker, factors)
    if within_top < 1:
        raise ConfigError(f"within_top is {within_top}; allowed: 1 or more")
    pages = list(
        zip(*(r.rank_pages(requests, viewers, entities) for r in (ranker, ranker.with_factors(factors))), strict=True)
    )
    pages = [(old, new) for old, new in pages if old.policy != "random"]
    if not pages:
        raise ConfigError("every request is of the random policy, whose pages no factor moves; give more requests")
    sides = {}
    for side, name in enumerate(("before", "after")):
        edge_type = np.concatenate([_edge_types(pair[side]) for pair in pages])
        position = np.concatenate([np.arange(len(pair[side].order)) for pair in pages])
        sides[f"share_{name}"] = pd.Series(edge_type[position < within_top]).value_counts(normalize=True)
        sides[f"position_{name}"] = pd.Series(position).groupby(edge_type).mean()
    table = pd.DataFrame(sides, index=pd.Index(sorted(ranker.config.edge_types), name="edge_type"))
    table = table[["share_before", "share_after", "position_before", "position_after"]]
    table[["share_before", "share_after"]] = table[["share_before", "share_after"]].fillna(0.0)
    kept, best = (sum(_value(new, order, within_top) for new, order in ways) for ways in (
        [(new, old.order) for old, new in pages], [(new, new.order) for _, new in pages],
    ))  # fmt: skip
    changed = sum(not np.array_equal(old.order, new.order) for old, new in pages)
    return PageMix(table, within_top, len(pages), changed, float(1.0 - kept / best))


def require_known(ranker: SecondPassRanker, factors: ImportanceFactors) -> None:
    """Refuse factors of edge types that a ranker does not know.

    Raises
    ------
    ConfigError
        With the known types, and the one that was probably meant.
    """
    for edge_type in factors.factor:
        if edge_type not in ranker.config.edge_types:
            raise ConfigError(name_unknown("edge type", edge_type, ranker.config.edge_types, "the factors"))


def _edge_types(page: Page) -> np.ndarray:
    return page.values.edge_type[page.order]


def _value(page: Page, order: np.ndarray, within_top: int) -> float:
    return float(page.values.value[order[:within_top]].sum())
