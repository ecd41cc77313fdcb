"""The peers' own data: MovieLens-100K by gdmix's protocol, InstEval beside lme4. Needs `make peer-data`.

* MovieLens-100K: test AUC and CPU of the fit, mean over the seeds 0-4. The peer is gdmix's way of training, one L-BFGS
  fit per entity with a penalty of 1 (peer_scipy.py), once through the coordinates as gdmix does it, and four times.
* InstEval: variance components, held-out error and CPU. lme4 is run where Rscript has it (Debian: r-cran-lme4), held
  to one thread; else its figures are cited, CPU and all, as measured when test_insteval.py was written.

CPU time, one thread. No bar is asserted here; tests/contracts/peers/fetched holds the accuracies.
"""

from __future__ import annotations

import measuring as m  # isort: split

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import peer_data
from peer_scipy import PeerEffect, fit_by_coordinates
from sklearn.metrics import roc_auc_score

from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, RandomEffect

if TYPE_CHECKING:
    from collections.abc import Sequence

SEEDS = range(5)
PEOPLE = ["age", "gender", "occupation"]
AREA_BARS = {"Linear": 0.783, "Trees": 0.785}
GDMIX_PUBLISHED = {"fixed": 0.6237, "+ user": 0.7058, "+ movie": 0.7599}

KEYS = ["s", "d", "dept_service"]
LME4_CITED = {"residual sd": 1.17684, "sd s": 0.32469, "sd d": 0.51241, "sd dept_service": 0.10965}
LME4_CITED_RMSE, LME4_CITED_CPU = 1.20056, 17.0
LME4_SCRIPT = """
suppressMessages(library(lme4))
table <- read.csv(commandArgs(TRUE)[1])
for (v in c("s", "d", "dept", "service")) table[[v]] <- factor(table[[v]])
started <- proc.time()
fitted <- lmer(y ~ service + (1|s) + (1|d) + (1|dept:service), table)
spent <- proc.time() - started
sds <- as.data.frame(VarCorr(fitted)); sds <- setNames(sds$sdcor, sds$grp)
i <- seq_len(nrow(table)); test <- table[i %% 5 == 0, ]
train <- suppressWarnings(lmer(y ~ service + (1|s) + (1|d) + (1|dept:service), table[i %% 5 != 0, ]))
rmse <- sqrt(mean((test$y - predict(train, test, allow.new.levels = TRUE))^2))
cat(sds["Residual"], sds["s"], sds["d"], sds["dept:service"], rmse, spent[1] + spent[2], "\\n")
blups <- ranef(fitted)
for (g in names(blups)) write.csv(data.frame(key = rownames(blups[[g]]), blup = blups[[g]][[1]]),
                                  file.path(commandArgs(TRUE)[2], paste0(sub(":", "_", g), ".csv")), row.names = FALSE)
"""


# ------------------------------------------------------------------ MovieLens-100K


def movielens() -> None:
    rows, liked, genres = peer_data.read_movielens()
    labels = liked.to_numpy()
    columns = [*PEOPLE, "year", *genres]
    effects = [RandomEffect("user", "user_id", [*genres, "year"]), RandomEffect("movie", "movie_id", PEOPLE)]
    masks = [np.random.default_rng(seed).random(len(rows)) < 0.8 for seed in SEEDS]
    table: list[dict[str, object]] = []
    for name, fixed in {"Linear": Linear(columns), "Trees": peer_data.movielens_trees(columns)}.items():
        GLMixClassifier(fixed, effects).fit(rows[:3000], labels[:3000])  # compiles what there is to compile
        found = []
        for seed, train in zip(SEEDS, masks, strict=True):
            cpu, model = m.cpu_and_result(
                lambda train=train, seed=seed, fixed=fixed: peer_data.fit_movielens(
                    fixed, effects, rows[train], labels[train], seed
                )
            )
            parts = model.margins(rows[~train])
            steps = [parts["fixed"], parts["fixed"] + parts["user"], parts.sum(axis=1)]
            found.append([*(roc_auc_score(labels[~train], step) for step in steps), cpu])
        table.append(_row(f"spr.glmix, {name}", found) | {"bar": str(AREA_BARS[name])})
    for sweeps in (1, 4):
        found = [_peer(rows, labels, train, genres, sweeps) for train in masks]
        table.append(_row(f"scipy per entity, {sweeps} sweep(s)", found) | {"bar": ""})
    table.append({"fit": "gdmix, as published"} | {k: f"{v:.4f}" for k, v in GDMIX_PUBLISHED.items()})
    m.print_table("MovieLens-100K: test AUC, mean over the seeds 0-4", table)


