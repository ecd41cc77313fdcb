"""photon-ml: a random effect that rows cannot tell from noise must not do harm.

Source: linkedin/photon-ml (Apache-2.0), photon-client, GameTrainingDriverIntegTest on its sample of Yahoo! Music: a
fixed effect and a per-user effect of 31 coefficients where a user has about one row. photon's own random effects make
the error there worse, 1.299 -> 1.369. The data here is made in that shape: ratings 1-5 in spirit, one row a user, 30
features and an intercept a user, with and without tastes of the users' own.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect

N_USERS, N_FEATURES = 1500, 30
FEATURES = [f"f{i:02d}" for i in range(N_FEATURES)]
NOISE_SD = 1.2  # of a rating about its mean; photon's error is of this size


def _ratings(seed: int, taste_sd: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of one row a user, to teach and to judge, with the same tastes; column y is the rating."""
    rng = np.random.default_rng(seed)
    weights = np.concatenate([[1.0, -0.7, 0.4], np.zeros(N_FEATURES - 3)])
    tastes = taste_sd * rng.normal(size=(N_USERS, N_FEATURES + 1))
    tables = []
    for _ in range(2):
        features = rng.normal(size=(N_USERS, N_FEATURES)) * (rng.random((N_USERS, N_FEATURES)) < 0.4)
        own = (features * tastes[:, :-1]).sum(axis=1) + tastes[:, -1]
        y = 3.0 + features @ weights + own + NOISE_SD * rng.normal(size=N_USERS)
        tables.append(pd.DataFrame(features, columns=FEATURES).assign(user=np.arange(N_USERS), y=y))
    return tables[0], tables[1]


def _root_mean_square(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).mean()))


@pytest.mark.parametrize("taste_sd", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_one_row_a_user_is_shrunk_away(seed: int, taste_sd: float) -> None:
    train, test = _ratings(seed, taste_sd)
    fixed = Linear(FEATURES)
    alone = GLMixRegressor(fixed).fit(train, train["y"])
    model = GLMixRegressor(fixed, [RandomEffect("user", "user", FEATURES)]).fit(train, train["y"])

    unexplained = NOISE_SD**2 + taste_sd**2 * (0.4 * N_FEATURES + 1)
    assert model.residual_variance_ == pytest.approx(unexplained, rel=0.15)
    active = dict.fromkeys(FEATURES, 0.4) | {"intercept": 1.0}
    added = sum(active[column] * value for column, value in model.prior_variance_["user"].items())
    assert added < 0.05 * unexplained
    assert _root_mean_square(model.margins(train)["user"].to_numpy()) < 0.05 * NOISE_SD

    error = _root_mean_square(model.decision_function(test) - test["y"].to_numpy())
    error_alone = _root_mean_square(alone.decision_function(test) - test["y"].to_numpy())
    assert error <= 1.001 * error_alone


@pytest.mark.parametrize("seed", range(3))
def test_one_label_a_user_is_shrunk_away(seed: int) -> None:
    train, test = _ratings(seed, 0.0)
    fixed = Linear(FEATURES)
    alone = GLMixClassifier(fixed).fit(train, train["y"] > 3)
    model = GLMixClassifier(fixed, [RandomEffect("user", "user", FEATURES)]).fit(train, train["y"] > 3)
    assert max(model.prior_variance_["user"].values()) < 0.01
    assert np.abs(model.margins(train)["user"]).max() < 0.1

    liked = (test["y"] > 3).to_numpy()
    assert _log_loss(model, test, liked) <= 1.001 * _log_loss(alone, test, liked)


@pytest.mark.parametrize("seed", range(3))
def test_a_few_rows_for_some_users_do_not_let_the_variances_run_off(seed: int) -> None:
    # There is nothing to find, and about a thousand pairs of rows of one user to tell it by: a variance of a feature
    # that both rows of 160 pairs have is known to about NOISE_SD**2 / sqrt(160). Wide bounds, but no run-off.
    rng = np.random.default_rng(100 + seed)
    train, test = _ratings(seed, 0.0)
    train = train.assign(user=rng.integers(0, int(0.7 * N_USERS), N_USERS))
    alone = GLMixRegressor(Linear(FEATURES)).fit(train, train["y"])
    model = GLMixRegressor(Linear(FEATURES), [RandomEffect("user", "user", FEATURES)]).fit(train, train["y"])
    assert 0.5 * NOISE_SD**2 < model.residual_variance_ < 1.2 * NOISE_SD**2
    assert max(model.prior_variance_["user"].values()) < 0.3 * NOISE_SD**2
    error = _root_mean_square(model.decision_function(test) - test["y"].to_numpy())
    assert error <= 1.001 * _root_mean_square(alone.decision_function(test) - test["y"].to_numpy())


def _log_loss(model: GLMixClassifier, rows: pd.DataFrame, liked: np.ndarray) -> float:
    margin = model.decision_function(rows)
    return float(np.logaddexp(0.0, np.where(liked, -margin, margin)).mean())
