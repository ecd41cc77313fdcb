"""Shares promised to viewers: what they cost over the sessions of 400 viewers, beside each viewer's hindsight optimum.

Made viewers see 40 pages each; every page holds equally many cohorts of three edge types, whose floors are 0.25, 0.50
and 0.10 of the viewer's impressions. A cohort's value is the sigmoid of a preference of its viewer for its edge type
(normal around one mean per type; its standard deviation between viewers is the world's) plus noise of its own
(standard deviation 0.8). Utility is the sum of value / log2(position + 2) over the positions that count.

The optimum knows all 40 pages of a viewer in advance and holds the floors on the final counts only, less the slack: a
linear program per viewer, solved by HiGHS. It has no promise to keep in between, so no policy reaches it. Prices are
learnt from 100 other viewers.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from measuring import print_table  # first: it sets the number of threads
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack

from spr.reorder import ImpressionGuarantee, LearntPrices, arrange, learn_prices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EDGE_TYPES = ("connection", "follow", "subscribe")
SHARES = np.array([0.25, 0.50, 0.10])
N_VIEWERS, N_OTHERS, N_SESSIONS, SEED = 400, 100, 40, 2026
SLACKS = (1.0, 2.0)


@dataclass(frozen=True)
class MadeWorld:
    """Viewers' pages of one kind.

    Parameters
    ----------
    each : int
        Cohorts of each edge type on a page.
    top : int
        Positions that count.
    between : float
        Standard deviation of preferences between viewers, in log-odds.
    """

    each: int
    top: int
    between: float

    @property
    def code(self) -> NDArray[np.int64]:
        """Edge type of each cohort of a page, as a number."""
        return np.repeat(np.arange(len(EDGE_TYPES)), self.each)

    @property
    def edge_type(self) -> NDArray[np.object_]:
        """Edge type of each cohort of a page."""
        return np.array(EDGE_TYPES, dtype=object)[self.code]

    @property
    def discount(self) -> Floats:
        """What each position that counts is worth."""
        return np.asarray(1.0 / np.log2(np.arange(self.top) + 2.0))

    def draw(self, n_viewers: int, seed: int) -> Floats:
        """Return values [viewers, sessions, cohorts]."""
        rng = np.random.default_rng(seed)
        preference = np.array([0.3, -0.5, 0.2]) + self.between * rng.normal(size=(n_viewers, len(EDGE_TYPES)))
        noise = 0.8 * rng.normal(size=(n_viewers, N_SESSIONS, len(self.code)))
        return np.asarray(1.0 / (1.0 + np.exp(2.0 - preference[:, None, self.code] - noise)))

    def floors(self, slack: float) -> tuple[ImpressionGuarantee, ...]:
        """Return the floors, without prices."""
        return tuple(
            ImpressionGuarantee(label, "edge_type", label, share=float(share), within_top=self.top, slack=slack)
            for label, share in zip(EDGE_TYPES, SHARES, strict=True)
        )

    def prices(self) -> LearntPrices:
        """Learn prices from other viewers."""
        value = self.draw(N_OTHERS, SEED + 1)
        pages = N_OTHERS * N_SESSIONS
        page = np.repeat(np.arange(pages), len(self.code))
        return learn_prices(value.ravel(), page, {"edge_type": np.tile(self.edge_type, pages)}, self.floors(1.0))


@dataclass(frozen=True)
class Served:
    """What viewers were served: utility, and the deficits of their floors in impressions, both by viewer.

    Parameters
    ----------
    utility : float64[V]
    worst : float64[V]
        Largest ``share * D - D_t`` of any floor after any impression.
    last : float64[V]
        The same after the last impression only.
    """

    utility: Floats
    worst: Floats
    last: Floats


def serve(world: MadeWorld, value: Floats, guarantees: Sequence[ImpressionGuarantee]) -> Served:
    """Serve every viewer's pages in turn, as a service would: through `arrange`, with counters."""
    utility, worst, last = np.zeros(len(value)), np.zeros(len(value)), np.zeros(len(value))
    labels, code = {"edge_type": world.edge_type}, world.code
    impressions = np.arange(1, world.top + 1)
    for viewer, pages in enumerate(value):
        had, total = np.zeros(len(EDGE_TYPES)), 0
        for page_value in pages:
            counters = dict(zip(EDGE_TYPES, had.tolist(), strict=True))
            page = arrange(page_value, labels, guarantees, delivered=counters, delivered_total=total)
            shown = page.order[: world.top]
            utility[viewer] += page_value[shown] @ world.discount
            counts = had + (code[shown][:, None] == np.arange(len(EDGE_TYPES))).cumsum(axis=0)
            deficit = SHARES * (total + impressions)[:, None] - counts
            worst[viewer] = max(worst[viewer], deficit.max())
            had, total = counts[-1], total + world.top
        last[viewer] = deficit[-1].max()
    return Served(utility, worst, last)


