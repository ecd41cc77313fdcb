"""When enough data of an entity type has come: responses on random pages, how fast they come, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from spr.errors import ConfigError
from spr.evaluation.report import Section
from spr.tables import read_impressions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure
    from pandas.api.typing import NaTType

    from spr.config import Config
    from spr.ranker import SecondPassRanker
    from spr.tables import Table

_RECENT_DAYS: Final = 7.0
_DAY: Final = pd.Timedelta(days=1)
_COLUMNS: Final = [
    *("first_seen", "random_rows", "mature_rows", "responses", "responses_a_day"),
    *("needed", "ready", "ready_on", "without_calibrator"),
]


@dataclass(frozen=True, eq=False)
class Readiness:
    """What has come of each entity type, and what it takes.

    Parameters
    ----------
    table : DataFrame
        Of :meth:`to_pandas`.
    by_day : DataFrame
        Responses on random pages so far: days (UTC) x entity types of the configuration.
    relative_error : float
        Of the mean expected response that ``needed`` stands for.
    """

    table: pd.DataFrame
    by_day: pd.DataFrame
    relative_error: float

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per entity type.

        Returns
        -------
        DataFrame
            By entity_type: ``first_seen`` (null = never), ``random_rows``, of these ``mature_rows``, of these
            ``responses`` (rows with one), ``responses_a_day`` over the last 7 days that have mature rows (null = never
            seen), ``needed``, ``ready``, ``ready_on`` (the day at this rate; null = ready already, or no rate), and
            ``without_calibrator``, a list of its ranker versions in the log that have none (null where no ranker was
            given).
        """
        return self.table


def readiness(
    impressions: Table, config: Config, *, relative_error: float = 0.05, ranker: SecondPassRanker | None = None
) -> Readiness:
    """Tell of each entity type whether its random pages have brought enough to learn from.

    Parameters
    ----------
    impressions : DataFrame or path
        The impressions table; rows of the policy "random" count.
    config : Config
        Names the entity types, and when labels are mature.
    relative_error : float, default 0.05
        How well the mean expected response must be known: its standard error over itself, in (0, 1).
    ranker : SecondPassRanker, optional
        Says which ranker versions have a calibrator.

    Returns
    -------
    Readiness

    Raises
    ------
    ConfigError
        A relative error outside (0, 1).
    TableError
        A table that breaks its contract.

    Notes
    -----
    Responses that are rare are Poisson counts, so that n of them give a rate with a relative standard error of
    1 / sqrt(n): ``needed`` = 1 / relative_error², 400 for 5 %. Responses that are counts or amounts vary besides, and
    need more. That is for the level of a calibrator. Its shape, and a
    first-pass ranker of some features, are learnt from about as many; a rare kind of viewer takes more. The responses
    of one viewer go together, which this leaves out, and so a type that few viewers use is ready later than it says.

    Examples
    --------
    >>> import spr
    >>> from simulations import World
    >>> log = World(300, seed=1).impressions(2000)
    >>> found = readiness(log, spr.Config.named("network"), relative_error=0.06)
    >>> found.to_pandas().loc[["company", "newsletter"], ["responses", "needed", "ready"]].T
    entity_type company newsletter
    responses       206        370
    needed          278        278
    ready         False       True
    """
    if not 0.0 < relative_error < 1.0:
        raise ConfigError(f"readiness: relative_error is {relative_error}; allowed: between 0 and 1, without them")
    rows = read_impressions(impressions, config)
    needed = int(np.ceil(round(relative_error**-2, 6)))  # 1 / 0.1² is a little more than 100
    types = sorted(config.entity_types)
    now = rows["at"].max()
    random = rows[rows["policy"] == "random"]
    mature = random[random["response"].notna()]
    hits = mature[mature["response"] > 0]
    until = mature["at"].max() if len(mature) else now
    found = {}
    for entity_type in types:
        seen = rows[rows["entity_type"] == entity_type]
        first_seen = seen["at"].min()
        own = hits[hits["entity_type"] == entity_type]
        n, rate = len(own), _rate(own["at"], first_seen, until)
        ready_on = pd.NaT
        if n < needed and rate > 0:
            ready_on = (now + (needed - n) / rate * _DAY).ceil("D")
        versions = sorted(seen["ranker_version"].unique())
        found[entity_type] = [
            *(first_seen, int((random["entity_type"] == entity_type).sum())),
            *(int((mature["entity_type"] == entity_type).sum()), n, rate, needed, n >= needed, ready_on),
            None if ranker is None else _without(ranker, entity_type, versions),
        ]
    table = pd.DataFrame.from_dict(found, orient="index", columns=_COLUMNS).rename_axis("entity_type")
    for column in ("first_seen", "ready_on"):
        table[column] = pd.to_datetime(table[column])
    days = pd.date_range(rows["at"].min().floor("D"), until.floor("D"), freq="D", name="day")
    counts = hits.groupby([hits["at"].dt.floor("D"), "entity_type"]).size().unstack()
    by_day = counts.reindex(index=days, columns=types).fillna(0.0).cumsum().astype(np.int64)
    return Readiness(table, by_day, relative_error)


