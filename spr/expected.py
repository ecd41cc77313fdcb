"""Raw scores to expected responses, and what stands in for a ranker version without a calibrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from spr.errors import UnknownRankerVersion, name_unknown
from spr.segments import rankers_by_segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration import CalibratorSet
    from spr.batch import CohortBatch


def expected_responses(
    batch: CohortBatch, calibrators: CalibratorSet, unknown_version: Literal["error", "prior"]
) -> tuple[NDArray[np.float64], dict[int, list[str]]]:
    """Return the expected response of each entity of a batch.

    Parameters
    ----------
    batch : CohortBatch
        E entities.
    calibrators : CalibratorSet
        One curve per (entity type, ranker version), and per segment where they were fitted with one.
    unknown_version : {"error", "prior"}
        What to do without a curve: refuse, or take the prior (``CalibratorSet.prior``): the mean expected response of
        the entity type, or over the types whose responses are alike where this one has no curve either.

    Returns
    -------
    expected_response : float64[E]
        NaN = not scorable.
    fallbacks : dict of int to list of str
        By request index, a sentence per ranker version that the prior stood in for.

    Raises
    ------
    UnknownRankerVersion
        When a version has no curve and the configuration states no fallback.
    """
    ranker, rankers = rankers_by_segment(batch, calibrators.settings.segment)
    unknown = [i for i, key in enumerate(batch.rankers) if key not in calibrators]
    if not unknown:
        return calibrators.predict(batch.raw_score, ranker, rankers), {}
    request = batch.request_of_cohort()[batch.cohort_of_entity()]
    expected_response = np.full(len(batch.raw_score), np.nan)
    fallbacks: dict[int, list[str]] = {}
    for i in unknown:
        entity_type, version = batch.rankers[i]
        rows = batch.ranker == i
        known = calibrators.known(entity_type)
        if unknown_version == "error":
            where = f"request {batch.request_id[request[rows][0]]!r}, entity type {entity_type!r}"
            raise UnknownRankerVersion(name_unknown("ranker version", version, known, where))
        expected_response[rows & ~np.isnan(batch.raw_score)] = calibrators.prior(entity_type)
        prior = "prior of the type" if known else "pooled prior of types whose responses are alike"
        for r in np.unique(request[rows]).tolist():
            fallbacks.setdefault(r, []).append(f"{entity_type} {version}: no calibrator, {prior}")
    calibrated = ~np.isin(batch.ranker, unknown)
    used, number = np.unique(ranker[calibrated], return_inverse=True)
    expected_response[calibrated] = calibrators.predict(batch.raw_score[calibrated], number, [rankers[i] for i in used])
    return expected_response, fallbacks
