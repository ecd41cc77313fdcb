"""Every notebook runs from top to bottom in a kernel of its own, in an empty directory, and decides."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "calibration" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
DECISIONS = {
    "choosing_a_family": ("-> choose method='auto' for all rankers, and response='count' for the ranker of counts",),
    "comparable_responses": ("-> ship",),
    "drifting": (
        "event-1: responses_drifted -> fit",
        "group-2: no_calibrator -> fit",
        "newsletter-1: stable -> keep",
        "people-1: scores_moved -> keep",
        "-> serve calibrators",
    ),
    "new_version": (
        "the same as before: True",
        "people-2: calibrated",
        "-> ship",
        "people-3: calibrated",
        "-> roll back",
        "people: people-1, people-2",
    ),
}


def test_notebooks_are_found_and_each_has_a_decision() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(DECISIONS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_shows_pictures_and_decides(path: Path, tmp_path: Path) -> None:
    notebook = jupytext.read(path)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"] for output in outputs if output["output_type"] == "execute_result"]
    assert shown
    assert all("image/png" in data for data in shown)
    printed = "".join(
        output["text"] for output in outputs if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    place = 0
    for decision in DECISIONS[path.stem]:
        assert decision in printed[place:], printed
        place = printed.index(decision, place)
