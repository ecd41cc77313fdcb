"""The whole path of training on one screen, and the choices it makes with the losses that decided them."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from calibration import CalibrationError, CalibratorSet, Examination, PositionExamination, SlotExamination
from spr import tables
from spr.assembly import assemble
from spr.errors import ConfigError, TableError, name_unknown
from spr.examples import Examples, collect_examples
from spr.features import CohortFeatures
from spr.glmix import GLMixClassifier, RandomEffect
from spr.glmix.holdout import salted_hashes, unit_interval
from spr.progress import Progress, ignore
from spr.ranker import SecondPassRanker
from spr.reorder import LABEL_KINDS, learn_prices
from spr.segments import with_segments
from spr.selection import choose_effects, choose_trees, later_random_pages
from spr.trees import CohortTrees, refit_on_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spr.batch import CohortBatch
    from spr.config import Config
    from spr.glmix.coefficients import Coefficients
    from spr.glmix.fixed import FittedTrees
    from spr.tables import Table

logger = logging.getLogger(__name__)

_PAGES_OF_PRICES = 20_000


@dataclass(frozen=True)
class Training:
    """A fitted ranker, and what it takes to fit its random effects again and nothing else.

    Parameters
    ----------
    ranker : SecondPassRanker
        Of :func:`fit`.
    effects : tuple of RandomEffect
        Those that were adopted, each with its learnt penalty; empty where none helped.
    from_every_policy : bool
        Whether they learnt from rows of every policy, or of the random policy alone.
    """

    ranker: SecondPassRanker
    effects: tuple[RandomEffect, ...]
    from_every_policy: bool


def fit(
    impressions: Table,
    viewers: Table,
    entities: Table | None = None,
    *,
    config: Config,
    progress: Progress = ignore,
) -> SecondPassRanker:
    """Fit a ranker on logged tables.

    Calibrators and trees learn from mature rows of the random policy; random effects from the rows that have the
    lower loss on later random pages: of the random policy, or of every policy (with the prior variances of either).
    Below 50 viewers nothing is held out: the trees then use their whole budget, so give them a small one.

    Parameters
    ----------
    impressions : DataFrame or path
        See :func:`spr.tables.read_impressions`.
    viewers : DataFrame or path
        See :func:`spr.tables.read_viewers`.
    entities : DataFrame or path, optional
        See :func:`spr.tables.read_entities`.
    config : Config
        See :class:`spr.Config`.
    progress : callable, optional
        ``progress(stage, done, total)``.

    Returns
    -------
    SecondPassRanker
        ``ranker.history`` holds what was chosen, and the losses that decided.

    Raises
    ------
    TableError
        When a table breaks its contract, or holds no mature row of the random policy.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> network = World(n_viewers=120, seed=1).tables(1200)
    >>> config = spr.Config.named("network")
    >>> ranker = spr.fit(network.impressions, network.viewers, network.entities, config=config)
    >>> page = next(ranker.rank_pages(network.impressions, network.viewers, network.entities))
    >>> page.placements[0].position
    0
    """
    return train(impressions, viewers, entities, config=config, progress=progress).ranker


def train(
    impressions: Table,
    viewers: Table,
    entities: Table | None = None,
    *,
    config: Config,
    progress: Progress = ignore,
) -> Training:
    """Fit a ranker as :func:`fit` does, and keep what it takes to refit a part of it."""
    rows = tables.read_impressions(impressions, config)
    viewers = tables.read_viewers(viewers)
    entities = None if entities is None else tables.read_entities(entities)
    _check_learnable(rows)
    batch = assemble(rows, viewers, entities)
    features = CohortFeatures.fit(batch, config)
    specs = specify_effects(features, config)

    progress("calibrators", 0, 1)
    scored = with_segments(rows, batch, config.calibration.segment)
    calibrators = fit_calibrators(scored, config)
    expected_response = cross_fit(scored, calibrators, config)
    progress("calibrators", 1, 1)
    examples = collect_examples(rows, batch, features, expected_response, [effect.key for effect in specs])
    later = later_random_pages(examples)
    model, seen_by_trees = choose_trees(examples, later, features, specs, config, progress)
    shrunk, rows_of_effects, learnt_from = choose_effects(examples, later, model, features, specs, progress)
    trees = fit_trees(examples, model, features, progress)
    effects = fit_effects(examples, trees, shrunk, rows_of_effects, config)
    ranker = SecondPassRanker(
        config=config,
        calibrators=calibrators,
        features=features,
        trees=trees,
        effects=effects,
        unseen_correction=model.unseen_correction_ if any(s.key == "viewer_id" for s in specs) else (0.0, 1.0),
        factors=config.importance,
        history=(seen_by_trees, learnt_from),
    )
    prices = fit_prices(ranker, rows, viewers, entities, progress)
    return Training(
        ranker.with_prices(prices) if prices else ranker,
        tuple(shrunk),
        from_every_policy=bool(shrunk) and not np.array_equal(rows_of_effects, examples.random),
    )


def specify_effects(features: CohortFeatures, config: Config) -> list[RandomEffect]:
    """Return the configured random effects over the matrix's columns.

    Raises
    ------
    ConfigError
        When a key or a feature is not in the tables.
    """
    specs = []
    for effect in config.random_effects:
        known = ["viewer_id", "cohort_kind", "entity_type", *features.key_names]
        where = f"random effect {effect.name!r}"
        if effect.key not in known:
            raise ConfigError(name_unknown("key", effect.key, known, where))
        try:
            columns = features.expand(effect.features)
        except LookupError as error:
            raise ConfigError(f"{where}: {error}") from error
        specs.append(RandomEffect(effect.name, key=effect.key, features=columns))
    return specs


def fit_calibrators(rows: pd.DataFrame, config: Config) -> CalibratorSet:
    """Fit one calibrator per (entity type, ranker version) on the random policy, at the reference position and slot.

    Where the configuration names a segment, the rows have its column: see :func:`spr.segments.with_segments`.

    Raises
    ------
    TableError
        When no version has enough mature rows, or a response is outside what a calibrator can read.
    """
    known = rows[(rows["policy"] == "random") & rows["response"].notna() & rows["raw_score"].notna()]
    if known.empty:
        raise TableError("impressions: no mature row of policy 'random' has both a raw score and a response")
    try:
        position = slot = None
        if config.calibration.position_examination:
            position = PositionExamination.fit(
                known["position"].to_numpy(),
                known["response"].to_numpy(),
                sample_weight=tables.rows_stood_for(known, config),
                stratum=known["entity_type"].to_numpy(),
            )
        if config.calibration.slot_examination is not None:
            slot = SlotExamination(np.array(config.calibration.slot_examination))
        return CalibratorSet.fit(
            rows,
            method=config.calibration.method,
            transforms=config.calibration.transforms,
            response=config.responses,
            negative_sampling_rate=config.negative_sampling_rates,
            segment=config.calibration.segment,
            examination=Examination(position, slot),
        )
    except CalibrationError as error:
        raise TableError(f"impressions: {error}") from error


def cross_fit(rows: pd.DataFrame, calibrators: CalibratorSet, config: Config) -> NDArray[np.float64]:
    """Return the expected response of each row from rates that its viewer had no part in.

    A row of a ranker version without a calibrator (too few rows of the random policy) takes the prior of its entity
    type; where the type has none either, it takes the pooled prior if ``rank`` does, else it counts as not scorable.
    """
    n_folds = config.calibration.folds
    # Another salt than the hold-out's: else the held-out viewers would all stand in one fold.
    hashes = salted_hashes(rows["viewer_id"].to_numpy(dtype=object), config.seed + 1)
    fold = (unit_interval(hashes) * n_folds).astype(np.int64)
    expected_response = np.full(len(rows), np.nan)
    ranker, rankers = pd.MultiIndex.from_frame(rows[["entity_type", "ranker_version"]]).factorize()
    known = np.array([key in calibrators for key in rankers])[ranker]
    for i, (entity_type, version) in enumerate(rankers):
        has_prior = calibrators.known(entity_type) or config.calibration.unknown_version == "prior"
        if (entity_type, version) not in calibrators and has_prior:
            expected_response[ranker == i] = calibrators.prior(entity_type)
            logger.warning("%s %s has too few rows for a calibrator: a prior stands in", entity_type, version)
    expected_response[known] = calibrators.cross_fitted(rows[known], fold[known], n_folds)
    expected_response[rows["raw_score"].isna().to_numpy()] = np.nan
    return expected_response


def fit_trees(examples: Examples, model: GLMixClassifier, features: CohortFeatures, progress: Progress) -> CohortTrees:
    """Fit the chosen trees on all cohorts of the random policy, those that judged included."""
    progress("trees on all rows", 0, 1)
    final = refit_on_all(model, examples.frame[examples.random], examples.label[examples.random])
    progress("trees on all rows", 1, 1)
    return CohortTrees(cast("FittedTrees", final.fixed_), features.columns)


def fit_effects(
    examples: Examples,
    trees: CohortTrees,
    shrunk: Sequence[RandomEffect],
    rows: NDArray[np.bool_],
    config: Config,
) -> tuple[Coefficients, ...]:
    """Fit the random effects, with the shrinkage that was chosen, at the trees' margin.

    Their variances are kept where exploration draws coefficients from their posterior.
    """
    if not shrunk:
        return ()
    offset = trees.margin(examples.frame[list(trees.matrix_columns)].to_numpy()[rows])
    samples = config.exploration.method == "thompson"
    model = GLMixClassifier(fixed=None, random_effects=list(shrunk), variance="diagonal" if samples else None)
    model.fit(examples.frame[rows], examples.label[rows], offset=offset)
    return tuple(model.random_effects_[effect.name] for effect in shrunk)


def refit_effects(
    trained: Training, rows: pd.DataFrame, batch: CohortBatch, expected_response: NDArray[np.float64]
) -> tuple[Coefficients, ...]:
    """Fit the random effects again on other rows, at the margin of the trees that are there.

    Parameters
    ----------
    trained : Training
        Gives the trees, the penalties, and the policies whose rows teach.
    rows : DataFrame
        Of :func:`spr.tables.read_impressions`: E rows.
    batch : CohortBatch
        Assembled from them.
    expected_response : float64[E]
        What the trees read.

    Returns
    -------
    tuple of Coefficients
        For :meth:`SecondPassRanker.with_coefficients`; empty where no effect had been adopted.
    """
    ranker = trained.ranker
    keys = [effect.key for effect in trained.effects]
    examples = collect_examples(rows, batch, ranker.features, expected_response, keys)
    teaching = np.ones_like(examples.random) if trained.from_every_policy else examples.random
    return fit_effects(examples, ranker.trees, trained.effects, teaching, ranker.config)


def fit_prices(
    ranker: SecondPassRanker,
    rows: pd.DataFrame,
    viewers: pd.DataFrame,
    entities: pd.DataFrame | None,
    progress: Progress,
) -> dict[str, float]:
    """Learn the prices of shares that have none in the configuration, on the log's latest pages, whatever their policy.

    Returns
    -------
    dict of str to float
        By guarantee, in units of the mean importance factor.
    """
    config, factors = ranker.config, ranker.factors
    unpriced = [guarantee for guarantee in config.guarantees if guarantee.share is not None and guarantee.price is None]
    if not unpriced:
        return {}
    progress("prices", 0, 1)
    latest = rows.drop_duplicates("request_id").sort_values("at", kind="stable")["request_id"].tail(_PAGES_OF_PRICES)
    # A page with a version that has no calibrator counts, too, whatever `rank` would make of it.
    calibration = config.calibration.model_copy(update={"unknown_version": "prior"})
    valuing = dataclasses.replace(ranker, config=config.model_copy(update={"calibration": calibration}))
    values = valuing.value_cohorts(assemble(rows[rows["request_id"].isin(latest)], viewers, entities))
    there, page = values.scorable, values.batch.request_of_cohort()
    labels = {kind: values.labels(kind)[there] for kind in LABEL_KINDS}
    scale = float(np.mean(factors.at(config.edge_types)))
    names = {g.name for guarantee in unpriced for g in guarantee.to_guarantees(dict.fromkeys(config.edge_types, 1), {})}
    prices = {}
    begins = {guarantee.name: guarantee.begins(rows["at"].max()) for guarantee in ranker.guarantees}
    for moment in sorted(set(begins.values())):  # each beside those that are in force when it begins
        in_force = [guarantee for guarantee in ranker.guarantees if guarantee.in_force(moment)]
        learnt = learn_prices(values.value[there], page[there], labels, in_force)
        for g in in_force:
            if g.name in names and begins[g.name] == moment:
                prices[g.name] = learnt.price[g.name] / scale
                if g.name in learnt.short:
                    asked, found = g.share, learnt.delivered[g.name]
                    logger.warning("guarantee %r asks for %.3g of impressions; pages have %.3g", g.name, asked, found)
    progress("prices", 1, 1)
    return prices


def _check_learnable(rows: pd.DataFrame) -> None:
    mature = (rows["policy"] == "random") & rows["downstream"].notna()
    if not mature.any():
        policies = ", ".join(sorted(map(str, rows["policy"].unique()))[:5])
        raise TableError(
            "impressions: there is no mature row of policy 'random', which calibrators and trees learn from; "
            f"found the policies: {policies}"
        )
    positive = int((rows.loc[mature, "downstream"] > 0).sum())
    if positive == 0:
        raise TableError(f"impressions: no downstream interaction in {mature.sum():,} mature rows of policy 'random'")
