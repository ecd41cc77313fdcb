"""When an experiment is looked at: once, as planned, or as often as one likes with intervals that hold at all looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import stdtr, stdtrit

from calibration.drift.sums import MINIMUM_VIEWERS, PLANNED_RESPONSES, boundary, mixture_variance
from spr.errors import ConfigError


class Looks(Protocol):
    """How far an estimate may be from the truth, in standard errors."""

    @property
    def least_units(self) -> float:
        """Effective units that each arm needs before there is an interval."""

    def critical(self, alpha: float, members: int, df: float) -> float:
        """Return what an interval is wide to either side, in standard errors."""

    def p_value(self, distance: float, alpha: float, members: int, df: float) -> float:
        """Return the p-value of an estimate that is so many standard errors from the hypothesis; NaN where it is."""


@dataclass(frozen=True)
class OneLook:
    """One look, at a time that was planned: Student's t.

    Examples
    --------
    >>> round(OneLook().critical(0.05, 1000, 998.0), 3), round(OneLook().p_value(2.228, 0.05, 12, 10.0), 3)
    (1.962, 0.05)
    """

    @property
    def least_units(self) -> float:
        """Effective units that each arm needs: what the degrees of freedom ask for."""
        return 0.0

    def critical(self, alpha: float, members: int, df: float) -> float:  # noqa: ARG002 - the number of members is in df
        """Return the quantile of the absolute t with so many degrees of freedom.

        Parameters
        ----------
        alpha : float
            1 - level.
        members : int
            Not used.
        df : float
            >= 1.

        Returns
        -------
        float
        """
        return float(-stdtrit(df, alpha / 2.0))

    def p_value(self, distance: float, alpha: float, members: int, df: float) -> float:  # noqa: ARG002 - as above
        """Return the two-sided p-value of t.

        Parameters
        ----------
        distance : float
            Estimate less hypothesis, in standard errors.
        alpha, members
            Not used.
        df : float
            >= 1.

        Returns
        -------
        float
        """
        return float(2.0 * stdtr(df, -abs(distance)))


@dataclass(frozen=True)
class AnyLooks:
    r"""Any number of looks, at any times, also chosen after what was seen.

    Parameters
    ----------
    planned_members : int
        Intervals are narrowest, beside those of one look, when about so many members are in; it must not be chosen
        from the data.

    Raises
    ------
    ConfigError
        When ``planned_members`` is below 1.

    Notes
    -----
    Members enter once, in the order of time, when their outcome windows have closed; an estimate's error is then a sum
    of one term per unit that only grows by new terms, and with :math:`V_n` the estimated variance of the sum and r a
    constant,

    .. math:: P\left(\exists n: |S_n| \ge \sqrt{(V_n + r) \log((V_n + r) / (r \alpha^2))}\right) \le \alpha

    asymptotically (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2024, "Time-uniform central limit theory and
    asymptotic confidence sequences", Annals of Statistics 52), the boundary of :func:`calibration.drift.sums.boundary`
    and of :class:`spr.edge_drop.GuardRail`. Written in standard errors it depends on nothing but n over
    ``planned_members``. The p-value is the least alpha whose interval excludes the hypothesis, r held: it may be read
    at any look. *Burn-in*: there is neither before both arms are worth 50 equal terms, since V is not known by then.

    Examples
    --------
    >>> looks = AnyLooks(planned_members=10_000)
    >>> [round(looks.critical(0.05, n, np.inf), 2) for n in (1000, 10_000, 100_000)]
    [3.82, 3.04, 3.25]
    >>> round(looks.p_value(looks.critical(0.05, 5000, np.inf), 0.05, 5000, np.inf), 3)
    0.05
    """

    planned_members: int

    def __post_init__(self) -> None:
        if self.planned_members < 1:
            raise ConfigError(f"planned_members is {self.planned_members}; allowed: 1 or more")

    @property
    def least_units(self) -> float:
        """Effective units that each arm needs before there is an interval."""
        return MINIMUM_VIEWERS

    def critical(self, alpha: float, members: int, df: float) -> float:  # noqa: ARG002 - asymptotic
        """Return the boundary after so many members, in standard errors.

        Parameters
        ----------
        alpha : float
            P(the truth is outside at any look) is asymptotically at most this.
        members : int
            In all arms so far.
        df : float
            Not used.

        Returns
        -------
        float
        """
        unit = self.planned_members / PLANNED_RESPONSES
        return float(boundary(np.array(members, dtype=np.float64), alpha, unit) / np.sqrt(members))

    def p_value(self, distance: float, alpha: float, members: int, df: float) -> float:  # noqa: ARG002 - as above
        """Return the always-valid p-value.

        Parameters
        ----------
        distance : float
            Estimate less hypothesis, in standard errors.
        alpha : float
            Of the intervals, which r is tuned to.
        members : int
        df : float
            Not used.

        Returns
        -------
        float
        """
        share = float(mixture_variance(alpha, self.planned_members / PLANNED_RESPONSES)) / members
        log_p = 0.5 * np.log1p(1.0 / share) - 0.5 * distance**2 / (1.0 + share)
        return float(np.exp(min(log_p, 0.0)))
