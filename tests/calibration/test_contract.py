"""The contract suite: our calibrators pass it, and each kind of bad calibrator fails it by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from calibration import QuantileResponseCalibrator
from calibration.testing import ContractViolation, check_calibrator


@pytest.mark.parametrize("method", ["auto", "loglinear", "spline", "isotonic", "steps"])
@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_contract_holds_for_every_configuration(method: str, transforms: str) -> None:
    check_calibrator(QuantileResponseCalibrator(method, transforms))


@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_contract_tells_that_a_line_in_skewed_scores_is_wrong_in_the_extremes(transforms: str) -> None:
    with pytest.raises(ContractViolation, match=r"the lowest fifth of the scores has 3\.\d+ times its true rate"):
        check_calibrator(QuantileResponseCalibrator("sigmoid", transforms))


class WrongShape(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        return super().predict(raw_score).tolist()


class FillsNaN(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        return np.nan_to_num(super().predict(raw_score), nan=0.5)


class ReachesZero(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        answer = super().predict(raw_score)
        return np.where(answer < 0.05, 0.0, answer)


class Wiggles(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        answer = super().predict(raw_score)
        return answer * (1 - 0.1 * np.sin(40 * np.asarray(raw_score)))


class RisesOutside(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        answer = super().predict(raw_score)
        return answer + (1 - answer) * np.clip(np.asarray(raw_score) - 100, 0, 1) / 2


class Random(QuantileResponseCalibrator):
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        self.factor = np.random.default_rng().uniform(0.9, 1.0)
        return super().fit(*args, **kwargs)

    def predict(self, raw_score: Any) -> Any:
        return super().predict(raw_score) * self.factor


class ReadsRowOrder(QuantileResponseCalibrator):
    def fit(self, raw_score: Any, response: Any, sample_weight: Any = None, examination: Any = None) -> Any:
        del sample_weight, examination
        half = (len(raw_score) + 1) // 2
        return super().fit(raw_score[:half], response[:half])


class ReadsNaN(QuantileResponseCalibrator):
    def fit(self, raw_score: Any, response: Any, sample_weight: Any = None, examination: Any = None) -> Any:
        filled = np.where(np.isnan(raw_score), 0.0, raw_score)
        return super().fit(filled, response, sample_weight, examination)


class IgnoresWeights(QuantileResponseCalibrator):
    def fit(self, raw_score: Any, response: Any, sample_weight: Any = None, examination: Any = None) -> Any:
        del sample_weight
        return super().fit(raw_score, response, None, examination)


class FailsWithoutPositives(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        answer = super().predict(raw_score)
        return answer if self.curve_.n_positive else answer * 0


class Biased(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        return super().predict(raw_score) * 0.9


class Constant(QuantileResponseCalibrator):
    def predict(self, raw_score: Any) -> Any:
        answer = super().predict(raw_score)
        return np.where(np.isnan(answer), np.nan, self.curve_.mean_response)


class AcceptsAnything(QuantileResponseCalibrator):
    def fit(self, raw_score: Any, response: Any, sample_weight: Any = None, examination: Any = None) -> Any:
        return super().fit(np.nan_to_num(raw_score, nan=np.nan, posinf=9.0), response, sample_weight, examination)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (WrongShape, "returned list"),
        (FillsNaN, "NaN for NaN; it gave 0.5"),
        (ReachesZero, "inside"),
        (Wiggles, "must not lower"),
        (RisesOutside, "stay flat"),
        (Random, "two fits on the same rows"),
        (ReadsRowOrder, "order of the rows"),
        (ReadsNaN, "raw score is NaN must not change"),
        (IgnoresWeights, "row of weight 2"),
        (FailsWithoutPositives, "no positives"),
        (Biased, "base rate; it is off by -10"),
        (Constant, "lowest fifth"),
        (AcceptsAnything, "must refuse an infinite raw score"),
    ],
)
def test_contract_fails_for(bad: type[QuantileResponseCalibrator], message: str) -> None:
    with pytest.raises(ContractViolation, match=message):
        check_calibrator(bad(method="isotonic"))
