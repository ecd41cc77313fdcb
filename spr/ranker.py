"""The ranker: the whole path of a request, from raw scores to a page, on one screen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from spr import tables
from spr.assembly import assemble
from spr.batch import CohortBatch, to_utc
from spr.errors import ConfigError, InvalidModelInput, name_unknown
from spr.expected import expected_responses
from spr.page import CohortValues, Page, pages_table
from spr.page_settings import outdated_shares
from spr.personalisation import personal_margins, personal_spread
from spr.placement import PageRules, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from calibration import CalibratorSet
    from spr.config import Config
    from spr.features import CohortFeatures
    from spr.glmix import Coefficients
    from spr.history import Choice
    from spr.ledger import DeliveryLedger
    from spr.personalisation import GivenCoefficients
    from spr.reorder import ImportanceFactors, ImpressionGuarantee
    from spr.tables import Table
    from spr.trees import CohortTrees
    from spr.types import RankingRequest


class CoefficientSource(Protocol):
    """Where :meth:`SecondPassRanker.resolve` gets one effect's coefficients from: a bundle's part, or a store."""

    def lookup(self, key: str) -> NDArray[np.float32] | None:
        """Return float32[d] of a key, or None where it has none."""


@dataclass(frozen=True, repr=False)
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
        Matrix -> ``margin_fixed``.
    effects : tuple of Coefficients
        Matrix and keys -> ``margin_<effect>``.
    unseen_correction : (float, float)
        Intercept and slope on ``margin_fixed`` for viewers without a random effect.
    factors : ImportanceFactors
        Per edge type.
    prices : mapping of str to float
        Of shares whose configuration names none, by guarantee, in units of the mean factor.
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
    prices: Mapping[str, float] = field(default_factory=dict)
    history: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        # Rules that cannot be kept are refused here, where a person looks, and not while a page is served.
        unsure = [effect.name for effect in self.effects if effect.key == "viewer_id" and effect.variance is None]
        if self._samples and unsure:
            raise ConfigError(
                f"exploration: thompson needs the variances of the viewers' coefficients, and random effect "
                f"{unsure[0]!r} has none; fit with this configuration"
            )

    def __repr__(self) -> str:
        effects = ", ".join(f"{effect.name}: {len(effect.keys):,} keys" for effect in self.effects) or "none"
        return (
            f"<SecondPassRanker {self.versions['bundle']}: {len(self.calibrators)} calibrators, "
            f"{self.trees.fitted.n_rounds} rounds of trees, random effects {effects}>"
        )

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
            When the request cannot be read, names an entity type outside the configuration, or names a ranker
            version that has no calibrator and the configuration states no fallback.
        """
        batch = CohortBatch.of_request(request, self.config.entity_types)
        values = self.value_cohorts(batch, given=request.coefficients)
        return self._place(values, 0, request.delivered, request.delivered_total, request.missing)

    def value_cohorts(
        self, batch: CohortBatch, *, position: NDArray[np.int64] | int = 0, given: GivenCoefficients | None = None
    ) -> CohortValues:
        """Value every cohort of a batch, stage by stage.

        Parameters
        ----------
        batch : CohortBatch
            C cohorts.
        position : int64[C] or int, default 0
            0, the reference, to rank; the logged position to compare probabilities with logged labels.
        given : mapping of str to float32[d] or None, optional
            Coefficients of a resolved request; effects that are not named are looked up in the bundle.

        Returns
        -------
        CohortValues
            Each stage's answer, kept apart.

        Raises
        ------
        InvalidRequest, UnknownRankerVersion
            When features or coefficients are not of the fitted kind, or a version has no calibrator.
        """
        expected_response, fallbacks = expected_responses(
            batch, self.calibrators, self.config.calibration.unknown_version
        )
        matrix = self.features.build(batch, expected_response, position)
        fixed = self.trees.margin(matrix)
        personal, seen = personal_margins(batch, matrix, self.features, self.effects, given or {})
        unseen = np.where(seen, 0.0, self.correct_unseen(fixed) - fixed)
        margins = {"fixed": fixed, **personal, "unseen": unseen}
        margin = sum(margins.values(), np.zeros(batch.n_cohorts))
        probability = 0.5 * (1.0 + np.tanh(0.5 * margin))
        spread = personal_spread(batch, matrix, self.features, self.effects) if self._samples else ()
        edge_type = self.features.edge_type_of(batch)
        importance = self.factors.at(edge_type)
        value = probability * importance
        return CohortValues(
            batch,
            expected_response,
            margins,
            margin,
            probability,
            importance,
            value,
            edge_type,
            batch.scorable(),
            seen,
            spread,
            fallbacks,
        )

    def correct_unseen(self, fixed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the margin of viewers without a random effect: intercept + slope x ``margin_fixed``."""
        intercept, slope = self.unseen_correction
        return intercept + slope * fixed

    def _place(
        self,
        values: CohortValues,
        request: int,
        delivered: Mapping[str, float],
        delivered_total: float,
        missing: Sequence[str] = (),
    ) -> Page:
        return place(
            values,
            request,
            rules=self.rules,
            delivered=delivered,
            delivered_total=delivered_total,
            missing=missing,
            versions=self.versions,
        )

    def rank_table(self, requests: Table, viewers: Table, entities: Table | None = None) -> pd.DataFrame:
        """Rank many requests offline.

        Parameters
        ----------
        requests : DataFrame or path
            Impressions without policy, position and labels; optional ``delivered_<guarantee>``,
            ``delivered_total``.
        viewers, entities : DataFrame or path
            As in :func:`spr.fit`.

        Returns
        -------
        DataFrame
            The ``pages`` table, one row per placement; see :func:`spr.page.pages_table`.

        Raises
        ------
        TableError, UnknownRankerVersion
            When a table breaks its contract, or names a version that has no calibrator and no fallback.
        """
        return pages_table(list(self.rank_pages(requests, viewers, entities)))

    def rank_pages(self, requests: Table, viewers: Table, entities: Table | None = None) -> Iterator[Page]:
        """Rank many requests offline, page by page; see :meth:`rank_table`."""
        rows = tables.read_requests(requests, self.config)
        batch = assemble(
            rows, tables.read_viewers(viewers), None if entities is None else tables.read_entities(entities)
        )
        yield from self.place_pages(self.value_cohorts(batch), rows)

    def place_pages(self, values: CohortValues, requests: pd.DataFrame) -> Iterator[Page]:
        """Put the cohorts of each request of a valued batch on its page.

        Parameters
        ----------
        values : CohortValues
            Of :meth:`value_cohorts`.
        requests : DataFrame
            The rows that the batch was assembled from, as :func:`spr.tables.read_requests` gave them; of these the
            counters are read.

        Yields
        ------
        Page
            In the order of the requests.
        """
        batch = values.batch
        first = batch.entity_offset[batch.cohort_offset[:-1]]
        counters = {
            str(column).removeprefix("delivered_"): requests[column].to_numpy()[first]
            for column in requests.columns
            if str(column).startswith("delivered_")
        }
        for r in range(batch.n_requests):
            delivered = {name: float(counter[r]) for name, counter in counters.items() if not np.isnan(counter[r])}
            delivered_total = delivered.pop("total", 0.0)
            yield self._place(values, r, delivered, delivered_total)

    def resolve(
        self,
        request: RankingRequest,
        stores: Mapping[str, CoefficientSource] | None = None,
        ledger: DeliveryLedger | None = None,
    ) -> RankingRequest:
        """Do the I/O of a request before :meth:`rank`, so that the resolved request replays to the same page.

        Parameters
        ----------
        request : RankingRequest
            As the service sent it.
        stores : mapping of str to CoefficientSource, optional
            By effect; an effect without a store is looked up in the bundle.
        ledger : DeliveryLedger, optional
            Where the viewer's counters are. Where it cannot be read the request keeps its own counters, and the page
            says so.

        Returns
        -------
        RankingRequest
            With the coefficients of each effect keyed by viewer: float32[d], or None for a key that has none; with the
            counters of the ledger.
        """
        found: dict[str, NDArray[np.float32] | None] = dict(request.coefficients)
        for effect in self.effects:
            if effect.key == "viewer_id" and effect.name not in found:
                source: CoefficientSource = (stores or {}).get(effect.name, effect)
                found[effect.name] = source.lookup(request.viewer.viewer_id)
        resolved = dataclasses.replace(request, coefficients=found)
        if ledger is None or not any(guarantee.share is not None for guarantee in self.guarantees):
            return resolved
        try:
            at = cast("datetime", to_utc(request.at).item()).replace(tzinfo=UTC)
            had = ledger.delivered(request.viewer.viewer_id, at)
        except Exception as error:  # whatever a ledger fails with, the page is served
            said = f"counters not read: {type(error).__name__}: {error}"
            return dataclasses.replace(resolved, missing=(*request.missing, said))
        counts = {g.name: had.toward(g.name, g.share) for g in self.guarantees if g.share is not None}
        return dataclasses.replace(resolved, delivered=counts, delivered_total=had.total)

    def with_calibrators(self, calibrators: CalibratorSet) -> SecondPassRanker:
        """Return a ranker with other calibrators; everything else is the same object.

        Parameters
        ----------
        calibrators : CalibratorSet
            E.g. of ``ranker.calibrators.refitted(impressions, entity_type=..., ranker_version=...)``.
        """
        return dataclasses.replace(self, calibrators=calibrators)

    def with_factors(self, factors: ImportanceFactors) -> SecondPassRanker:
        """Return a ranker with other importance factors; everything else is the same object.

        Parameters
        ----------
        factors : ImportanceFactors
            An edge type that it does not name has factor 1.

        Raises
        ------
        InfeasibleGuarantee
            When shares follow the factors, and no page could keep them under these.
        """
        return dataclasses.replace(self, factors=factors)

    def with_prices(self, prices: Mapping[str, float]) -> SecondPassRanker:
        """Return a ranker with other prices of its shares; everything else is the same object.

        Parameters
        ----------
        prices : mapping of str to float
            By guarantee, in units of the mean importance factor, as :func:`spr.fit` learns them. A share that is not
            named has no price.

        Raises
        ------
        InvalidModelInput
            When a name is of no share.
        """
        shares = [guarantee.name for guarantee in self.guarantees if guarantee.share is not None]
        for name in prices:
            if name not in shares:
                raise InvalidModelInput(name_unknown("share", name, shares))
        return dataclasses.replace(self, prices=dict(prices))

    def with_coefficients(self, *effects: Coefficients) -> SecondPassRanker:
        """Return a ranker in which each given effect replaces the one of its name.

        Parameters
        ----------
        *effects : Coefficients
            Over columns of the ranker's matrix.

        Raises
        ------
        InvalidModelInput
            When the ranker has no effect of that name, or not the columns that it reads.
        """
        own = {effect.name: effect for effect in self.effects}
        for effect in effects:
            if effect.name not in own:
                raise InvalidModelInput(name_unknown("random effect", effect.name, own))
            for column in effect.features:
                if column not in self.features.columns:
                    where = f"coefficients of {effect.name!r}"
                    raise InvalidModelInput(name_unknown("column", column, self.features.columns, where))
            own[effect.name] = effect
        return dataclasses.replace(self, effects=tuple(own.values()))

    def save(self, path: str | Path) -> None:
        """Write the bundle: a directory of versioned parts and a manifest; see :mod:`spr.bundle`."""
        from spr.bundle import save

        save(self, path)

    @property
    def guarantees(self) -> tuple[ImpressionGuarantee, ...]:
        """The impression guarantees of the configuration, under the ranker's factors."""
        return self.rules.guarantees

    @cached_property
    def rules(self) -> PageRules:
        """What its pages keep."""
        exploration = self.config.exploration
        return PageRules(
            guarantees=self.config.impression_guarantees(self.factors, self.prices),
            random_share=exploration.random_share,
            salt=exploration.salt,
            exploration=exploration.to_exploration(),
            outdated=outdated_shares(self.config.guarantees, self.factors),
        )

    @property
    def _samples(self) -> bool:
        return self.rules.exploration is not None and self.rules.exploration.method == "thompson"

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
        if self.prices:
            parts["prices"] = hashlib.sha256(json.dumps(dict(self.prices), sort_keys=True).encode()).hexdigest()[:12]
        content = json.dumps([parts, self.unseen_correction], sort_keys=True)
        return {"bundle": hashlib.sha256(content.encode()).hexdigest()[:12]} | parts
