"""Walk-forward replay: train up to a cut, judge on the pages that came next, and watch what is kept grow old."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr import tables
from spr.assembly import assemble
from spr.errors import ConfigError, TableError
from spr.evaluation.ageing import ALL_BUT_TREES, CALIBRATORS, EFFECTS, NOTHING, OPTIONS, SHOWN, Replay
from spr.expected import expected_responses
from spr.features import label_cohorts
from spr.metrics import Prediction, evaluate_predictions
from spr.progress import Progress, ignore
from spr.segments import with_segments
from spr.training import cross_fit, refit_effects, train

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, timedelta

    from numpy.typing import NDArray

    from spr.config import Config
    from spr.ranker import SecondPassRanker
    from spr.tables import Table
    from spr.training import Training

    Moment = str | date | pd.Timestamp
    Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)


def replay(
    impressions: Table,
    viewers: Table,
    config: Config,
    cut_dates: Sequence[Moment],
    entities: Table | None = None,
    *,
    window: timedelta | None = None,
    n_replicates: int = 1000,
    progress: Progress = ignore,
) -> Replay:
    """Train up to each cut, judge on the pages until the next, and tell how fast each part grows old.

    From the second cut on the same pages are judged under five options: everything refitted at the cut; only the
    calibrators; only the random effects; both of these; nothing, so that all is as it was at the first cut.

    Parameters
    ----------
    impressions : DataFrame or path
        See :func:`spr.tables.read_impressions`.
    viewers : DataFrame or path
        See :func:`spr.tables.read_viewers`; without a column ``at`` it may tell training what was known only later.
    config : Config
        What is fitted. ``[labels]`` windows say when a row is mature; a snapshot there is when the log's labels were
        read, and holds for the pages that judge.
    cut_dates : sequence of str, date or Timestamp
        At least two moments (UTC), rising; the last period ends with the log. See :func:`cut_schedule`.
    entities : DataFrame or path, optional
        See :func:`spr.tables.read_entities`.
    window : timedelta, optional
        How much of the log before its cut a fit learns from, rows that are not mature yet included. Default: all of it.
    n_replicates : int, default 1000
        Of the bootstrap over viewers.
    progress : callable, optional
        ``progress(stage, done, total)``; the stage of the replay itself states its cost before the first fit, and
        those of :func:`spr.fit` stand beside it.

    Returns
    -------
    Replay

    Raises
    ------
    ConfigError
        When cut dates are not rising or not inside the log, when no random page with a downstream interaction was
        mature by a cut, or no random page of a period is mature; the cut is named. Nothing is fitted then.
    TableError
        When a table breaks its contract, or a fit has too few rows; the cut is named.

    Notes
    -----
    *No leakage.* A fit at cut T reads rows before T, and of these the labels whose windows had closed by T: ``at`` +
    both windows <= T. Later labels are null, whatever the log has learnt since: the fit's ``[labels] snapshot`` is T.
    That is for training alone. Pages that judge have the labels of the whole log, and the rankers that are returned
    have the configuration as it was given: with T in it, :func:`compare` would call all later rows immature.

    *What ages.* A part that is kept is as old as the time since the first cut; a refitted one is new when the period
    begins, and both age while it lasts. Without ``window`` a refitted part also has more data, which helps without any
    drift; a window of one length leaves drift alone, and lets a refit forget what was before it. A sudden drift makes
    kept and fresh parts wrong alike, until a cut has mature rows of it.

    *What an interval holds.* The fits as they came out, against other viewers who might have come to judge; not against
    other rows that might have come to teach. Two fits of equally long logs of a world that stands still differ by luck,
    trees the most, and a first fit that was unlucky looks old at every age. Before a schedule rests on it, replay from
    another first cut.

    *Refits of parts.* With the trees go the features, and what else their fit chose: the penalties of the random
    effects, and whether there are any. Random effects that are refitted alone stand on the margin of the trees that are
    there, and keep the penalties and the policies to learn from that the first fit chose. A ranker version that kept
    calibrators do not know takes the prior, as with ``unknown_version = "prior"``. A part that is refitted alone makes
    up for old ones where it can: random effects by entity type take in what stale calibrators get wrong.

    *Cost.* For n cuts: n fits of everything, and two of the random effects at each cut but the first.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> log = World(n_viewers=120, seed=1, cohorts_per_page=(4, 5)).tables(900)
    >>> config = spr.Config.named("network")
    >>> config = config.model_copy(update={"trees": config.trees.model_copy(update={"n_rounds": 5})})
    >>> found = replay(log.impressions, log.viewers, config, ["2026-01-18", "2026-01-25"], n_replicates=50)
    >>> found.periods["age_days"].tolist()
    [0.0, 7.0]
    >>> sorted(found.to_pandas()["part"].unique())
    ['calibrators', 'everything', 'random effects', 'trees']
    """
    cuts = _read_cuts(cut_dates)
    rows = tables.read_impressions(impressions, config)
    viewers = tables.read_viewers(viewers)
    entities = None if entities is None else tables.read_entities(entities)
    ends = [*cuts[1:], rows["at"].max() + pd.Timedelta(1, "us")]
    _check_cuts(rows, config, cuts, ends, window)
    stage, total = fits_needed(len(cuts)), 3 * len(cuts) - 2
    logger.info("%s", stage)

    progress(stage, 0, total)
    fitted: dict[pd.Timestamp, SecondPassRanker] = {}
    judged: list[_Judged] = []
    first: Training | None = None
    for cut, end in zip(cuts, ends, strict=True):
        before = _rows_before(rows, cut, window)
        try:
            fresh = train(before, viewers, entities, config=config_at(config, cut), progress=progress)
        except TableError as error:
            raise TableError(f"cut dates: nothing can be fitted at {cut}: {error}") from error
        options = dict.fromkeys(OPTIONS, fresh.ranker)
        if first is not None:
            options |= _refit_parts(first, fresh, before, viewers, entities)
        first = first or fresh
        fitted[cut] = dataclasses.replace(fresh.ranker, config=config)
        pages = rows[(rows["at"] >= cut) & (rows["at"] < end)].reset_index(drop=True)
        judged.append(_judge(options, pages, viewers, entities, cut))
        progress(stage, 3 * len(fitted) - 2, total)

    cohorts = pd.concat([period.cohorts for period in judged], ignore_index=True)
    random = (cohorts["policy"] == "random").to_numpy()
    frame = cohorts[random].drop(columns=["policy", "position"]).reset_index(drop=True)
    predictions = {
        name: Prediction.of_margins(
            np.concatenate([period.logged[name] for period in judged])[random],
            np.concatenate([period.reference[name] for period in judged])[random],
        )
        for name in OPTIONS
    }
    return Replay(
        periods=_describe_periods(frame, cuts, ends, judged),
        metrics=evaluate_predictions(
            frame, predictions, segment=frame["cut"].map(str), n_replicates=n_replicates, seed=config.seed
        ),
        frame=frame,
        predictions=predictions,
        acted_on=pd.concat([_rank_acted_on(period) for period in judged], ignore_index=True),
        rankers=fitted,
        adopted_effects=tuple(effect.name for effect in first.effects) if first else (),
    )


def cut_schedule(impressions: Table, config: Config, first: Moment, every: timedelta) -> list[pd.Timestamp]:
    """Return cuts at equal distances, as long as mature random pages follow.

    Parameters
    ----------
    impressions, config
        As of :func:`replay`.
    first : str, date or Timestamp
        UTC.
    every : timedelta
        Between two cuts.

    Returns
    -------
    list of Timestamp
        In UTC, without a zone; the first alone where no mature random page lies beyond the second.

    Raises
    ------
    ConfigError
        When the distance is not positive.
    TableError
        When the table breaks its contract.

    Examples
    --------
    >>> import spr
    >>> from datetime import timedelta
    >>> from simulations import World
    >>> log, config = World(n_viewers=20).impressions(200), spr.Config.named("network")
    >>> [f"{cut:%d %b}" for cut in cut_schedule(log, config, "2026-01-14", timedelta(days=7))]
    ['14 Jan', '21 Jan', '28 Jan']
    """
    if every <= pd.Timedelta(0):
        raise ConfigError(f"cut dates: the distance between two is {every}; allowed: more than nothing")
    rows = tables.read_impressions(impressions, config)
    start = _read_moment(first)
    last = rows.loc[_judges(rows), "at"].max()
    return [start, *pd.date_range(start, max(start, last), freq=every)[1:]]


def fits_needed(n_cuts: int) -> str:
    """Say how many fits a replay takes.

    Examples
    --------
    >>> fits_needed(5)
    '5 fits of everything and 8 of the random effects'
    """
    return f"{n_cuts} fits of everything and {2 * (n_cuts - 1)} of the random effects"


def config_at(config: Config, cut: pd.Timestamp) -> Config:
    """Return the configuration of a fit that cannot know later labels: the snapshot is the cut."""
    labels = config.labels.model_copy(update={"snapshot": cut.to_pydatetime()})
    return config.model_copy(update={"labels": labels})


@dataclass(frozen=True)
class _Judged:
    """The mature cohorts of one period, and each option's margin of them at either position."""

    cohorts: pd.DataFrame
    logged: Mapping[str, Floats]
    reference: Mapping[str, Floats]
    n_pages_of_unknown_versions: int


