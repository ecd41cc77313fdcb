"""How much less is seen at later slots of a cohort; learnt only from rows in which slots and scores came apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from calibration.columns import numbers, require_columns
from calibration.errors import CalibrationError, SlotExaminationNotIdentified
from calibration.examination.rates import PlaceCounts
from calibration.examination.relative import RelativeExamination, whole_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

MINIMUM_RESPONSES = 50
LARGEST_CORRELATION = 0.05
LARGEST_SHARE_OF_TIME = 0.1

_WAYS_OUT = (
    "On pages whose slots follow the raw score a late slot and a low score cannot be told apart. Ways out: "
    "(1) shuffle the slots of some requests, mark their rows in a boolean column slots_shuffled, and call "
    "SlotExamination.fit_shuffled; (2) assign requests at random to ranker versions that order the same entities "
    "differently, and call SlotExamination.fit_rankers; (3) give the curve: SlotExamination(np.array([1.0, 0.8]))"
)


@dataclass(frozen=True, eq=False)
class SlotExamination(RelativeExamination):
    """Probability that a slot of an examined cohort is examined, relative to its first slot.

    Parameters
    ----------
    relative : float64[p]
        By slot as displayed, 0 = first; 1 at slot 0, non-increasing, > 0. Slots beyond take the last value.
    uncertainty : Uncertainty, optional
        Of a fit with ``n_resamples``; not saved.

    Notes
    -----
    The position-based model, as for ``PositionExamination``: P(response at slot s) = examination_s * P(response
    | examined), whatever stands in the other slots.

    Examples
    --------
    >>> slots = SlotExamination(np.array([1.0, 0.8]))
    >>> slots.at([0, 1, 5])
    array([1. , 0.8, 0.8])
    >>> SlotExamination.from_dict(slots.to_dict()).relative
    array([1. , 0.8])
    """

    place_name: ClassVar[str] = "slot"

    @classmethod
    def fit_shuffled(cls, impressions: pd.DataFrame, *, n_resamples: int = 0, seed: int = 0) -> Self:
        """Estimate from requests whose slots were shuffled inside each cohort.

        Parameters
        ----------
        impressions : DataFrame
            Columns request_id, cohort_id, entity_type, ranker_version, slot, raw_score (null = not scorable:
            ignored), response (null = its window is still open: ignored), slots_shuffled (boolean, null =
            false); viewer_id for intervals. Whole cohorts; rows of any policy, since positions do not matter.
        n_resamples : int
            Of viewers, for ``uncertainty``; 200 is usual. Default 0: none.
        seed : int
            Of the resamples.

        Returns
        -------
        SlotExamination

        Raises
        ------
        SlotExaminationNotIdentified
            No shuffled row, fewer than 50 responses in them, or a raw score that still goes with the slot.
        CalibrationError
            A missing column or a value out of range.

        Notes
        -----
        Inside a cohort every order was equally likely, so slots hold equally good entities; cohorts are compared
        within entity type and size, since only large cohorts have late slots. The claim is checked by the rank
        correlation of raw score and slot within cohorts: beyond 0.05 and four permutation standard errors
        the rows are refused.
        """
        columns = ("request_id", "cohort_id", "entity_type", "ranker_version", "slot", "raw_score", "response")
        require_columns(impressions, (*columns, *(("viewer_id",) if n_resamples else ())))
        if "slots_shuffled" not in impressions.columns:
            raise SlotExaminationNotIdentified(f"impressions have no column slots_shuffled. {_WAYS_OUT}")
        marked = impressions["slots_shuffled"].eq(True).to_numpy(dtype=bool, na_value=False)
        if not marked.any():
            raise SlotExaminationNotIdentified(
                f"slots_shuffled is true in none of {len(impressions):,} impressions. {_WAYS_OUT}"
            )
        rows = impressions[marked]
        scorable = ~np.isnan(numbers(rows, "raw_score"))
        cohort = _codes(rows, ["request_id", "cohort_id"])
        size, n_scorable = np.bincount(cohort)[cohort], np.bincount(cohort, scorable)[cohort]
        used = scorable & ~np.isnan(numbers(rows, "response"))
        slot = whole_places(rows["slot"], "slot")
        _check_shuffled(rows[scorable])
        rows = rows[used].assign(_size=size[used], _scorable=n_scorable[used])
        response = _responses(rows)
        _check_responses(response)
        stratum = _codes(rows, ["entity_type", "_size", "_scorable"])
        counts = PlaceCounts.of(
            slot[used], stratum, np.ones(len(rows)), response, _viewers(rows, n_resamples), cls.place_name
        )
        return cls._of(counts, n_resamples, seed)

    @classmethod
    def fit_rankers(
        cls,
        impressions: pd.DataFrame,
        *,
        position: RelativeExamination | None = None,
        comparable_by: Sequence[str] = ("viewer_id",),
        n_resamples: int = 0,
        seed: int = 0,
    ) -> Self:
        """Estimate from entities that ranker versions showed at different slots of comparable requests.

        Parameters
        ----------
        impressions : DataFrame
            Columns request_id, entity_type, entity_id, ranker_version, slot, raw_score and response as in
            ``fit_shuffled``, and those of ``comparable_by``; cohort_kind, optional: an entity is compared with
            itself inside one kind only; at, optional: the versions must then have run at the same time.
        position : PositionExamination, optional
            Rows of every policy are used, each at the examination of its position. Default: only rows of the
            "random" policy, whose positions do not depend on the version (all, without a column policy).
        comparable_by : sequence of str
            Columns whose values make requests comparable: within them an entity's response may depend on
            its slot, not on which version showed it. A personalised ranker gives early slots to the viewers who
            respond, so that only requests of the same viewer are comparable, the default.
        n_resamples : int
            Of viewers, for ``uncertainty``; 200 is usual. Default 0: none.
        seed : int
            Of the resamples.

        Returns
        -------
        SlotExamination

        Raises
        ------
        SlotExaminationNotIdentified
            No entity at different slots under different versions, none that links slot 0, fewer than 50
            responses of those, or versions that ran one after the other.
        CalibrationError
            A missing column or a value out of range.

        Notes
        -----
        Intervention harvesting (Agarwal et al. 2019, "Estimating position bias without intrusive interventions",
        section 4): where versions order the same entities differently and requests are assigned to them
        independently of viewer and entity, the assignment is an experiment on the slot. All pairs of slots count,
        chains of pairs included, by the conditional likelihood of ``PlaceCounts.relative`` with one stratum an
        entity and comparable request, instead of their extremum estimator. It is assumed that examination does
        not depend on what stands in the other slots. An (entity, version) seen at several slots is left out, since
        what moved it was not the assignment. Entities that are no longer shown once they had a response bias the
        ratio of two slots by at most about the response rate. Slots that no chain links to slot 0 count as
        slots without rows.
        """
        unit_columns = [*comparable_by, *(c for c in ("cohort_kind",) if c in impressions.columns)]
        unit_columns += ["entity_type", "entity_id"]
        needed = ("request_id", "ranker_version", "slot", "raw_score", "response", *unit_columns)
        require_columns(impressions, needed + (("viewer_id",) if n_resamples else ()))
        used = ~np.isnan(numbers(impressions, "raw_score")) & ~np.isnan(numbers(impressions, "response"))
        if position is not None:
            require_columns(impressions, ("position",))
        elif "policy" in impressions.columns:
            used &= (impressions["policy"] == "random").to_numpy(dtype=bool, na_value=False)
        rows = impressions[used]
        response, slot = _responses(rows), whole_places(rows["slot"], "slot")
        examined = np.ones(len(rows)) if position is None else position.at(numbers(rows, "position"))
        unit = _codes(rows, unit_columns)
        version, _ = rows["ranker_version"].factorize()
        _check_simultaneous(rows)
        kept = _compared(unit, version, slot)
        kept &= _linked_to_first(unit, slot, response, kept)
        n_responses = response[kept].sum()
        if n_responses < MINIMUM_RESPONSES:
            raise SlotExaminationNotIdentified(
                f"{np.unique(unit[kept]).size:,} entities (by {', '.join(unit_columns)}) were shown at different slots "
                f"by different ranker versions and are linked to slot 0, with {n_responses:g} responses, of which "
                f"{MINIMUM_RESPONSES} are needed; {np.unique(version).size} versions and {len(rows):,} usable "
                f"impressions were found. {_WAYS_OUT}"
            )
        _, stratum = np.unique(unit[kept], return_inverse=True)
        counts = PlaceCounts.of(
            slot[kept], stratum, examined[kept], response[kept], _viewers(rows[kept], n_resamples), cls.place_name
        )
        return cls._of(counts, n_resamples, seed)


def _check_shuffled(rows: pd.DataFrame) -> None:
    """Refuse rows whose raw scores go with their slots."""
    keys = ["request_id", "cohort_id", "ranker_version"]
    ranks = rows.groupby(keys, sort=False, observed=True)[["raw_score", "slot"]].rank()
    group = _codes(rows, keys)
    size = np.bincount(group)
    centred = ranks.to_numpy(dtype=np.float64) - ((size + 1) / 2)[group][:, None]
    of_score, of_slot = (np.bincount(group, column**2) for column in centred.T)
    total = np.sqrt(of_score.sum() * of_slot.sum())
    if total == 0:  # cohorts of one entity: no slot beyond the first can be compared
        raise SlotExaminationNotIdentified(
            f"no shuffled cohort has two entities with different raw scores. {_WAYS_OUT}"
        )
    product = float((centred[:, 0] * centred[:, 1]).sum())
    deviation = float(np.sqrt((of_score * of_slot / np.maximum(size - 1, 1)).sum()))  # over permutations
    if abs(product) > LARGEST_CORRELATION * total and abs(product) > 4.0 * deviation:
        raise SlotExaminationNotIdentified(
            f"slots_shuffled is true, but the rank correlation of raw score and slot within cohorts is "
            f"{product / total:.2f}, {abs(product) / deviation:.0f} standard errors from 0: these slots still follow "
            f"the raw score. {_WAYS_OUT}"
        )


def _check_simultaneous(rows: pd.DataFrame) -> None:
    """Refuse versions that ran one after the other: what else changed over time would pass for the slot."""
    if "at" not in rows.columns:
        return
    requests = rows.drop_duplicates(["request_id", "entity_type", "ranker_version"])
    rank = requests.groupby("entity_type", observed=True)["at"].rank(pct=True)
    centred = rank - rank.groupby(requests["entity_type"], observed=True).transform("mean")
    between = centred.groupby([requests["entity_type"], requests["ranker_version"]], observed=True).transform("mean")
    total = float((centred**2).sum())
    share = float((between**2).sum()) / total if total > 0 else 0.0
    if len(requests) >= MINIMUM_RESPONSES and share > LARGEST_SHARE_OF_TIME:
        raise SlotExaminationNotIdentified(
            f"the ranker version explains {share:.0%} of when requests were made, at most {LARGEST_SHARE_OF_TIME:.0%} "
            f"is allowed: versions that ran one after the other are no experiment. {_WAYS_OUT}"
        )


def _compared(unit: NDArray[np.intp], version: NDArray[np.intp], slot: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Rows of units that versions showed at different slots, each version at one slot of its own."""
    _, by_version = np.unique(np.column_stack((unit, version)), axis=0, return_inverse=True)
    kept = _lowest(by_version, slot) == -_lowest(by_version, -slot)
    some = np.where(kept, slot, np.iinfo(np.int64).max)
    most = np.where(kept, slot, -1)
    return np.asarray(kept & (_lowest(unit, some) != -_lowest(unit, -most)))


