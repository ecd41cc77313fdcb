"""Logs of small pages with every order once, so that means over them are expectations over the shuffle."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spr.evaluation.off_policy import LoggedPages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Reward = Callable[[int, tuple[int, ...]], NDArray[np.float64]]


@pytest.fixture(scope="session")
def enumerate_orders() -> Callable[..., tuple[LoggedPages, float]]:
    def enumerate_all(
        reward: Reward, new_orders: Sequence[tuple[int, ...]], **columns: NDArray[np.generic]
    ) -> tuple[LoggedPages, float]:
        """Return every order of each page, and the value of the new orders.

        ``reward(page, order)`` gives the expected reward of each cohort of a page in an order (cohorts, top first);
        ``columns`` hold, by page, values of the cohorts. A page of n cohorts counts as often as it has orders, so all
        pages are repeated to the same number.
        """
        factorials = [len(list(permutations(order))) for order in new_orders]
        most = max(factorials)
        rows: dict[str, list[object]] = {name: [] for name in ("page", "position", "new", "label", *columns)}
        number, truth = 0, 0.0
        for page, new_order in enumerate(new_orders):
            new_position = np.argsort(new_order)
            truth += float(reward(page, new_order).sum()) / len(new_orders)
            for order in list(permutations(range(len(new_order)))) * (most // factorials[page]):
                rows["page"] += [number] * len(order)
                rows["position"] += np.argsort(order).tolist()
                rows["new"] += new_position.tolist()
                rows["label"] += reward(page, order).tolist()
                for name, values in columns.items():
                    rows[name] += list(values[page])
                number += 1
        more = {name: rows[name] for name in columns}
        return LoggedPages.of(rows["page"], rows["position"], rows["new"], rows["label"], **more), truth

    return enumerate_all
