"""Logged pages as arrays: who saw which cohort where, what came of it, and where a new policy would have put it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import pandas as pd

from spr.errors import InvalidModelInput
from spr.glmix.holdout import salted_hashes, unit_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_FOLD_SALT: Final = 6
_SAME: Final = 1e-6  # relative: propensities that are logged as float32 are still those of a shuffle


@dataclass(frozen=True, eq=False)
class LoggedPages:
    """Pages whose order was drawn at random, and the order of a new policy; made by :meth:`of`.

    Rows are cohorts, page after page, top first: P pages, C cohorts.

    Parameters
    ----------
    offset : int64[P + 1]
        The cohorts of page p are ``offset[p] : offset[p + 1]``.
    viewer : int64[P]
        Number of each page's viewer, 0, 1, 2, ...
    lottery : float64[P]
        A hash of the viewer in [0, 1): deals viewers out to folds.
    group : int64[C]
        Number of each cohort's kind (its entity type), 0, 1, 2, ...
    features : float64[C, F]
        What is known of each cohort before it is shown; NaN = not known.
    label : float64[C]
        Downstream interactions, >= 0; 0 or 1 in the impressions table.
    importance : float64[C]
        Importance factor of the cohort's edge type, >= 0.
    new_position : int64[C]
        Where the new policy puts the cohort, 0 = top.
    propensity : float64[C]
        P(this cohort at its logged position) under the policy that logged it, in (0, 1].
    row : int64[C]
        The number that each row had where it was given: ``values[pages.row]`` brings values into this order.
    """

    offset: Integers
    viewer: Integers
    lottery: Floats
    group: Integers
    features: Floats
    label: Floats
    importance: Floats
    new_position: Integers
    propensity: Floats
    row: Integers

    @classmethod
    def of(
        cls,
        page: ArrayLike,
        position: ArrayLike,
        new_position: ArrayLike,
        label: ArrayLike,
        *,
        viewer: ArrayLike | None = None,
        group: ArrayLike | None = None,
        features: ArrayLike | None = None,
        importance: ArrayLike | None = None,
        propensity: ArrayLike | None = None,
    ) -> Self:
        """Check and sort rows of any order, one per cohort on a page.

        Parameters
        ----------
        page : any[C]
            Whose page it is on: an id or a number.
        position, new_position : int[C]
            Each page has 0, 1, ..., n - 1 once, in either.
        label : float[C]
            Downstream interactions, finite, >= 0. Leave out pages that are not mature.
        viewer : any[C], optional
            One per page; pages of a viewer are not independent. Default: each page has a viewer of its own.
        group : any[C], optional
            The cohort's kind, e.g. its entity type, for what cohorts of one kind do to each other. Default: one kind.
        features : float[C, F], optional
            From before the page was shown, e.g. raw scores, the new policy's value; NaN = not known.
        importance : float[C], optional
            Finite, >= 0; default 1.
        propensity : float[C], optional
            In (0, 1]; default 1 / n, a full shuffle.

        Returns
        -------
        LoggedPages

        Raises
        ------
        InvalidModelInput
            No rows, unequal lengths, a page without one cohort at each position, a page of two viewers, or a number
            out of its range.

        Examples
        --------
        >>> pages = LoggedPages.of(["a", "a", "b", "b"], [1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1])
        >>> pages.new_position
        array([1, 0, 0, 1])
        >>> pages.n_pages, pages.uniform
        (2, True)
        """
        code, _ = pd.factorize(np.asarray(page))
        n = len(code)
        if n == 0:
            raise InvalidModelInput("logged pages: there are no rows; at least one page is needed")
        if (code < 0).any():
            raise InvalidModelInput(f"logged pages: page is null in {(code < 0).sum()} of {n} rows")
        at, new_at = (
            _whole(name, values, n) for name, values in (("position", position), ("new_position", new_position))
        )
        order = np.lexsort((at, code))
        size = np.bincount(code)
        offset = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        within = np.arange(n) - np.repeat(offset[:-1], size)
        _check_places("position", at[order], within, size)
        _check_places("new_position", new_at[np.lexsort((new_at, code))], within, size)
        ids = code if viewer is None else np.asarray(viewer)
        viewers, _ = pd.factorize(_one_each("viewer", ids, n))
        if (viewers < 0).any():
            raise InvalidModelInput(f"logged pages: viewer is null in {(viewers < 0).sum()} of {n} rows")
        first = order[offset[:-1]]
        if (viewers[order] != np.repeat(viewers[first], size)).any():
            raise InvalidModelInput("logged pages: a page has rows of two viewers; a page belongs to one viewer")
        groups, _ = pd.factorize(np.zeros(n) if group is None else _one_each("group", np.asarray(group), n))
        if (groups < 0).any():
            raise InvalidModelInput(f"logged pages: group is null in {(groups < 0).sum()} of {n} rows")
        known = np.empty((n, 0)) if features is None else np.asarray(features, dtype=np.float64)
        if known.ndim != 2 or len(known) != n or np.isinf(known).any():
            raise InvalidModelInput(
                f"logged pages: features have shape {known.shape} for {n} rows; allowed: (rows, features), not infinite"
            )
        shuffle = 1.0 / np.repeat(size, size)[np.argsort(order, kind="stable")]
        return cls(
            offset=offset,
            viewer=pd.factorize(viewers[first])[0].astype(np.int64),
            lottery=unit_interval(salted_hashes(np.asarray(ids)[first], _FOLD_SALT)),
            group=groups[order].astype(np.int64),
            features=known[order],
            label=_numbers("label", label, n, 0.0, np.inf)[order],
            importance=_numbers("importance", np.ones(n) if importance is None else importance, n, 0.0, np.inf)[order],
            new_position=new_at[order],
            propensity=_numbers(
                "propensity", shuffle if propensity is None else propensity, n, np.finfo(float).tiny, 1.0
            )[order],
            row=order.astype(np.int64),
        )

    @property
    def n_pages(self) -> int:
        """P."""
        return len(self.viewer)

    @cached_property
    def length(self) -> Integers:
        """Cohorts of each page, int64[P]."""
        return np.diff(self.offset)

    @cached_property
    def page(self) -> Integers:
        """Number of each cohort's page, int64[C]."""
        return np.repeat(np.arange(self.n_pages), self.length)

    @cached_property
    def position(self) -> Integers:
        """Logged position of each cohort, int64[C]."""
        return np.arange(len(self.label)) - self.offset[self.page]

    @cached_property
    def new_order(self) -> Integers:
        """The rows of each page as the new policy puts them, top first, int64[C]."""
        order = np.empty(len(self.label), dtype=np.int64)
        order[self.offset[self.page] + self.new_position] = np.arange(len(self.label))
        return order

    @cached_property
    def reward(self) -> Floats:
        """Label times importance, float64[C]."""
        return self.label * self.importance

    @cached_property
    def uniform(self) -> bool:
        """Whether every page was shuffled completely: all propensities are 1 / n."""
        return bool(np.all(np.abs(self.propensity * self.length[self.page] - 1.0) <= _SAME))

    def folds(self, n_folds: int) -> Integers:
        """Deal viewers out to folds by a hash of their id: int64[P]."""
        return (self.lottery * n_folds).astype(np.int64)

    def sum_by_page(self, values: Floats) -> Floats:
        """Sum values of cohorts, float64[C], over each page: float64[P]."""
        return np.add.reduceat(values, self.offset[:-1])

    def counting_interactions(self) -> LoggedPages:
        """Return the same pages with every importance 1."""
        return replace(self, importance=np.ones_like(self.importance))

    def ordered_by(self, value: ArrayLike) -> LoggedPages:
        """Return the same pages in another new order.

        Parameters
        ----------
        value : float[C]
            Of the rows of the pages, in their order; highest on top, NaN last, ties as logged.

        Raises
        ------
        InvalidModelInput
            Another number of values.

        Examples
        --------
        >>> pages = LoggedPages.of(["a", "a"], [0, 1], [0, 1], [1, 0])
        >>> pages.ordered_by([0.2, 0.7]).new_position
        array([1, 0])
        """
        values = np.asarray(value, dtype=np.float64)
        if values.shape != self.label.shape:
            raise InvalidModelInput(f"value has shape {values.shape} for {len(self.label)} cohorts; allowed: one each")
        position = np.empty(len(values), dtype=np.int64)
        position[np.lexsort((-values, self.page))] = self.position
        return replace(self, new_position=position)


