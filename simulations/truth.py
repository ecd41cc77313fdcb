"""The truth of a made network: response curves, examination, and the probability of every cohort."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from simulations.response_curves import CURVES
from spr.errors import UnknownEntityType, name_unknown

if TYPE_CHECKING:
    import numpy.typing as npt

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
    """

    downstream_probability: pd.DataFrame
    position_examination: Floats
    slot_examination: Floats

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
        """
        rows = impressions.loc[impressions["raw_score"].notna()].sort_values("slot", kind="stable")
        rows = rows.loc[rows.groupby(["request_id", "cohort_id"], sort=False).cumcount() < top_k]
        types = self.downstream_probability.columns.get_indexer(pd.Index(rows["entity_type"]))
        viewers = self.downstream_probability.index.get_indexer(pd.Index(rows["viewer_id"]))
        response = np.empty(len(rows))
        raw_score = rows["raw_score"].to_numpy()
        for code, entity_type in enumerate(self.downstream_probability.columns):
            of_type = types == code
            response[of_type] = self.response_probability(entity_type, raw_score[of_type])
        hit = self.slot_examination[rows["slot"]] * response * self.downstream_probability.to_numpy()[viewers, types]
        miss = pd.DataFrame({"request_id": rows["request_id"], "cohort_id": rows["cohort_id"], "log": np.log1p(-hit)})
        log_miss = miss.groupby(["request_id", "cohort_id"], sort=False)["log"].sum()
        cohorts = impressions[["request_id", "cohort_id", "position"]].drop_duplicates(["request_id", "cohort_id"])
        keys = pd.MultiIndex.from_frame(cohorts[["request_id", "cohort_id"]])
        placed = cohorts["position"].to_numpy() if position is None else np.full(len(cohorts), position)
        some_downstream = -np.expm1(log_miss.reindex(keys, fill_value=0.0).to_numpy())
        probability = self.position_examination[placed] * some_downstream
        return cohorts[["request_id", "cohort_id"]].assign(probability=probability).reset_index(drop=True)
