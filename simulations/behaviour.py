"""How the people of a made network behave: what edges bring, how pages are read, how types compete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from simulations.response_curves import CURVES
from spr.errors import InvalidModelInput, name_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ENTITY_TYPES = tuple(CURVES)
KINDS = ("likes", "comments", "reshares")
COHORT_SIZE = 6
MAX_COHORTS = 12
DOWNSTREAM_WINDOW_DAYS = 7.0

_OWN_EDGE_TYPES = {name: curve.edge_type for name, curve in CURVES.items()}
_ENGAGEMENT = {"connection": 0.10, "follow": 0.04, "subscribe": 0.07}
_KIND_SHARES = np.array([(0.6, 0.3, 0.1), (0.8, 0.1, 0.1), (0.7, 0.2, 0.1)])  # by edge type, in turn
_BASE_SHARES = np.array([0.7, 0.2, 0.1])


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    r"""How people behave; every default is the network of :class:`simulations.World`.

    Parameters
    ----------
    edge_type_of : mapping of str to str
        Entity type -> edge type that a response forms.
    engagement_per_edge : mapping of str to float
        By edge type, what the first engaged edge of a viewer brings: interactions in each later session, >= 0.
    concavity : float, default 0.6
        :math:`\rho` in (0, 1]: the content of m engaged edges of a type is
        :math:`C(m) = (\kappa / \rho) ((1 + m / \kappa)^\rho - 1)`, so that :math:`C'(0) = 1`.
    saturation : float, default 4
        :math:`\kappa > 0`: about how many edges it takes until the next one brings visibly less.
    base_engagement : float, default 0.5
        Interactions in each session that no edge brings, >= 0.
    activity_noise : float, default 0.3
        Coefficient of variation of a viewer's number of sessions between periods, beyond chance; >= 0.
    examination : {"position", "cascade", "row_column"}, default "position"
        How a page is read. ``position``: a cohort by its position, in it an entity by its slot. ``cascade``: from the
        top; after each cohort the viewer goes on with a probability that is lower where there was a response (dependent
        click model: Guo et al., WSDM 2009). ``row_column``: an entity by its row and column, not a product of both
        (carousels: Rahdari et al., HT 2022).
    cannibalization : mapping of str to (mapping of str to float), optional
        ``{a: {b: k}}``: each cohort of entity type b above one of type a multiplies the responses there by exp(-k);
        k < 0 is synergy.
    spillover : float, default 0
        In [0, 1): how much a viewer's engagement falls with the mean relative loss of its connections.
    downstream_delay_days : float, default 2
        Mean time from a response to the interaction that makes its edge an engaged one; below 7, the label's window,
        which no interaction is later than.

    Raises
    ------
    InvalidModelInput
        When a number is outside what is allowed, or a type is unknown or missing.

    Examples
    --------
    >>> Behaviour().content(np.array([0.0, 1.0, 10.0])).round(2)
    array([0.  , 0.96, 7.47])
    """

    edge_type_of: Mapping[str, str] = field(default_factory=lambda: dict(_OWN_EDGE_TYPES))
    engagement_per_edge: Mapping[str, float] = field(default_factory=lambda: dict(_ENGAGEMENT))
    concavity: float = 0.6
    saturation: float = 4.0
    base_engagement: float = 0.5
    activity_noise: float = 0.3
    examination: Literal["position", "cascade", "row_column"] = "position"
    cannibalization: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    spillover: float = 0.0
    downstream_delay_days: float = 2.0

    def __post_init__(self) -> None:
        for what, allowed, right in (
            ("concavity", "above 0, at most 1", 0 < self.concavity <= 1),
            ("saturation", "above 0", self.saturation > 0),
            ("base_engagement", "0 or more", self.base_engagement >= 0),
            ("activity_noise", "0 or more", self.activity_noise >= 0),
            ("spillover", "0 or more, below 1", 0 <= self.spillover < 1),
            ("downstream_delay_days", "above 0, below 7", 0 < self.downstream_delay_days < DOWNSTREAM_WINDOW_DAYS),
        ):
            if not right:
                raise InvalidModelInput(f"Behaviour: {what} is {getattr(self, what)}; allowed: {allowed}")
        if self.examination not in ("position", "cascade", "row_column"):
            known = ("position", "cascade", "row_column")
            raise InvalidModelInput(name_unknown("examination", self.examination, known, "Behaviour"))
        for name in ENTITY_TYPES:
            if name not in self.edge_type_of:
                raise InvalidModelInput(f"Behaviour: edge_type_of does not name {name!r}")
        for name in [
            *self.edge_type_of,
            *self.cannibalization,
            *(b for of in self.cannibalization.values() for b in of),
        ]:
            if name not in ENTITY_TYPES:
                raise InvalidModelInput(name_unknown("entity type", name, ENTITY_TYPES, "Behaviour"))
        for edge_type in self.edge_types:
            if not self.engagement_per_edge.get(edge_type, -1.0) >= 0:
                raise InvalidModelInput(
                    f"Behaviour: engagement_per_edge of {edge_type!r} is {self.engagement_per_edge.get(edge_type)}; "
                    "a number >= 0 is needed for each edge type"
                )

    @property
    def edge_types(self) -> tuple[str, ...]:
        """The edge types, in order of the entity types."""
        return tuple(dict.fromkeys(self.edge_type_of[name] for name in ENTITY_TYPES))

    @property
    def edge_code(self) -> npt.NDArray[np.int64]:
        """Index of the edge type of each entity type."""
        return np.array([self.edge_types.index(self.edge_type_of[name]) for name in ENTITY_TYPES])

    @property
    def first_edge_engagement(self) -> Floats:
        """What the first engaged edge brings a session, by edge type."""
        return np.array([self.engagement_per_edge[t] for t in self.edge_types], dtype=np.float64)

    @property
    def kind_shares(self) -> Floats:
        """Shares of likes, comments and reshares: float64[edge types + 1, 3], the last row of what no edge brings."""
        of_edges = _KIND_SHARES[np.arange(len(self.edge_types)) % len(_KIND_SHARES)]
        return np.vstack([of_edges, _BASE_SHARES])

    @property
    def cannibalization_matrix(self) -> Floats:
        """float64[7, 7]: [a, b] of entity type a below b."""
        matrix = np.zeros((len(ENTITY_TYPES), len(ENTITY_TYPES)))
        for below, of in self.cannibalization.items():
            for above, strength in of.items():
                matrix[ENTITY_TYPES.index(below), ENTITY_TYPES.index(above)] = strength
        return matrix

    def content(self, engaged: Floats) -> Floats:
        """Return C(m), what m engaged edges of a type bring relative to the first.

        Parameters
        ----------
        engaged : float64[...]
            m >= 0.

        Returns
        -------
        float64[...]
        """
        k, rho = self.saturation, self.concavity
        return np.asarray(k / rho * ((1.0 + engaged / k) ** rho - 1.0))

    def content_slope(self, engaged: Floats) -> Floats:
        """Return C'(m)."""
        return np.asarray((1.0 + engaged / self.saturation) ** (self.concavity - 1.0))