def _lowest(group: NDArray[np.intp], values: NDArray[np.intp]) -> NDArray[np.intp]:
    """Lowest value of each row's group."""
    lowest = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, group, values)
    return lowest[group]


def _linked_to_first(
    unit: NDArray[np.intp], slot: NDArray[np.intp], response: NDArray[np.float64], kept: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Rows whose slot a chain of compared units with responses joins to slot 0."""
    linked = np.zeros(int(slot.max(initial=0)) + 1, dtype=bool)
    linked[0] = True
    answered = np.bincount(unit[kept], response[kept], minlength=int(unit.max(initial=0)) + 1) > 0
    usable = kept & answered[unit]
    n_linked = 0
    while n_linked < linked.sum():
        n_linked = int(linked.sum())
        reached = np.unique(unit[usable & linked[slot]])
        linked[slot[usable & np.isin(unit, reached)]] = True
    return linked[slot] & usable


def _codes(rows: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.intp]:
    """Return int[n]: rows with equal values in these columns have equal numbers."""
    for column in columns:
        null = rows[column].isna().to_numpy()
        if null.any():
            raise CalibrationError(f"impressions: {column} is null; first: row {rows.index[int(np.argmax(null))]}")
    return np.asarray(rows.groupby(list(columns), sort=False, observed=True).ngroup().to_numpy(), dtype=np.intp)


def _responses(rows: pd.DataFrame) -> NDArray[np.float64]:
    response = numbers(rows, "response")
    wrong = ~((response >= 0) & np.isfinite(response))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CalibrationError(f"response must be finite and >= 0; row {rows.index[first]} has {response[first]}")
    return response


def _check_responses(response: NDArray[np.float64]) -> None:
    if response.sum() < MINIMUM_RESPONSES:
        raise SlotExaminationNotIdentified(
            f"the {response.size:,} usable rows with shuffled slots have {response.sum():g} responses, of which "
            f"{MINIMUM_RESPONSES} are needed: collect more. {_WAYS_OUT}"
        )


def _viewers(rows: pd.DataFrame, n_resamples: int) -> NDArray[np.intp]:
    if not n_resamples:
        return np.zeros(len(rows), dtype=np.intp)
    return _codes(rows, ("viewer_id",))