def _rows_before(rows: pd.DataFrame, cut: pd.Timestamp, window: timedelta | None) -> pd.DataFrame:
    known = rows["at"] < cut
    return rows[known if window is None else known & (rows["at"] >= cut - window)]


def _refit_parts(
    first: Training, fresh: Training, before: pd.DataFrame, viewers: pd.DataFrame, entities: pd.DataFrame | None
) -> dict[str, SecondPassRanker]:
    """Return the rankers that keep some parts of the first fit and take others from this cut."""
    config, kept = fresh.ranker.config, first.ranker
    rows = tables.mask_immature(before, config).reset_index(drop=True)
    batch = assemble(rows, viewers, entities)
    recalibrated = kept.with_calibrators(fresh.ranker.calibrators)
    # New calibrators have learnt from these rows, so that they are cross-fitted; kept ones answer as they are served.
    served, _ = expected_responses(batch, kept.calibrators, "prior")
    crossed = cross_fit(with_segments(rows, batch, config.calibration.segment), fresh.ranker.calibrators, config)
    return {
        CALIBRATORS: recalibrated,
        EFFECTS: kept.with_coefficients(*refit_effects(first, rows, batch, served)),
        ALL_BUT_TREES: recalibrated.with_coefficients(*refit_effects(first, rows, batch, crossed)),
        NOTHING: kept,
    }


