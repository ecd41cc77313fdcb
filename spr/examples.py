"""Cohorts as training examples: the matrix at the logged position, the label, and who may learn from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr.aggregation import gather_slots, mean
from spr.features import label_cohorts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from spr.batch import CohortBatch
    from spr.features import CohortFeatures


@dataclass(frozen=True)
class Examples:
    """Cohorts whose label is mature.

    Parameters
    ----------
    frame : DataFrame of C rows
        The matrix's columns (float32) at the logged position, then the keys of the random effects, and ``at``.
    label : float64[C]
        1 = a downstream interaction with the top k, else 0.
    random : bool[C]
        Of the random policy.
    cohort : int64[C]
        Index of the cohort in the batch.
    request_id, entity_type : object[C]
        Strings.
    mean_raw_score : float64[C]
        Of the top k.
    """

    frame: pd.DataFrame
    label: NDArray[np.float64]
    random: NDArray[np.bool_]
    cohort: NDArray[np.int64]
    request_id: NDArray[np.object_]
    entity_type: NDArray[np.object_]
    mean_raw_score: NDArray[np.float64]

    def take(self, rows: NDArray[np.bool_]) -> Examples:
        """Return some of the examples."""
        return Examples(
            self.frame[rows],
            self.label[rows],
            self.random[rows],
            self.cohort[rows],
            self.request_id[rows],
            self.entity_type[rows],
            self.mean_raw_score[rows],
        )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def viewer_id(self) -> NDArray[np.object_]:
        """Object[C]."""
        return self.frame["viewer_id"].to_numpy(dtype=object)

    @property
    def at(self) -> NDArray[np.datetime64]:
        """datetime64[C]."""
        return self.frame["at"].to_numpy()


def collect_examples(
    rows: pd.DataFrame,
    batch: CohortBatch,
    features: CohortFeatures,
    expected_response: NDArray[np.float64],
    keys: Iterable[str],
) -> Examples:
    """Return the cohorts whose label is mature, with features at their logged position.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`spr.tables.read_impressions`: E rows.
    batch : CohortBatch
        Assembled from them.
    features : CohortFeatures
        Builds the matrix.
    expected_response : float64[E]
        Cross-fitted for training, the calibrators' own for evaluation.
    keys : iterable of str
        Key columns of the random effects.
    """
    first = batch.entity_offset[:-1]
    slots = features.slots(batch)
    label = label_cohorts(rows["downstream"].to_numpy(), slots)
    mature = ~np.isnan(label)
    matrix = features.build(batch, expected_response, rows["position"].to_numpy()[first])
    frame = pd.DataFrame(matrix[mature], columns=list(features.columns), copy=False)
    for key in dict.fromkeys(["viewer_id", *keys]):
        frame[key] = features.keys(batch, key)[mature]
    frame["at"] = rows["at"].to_numpy()[first][mature]
    return Examples(
        frame,
        label[mature],
        (rows["policy"].to_numpy() == "random")[first][mature],
        np.flatnonzero(mature),
        rows["request_id"].to_numpy(dtype=object)[first][mature],
        batch.entity_type[mature],
        mean(gather_slots(batch.raw_score, slots))[mature],
    )
