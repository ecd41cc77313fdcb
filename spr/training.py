"""The whole path of training on one screen, and the choices it makes with the losses that decided them."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from calibration import CalibrationError, CalibratorSet, PositionExamination
from spr import tables
from spr.assembly import assemble
from spr.errors import ConfigError, TableError, name_unknown
from spr.examples import Examples, collect_examples
from spr.features import CohortFeatures
from spr.glmix import GLMixClassifier, RandomEffect
from spr.glmix.holdout import salted_hashes, unit_interval
from spr.history import Choice
from spr.progress import Progress, ignore
from spr.ranker import SecondPassRanker
from spr.reorder import ImportanceFactors
from spr.trees import CohortTrees, refit_on_all, specify_trees

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.config import Config
    from spr.glmix.coefficients import Coefficients
    from spr.glmix.fixed import FittedTrees
    from spr.tables import Table

LATER_SHARE = 0.15

logger = logging.getLogger(__name__)


def fit(
    impressions: Table,
    viewers: Table,
    entities: Table | None = None,
    *,
    config: Config,
    progress: Progress = ignore,
) -> SecondPassRanker:
    """Fit a ranker on logged tables.

    Calibrators, trees and prior variances learn from mature rows of the random policy, random effects from mature
    rows of every policy where that lowers the held-out loss on random rows.

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
    rows = tables.read_impressions(impressions, config)
    viewers = tables.read_viewers(viewers)
    entities = None if entities is None else tables.read_entities(entities)
    _check_learnable(rows)
    batch = assemble(rows, viewers, entities)
    features = CohortFeatures.fit(batch, config)
    specs = specify_effects(features, config)

    progress("calibrators", 0, 1)
    calibrators = fit_calibrators(rows, config)
    expected_response = cross_fit(rows, calibrators, config)
    progress("calibrators", 1, 1)
    examples = collect_examples(rows, batch, features, expected_response, [effect.key for effect in specs])
    later = later_random_pages(examples)
    model, seen_by_trees = fit_trees(examples, later, features, specs, config, progress)
    trees, effects, learnt_from = fit_effects(examples, later, model, features, specs, progress)
    return SecondPassRanker(
        config=config,
        calibrators=calibrators,
        features=features,
        trees=trees,
        effects=effects,
        unseen_correction=model.unseen_correction_,
        factors=ImportanceFactors.of(config.importance),
        history=(seen_by_trees, learnt_from),
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
    """Fit one calibrator per (entity type, ranker version) on the random policy, at the reference position.

    Raises
    ------
    TableError
        When no version has enough mature rows, or a response is outside what a calibrator can read.
    """
    known = rows[(rows["policy"] == "random") & rows["response"].notna() & rows["raw_score"].notna()]
    if known.empty:
        raise TableError("impressions: no mature row of policy 'random' has both a raw score and a response")
    try:
        examination = None
        if config.calibration.position_examination:
            examination = PositionExamination.fit(
                known["position"].to_numpy(), known["response"].to_numpy(), stratum=known["entity_type"].to_numpy()
            )
        return CalibratorSet.fit(rows, method=config.calibration.method, examination=examination)
    except CalibrationError as error:
        raise TableError(f"impressions: {error}") from error


def cross_fit(rows: pd.DataFrame, calibrators: CalibratorSet, config: Config) -> NDArray[np.float64]:
    """Return the expected response of each row from rates that its viewer had no part in.

    A row of a ranker version without a calibrator (too few rows of the random policy) takes the prior of its entity
    type; where the type has none either, it counts as not scorable.
    """
    n_folds = config.calibration.folds
    # Another salt than the hold-out's: else the held-out viewers would all stand in one fold.
    hashes = salted_hashes(rows["viewer_id"].to_numpy(dtype=object), config.seed + 1)
    fold = (unit_interval(hashes) * n_folds).astype(np.int64)
    expected_response = np.full(len(rows), np.nan)
    ranker, rankers = pd.MultiIndex.from_frame(rows[["entity_type", "ranker_version"]]).factorize()
    known = np.array([key in calibrators for key in rankers])[ranker]
    for i, (entity_type, version) in enumerate(rankers):
        if (entity_type, version) not in calibrators and calibrators.known(entity_type):
            expected_response[ranker == i] = calibrators.prior(entity_type)
            logger.warning("%s %s has too few rows for a calibrator: prior of the type", entity_type, version)
    expected_response[known] = calibrators.cross_fitted(rows[known], fold[known], n_folds)
    expected_response[rows["raw_score"].isna().to_numpy()] = np.nan
    return expected_response


def later_random_pages(examples: Examples) -> NDArray[np.bool_]:
    """Return the rows that judge random effects: each viewer's latest random pages, if any page stands before them.

    About a seventh of the viewer's random pages, at least one; so that where few pages are random, every viewer
    with some history judges, not only those who happen to have several random pages.
    """
    pages = pd.DataFrame({"viewer": examples.viewer_id, "at": examples.at, "random": examples.random}).drop_duplicates()
    first = pages.groupby("viewer")["at"].transform("min")
    own = pages[pages["random"]].sort_values("at")
    from_last = own.groupby("viewer").cumcount(ascending=False)
    n_random = own.groupby("viewer")["at"].transform("size")
    chosen = own[(from_last < np.maximum(1, np.floor(n_random * LATER_SHARE))) & (own["at"] > first.loc[own.index])]
    judged = pd.MultiIndex.from_frame(chosen[["viewer", "at"]])
    return np.asarray(pd.MultiIndex.from_arrays([examples.viewer_id, examples.at]).isin(judged) & examples.random)


def fit_trees(
    examples: Examples,
    later: NDArray[np.bool_],
    features: CohortFeatures,
    specs: list[RandomEffect],
    config: Config,
    progress: Progress,
) -> tuple[GLMixClassifier, Choice]:
    """Fit trees and random effects together on the random policy; held-out rows decide what the trees may see."""
    teaching, judging = examples.take(examples.random & ~later), examples.take(later)
    judging = judging.take(judging.frame["viewer_id"].isin(teaching.frame["viewer_id"]).to_numpy())
    options = {"without viewer columns": False, "with viewer columns": True}
    if config.features.viewer_in_trees != "auto":
        wanted = config.features.viewer_in_trees == "yes"
        options = {name: viewer_columns for name, viewer_columns in options.items() if viewer_columns == wanted}
    models: dict[str, GLMixClassifier] = {}
    losses: dict[str, float] = {}
    for name, viewer_columns in options.items():
        progress(f"trees {name}", 0, 1)
        trees = specify_trees(features, config.trees, viewer_columns=viewer_columns, seed=config.seed)
        models[name] = GLMixClassifier(trees, specs, seed=config.seed).fit(
            teaching.frame,
            teaching.label,
            groups=teaching.viewer_id,
            validation=(judging.frame, judging.label) if len(judging) else None,
        )
        held_out = _held_out_losses(models[name], teaching, judging)
        if held_out:
            losses[name] = float(np.mean(held_out))
        progress(f"trees {name}", 1, 1)
    chosen = min(models, key=lambda name: losses.get(name, 0.0))
    model = models[chosen]
    n_unseen = int(model.held_out_groups_.sum())
    choice = Choice(
        "what the trees see",
        chosen,
        losses,
        f"{n_unseen:,} cohorts of held-out and {len(judging):,} later ones of seen viewers, averaged; "
        f"{cast('FittedTrees', model.fixed_).n_rounds} rounds",
    )
    return model, choice


def fit_effects(
    examples: Examples,
    later: NDArray[np.bool_],
    model: GLMixClassifier,
    features: CohortFeatures,
    specs: list[RandomEffect],
    progress: Progress,
) -> tuple[CohortTrees, tuple[Coefficients, ...], Choice]:
    """Fit the random effects again at the given fixed margin, on the rows of the policies that help; or none.

    The trees that decide have not seen the rows that judge; the trees that are kept learn from all random rows.
    """
    matrix = examples.frame[list(features.columns)].to_numpy()
    offset = CohortTrees(cast("FittedTrees", model.fixed_), features.columns).margin(matrix)
    every = np.ones_like(examples.random)
    held_variances = [dataclasses.replace(spec, l2=model.learnt_l2(spec.name)) for spec in specs]
    options = {
        "the random policy": (examples.random, specs),
        "every policy, prior variances of the random policy": (every, held_variances),
        "every policy": (every, specs),
    }
    if examples.random.all():
        options = {"the random policy": (examples.random, specs)}
    judging = (examples.frame[later], examples.label[later], np.ones(later.sum()), offset[later])
    earlier = ~later & (examples.at < _first_judged(examples, later))
    losses: dict[str, float] = {}
    fitted: dict[str, GLMixClassifier] = {}
    if specs and later.any():
        losses["no random effects"] = log_loss(examples.label[later], offset[later])
        for done, (name, (rows, effects)) in enumerate(options.items()):
            progress("random effects", done, len(options))
            fitted[name] = GLMixClassifier(fixed=None, random_effects=effects).fit(
                *_rows(examples, offset, rows & earlier), validation=judging
            )
            margin = fitted[name].decision_function(examples.frame[later], offset=offset[later])
            losses[name] = log_loss(examples.label[later], margin)
        progress("random effects", len(options), len(options))
    judged_on = f"{later.sum():,} later random cohorts of viewers with earlier pages"
    chosen = min(losses, key=lambda name: losses[name]) if losses else "no random effects"
    progress("all rows", 0, 1)
    final = refit_on_all(model, examples.frame[examples.random], examples.label[examples.random])
    trees = CohortTrees(cast("FittedTrees", final.fixed_), features.columns)
    progress("all rows", 1, 1)
    if chosen == "no random effects":
        return trees, (), Choice("random effects learn from", chosen, losses, judged_on)
    best = fitted[chosen]
    held = [dataclasses.replace(spec, l2=best.learnt_l2(spec.name)) for spec in specs]
    last = GLMixClassifier(fixed=None, random_effects=held)
    last.fit(*_rows(examples, trees.margin(matrix), options[chosen][0]))
    kept = [spec.name for spec in specs if np.isfinite(list(best.learnt_l2(spec.name).values())).any()]
    choice = Choice("random effects learn from", chosen, losses, judged_on)
    return trees, tuple(last.random_effects_[name] for name in kept), choice


def log_loss(label: NDArray[np.float64], margin: NDArray[np.float64]) -> float:
    """Return the mean log loss of log-odds."""
    return float(np.mean(np.logaddexp(0.0, margin) - label * margin))


def _rows(
    examples: Examples, offset: NDArray[np.float64], rows: NDArray[np.bool_]
) -> tuple[pd.DataFrame, NDArray[np.float64], None, NDArray[np.float64]]:
    return examples.frame[rows], examples.label[rows], None, offset[rows]


def _first_judged(examples: Examples, later: NDArray[np.bool_]) -> NDArray[np.datetime64]:
    """Return for each row the first judged moment of its viewer; the end of time where nothing is judged."""
    code, _ = pd.factorize(examples.viewer_id)
    first = np.full(code.max() + 1, np.datetime64("9999-01-01", "us"))
    np.minimum.at(first, code[later], examples.at[later])
    return first[code]


def _held_out_losses(model: GLMixClassifier, teaching: Examples, judging: Examples) -> list[float]:
    """Return the losses on held-out viewers and on later pages of seen ones, of those that there are."""
    losses = []
    if model.held_out_groups_.any():
        unseen = teaching.take(model.held_out_groups_)
        intercept, slope = model.unseen_correction_
        losses.append(log_loss(unseen.label, intercept + slope * model.margins(unseen.frame)["fixed"].to_numpy()))
    if len(judging):
        losses.append(log_loss(judging.label, np.asarray(model.decision_function(judging.frame))))
    return losses


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