def _row(name: str, found: Sequence[Sequence[float]]) -> dict[str, object]:
    fixed, user, movie, cpu = np.mean(found, axis=0)
    areas = {"fixed": fixed, "+ user": user, "+ movie": movie}
    return {"fit": name} | {step: f"{area:.4f}" for step, area in areas.items()} | {"CPU s": float(cpu)}


def _peer(
    rows: pd.DataFrame, labels: np.ndarray, train: np.ndarray, genres: list[str], sweeps: int
) -> tuple[float, float, float, float]:
    people = pd.get_dummies(rows[PEOPLE], dtype=float).to_numpy()
    ones = np.ones((len(rows), 1))
    movie = rows[[*genres, "year"]].to_numpy()
    designs = [np.hstack([people, movie, ones]), np.hstack([movie, ones]), np.hstack([people, ones])]
    penalties = [np.ones(design.shape[1]) for design in designs]
    penalties[0][-1] = 0.0  # the fixed intercept
    codes = [np.zeros(len(rows), dtype=int), rows["user_id"].to_numpy(), rows["movie_id"].to_numpy()]

    def fit() -> list[PeerEffect]:
        effects = [PeerEffect(c[train], d[train], l2) for c, d, l2 in zip(codes, designs, penalties, strict=True)]
        fit_by_coordinates(effects, labels[train], np.zeros(int(train.sum())), sweeps)
        return effects

    cpu, effects = m.cpu_and_result(fit)
    judged = zip(effects, codes, designs, strict=True)
    margins = [effect.margin_of(code[~train], design[~train]) for effect, code, design in judged]
    fixed, user, movies = (float(roc_auc_score(labels[~train], margin)) for margin in np.cumsum(margins, axis=0))
    return fixed, user, movies, cpu


# ------------------------------------------------------------------ InstEval


def insteval() -> None:
    table = peer_data.read_insteval()
    held_out = np.arange(1, len(table) + 1) % 5 == 0
    _fit(table[:3000])
    rounds = [m.cpu_and_result(lambda: _fit(table)) for _ in range(3)]
    ours, model = float(np.median([cpu for cpu, _ in rounds])), rounds[-1][1]
    errors = _fit(table[~held_out]).decision_function(table[held_out]) - table["y"][held_out]
    sds = {f"sd {key}": float(np.sqrt(model.prior_variance_[key]["intercept"])) for key in KEYS}
    row = {"fit": "spr.glmix", "residual sd": float(np.sqrt(model.residual_variance_))} | sds
    row |= {"held-out RMSE": f"{np.sqrt((errors**2).mean()):.5f}", "CPU s": ours}
    name, peer, peer_cpu, blups = _lme4()
    m.print_table("InstEval: y ~ service + (1|s) + (1|d) + (1|dept:service)", [row, {"fit": name} | peer])
    print(f"lme4's CPU over ours: {peer_cpu / ours:.1f} (bar 10)")
    for key, theirs in blups.items():
        both = model.coefficients(key)["intercept"].rename(str).to_frame("ours").join(theirs)
        print(f"correlation of the BLUPs of {key}: {both.corr().iloc[0, 1]:.4f} (bar 0.99)")


def _fit(rows: pd.DataFrame) -> GLMixRegressor:
    effects = [RandomEffect(key, key) for key in KEYS]
    return GLMixRegressor(Linear(["service"], l2=0.0), effects, sweeps=10).fit(rows, rows["y"])


def _lme4() -> tuple[str, dict[str, object], float, dict[str, pd.Series]]:
    """Run lme4, or cite it: its name in the table, its figures, its CPU seconds, its BLUPs by key."""
    cited: dict[str, object] = {**LME4_CITED, "held-out RMSE": f"{LME4_CITED_RMSE}", "CPU s": LME4_CITED_CPU}
    if shutil.which("Rscript") is None:
        return "lme4, cited", cited, LME4_CITED_CPU, {}
    with tempfile.TemporaryDirectory() as folder:
        data = peer_data.cache_folder(peer_data.INSTEVAL) / "insteval.csv"
        script = Path(folder) / "lme4.R"
        script.write_text(LME4_SCRIPT)
        command = ["Rscript", str(script), str(data), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return "lme4, cited", cited, LME4_CITED_CPU, {}
        *sds, rmse, cpu = map(float, done.stdout.split())
        blups = {key: pd.read_csv(Path(folder) / f"{key}.csv", dtype={"key": str}) for key in KEYS}
    found: dict[str, object] = dict(zip(LME4_CITED, sds, strict=True))
    found |= {"held-out RMSE": f"{rmse:.5f}", "CPU s": cpu}
    return "lme4", found, cpu, {key: both.set_index("key")["blup"] for key, both in blups.items()}


def main() -> None:
    for run in (movielens, insteval):
        try:
            run()
        except peer_data.PeerDataMissing as problem:
            print(f"\n{run.__name__} is left out: {problem}")


if __name__ == "__main__":
    main()
