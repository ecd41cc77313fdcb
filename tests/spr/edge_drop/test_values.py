from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from spr.edge_drop import estimate_edge_values, estimate_segment_factors
from spr.edge_drop.factors import BELOW_0, KEEP, USE
from spr.errors import ConfigError, InvalidExperiment, TableError
from spr.reorder import ImportanceFactors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.spr.edge_drop.conftest import Made


@pytest.fixture(scope="module")
def made(make_experiment: Callable[..., Made]) -> Made:
    return make_experiment(40_000, np.random.default_rng(11), (2.5, 2.0, 2.0))


def test_known_values_and_factors_are_recovered(made: Made) -> None:
    values = estimate_edge_values(made.table, "likes")
    np.testing.assert_allclose(values.per("edge")[0], made.per_edge, rtol=0.25)
    np.testing.assert_allclose(values.per("downstream_edge")[0], made.per_downstream_edge, rtol=0.25)
    np.testing.assert_allclose(values.probability_downstream, [0.5, 0.35, 0.2], rtol=0.02)
    assert 0.6 < values.pre_correlation < 0.95
    for per, truth in (("edge", made.per_edge), ("downstream_edge", made.per_downstream_edge)):
        factors = values.factors(per, reference="t0")
        ratio = truth / truth[0]
        assert (factors.simultaneous[:, 0] <= ratio).all()
        assert (factors.simultaneous[:, 1] >= ratio).all()
        np.testing.assert_allclose(factors.shrunk, ratio, rtol=0.25)
        assert (factors.simultaneous[:, 0] <= factors.interval[:, 0]).all()


def test_the_reference_changes_the_unit_and_nothing_else(made: Made) -> None:
    values = estimate_edge_values(made.table, "likes")
    one, other = values.factors(reference="t0"), values.factors(reference="t2")
    np.testing.assert_allclose(other.shrunk / other.shrunk[0], one.shrunk)
    np.testing.assert_allclose(other.ratio / other.ratio[0], one.ratio)
    assert values.factors().reference == values.edge_types[int(values.mean[1].argmax())]
    with pytest.raises(InvalidExperiment, match="unknown reference 't9'"):
        values.factors(reference="t9")


def test_the_metric_s_unit_changes_values_and_no_factor(made: Made) -> None:
    one, other = estimate_edge_values(made.table, "likes"), estimate_edge_values(made.table, {"likes": 100.0})
    np.testing.assert_allclose(other.per("edge")[0], 100 * one.per("edge")[0], rtol=1e-6)
    np.testing.assert_allclose(other.factors().factor, one.factors().factor, rtol=1e-6)
    np.testing.assert_allclose(other.factors().interval, one.factors().interval, rtol=1e-6)


