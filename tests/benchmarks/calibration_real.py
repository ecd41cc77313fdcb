"""Calibrators on a real log: Open Bandit's random policy, where the truth is not known. See peer_data.py.

A logistic regression of the click on user, item and campaign, learnt on half of the rows, is the first pass. Every
calibrator learns from the other half, five folds in turn, and is judged on the fold held out.

130 clicks do not teach a first pass anything: its AUC is 0.5 give or take 0.04 from split to split, whatever columns
and penalty it gets. So the right answer is about the rate itself, and the log tells who invents differences or loses
the rate. It does not tell who finds a curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import peer_data
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from calibration import calibration_summary, reliability_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibration_peers import Fit, Floats

N_FOLDS = 5
CATEGORIES = ["campaign", "item", *(f"user_feature_{j}" for j in range(4)), *(f"item_feature_{j}" for j in (1, 2, 3))]
NUMBERS = ["affinity", "item_feature_0"]


def first_pass(rows: pd.DataFrame, learn: np.ndarray) -> Floats:
    """Return the probability that a plain first-pass ranker gives each row, learnt from the rows of the mask."""
    features = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), CATEGORIES), (StandardScaler(), NUMBERS)
    )
    # A small C: the half has 65 clicks.
    ranker = make_pipeline(features, LogisticRegression(C=0.03, max_iter=1000)).fit(rows[learn], rows["click"][learn])
    return np.asarray(ranker.predict_proba(rows)[:, 1], dtype=np.float64)


def diagnostics(probability: Floats, click: Floats) -> dict[str, object]:
    """Return the diagnostics of one calibrator on rows that it has not seen."""
    rate = float(click.mean())
    rows = pd.DataFrame({"expected_response": probability, "response": click})
    (found,) = calibration_summary(rows, cluster_column=None).to_dict("records")
    bounded = np.clip(probability, 1e-12, 1.0 - 1e-12)
    loss = -(click * np.log(bounded) + (1.0 - click) * np.log1p(-bounded)).mean()
    loss_of_rate = -(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate))
    return {
        "rate / mean": _interval(found, "in_the_large", 1.0),
        "slope": _interval(found, "slope", 1.0),
        "ECE / rate": _interval(found, "ece", rate),
        "smooth ECE / rate": _interval(found, "smooth_ece", rate),
        "p": float(found["p_value"]),
        "log loss / that of the rate": float(loss / loss_of_rate),
        "zeros and ones": int(np.count_nonzero((probability <= 0.0) | (probability >= 1.0))),
    }


def _interval(found: Mapping[str, float], name: str, unit: float) -> str:
    estimate, low, high = (found[name + end] / unit for end in ("", "_low", "_high"))
    return f"{estimate:.2f} ({low:.2f} - {high:.2f})"


def real_log(fits: Mapping[str, Fit]) -> tuple[str, list[dict[str, object]], pd.DataFrame]:
    """Judge every calibrator on the real log.

    Returns
    -------
    str
        What the log is.
    list of dict
        One row of diagnostics per calibrator.
    DataFrame
        The reliability table of the first.
    """
    rows = peer_data.read_open_bandit()
    rng = np.random.default_rng(0)
    learn = rng.random(len(rows)) < 0.5
    score = first_pass(rows, learn)[~learn]
    click = rows["click"].to_numpy(np.float64)[~learn]
    fold = rng.integers(0, N_FOLDS, click.size)
    table, reliability = [], None
    for name, fit in fits.items():
        probability = np.empty(click.size)
        for number in range(N_FOLDS):
            held_out = fold == number
            probability[held_out] = fit(score[~held_out], click[~held_out])(score[held_out])
        table.append({"calibrator": name} | diagnostics(probability, click))
        if reliability is None:
            reliability = reliability_table(probability, click)
    table.append({"calibrator": "raw score"} | diagnostics(score, click))
    table.append({"calibrator": "the rate itself"} | diagnostics(np.full(click.size, click.mean()), click))
    said = (
        f"Open Bandit, random policy: {len(rows):,} rows, {rows['click'].sum()} clicks; judged on {click.size:,} "
        f"rows, {click.sum():.0f} clicks, rate {click.mean():.4f}; "
        f"AUC of the first pass {roc_auc_score(click, score):.3f}"
    )
    assert reliability is not None
    return said, table, reliability
