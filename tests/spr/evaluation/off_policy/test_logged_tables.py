"""From tables to values: a made network whose other policy was really run, a ranker, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spr
from simulations import World
from simulations.policies import Production, Shuffled
from spr.errors import ConfigError, TableError
from spr.evaluation import off_policy_value

if TYPE_CHECKING:
    from simulations.world import WorldTables

CONFIG = spr.Config.named("network")
FAST = ["iips", "self_normalised_iips"]


@pytest.fixture(scope="module")
def logs() -> dict[str, pd.DataFrame]:
    """The same page views under two policies."""
    world, found = World(400, seed=5), {}
    for name, policy in (("random", Shuffled()), ("production", Production())):
        chunks: list[pd.DataFrame] = []
        world.run(5000, policy=policy, log=chunks.append)
        found[name] = pd.concat(chunks, ignore_index=True)
    return found


@pytest.fixture(scope="module")
def few(logs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    log = logs["random"]
    return log[log["request_id"].isin(log["request_id"].unique()[:200])].reset_index(drop=True)


def per_page(log: pd.DataFrame, weight: dict[str, float]) -> pd.Series:
    cohorts = log.groupby(["request_id", "cohort_id"]).agg({"downstream": "max", "entity_type": "first"})
    return (cohorts["downstream"] * cohorts["entity_type"].map(weight)).groupby("request_id").sum()


def test_the_value_of_a_policy_is_what_it_brought_when_it_was_run(logs: dict[str, pd.DataFrame]) -> None:
    factors = spr.Config.named("network").importance.at(CONFIG.entity_types[t].edge_type for t in CONFIG.entity_types)
    weights = (dict.fromkeys(CONFIG.entity_types, 1.0), dict(zip(CONFIG.entity_types, factors, strict=True)))
    pages = logs["production"].drop_duplicates(["request_id", "cohort_id"])[["request_id", "cohort_id", "position"]]
    found = off_policy_value(logs["random"], pages, config=CONFIG)
    assert found.n_pages == 5000
    assert found.chosen == {"interactions": "position_based", "value": "position_based"}
    table = found.to_pandas()
    for measure, weight in zip(("interactions", "value"), weights, strict=True):
        truth, logged = (per_page(logs[name], weight) for name in ("production", "random"))
        rows = table[table["measure"] == measure]
        assert rows["logged"].iloc[0] == pytest.approx(logged.mean())
        error = np.hypot(rows["standard_error"], truth.std() / np.sqrt(len(truth)))
        assert ((rows["estimate"] - truth.mean()).abs() / error).max() < 4


def test_a_column_orders_as_a_table_of_its_order_does(few: pd.DataFrame) -> None:
    by_column = off_policy_value(few, "raw_score", FAST, config=CONFIG)
    logged = few.sort_values(["request_id", "position"])  # ties stay as logged
    mean = logged.groupby(["request_id", "cohort_id"], sort=False)["raw_score"].mean().reset_index()
    mean["position"] = mean.groupby("request_id")["raw_score"].rank(ascending=False, method="first") - 1
    by_table = off_policy_value(few, mean, FAST, config=CONFIG)
    np.testing.assert_allclose(by_column.estimate, by_table.estimate)
    shuffled = few.sample(frac=1.0, random_state=1)
    np.testing.assert_allclose(off_policy_value(shuffled, "raw_score", FAST, config=CONFIG).estimate, by_table.estimate)


def test_the_logged_order_is_worth_what_the_log_brought(few: pd.DataFrame) -> None:
    found = off_policy_value(few, few[["request_id", "cohort_id", "position"]].drop_duplicates(), FAST, config=CONFIG)
    # every placement agrees, each with the weight n: normalised, the mean is that of the log but for page lengths
    assert found.estimate[0, 1] == pytest.approx(found.logged[0], rel=0.1)


def test_cohorts_that_the_new_page_leaves_out_stand_below(few: pd.DataFrame) -> None:
    first = few[few["position"] == 3][["request_id", "cohort_id"]].drop_duplicates().assign(position=0)
    whole = few[["request_id", "cohort_id", "position"]].drop_duplicates()
    whole["position"] = np.select(
        [whole["position"] == 3, whole["position"] < 3], [0, whole["position"] + 1], whole["position"]
    )
    one, other = (off_policy_value(few, pages, FAST, config=CONFIG) for pages in (first, whole))
    np.testing.assert_allclose(one.estimate, other.estimate)


def test_immature_pages_and_pages_that_are_not_in_the_table_are_left_out(few: pd.DataFrame) -> None:
    gone = few.copy()
    gone.loc[gone["request_id"] == gone["request_id"].iloc[0], ["response", "downstream"]] = np.nan
    found = off_policy_value(gone, "raw_score", FAST, config=CONFIG)
    assert (found.n_pages, found.n_left_out) == (199, 1)
    pages = few[["request_id", "cohort_id", "position"]].drop_duplicates()
    some = pages[pages["request_id"].isin(pages["request_id"].unique()[:50])]
    found = off_policy_value(few, some, FAST, config=CONFIG)
    assert (found.n_pages, found.n_left_out) == (50, 150)


def test_another_policy_needs_marginal_propensities(few: pd.DataFrame) -> None:
    other = few.assign(policy="explore", propensity=0.25, propensity_kind="exact")
    found = off_policy_value(other, "raw_score", config=CONFIG, policies=("explore",))
    assert found.estimators == ("iips", "self_normalised_iips")
    for change in ({"propensity": np.nan}, {"propensity_kind": "sequential"}, {"propensity": 0.0}):
        with pytest.raises(TableError, match="no marginal propensity"):
            off_policy_value(other.assign(**change), "raw_score", config=CONFIG, policies=("explore",))
    with pytest.raises(TableError, match="no row of the policies random"):
        off_policy_value(other, "raw_score", config=CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: log[log["position"] != 2], "do not have positions 0, 1"),
        (lambda log: log.assign(downstream=np.nan), "none of 200 pages is mature"),
    ],
)
def test_logs_that_cannot_be_evaluated_are_refused(few: pd.DataFrame, change: Any, message: str) -> None:
    with pytest.raises(TableError, match=message):
        off_policy_value(change(few), "raw_score", FAST, config=CONFIG)


def test_pages_that_are_no_pages_of_the_log_are_refused(few: pd.DataFrame) -> None:
    pages = few[["request_id", "cohort_id", "position"]].drop_duplicates()
    with pytest.raises(TableError, match="does not have"):
        off_policy_value(few, pages.assign(cohort_id="other " + pages["cohort_id"]), FAST, config=CONFIG)
    with pytest.raises(TableError, match="no request of the table"):
        off_policy_value(few, pages.assign(request_id="other " + pages["request_id"]), FAST, config=CONFIG)
    with pytest.raises(TableError, match="twice"):
        off_policy_value(few, pd.concat([pages, pages.head(1)]), FAST, config=CONFIG)
    with pytest.raises(TableError, match="'position' is missing"):
        off_policy_value(few, pages.drop(columns="position"), FAST, config=CONFIG)


def test_what_orders_must_be_known(few: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="config is missing"):
        off_policy_value(few, "raw_score")
    with pytest.raises(TableError, match="'score' is missing"):
        off_policy_value(few, "score", FAST, config=CONFIG)
    with pytest.raises(TableError, match="not a number"):
        off_policy_value(few, "entity_type", FAST, config=CONFIG)
    with pytest.raises(ConfigError, match="int is given"):
        off_policy_value(few, 3, FAST, config=CONFIG)  # type: ignore[arg-type]  # wrong on purpose


@pytest.fixture(scope="module")
def later(small_world: World) -> pd.DataFrame:
    """Shuffled pages from after the ranker's log."""
    log = small_world.impressions(900, random_share=1.0)
    return log.assign(at=log["at"] + pd.Timedelta(days=60), request_id="later " + log["request_id"])


