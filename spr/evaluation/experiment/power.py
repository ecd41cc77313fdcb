"""How many members an A/B test needs for a wanted relative effect, and what it can find with those that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from spr.errors import ConfigError, InvalidExperiment
from spr.evaluation.experiment.metrics import Metric
from spr.evaluation.experiment.sequential import AnyLooks, OneLook
from spr.evaluation.experiment.table import read_arms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spr.tables import Table

_MOST_MEMBERS = 10**12


@dataclass(frozen=True)
class ArmPlan:
    r"""What an experiment of a given size can tell of one metric; made by :func:`plan_arms`.

    Parameters
    ----------
    metric : str
    value : float
        Of the metric before the experiment, > 0.
    standard_deviation : float
        Per member, over ``value``: an arm of n members has the relative standard error standard_deviation / sqrt(n).
        After adjustment, of the linearised ratio, and with what clusters add.
    variance_ratio : float
        Variance over that without adjustment, about 1 - rho^2.
    design_effect : float
        Variance over that of independent members; 1 without clusters.
    members_per_unit : float
        Members over effective units.
    control_share, arm_share : float
        Of the experiment's members in the control and in the arm it is compared with.
    alpha, power : float
    any_looks : bool

    Notes
    -----
    The two-sided test of no difference, with :math:`V = sd^2 (1 / p_c + 1 / p_a)` and a relative effect :math:`\delta`
    its power with n members is :math:`\Phi(\delta \sqrt{n / V} - c)`, c the critical value of Student's t, or, for any
    looks, the always-valid boundary when all planned members are in: what is found earlier is a gain on top. The
    other side's rejections, which are errors, do not count. The arm's variance is taken to be the control's.
    """

    metric: str
    value: float
    standard_deviation: float
    variance_ratio: float
    design_effect: float
    members_per_unit: float
    control_share: float
    arm_share: float
    alpha: float
    power: float
    any_looks: bool

    def members_for(self, relative_effect: float) -> int:
        """Return the members that find a relative effect with the wanted power, all arms together.

        Parameters
        ----------
        relative_effect : float
            Such as 0.02 or -0.02; not 0.

        Returns
        -------
        int

        Raises
        ------
        ConfigError
            When the effect is 0 or not finite, or needs more than 10^12 members.
        """
        if relative_effect == 0 or not np.isfinite(relative_effect):
            raise ConfigError(f"relative_effect is {relative_effect}; allowed: a number other than 0")
        wanted = abs(relative_effect)
        high = self._least_members
        while self.detectable_effect(high) > wanted:
            high *= 2
            if high > _MOST_MEMBERS:
                raise ConfigError(f"an effect of {relative_effect:g} needs more than {_MOST_MEMBERS:,} members")
        low = max(high // 2, self._least_members - 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.detectable_effect(middle) <= wanted else (middle, high)
        return high

    def detectable_effect(self, members: int) -> float:
        """Return the least relative effect that so many members find with the wanted power.

        Parameters
        ----------
        members : int
            All arms together.

        Returns
        -------
        float
            > 0.

        Raises
        ------
        ConfigError
            When the members are fewer than three units an arm.
        """
        return float((self._critical(members) + ndtri(self.power)) * self._error(members))

    def power_for(self, relative_effect: float, members: int) -> float:
        """Return the power to find a relative effect, in its direction.

        Parameters
        ----------
        relative_effect : float
        members : int
            All arms together.

        Returns
        -------
        float

        Raises
        ------
        ConfigError
            When the members are fewer than three units an arm.
        """
        return float(ndtr(abs(relative_effect) / self._error(members) - self._critical(members)))

    def at(self, members: Sequence[int]) -> pd.DataFrame:
        """Return what experiments of these sizes find: columns members, detectable_effect."""
        return pd.DataFrame({"members": list(members), "detectable_effect": [*map(self.detectable_effect, members)]})

    @property
    def _least_members(self) -> int:
        return int(np.ceil(3.0 * self.members_per_unit / min(self.control_share, self.arm_share)))

    def _error(self, members: int) -> float:
        if members < self._least_members:
            raise ConfigError(
                f"members is {members:,}; allowed: at least {self._least_members:,}, three units in each arm"
            )
        return float(self.standard_deviation * np.sqrt((1 / self.control_share + 1 / self.arm_share) / members))

    def _critical(self, members: int) -> float:
        if self.any_looks:
            return AnyLooks(members).critical(self.alpha, members, np.inf)
        units = members / self.members_per_unit * np.array([self.control_share, self.arm_share])
        variance = 1.0 / units
        df = variance.sum() ** 2 / (variance**2 / (units - 1.0)).sum()
        return OneLook().critical(self.alpha, members, float(df))


def plan_arms(
    table: Table,
    metric: str,
    *,
    covariates: Sequence[str] = (),
    control_share: float = 0.5,
    arm_share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    any_looks: bool = False,
) -> ArmPlan:
    """Plan the size of an A/B test from a period before it.

    Parameters
    ----------
    table : DataFrame or path
        One row per member of a period as long as the experiment will measure each, as of
        :func:`spr.evaluation.compare_arms` without ``arm``; with ``pre_<column>``, the period before that one, if the
        experiment will be adjusted, and with ``cluster``, if clusters will be assigned.
    metric : str
        As of :func:`spr.evaluation.compare_arms`.
    covariates : sequence of str, default ()
        Further columns that will adjust.
    control_share, arm_share : float, default 0.5
        Of the experiment's members, in the control and in the smallest other arm; they sum to at most 1.
    alpha : float, default 0.05
        Of the two-sided test; with m primary comparisons, alpha / m is on the safe side.
    power : float, default 0.8
        Wanted P(the effect is found), in (0, 1).
    any_looks : bool, default False
        Plan for intervals that hold at all looks.

    Returns
    -------
    ArmPlan

    Raises
    ------
    TableError
        When the table breaks its contract.
    ConfigError
        When a number is outside its range.
    InvalidExperiment
        When the metric is not above 0, or the members are too few or too alike for a variance.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"viewer_id": [f"v{i}" for i in range(5000)], "pre_likes": rng.gamma(2.0, 5.0, 5000)})
    >>> table["likes"] = table["pre_likes"] + rng.normal(0, 5, 5000)
    >>> plan = plan_arms(table, "likes")
    >>> round(plan.variance_ratio, 1), round(plan.detectable_effect(20_000), 4), plan.members_for(0.02) > 19_000
    (0.3, 0.0195, True)
    """
    for name, share in (("control_share", control_share), ("arm_share", arm_share), ("alpha", alpha), ("power", power)):
        if not 0 < share < 1:
            raise ConfigError(f"{name} is {share}; allowed: above 0 and below 1")
    if control_share + arm_share > 1 + 1e-9:
        raise ConfigError(f"control_share and arm_share sum to {control_share + arm_share:g}; allowed: at most 1")
    parsed = Metric.parse(metric)
    rows = read_arms(table, [parsed], control=None, covariates=covariates)
    everybody = np.ones(rows.n, dtype=bool)
    adjusted = rows.estimate(parsed, everybody)
    raw = rows.estimate(parsed, everybody, adjusted=False)
    alone = rows.each_alone().estimate(parsed, everybody)
    n, value = int(adjusted.members[0]), float(adjusted.value[0])
    variance = [n * float((made.own**2).sum()) for made in (adjusted, raw, alone)]
    if not value > 0 or not adjusted.df[0] >= 1 or not min(variance) > 0:
        raise InvalidExperiment(
            f"{metric} of {n:,} members is {value:g} with variance {variance[0]:g} and {adjusted.df[0]:.1f} degrees of "
            "freedom; a plan needs a metric above 0 that varies between members"
        )
    return ArmPlan(
        parsed.name,
        value,
        float(np.sqrt(variance[0])) / value,
        variance[0] / variance[1],
        variance[0] / variance[2],
        n / (float(raw.df[0]) + 1.0),
        control_share,
        arm_share,
        alpha,
        power,
        any_looks,
    )
