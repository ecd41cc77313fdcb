"""The whole path of training on one screen, and the choices it makes with the losses that decided them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from calibration import CalibrationError, CalibratorSet, PositionExamination
from spr import tables
from spr.assembly import assemble
from spr.errors import TableError
from spr.examples import Examples, collect_examples
from spr.features import CohortFeatures
from spr.glmix import GLMixClassifier, RandomEffect
from spr.glmix.holdout import HoldOut, salted_hashes, split, unit_interval
from spr.history import Choice
from spr.progress import Progress, ignore
from spr.ranker import SecondPassRanker
from spr.reorder import ImportanceFactors
from spr.trees import CohortTrees, specify_trees, tabulate_position

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.config import Config
    from spr.glmix.coefficients import Coefficients
    from spr.glmix.fixed import FittedTrees
    from spr.tables import Table


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

    progress("calibrators", 0, 1)
    calibrators = fit_calibrators(rows, config)
    expected_response = cross_fit(rows, calibrators, config)
    progress("calibrators", 1, 1)
    batch = assemble(rows, viewers, entities)
    features = CohortFeatures.fit(batch, config)
    keys = [effect.key for effect in config.random_effects]
    examples = collect_examples(rows, batch, features, expected_response, keys)
    model, trees, tree_choices = fit_trees(examples, features, config, progress)
    effects, effect_choices = fit_effects(examples, model, trees, config)
    return SecondPassRanker(
        config=config,
        calibrators=calibrators,
        features=features,
        trees=trees,
        effects=effects,
        unseen_correction=model.unseen_correction_ if effects else (0.0, 1.0),
        factors=ImportanceFactors.of(config.importance),
        history=(*tree_choices, *effect_choices),
    )


def fit_calibrators(rows: pd.DataFrame, config: Config) -> CalibratorSet:
    """Fit one calibrator per (entity type, ranker version) on the random policy, at the reference position."""
    examination = None
    if config.calibration.position_examination:
        known = rows[(rows["policy"] == "random") & rows["response"].notna() & rows["raw_score"].notna()]
        examination = PositionExamination.fit(
            known["position"].to_numpy(), known["response"].to_numpy(), stratum=known["entity_type"].to_numpy()
        )
    try:
        return CalibratorSet.fit(rows, method=config.calibration.method, examination=examination)
    except CalibrationError as error:
        raise TableError(f"impressions: {error}") from error


def cross_fit(rows: pd.DataFrame, calibrators: CalibratorSet, config: Config) -> NDArray[np.float64]:
    """Return the expected response of each row from rates that its viewer had no part in."""
    hashes = salted_hashes(rows["viewer_id"].to_numpy(dtype=object), config.seed)
    n_folds = config.calibration.folds
    fold = (unit_interval(hashes) * n_folds).astype(np.int64)
    return calibrators.cross_fitted(rows, fold, n_folds)


def fit_trees(
    examples: Examples, features: CohortFeatures, config: Config, progress: Progress
) -> tuple[GLMixClassifier, CohortTrees, list[Choice]]:
    """Fit trees and random effects together on the random policy; held-out viewers decide what the trees may see."""
    teaching = examples.take(examples.random)
    held = hold_out(teaching, config)
    effects = [
        RandomEffect(effect.name, key=effect.key, features=features.expand(effect.features))
        for effect in config.random_effects
    ]
    options = {"without viewer columns": False, "with viewer columns": True}
    if config.features.viewer_in_trees != "auto" or not held.groups.any():
        wanted = config.features.viewer_in_trees == "yes"
        options = {name: viewer_columns for name, viewer_columns in options.items() if viewer_columns == wanted}
    models: dict[str, GLMixClassifier] = {}
    losses: dict[str, float] = {}
    for name, viewer_columns in options.items():
        progress(f"trees {name}", 0, 1)
        trees = specify_trees(features, config.trees, viewer_columns=viewer_columns, seed=config.seed)
        model = GLMixClassifier(trees, effects, time="at", seed=config.seed)
        models[name] = model.fit(teaching.frame, teaching.label, groups=teaching.viewer_id)
        progress(f"trees {name}", 1, 1)
        if held.groups.any():
            losses[name] = _held_out_loss(model, teaching.take(held.groups))
    chosen = min(models, key=lambda name: losses.get(name, 0.0))
    fitted = cast("FittedTrees", models[chosen].fixed_)
    n_positions = int(teaching.frame["position"].max()) + 1
    choice = Choice(
        "what the trees see",
        chosen,
        losses,
        f"{held.groups.sum():,} cohorts of held-out and {held.rows.sum():,} later ones of seen viewers, averaged",
    )
    return models[chosen], CohortTrees(fitted, features.columns, tabulate_position(fitted, n_positions)), [choice]


def _held_out_loss(model: GLMixClassifier, unseen: Examples) -> float:
    intercept, slope = model.unseen_correction_
    of_unseen = log_loss(unseen.label, intercept + slope * model.margins(unseen.frame)["fixed"].to_numpy())
    of_seen = model.history_.loc[model.history_["stage"] != "final", "held_out_loss"].iloc[-1]
    return float(np.mean([of_unseen, of_seen]))


def fit_effects(
    examples: Examples, model: GLMixClassifier, trees: CohortTrees, config: Config
) -> tuple[tuple[Coefficients, ...], list[Choice]]:
    """Fit the random effects again with the fixed margin as offset, on the rows of the policies that help."""
    kept = [effect for effect in config.random_effects if model.prediction_scale_[effect.name] > 0]
    if not kept:
        return (), []
    offset = trees.margin(examples.frame[list(trees.matrix_columns)].to_numpy())
    specs = [
        RandomEffect(
            effect.name,
            key=effect.key,
            features=model.random_effects_[effect.name].features,
            l2=model.learnt_l2(effect.name),
        )
        for effect in kept
    ]

    def refit(rows: NDArray[np.bool_]) -> GLMixClassifier:
        model = GLMixClassifier(fixed=None, random_effects=specs)
        model.fit(examples.frame[rows], examples.label[rows], offset=offset[rows])
        return model

    judged = np.zeros_like(examples.random)
    judged[examples.random] = hold_out(examples.take(examples.random), config).rows
    options = {"the random policy": examples.random, "every policy": np.ones_like(examples.random)}
    if examples.random.all() or not judged.any():
        options.pop("every policy")
    losses: dict[str, float] = {}
    if judged.any():
        before = earlier_rows(examples, judged)
        frame, label = examples.frame[judged], examples.label[judged]
        losses["no random effects"] = log_loss(label, offset[judged])
        for name, rows in options.items():
            margin = refit(rows & before).decision_function(frame, offset=offset[judged])
            losses[name] = log_loss(label, margin)
    chosen = min(options, key=lambda name: losses.get(name, 0.0))
    fitted = refit(options[chosen])
    choice = Choice(
        "random effects learn from", chosen, losses, f"{judged.sum():,} later random cohorts of seen viewers"
    )
    return tuple(fitted.random_effects_[effect.name] for effect in kept), [choice]


def hold_out(examples: Examples, config: Config) -> HoldOut:
    """Split examples as the fit does: whole viewers, and the later requests of the others."""
    groups = salted_hashes(examples.viewer_id, config.seed)
    return split(groups, examples.at, np.ones(len(examples), dtype=bool))


def earlier_rows(examples: Examples, judged: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the rows before the first judged row of the same viewer, and all rows of viewers without one."""
    code, _ = pd.factorize(examples.viewer_id)
    first = np.full(code.max() + 1, np.datetime64("9999-01-01"))
    np.minimum.at(first, code[judged], examples.at[judged])
    return np.asarray(examples.at < first[code])


def log_loss(label: NDArray[np.float64], margin: NDArray[np.float64]) -> float:
    """Return the mean log loss of log-odds."""
    return float(np.mean(np.logaddexp(0.0, margin) - label * margin))


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
