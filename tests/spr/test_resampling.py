"""Balanced rows: who is kept, and that corrected probabilities are those of all rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import chi2

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, Linear
from spr.metrics import normalized_cross_entropy
from spr.resampling import balance, correct_probability


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abc")), min_size=1, max_size=80),
    st.floats(0.05, 0.95),
    st.integers(0, 2**32 - 1),
)
def test_positives_stay_and_groups_reach_their_share(drawn, share, seed) -> None:
    label, group = np.array([y for y, _ in drawn]), np.array([g for _, g in drawn])
    rows = balance(label, group=group, positive_share=share, rng=seed)
    assert rows.kept[label == 1].all()
    assert set(rows.rate) == set(group)
    assert len(rows.offset) == rows.kept.sum()
    for name, rate in rows.rate.items():
        here = group == name
        positives, others, left = label[here].sum(), (label[here] == 0).sum(), (rows.kept & here & (label == 0)).sum()
        assert left == pytest.approx(rate * others) or others == 0
        if positives == 0:
            assert left == others
        elif left < others:
            assert abs(left - positives * (1 - share) / share) <= 1
        assert rows.offset[here[rows.kept]] == pytest.approx(-np.log(rate))


@given(st.integers(1, 50), st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 1))
def test_the_correction_is_exact_in_every_cell(positives, some, more, rate) -> None:
    for others in (some, more):
        among_kept = positives / (positives + rate * others)
        assert correct_probability([among_kept], rate)[0] == pytest.approx(positives / (positives + others))


def test_kept_rows_are_drawn_evenly() -> None:
    label = np.array([1.0] * 20 + [0.0] * 100)
    times = sum(balance(label, rng=seed).kept[20:] for seed in range(500))
    assert times.sum() == 500 * 20
    # Of 500 draws at 1/5: within 4 standard errors, in 100 rows.
    assert np.abs(times - 100).max() < 4.5 * np.sqrt(500 * 0.2 * 0.8)
    assert (balance(label, rng=3).kept == balance(label, rng=np.random.default_rng(3)).kept).all()


def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two types whose base rates differ tenfold, about 1 and 8 %."""
    x, kind = rng.normal(size=(n, 3)), rng.integers(0, 2, n)
    margin = -5.0 + 2.3 * kind + x @ np.array([0.8, -0.5, 0.3])
    return np.column_stack([x, kind]), (rng.random(n) < expit(margin)).astype(float), np.array(["rare", "often"])[kind]


def tolerance(truth: np.ndarray, whole: np.ndarray, balanced: np.ndarray, n_fitted: int, size: int) -> float:
    """How far two normalised cross entropies may be apart by chance.

    Four standard errors of the paired difference, and the excess loss of the second fit: on all n rows it is
    chi-squared of k over 2n, on as many rows without the label as with it at most twice that; its 99.99 % point.
    """
    whole_loss, loss = (-np.log(np.where(truth == 1, p, 1 - p)) for p in (whole, balanced))
    noise = np.std(loss - whole_loss) / np.sqrt(len(truth))
    rate = truth.mean()
    base = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
    return float((4 * noise + chi2.ppf(0.9999, size) / n_fitted) / base)


def test_corrected_probabilities_score_as_those_of_a_model_of_all_rows() -> None:
    rng = np.random.default_rng(4)
    x, y, group = draw(rng, 60_000)
    unseen, truth, unseen_group = draw(rng, 200_000)
    design, judged = sm.add_constant(x), sm.add_constant(unseen)
    rows = balance(y, group=group, rng=1)
    assert rows.kept.mean() < 0.12
    whole = sm.Logit(y, design).fit(disp=0).predict(judged)
    said = sm.Logit(y[rows.kept], design[rows.kept]).fit(disp=0).predict(judged)
    corrected = rows.correct(said, unseen_group)
    allowed = tolerance(truth, whole, corrected, len(y), 5)
    entropy = {name: normalized_cross_entropy(truth, p) for name, p in (("whole", whole), ("corrected", corrected))}
    assert entropy["corrected"] == pytest.approx(entropy["whole"], abs=allowed)
    assert allowed < 0.01
    assert normalized_cross_entropy(truth, said) > 2 * entropy["whole"]  # what goes wrong without the correction
    # Observed over expected: 1, within the errors of the counts that it rests on.
    for name in ("rare", "often"):
        here = unseen_group == name
        off = np.log(truth[here].sum() / corrected[here].sum())
        assert abs(off) < 4 * np.sqrt(1 / truth[here].sum() + 2 / y[group == name].sum())


def test_a_fit_with_the_offset_needs_no_correction() -> None:
    rng = np.random.default_rng(4)
    x, y, group = draw(rng, 30_000)
    unseen, truth, _ = draw(rng, 50_000)
    names = ["a", "b", "c", "kind"]
    frame, judged = (pd.DataFrame(part, columns=names) for part in (x, unseen))
    rows = balance(y, group=group, positive_share=0.3, rng=1)
    whole = GLMixClassifier(Linear(names, l2=1.0)).fit(frame, y).predict_proba(judged)[:, 1]
    model = GLMixClassifier(Linear(names, l2=1.0)).fit(frame[rows.kept], y[rows.kept], offset=rows.offset)
    balanced = model.predict_proba(judged)[:, 1]
    allowed = tolerance(truth, whole, balanced, len(y), 5)
    assert normalized_cross_entropy(truth, balanced) == pytest.approx(
        normalized_cross_entropy(truth, whole), abs=allowed
    )
    assert allowed < 0.02
    assert truth.sum() / balanced.sum() == pytest.approx(1.0, abs=4 * np.sqrt(1 / truth.sum() + 2 / y.sum()))


def test_nothing_to_leave_out_leaves_all() -> None:
    for label in ([0, 0, 0], [1, 1], [1, 1, 1, 0], []):
        rows = balance(label, rng=0)
        assert rows.kept.all()
        assert set(rows.rate.values()) <= {1.0}
        assert (rows.offset == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balance([0, 2], rng=0), "one 0 or 1 per row"),
        (lambda: balance([0, np.nan], rng=0), "not mature"),
        (lambda: balance([0, 1], positive_share=1.0, rng=0), "positive_share is 1.0"),
        (lambda: balance([0, 1], group=["a"], rng=0), "group has shape"),
        (lambda: balance([0, 1], group=["a", None], rng=0), "or a null"),
        (lambda: balance([0, 1], group=["a", "b"], rng=0).correct([0.5], ["c"]), "no rate of group 'c'"),
        (lambda: balance([0, 1], group=["a", "b"], rng=0).correct([0.5]), "no rate of group 'all'"),
        (lambda: correct_probability([1.1], 0.5), "probability is 1.1"),
        (lambda: correct_probability([0.1], 0.0), "rate is 0.0"),
    ],
)
def test_what_is_not_allowed_is_refused(call, message) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        call()
