# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Drift: which curves have to be fitted again?
#
# A calibrator is fitted once and then ages. Two things can move:
#
# * the **scores**: the ranker sees other entities or other viewers. The curve maps scores wherever they are, so by
#   itself this is no reason to fit again.
# * the **responses**: viewers respond more or less than before to the same score. Then the curve is wrong.
#
# This notebook
#
# 1. makes a log of four weeks after the fit, in which we know what moved,
# 2. asks every week whether a curve has to be fitted again,
# 3. looks at the drift over time,
# 4. fits again what has to be, and
# 5. ends in a decision per ranker.

# %%
# %matplotlib inline
import numpy as np
import pandas as pd

from calibration import CalibratorSet, drift_table, needs_recalibration
from calibration.plots import curves_plot, drift_plot

pd.set_option("display.width", 160)
rng = np.random.default_rng(3)
FIT = pd.Timestamp("2026-05-04", tz="UTC")
DROP = FIT + pd.Timedelta(days=12)


def sigmoid(log_odds):
    return 1 / (1 + np.exp(-log_odds))


# %% [markdown]
# ## 1. A log in which we know what moved
#
# * `people`: from the first day the scores are higher (the ranker got fresher candidates); viewers respond to a
#   score as before.
# * `event`: from the thirteenth day on, viewers respond a quarter less to the same score.
# * `newsletter`: nothing moves.
# * `group-2`: a version that went live without a curve.
#
# A viewer has many rows and likes some types more than others, so rows are not independent. The tests know.

# %%
LEVEL = {"people": -2.2, "event": -1.8, "newsletter": -2.6, "group": -2.4}
N_VIEWERS = 2_500
TASTE = {entity_type: rng.choice([0.7, 1.3], N_VIEWERS) for entity_type in LEVEL}