@pytest.mark.slow
def test_a_ranker_is_worth_what_its_pages_are(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, later: pd.DataFrame
) -> None:
    until = small_tables.impressions["at"].max()
    found = off_policy_value(
        later, ranker, FAST, viewers=small_tables.viewers, entities=small_tables.entities, trained_until=until
    )
    assert found.n_pages == 900
    # Its own tables of pages shuffle a share of the requests, so none is shuffled here.
    config = ranker.config.model_copy(
        update={"exploration": ranker.config.exploration.model_copy(update={"random_share": 0.0})}
    )
    pages = dataclasses.replace(ranker, config=config).rank_table(later, small_tables.viewers, small_tables.entities)
    assert (pages["policy"] != "random").all()
    same = off_policy_value(later, pages, FAST, config=ranker.config)
    np.testing.assert_allclose(found.estimate[0], same.estimate[0])


def test_requests_that_the_ranker_would_shuffle_again_are_ranked(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, later: pd.DataFrame
) -> None:
    """With a random share of 1 the ranker would make shuffles of all the pages, and be worth what these are."""
    config = ranker.config.model_copy(
        update={"exploration": ranker.config.exploration.model_copy(update={"random_share": 1.0})}
    )
    arguments = {"viewers": small_tables.viewers, "entities": small_tables.entities, "trained_until": "2026-02-10"}
    one = off_policy_value(later, ranker, FAST, **arguments)
    other = off_policy_value(later, dataclasses.replace(ranker, config=config), FAST, **arguments)
    np.testing.assert_array_equal(one.estimate, other.estimate)


def test_pages_that_may_have_taught_the_ranker_are_refused(
    ranker: spr.SecondPassRanker, small_tables: WorldTables, later: pd.DataFrame
) -> None:
    viewers, entities = small_tables.viewers, small_tables.entities
    with pytest.raises(ConfigError, match="trained_until"):
        off_policy_value(later, ranker, FAST, viewers=viewers, entities=entities)
    with pytest.raises(TableError, match="may have taught the ranker"):
        off_policy_value(later, ranker, FAST, viewers=viewers, entities=entities, trained_until=later["at"].median())
    with pytest.raises(ConfigError, match="viewers are missing"):
        off_policy_value(later, ranker, FAST, trained_until="2026-02-10")
    # A ranker that was fitted with a snapshot knows it.
    labels = ranker.config.labels.model_copy(update={"snapshot": later["at"].max().to_pydatetime()})
    knows = dataclasses.replace(ranker, config=ranker.config.model_copy(update={"labels": labels}))
    with pytest.raises(TableError, match="may have taught the ranker"):
        off_policy_value(later, knows, FAST, viewers=viewers, entities=entities, config=ranker.config)