def hindsight(world: MadeWorld, pages: Floats, slack: float) -> float:
    """Return the greatest utility of one viewer's pages [sessions, cohorts] with the floors on the final counts."""
    n_sessions, n = pages.shape
    best_first = -np.sort(-pages.reshape(n_sessions, -1, world.each), axis=2).reshape(n_sessions, n)
    session, cohort, position = np.indices((n_sessions, n, world.top)).reshape(3, -1)
    may = position >= cohort % world.each  # the better ones of its type stand above a cohort in some optimum
    session, cohort, position = session[may], cohort[may], position[may]
    place, one = np.arange(len(session)), np.ones(len(session))
    once = csr_array((one, (session * n + cohort, place)))
    filled = csr_array((one, (session * world.top + position, place)))
    counted = csr_array((-one, (world.code[cohort], place)))
    due = np.ceil(SHARES * n_sessions * world.top - slack - 1e-9)
    solved = linprog(
        -(best_first[session, cohort] * world.discount[position]),
        A_ub=vstack([once, counted]),
        b_ub=np.concatenate([np.ones(n_sessions * n), -due]),
        A_eq=filled,
        b_eq=np.ones(n_sessions * world.top),
        method="highs",
    )
    if not solved.success:
        raise RuntimeError(f"the program of one viewer was not solved: {solved.message}")
    return float(-solved.fun)


def compare(world: MadeWorld, n_viewers: int) -> None:
    """Print what each form of the floors keeps of the optimum, and whether it keeps the promise."""
    value, learnt = world.draw(n_viewers, SEED), world.prices()
    by_population = learnt.on(replace(floor, scope="population") for floor in world.floors(1.0))
    averaged = serve(world, value, by_population)
    rows: list[dict[str, object]] = []
    for slack in SLACKS:
        started = time.process_time()
        best = np.array([hindsight(world, pages, slack) for pages in value])
        seconds = time.process_time() - started
        forms = {
            "prefix rule alone": serve(world, value, world.floors(slack)),
            "with prices": serve(world, value, learnt.on(world.floors(slack))),
            "per population": averaged,
        }
        for form, served in forms.items():
            of_best = served.utility / best
            rows.append(
                {
                    "B": slack,
                    "floors": form,
                    "% of the optimum": 100 * float(served.utility.sum() / best.sum()),
                    "worst viewer %": 100 * float(of_best.min()),
                    "worst deficit": float(served.worst.max()),
                    "% of viewers short at the end": 100 * float((served.last > slack + 1e-9).mean()),
                    "furthest short, % of impressions": 100
                    * max(0.0, float(served.last.max()))
                    / (N_SESSIONS * world.top),
                    "linear programs, s": seconds,
                }
            )
    prices = ", ".join(f"{label} {price:.3f}" for label, price in learnt.price.items())
    print_table(
        f"{n_viewers} viewers x {N_SESSIONS} pages, {world.each} cohorts of each of 3 types, top {world.top}; "
        f"preferences between viewers: sd {world.between}; values: sd {value.std():.3f}; prices: {prices}",
        rows,
    )


if __name__ == "__main__":
    viewers = int(sys.argv[1]) if len(sys.argv) > 1 else N_VIEWERS
    for made in (MadeWorld(6, 6, 0.2), MadeWorld(6, 6, 0.7), MadeWorld(10, 10, 0.7)):
        compare(made, viewers)
