"""What held-out rows choose: what the trees may see, and which rows the random effects learn from."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from spr.glmix import GLMixClassifier, RandomEffect
from spr.history import Choice
from spr.trees import CohortTrees, specify_trees

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spr.config import Config
    from spr.examples import Examples
    from spr.features import CohortFeatures
    from spr.glmix import FittedTrees
    from spr.progress import Progress

logger = logging.getLogger(__name__)

LATER_SHARE = 0.15
NO_EFFECTS = "no random effects"


def later_random_pages(examples: Examples) -> NDArray[np.bool_]:
    """Return the rows that judge trees and random effects: each viewer's latest random pages that are not the first.

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


def choose_trees(
    examples: Examples,
    later: NDArray[np.bool_],
    features: CohortFeatures,
    specs: list[RandomEffect],
    config: Config,
    progress: Progress,
) -> tuple[GLMixClassifier, Choice]:
    """Fit trees and random effects together on the random policy; held-out rows decide what the trees may see.

    Parameters
    ----------
    examples : Examples
        Of every policy.
    later : bool[C]
        Of :func:`later_random_pages`: rows that judge and do not teach.
    features : CohortFeatures
        Names the columns.
    specs : list of RandomEffect
        Fitted beside the trees, so that these need not carry what is particular to a viewer.
    config : Config
        Says whether there is a choice, and gives the boosting budget.
    progress : callable
        ``progress(stage, done, total)``.

    Returns
    -------
    model : GLMixClassifier
        Of the option with the lower loss, averaged over held-out viewers and later pages of seen viewers.
    choice : Choice
        The losses.
    """
    teaching, judging = examples.take(examples.random & ~later), examples.take(later)
    judging = judging.take(judging.frame["viewer_id"].isin(teaching.frame["viewer_id"]).to_numpy())
    options = {"without viewer columns": False, "with viewer columns": True}
    if not any(column.startswith("viewer.") for column in features.columns):
        options = {"without viewer columns": False}  # there are none: no second fit of the same
    elif config.features.viewer_in_trees != "auto":
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
    rounds = cast("FittedTrees", model.fixed_).n_rounds
    if not n_unseen:
        logger.warning("below 50 viewers none is held out: the trees used their whole budget of %d rounds", rounds)
    choice = Choice(
        "what the trees see",
        chosen,
        losses,
        f"{n_unseen:,} cohorts of held-out and {len(judging):,} later ones of seen viewers, averaged; "
        f"{rounds} rounds kept",
    )
    return model, choice


def choose_effects(
    examples: Examples,
    later: NDArray[np.bool_],
    model: GLMixClassifier,
    features: CohortFeatures,
    specs: list[RandomEffect],
    progress: Progress,
) -> tuple[list[RandomEffect], NDArray[np.bool_], Choice]:
    """Decide on later random pages which policies' rows the random effects learn from, or that there are none.

    Parameters
    ----------
    examples, later, features, specs, progress
        As in :func:`choose_trees`.
    model : GLMixClassifier
        Its trees have not seen the rows that judge; its prior variances are those of the random policy.

    Returns
    -------
    shrunk : list of RandomEffect
        The effects that help, each with its learnt penalty; empty where none does.
    rows : bool[C]
        The rows that they learn from.
    choice : Choice
        The losses.
    """
    offset = CohortTrees(cast("FittedTrees", model.fixed_), features.columns).margin(
        examples.frame[list(features.columns)].to_numpy()
    )
    every = np.ones_like(examples.random)
    held_variances = [dataclasses.replace(spec, l2=model.learnt_l2(spec.name)) for spec in specs]
    options = {
        "the random policy": (examples.random, specs),
        "every policy, prior variances of the random policy": (every, held_variances),
        "every policy": (every, specs),
    }
    if examples.random.all():
        options = {"the random policy": (examples.random, specs)}
    judged, label = examples.frame[later], examples.label[later]
    earlier = ~later & (examples.at < _first_judged(examples, later))
    losses: dict[str, float] = {}
    fitted: dict[str, GLMixClassifier] = {}
    if specs and later.any():
        intercept, slope = model.unseen_correction_
        losses[NO_EFFECTS] = log_loss(label, intercept + slope * offset[later])
        for done, (name, (rows, effects)) in enumerate(options.items()):
            progress("random effects", done, len(options))
            rows = rows & earlier
            fitted[name] = GLMixClassifier(fixed=None, random_effects=effects).fit(
                examples.frame[rows],
                examples.label[rows],
                offset=offset[rows],
                validation=(judged, label, np.ones(len(label)), offset[later]),
            )
            losses[name] = log_loss(label, fitted[name].decision_function(judged, offset=offset[later]))
        progress("random effects", len(options), len(options))
    chosen = min(losses, key=lambda name: losses[name]) if losses else NO_EFFECTS
    choice = Choice(
        "random effects learn from",
        chosen,
        losses,
        f"{later.sum():,} later random cohorts of viewers with earlier pages",
    )
    if chosen == NO_EFFECTS:
        return [], every, choice
    shrunk = [dataclasses.replace(spec, l2=fitted[chosen].learnt_l2(spec.name)) for spec in specs]
    helpful = [spec for spec in shrunk if np.isfinite(list(cast("dict[str, float]", spec.l2).values())).any()]
    return helpful, options[chosen][0], choice


def log_loss(label: NDArray[np.float64], margin: NDArray[np.float64]) -> float:
    """Return the mean log loss of log-odds."""
    return float(np.mean(np.logaddexp(0.0, margin) - label * margin))


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
