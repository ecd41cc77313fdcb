from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from simulations.hillstrom import read_hillstrom, value_emails
from spr.errors import DataNotFound, TableError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    """A made file of the published form, with effects of its own: visits +8 and +5 points."""
    rng = np.random.default_rng(3)
    n = 64_000
    history = np.exp(rng.normal(5, 1, n)).round(2)
    segment = rng.choice(["Mens E-Mail", "Womens E-Mail", "No E-Mail"], n)
    visit = rng.random(n) < 0.1 + 0.08 * (segment == "Mens E-Mail") + 0.05 * (segment == "Womens E-Mail")
    conversion = visit & (rng.random(n) < 0.07)
    return pd.DataFrame(
        {
            "recency": rng.integers(1, 13, n),
            "history_segment": pd.cut(history, [0, 100, 500, np.inf], labels=["1) $0", "2) $100", "3) $500"]).astype(
                str
            ),
            "history": history,
            "mens": rng.integers(0, 2, n),
            "womens": rng.integers(0, 2, n),
            "zip_code": "Urban",
            "newbie": rng.integers(0, 2, n),
            "channel": "Web",
            "segment": segment,
            "visit": visit.astype(int),
            "conversion": conversion.astype(int),
            "spend": np.where(conversion, rng.gamma(2, 50, n), 0.0),
        }
    )


@pytest.fixture
def file(people: pd.DataFrame, tmp_path: Path) -> Path:
    people.to_csv(tmp_path / "hillstrom.csv", index=False)
    return tmp_path / "hillstrom.csv"


def test_emails_are_worth_what_they_were_made_to(file: Path, people: pd.DataFrame) -> None:
    found = value_emails(read_hillstrom(file))
    visits = found["visit"].to_pandas("edge")
    assert (np.abs(visits["value"] - [0.08, 0.05]) < 3 * visits["standard_error"]).all()
    means = people.groupby("segment")["visit"].mean()
    raw = [means["Mens E-Mail"] - means["No E-Mail"], means["Womens E-Mail"] - means["No E-Mail"]]
    np.testing.assert_allclose(visits["value"], raw, atol=0.001)
    ratio = found["visit"].factors("edge", reference="womens_email")
    assert ratio.interval[0][0] < 1.6 < ratio.interval[0][1]
    assert found["visit"].form == "linear"
    assert found["visit"].n_viewers == 64_000
    assert any("straight line" in note for note in found["spend"].notes)


def test_the_script_prints_every_metric(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.hillstrom", file], capture_output=True, text=True, check=True
    )
    for word in ("visit", "conversion", "spend", "mens_email"):
        assert word in done.stdout


def test_another_file_is_refused(file: Path, people: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match="not shipped"):
        read_hillstrom(tmp_path / "none.csv")
    people.drop(columns="spend").to_csv(file, index=False)
    with pytest.raises(TableError, match="column 'spend' is missing"):
        read_hillstrom(file)
    people.assign(segment="Letter").to_csv(file, index=False)
    with pytest.raises(TableError, match="first: 'Letter'"):
        read_hillstrom(file)