def test_factors_are_an_artefact_that_is_read_back(made: Made, tmp_path: Path) -> None:
    factors = ImportanceFactors.from_experiment(
        made.table, "likes", reference="t1", source={"experiment": "q4", "date": "2026-11-25"}
    )
    factors.save(tmp_path / "new" / "factors.json")
    again = ImportanceFactors.read(tmp_path / "new" / "factors.json")
    assert again == factors
    assert again.version == factors.version
    assert factors.factor["t1"] == 1.0
    assert factors.source["experiment"] == "q4"
    assert factors.source["per"] == "downstream_edge"
    assert set(factors.decision.values()) == {USE}
    low, high = factors.interval["t0"]
    assert low is not None
    assert high is not None
    assert low < factors.estimate["t0"] < high
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ConfigError, match="not a JSON object"):
        ImportanceFactors.read(tmp_path / "bad.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        ImportanceFactors.read(tmp_path / "none.json")


def test_what_is_too_noisy_is_kept_at_1_and_unbounded(make_experiment: Callable[..., Made], tmp_path: Path) -> None:
    table = make_experiment(300, np.random.default_rng(12), (0.0, 3.0)).table
    estimates = estimate_edge_values(table, "likes").factors(reference="t0")
    assert estimates.decision[1] == KEEP
    assert (estimates.factor == 1.0).all()
    assert np.isinf(estimates.interval[1]).all()
    factors = estimates.to_factors()
    assert factors.interval["t1"] == (None, None)
    factors.save(tmp_path / "f.json")
    assert json.loads((tmp_path / "f.json").read_text())["interval"]["t1"] == [None, None]
    assert ImportanceFactors.read(tmp_path / "f.json") == factors


def test_probability_downstream_may_come_from_elsewhere(made: Made) -> None:
    known = {"t0": 0.25, "t1": 0.25, "t2": 0.25}
    values = estimate_edge_values(made.table, "likes", probability_downstream=known)
    np.testing.assert_allclose(values.per("downstream_edge")[0], 4 * values.per("edge")[0])
    with pytest.raises(InvalidExperiment, match="unknown edge type 't2'"):
        estimate_edge_values(made.table, "likes", probability_downstream={"t0": 0.2, "t1": 0.3})
    with pytest.raises(InvalidExperiment, match="above 0"):
        estimate_edge_values(made.table, "likes", probability_downstream={**known, "t1": 0.0})


def test_a_table_without_downstream_edges_answers_per_edge_only(made: Made) -> None:
    table = made.table.drop(columns=[f"downstream_edges_t{t}" for t in range(3)])
    values = estimate_edge_values(table, "likes")
    assert np.isfinite(values.factors("edge").factor).all()
    assert values.factors("edge").to_factors().probability_downstream == {}
    with pytest.raises(InvalidExperiment, match="downstream_edges_t0 is missing"):
        values.factors()
    none = made.table.assign(downstream_edges_t2=0)
    with pytest.raises(InvalidExperiment, match="no edge of type 't2' had a downstream interaction"):
        estimate_edge_values(none, "likes").factors()


def test_an_assignment_that_follows_the_past_is_refused(made: Made) -> None:
    table = made.table.copy()
    heavy = table["pre_likes"] > table["pre_likes"].quantile(0.8)
    table.loc[heavy, "dropped_t1"] = 0.0
    with pytest.raises(InvalidExperiment, match="assignment is not random: the doses are related to the pre-period"):
        estimate_edge_values(table, "likes")


def test_segments_are_drawn_to_the_factors_of_all(make_experiment: Callable[..., Made]) -> None:
    made = make_experiment(24_000, np.random.default_rng(13))
    table = made.table.assign(segment=np.array(["often", "seldom", "new"])[np.arange(24_000) % 3])
    table.loc[table["segment"] == "new", "dropped_t1"] = 0.25  # no control of t1
    table.loc[:30, "segment"] = "tiny"
    found = estimate_segment_factors(table, "likes", reference="t0")
    assert set(found.by_segment) == {"often", "seldom"}
    assert any("'new' is left out" in note and "none of them is a control of t1" in note for note in found.notes)
    assert any("'tiny' is left out, 31 viewers: too few" in note for note in found.notes)
    overall = np.log(found.overall.shrunk)
    for part in found.by_segment.values():
        raw = np.log(np.maximum(part.ratio, 0.05))
        assert np.abs(np.log(part.shrunk) - overall).max() < np.abs(raw - overall).max()
        assert part.decision == found.overall.decision
    assert next(iter(found.to_pandas().index.get_level_values("segment").unique())) == "all"
    with pytest.raises(TableError, match="'segment' is missing"):
        estimate_segment_factors(made.table, "likes")
    with pytest.raises(InvalidExperiment, match="no segment can be estimated"):
        estimate_segment_factors(made.table.assign(segment=np.arange(24_000)), "likes")


def test_segments_that_differ_get_factors_that_differ(make_experiment: Callable[..., Made]) -> None:
    rng = np.random.default_rng(14)
    parts = [make_experiment(40_000, rng, worth).table for worth in ((1.0, 0.5), (0.5, 1.5))]
    for name, part in zip("ab", parts, strict=True):
        part["segment"] = name
        part["viewer_id"] = name + part["viewer_id"]
    found = estimate_segment_factors(pd.concat(parts), "likes", reference="t0")
    truth = [0.5, 3.0]
    scale = make_experiment(20, rng, (1.0, 1.0)).per_downstream_edge
    for part, ratio in zip(found.by_segment.values(), truth, strict=True):
        assert part.shrunk[1] == pytest.approx(ratio * scale[1] / scale[0], rel=0.35)


def test_what_cannot_answer_is_refused_or_said(make_experiment: Callable[..., Made]) -> None:
    table = make_experiment(400, np.random.default_rng(15)).table
    with pytest.raises(InvalidExperiment, match="likes is 3 for all 400 viewers"):
        estimate_edge_values(table.assign(likes=3.0), "likes")
    with pytest.raises(InvalidExperiment, match="400 strata of 400 viewers"):
        estimate_edge_values(table.assign(stratum=np.arange(400)), "likes")
    few = estimate_edge_values(table.assign(cluster=np.arange(400) % 25), "likes")
    assert "25 clusters: errors from fewer than 40 are too small" in few.notes
    assert few.degrees_of_freedom == 24
    with pytest.raises(InvalidExperiment, match="12 clusters; at least 20"):
        estimate_edge_values(table.assign(cluster=np.arange(400) % 12), "likes")
    with pytest.raises(InvalidExperiment, match=r"regression of .* columns|at least 20"):
        estimate_edge_values(table.head(24), "likes")
    one = estimate_edge_values(table, "likes", edge_types=["t0"]).factors()
    assert one.factor.tolist() == [1.0]
    twice = estimate_edge_values(table.assign(same=table["pre_likes"] * 2), "likes", covariates=["same"])
    np.testing.assert_allclose(twice.mean[0], estimate_edge_values(table, "likes").mean[0], rtol=0.05)


def test_values_below_0_are_never_acted_on(make_experiment: Callable[..., Made]) -> None:
    table = make_experiment(2000, np.random.default_rng(16)).table
    dropped = table[["dropped_t0", "dropped_t1", "dropped_t2"]].sum(axis=1)
    estimates = estimate_edge_values(table.assign(likes=table["pre_likes"] + 40 * dropped), "likes").factors()
    assert (estimates.value < 0).all()
    assert set(estimates.decision) == {BELOW_0}
    assert (estimates.factor == 1.0).all()
    assert np.isfinite(estimates.shrunk).all()


def test_viewers_dosed_in_a_type_that_is_not_valued_are_no_controls() -> None:
    rng = np.random.default_rng(17)
    n, names = 30_000, ("a", "b", "c")
    arm = rng.choice(4, n, p=[0.5, *[1 / 6] * 3])
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "pre_likes": rng.poisson(20, n).astype(float)})
    table["likes"] = table["pre_likes"] + rng.normal(0, 2, n)
    for place, name in enumerate(names, start=1):
        dose = np.where(arm == place, rng.choice([0.1, 0.25, 0.5], n), 0.0)
        table[f"edges_{name}"], table[f"dropped_{name}"] = 10, dose
        table["likes"] -= 10 * dose
    values = estimate_edge_values(table, "likes", edge_types=["a", "b"]).to_pandas()
    assert (np.abs(values["value"] - 1.0) < 4 * values["standard_error"]).all()


