"""One first-pass ranker's calibrator fitted anew, and judged on viewers that it did not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from calibration import reliability_table, with_shadow_scores
from spr import tables
from spr.assembly import assemble
from spr.errors import TableError, UnknownEntityType, name_unknown
from spr.expected import expected_responses
from spr.glmix.holdout import salted_hashes, unit_interval
from spr.metrics import clustered_mean
from spr.segments import with_segments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration import CalibratorSet
    from calibration.families import ResponseFamily
    from spr.ranker import SecondPassRanker
    from spr.tables import Table

    Floats = NDArray[np.float64]

HELD_OUT = 0.2
"""Share of the viewers who judge."""

FEWEST_VIEWERS = 20
"""Below so many, on either side, there is no judging: the standard error of few clusters is too small."""

WORSE = 1.0
"""A loss this many standard errors above the one before is worse."""

BETTER_THAN_A_CONSTANT = 2.0
"""A loss must be this many standard errors below a constant's, else the raw scores tell nothing."""

OFF = 3.0
"""A mean expected response this many standard errors from the mean response is off."""

N_BINS = 10
LOSS_NAME = {"binary": "log_loss", "count": "poisson_loss", "continuous": "squared_error"}


@dataclass(frozen=True)
class Recalibration:
    """A ranker with one new calibrator, and what held-out viewers say of it.

    Parameters
    ----------
    new : SecondPassRanker
        The calibrator is fitted on all rows; every other part is the same object.
    table : DataFrame
        Rows ``before``, ``after`` and ``constant``, on the held-out rows; no rows where viewers were too few. Columns:
        predicted_by, n_rows, n_viewers, the loss (``log_loss``, of counts ``poisson_loss``, else ``squared_error``),
        mean_expected, mean_response, calibration_in_the_large (their difference) and expected_calibration_error.
    reasons : tuple of str
        Why it should not replace what is there; empty where it may.
    """

    new: SecondPassRanker
    table: pd.DataFrame
    reasons: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


