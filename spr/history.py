"""What training chose, and the losses that decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


@dataclass(frozen=True)
class Choice:
    """A choice that training made, and the evidence.

    Parameters
    ----------
    what : str
        What was to be chosen.
    chosen : str
        One of the options.
    losses : mapping of str to float
        Mean log loss of each option on the rows that decided.
    judged_on : str
        Which rows these were, and how many.
    """

    what: str
    chosen: str
    losses: Mapping[str, float]
    judged_on: str


def history_table(history: Sequence[Choice]) -> pd.DataFrame:
    """Return one row per option of each choice: what, option, log loss, whether it was chosen, judged on."""
    import pandas as pd

    rows = [
        {"what": c.what, "option": option, "log_loss": loss, "chosen": option == c.chosen, "judged_on": c.judged_on}
        for c in history
        for option, loss in (c.losses or {c.chosen: float("nan")}).items()
    ]
    return pd.DataFrame(rows, columns=["what", "option", "log_loss", "chosen", "judged_on"])