def test_values_cover_where_the_curve_is_as_far_from_its_prior_as_it_can_be() -> None:
    rng, n, hits = np.random.default_rng(18), 2000, []
    for _ in range(120):
        dose = rng.choice([0.0, 0.1, 0.25, 0.5], size=(n, 3), p=[0.5, *[1 / 6] * 3])
        table = pd.DataFrame(
            {"viewer_id": np.arange(n).astype(str), "likes": rng.normal(50, 5, n) - 10 * dose.sum(axis=1)}
        )
        for place in range(3):
            table[f"edges_t{place}"], table[f"dropped_t{place}"] = 10, dose[:, place]
        found = estimate_edge_values(table, "likes").to_pandas()
        hits.append(((found["low"] <= 1) & (found["high"] >= 1)).mean())
    assert np.mean(hits) > 0.9  # a straight line: curvature 1, the prior says 0.5


def test_strata_whose_doses_differ_are_refused() -> None:
    rng, n = np.random.default_rng(19), 4000
    stratum = np.arange(n) % 2
    dose = np.where(rng.random(n) < np.where(stratum, 0.5, 0.05), 0.5, 0.0)
    table = pd.DataFrame({"viewer_id": np.arange(n).astype(str), "edges_a": 5, "dropped_a": dose, "stratum": stratum})
    table["likes"] = rng.normal(20, 1, n) - dose * np.where(stratum, 2, 20)
    with pytest.raises(InvalidExperiment, match="the doses of a differ between strata"):
        estimate_edge_values(table, "likes")
