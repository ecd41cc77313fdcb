"""Hillstrom's e-mail experiment (64,000 people, two e-mails and a control), through the edge-drop estimator.

``python -m simulations.hillstrom FILE.csv``, where the user has the file: it is not shipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer

from spr.errors import DataNotFound, TableError

if TYPE_CHECKING:
    from spr.edge_drop import EdgeValues

ARMS = {"Mens E-Mail": "mens_email", "Womens E-Mail": "womens_email"}
CONTROL = "No E-Mail"
METRICS = ("visit", "conversion", "spend")
COVARIATES = ("history", "recency", "mens", "womens", "newbie")
_COLUMNS = (*COVARIATES, "history_segment", "segment", *METRICS)


def read_hillstrom(path: str | Path) -> pd.DataFrame:
    """Read the experiment as an edge_drop table.

    Parameters
    ----------
    path : str or Path
        The published CSV: recency, history_segment, history, mens, womens, zip_code, newbie, channel, segment, visit,
        conversion, spend.

    Returns
    -------
    DataFrame
        One row per person. An e-mail is an edge of its type that everybody has (``edges_<t>`` = 1) and that is dropped
        where it was not sent: the control lost both, and so V is what sending one is worth. ``segment`` is the past
        spending class; the covariates keep their names.

    Raises
    ------
    DataNotFound
        When there is no such file.
    TableError
        When a column is missing or an arm is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise DataNotFound(f"Hillstrom's e-mail experiment: no file at {path}; it is not shipped, give its CSV")
    people = pd.read_csv(path)
    missing = [column for column in _COLUMNS if column not in people]
    if missing:
        raise TableError(f"hillstrom: column {missing[0]!r} is missing; found: {', '.join(people.columns)}")
    unknown = ~people["segment"].isin([*ARMS, CONTROL])
    if unknown.any():
        raise TableError(
            f"hillstrom: segment is not {', '.join([*ARMS, CONTROL])} in {unknown.sum():,} of {len(people):,} rows, "
            f"first: {people.loc[unknown, 'segment'].iloc[0]!r}"
        )
    table = people[[*COVARIATES, *METRICS]].assign(
        viewer_id=[f"p{number:05d}" for number in range(len(people))], segment=people["history_segment"]
    )
    for arm, edge_type in ARMS.items():
        table[f"edges_{edge_type}"] = 1
        table[f"dropped_{edge_type}"] = np.where(people["segment"] == arm, 0.0, 1.0)
    return table


def value_emails(table: pd.DataFrame) -> dict[str, EdgeValues]:
    """Estimate what each e-mail is worth in each metric.

    Parameters
    ----------
    table : DataFrame
        Of :func:`read_hillstrom`.

    Returns
    -------
    dict of str to EdgeValues
        By metric.
    """
    from spr.edge_drop import estimate_edge_values

    return {metric: estimate_edge_values(table, metric, covariates=COVARIATES) for metric in METRICS}


def main(path: Annotated[Path, typer.Argument(help="The published CSV of the experiment.")]) -> None:
    """Print what each e-mail is worth, and the ratio of the two, in visits, conversions and spend."""
    from spr.cli import console, print_table, readable_errors

    with readable_errors():
        found = value_emails(read_hillstrom(path))
        for metric, values in found.items():
            ratios = values.factors("edge", reference="womens_email").to_pandas()
            print_table(ratios[["value", "standard_error", "ratio", "low", "high", "shrunk", "decision"]], metric)
            for note in values.notes:
                console.print(note, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
