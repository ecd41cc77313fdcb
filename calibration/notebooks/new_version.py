# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A new version of a first-pass ranker: ship or roll back?
#
# The people team has two candidates for its ranker, `people-2` and `people-3`. Both have another scale than the
# live `people-1`. Neither has shown anything to anybody yet. This notebook
#
# 1. takes a log and today's calibrators,
# 2. fits a curve for `people-2` on its *shadow scores*: what it would have said of the logged rows,
# 3. compares before and after on held-out viewers,
# 4. rolls out, with two versions live at once, and rolls back,
# 5. does the same with `people-3`, and
# 6. ends in a decision for each.

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr

from calibration import (
    CalibratorSet,
    Examination,
    PositionExamination,
    UnknownCalibrator,
    calibration_summary,
    reliability_table,
    with_shadow_scores,
)
from calibration.plots import curves_plot, reliability_plot
from simulations import World

pd.set_option("display.width", 160)
rng = np.random.default_rng(5)

# %% [markdown]
# ## 1. The log, and today's calibrators
#
# The log comes from the made network of seven entity types. A fifth of the viewers is held out: no curve sees them.
# Position examination is estimated from shuffled pages. Slots follow the raw score, so slot examination is not
# corrected: an expected response is that of an entity in the slot where its ranker puts it.

