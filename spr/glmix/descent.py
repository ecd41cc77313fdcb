"""Block coordinate descent: the fixed effect and each random effect in turn, only margins moving between them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spr.glmix.bias import learn_from_simulation
from spr.glmix.boosting import TreesDescent
from spr.glmix.families import GAUSSIAN
from spr.glmix.marginal import Marginal, pair_small_effects
from spr.glmix.shrinkage import chosen_scale, is_better, unseen_correction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from spr.glmix.centring import Centring
    from spr.glmix.effect_descent import EffectDescent
    from spr.glmix.families import Family
    from spr.glmix.fixed import FittedLinear, FittedTrees
    from spr.glmix.holdout import HoldOut

    Floats = NDArray[np.float64]

_STEPS_PER_SCALE = 1
_LEARNING_SWEEPS = 3  # the most that do nothing but learn: they begin close to where they end
_STILL = 0.005  # a sweep that moves no log variance by more is the last that learns them


class FixedDescent(Protocol):
    """A fixed effect while it is fitted: `TreesDescent` or `LinearDescent`."""

    margin: Floats
    """Of the effect that is served, for each row; a new array whenever it changes."""

    @property
    def margin_for_effects(self) -> Floats:
        """What the random effects are fitted at: `margin`, or out-of-fold margins of rows that teach."""

    def advance(self, labels: Floats, weights: Floats, rest: Floats) -> str:
        """Fit on at `rest`, the margin of everything else; return what was decided."""

    def shift_intercept(self, delta: float) -> None:
        """Add `delta` to the intercept and to the margin."""

    def finish(self) -> str:
        """End what has a budget; return what was decided."""

    def fitted(self) -> FittedTrees | FittedLinear:
        """Return what is served."""


@dataclass(frozen=True)
class SweepRecord:
    """One line of a fit's history.

    Parameters
    ----------
    stage : {"search", "choice", "final"}
        "search": held-out rows teach nothing; "choice": a decision on held-out rows; "final": all rows teach.
    sweep : int
        Counted through all stages.
    coordinate : str
        "fixed", a random effect's name, or "unseen".
    loss : float
        Mean loss on the rows that teach.
    held_out_loss : float
        Mean loss on held-out rows of seen groups; NaN where there are none, or where they teach by now.
    seconds, cpu_seconds : float
        Since the record before, on the clock and of all threads.
    prior_variance : dict or None
        Of a random effect, by column.
    decision : str
        What was decided, e.g. "scale 1.5"; empty where nothing was.
    """

    stage: str
    sweep: int
    coordinate: str
    loss: float
    held_out_loss: float
    seconds: float
    cpu_seconds: float
    prior_variance: dict[str, float] | None
    decision: str


class Descent:
    """Fit all coordinates of one model.

    Parameters
    ----------
    family : Family
    labels, weights, offset : float64 arrays of n
        All rows; rows of a validation set have weights too. `offset` becomes the total margin, in place.
    fixed : FixedDescent or None
    effects : sequence of EffectDescent
    hold_out : HoldOut
    taught : bool array of n
        Rows that the final fit may learn from: all but a validation set's.
    groups : uint64 array of n
        The hashed group of each row, for the uncertainty of the unseen correction.
    sweeps : int
        Blocks of boosting, and the most sweeps of any later stage.
    tolerance : float
        A sweep that moves the loss by less than this share is the last of its stage.
    order : sequence of str
        The coordinates, "fixed" among them, in the order of a sweep.
    locked : set of str
        Coordinates that keep what they started from.
    row_hash : uint64 array of n
        Draws the labels of the simulation that takes the bias off learnt variances.
    n_threads : int
    dispersion : float or None
        The residual variance where an earlier posterior, which rests on it, is the prior; None: estimated.
    progress : callable
        Called with each `SweepRecord`.
    centring : mapping of str to Centring
        Of the effects whose means a linear fixed effect can take over.
    """

    def __init__(
        self,
        family: Family,
        labels: Floats,
        weights: Floats,
        offset: Floats,
        fixed: FixedDescent | None,
        effects: Sequence[EffectDescent],
        hold_out: HoldOut,
        taught: NDArray[np.bool_],
        groups: NDArray[np.uint64],
        sweeps: int,
        tolerance: float,
        order: Sequence[str],
        locked: frozenset[str],
        row_hash: NDArray[np.uint64],
        n_threads: int,
        dispersion: float | None,
        progress: Callable[[SweepRecord], None] | None,
        centring: Mapping[str, Centring],
    ) -> None:
        self.family, self.labels, self.weights = family, labels, weights
        self.fixed, self.effects, self.hold_out = fixed, effects, hold_out
        self.dispersion, self.unseen_correction = dispersion or 1.0, (0.0, 1.0)
        self._estimates_dispersion = family.code == GAUSSIAN and dispersion is None
        self.history: list[SweepRecord] = []
        self.ablation: dict[str, float] = {}
        self._by_name = {effect.spec.name: effect for effect in effects}
        self._taught, self._groups, self._progress = taught, groups, progress
        self._sweeps, self._tolerance, self._order, self._locked = sweeps, tolerance, order, locked
        self._fixed_margin = np.zeros(labels.size) if fixed is None else fixed.margin_for_effects
        self.total = offset  # nobody else has it: moved in place
        self.total += self._fixed_margin
        for effect in effects:
            self.total[effect.order] += effect.margins
        self._stage, self._sweep = "search", 0
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        self._active, self._spreads = weights, np.zeros(0)
        self._row_hash, self._centring, self._n_threads = row_hash, centring, n_threads
        self._loss = np.inf
        # expected margins are further out than those of penalised likelihood, and the fixed effect follows them only
        # through centring: a sweep that learns and nothing else leaves it and the penalised step out
        self._settled = False
        self._log_bias: dict[str, Floats] = {}
        self._marginals: dict[str, Marginal] = {}

    def run(self, *, chooses: bool) -> None:
        """Search with the hold-outs apart and choose on them, where there is a choice; then fit on all rows."""
        if self.hold_out.reason:
            self._record("fixed", self.hold_out.reason)
        if chooses and not self.hold_out.training.all():
            self._search()
            self._choose()
        self._finish()

    @property
    def _memorises(self) -> bool:
        """Whether the fixed margin says more of rows that it has learnt from than of others."""
        return isinstance(self.fixed, TreesDescent)

    def _search(self) -> None:
        self._begin("search", self.hold_out.training)
        self._boost()
        self._sweep_until_still(learn=True)
        self._correct_variances()
        if self._log_bias:
            self._take_sweep(learn=False)

    def _boost(self) -> None:
        """Spend the boosting budget, a block a sweep; the variances are learnt along."""
        for sweep in range(self._sweeps):
            self._take_sweep(learn=True)
            if sweep == 0 and self.hold_out.rows.any():
                self._shrink_what_harms()
        if self.fixed is not None and "fixed" not in self._locked:
            decision = self.fixed.finish()
            self._move_fixed()
            if decision:
                self._record("fixed", decision)

    def _choose(self) -> None:
        if self.hold_out.rows.any():
            self._choose_scales()
            self._ablate()
        if self._memorises:
            self._correct_unseen(self.hold_out.groups & (self.weights > 0))

    def _finish(self) -> None:
        """Estimate prior variances on all rows, then predict at the scale that held-out rows prefer."""
        scales = [effect.scale for effect in self.effects]
        for effect in self.effects:
            effect.scale = 0.0 if effect.dropped else 1.0
        searched = self._sweep > 0
        self._begin("final", self._taught)
        if any(effect.learns and not effect.dropped for effect in self.effects):
            if searched:
                for effect in self.effects:  # back to where learning ended
                    if effect.spec.name in self._log_bias:
                        effect.correct(-self._log_bias[effect.spec.name])
                self._take_sweep(learn=False)  # rows that teach only now find their place before they are counted
            else:
                self._boost()
            self._sweep_until_still(learn=True)
            self._correct_variances()
        elif not searched and isinstance(self.fixed, TreesDescent):
            self._boost()
        for effect, scale in zip(self.effects, scales, strict=True):
            effect.scale = scale
        self._sweep_until_still(learn=False, keep_best=True)
        if self.hold_out.groups.any() and not self._memorises:
            self._correct_unseen(self._active > 0)

    def _correct_variances(self) -> None:
        """Take the bias of the approximation off the learnt variances; it is measured once."""
        if self.family.code == GAUSSIAN:
            return
        learning = [
            effect
            for effect in self.effects
            if effect.learns and not effect.dropped and effect.spec.name not in self._locked
        ]
        if learning and not self._log_bias:
            margin = self.total.copy()
            for effect in learning:
                margin[effect.order] -= effect.margins
            found = learn_from_simulation(self.family, learning, margin, self._spreads, self._sweeps, self._row_hash)
            self._log_bias = {effect.spec.name: bias for effect, bias in zip(learning, found, strict=True)}
        for effect in learning:
            if effect.spec.name in self._log_bias:
                effect.correct(self._log_bias[effect.spec.name])

    def _begin(self, stage: str, teaching: NDArray[np.bool_]) -> None:
        self._stage = stage
        self._active = self.weights if teaching.all() else np.where(teaching, self.weights, 0.0)
        spread = 1.0
        if self.family.code == GAUSSIAN:
            spread = max(self._residual_square(0.0), 1e-12)
            if not self._sweep and self._estimates_dispersion:
                self.dispersion, self._least_dispersion = spread, 1e-6 * spread
        elif any(effect.learns for effect in self.effects) and not self._spreads.size:
            self._spreads = np.zeros(self.labels.size)
        for effect in self.effects:
            decision = effect.begin(self.labels, self._active, spread)
            if decision:
                self._record(effect.spec.name, decision)
        self._marginals = pair_small_effects(self.effects)

    def _take_sweep(self, *, learn: bool) -> float:
        """Visit each coordinate once; return the change of the loss, as a share of it."""
        before = self._loss
        self._sweep += 1
        parameters = 0.0
        for name in self._order:
            if name in self._locked:
                continue
            if name == "fixed":
                self._advance_fixed()
            elif not self._by_name[name].dropped:
                parameters += self._step(self._by_name[name], learn=learn)
                self._record(name, "")
        if self._estimates_dispersion and (learn or not any(effect.learns for effect in self.effects)):
            self.dispersion = max(self._residual_square(parameters), self._least_dispersion)
        return abs(before - self._loss) / max(abs(before), 1e-12)

    def _advance_fixed(self) -> None:
        if self.fixed is not None and not self._settled:
            decision = self.fixed.advance(self.labels, self._active, self.total - self._fixed_margin)
            self._move_fixed()
            self._record("fixed", decision)

    def _step(self, effect: EffectDescent, *, learn: bool) -> float:
        """Move one random effect; the margins that stay are those of penalised likelihood."""
        marginal = self._marginals.get(effect.spec.name)
        if marginal is not None:
            parameters = marginal.step(self.family, self.total, self.dispersion, learn=learn)
        elif learn and self._spreads.size:
            parameters = effect.step(self.family, self.total, self._spreads, self.dispersion, learn=True)
            if not self._settled:
                effect.step(self.family, self.total, self._spreads[:0], self.dispersion, learn=False)
        else:
            parameters = effect.step(self.family, self.total, self._spreads[:0], self.dispersion, learn=learn)
        if effect.spec.parent is not None:
            effect.centre_within(self._by_name[effect.spec.parent], self.total)
        elif effect.spec.name in self._centring:
            self._centring[effect.spec.name].move(self.total, self.dispersion)
            self._fixed_margin = self.fixed.margin_for_effects if self.fixed is not None else self._fixed_margin
        elif self.fixed is not None and "fixed" not in self._locked:
            shift = effect.centre(self.total)
            self.fixed.shift_intercept(shift)
            self.total += shift
            self._fixed_margin = self.fixed.margin_for_effects
        return parameters

    def _sweep_until_still(self, *, learn: bool, keep_best: bool = False) -> None:
        """Sweep until the loss stands still; `keep_best` goes back to the sweep that a validation set liked best."""
        judged = keep_best and bool((self.hold_out.rows & ~self._taught).any())
        best, state, held = np.inf, None, np.nan
        self._settled = learn and self.family.code != GAUSSIAN
        for _ in range(min(self._sweeps, _LEARNING_SWEEPS) if learn and self._settled else self._sweeps):
            moved = self._take_sweep(learn=learn)
            held = self.history[-1].held_out_loss
            if judged and held < best:
                best, state = held, [effect.state() for effect in self.effects]
            if moved < self._tolerance or (learn and self._variances_stand()):
                break
        self._settled = False
        if state is not None and best < held:
            for effect, kept in zip(self.effects, state, strict=True):
                effect.restore(kept, self.total)
            self._record(self.effects[-1].spec.name, "back to the best sweep on the validation set")

    def _variances_stand(self) -> bool:
        learning = [effect.variance_moved for effect in self.effects if effect.learns and not effect.dropped]
        return max(learning, default=0.0) < _STILL

    def _move_fixed(self) -> None:
        assert self.fixed is not None  # noqa: S101 - for mypy: callers have looked
        margin = self.fixed.margin_for_effects
        if margin is not self._fixed_margin:
            self.total += margin - self._fixed_margin
            self._fixed_margin = margin

    def _residual_square(self, parameters: float) -> float:
        """Weighted mean of the squared residuals, with the effective parameters taken off the rows."""
        rows = float(self._active.sum())
        squares = float(self._active @ (self.labels - self.total) ** 2)
        return squares / max(rows - parameters, 0.05 * rows)

    def _held_rows(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        rows = np.flatnonzero(self.hold_out.rows & (self.weights > 0))
        return rows, self.labels[rows], self.weights[rows]

    def _shrink_what_harms(self) -> None:
        """Shrink an effect tenfold, in the first sweep, as long as held-out rows are worse off with it."""
        rows, labels, weights = self._held_rows()
        for effect in self.effects:
            for _ in range(4):
                if not effect.learns or effect.spec.name in self._locked:
                    break
                without = weights * self.family.losses(labels, (self.total - effect.margin())[rows])
                with_it = weights * self.family.losses(labels, self.total[rows])
                if not is_better(without, with_it, effect.codes[rows], 0.0):
                    break
                effect.variance = effect.variance / 10
                for _ in range(_STEPS_PER_SCALE):
                    effect.step(self.family, self.total, self._spreads[:0], self.dispersion, learn=False)
                self._record(effect.spec.name, "shrunk tenfold: a loss on held-out rows", "choice")

    def _choose_scales(self) -> None:
        rows, labels, weights = self._held_rows()
        for effect in self.effects:
            if not effect.learns or effect.spec.name in self._locked:
                continue
            without = weights * self.family.losses(labels, (self.total - effect.margin())[rows])

            def losses_at(scale: float, effect: EffectDescent = effect) -> Floats:
                effect.scale = scale
                for _ in range(_STEPS_PER_SCALE):
                    effect.step(self.family, self.total, self._spreads[:0], self.dispersion, learn=False)
                return weights * self.family.losses(labels, self.total[rows])

            scale = chosen_scale(losses_at, without, effect.codes[rows], known=effect.known)
            if scale > 0:
                losses_at(scale)
                self._record(effect.spec.name, f"scale {scale:g}", "choice")
            else:
                effect.drop(self.total, self._spreads)
                self._record(effect.spec.name, "dropped: no gain on held-out rows", "choice")

    def _ablate(self) -> None:
        """Measure on held-out rows what the fixed effect alone and random intercepts alone would reach."""
        rows, labels, weights = self._held_rows()
        kept = [
            effect
            for effect in self.effects
            if not (effect.dropped or effect.remembers or effect.spec.name in self._locked)
        ]
        states, whole = [effect.state() for effect in kept], self.total.copy()

        def held_loss() -> float:
            return self.family.mean_loss(labels, self.total[rows], weights)

        self.ablation["all coordinates"] = held_loss()
        for effect in kept:
            effect.clear(self.total)
        self.ablation["without random effects"] = held_loss()
        if any(effect.spec.intercept and effect.spec.features for effect in kept):
            for _ in range(2):
                for effect in kept:
                    with effect.intercept_only():
                        effect.step(self.family, self.total, self._spreads[:0], self.dispersion, learn=False)
            self.ablation["random intercepts only"] = held_loss()
        for effect, state in zip(kept, states, strict=True):
            effect.restore(state, self.total)
        self.total = whole

    def _correct_unseen(self, rows: NDArray[np.bool_]) -> None:
        """Fit the correction of the fixed margin on rows that are scored as if their first effect were unseen."""
        first = self.effects[0] if self.effects else None
        if first is None or first.dropped or not rows.any():
            return
        fixed = self._fixed_margin[rows]
        self.unseen_correction = unseen_correction(
            self.family,
            self.labels[rows],
            self.weights[rows],
            fixed,
            (self.total - first.margin())[rows] - fixed,
            np.unique(self._groups[rows], return_inverse=True)[1].astype(np.int64),
        )
        intercept, slope = self.unseen_correction
        self._record("unseen", f"intercept {intercept:.4g}, slope {slope:.4g}", "choice")

    def _record(self, coordinate: str, decision: str, stage: str | None = None) -> None:
        effect = self._by_name.get(coordinate)
        variance = None
        if effect is not None and effect.learns:
            variance = dict(zip(effect.columns, effect.variance.tolist(), strict=True))
        loss, held = self.family.mean_losses(
            self.labels, self.total, self._active, self.weights, self.hold_out.rows, self._n_threads
        )
        self._loss = loss
        now, cpu_now = time.perf_counter(), time.process_time()
        record = SweepRecord(
            stage=stage or self._stage,
            sweep=self._sweep,
            coordinate=coordinate,
            loss=loss,
            held_out_loss=held,
            seconds=now - self._started,
            cpu_seconds=cpu_now - self._cpu_started,
            prior_variance=variance,
            decision=decision,
        )
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        self.history.append(record)
        if self._progress is not None:
            self._progress(record)