def _one_each(name: str, values: NDArray[np.generic], n: int) -> NDArray[np.generic]:
    if values.shape != (n,):
        raise InvalidModelInput(f"logged pages: {name} has shape {values.shape} for {n} rows; allowed: one per row")
    return values


def _numbers(name: str, values: ArrayLike, n: int, low: float, high: float) -> Floats:
    numbers = np.asarray(_one_each(name, np.asarray(values, dtype=np.float64), n), dtype=np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers >= low) & (numbers <= high))
    if wrong.any():
        first = int(np.argmax(wrong))
        allowed = "above 0, at most 1" if high == 1.0 else "finite numbers >= 0"
        raise InvalidModelInput(
            f"logged pages: {name} is {numbers[first]} in row {first}, and wrong in {int(wrong.sum())} of {n} rows; "
            f"allowed: {allowed}"
        )
    return numbers


def _whole(name: str, values: ArrayLike, n: int) -> Integers:
    numbers = _numbers(name, values, n, 0.0, np.inf)
    if (numbers != np.round(numbers)).any():
        raise InvalidModelInput(f"logged pages: {name} is not a whole number in some rows")
    return numbers.astype(np.int64)


def _check_places(name: str, found: Integers, wanted: Integers, size: Integers) -> None:
    wrong = found != wanted
    if wrong.any():
        pages = np.unique(np.repeat(np.arange(len(size)), size)[wrong])
        raise InvalidModelInput(
            f"logged pages: {name} is not 0, 1, ..., n - 1 on {len(pages)} of {len(size)} pages; first: page number "
            f"{pages[0]} of {size[pages[0]]} cohorts. Rows are missing or twice there"
        )
