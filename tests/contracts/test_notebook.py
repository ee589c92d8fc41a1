"""The notebook runs from its first cell to its last, as a stranger would run it."""

import json
import re
from pathlib import Path

import pytest

# A number of steps takes the place of the minutes, since how many steps a minute has depends on the machine.
MINUTES, STEPS = "--minutes {MINUTES}", "--steps 12 --eval-every 6"
NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "lecture.ipynb"


def test_the_first_code_cell_installs_from_an_address_that_is_a_variable() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    first = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))
    assert re.search(r'^ADDRESS = "git\+https://', first, re.MULTILINE)
    assert "pip" in first
    assert "ADDRESS]" in first


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(MINUTES in cell.source for cell in codes) == 1
    for cell in codes:
        cell.source = raising(cell.source.replace(MINUTES, STEPS))
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in codes for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "validation:" in printed
    assert "bits per byte" in printed
    assert any("image/png" in output.get("data", {}) for output in outputs)


def raising(source: str) -> str:
    """The cell with a check behind each command, which raises nothing itself: IPython keeps its `_exit_code`."""
    return re.sub(r"^(!.*)$", r"\1\nassert _exit_code == 0, _exit_code", source, flags=re.MULTILINE)
