"""Metrics of an experiment: the mean of a column over members, or the ratio of two columns' sums."""

from __future__ import annotations

from dataclasses import dataclass

from spr.errors import ConfigError

PRE = "pre_"
RESERVED = ("viewer_id", "arm", "cluster", "segment", "entered_at")


@dataclass(frozen=True)
class Metric:
    """What is compared between arms.

    Parameters
    ----------
    numerator : str
        A column with one number per member.
    denominator : str, optional
        Another, >= 0; the metric is then the sum of the numerator over the sum of the denominator. None: the mean of
        the numerator over members.

    Raises
    ------
    ConfigError
        When a column's name is empty, or is of a column that is no outcome.

    Examples
    --------
    >>> Metric.parse("downstream/impressions")
    Metric(numerator='downstream', denominator='impressions')
    >>> Metric.parse("sessions").name
    'sessions'
    """

    numerator: str
    denominator: str | None = None

    def __post_init__(self) -> None:
        for column in self.columns:
            if not column or column in RESERVED or column.startswith(PRE):
                raise ConfigError(
                    f"the metric {self.name!r} holds the column {column!r}; allowed: columns of what members did in "
                    f"the experiment, none of {', '.join(RESERVED)}, {PRE}*"
                )

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read ``"column"`` or ``"numerator/denominator"``.

        Raises
        ------
        ConfigError
            When there is more than one slash, or a name is missing.
        """
        parts = [part.strip() for part in text.split("/")]
        if len(parts) > 2:
            raise ConfigError(f"the metric {text!r} has {len(parts) - 1} slashes; allowed: one, numerator/denominator")
        return cls(*parts)

    @property
    def name(self) -> str:
        """As it is written in results."""
        return self.numerator if self.denominator is None else f"{self.numerator}/{self.denominator}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table, numerator first."""
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)
