"""Calibrators on curves of known truth: ours beside everybody's. Peers: `make bench-calibration`.

Seven entity types (calibration_truth.py) with a base rate between 0.1 % and 20 % and a raw-score scale each; a seed is
a fresh set of curves, and the families of curves go round the types. For each calibrator and size:

* error: mean of |estimate - truth| over 20,000 fresh scores, divided by the base rate;
* excess log loss: mean of KL(truth || estimate), the exact expectation, divided by the base rate. Estimates are clipped
  to [1e-12, 1 - 1e-12] for it, since some peers answer 0 and 1;
* monotone: share of the fits that do not decrease anywhere on a grid of 4,000 scores (tolerance 1e-12);
* zeros and ones: how many of the 20,000 answers are exactly 0 or 1, mean over the fits;
* refused: fits that raised or answered NaN; (responses + 1/2) / (rows + 1) counts as their answer;
* CPU seconds of the fit, one thread.

Each figure is the mean over seeds, then over types. Nothing is asserted. `--real` adds a real log.
Five minutes of CPU.
"""

from __future__ import annotations

import measuring as m  # isort: split

import argparse
import datetime
import platform
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import calibration_truth as truth
import numpy as np
import pandas as pd
import peer_data
from calibration_peers import LEFT_OUT, PEERS
from calibration_real import real_log
from scipy.special import xlogy

from calibration import CalibrationWarning, CalibratorSet, QuantileResponseCalibrator
from calibration.response import Method

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from calibration_peers import Fit, Floats, Predict
    from calibration_truth import Draw

SEEDS = {1_000: 8, 10_000: 6, 100_000: 3, 1_000_000: 2}
CLIP = 1e-12
AUTOS = ["ours, auto (rank)", "ours, auto (all)"]
METRICS = {"error": "error", "excess": "excess log loss"}


# ------------------------------------------------------------------ calibrators


def _ours(method: str, transforms: str) -> Fit:
    return lambda raw_score, response: QuantileResponseCalibrator(method, transforms).fit(raw_score, response).predict


def our_fits() -> dict[str, Fit]:
    """Every method there is, and `auto` with both kinds of transforms."""
    methods = [method for method in get_args(Method) if method != "auto"]
    autos = {f"ours, auto ({transforms})": _ours("auto", transforms) for transforms in ("rank", "all")}
    return autos | {f"ours, {method}": _ours(method, "rank") for method in methods}


def fits_for(n: int, *, slow_too: bool = False) -> dict[str, Fit]:
    """Ours, then the peers that are installed and can take so many rows."""
    peers = {name: peer.fit for name, peer in PEERS.items() if peer.version and (slow_too or n <= peer.most_rows)}
    return our_fits() | peers


# ------------------------------------------------------------------ figures


def judge(name: str, fit: Fit, rows: Draw, base_rate: float) -> dict[str, object]:
    """Fit one calibrator and compare it with the truth."""
    predict: Predict | None
    try:
        cpu, predict = m.cpu_and_result(lambda: fit(rows.raw_score, rows.response))
    except (ValueError, ArithmeticError, IndexError):
        cpu, predict = np.nan, None
    estimate = np.full(1, np.nan) if predict is None else predict(rows.test_score)
    refused = predict is None or bool(np.isnan(estimate).any())
    if refused:
        rate = (rows.response.sum() + 0.5) / (rows.response.size + 1.0)
        predict, estimate = (lambda score: np.full(score.size, rate)), np.full(rows.test_score.size, rate)
    assert predict is not None
    within = np.clip(estimate, CLIP, 1.0 - CLIP)
    kl = xlogy(rows.test_truth, rows.test_truth / within)
    kl += xlogy(1.0 - rows.test_truth, (1.0 - rows.test_truth) / (1.0 - within))
    steps = np.diff(predict(_grid(rows.raw_score)))
    return {
        "calibrator": name,
        "error": float(np.abs(estimate - rows.test_truth).mean()) / base_rate,
        "excess": float(kl.mean()) / base_rate,
        "monotone": float(steps.min() >= -1e-12),
        "ends": int(np.count_nonzero((estimate <= 0.0) | (estimate >= 1.0))),
        "refused": int(refused),
        "cpu": cpu,
    }


def _grid(raw_score: Floats) -> Floats:
    inside = np.quantile(raw_score, np.linspace(0.0, 1.0, 2_000))
    return np.sort(np.append(inside, np.linspace(raw_score.min(), raw_score.max(), 2_000)))


