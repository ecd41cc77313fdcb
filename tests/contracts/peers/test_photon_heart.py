"""photon-ml: coefficient variances of an unpenalised logistic regression are those of R's glm.

Source: linkedin/photon-ml (Apache-2.0), the integration tests of photon-client and their input heart.txt (Statlog
heart, 13 features), with the variance computations of DistributedOptimizationProblemIntegTest: "full" variances are
the diagonal of the inverse of the Hessian at the maximum, as R has them in ``summary(glm(..., family = binomial))``;
"simple" ones, here "diagonal", the inverse of the Hessian's diagonal. The independent reference is statsmodels' Logit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from spr.glmix import GLMixClassifier, RandomEffect

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = [f"x{j}" for j in range(1, 14)]


@pytest.fixture(scope="module")
def heart(shared_data: Path) -> pd.DataFrame:
    file = shared_data / "heart" / "heart.txt"
    if not file.is_file():
        pytest.skip(f"{file} is not there: set SPR_DATA to the folder that holds heart/heart.txt")
    rows = []
    for line in file.read_text().splitlines():
        label, *cells = line.split()
        row = dict.fromkeys(FEATURES, 0.0) | {"label": float(float(label) > 0)}
        rows.append(row | {f"x{place}": float(value) for place, value in (cell.split(":") for cell in cells)})
    return pd.DataFrame(rows).assign(everyone="all")


@pytest.fixture(scope="module")
def reference(heart: pd.DataFrame) -> Any:
    design = heart[FEATURES].assign(intercept=1.0)
    return sm.Logit(heart["label"], design).fit(disp=0, tol=1e-12)


def _fitted(heart: pd.DataFrame, variance: str) -> pd.Series:
    effect = RandomEffect("all", "everyone", FEATURES, l2=0.0)
    model = GLMixClassifier(None, [effect], sweeps=30, variance=variance).fit(heart, heart["label"])
    return model.coefficients("all", variance=True).loc["all"]


def test_heart_has_its_rows(heart: pd.DataFrame) -> None:
    assert len(heart) == 250
    assert set(heart["label"]) == {0.0, 1.0}


def test_coefficients_are_the_maximum_likelihood(heart: pd.DataFrame, reference: Any) -> None:
    fitted = _fitted(heart, "full")[[*FEATURES, "intercept"]]
    errors = np.abs(fitted.to_numpy() - reference.params.to_numpy()) / reference.bse.to_numpy()
    assert errors.max() < 1e-3  # in standard errors: the features' scales differ a hundredfold


def test_full_variances_are_those_of_glm(heart: pd.DataFrame, reference: Any) -> None:
    fitted = _fitted(heart, "full")[[f"{name}_variance" for name in [*FEATURES, "intercept"]]]
    np.testing.assert_allclose(fitted, np.diag(reference.cov_params()), rtol=2e-3)


def test_diagonal_variances_invert_the_diagonal_of_the_hessian(heart: pd.DataFrame, reference: Any) -> None:
    fitted = _fitted(heart, "diagonal")[[f"{name}_variance" for name in [*FEATURES, "intercept"]]]
    hessian = np.linalg.inv(reference.cov_params())
    np.testing.assert_allclose(fitted, 1.0 / np.diag(hessian), rtol=2e-3)
