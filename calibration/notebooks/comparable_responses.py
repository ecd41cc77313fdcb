# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From raw scores on several scales to comparable responses
#
# A page has three carousels, each filled by a ranker of its own: `people` (a probability), `newsletter`
# (a margin in log-odds) and `event` (a distance turned around, heavy-tailed). Which carousel should be on
# top? Raw scores cannot say: 0.3 of one ranker and 0.3 of another mean different things.
#
# A *calibrator* maps a raw score to its **expected response**: the chance that the viewer acts, on the
# same scale for all. This notebook
#
# 1. makes logged impressions whose truth we know,
# 2. estimates how much less is seen further down the page, and fits one calibrator per ranker,
# 3. holds the answers against the truth and against held-out rows,
# 4. replaces one ranker by a distorted version of itself, and
# 5. ends in a decision.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

from calibration import (
    CalibratorSet,
    Examination,
    PositionExamination,
    expected_calibration_error,
    reliability_table,
)
from calibration.plots import curves_plot, reliability_plot

rng = np.random.default_rng(7)


def sigmoid(log_odds):
    return 1 / (1 + np.exp(-log_odds))


# %% [markdown]
# ## 1. Logged impressions with a known truth
#
# `quality` is what nobody observes. The true response rate at the top of the page depends on it; each
# ranker shows it on its own scale. Pages were shuffled (`policy = "random"`), so position says nothing about
# quality, but fewer people look further down: `examined`.

# %%
TRUE_RATE = {
    "people": lambda quality: sigmoid(-3.0 + 1.0 * quality),
    "newsletter": lambda quality: sigmoid(-5.0 + 0.8 * quality),
    "event": lambda quality: 0.01 + 0.15 * (quality > 1.0),  # events work for some, and hardly for the rest
}
RAW_SCORE = {
    "people": lambda quality: sigmoid(1.5 * quality - 0.5),
    "newsletter": lambda quality: 3.0 * quality - 1.0,
    "event": lambda quality: -np.exp(-1.5 * quality),
}
EXAMINED = np.array([1.0, 0.8, 0.6, 0.5, 0.45])


def shown_rows(entity_type, n):
    quality, position = rng.normal(size=n), rng.integers(0, EXAMINED.size, n)
    truth = TRUE_RATE[entity_type](quality)
    return pd.DataFrame(
        {
            "entity_type": entity_type,
            "ranker_version": "v1",
            "policy": "random",
            "position": position,
            "raw_score": RAW_SCORE[entity_type](quality),
            "response": (rng.random(n) < truth * EXAMINED[position]).astype(float),
            "truth": truth,
        }
    )


logged = pd.concat([shown_rows(entity_type, 40_000) for entity_type in TRUE_RATE], ignore_index=True)
held_out = pd.concat([shown_rows(entity_type, 40_000) for entity_type in TRUE_RATE], ignore_index=True)
print(logged.groupby("entity_type")["raw_score"].describe(percentiles=[0.1, 0.5, 0.9]).round(2))

# %% [markdown]
# Three scales, one of them negative throughout. Comparing these numbers across rankers would be meaningless.
#
# ## 2. Examination, then one curve per ranker
#
# On shuffled pages the response rate at a position, over the rate at the top, is how much it is looked at.

# %%
position = PositionExamination.fit(logged["position"], logged["response"], stratum=logged["entity_type"])
print(pd.DataFrame({"true": EXAMINED, "estimated": position.relative.round(3)}).T)

examination = Examination(position=position)  # of slots nothing is corrected: here a carousel shows one entity
calibrators = CalibratorSet.fit(logged, examination=examination)
print(calibrators.to_frame().round(4).to_string(index=False))

# %%
curves = curves_plot(calibrators)
curves

# %% [markdown]
# The curves cross: a top event beats nearly everyone, a middling event hardly anyone. A single factor per
# type could not express that.
#
# ## 3. Is it true?
#
# We know the truth here: mean absolute error, in units of each type's base rate. In real life we have only
# responses: predictions times examination at the logged position against what happened, on rows that the
# calibrators have not seen. Points should scatter about the diagonal within their intervals.

