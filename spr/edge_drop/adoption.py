"""What other importance factors would do to the pages, shown before they are adopted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr import tables
from spr.assembly import assemble
from spr.errors import ConfigError, TableError, name_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spr.page import CohortValues, Page
    from spr.ranker import SecondPassRanker
    from spr.reorder import ImportanceFactors
    from spr.tables import Table

_TOP_WITHOUT_GUARANTEES = 5


@dataclass(frozen=True)
class PageMix:
    """Where cohorts of each edge type stand, under the factors of a ranker and under others.

    Parameters
    ----------
    by_edge_type : DataFrame
        By edge_type: ``factor_before, factor_after``; ``share_before, share_after``, the part of all placements above
        ``within_top`` that is of the type; ``first_before, first_after``, the part of all pages whose top placement is;
        ``position_before, position_after``, the mean position of its placements, 0 = top; and of each of the three
        ``..._difference``, after less before.
    by_entity_type : DataFrame
        The same by (edge_type, entity_type).
    before, after : ImportanceFactors
        The ranker's, and the others.
    within_top : int
        Placements at positions 0 to ``within_top - 1`` count for the shares.
    n_pages, n_changed, n_random : int
        Pages that were compared, those of them with another order, and pages of the random policy, which no factor
        moves and which are left out.
    value_given_up : float
        Part of the value under the new factors that the old order loses; 0 = none. Summed over all placements, each
        with the discount ``1 / log2(position + 2)`` of normalized discounted cumulative gain, since without one no
        order would lose anything.
    """

    by_edge_type: pd.DataFrame
    by_entity_type: pd.DataFrame
    before: ImportanceFactors
    after: ImportanceFactors
    within_top: int
    n_pages: int
    n_changed: int
    n_random: int
    value_given_up: float


def page_mix(
    ranker: SecondPassRanker,
    factors: ImportanceFactors,
    requests: Table,
    viewers: Table,
    entities: Table | None = None,
    *,
    within_top: int | None = None,
) -> PageMix:
    """Compare the pages of a ranker with those that it would make with other importance factors.

    Every cohort is valued once, since no stage before the factor depends on it; guarantees are kept on both sides, from
    the same counters.

    Parameters
    ----------
    ranker : SecondPassRanker
        With the factors that are served now.
    factors : ImportanceFactors
        To be compared with them.
    requests, viewers, entities : DataFrame or path
        As of :meth:`spr.SecondPassRanker.rank_table`.
    within_top : int, optional
        Default: the largest ``within_top`` of the ranker's guarantees; without guarantees 5, since over whole pages a
        share never changes: all cohorts of a request are on its page.

    Returns
    -------
    PageMix

    Raises
    ------
    ConfigError
        When the factors name an edge type that the ranker's configuration does not, or ``within_top`` is below 1.
    TableError
        When a table breaks its contract, or every page is of the random policy.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> from spr.reorder import ImportanceFactors
    >>> log = World(n_viewers=120, seed=1).tables(800)
    >>> config = spr.Config.named("network").model_copy(update={"guarantees": ()})
    >>> ranker = spr.fit(log.impressions, log.viewers, config=config)
    >>> factors = ImportanceFactors.of({"connection": 8.0})
    >>> mix = page_mix(ranker, factors, log.impressions, log.viewers)
    >>> bool(mix.by_edge_type.loc["connection", "share_difference"] > 0)
    True
    """
    new = with_known_factors(ranker, factors)
    if within_top is None:
        within_top = max((g.within_top for g in ranker.guarantees), default=_TOP_WITHOUT_GUARANTEES)
    if within_top < 1:
        raise ConfigError(f"within_top={within_top}; allowed: a whole number of at least 1")
    rows = tables.read_requests(requests, ranker.config)
    known_of_entities = None if entities is None else tables.read_entities(entities)
    values = ranker.value_cohorts(assemble(rows, tables.read_viewers(viewers), known_of_entities))
    importance = factors.at(values.edge_type)
    revalued = replace(values, importance=importance, value=values.probability * importance)
    pages = [page for page in ranker.place_pages(values, rows) if page.policy != "random"]
    moved = [page for page in new.place_pages(revalued, rows) if page.policy != "random"]
    n_random = values.batch.n_requests - len(pages)
    if not pages:
        raise TableError(f"requests: all {n_random:,} pages are of the random policy, which no factor moves")
    before, after = _order(pages), _order(moved)
    best = _discounted(revalued, after)
    return PageMix(
        _mix(values, revalued, before, after, within_top, ["edge_type"]),
        _mix(values, revalued, before, after, within_top, ["edge_type", "entity_type"]),
        ranker.factors,
        factors,
        within_top,
        len(pages),
        sum(not np.array_equal(old.order, page.order) for old, page in zip(pages, moved, strict=True)),
        n_random,
        1.0 - _discounted(revalued, before) / best if best > 0 else 0.0,
    )


def with_known_factors(ranker: SecondPassRanker, factors: ImportanceFactors) -> SecondPassRanker:
    """Return a ranker with other importance factors, of edge types that its configuration knows.

    Parameters
    ----------
    ranker : SecondPassRanker
    factors : ImportanceFactors

    Returns
    -------
    SecondPassRanker

    Raises
    ------
    ConfigError
        When an edge type is not in the configuration: its factor would never be used.
    """
    known = ranker.config.edge_types
    for edge_type in factors.factor:
        if edge_type not in known:
            raise ConfigError(
                f"{name_unknown('edge type', edge_type, known, 'the importance factors')} Take it out of the factors, "
                "or give an entity type of the configuration this edge type and fit again"
            )
    return ranker.with_factors(factors)


def compare_factors(ranker: SecondPassRanker, factors: ImportanceFactors) -> pd.DataFrame:
    """Put the factors that are served beside those that would be.

    Parameters
    ----------
    ranker : SecondPassRanker
        With the factors that are served now.
    factors : ImportanceFactors

    Returns
    -------
    DataFrame
        By edge_type of the ranker's configuration: ``before``, ``after`` (1 where the factors do not name the type) and
        ``decision``, what the experiment says of the new one; empty where nothing was decided.
    """
    edge_types = list(ranker.config.edge_types)
    decision = [factors.decision.get(t, "" if t in factors.factor else "not named: 1") for t in edge_types]
    columns = {"before": ranker.factors.at(edge_types), "after": factors.at(edge_types), "decision": decision}
    return pd.DataFrame(columns, index=pd.Index(edge_types, name="edge_type"))


def _order(pages: Sequence[Page]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cohorts of all placements and their positions."""
    cohort = np.concatenate([page.order for page in pages])
    return cohort, np.concatenate([np.arange(len(page.order)) for page in pages])