def readiness_section(found: Readiness) -> Section:
    """Show which entity types are ready, which are not and when they will be.

    Parameters
    ----------
    found : Readiness

    Returns
    -------
    Section
        Sentences, a table, and a picture of the responses so far against the number that is needed.
    """
    table, sentences = found.to_pandas(), []
    needed = int(table["needed"].iloc[0])
    sentences.append(
        f"A type is ready when its random pages have brought {needed:,} responses: its mean expected response is then "
        f"known to {100 * found.relative_error:.3g} % (standard error)."
    )
    ready = table.index[table["ready"]]
    if len(ready):
        sentences.append(f"Ready: {', '.join(ready)}.")
    for entity_type, row in table[~table["ready"]].iterrows():
        if pd.isna(row["first_seen"]):
            sentences.append(f"{entity_type} is not in the log.")
            continue
        came = f"{entity_type} is not ready: {row['responses']:,} of {needed:,} responses"
        if pd.isna(row["ready_on"]):
            sentences.append(f"{came}, and none in the last {_RECENT_DAYS:.0f} days. Show more random pages of it.")
        else:
            sentences.append(
                f"{came}, {row['responses_a_day']:.1f} a day; at this rate it is on {row['ready_on']:%Y-%m-%d}."
            )
    missing = [(str(name), own) for name, own in table["without_calibrator"].items() if own]
    for name, versions in missing:
        sentences.append(f"{name}: no calibrator for {', '.join(versions)}.")
    shown = table.assign(
        first_seen=table["first_seen"].dt.strftime("%Y-%m-%d"),
        ready_on=table["ready_on"].dt.strftime("%Y-%m-%d"),
        without_calibrator=[", ".join(own or ()) for own in table["without_calibrator"]],
    )
    return Section(
        "When enough data has come",
        sentences,
        {"Responses on random pages": shown.rename(columns=lambda name: str(name).replace("_", " "))},
        {"readiness": readiness_plot(found)},
    )


def readiness_plot(found: Readiness) -> Figure:
    """Draw the responses on random pages so far, by day, against the number that is needed; logarithmic.

    Parameters
    ----------
    found : Readiness

    Returns
    -------
    Figure
    """
    from calibration.plots.axes import COLOURS, GREY, MARKERS, panel_grid

    figure, grid = panel_grid(1, "Responses on random pages so far", width=8.0)
    panel = figure.add_subplot(grid[0])
    needed = int(found.table["needed"].iloc[0])
    every = max(1, len(found.by_day) // 12)
    for place, (name, count) in enumerate(found.by_day.items()):
        panel.plot(
            found.by_day.index,
            count.where(count > 0),
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            markersize=4,
            markevery=every,
            label=str(name),
        )
    panel.axhline(needed, color=GREY, linestyle=":", linewidth=1)
    where = (found.by_day.index[0], needed)
    panel.annotate(f"{needed:,} needed", where, xytext=(0, 4), textcoords="offset points", fontsize=8, color=GREY)
    panel.set_yscale("log")
    panel.set_ylim(0.8, 1.6 * max(needed, int(found.by_day.to_numpy().max(initial=1))))
    panel.set_ylabel("responses")
    figure.autofmt_xdate()
    panel.legend(frameon=False, fontsize=9, loc="lower right", ncols=2)
    return figure


def _rate(at: pd.Series, first_seen: pd.Timestamp | NaTType, until: pd.Timestamp) -> float:
    """Return responses a day over the last days that are mature; of a newcomer, since it came."""
    if pd.isna(first_seen):
        return float("nan")
    days = float(np.clip((until - first_seen) / _DAY, 1.0, _RECENT_DAYS))
    return float((at > until - days * _DAY).sum() / days)


def _without(ranker: SecondPassRanker, entity_type: str, versions: Iterable[str]) -> list[str]:
    return [version for version in versions if (entity_type, version) not in ranker.calibrators]
