"""Tuning: search the settings of a mixed model by their metric on rows that the model does not learn from."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput, MissingDependency
from spr.glmix.estimator import GLMixClassifier, GLMixRegressor
from spr.glmix.evaluators import Evaluator, evaluate, groups_of
from spr.glmix.rows import gather_rows
from spr.glmix.search_space import default_space, read_space, setting, with_settings
from spr.glmix.validation import choose_validation, has_known_keys
from spr.progress import ignore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    from spr.glmix.search_space import Choices, Model, Range
    from spr.progress import Progress

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

LOSSES: Final = {"binomial": "log_loss", "gaussian": "rmse", "poisson": "poisson_loss"}
MOST_RANDOM_TRIALS: Final = 10


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a search has found.

    Parameters
    ----------
    best_params : dict of str to value
        The searched settings of the best trial, by dotted name.
    best_model : GLMixClassifier or GLMixRegressor
        The model with these settings, fitted on all rows, the validation rows among them.
    best_value : float
        The metric of the best trial: fitted on the training rows, evaluated on the validation rows. As the best of
        many it flatters; other rows than these say how good `best_model` is.
    trials : DataFrame
        One row per trial: one column per searched setting, and ``value``. Trial 0 is the model as it was given.
    metric : Evaluator
    validation_rows : bool array of n
        The rows of X that judged.
    """

    best_params: dict[str, Any]
    best_model: Any
    best_value: float
    trials: pd.DataFrame
    metric: Evaluator
    validation_rows: NDArray[np.bool_] = field(repr=False)