def _discounted(values: CohortValues, placed: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
    cohort, position = placed
    return float(values.value[cohort] @ (1.0 / np.log2(position + 2.0)))


def _mix(
    values: CohortValues,
    revalued: CohortValues,
    before: tuple[NDArray[np.int64], NDArray[np.int64]],
    after: tuple[NDArray[np.int64], NDArray[np.int64]],
    within_top: int,
    key: list[str],
) -> pd.DataFrame:
    sides = {}
    for side, of_side, (cohort, position) in (("before", values, before), ("after", revalued, after)):
        frame = pd.DataFrame(
            {
                "edge_type": values.edge_type[cohort],
                "entity_type": values.batch.entity_type[cohort],
                "factor": of_side.importance[cohort],
                "share": (position < within_top) / (position < within_top).sum(),
                "first": (position == 0) / (position == 0).sum(),
                "position": position,
            }
        )
        how = {"factor": "first", "share": "sum", "first": "sum", "position": "mean"}
        sides[side] = frame.groupby(key).agg(how)
    columns: dict[str, pd.Series] = {}
    for column in ("factor", "share", "first", "position"):
        columns |= {f"{column}_{side}": table[column] for side, table in sides.items()}
        if column != "factor":
            columns[f"{column}_difference"] = sides["after"][column] - sides["before"][column]
    return pd.DataFrame(columns)
