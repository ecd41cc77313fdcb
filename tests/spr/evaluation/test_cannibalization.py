"""Effects of what stands above: against the truth, statsmodels, and what must not move them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import binom, chi2

import spr
from simulations import Behaviour, World
from simulations.behaviour import ENTITY_TYPES
from spr.errors import ConfigError
from spr.evaluation import cannibalization, cannibalization_plot
from spr.evaluation.arrangements import Arrangements
from spr.evaluation.cannibalization import Cannibalization, estimate_above_effects

CONFIG = spr.Config.named("network")
STRENGTHS = {"company": {"hashtag": 0.4}, "member_follow": {"people": 0.9}, "event": {"group": -0.6}}


def made_pages(
    truth: np.ndarray,
    rng: np.random.Generator,
    *,
    pages: int = 3000,
    viewers: int = 400,
    rate: float = 0.4,
    confounded: bool = False,
    sizes: tuple[int, int] = (4, 8),
) -> Arrangements:
    """Shuffled pages with labels of rate exp(truth' above), whose level differs by viewer, type and place.

    ``confounded``: viewers who respond little have many cohorts of type 0 on their pages.
    """
    kinds = len(truth)
    viewer = rng.integers(viewers, size=pages)
    level = rng.gamma(2.0, 0.5, viewers)
    chance = np.ones((pages, kinds))
    if confounded:
        chance[:, 0] = np.where(level[viewer] < 0.8, 6.0, 0.5)
    until = chance.cumsum(axis=1) / chance.sum(axis=1, keepdims=True)
    types = (rng.random((pages, sizes[1]))[:, :, None] > until[:, None, :]).sum(axis=2)
    there = np.arange(sizes[1]) < rng.integers(sizes[0], sizes[1] + 1, size=pages)[:, None]
    of_type = np.eye(kinds, dtype=np.int64)[types] * there[:, :, None]
    above = of_type.cumsum(axis=1) - of_type
    page, place = np.nonzero(there)
    above, others = above[there], of_type.sum(axis=1)[page] - of_type[there]
    mean = rate * level[viewer[page]] * (1 + types[there] / kinds) / np.sqrt(1 + place)
    count = rng.poisson(mean * np.exp((above * truth[types[there]]).sum(axis=1))).astype(float)
    return Arrangements(tuple("abcdefg"[:kinds]), types[there], others, above, count, page, viewer[page])


def estimated(arrangements: Arrangements, reference: str | None = None) -> Cannibalization:
    effects = estimate_above_effects(arrangements)
    pages = int(arrangements.page.max()) + 1
    return Cannibalization(arrangements.types, effects, "entity_type", "response", 0.95, pages, reference)


def relative(truth: np.ndarray, found: Cannibalization) -> np.ndarray:
    """The true contrasts that a result is about."""
    if found.reference is not None:
        return truth - truth[:, [found.types.index(found.reference)]]
    share = np.array([effects.share_above for effects in found.effects])
    return (truth - (truth * share).sum(axis=1, keepdims=True)) / (1 - share)


def distance(truth: np.ndarray, found: Cannibalization) -> float:
    """Squared distance of all rows from the truth, in standard errors: chi-squared of T (T - 1)."""
    total = 0.0
    for row, effects in zip(truth, found.effects, strict=True):
        off = effects.coefficient - row
        off -= off.mean()
        total += off @ np.linalg.pinv(effects.covariance, rcond=1e-9) @ off
    return total


TRUTH = np.array([[0.0, -0.5, 0.2], [0.3, 0.0, 0.0], [-0.2, 0.1, -0.4]])


@pytest.fixture(scope="module")
def world_found() -> Cannibalization:
    log = World(600, seed=2, behaviour=Behaviour(cannibalization=STRENGTHS)).impressions(4000, random_share=1.0)
    return cannibalization(log, CONFIG)


@pytest.mark.parametrize("reference", [None, "newsletter"])
def test_strengths_of_a_made_network_are_recovered(world_found: Cannibalization, reference: str | None) -> None:
    found = world_found.relative_to(reference)
    order = [ENTITY_TYPES.index(name) for name in found.types]
    truth = -Behaviour(cannibalization=STRENGTHS).cannibalization_matrix[np.ix_(order, order)]
    table = found.to_pandas().assign(truth=relative(truth, found).ravel())
    table = table[table["standard_error"] > 0]
    z = (table["log_ratio"] - table["truth"]) / table["standard_error"]
    assert len(z) == (49 if reference is None else 42)
    assert np.abs(z).max() < 3.9  # 49 of them: once in 200 worlds
    assert distance(truth, found) < chi2.ppf(0.999, 7 * 6)
    marked = {(row.type, row.above) for row in table[table["marked"]].itertuples()}
    assert {("company", "hashtag"), ("member_follow", "people"), ("event", "group")} <= marked
    if reference is not None:
        assert len(marked) == 3


def test_intervals_cover_and_nothing_is_marked_where_there_is_nothing() -> None:
    covered, wrong, repetitions = [], 0, 60
    for seed in range(repetitions):
        for truth in (TRUTH, np.zeros((3, 3))):
            found = estimated(made_pages(truth, np.random.default_rng([5, seed]), pages=400))
            table = found.to_pandas()
            inside = (table["low"] <= relative(truth, found).ravel()) & (
                relative(truth, found).ravel() <= table["high"]
            )
            covered.append(inside.to_numpy())
            wrong += bool(table["marked"].any()) and not truth.any()
    # Rows are nearly independent, and of the three entries of a row two are free.
    share, free = np.mean(covered), 6 * 2 * repetitions
    assert abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / free) + 0.005
    assert wrong <= binom.ppf(0.999, repetitions, 0.05)


def test_composition_that_goes_with_the_viewer_does_not_confound() -> None:
    pages = made_pages(np.zeros((3, 3)), np.random.default_rng(3), pages=6000, confounded=True)
    found = estimated(pages)
    z = (found.matrix() / found.matrix("standard_error")).to_numpy()
    assert np.abs(z).max() < 3.5
    naive = poisson_gee(pages, 1)
    assert np.abs(naive.params[-2:] / naive.bse[-2:]).max() > 6  # a regression on position finds what is not there


def poisson_gee(pages: Arrangements, code: int, *, controlled: bool = False):
    """Labels of one type on place (a level each) and what stands above; the last type above is the reference."""
    here = pages.type_code == code
    parts = [pd.get_dummies(pages.place[here]).to_numpy(dtype=float)]
    if controlled:
        others = pages.others[here]
        parts.append((pages.place[here][:, None] * others / others.sum(axis=1, keepdims=True))[:, :-1])
    design = np.column_stack([*parts, pages.above[here][:, :-1]])
    return sm.GEE(pages.count[here], design, groups=pages.viewer[here], family=sm.families.Poisson()).fit()


def test_it_agrees_with_a_poisson_gee_that_controls_for_what_the_shuffle_expects() -> None:
    pages = made_pages(TRUTH, np.random.default_rng(8), pages=6000)
    found = estimated(pages, reference="c")
    for code in range(3):
        theirs, ours = poisson_gee(pages, code, controlled=True), found.to_pandas()[3 * code : 3 * code + 2]
        assert theirs.params[-2:] == pytest.approx(ours["log_ratio"], abs=1.5 * ours["standard_error"].min())
        assert theirs.bse[-2:] == pytest.approx(ours["standard_error"], rel=0.15)


def test_errors_are_by_viewer_and_units_do_not_matter() -> None:
    pages = made_pages(TRUTH, np.random.default_rng(4), pages=800)
    once = estimated(pages)

    def twice(shift: int) -> Arrangements:
        both = {name: np.concatenate([getattr(pages, name)] * 2) for name in ("type_code", "others", "above", "count")}
        return replace(
            pages,
            **both,
            page=np.concatenate([pages.page, pages.page + pages.page.max() + 1]),
            viewer=np.concatenate([pages.viewer, pages.viewer + shift]),
        )

    same, new = estimated(twice(0)), estimated(twice(1000))
    assert same.matrix().to_numpy() == pytest.approx(once.matrix().to_numpy(), abs=1e-6)
    assert same.matrix("standard_error").to_numpy() == pytest.approx(once.matrix("standard_error").to_numpy(), rel=1e-4)
    halved = once.matrix("standard_error").to_numpy() / np.sqrt(2)
    assert new.matrix("standard_error").to_numpy() == pytest.approx(halved, rel=0.02)
    for unit in (1e-7, 60.0):
        rescaled = estimated(replace(pages, count=pages.count * unit))
        for column in ("log_ratio", "standard_error"):
            assert rescaled.matrix(column).to_numpy() == pytest.approx(once.matrix(column).to_numpy(), abs=1e-6)


def test_open_labels_tell_nothing_and_stand_above() -> None:
    pages = made_pages(TRUTH, np.random.default_rng(6), pages=800)
    is_open = np.random.default_rng(0).random(len(pages.count)) < 0.3
    found = estimated(replace(pages, count=np.where(is_open, np.nan, pages.count)), reference="c")
    kept = {
        name: getattr(pages, name)[~is_open] for name in ("type_code", "others", "above", "count", "page", "viewer")
    }
    pd.testing.assert_frame_equal(found.matrix(), estimated(replace(pages, **kept), reference="c").matrix())
    pd.testing.assert_frame_equal(found.matrix("share_above"), estimated(pages).matrix("share_above"))
    assert found.to_pandas()["n_cohorts"].sum() == 3 * (~is_open).sum()


def test_a_reference_moves_all_effects_of_a_row_alike() -> None:
    found = estimated(made_pages(TRUTH, np.random.default_rng(7), pages=800))
    by_c, by_a = found.relative_to("c").matrix(), found.relative_to("a").matrix()
    assert (by_c["c"] == 0).all()
    assert (by_a.sub(by_a["c"], axis=0)).to_numpy() == pytest.approx(by_c.to_numpy(), abs=1e-12)
    assert found.relative_to("c").to_pandas().query("above == 'c'")["p_value"].isna().all()
    average = (by_c * found.matrix("share_above")).sum(axis=1)
    expected = by_c.sub(average, axis=0) / (1 - found.matrix("share_above"))
    assert found.matrix().to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-12)
    assert found.relative_to("c").relative_to(None).matrix().equals(found.matrix())


def test_too_few_labels_and_labels_all_on_one_side_are_null() -> None:
    few = estimated(made_pages(TRUTH, np.random.default_rng(2), pages=25))
    assert few.matrix().isna().all(axis=None)
    assert few.written().eq("").all(axis=None)
    pages = made_pages(np.zeros((3, 3)), np.random.default_rng(2), pages=800)
    never = (pages.type_code == 0) & (pages.above[:, 1] > 0)
    table = estimated(replace(pages, count=np.where(never, 0.0, pages.count)))
    assert table.matrix().loc["a"].isna().to_dict() == {"a": True, "b": True, "c": True}
    assert table.matrix().loc["b"].notna().all()


def test_a_type_without_labels_and_pages_of_one_type_are_null() -> None:
    pages = made_pages(TRUTH, np.random.default_rng(2), pages=400)
    found = estimated(replace(pages, count=np.where(pages.type_code == 0, 0.0, pages.count)), reference="b")
    assert found.matrix().loc["a"].isna().all()
    assert found.to_pandas().iloc[0][["total", "n_cohorts"]].tolist() == [0.0, (pages.type_code == 0).sum()]
    alone = made_pages(np.zeros((1, 1)), np.random.default_rng(2), pages=400)
    assert estimated(alone).matrix().isna().all(axis=None)


def test_labels_and_ways_to_group(small_tables) -> None:
    response = cannibalization(small_tables.impressions, CONFIG, by="edge_type", reference="follow")
    downstream = cannibalization(small_tables.impressions, CONFIG, by="edge_type", label="downstream")
    assert response.types == downstream.types == ("connection", "follow", "subscribe")
    shuffled = small_tables.impressions.query("policy == 'random'")
    assert response.to_pandas()["total"].iloc[::3].sum() == shuffled["response"].sum()
    assert downstream.to_pandas()["total"].iloc[::3].sum() == shuffled["downstream"].sum()
    assert response.n_pages == shuffled["request_id"].nunique()
    share = response.matrix("share_above")
    assert share.sum(axis=1).to_numpy() == pytest.approx(1.0)


def test_other_policies_do_not_count(small_tables) -> None:
    log = small_tables.impressions
    others = log["policy"] != "random"
    altered = log.assign(response=log["response"].where(~others, 1.0), downstream=log["downstream"].where(~others, 1.0))
    found, same = (cannibalization(t, CONFIG, by="edge_type") for t in (log, altered))
    pd.testing.assert_frame_equal(found.to_pandas(), same.to_pandas())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "edge"}, "unknown by 'edge'"),
        ({"label": "clicks"}, "unknown label 'clicks'"),
        ({"level": 1.0}, "level is 1.0"),
        ({"reference": "peple"}, "Did you mean 'people'"),
    ],
)
def test_what_is_not_allowed_is_refused(small_tables, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        cannibalization(small_tables.impressions, CONFIG, **arguments)


def test_progress_is_told(small_tables) -> None:
    told = []
    cannibalization(small_tables.impressions, CONFIG, by="edge_type", progress=lambda *step: told.append(step))
    assert told == [("cannibalization", done, 3) for done in range(4)]


def test_text_and_picture_say_the_same(world_found: Cannibalization) -> None:
    found = world_found.relative_to("newsletter")
    written = found.written()
    change = 100 * (np.exp(found.matrix().loc["member_follow", "people"]) - 1)
    assert written.loc["member_follow", "people"] == f"{change:+.0f}*"
    assert "in place of one of newsletter; 4,000 shuffled pages" in str(found)
    assert "adjusted for all 49 pairs" in str(found)
    panel = cannibalization_plot(found).axes[0]
    assert [text.get_text() for text in panel.texts] == written.to_numpy().ravel().tolist()
    assert [label.get_text() for label in panel.get_yticklabels()] == list(found.types)
    with pytest.raises(ConfigError, match="Did you mean 'log_ratio'"):
        found.matrix("logratio")
    nothing = estimated(made_pages(TRUTH, np.random.default_rng(2), pages=25))
    assert {text.get_text() for text in cannibalization_plot(nothing).axes[0].texts} == {""}
