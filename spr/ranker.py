"""The ranker: the whole path of a request, from raw scores to a page, on one screen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spr import tables
from spr.assembly import assemble
from spr.batch import CohortBatch
from spr.errors import InvalidRequest, UnknownRankerVersion, name_unknown
from spr.glmix.kernels import entity_margins
from spr.page import CohortValues, Page, pages_table
from spr.reorder import arrange, is_random, shuffle_propensity, shuffled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from calibration import CalibratorSet
    from spr.config import Config
    from spr.features import CohortFeatures
    from spr.glmix.coefficients import Coefficients
    from spr.history import Choice
    from spr.reorder import ImportanceFactors, ImpressionGuarantee, LabelKind
    from spr.tables import Table
    from spr.trees import CohortTrees
    from spr.types import RankingRequest

POLICY = "spr"


class CoefficientSource(Protocol):
    """Where :meth:`SecondPassRanker.resolve` gets one effect's coefficients from: a bundle's part, or a store."""

    def lookup(self, key: str) -> NDArray[np.float32] | None:
        """Return float32[d] of a key, or None where it has none."""


@dataclass(frozen=True)
class SecondPassRanker:
    """Ranks the cohorts of a page; made by :func:`spr.fit` or :func:`spr.load`.

    ``rank`` is pure: same bundle and same resolved request, same page. It holds no state and does no I/O.

    Parameters
    ----------
    config : Config
        What the parts were fitted with, and what the page keeps: guarantees, exploration, fallbacks.
    calibrators : CalibratorSet
        Raw score -> expected response, per (entity type, ranker version).
    features : CohortFeatures
        Cohort and expected responses -> matrix.
    trees : CohortTrees
        Matrix -> ``margin_fixed``, with the position margin apart.
    effects : tuple of Coefficients
        Matrix and keys -> ``margin_<effect>``.
    unseen_correction : (float, float)
        Intercept and slope on ``margin_fixed`` for viewers without a random effect.
    factors : ImportanceFactors
        Per edge type.
    history : tuple of Choice
        What training chose, and the losses that decided.
    """

    config: Config
    calibrators: CalibratorSet
    features: CohortFeatures
    trees: CohortTrees
    effects: tuple[Coefficients, ...]
    unseen_correction: tuple[float, float]
    factors: ImportanceFactors
    history: tuple[Choice, ...] = ()

    def rank(self, request: RankingRequest) -> Page:
        """Rank one request.

        Parameters
        ----------
        request : RankingRequest
            As the service sent it, or as :meth:`resolve` returned it.

        Returns
        -------
        Page
            Every cohort with a scorable entity once. Guarantees are kept as far as supply allows
            (``page.shortfall``); a random page is shuffled and keeps none.

        Raises
        ------
        InvalidRequest, UnknownEntityType, UnknownRankerVersion
            When the request cannot be read, and the configuration states no fallback.
        """
        batch = CohortBatch.of_request(request, self.config.entity_types)
        values = self.evaluate(batch, coefficients=request.coefficients)
        return self.place(values, 0, request.delivered, request.delivered_total)

    def evaluate(
        self,
        batch: CohortBatch,
        *,
        position: NDArray[np.int64] | int = 0,
        coefficients: Mapping[str, NDArray[np.float32] | None] | None = None,
    ) -> CohortValues:
        """Value every cohort of a batch, stage by stage.

        Parameters
        ----------
        batch : CohortBatch
            C cohorts.
        position : int64[C] or int, default 0
            0, the reference, to rank; the logged position to compare probabilities with logged labels.
        coefficients : mapping of str to float32[d] or None, optional
            Of a resolved request; effects that are not named are looked up in the bundle.

        Returns
        -------
        CohortValues
            Each stage's answer, kept apart.
        """
        expected_response, fallbacks = self.calibrate(batch)
        matrix = self.features.build(batch, expected_response, position)
        margins = {"fixed": self.trees.margin(matrix)}
        margins |= self._personalise(batch, matrix, margins["fixed"], coefficients or {})
        margin = sum(margins.values(), np.zeros(batch.n_cohorts))
        probability = 0.5 * (1.0 + np.tanh(0.5 * margin))
        edge_type = self.features.edge_type_of(batch)
        importance = self.factors.at(edge_type)
        value = probability * importance
        return CohortValues(
            batch, expected_response, margins, margin, probability, importance, value, edge_type, fallbacks
        )

    def calibrate(self, batch: CohortBatch) -> tuple[NDArray[np.float64], tuple[tuple[int, str], ...]]:
        """Return the expected response of each entity, and what the configuration's fallback stood in for.

        Parameters
        ----------
        batch : CohortBatch
            E entities.

        Returns
        -------
        expected_response : float64[E]
            NaN = not scorable.
        fallbacks : tuple of (request index, sentence)
            One per request and ranker version without a calibrator.

        Raises
        ------
        UnknownRankerVersion
            When a version has no calibrator and the configuration states no fallback.
        """
        unknown = [i for i, ranker in enumerate(batch.rankers) if ranker not in self.calibrators]
        if not unknown:
            return self.calibrators.predict(batch.raw_score, batch.ranker, batch.rankers), ()
        request = batch.request_of_cohort()[batch.cohort_of_entity()]
        expected_response = np.full(len(batch.raw_score), np.nan)
        fallbacks: list[tuple[int, str]] = []
        for i in unknown:
            entity_type, version = batch.rankers[i]
            rows = batch.ranker == i
            if self.config.calibration.unknown_version == "error":
                where = f"request {batch.request_id[request[rows][0]]!r}, entity type {entity_type!r}"
                known = self.calibrators.known(entity_type)
                raise UnknownRankerVersion(name_unknown("ranker version", version, known, where))
            prior = self.calibrators.prior(entity_type)
            expected_response[rows] = np.where(np.isnan(batch.raw_score[rows]), np.nan, prior)
            note = f"{entity_type} {version}: no calibrator, prior of the type"
            fallbacks += [(int(r), note) for r in np.unique(request[rows])]
        known_rows = ~np.isin(batch.ranker, unknown)
        expected_response[known_rows] = self.calibrators.predict(
            batch.raw_score[known_rows], batch.ranker[known_rows], batch.rankers
        )
        return expected_response, tuple(fallbacks)

    def margin_unseen(self, fixed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the margin of viewers without a random effect: intercept + slope x ``margin_fixed``."""
        intercept, slope = self.unseen_correction
        return intercept + slope * fixed

    def place(self, values: CohortValues, request: int, delivered: Mapping[str, int], delivered_total: int) -> Page:
        """Put the cohorts of one request of a valued batch on a page.

        Parameters
        ----------
        values : CohortValues
            Of :meth:`evaluate`.
        request : int
            Index of the request in the batch.
        delivered, delivered_total
            As in :class:`spr.RankingRequest`.
        """
        batch = values.batch
        request_id = batch.request_id[request]
        cohorts = np.arange(batch.cohort_offset[request], batch.cohort_offset[request + 1])
        scorable = batch.scorable()[cohorts]
        placed = cohorts[scorable]
        omitted = {str(batch.cohort_id[c]): "no scorable entity" for c in cohorts[~scorable]}
        fallbacks = tuple(note for r, note in values.fallbacks if r == request)
        exploration = self.config.exploration
        if is_random(request_id, exploration.random_share, exploration.salt):
            order = placed[shuffled(len(placed), request_id, exploration.salt)]
            return Page(
                values, request, "random", order, ("random",) * len(order),
                shuffle_propensity(len(order)), "exact", {}, omitted, fallbacks, self.versions,
            )  # fmt: skip
        labels: dict[LabelKind, NDArray[np.object_]] = {
            "edge_type": values.edge_type[placed],
            "entity_type": batch.entity_type[placed],
            "cohort_kind": batch.cohort_kind[placed],
        }
        self._check_delivered(request_id, delivered)
        kept = arrange(
            values.value[placed],
            labels,
            self.guarantees,
            delivered=delivered,
            delivered_total=delivered_total,
        )
        by_cohort = kept.reason
        reason = tuple(by_cohort[c] for c in kept.order)
        return Page(
            values, request, POLICY, placed[kept.order], reason,
            None, "none", kept.shortfall, omitted, fallbacks, self.versions,
        )  # fmt: skip

    def rank_table(self, requests: Table, viewers: Table, entities: Table | None = None) -> pd.DataFrame:
        """Rank many requests offline.

        Parameters
        ----------
        requests : DataFrame or path
            Impressions without policy, position and labels; optional ``delivered_<guarantee>``, ``delivered_total``.
        viewers, entities : DataFrame or path
            As in :func:`spr.fit`.

        Returns
        -------
        DataFrame
            The ``pages`` table, one row per placement; see :func:`spr.page.pages_table`.

        Raises
        ------
        TableError
            When a table breaks its contract.
        """
        return pages_table(self.rank_pages(requests, viewers, entities))

    def rank_pages(self, requests: Table, viewers: Table, entities: Table | None = None) -> Iterator[Page]:
        """Rank many requests offline, page by page; see :meth:`rank_table`."""
        rows = tables.read_requests(requests, self.config)
        batch = self.assemble(rows, viewers, entities)
        values = self.evaluate(batch)
        first = batch.entity_offset[batch.cohort_offset[:-1]]
        counters = {
            str(c).removeprefix("delivered_"): rows[c].to_numpy()[first]
            for c in rows.columns
            if str(c).startswith("delivered_")
        }
        for r in range(batch.n_requests):
            delivered = {name: int(column[r]) for name, column in counters.items()}
            yield self.place(values, r, delivered, delivered.pop("total", 0))

    def assemble(self, rows: pd.DataFrame, viewers: Table, entities: Table | None) -> CohortBatch:
        """Join page rows (already read) with viewers and entities into a batch."""
        return assemble(
            rows, tables.read_viewers(viewers), None if entities is None else tables.read_entities(entities)
        )

    def resolve(self, request: RankingRequest, stores: Mapping[str, CoefficientSource] | None = None) -> RankingRequest:
        """Do the I/O of a request before :meth:`rank`, so that the resolved request replays to the same page.

        Parameters
        ----------
        request : RankingRequest
            As the service sent it.
        stores : mapping of str to CoefficientSource, optional
            By effect; an effect without a store is looked up in the bundle.

        Returns
        -------
        RankingRequest
            With the coefficients of each effect keyed by viewer: float32[d], or None for a key that has none.
        """
        found: dict[str, NDArray[np.float32] | None] = dict(request.coefficients)
        for effect in self.effects:
            if effect.key == "viewer_id" and effect.name not in found:
                source: CoefficientSource = (stores or {}).get(effect.name, effect)
                found[effect.name] = source.lookup(request.viewer.viewer_id)
        return dataclasses.replace(request, coefficients=found)

    def with_calibrators(self, calibrators: CalibratorSet) -> SecondPassRanker:
        """Return a ranker with other calibrators; everything else is the same object."""
        return dataclasses.replace(self, calibrators=calibrators)

    def with_factors(self, factors: ImportanceFactors) -> SecondPassRanker:
        """Return a ranker with other importance factors; everything else is the same object."""
        return dataclasses.replace(self, factors=factors)

    def with_coefficients(self, *effects: Coefficients) -> SecondPassRanker:
        """Return a ranker in which each given effect replaces the one of its name.

        Raises
        ------
        LookupError
            When the ranker has no effect of that name.
        """
        own = {effect.name: effect for effect in self.effects}
        for effect in effects:
            if effect.name not in own:
                raise LookupError(name_unknown("random effect", effect.name, own))
            own[effect.name] = effect
        return dataclasses.replace(self, effects=tuple(own.values()))

    def save(self, path: str | Path) -> None:
        """Write the bundle: a directory of versioned parts and a manifest; see :mod:`spr.bundle`."""
        from spr.bundle import save

        save(self, path)

    @cached_property
    def guarantees(self) -> tuple[ImpressionGuarantee, ...]:
        """The impression guarantees of the configuration."""
        return tuple(guarantee.to_guarantee() for guarantee in self.config.guarantees)

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Of the bundle as a whole and of each part: the first hex digits of a hash of the content."""
        parts = {
            "config": self.config.hash,
            "calibrators": self.calibrators.version,
            "features": self.features.version,
            "trees": self.trees.version,
            "factors": self.factors.version,
            **{f"coefficients_{effect.name}": effect.version for effect in self.effects},
        }
        content = json.dumps([parts, self.unseen_correction], sort_keys=True)
        return {"bundle": hashlib.sha256(content.encode()).hexdigest()[:12]} | parts

    def _personalise(
        self,
        batch: CohortBatch,
        matrix: NDArray[np.float32],
        fixed: NDArray[np.float64],
        coefficients: Mapping[str, NDArray[np.float32] | None],
    ) -> dict[str, NDArray[np.float64]]:
        margins: dict[str, NDArray[np.float64]] = {}
        seen = np.zeros(batch.n_cohorts, dtype=bool)
        for effect, columns in zip(self.effects, self._effect_columns, strict=True):
            if effect.name in coefficients:
                one = coefficients[effect.name]
                found = np.full(batch.n_cohorts, -1 if one is None else 0)
                table = effect.matrix[:0] if one is None else one[None, :]
            else:
                found, table = effect.positions(self.features.keys(batch, effect.key)), effect.matrix
            margins[effect.name] = entity_margins(matrix[:, columns], table, found, effect.intercept)
            if effect.key == "viewer_id":
                seen |= found >= 0
        margins["unseen"] = np.where(seen, 0.0, self.margin_unseen(fixed) - fixed)
        return margins

    @cached_property
    def _effect_columns(self) -> tuple[list[int], ...]:
        column = {name: i for i, name in enumerate(self.features.columns)}
        return tuple([column[name] for name in effect.features] for effect in self.effects)

    def _check_delivered(self, request_id: str, delivered: Mapping[str, int]) -> None:
        names = [guarantee.name for guarantee in self.config.guarantees]
        for name in delivered:
            if name not in names:
                raise InvalidRequest(name_unknown("guarantee", name, names, f"delivered of request {request_id!r}"))