def _with_fallback(ranker: SecondPassRanker) -> SecondPassRanker:
    """Let pages of a version without a calibrator count, whatever ``rank`` would make of them."""
    calibration = ranker.config.calibration.model_copy(update={"unknown_version": "prior"})
    return dataclasses.replace(ranker, config=ranker.config.model_copy(update={"calibration": calibration}))


def _judge(
    options: Mapping[str, SecondPassRanker],
    rows: pd.DataFrame,
    viewers: pd.DataFrame,
    entities: pd.DataFrame | None,
    cut: pd.Timestamp,
) -> _Judged:
    batch = assemble(rows, viewers, entities)
    first = batch.entity_offset[:-1]
    position = rows["position"].to_numpy()[first]
    label = label_cohorts(rows["downstream"].to_numpy(), options[NOTHING].features.slots(batch))
    mature = ~np.isnan(label)
    logged: dict[str, Floats] = {}
    reference: dict[str, Floats] = {}
    n_unknown: dict[str, int] = {}
    for name, ranker in options.items():
        same = next((other for other in logged if options[other] is ranker), None)
        if same is not None:
            logged[name], reference[name], n_unknown[name] = logged[same], reference[same], n_unknown[same]
            continue
        lenient = _with_fallback(ranker)
        logged[name] = lenient.value_cohorts(batch, position=position).margin[mature]
        values = lenient.value_cohorts(batch)
        reference[name], n_unknown[name] = values.margin[mature], len(values.fallbacks)
    cohorts = pd.DataFrame(
        {
            "cut": cut,
            "request_id": rows["request_id"].to_numpy(dtype=object)[first],
            "viewer_id": rows["viewer_id"].to_numpy(dtype=object)[first],
            "policy": rows["policy"].to_numpy(dtype=object)[first],
            "entity_type": batch.entity_type,
            "position": position,
            "label": label,
        }
    )
    return _Judged(cohorts[mature].reset_index(drop=True), logged, reference, n_unknown[NOTHING])