# %%
log = World(n_viewers=3_000, seed=5).impressions(8_000, random_share=0.7)
log = log[log["policy"] == "random"].reset_index(drop=True)
viewer_ids = log["viewer_id"].unique()
held_out_viewers = rng.choice(viewer_ids, viewer_ids.size // 5, replace=False)
is_held_out = log["viewer_id"].isin(held_out_viewers)
learn, held_out = log[~is_held_out], log[is_held_out]

position = PositionExamination.fit(learn["position"], learn["response"], stratum=learn["entity_type"])
live = CalibratorSet.fit(learn, examination=Examination(position=position))
live.save("live")
print(f"{len(learn):,} rows to learn from, {len(held_out):,} held out; calibrators {live.version}")
print(live.to_frame()[["entity_type", "ranker_version", "method", "n_rows", "n_positive", "base_rate"]].round(4))

# %% [markdown]
# ## 2. Shadow scores
#
# `people-2` scores the entities that were logged, beside the live ranker. Its table has the key of the impressions
# (`request_id, cohort_id, slot`) and its own `raw_score`, here points from 0 to 1000. It is a smaller model: its order
# differs a little, and it cannot score some entities at all. `with_shadow_scores` joins the scores to the logged
# responses.

# %%
KEY = ["request_id", "cohort_id", "slot"]
is_people = log["entity_type"] == "people"


def shadow_table(raw_score):
    return log.loc[is_people, KEY].assign(raw_score=raw_score)


standard = (log.loc[is_people, "raw_score"] + 2.2) / 1.4  # people-1 gives log-odds
points = 1000 * ndtr(standard + rng.normal(0, 0.15, standard.size))
shadow_2 = shadow_table(np.where(rng.random(points.size) < 0.02, np.nan, points))
print(shadow_2["raw_score"].describe().round(1).to_frame("raw score of people-2").T.to_string())

rows_2 = with_shadow_scores(learn, shadow_2, "people-2")
with_2 = live.refitted(rows_2, entity_type="people", ranker_version="people-2")
kept = [key for key in live if with_2[key] is live[key]]
print(f"calibrators {live.version} -> {with_2.version}: {len(with_2)} curves, {len(kept)} of them the same as before")

# %%
change = curves_plot(with_2, "Expected response, before and after", before=live)
change

# %% [markdown]
# One curve is new, beside that of `people-1`. All others are the same objects: nothing else can have changed.
#
# ## 3. Before and after, on held-out viewers
#
# Three answers for the same rows of held-out viewers, each at the logged position:
#
# * **before**: `people-1` with its curve, as served today,
# * **forgotten**: scores of `people-2` through the curve of `people-1`, as when nobody recalibrates,
# * **after**: `people-2` with its own curve.
#
# The loss is the log loss, beside that of `before`, with its standard error over viewers.


# %%
def answers(calibrators, version, shadow):
    """Return the held-out rows that both versions can score, once for each answer."""
    new = with_shadow_scores(held_out, shadow, version).dropna(subset="raw_score")
    old = held_out.loc[new.index].dropna(subset="raw_score")
    new = new.loc[old.index]
    of_old, of_new = calibrators["people", "people-1"], calibrators["people", version]
    expected = {
        "before": of_old.predict(old["raw_score"].to_numpy()),
        "forgotten": of_old.predict(new["raw_score"].to_numpy()),
        "after": of_new.predict(new["raw_score"].to_numpy()),
    }
    seen = position.at(old["position"])
    return pd.concat([old.assign(answer=name, expected_response=each * seen) for name, each in expected.items()])


def report(rows):
    """Return the diagnostics of each answer, and its loss beside the one before."""
    response, expected = rows["response"], rows["expected_response"]
    rows = rows.assign(loss=-response * np.log(expected) - (1 - response) * np.log1p(-expected))
    by_viewer = rows.pivot_table(index="viewer_id", columns="answer", values="loss", aggfunc="sum")
    by_viewer = by_viewer / (len(rows) / 3) * len(by_viewer)  # its mean over viewers is the mean over rows
    behind = by_viewer.sub(by_viewer["before"], axis=0)
    summary = calibration_summary(rows, by=["answer"]).set_index("answer")
    table = summary[["base_rate", "mean_prediction", "in_the_large", "in_the_large_low", "in_the_large_high"]].copy()
    table["ece"], table["p_value"] = summary["ece"], summary["p_value"]
    table["loss"], table["loss - before"], table["error of that"] = by_viewer.mean(), behind.mean(), behind.sem()
    return table.loc[["before", "forgotten", "after"]]


rows_of_2 = answers(with_2, "people-2", shadow_2)
report_2 = report(rows_of_2)
print(report_2.round(5).T.to_string())

# %%
reliability = reliability_plot(
    {
        f"people, {name}": reliability_table(rows["expected_response"], rows["response"], cluster=rows["viewer_id"])
        for name, rows in rows_of_2.groupby("answer", sort=False)
    },
    title="Held-out viewers, at the logged position",
)
reliability

# %% [markdown]
# `after` is about as good as `before`. `forgotten` is far off: 600 points are no log-odds of 600. That is why a new
# version gets a curve of its own *before* it is served, and why a version without one is refused (section 4).
#
# ## 4. Roll out, and roll back
#
# During a roll-out both versions are live: one half of the requests gets `people-1`, the other `people-2`. One set
# holds both curves, and one call answers a page of both. A version without a curve is an error, not a guess.

# %%
with_2.save("candidate")
served = CalibratorSet.load("candidate")
rankers = [("people", "people-1"), ("people", "people-2")]
print("as saved:", served.version == with_2.version, served.version)

people = rows_2.dropna(subset="raw_score").head(4)
old_scores = learn.loc[people.index, "raw_score"].to_numpy()
page = pd.DataFrame(
    {
        "ranker": ["people-1"] * 4 + ["people-2"] * 4,
        "raw_score": np.concatenate([old_scores, people["raw_score"].to_numpy()]),
    }
)
page["expected_response"] = served.predict(page["raw_score"].to_numpy(), np.repeat([0, 1], 4), rankers)
print(page.round(4).to_string(index=False))

try:
    served["people", "people-3"]
except UnknownCalibrator as error:
    print("refused:", error)

# %% [markdown]
# The same four entities get similar expected responses from both versions, although their raw scores share no scale.
# Rolling back is loading the artefact of yesterday. Its version is a hash of its content, so equal versions are
# equal curves.

# %%
rolled_back = CalibratorSet.load("live")
print("rolled back to", rolled_back.version, "- the same as before:", rolled_back.version == live.version)
print("artefacts:", ", ".join(sorted(str(path) for path in Path().glob("*/calibrators.json"))))

# %% [markdown]
# ## 5. The other candidate
#
# `people-3` reads a feature store that is stale for half of the entities: there, its score is that of somebody else.
# The same steps:

# %%
is_stale = rng.random(standard.size) < 0.5
shadow_3 = shadow_table(1000 * ndtr(np.where(is_stale, rng.permutation(standard), standard)))
rows_3 = with_shadow_scores(learn, shadow_3, "people-3")
with_3 = live.refitted(rows_3, entity_type="people", ranker_version="people-3")
report_3 = report(answers(with_3, "people-3", shadow_3))
print(report_3.round(5).T.to_string())

# %% [markdown]
# Look at `after`: the test does not refuse it, for its curve has learnt how little the scores say. But the loss
# is worse by several standard errors. **Calibration repairs a scale, not a ranker.** So a decision needs both: is it
# calibrated, and does it say as much as before?
#
# ## 6. The decision


# %%
def decide(report):
    """Ship what is calibrated on held-out viewers and not worse than what is there."""
    after = report.loc["after"]
    is_calibrated = after["p_value"] > 0.01
    is_no_worse = after["loss - before"] < 2 * after["error of that"]
    reasons = [
        f"{'calibrated' if is_calibrated else 'not calibrated'} (p = {after['p_value']:.3f})",
        f"loss {'no worse' if is_no_worse else 'worse'} than before ({after['loss - before']:+.5f}, "
        f"standard error {after['error of that']:.5f})",
    ]
    return ("ship" if is_calibrated and is_no_worse else "roll back"), ", ".join(reasons)


chosen = live
for version, calibrators, judged in (("people-2", with_2, report_2), ("people-3", with_3, report_3)):
    verdict, reasons = decide(judged)
    chosen = calibrators if verdict == "ship" else chosen
    print(f"{version}: {reasons} -> {verdict}")
chosen.save("live")
print(
    f"live from now on: calibrators {CalibratorSet.load('live').version}, people: {', '.join(chosen.known('people'))}"
)

# %% [markdown]
# **Read it so.** A new version costs one curve, fitted on shadow scores before anybody sees the version. Held-out
# viewers decide. `spr recalibrate --shadow` does these steps on a bundle, and refuses what they speak against. Keep the
# artefact of yesterday: rolling back is one load.