# %%
rankers = list(calibrators)
held_out["expected_response"] = calibrators.predict_table(held_out)
held_out["at_position"] = calibrators.predict_table(held_out, at_logged_place=True)

by_type = dict(list(held_out.groupby("entity_type")))
quality_report = pd.DataFrame(
    {
        entity_type: {
            "base rate": rows["truth"].mean(),
            "error / base rate": (rows["expected_response"] - rows["truth"]).abs().mean() / rows["truth"].mean(),
            "calibration error (ECE)": expected_calibration_error(rows["at_position"], rows["response"]),
        }
        for entity_type, rows in by_type.items()
    }
).T
print(quality_report.round(4))

# %%
reliability = reliability_plot(
    {name: reliability_table(rows["at_position"], rows["response"]) for name, rows in by_type.items()}
)
reliability

# %% [markdown]
# ## 4. A new version of one ranker
#
# The people team ships `v2`: the same order of people, on another scale (scores cubed). We recalibrate that
# one curve on shadow scores of the logged rows. Nothing else changes, and neither should any decision.

# %%
shadow = logged[logged["entity_type"] == "people"].assign(
    ranker_version="v2", raw_score=lambda rows: rows["raw_score"] ** 3
)
with_v2 = calibrators.refitted(shadow, entity_type="people", ranker_version="v2")
people = held_out.loc[held_out["entity_type"] == "people", "raw_score"].to_numpy()
before = with_v2["people", "v1"].predict(people)
after = with_v2["people", "v2"].predict(people**3)
uncalibrated = with_v2["people", "v1"].predict(people**3)
print(f"calibrators {calibrators.version} -> {with_v2.version}")
print(f"largest change of an expected response, v2 recalibrated: {np.abs(after - before).max():.1e}")
print(f"mean expected response: {before.mean():.3f}; had v2 been served with v1's curve: {uncalibrated.mean():.3f}")

# %% [markdown]
# ## 5. The decision: which carousel goes on top?
#
# For 5,000 new viewers, each with one candidate per type, put one carousel on top by
#
# * **raw score**: the largest number wins,
# * **base rate**: the type that does best on average always wins,
# * **expected response**: ours,
# * **truth**: what an oracle would do.
#
# What is the true response rate of the carousel on top?

# %%
n_viewers = 5_000
quality = {entity_type: rng.normal(size=n_viewers) for entity_type, _ in rankers}
raw = np.column_stack([RAW_SCORE[entity_type](quality[entity_type]) for entity_type, _ in rankers])
true_rate = np.column_stack([TRUE_RATE[entity_type](quality[entity_type]) for entity_type, _ in rankers])
expected = calibrators.predict(raw.ravel(), np.tile(np.arange(len(rankers)), n_viewers), rankers).reshape(raw.shape)
base_rate = np.broadcast_to([calibrators.prior(entity_type) for entity_type, _ in rankers], raw.shape)

decision = pd.DataFrame(
    {
        name: {
            "response rate on top": np.take_along_axis(true_rate, by.argmax(axis=1)[:, None], axis=1).mean(),
            **{f"{rankers[j][0]} on top": np.mean(by.argmax(axis=1) == j) for j in range(len(rankers))},
        }
        for name, by in {
            "raw score": raw,
            "base rate": base_rate,
            "expected response": expected,
            "truth": true_rate,
        }.items()
    }
).T
print(decision.round(3).to_string())

# %%
chosen, oracle = decision.loc[["expected response", "truth"], "response rate on top"]
error = quality_report["error / base rate"].max()
verdict = "ship" if chosen > 0.97 * oracle and error < 0.25 else "collect more random traffic first"
print(
    f"expected responses reach {chosen / oracle:.1%} of the oracle; worst error {error:.1%} of a base rate -> {verdict}"
)

# %% [markdown]
# **Read it so.** Ranking by raw score puts whoever has the largest numbers on top; base rates never show an
# event, not even to those who want one. Expected responses come close to the oracle, and a new ranker version
# costs one curve, fitted on shadow scores. The decision: *serve these calibrators when they reach 97 % of the
# oracle and the worst error is below a quarter of the base rate; otherwise, collect more random traffic first.*
# (Without a known truth, use the reliability picture: intervals that miss the diagonal are the signal.)