@dataclass(frozen=True)
class _Judged:
    """Held-out rows, each expectation at the row's position and slot."""

    response: Floats
    weight: Floats
    viewer: NDArray[np.int64]
    expected: Mapping[str, Floats]
    predicted_by: Mapping[str, str]
    family: ResponseFamily

    def loss(self, name: str) -> Floats:
        """Return float64[n]: each row's loss."""
        expected = self.expected[name]
        if self.family.name == "continuous":
            return np.square(self.response - expected)
        if self.family.name == "count":
            positive = np.maximum(expected, 1e-12)
            return positive - self.response * np.log(positive)
        inside = np.clip(expected, 1e-12, 1.0 - 1e-12)
        return -self.response * np.log(inside) - (1.0 - self.response) * np.log1p(-inside)

    def mean(self, values: Floats) -> tuple[float, float]:
        """Return the weighted mean of row values and its standard error, rows clustered by viewer."""
        return clustered_mean(values, self.viewer, self.weight)

    def calibration_error(self, name: str) -> float:
        """Return the mean distance of expected and observed responses over bins of equal mass of the first."""
        bins = reliability_table(self.expected[name], self.response, N_BINS, self.weight, response=self.family.name)
        return float(np.average((bins["mean_prediction"] - bins["observed_rate"]).abs(), weights=bins["n"]))

    def to_frame(self) -> pd.DataFrame:
        """Return the table of :class:`Recalibration`."""
        rows = {
            name: {
                "predicted_by": self.predicted_by[name],
                "n_rows": len(self.response),
                "n_viewers": len(np.unique(self.viewer)),
                LOSS_NAME[self.family.name]: self.mean(self.loss(name))[0],
                "mean_expected": self.mean(expected)[0],
                "mean_response": self.mean(self.response)[0],
                "calibration_in_the_large": self.mean(expected - self.response)[0],
                "expected_calibration_error": self.calibration_error(name),
            }
            for name, expected in self.expected.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("calibrator")

    def reasons(self) -> list[str]:
        """Say what speaks against the new calibrator."""
        found, loss = [], LOSS_NAME[self.family.name].replace("_", " ")
        worse, error = self.mean(self.loss("after") - self.loss("before"))
        if worse > WORSE * error:
            found.append(
                f"its {loss} on held-out viewers is worse than before by {worse:.4g} (standard error {error:.2g})"
            )
        gain, error = self.mean(self.loss("constant") - self.loss("after"))
        if gain <= BETTER_THAN_A_CONSTANT * error:
            found.append(
                f"its raw scores tell held-out responses no better than a constant does: {loss} "
                f"{'lower' if gain > 0 else 'higher'} by {abs(gain):.2g} (standard error {error:.2g}); "
                "are scores and responses of the same rows?"
            )
        off, error = self.mean(self.expected["after"] - self.response)
        before = self.mean(self.expected["before"] - self.response)[0]
        if abs(off) > max(OFF * error, abs(before)):
            found.append(
                f"its expected responses are off by {off:+.4g} on held-out viewers (standard error {error:.2g}), "
                f"and were by {before:+.4g} before"
            )
        return found


def recalibrated(
    ranker: SecondPassRanker,
    impressions: Table,
    *,
    entity_type: str,
    ranker_version: str,
    shadow: Table | None = None,
    viewers: Table | None = None,
) -> Recalibration:
    r"""Fit the calibrator of one first-pass version, live or new, and judge it on held-out viewers.

    Parameters
    ----------
    ranker : SecondPassRanker
        Its other parts stay as they are.
    impressions : DataFrame or path
        See :func:`spr.tables.read_impressions`; mature rows of the random policy count. Take later ones than the
        ranker was fitted on: on its own rows the curve that is there has the advantage.
    entity_type, ranker_version : str
        Which first-pass ranker.
    shadow : DataFrame or path, optional
        For a version that is not live yet: request_id, cohort_id, slot and its raw_score of logged impressions; see
        :func:`calibration.with_shadow_scores`.
    viewers : DataFrame or path, optional
        Needed where the calibrators have a segment that is a viewers column.

    Returns
    -------
    Recalibration

    Raises
    ------
    TableError, UnknownEntityType, CalibrationError
        When a table breaks its contract, the type is not in the configuration, or no row is of this version.

    Notes
    -----
    A curve learnt from the other 80 % of viewers (by a salted hash) is judged, on the 20 %, beside what would be
    served without it: the version's curve; with shadow scores, the curves of the versions that were shown, on their
    own scores; for a version that has neither, the prior of its type. Expected responses are taken at the logged
    position and slot; rows stand for those that negative sampling left out; standard errors are clustered by viewer.
    It speaks against the curve when (1) its loss is worse by more than one standard error of the paired difference,
    (2) its loss is not two standard errors below that of a constant, (3) its mean is three standard errors off and
    further than before, (4) the curve on all rows has a warning, for instance no response at all, or (5) fewer than
    20 viewers learn or judge.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> log, later = (World(n_viewers=250, seed=1).tables(n) for n in (800, 1600))
    >>> config = spr.Config.parse(
    ...     '[entity_types]\npeople = { edge_type = "connection" }\n[trees]\nn_rounds = 2'
    ... )
    >>> people, later_people = (rows[rows["entity_type"] == "people"] for rows in (log.impressions, later.impressions))
    >>> ranker = spr.fit(people, log.viewers, config=config)
    >>> answer = recalibrated(ranker, later_people, entity_type="people", ranker_version="people-1")
    >>> list(answer.table.index), answer.new.trees is ranker.trees
    (['before', 'after', 'constant'], True)
    """
    config, calibrators = ranker.config, ranker.calibrators
    if entity_type not in config.entity_types:
        raise UnknownEntityType(name_unknown("entity type", entity_type, config.entity_types))
    logged, scored = _read(ranker, impressions, shadow, entity_type, ranker_version)
    segment = calibrators.settings.segment
    if viewers is None and segment is not None and not segment.startswith("context_"):
        raise TableError(f"viewers: needed, since the calibrators are split by {segment!r}")
    known_of_viewers = None if viewers is None else tables.read_viewers(viewers)
    logged_batch, batch = assemble(logged, known_of_viewers), assemble(scored, known_of_viewers)
    scored = with_segments(scored, batch, segment)
    key = {"entity_type": entity_type, "ranker_version": ranker_version}
    new = calibrators.refitted(scored, **key)
    reasons = [str(warning) for warning in new[entity_type, ranker_version].warnings]

    there = scored["raw_score"].notna() & logged["raw_score"].notna() & scored["response"].notna()
    usable = (there & (scored["policy"] == "random")).to_numpy(dtype=bool)
    hashes = salted_hashes(scored["viewer_id"].to_numpy(dtype=object), config.seed + 2)
    held_out = unit_interval(hashes) < HELD_OUT
    judging = np.flatnonzero(usable & held_out)
    learning, judges = (scored["viewer_id"][usable & side].nunique() for side in (~held_out, held_out))
    if min(learning, judges) < FEWEST_VIEWERS:
        reasons.append(
            f"{judges} viewers judge what {learning} others taught; it takes {FEWEST_VIEWERS} on either side"
        )
        return Recalibration(ranker.with_calibrators(new), pd.DataFrame(), tuple(reasons))

    candidate = calibrators.refitted(scored[~held_out], **key)
    before, _ = expected_responses(logged_batch, calibrators, "prior")
    after, _ = expected_responses(batch, candidate, "prior")
    rows = scored.iloc[judging]
    examined = np.ones(len(rows))
    if calibrators.examination is not None:
        examined = calibrators.examination.at(rows["position"].to_numpy(), rows["slot"].to_numpy())
    judged = _Judged(
        response=rows["response"].to_numpy(dtype=np.float64),
        weight=tables.rows_stood_for(rows, config),
        viewer=pd.factorize(rows["viewer_id"])[0],
        expected={
            "before": examined * before[judging],
            "after": examined * after[judging],
            "constant": examined * candidate[entity_type, ranker_version].base_rate,
        },
        predicted_by={
            "before": _name_before(calibrators, logged.iloc[judging], entity_type),
            "after": f"{ranker_version}, of the other viewers' rows",
            "constant": "base rate of the other viewers' rows",
        },
        family=calibrators.settings.family(entity_type),
    )
    return Recalibration(ranker.with_calibrators(new), judged.to_frame(), (*reasons, *judged.reasons()))


def _read(
    ranker: SecondPassRanker, impressions: Table, shadow: Table | None, entity_type: str, ranker_version: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the logged rows that a version scored, as they were logged and with the version's own scores."""
    rows = tables.read_impressions(impressions, ranker.config)
    of_type = rows[rows["entity_type"] == entity_type].reset_index(drop=True)
    if shadow is None:
        own = of_type[of_type["ranker_version"] == ranker_version].reset_index(drop=True)
        if own.empty:
            known = sorted(set(of_type["ranker_version"]))
            unknown = name_unknown("ranker version", ranker_version, known, f"impressions of {entity_type!r}")
            raise TableError(f"{unknown} A version that is not live yet needs its shadow scores.")
        return own, own
    n_live = int((of_type["ranker_version"] == ranker_version).sum())
    if n_live:
        raise TableError(
            f"shadow: {entity_type} {ranker_version} is live ({n_live:,} logged rows); its curve learns from its own "
            "scores. Leave the shadow scores out, or name the version that they are of"
        )
    scored = with_shadow_scores(of_type, tables.load_table(shadow, "shadow"), ranker_version)
    return of_type.loc[scored.index].reset_index(drop=True), scored.reset_index(drop=True)


def _name_before(calibrators: CalibratorSet, rows: pd.DataFrame, entity_type: str) -> str:
    versions = sorted(set(rows["ranker_version"]))
    known = [version for version in versions if (entity_type, version) in calibrators]
    prior = "prior of the type" if calibrators.known(entity_type) else "pooled prior of types whose responses are alike"
    return ", ".join(known) + (f", else the {prior}" if known else f"the {prior}") * (known != versions)
