"""The truth of a made network: response curves, examination, and the probability of every cohort."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from simulations.response_curves import CURVES
from spr.errors import InvalidModelInput, UnknownEntityType, name_unknown
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    import numpy.typing as npt

    from simulations.response_curves import ResponseCurve
    from simulations.world import World

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WorldTruth:
    """What is known about a made network, and what estimates are held against.

    A cohort at position p is examined with probability ``position_examination[p]``; in an examined cohort
    the entity at slot s is examined with probability ``slot_examination[s]``, independently. An examined
    entity gets a response with ``response_probability``; a response is followed by a downstream interaction
    with ``downstream_probability`` of the viewer and the entity type.

    Parameters
    ----------
    downstream_probability : DataFrame
        P(downstream | response), one row per viewer id, one column per entity type.
    position_examination, slot_examination : ndarray of float
        Non-increasing, from 1 at position 0 and at slot 0.
    world : World
        The world it is the truth of.
    """

    downstream_probability: pd.DataFrame
    position_examination: Floats
    slot_examination: Floats
    world: World = field(repr=False)

    @property
    def curves(self) -> tuple[ResponseCurve, ...]:
        """The response curves, in order of the entity types."""
        return tuple(CURVES.values())

    @property
    def examination_table(self) -> Floats:
        """P(an entity is examined) by position and slot where pages are read by row and column: not a product."""
        row, column = np.ogrid[: len(self.position_examination), : len(self.slot_examination)]
        return np.asarray(1.0 / (1.0 + 0.3 * row + 0.15 * column))

    @property
    def slot_examination_at_top(self) -> Floats:
        """P(an entity is examined) by slot, of a cohort at position 0, however pages are read."""
        by_table = self.world.behaviour.examination == "row_column"
        return self.examination_table[0] if by_table else self.slot_examination

    def value_of_next(self, engaged: Floats) -> Floats:
        """Return the engagement a week that one more engaged edge of each type would bring each viewer.

        Parameters
        ----------
        engaged : float64[V, T]
            Engaged edges that each viewer has.

        Returns
        -------
        float64[V, T]
        """
        behaviour, world = self.world.behaviour, self.world
        gain = behaviour.content(engaged + 1.0) - behaviour.content(engaged)
        return np.asarray((world.activity * world.sociability)[:, None] * behaviour.first_edge_engagement * gain)

    @property
    def value_of_next_edge(self) -> pd.DataFrame:
        """`value_of_next` at the start: one row per viewer id, one column per edge type."""
        types = list(self.world.behaviour.edge_types)
        values = self.value_of_next(self.world.engaged_counts)
        return pd.DataFrame(values, index=self.downstream_probability.index, columns=types)

    def edge_values(self, *, reference: str | None = None) -> pd.DataFrame:
        """Return what edges of each type are worth to the population, and the factors that follow.

        Parameters
        ----------
        reference : str, optional
            The edge type whose factors are 1; default: the first.

        Returns
        -------
        DataFrame
            By edge_type, of the viewers themselves, what spills over to others left out: ``value_per_edge``, the
            estimand of an edge-drop experiment: engagement a week that is lost per edge when a small share of every
            viewer's edges is dropped; ``value_of_average_edge``: all that the
            type's edges bring over their number; ``value_of_next_edge``: what one more engaged edge brings, mean over
            sessions; ``probability_downstream``: engaged edges over edges; ``factor_per_downstream_edge`` =
            value_per_edge / probability_downstream, and ``factor_per_edge``, both relative to the reference.

        Raises
        ------
        UnknownEntityType
            When the reference is not an edge type of the world.

        Examples
        --------
        >>> from simulations.world import World
        >>> World(n_viewers=500).truth.edge_values(reference="follow")["factor_per_downstream_edge"].round(1)
        edge_type
        connection    2.4
        follow        1.0
        subscribe     2.0
        Name: factor_per_downstream_edge, dtype: float64
        """
        world, behaviour = self.world, self.world.behaviour
        types = behaviour.edge_types
        if reference is not None and reference not in types:
            raise UnknownEntityType(name_unknown("edge type", reference, types, where="the simulated world"))
        engaged, edges = world.engaged_counts, world.edge_counts.sum(axis=0)
        weekly = (world.activity * world.sociability)[:, None] * behaviour.first_edge_engagement
        lost = (weekly * behaviour.content_slope(engaged) * engaged).sum(axis=0)
        share = world.activity[:, None] / world.activity.sum()
        table = pd.DataFrame(
            {
                "value_per_edge": lost / edges,
                "value_of_average_edge": (weekly * behaviour.content(engaged)).sum(axis=0) / edges,
                "value_of_next_edge": (share * self.value_of_next(engaged)).sum(axis=0),
                "probability_downstream": engaged.sum(axis=0) / edges,
            },
            index=pd.Index(types, name="edge_type"),
        )
        per_downstream = table["value_per_edge"] / table["probability_downstream"]
        at = reference or types[0]
        table["factor_per_downstream_edge"] = per_downstream / per_downstream[at]
        table["factor_per_edge"] = table["value_per_edge"] / table["value_per_edge"][at]
        return table

    def importance_factors(
        self, *, reference: str | None = None, per: Literal["downstream_edge", "edge"] = "downstream_edge"
    ) -> ImportanceFactors:
        """Return the true factors of :meth:`edge_values`, as a ranker takes them.

        Parameters
        ----------
        reference : str, optional
        per : {"downstream_edge", "edge"}, default "downstream_edge"
        """
        factors = self.edge_values(reference=reference)[f"factor_per_{per}"]
        return ImportanceFactors.of({str(t): float(f) for t, f in factors.items()}, reference=reference)

    def optimal_page(self, impressions: pd.DataFrame) -> pd.DataFrame:
        """Return where each cohort stands on the page with the largest expected gain in engagement.

        Parameters
        ----------
        impressions : DataFrame
            Rows of this world: request_id, cohort_id, viewer_id, entity_type, slot, raw_score.

        Returns
        -------
        DataFrame
            request_id, cohort_id, expected_gain (engagement a week, of the cohort at the top), position; one row per
            cohort, in order of first appearance. By expected engaged edges of the scorable entities times what one more
            is worth to the viewer; exact under examination by position without cannibalization.
        """
        rows = impressions.loc[impressions["raw_score"].notna()]
        hit = self._expected_hits(rows)
        edge_type = rows["entity_type"].map(self.world.behaviour.edge_type_of)
        value = self.value_of_next_edge
        viewers = value.index.get_indexer(pd.Index(rows["viewer_id"]))
        worth = value.to_numpy()[viewers, value.columns.get_indexer(pd.Index(edge_type))]
        keys = ["request_id", "cohort_id"]
        gain = rows[keys].assign(expected_gain=hit * worth).groupby(keys, sort=False)["expected_gain"].sum()
        cohorts = impressions[keys].drop_duplicates(ignore_index=True)
        at = pd.MultiIndex.from_frame(cohorts)
        cohorts["expected_gain"] = gain.reindex(at, fill_value=0.0).to_numpy()
        order = cohorts.groupby("request_id", sort=False)["expected_gain"].rank(method="first", ascending=False)
        return cohorts.assign(position=order.astype(np.int64) - 1)

    def _expected_hits(self, rows: pd.DataFrame) -> Floats:
        """Return P(examined in its cohort, response, downstream) of scorable rows."""
        types = self.downstream_probability.columns.get_indexer(pd.Index(rows["entity_type"]))
        viewers = self.downstream_probability.index.get_indexer(pd.Index(rows["viewer_id"]))
        response = np.empty(len(rows))
        raw_score = rows["raw_score"].to_numpy()
        for code, entity_type in enumerate(self.downstream_probability.columns):
            of_type = types == code
            response[of_type] = self.response_probability(entity_type, raw_score[of_type])
        downstream = self.downstream_probability.to_numpy()[viewers, types]
        return np.asarray(self.slot_examination_at_top[rows["slot"]] * response * downstream)

    def response_probability(self, entity_type: str, raw_score: Floats) -> Floats:
        """Return P(response | raw_score, examined) of an entity type's first-pass ranker.

        Parameters
        ----------
        entity_type : str
            One of the seven.
        raw_score : ndarray of float
            On that ranker's scale; NaN = not scorable.

        Returns
        -------
        ndarray of float
            In (0, 1); NaN where the raw score is NaN.

        Raises
        ------
        UnknownEntityType
            When the world has no such entity type.

        Examples
        --------
        >>> from simulations.world import World
        >>> World(n_viewers=50).truth.response_probability("event", np.array([-0.5, 0.0, 0.5])).round(3)
        array([0.014, 0.039, 0.089])
        """
        if entity_type not in CURVES:
            raise UnknownEntityType(name_unknown("entity type", entity_type, CURVES, where="the simulated world"))
        return CURVES[entity_type].response_probability(np.asarray(raw_score, dtype=np.float64))

    def cohort_probability(
        self, impressions: pd.DataFrame, *, position: int | None = None, top_k: int = 6
    ) -> pd.DataFrame:
        """Return the true probability of a downstream interaction with the top-k of each cohort.

        Parameters
        ----------
        impressions : DataFrame
            Rows of this world: request_id, cohort_id, viewer_id, entity_type, position, slot, raw_score.
        position : int, optional
            Where each cohort is placed; by default where it was shown.
        top_k : int, default 6
            The first so many scorable slots count.

        Returns
        -------
        DataFrame
            request_id, cohort_id, probability; one row per cohort, in order of first appearance. With
            examination e_p of the position, e_s of slot s, response r_s and downstream d, the probability is
            e_p * (1 - prod_s (1 - e_s r_s d)).

        Raises
        ------
        InvalidModelInput
            When pages are not read by position, or types take responses from each other: then a cohort below the top
            has no probability by itself.
        """
        behaviour = self.world.behaviour
        if position != 0 and (behaviour.examination != "position" or behaviour.cannibalization_matrix.any()):
            raise InvalidModelInput(
                f"WorldTruth: pages are read by {behaviour.examination!r} or types take responses from each other, so "
                "that a cohort below the top has no probability by itself; give position=0"
            )
        rows = impressions.loc[impressions["raw_score"].notna()].sort_values("slot", kind="stable")
        rows = rows.loc[rows.groupby(["request_id", "cohort_id"], sort=False).cumcount() < top_k]
        hit = self._expected_hits(rows)
        miss = pd.DataFrame({"request_id": rows["request_id"], "cohort_id": rows["cohort_id"], "log": np.log1p(-hit)})
        log_miss = miss.groupby(["request_id", "cohort_id"], sort=False)["log"].sum()
        cohorts = impressions[["request_id", "cohort_id", "position"]].drop_duplicates(["request_id", "cohort_id"])
        keys = pd.MultiIndex.from_frame(cohorts[["request_id", "cohort_id"]])
        placed = cohorts["position"].to_numpy() if position is None else np.full(len(cohorts), position)
        some_downstream = -np.expm1(log_miss.reindex(keys, fill_value=0.0).to_numpy())
        probability = self.position_examination[placed] * some_downstream
        return cohorts[["request_id", "cohort_id"]].assign(probability=probability).reset_index(drop=True)
