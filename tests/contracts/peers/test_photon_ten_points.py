"""photon-ml: least squares of ten points, with and without a penalty.

Source: linkedin/photon-ml (Apache-2.0), photon-api, GameEstimatorIntegTest: the "trivial" labelled points, and the
coefficients that the test expects of them. There the constant is a third feature like the others, so that it is
penalised: objective 1/2 sum (y - x b)^2 + lambda/2 |b|^2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.glmix import GLMixRegressor, RandomEffect

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = {0.3: [0.32155545, 0.17904355, 0.41222418], 0.0: [0.34945502, 0.26339479, 0.43661254]}
FEATURES = ["x1", "x2", "constant"]


@pytest.fixture(scope="module")
def points(shared_data: Path) -> pd.DataFrame:
    file = shared_data / "ten_points.csv"
    if not file.is_file():
        pytest.skip(f"{file} is not there: set SPR_DATA to the folder that holds ten_points.csv")
    return pd.read_csv(file).assign(constant=1.0, everyone="all")


@pytest.mark.parametrize("penalty", EXPECTED)
def test_fit_gives_the_coefficients_of_photon(points: pd.DataFrame, penalty: float) -> None:
    effect = RandomEffect("all", "everyone", FEATURES, intercept=False, l2=penalty)
    fitted = GLMixRegressor(None, [effect]).fit(points, points["label"]).coefficients("all")
    assert list(fitted.columns) == FEATURES
    np.testing.assert_allclose(fitted.loc["all"], EXPECTED[penalty], rtol=0, atol=1e-6)


@pytest.mark.parametrize("penalty", EXPECTED)
def test_fit_gives_each_of_many_entities_the_same(points: pd.DataFrame, penalty: float) -> None:
    copies = pd.concat([points.assign(everyone=f"copy {i}") for i in range(70)])
    effect = RandomEffect("all", "everyone", FEATURES, intercept=False, l2=penalty)
    fitted = GLMixRegressor(None, [effect]).fit(copies, copies["label"]).coefficients("all")
    np.testing.assert_allclose(fitted, np.tile(EXPECTED[penalty], (70, 1)), rtol=0, atol=1e-6)