def _rank_acted_on(judged: _Judged) -> pd.DataFrame:
    """Return one row per cohort that was acted on: its rank on its page, 1 = top, as shown and under each option."""
    cohorts = judged.cohorts
    orders = pd.DataFrame({SHOWN: -cohorts["position"].astype(np.float64)} | dict(judged.reference))
    ranks = orders.groupby(cohorts["request_id"], sort=False).rank(ascending=False)
    ranked = pd.concat([cohorts[["cut", "request_id", "viewer_id", "policy"]], ranks], axis=1)
    return ranked[cohorts["label"] > 0]


def _describe_periods(
    frame: pd.DataFrame, cuts: Sequence[pd.Timestamp], ends: Sequence[pd.Timestamp], judged: Sequence[_Judged]
) -> pd.DataFrame:
    counts = frame.groupby("cut").agg(
        random_pages=("request_id", "nunique"),
        viewers=("viewer_id", "nunique"),
        cohorts=("label", "size"),
        acted_on=("label", "sum"),
    )
    periods = pd.DataFrame(
        {
            "until": ends,
            "age_days": [(cut - cuts[0]) / pd.Timedelta(days=1) for cut in cuts],
            "pages_of_unknown_versions": [period.n_pages_of_unknown_versions for period in judged],
        },
        index=pd.Index(cuts, name="cut"),
    )
    return periods.join(counts.astype(np.int64))


def _judges(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows are of a random, mature cohort with something to rank."""
    known = rows["downstream"].notna().groupby([rows["request_id"], rows["cohort_id"]], sort=False).transform("all")
    return ((rows["policy"] == "random") & rows["raw_score"].notna() & known).to_numpy(dtype=bool)


def _read_moment(moment: Moment) -> pd.Timestamp:
    try:
        read = pd.to_datetime(moment, utc=True)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"cut dates: {moment!r} is no date ({error}); write e.g. '2026-01-10'") from None
    if not isinstance(read, pd.Timestamp):
        raise ConfigError(f"cut dates: {moment!r} is no date; write e.g. '2026-01-10'")
    return read.tz_convert(None)


def _read_cuts(cut_dates: Sequence[Moment]) -> list[pd.Timestamp]:
    if isinstance(cut_dates, str):
        raise ConfigError(f"cut dates: {cut_dates!r} is one string; give a list of at least two")
    cuts = [_read_moment(moment) for moment in cut_dates]
    if len(cuts) < 2:
        raise ConfigError(f"cut dates: found {len(cuts)}; at least two are needed for something to grow old")
    for earlier, later in pairwise(cuts):
        if later <= earlier:
            raise ConfigError(f"cut dates: {later} comes after {earlier} in the list; each must be later than the last")
    return cuts


def _check_cuts(
    rows: pd.DataFrame,
    config: Config,
    cuts: Sequence[pd.Timestamp],
    ends: Sequence[pd.Timestamp],
    window: timedelta | None,
) -> None:
    """Refuse cuts that cannot be fitted at or judged after, before anything is fitted."""
    if window is not None and window <= pd.Timedelta(0):
        raise ConfigError(f"window is {window}; allowed: more than nothing")
    start, last = rows["at"].min(), rows["at"].max()
    for cut in cuts:
        if not start < cut <= last:
            raise ConfigError(f"cut dates: {cut} is outside the log, which goes from {start} to {last}")
    judges = _judges(rows)
    labels = config.labels
    for cut, end in zip(cuts, ends, strict=True):
        before = tables.mask_immature(_rows_before(rows, cut, window), config_at(config, cut))
        if not ((before["policy"] == "random") & (before["downstream"] > 0)).any():
            span = labels.response_window + labels.downstream_window
            learnt = "" if window is None else f" and its window of {window}"
            raise ConfigError(
                f"cut dates: at {cut} no random page with a downstream interaction was mature (labels take {span}"
                f"{learnt}); the log starts at {start}: take a later cut or shorter [labels] windows"
            )
        if not (judges & ((rows["at"] >= cut) & (rows["at"] < end)).to_numpy()).any():
            read = "" if labels.snapshot is None else f" by the snapshot, {labels.snapshot}"
            raise ConfigError(
                f"cut dates: from {cut} to {end} no page of policy 'random' is mature{read}; leave this cut out"
            )