def tune(
    model: GLMixClassifier | GLMixRegressor,
    X: pd.DataFrame,
    y: ArrayLike,
    *,
    space: Mapping[str, Any] | None = None,
    metric: str | Evaluator | None = None,
    validation: Literal["time", "group", "row"] | ArrayLike | None = None,
    validation_share: float = 0.2,
    n_trials: int = 30,
    seed: int = 0,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Search settings with a tree-structured Parzen estimator (Optuna) and fit the best on all rows.

    Parameters
    ----------
    model : GLMixClassifier or GLMixRegressor
        Where to start: what is not searched stays as it is here, and its own settings are the first trial. It is
        not changed.
    X, y, sample_weight, offset, groups
        As in the model's fit. `groups` also make the validation split ``"group"``.
    space : mapping of str to range or list, optional
        What to search, by dotted name: ``"sweeps"``, ``"fixed.<parameter>"``, ``"<random effect>.<parameter>"`` with
        the parameters of `Trees`, `Linear` and `RandomEffect`. A tuple is a range ``(low, high)``, both included,
        or ``(low, high, "log")``; a list holds choices of any kind (None as an `l2` = learnt). Default:
        `default_space`.
    metric : str or Evaluator, optional
        See `Evaluator.named`. Default: the family's loss, ``"log_loss"``, ``"rmse"`` or ``"poisson_loss"``.
    validation : {"time", "group", "row"} or bool array of n, optional
        Which rows judge. ``"time"``: the latest by the model's `time` column; no training row is as late as any of
        them. ``"group"``: whole groups (`groups`, else the first random effect's key), by a salted hash; rows without
        a group train. ``"row"``: rows by a salted hash of all that X holds of them, so that equal rows stay together.
        Or the rows themselves. Default: by time where the model has a `time`, else by group where `groups` are given,
        else by row.
    validation_share : float, default 0.2
        About how many of the rows (``"group"``: of the groups) judge.
    n_trials : int, default 30
        Fits, the model as given among them; one more is the last, on all rows.
    seed : int, default 0
        Of the sampler and of the hashes. One seed gives the same trials.
    progress : callable, optional
        Called as ``progress(stage, done, total)`` for the stages ``"trials"`` and ``"fit on all rows"``.

    Returns
    -------
    Tuning

    Raises
    ------
    InvalidModelInput
        An unknown setting or metric, an empty range or one outside what a parameter allows, no validation or no
        training rows, a setting that the validation rows cannot judge, a metric that is not defined on them.
    MissingDependency
        Optuna is not installed.

    Notes
    -----
    The validation rows are never seen in a trial's fit, which holds out rows of its own to stop the boosting and
    to scale the random effects. Where an effect's keys are held out whole, its penalty changes nothing that the
    validation rows see; to search it is refused, and the default space leaves it out.

    References
    ----------
    Bergstra et al. (2011), "Algorithms for hyper-parameter optimization", NeurIPS, section 4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"user": np.repeat(np.arange(100), 10), "day": np.tile(np.arange(10), 100)})
    >>> y = rng.random(1000) < 1 / (1 + np.exp(-np.repeat(rng.normal(size=100), 10)))
    >>> from spr.glmix import RandomEffect
    >>> model = GLMixClassifier(random_effects=[RandomEffect("member", key="user", l2=1000.0)], time="day")
    >>> found = tune(model, X, y, space={"member.l2": (0.1, 1000.0, "log")}, n_trials=8)
    >>> list(found.trials.columns), len(found.trials)
    (['member.l2', 'value'], 8)
    >>> bool(found.best_value < found.trials.loc[0, "value"])
    True
    """
    if not isinstance(model, GLMixClassifier | GLMixRegressor):
        raise InvalidModelInput(f"model is a {type(model).__name__}; allowed: GLMixClassifier or GLMixRegressor.")
    if not isinstance(n_trials, int) or n_trials < 1:
        raise InvalidModelInput(f"n_trials is {n_trials!r}; allowed: integers >= 1.")
    rows = _read_rows(model, X, y, sample_weight, offset, groups)
    judging = choose_validation(model, X, rows.weight > 0, rows.groups, validation, validation_share, seed)
    unjudged = [effect.name for effect in model.random_effects if not has_known_keys(effect.key, X, judging)]
    searched = read_space(model, default_space(model, without=unjudged) if space is None else space, unjudged)
    evaluator = _read_metric(model, metric, rows, judging)
    tell = progress or ignore
    given = {name: setting(model, name) for name in searched}
    training, validating = rows.take(~judging), rows.take(judging)

    def value_of(params: Mapping[str, Any]) -> float:
        fitted = training.fit(with_settings(model, params))
        found = evaluate(fitted, validating.X, validating.y, [evaluator], validating.weight, validating.offset)
        return float(found.iloc[0])

    study = _create_study(evaluator, n_trials, seed)
    tell("trials", 0, n_trials)
    trials = [{**given, "value": value_of(given)}]
    _tell_of_given(study, searched, given, trials[0]["value"])
    known: dict[tuple[tuple[str, Any], ...], float] = {}  # few choices come up again and again
    for number in range(1, n_trials):
        tell("trials", number, n_trials)
        trial = study.ask()
        params = {name: dimension.suggest(trial, name) for name, dimension in searched.items()}
        drawn = tuple(trial.params.items())
        if drawn not in known:
            known[drawn] = value_of(params)
        study.tell(trial, known[drawn])
        trials.append({**params, "value": known[drawn]})
    tell("trials", n_trials, n_trials)
    better = max if evaluator.larger_is_better else min
    best = better(trials, key=lambda trial: trial["value"])  # the first of equals
    best_params = {name: best[name] for name in searched}
    tell("fit on all rows", 0, 1)
    best_model = rows.fit(with_settings(model, best_params))
    tell("fit on all rows", 1, 1)
    return Tuning(best_params, best_model, best["value"], _tabulate(trials), evaluator, judging)


@dataclass(frozen=True)
class _Rows:
    """What a fit takes, checked."""

    X: pd.DataFrame
    y: Floats
    weight: Floats
    offset: Floats
    groups: NDArray[np.generic] | None

    def take(self, chosen: Mask) -> _Rows:
        groups = None if self.groups is None else self.groups[chosen]
        frame = self.X.iloc[np.flatnonzero(chosen)]
        return _Rows(frame, self.y[chosen], self.weight[chosen], self.offset[chosen], groups)

    def fit(self, model: Model) -> Model:
        model.fit(self.X, self.y, sample_weight=self.weight, offset=self.offset, groups=self.groups)
        return model


def _read_rows(
    model: GLMixClassifier | GLMixRegressor,
    X: pd.DataFrame,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    offset: ArrayLike | None,
    groups: ArrayLike | None,
) -> _Rows:
    _, labels, weights, offsets, _ = gather_rows(X, y, sample_weight, offset, None)
    model._family().check_labels(labels)
    named = None if groups is None else np.asarray(groups)
    if named is not None and named.shape != labels.shape:
        raise InvalidModelInput(f"groups has shape {named.shape} for {len(labels)} rows of X; allowed: one per row.")
    return _Rows(X, labels, weights, offsets, named)


def _read_metric(
    model: GLMixClassifier | GLMixRegressor, metric: str | Evaluator | None, rows: _Rows, judging: Mask
) -> Evaluator:
    """Read the metric, having tried that it is defined on the validation rows."""
    family = model._family().name
    asked = LOSSES[family] if metric is None else metric
    evaluator = Evaluator.named(asked) if isinstance(asked, str) else asked
    judges = rows.take(judging)
    groups = groups_of(evaluator, judges.X)
    nothing = np.zeros(len(judges.y))
    if math.isnan(evaluator.evaluate(judges.y, nothing, weight=judges.weight, groups=groups, family=family)):
        raise InvalidModelInput(
            f"metric {evaluator.name!r} is not defined on the {len(judges.y)} validation rows: "
            "they, or each of their groups, have one label."
        )
    return evaluator


def _create_study(evaluator: Evaluator, n_trials: int, seed: int) -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependency(
            "spr.glmix.tune needs optuna, which is not installed; run: pip install 'spr[tune]'"
        ) from error
    n_random = min(MOST_RANDOM_TRIALS, max(1, n_trials // 3))
    with _quiet_optuna():
        return optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_random),
            direction="maximize" if evaluator.larger_is_better else "minimize",
        )


def _tell_of_given(study: Any, searched: Mapping[str, Range | Choices], given: Mapping[str, Any], value: float) -> None:
    """Let the search start from the model as it was given, where the space has its settings."""
    drawn = {name: dimension.drawn_as(given[name]) for name, dimension in searched.items()}
    if None not in drawn.values():
        study.enqueue_trial(drawn)
        trial = study.ask()
        for name, dimension in searched.items():
            dimension.suggest(trial, name)
        study.tell(trial, value)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing its study; its logger goes back to its level, and no other logger is touched."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def _tabulate(trials: list[dict[str, Any]]) -> pd.DataFrame:
    """Give one row per trial; a column that holds a None or anything but numbers stays as it is."""
    columns = {}
    for name in trials[0]:
        values = [trial[name] for trial in trials]
        plain = all(isinstance(value, int | float) for value in values)
        columns[name] = pd.Series(values, dtype=None if plain else object)
    return pd.DataFrame(columns).rename_axis("trial")
