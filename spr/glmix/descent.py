"""Block coordinate descent: the fixed effect and each random effect in turn, only margins moving between them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spr.glmix.families import GAUSSIAN
from spr.glmix.shrinkage import chosen_scale, unseen_correction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spr.glmix.boosting import TreesDescent
    from spr.glmix.families import Family
    from spr.glmix.holdout import HoldOut
    from spr.glmix.linear import LinearDescent
    from spr.glmix.random_effects import EffectDescent

    Floats = NDArray[np.float64]

# a sweep that moves the margins by less than this share of their spread is the last of its stage
_TOLERANCE = 5e-4
_STEPS_PER_SCALE = 2


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
    seconds : float
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
    prior_variance: dict[str, float] | None
    decision: str


class Descent:
    """Fit all coordinates of one model.

    Parameters
    ----------
    family : Family
    labels, weights, offset : float64 arrays of n
        All rows; rows of a validation set have weights too.
    fixed : TreesDescent, LinearDescent or None
    effects : sequence of EffectDescent
    hold_out : HoldOut
    taught : bool array of n
        Rows that the final fit may learn from: all but a validation set's.
    groups : int64 array of n
        The group of each row, for the uncertainty of the unseen correction.
    sweeps : int
        Blocks of boosting, and the most sweeps of any later stage.
    progress : callable
        Called with each `SweepRecord`.
    """

    def __init__(
        self,
        family: Family,
        labels: Floats,
        weights: Floats,
        offset: Floats,
        fixed: TreesDescent | LinearDescent | None,
        effects: Sequence[EffectDescent],
        hold_out: HoldOut,
        taught: NDArray[np.bool_],
        groups: NDArray[np.int64],
        sweeps: int,
        progress: Callable[[SweepRecord], None] | None,
    ) -> None:
        self.family, self.labels, self.weights = family, labels, weights
        self.fixed, self.effects, self.hold_out = fixed, effects, hold_out
        self.dispersion, self.unseen_correction = 1.0, (0.0, 1.0)
        self.history: list[SweepRecord] = []
        self._taught, self._groups, self._sweeps, self._progress = taught, groups, sweeps, progress
        self._fixed_margin = np.zeros(labels.size) if fixed is None else fixed.margin
        self.total = offset + self._fixed_margin
        self._stage, self._sweep, self._started = "search", 0, time.perf_counter()
        self._active = weights

    def run(self) -> None:
        """Search with the hold-outs apart, choose on them, then refit the random effects on all rows."""
        self._begin("search", self.hold_out.training)
        for _ in range(self._sweeps):
            self._take_sweep(learn=True)
        if self.fixed is not None:
            decision = self.fixed.finish()
            self._move_fixed()
            if decision:
                self._record("fixed", decision)
        self._sweep_until_still(learn=True)
        if self.hold_out.reason:
            self._record("fixed", self.hold_out.reason)
        if self.hold_out.rows.any():
            self._choose_scales()
        if self.hold_out.groups.any():
            self._correct_unseen()
        if self.hold_out.training.all():
            return
        scales = [effect.scale for effect in self.effects]
        for effect in self.effects:
            effect.scale = 0.0 if effect.dropped else 1.0
        self._begin("final", self._taught)
        self._sweep_until_still(learn=True)  # the estimate: prior variances on all rows
        if any(scale not in (0.0, 1.0) for scale in scales):
            for effect, scale in zip(self.effects, scales, strict=True):
                effect.scale = scale
            self._sweep_until_still(learn=False)  # the prediction: at the scale that held-out rows prefer

    def _begin(self, stage: str, teaching: NDArray[np.bool_]) -> None:
        self._stage, self._active = stage, np.where(teaching, self.weights, 0.0)
        spread = 1.0
        if self.family.code == GAUSSIAN:
            spread = max(self._residual_square(0.0), 1e-12)
            if stage == "search":
                self.dispersion, self._least_dispersion = spread, 1e-6 * spread
        for effect in self.effects:
            effect.begin(self.labels, self._active, spread)

    def _take_sweep(self, *, learn: bool) -> float:
        """Visit each coordinate once; return how far the margins moved, as a share of their spread."""
        before = self.total.copy()
        self._sweep += 1
        if self.fixed is not None:
            decision = self.fixed.advance(self.labels, self._active, self.total - self._fixed_margin)
            self._move_fixed()
            self._record("fixed", decision)
        parameters = 0.0
        for effect in self.effects:
            parameters += effect.step(self.family, self.total, self.dispersion, learn=learn)
            if not effect.dropped:
                self._record(effect.spec.name, "")
        if learn and self.family.code == GAUSSIAN:
            self.dispersion = max(self._residual_square(parameters), self._least_dispersion)
        moved, spread = np.std(self.total - before), np.std(self.total)
        return float(moved / spread) if spread > 0 else 0.0

    def _sweep_until_still(self, *, learn: bool) -> None:
        for _ in range(self._sweeps):
            if self._take_sweep(learn=learn) < _TOLERANCE:
                break

    def _move_fixed(self) -> None:
        assert self.fixed is not None  # noqa: S101 - for mypy: callers have looked
        self.total += self.fixed.margin - self._fixed_margin
        self._fixed_margin = self.fixed.margin

    def _residual_square(self, parameters: float) -> float:
        """Weighted mean of the squared residuals, with the effective parameters taken off the rows."""
        rows = float(self._active.sum())
        squares = float(self._active @ (self.labels - self.total) ** 2)
        return squares / max(rows - parameters, 0.05 * rows)

    def _choose_scales(self) -> None:
        rows = np.flatnonzero(self.hold_out.rows & (self.weights > 0))
        labels, weights = self.labels[rows], self.weights[rows]
        for effect in self.effects:
            if not effect.learns:
                continue
            without = weights * self.family.losses(labels, (self.total - effect.margin())[rows])

            def losses_at(scale: float, effect: EffectDescent = effect) -> Floats:
                effect.scale = scale
                for _ in range(_STEPS_PER_SCALE):
                    effect.step(self.family, self.total, self.dispersion, learn=False)
                return weights * self.family.losses(labels, self.total[rows])

            scale = chosen_scale(losses_at, without, effect.codes[rows])
            if scale > 0:
                losses_at(scale)
                self._record(effect.spec.name, f"scale {scale:g}", "choice")
            else:
                effect.drop(self.total)
                self._record(effect.spec.name, "dropped: no gain on held-out rows", "choice")

    def _correct_unseen(self) -> None:
        first = self.effects[0] if self.effects else None
        if first is None or first.dropped:
            return
        unseen = self.hold_out.groups & (self.weights > 0)
        known = first.codes >= 0
        unseen &= ~(known & first.seen[np.maximum(first.codes, 0)]) if len(first.keys) else True
        if unseen.any():
            fixed = self._fixed_margin[unseen]
            self.unseen_correction = unseen_correction(
                self.family,
                self.labels[unseen],
                self.weights[unseen],
                fixed,
                self.total[unseen] - fixed,
                self._groups[unseen],
            )
            intercept, slope = self.unseen_correction
            self._record("unseen", f"intercept {intercept:.4g}, slope {slope:.4g}", "choice")

    def _record(self, coordinate: str, decision: str, stage: str | None = None) -> None:
        variance = None
        for effect in self.effects:
            if effect.spec.name == coordinate and effect.learns:
                variance = dict(zip(effect.columns, effect.variance.tolist(), strict=True))
        held = self.hold_out.rows & (self._active == 0)  # in the last stage these rows teach
        now = time.perf_counter()
        record = SweepRecord(
            stage=stage or self._stage,
            sweep=self._sweep,
            coordinate=coordinate,
            loss=self.family.mean_loss(self.labels, self.total, self._active),
            held_out_loss=self.family.mean_loss(self.labels[held], self.total[held], self.weights[held]),
            seconds=now - self._started,
            prior_variance=variance,
            decision=decision,
        )
        self._started = time.perf_counter()
        self.history.append(record)
        if self._progress is not None:
            self._progress(record)