def make_log(since, n_days, rows_a_day, rankers, *, moves):
    parts = []
    for entity_type, version in rankers.items():
        n = n_days * rows_a_day
        at = since + pd.to_timedelta(rng.integers(0, n_days * 86_400, n), unit="s")
        viewer = rng.integers(0, N_VIEWERS, n)
        raw_score = rng.normal(0.35 if moves and entity_type == "people" else 0.0, 1.0, n)
        rate = TASTE[entity_type][viewer] * sigmoid(LEVEL[entity_type] + 0.9 * raw_score) * 0.7
        if moves and entity_type == "event":
            rate = np.where(at >= DROP, 0.75 * rate, rate)
        parts.append(
            pd.DataFrame(
                {
                    "entity_type": entity_type,
                    "ranker_version": version,
                    "at": at,
                    "viewer_id": viewer,
                    "raw_score": raw_score,
                    "response": (rng.random(n) < rate).astype(float),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


RANKERS = {"people": "people-1", "event": "event-1", "newsletter": "newsletter-1"}
fit_log = make_log(FIT - pd.Timedelta(days=28), 28, 4_000, RANKERS, moves=False)
calibrators = CalibratorSet.fit(fit_log)
log = make_log(FIT, 28, 4_000, {**RANKERS, "group": "group-2"}, moves=True)
print(f"calibrators {calibrators.version}, fitted on {len(fit_log):,} rows; {len(log):,} rows since")

# %% [markdown]
# ## 2. One question a week
#
# `needs_recalibration` compares the responses since the fit with the expected ones. Its intervals are *always valid*:
# you may ask every day, and the chance of ever crying wolf stays below 5 %.

# %%
reports = {}
for week in (1, 2, 3, 4):
    until = FIT + pd.Timedelta(weeks=week)
    reports[week] = needs_recalibration(log[log["at"] < until], calibrators)
weekly = pd.DataFrame(
    {f"week {week}": each.to_frame().set_index("ranker_version")["status"] for week, each in reports.items()}
)
print(weekly.to_string())
print()
report = reports[4]
for (_, version), verdict in report.verdicts.items():
    print(f"{version}: {'fit' if verdict.needed else 'keep'}")
    for reason in verdict.reasons:
        print(f"    {reason}")

# %% [markdown]
# Read the weeks from left to right. `too_few_rows` is an honest answer: a change of a tenth could still hide.
# `scores_moved` is a note and asks for nothing. The figure for `event-1` is the mean since the fit, good days
# included, so it is smaller than the drop itself.
#
# ## 3. Over time
#
# A single day has an interval, too. One day in twenty may leave out 1 by chance, so a single one says little. Count
# them for each ranker, beside the days at which the always-valid interval of all days so far leaves out 1:

# %%
daily = drift_table(log, calibrators)
daily["alone"] = (daily["interval_low"] > 1) | (daily["interval_high"] < 1)
by_ranker = daily.groupby("ranker_version")
counted = pd.DataFrame(
    {
        "days": by_ranker.size(),
        "days whose own interval leaves out 1": by_ranker["alone"].sum(),
        "days at which the always-valid one does": by_ranker["drifted"].sum(),
        "first of these": daily[daily["drifted"]].groupby("ranker_version")["window_start"].min().dt.strftime("%m-%d"),
        "mean PSI": by_ranker["psi"].mean().round(3),
        "mean noise of PSI": by_ranker["psi_noise"].mean().round(3),
    }
)
print(counted.fillna("-").T.to_string())

# %%
drift = drift_plot(daily, "Four weeks after the fit")
drift

# %% [markdown]
# In the picture, look at the band and not at single points. The points of `event` step down on the day of the drop
# and stay there. The line follows slowly, because it is the mean since the fit, and the band leaves the dashed line on
# the day that the title names. `people` has moved scores (filled triangles, nearly every day) and responses that
# follow the curve.
#
# ## 4. Fit again what has to be
#
# Which rows? Those since the responses changed, not those before: here the last two weeks, where the daily points of
# `event` are level. One call per ranker; all other curves stay the same objects.

# %%
recent = log[log["at"] >= FIT + pd.Timedelta(days=14)]
to_fit = [key for key, verdict in report.verdicts.items() if verdict.needed]
refitted = calibrators
for entity_type, version in to_fit:
    refitted = refitted.refitted(recent, entity_type=entity_type, ranker_version=version)
print(f"calibrators {calibrators.version} -> {refitted.version}; fitted: {', '.join(key[1] for key in to_fit)}")

# %%
change = curves_plot(refitted, "Expected response, before and after", before=calibrators)
change

# %% [markdown]
# Was it right? The week after tells: rows that neither set has seen. The old set has no curve for `group-2`.

# %%
next_week = make_log(FIT + pd.Timedelta(days=28), 7, 4_000, {**RANKERS, "group": "group-2"}, moves=True)
check = pd.DataFrame(
    {
        name: {
            verdict.ranker_version: f"{verdict.ratio:.2f} [{verdict.interval_low:.2f}, {verdict.interval_high:.2f}]"
            if verdict.status != "no_calibrator"
            else "no curve"
            for verdict in needs_recalibration(next_week, each).verdicts.values()
        }
        for name, each in (("old set", calibrators), ("new set", refitted))
    }
)
print("observed / expected responses of the fifth week")
print(check.to_string())

# %% [markdown]
# ## 5. The decision

# %%
after = needs_recalibration(next_week, refitted)
for key, verdict in report.verdicts.items():
    print(f"{key[1]}: {verdict.status} -> {'fit' if verdict.needed else 'keep'}")
print(
    f"-> serve calibrators {refitted.version}"
    if not after.needed
    else f"-> wait: {', '.join(key[1] for key in after if after[key].needed)} still off"
)

# %% [markdown]
# **Read it so.** Ask as often as you like; fit again when `needs_recalibration` says so, on rows since the change;
# check on the rows after. Moved scores alone are no reason, and a day that looks bad is none either. Where the answer
# is `too_few_rows`, collect more rows of the random policy before you trust the curve.
