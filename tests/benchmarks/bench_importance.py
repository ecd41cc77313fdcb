"""Importance factors held against the truth of a made network: bias, coverage, variance beside one arm per type, value.

``python tests/benchmarks/bench_importance.py [experiments] [3 | 7 ...]``: 100 experiments, networks of 3 and of 7 edge
types; ``make bench-importance`` runs 2,000, which takes an hour. Every line is of fixed seeds; the Monte-Carlo error
stands beside each share.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

import numpy as np
import pandas as pd

from simulations import Behaviour, EdgeDropExperiment, World
from simulations.policies import ExpectedGain
from simulations.response_curves import CURVES
from spr.edge_drop import estimate_edge_values
from spr.edge_drop.dose_response import fit_dose_response
from spr.edge_drop.table import read_edge_drop
from spr.reorder import ImportanceFactors

METRIC = "engagement"
POPULATION = 100_000
VIEWERS = {3: 8_000, 7: 12_000}  # of one experiment, drawn with replacement: the population's truth is the target
DAYS = 28
PROCESSES = int(os.environ.get("SPR_BENCH_PROCESSES", "2"))
# Of viewers' activity between periods. With seven types less of it, so that the reference is told apart from 0: where
# it is not, an interval is the whole line, and covers too often. For variances, rho^2 of past and metric is 0.7.
NOISE, NOISE_OF_VARIANCE = {3: 0.3, 7: 0.1}, 0.375
REFERENCE = {3: "connection", 7: "people"}


_IDS = np.array([f"e{number}" for number in range(5 * max(VIEWERS.values()))], dtype=object)


@cache
def world(n_types: int, activity_noise: float | None = None) -> World:
    """A network of three edge types, or of one for each of the seven entity types."""
    activity_noise = NOISE[n_types] if activity_noise is None else activity_noise
    if n_types == 3:
        return World(POPULATION, seed=5, behaviour=Behaviour(activity_noise=activity_noise))
    per_edge = dict(zip(CURVES, (0.10, 0.05, 0.06, 0.07, 0.09, 0.08, 0.06), strict=True))
    return World(
        POPULATION,
        seed=5,
        behaviour=Behaviour(
            edge_type_of={t: t for t in CURVES}, engagement_per_edge=per_edge, activity_noise=activity_noise
        ),
    )


def edge_types(n_types: int) -> tuple[str, ...]:
    return ("connection", "follow", "subscribe") if n_types == 3 else tuple(CURVES)


def true_factors(n_types: int) -> pd.Series:
    return world(n_types).truth.edge_values(reference=REFERENCE[n_types])["factor_per_downstream_edge"]


def table_of(
    number: int,
    n_types: int,
    design: str = "factorial",
    *,
    dropped: bool = True,
    activity_noise: float | None = None,
    viewers: int | None = None,
) -> pd.DataFrame:
    """Run one experiment; ``dropped=False``: assigned, and nothing dropped (A/A)."""
    rng = np.random.default_rng([11, n_types, number])
    sample = rng.integers(POPULATION, size=viewers or VIEWERS[n_types])
    network = world(n_types, activity_noise)
    people = pd.DataFrame({"viewer_id": _IDS[: len(sample)], "sessions_per_week": network.activity[sample]})
    experiment = EdgeDropExperiment(edge_types(n_types), salt=f"bench-{number}", design=design)
    assignment = experiment.assign(people, stratum="sessions_per_week")
    named = [f"dropped_{t}" for t in edge_types(n_types)]
    shown = assignment.assign(viewer_id=network.viewer_ids[sample])
    if not dropped:
        shown[named] = 0.0
    table = network.edge_drop(shown, days=DAYS, pre_days=DAYS, rng=rng)
    table[["viewer_id", *named]] = assignment[["viewer_id", *named]]
    return table


def forms_of(number: int, n_types: int) -> dict[str, list[float]]:
    rows = read_edge_drop(table_of(number, n_types), METRIC)
    return {form: (fit_dose_response(rows, form).loss / rows.edges.mean(axis=0)).tolist() for form in FORMS}


FORMS = ("linear", "quadratic", "concave")


def covered(number: int, n_types: int) -> dict[str, object]:
    values = estimate_edge_values(table_of(number, n_types), METRIC)
    made, truth = values.factors(reference=REFERENCE[n_types]), true_factors(n_types)
    true = truth[list(values.edge_types)].to_numpy()
    in_one = (made.interval[:, 0] <= true) & (true <= made.interval[:, 1])
    in_all = (made.simultaneous[:, 0] <= true) & (true <= made.simultaneous[:, 1])
    table = values.to_pandas()
    absolute = world(n_types).truth.edge_values(reference=REFERENCE[n_types])["value_per_edge"] * DAYS / 7
    in_value = (table["low"] <= absolute) & (absolute <= table["high"])
    return {
        "types": values.edge_types,
        "each": in_one.tolist(),
        "all": bool(in_all.all()),
        "value": in_value[list(values.edge_types)].tolist(),
        "unbounded": bool(np.isinf(made.interval).any()),
        "shrunk": np.abs(np.log(made.shrunk / true)).tolist(),
        "raw": np.abs(np.log(np.maximum(made.ratio, 1e-3) / true)).tolist(),
        "additive": values.additivity_p_value < 0.05,
    }


def rejected(number: int, n_types: int) -> dict[str, object]:
    """A/A: nothing was dropped; does any value seem to differ from 0?"""
    from scipy.stats import chi2

    values = estimate_edge_values(table_of(number, n_types, dropped=False), METRIC)
    value, covariance = values.per("edge")
    joint = float(value @ np.linalg.solve(covariance, value))
    return {
        "each": (np.abs(value) > 1.959964 * np.sqrt(np.diag(covariance))).tolist(),
        "joint": joint > chi2.isf(0.05, n_types),
    }


def ratios_of(number: int, n_types: int) -> dict[str, object]:
    """The same viewers in both designs: all types at once and adjusted; one arm per type and raw differences."""
    table = table_of(number, n_types, activity_noise=NOISE_OF_VARIANCE)
    both = estimate_edge_values(table, METRIC)
    arms = table_of(number, n_types, "one_arm_per_type", activity_noise=NOISE_OF_VARIANCE)
    arms = arms.drop(columns=["stratum", f"pre_{METRIC}"])
    raw = estimate_edge_values(arms, METRIC)
    return {
        "factorial": both.per("downstream_edge")[0].tolist(),
        "arms": raw.per("downstream_edge")[0].tolist(),
        "rho2": table[[METRIC, f"pre_{METRIC}"]].corr().iloc[0, 1] ** 2,
    }


def run(job: object, numbers: range) -> list:
    with ProcessPoolExecutor(PROCESSES) as pool:
        return list(pool.map(job, numbers, chunksize=max(len(numbers) // 40, 1)))


def share(hits: object) -> str:
    hits = np.asarray(hits, dtype=float)
    return f"{100 * hits.mean():.1f} % ± {100 * np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits)):.1f}"


def print_forms(n_types: int, n: int) -> None:
    truth = world(n_types).truth.edge_values(reference=REFERENCE[n_types])["value_per_edge"] * DAYS / 7
    true = truth[list(edge_types(n_types))].to_numpy()
    found = run(partial(forms_of, n_types=n_types), range(n))
    print(f"\nvalue per edge, {n_types} edge types, {n} experiments of {VIEWERS[n_types]:,} viewers: mean over types")
    print(f"  {'form':10} {'bias':>8} {'sd':>8} {'rmse':>8}   (shares of the truth)")
    for form in FORMS:
        ratio = np.array([one[form] for one in found]) / true
        bias, sd = ratio.mean(axis=0) - 1, ratio.std(axis=0)
        print(f"  {form:10} {bias.mean():8.3f} {sd.mean():8.3f} {np.sqrt(bias**2 + sd**2).mean():8.3f}")


def print_coverage(n_types: int, n: int) -> None:
    found = run(partial(covered, n_types=n_types), range(n))
    names = found[0]["types"]
    each = np.array([one["each"] for one in found])
    value = np.array([one["value"] for one in found])
    print(f"\n95 % intervals, {n_types} edge types, {n} experiments of {VIEWERS[n_types]:,} viewers (bar: 93.5-96.5 %)")
    for place, name in enumerate(names):
        if name != REFERENCE[n_types]:
            print(f"  factor of {name:14} {share(each[:, place])}   (its value: {share(value[:, place])})")
    print(f"  all factors at once      {share([one['all'] for one in found])}")
    print(f"  unbounded                {share([one['unbounded'] for one in found])}")
    print(f"  additivity doubted       {share([one['additive'] for one in found])}")
    error = {kind: np.mean([one[kind] for one in found]) for kind in ("raw", "shrunk")}
    print(f"  mean |log error|: raw ratios {error['raw']:.3f}, shrunk {error['shrunk']:.3f}")


def print_aa(n_types: int, n: int) -> None:
    found = run(partial(rejected, n_types=n_types), range(10_000, 10_000 + n))
    each = np.array([one["each"] for one in found])
    print(f"\nA/A, {n_types} edge types, {n} experiments: a value that differs from 0 at 5 % (bar: 4-6 %)")
    for place, name in enumerate(edge_types(n_types)):
        print(f"  {name:14} {share(each[:, place])}")
    print(f"  all types jointly {share([one['joint'] for one in found])}")


def print_variance(n_types: int, n: int) -> None:
    """Of the ratio as it is to first order, (w_t - f_t w_r) / w_r: a ratio of normals has no variance of its own."""
    found = run(partial(ratios_of, n_types=n_types), range(20_000, 20_000 + n))
    names, reference = edge_types(n_types), edge_types(n_types).index(REFERENCE[n_types])
    place = [i for i in range(n_types) if i != reference]
    factor = true_factors(n_types)[list(names)].to_numpy()
    variance, quartiles = {}, {}
    for design in ("factorial", "arms"):
        value = np.array([one[design] for one in found])
        error = (value - factor * value[:, [reference]])[:, place]
        variance[design] = error.var(axis=0)
        low, high = np.quantile((value / value[:, [reference]])[:, place], [0.25, 0.75], axis=0)
        quartiles[design] = (high - low) ** 2
    ratio, bar = variance["factorial"] / variance["arms"], {3: 0.3, 7: 0.15}[n_types]
    rho2 = np.mean([one["rho2"] for one in found])
    error = np.mean(ratio) * np.sqrt(4 / n / len(place))
    print(f"\nvariance of a factor over one arm per type and raw differences, {n_types} edge types, {n} experiments")
    print(
        f"  pre-period: rho^2 = {rho2:.2f}; ratio {np.mean(ratio):.3f} ± {error:.3f} (bar {bar}): {np.round(ratio, 3)}"
    )
    of_quartiles = np.mean(quartiles["factorial"] / quartiles["arms"])
    print(f"  of squared quartile ranges of the ratios themselves {of_quartiles:.3f}")


def print_value(n: int) -> None:
    """Serve pages with the true factors, with those of experiments of two sizes, and with none, in the same moods."""
    small = World(5_000, seed=5, cohorts_per_page=(12, 12))

    def made_by(policy: ExpectedGain) -> tuple[float, float]:
        totals = small.run(20_000, policy=policy).totals
        return float(totals["expected_gain"]), float(totals["expected_downstream"])

    best, downstream = made_by(ExpectedGain(small.truth.importance_factors(reference="connection")))
    none = made_by(ExpectedGain())
    print(f"\nvalue lost by estimated instead of true factors, {n} experiments of each size (bar: below 1 %)")
    for viewers in (VIEWERS[3], 5 * VIEWERS[3]):
        found = [
            made_by(ExpectedGain(ImportanceFactors.from_experiment(table, METRIC, reference="connection")))
            for table in (table_of(30_000 + number, 3, viewers=viewers) for number in range(n))
        ]
        lost = [100 * (1 - gain / best) for gain, _ in found]
        print(
            f"  {viewers:,} viewers: mean {np.mean(lost):.2f} %, worst {np.max(lost):.2f} %; "
            f"downstream edges {np.mean([edges for _, edges in found]):,.0f} (true factors {downstream:,.0f})"
        )
    print(f"  without factors: {100 * (1 - none[0] / best):.2f} %; downstream edges {none[1]:,.0f}")


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    start = time.process_time()
    for n_types in [int(argument) for argument in sys.argv[2:]] or [3, 7]:
        print_coverage(n_types, n)
        print_aa(n_types, 3 * n // 4)
        print_variance(n_types, n // 4)
        print_forms(n_types, n // 4)
    print_value(10)
    print(f"\n{time.process_time() - start:.0f} CPU s in the main process")