def measure(n: int, seeds: int, types: Iterable[str], *, slow_too: bool) -> pd.DataFrame:
    """Return one row per type, seed and calibrator."""
    fits = fits_for(n, slow_too=slow_too)
    warm_up = truth.draw("people", 500, 0)
    for name, fit in fits.items():  # imports, compilers and thread pools are nobody's fit
        judge(name, fit, warm_up, 1.0)
    found = []
    for entity_type in types:
        for seed in range(seeds):
            rows = truth.draw(entity_type, n, seed)
            key = {"type": entity_type, "family": rows.family, "seed": seed}
            base_rate = truth.TYPES[entity_type].base_rate
            found += [key | judge(name, fit, rows, base_rate) for name, fit in fits.items()]
    return pd.DataFrame(found)


# ------------------------------------------------------------------ tables


def markdown(rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as a table of markdown, numbers to four digits."""
    rows = list(rows)
    written = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values()] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *written]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_type(found: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean over seeds: a row per type, a column per calibrator."""
    return found.pivot_table(index="type", columns="calibrator", values=metric, sort=False)


def main_table(found: pd.DataFrame) -> str:
    """Return a row per calibrator, ours first, each kind by its error."""
    columns = ["error", "excess", "monotone", "ends", "refused", "cpu"]
    means = {column: _by_type(found, column).mean() for column in columns}
    order = sorted(means["error"].index, key=lambda name: (not name.startswith("ours"), means["error"][name]))
    fits = found.groupby("calibrator").size()
    return markdown(
        {
            "calibrator": name,
            "error": float(means["error"][name]),
            "excess log loss": float(means["excess"][name]),
            "monotone %": f"{100 * means['monotone'][name]:.0f}",
            "zeros and ones": f"{means['ends'][name]:.0f}",
            "refused": f"{found[found['calibrator'] == name]['refused'].sum()} of {fits[name]}",
            "fit CPU s": float(means["cpu"][name]),
        }
        for name in order
    )


def _geometric_mean(ratio: pd.Series) -> float:
    return float(np.exp(np.log(ratio).mean()))


def ratios(found: pd.DataFrame) -> str:
    """Compare ours with the best peer: the lowest mean over types. Below 1 ours is better."""
    said = []
    for metric, words in METRICS.items():
        by_type = _by_type(found, metric)
        peers = by_type.drop(columns=[name for name in by_type if name.startswith("ours")])
        best = str(peers.mean().idxmin())
        for name in AUTOS:
            ratio = by_type[name] / by_type[best]
            said.append(
                f"* {words}, {name} over the best peer ({best}): {by_type[name].mean() / by_type[best].mean():.2f}; "
                f"geometric mean over types {_geometric_mean(ratio):.2f}"
            )
        rows = [
            {"type": entity_type, "base rate": f"{100 * truth.TYPES[entity_type].base_rate:.2g} %"}
            | {f"{name} / {best}": float(by_type[name][entity_type] / by_type[best][entity_type]) for name in AUTOS}
            | {"best peer of this type": str(peers.loc[entity_type].idxmin())}
            | {f"{AUTOS[0]} / it": float(by_type[AUTOS[0]][entity_type] / peers.loc[entity_type].min())}
            for entity_type in by_type.index
        ]
        cells = found.pivot_table(index=["family", "type"], columns="calibrator", values=metric, sort=False)
        rows_of_families = [
            {"family": family}
            | {f"{name} / {best}": _geometric_mean(of_family[name] / of_family[best]) for name in AUTOS}
            | {"cells": len(of_family)}
            for family, of_family in cells.groupby(level="family", sort=True)
        ]
        said += [f"\nBy type, {words}:\n", markdown(rows), f"\nBy family, {words}:\n", markdown(rows_of_families), ""]
    return "\n".join(said)


def losses(found: pd.DataFrame, most: int = 10) -> str:
    """Return the cells (type, family) in which the best auto of ours is furthest behind the best peer of that cell."""
    cells = found.pivot_table(index=["type", "family"], columns="calibrator", values="error", sort=False)
    peers = cells.drop(columns=[name for name in cells if name.startswith("ours")])
    ratio = (cells[AUTOS[0]] / peers.min(axis=1)).sort_values(ascending=False)
    behind = ratio[ratio > 1.0]
    head = f"{AUTOS[0]} is behind the best peer of the cell in {len(behind)} of {len(ratio)} cells"
    if behind.empty:
        return head + "."
    rows = [
        {
            "type": cell[0],
            "family": cell[1],
            **{name: float(cells[name][cell]) for name in AUTOS},
            "peer": str(peers.loc[cell].idxmin()),
            "its error": float(peers.loc[cell].min()),
            "ratio": float(behind[cell]),
        }
        for cell in behind.index[:most]
    ]
    return f"{head}; by how much, worst first:\n\n{markdown(rows)}"


def overview(by_size: Mapping[int, pd.DataFrame]) -> str:
    """Return a row per calibrator: error and excess log loss at every size, and the best peer's beside ours."""
    said = []
    for metric, words in METRICS.items():
        means = pd.DataFrame({f"{n:,}": _by_type(found, metric).mean() for n, found in by_size.items()})
        ours = means.index.str.startswith("ours")
        means = pd.concat([means[part].sort_values(means.columns[-1]) for part in (ours, ~ours)])
        cells = means.map(lambda x: "" if np.isnan(x) else f"{x:.4f}")
        cells.loc[f"{AUTOS[0]} / best peer"] = [
            f"**{means.loc[AUTOS[0], size] / means.loc[~means.index.str.startswith('ours'), size].min():.2f}**"
            for size in means.columns
        ]
        said.append(f"{words} / base rate, mean over types, by rows:\n")
        said.append(markdown(cells.rename_axis("calibrator").reset_index().to_dict("records")) + "\n")
    return "\n".join(said)


# ------------------------------------------------------------------ serving


def serving() -> str:
    """Time 50 raw scores at a time, the ways in turn."""
    from sklearn.isotonic import IsotonicRegression

    rows = truth.draw("people", 100_000, 0)
    curve = QuantileResponseCalibrator().fit(rows.raw_score, rows.response).curve_
    linear = QuantileResponseCalibrator(transforms="all").fit(rows.raw_score, rows.response).curve_
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(rows.raw_score, rows.response)
    asked = rows.test_score[:50]
    page = CalibratorSet({(f"type {j}", "v1"): (curve, linear)[j % 2] for j in range(12)})
    rankers, of_rankers = list(page), np.arange(50) % 12
    ways = {
        f"curve.predict ({curve.interpolation})": lambda: curve.predict(asked),
        f"curve.predict ({linear.interpolation})": lambda: linear.predict(asked),
        "CalibratorSet.predict of 12 rankers": lambda: page.predict(asked, of_rankers, rankers),
        "np.interp on its table": lambda: np.interp(asked, curve.table.centre, curve.values),
        "sklearn isotonic": lambda: isotonic.predict(asked),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(50):
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in range(40):
                way()
            seconds[name].append((time.perf_counter() - started) / 40)
    said = ", ".join(f"{name} {1e6 * float(np.median(taken)):.1f}" for name, taken in seconds.items())
    return f"Serving 50 values, microseconds (median, in turn): {said}"


# ------------------------------------------------------------------ the command


def versions() -> str:
    """Return date and versions, and which peers are not there or held back."""
    found = {peer.distribution: peer.version for peer in PEERS.values()}
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [f"{today}, Python {platform.python_version()}, numpy {np.__version__}"]
    lines[0] += "".join(f", {name} {version}" for name, version in found.items() if version) + "\n"
    if missing := [name for name, version in found.items() if version is None]:
        lines.append(f"* not installed, left out: {', '.join(missing)} (`make bench-calibration` installs them)")
    lines += [f"* {k}: up to {p.most_rows:,} rows; {p.why_not_more}" for k, p in PEERS.items() if p.why_not_more]
    lines += [f"* {name} is left out: {why}" for name, why in LEFT_OUT.items()]
    return "\n".join(lines)


# At 1,000 rows and a rate of 0.1 % there is often no response at all: the benchmark asks for these answers too.
warnings.filterwarnings("ignore", category=CalibrationWarning)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--sizes", type=int, nargs="*", default=list(SEEDS), help="rows to learn from")
    asked.add_argument("--seeds", type=int, help="seeds of every size; default 8, 6, 3, 2")
    asked.add_argument("--type", nargs="*", choices=list(truth.TYPES), default=list(truth.TYPES), dest="types")
    asked.add_argument("--slow", action="store_true", help="slow peers at every size too")
    asked.add_argument("--real", action="store_true", help="the real log too; needs `make peer-data`")
    asked.add_argument("--write", type=Path, help="write the tables to this file too")
    options = asked.parse_args()
    written: list[str] = []

    def say(text: str) -> None:
        print(text + "\n", flush=True)
        written.append(text + "\n\n")

    say(f"# Calibrators on curves of known truth\n\n{versions()}")
    by_size = {}
    for n in options.sizes:
        seeds = options.seeds or SEEDS.get(n, 1)
        found = by_size[n] = measure(n, seeds, options.types, slow_too=options.slow)
        say(f"## {n:,} rows, {len(options.types)} types, {seeds} seeds\n\n{main_table(found)}")
        say(ratios(found))
        say(losses(found))
    say(f"## Overview\n\n{overview(by_size)}")
    say(serving())
    if options.real:
        try:
            said, table, reliability = real_log(fits_for(15_000))
            say(f"## A real log\n\n{said}\n\n{markdown(table)}")
            say(f"Reliability of {table[0]['calibrator']}:\n\n{markdown(reliability.to_dict('records'))}")
        except peer_data.PeerDataMissing as problem:
            say(f"The real log is left out: {problem}")
    say(f"CPU of this run: {time.process_time():.0f} s")
    if options.write:
        options.write.write_text("".join(written).rstrip() + "\n")


if __name__ == "__main__":
    main()
