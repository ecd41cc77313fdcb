"""Guarantees: what keeping them costs per page, and how far from the best page they end.

A page of 50 cohorts of 7 types, each form of guarantee; CPU time of one thread. Beside it, in the same run, the linear
program of Singh and Joachims (2018, "Fairness of exposure in rankings", KDD): a doubly stochastic matrix of cohorts by
positions of greatest expected utility under the same bounds, solved by HiGHS. Then the gap of the utility to the exact
optimum over random pages: the assignment problem for labels that do not meet, the linear program's bound else.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numba
import numpy as np
from measuring import print_table  # first: it sets the number of threads
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack

from spr.reorder import ImpressionGuarantee, PageBounds, arrange
from spr.reorder.filling import arrange_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from spr.reorder import LabelKind

    Floats = NDArray[np.float64]

N, WITHIN_TOP, N_PAGES, N_PROGRAMS = 50, 10, 300, 5
TYPES = np.array([f"type-{t}" for t in range(7)], dtype=object)
EDGES = {label: f"edge-{t // 3}" for t, label in enumerate(TYPES)}


def _each(**terms: float) -> tuple[ImpressionGuarantee, ...]:
    return tuple(
        ImpressionGuarantee(str(label), "entity_type", str(label), within_top=WITHIN_TOP, **terms)  # type: ignore[arg-type]  # counts, too
        for label in TYPES
    )


FORMS: dict[str, tuple[ImpressionGuarantee, ...]] = {
    "minima": _each(minimum=1),
    "maxima": _each(maximum=2),
    "minima and maxima": _each(minimum=1, maximum=2),
    "minima at every prefix": tuple(
        ImpressionGuarantee(str(label), "entity_type", str(label), minimum_by_prefix=(0,) * (t + 2) + (1,))
        for t, label in enumerate(TYPES)
    ),
    "nested minima": (
        *_each(minimum=1)[:4],
        ImpressionGuarantee("edge", "edge_type", "edge-0", minimum=5, within_top=WITHIN_TOP),
    ),
    "shares": _each(share=0.12),
}


def _labels(rng: np.random.Generator, n: int) -> dict[LabelKind, NDArray[np.object_]]:
    entity_type = TYPES[rng.permutation(np.arange(n) % len(TYPES))]
    return {"entity_type": entity_type, "edge_type": np.array([EDGES[t] for t in entity_type], dtype=object)}


def _bounds(
    labels: Mapping[LabelKind, NDArray[np.object_]], guarantees: tuple[ImpressionGuarantee, ...], n: int
) -> list[tuple[NDArray[np.bool_], int, int, int]]:
    """Return (members, prefix, minimum, maximum) wherever a guarantee says something."""
    said: list[tuple[NDArray[np.bool_], int, int, int]] = []
    for g in guarantees:
        member, low, high = labels[g.label_kind] == g.label, g.minima(n), g.maxima(n)
        binds = (low > np.concatenate([[0], low[:-1]])) | (high < np.arange(1, len(high) + 1))
        said += [(member, int(p) + 1, int(low[p]), int(high[p])) for p in np.flatnonzero(binds)]
    return said


def exposure_program(
    value: Floats,
    discount: Floats,
    labels: Mapping[LabelKind, NDArray[np.object_]],
    guarantees: tuple[ImpressionGuarantee, ...],
) -> float:
    """Return the greatest expected utility of a doubly stochastic matrix under the bounds."""
    n = len(value)
    doubly = csr_array(np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))]))
    rows, most = [], []
    for member, q, low, high in _bounds(labels, guarantees, n):
        row = csr_array(np.outer(member, np.arange(n) < q).reshape(1, n * n).astype(float))
        rows += [row, -row]
        most += [high, -low]
    upper = vstack(rows) if rows else None
    found = linprog(
        -np.outer(value, discount).ravel(), upper, most or None, doubly, np.ones(2 * n), (0, None), method="highs"
    )
    if found.status != 0:
        raise RuntimeError(f"HiGHS: {found.message}")
    return -float(found.fun)


def _cpu(call: Callable[[], object], n: int) -> float:
    """Return the CPU microseconds of one call, the least of five rounds of n."""
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(n):
            call()
        rounds.append((time.process_time() - started) / n)
    return 1e6 * min(rounds)


@numba.njit
def _many_pages(k, value, member, minima, maxima, window, rate, slack, catch_up, price, had, total, end, horizon):  # type: ignore[no-untyped-def]  # numba infers
    for _ in range(k):
        low, high = minima.copy(), maxima.copy()
        arrange_page(value, member, low, high, window, rate, slack, catch_up, price, had, total, end, horizon)


def _compiled(value: Floats, bounds: PageBounds) -> float:
    """Return the CPU microseconds of the compiled part of one page, called from compiled code."""
    plan, page = bounds.plan, bounds.bound(value).pages[0]
    terms = (plan.minima, plan.maxima, plan.window, plan.rate, plan.slack, plan.catch_up, plan.price)
    had = np.zeros(len(plan.guarantees))
    return (
        _cpu(
            lambda: _many_pages(N_PAGES, page.value, page.member, *terms, had, 0.0, plan.end, plan.horizon),
            1,
        )
        / N_PAGES
    )


def time_pages() -> None:
    """Print what a page costs, by form, beside the linear program."""
    rng = np.random.default_rng(0)
    value, labels = rng.beta(2, 8, N), _labels(rng, N)
    discount = 1.0 / np.log2(np.arange(N) + 2.0)
    rows = []
    for form, guarantees in FORMS.items():
        bounds = PageBounds(N, labels, guarantees, {}, 0.0)
        compiled = _compiled(value, bounds)
        whole = _cpu(lambda guarantees=guarantees: arrange(value, labels, guarantees), N_PAGES)  # type: ignore[misc]  # a default binds it
        started = time.process_time()
        for _ in range(N_PROGRAMS):
            exposure_program(value, discount, labels, guarantees)
        program = 1e6 * (time.process_time() - started) / N_PROGRAMS
        rows.append(
            {
                "guarantees": form,
                "compiled us": compiled,
                "arrange us": whole,
                "linear program us": program,
                "/ compiled": program / compiled,
                "/ arrange": program / whole,
            }
        )
    print_table(f"one page of {N} cohorts, {len(TYPES)} types, top {WITHIN_TOP}; CPU time", rows)


def gap_to_optimum(n_pages: int = 40, n: int = 20) -> None:
    """Print the largest relative gap to the linear program's optimum, which is no less than any page's."""
    rng = np.random.default_rng(1)
    rows = []
    for form, guarantees in FORMS.items():
        worst, violated = 0.0, 0
        for _ in range(n_pages):
            value, labels = rng.beta(2, 8, n), _labels(rng, n)
            discount = rng.uniform(0.5, 1.0) ** np.arange(n)
            page = arrange(value, labels, guarantees, discount=discount)
            best = exposure_program(value, discount, labels, guarantees)
            worst = max(worst, 1.0 - float(value[page.order] @ discount) / best)
            for member, q, low, high in _bounds(labels, guarantees, n):
                violated += not low <= int(member[page.order[:q]].sum()) <= high
        rows.append({"guarantees": form, "pages": n_pages, "largest gap": f"{worst:.0e}", "bounds broken": violated})
    print_table(f"gap to the linear program on pages of {n}, discounts drawn", rows)


if __name__ == "__main__":
    time_pages()
    gap_to_optimum()
