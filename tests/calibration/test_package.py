from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import calibration


def test_package_imports_without_scikit_learn_matplotlib_or_spr() -> None:
    code = (
        "import sys, calibration; "
        "print([m for m in ('sklearn', 'matplotlib', 'scipy.special', 'spr', 'first_pass') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(getattr(calibration, name) is not None for name in calibration.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Calibratr'"):
        calibration.Calibratr  # noqa: B018  # the access is the test


def test_notebook_runs_and_decides() -> None:
    notebook = Path(calibration.__file__).parent / "notebooks" / "comparable_responses.py"
    root = notebook.parents[2]
    done = subprocess.run(
        [sys.executable, str(notebook)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(root)},
    )
    assert "-> ship" in done.stdout
    assert "largest change of an expected response, v2 recalibrated: 0.0e+00" in done.stdout
