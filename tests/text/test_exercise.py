"""The lecture's exercise: its tests pass with the gaps filled, and fail with the gaps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXERCISE = Path(__file__).resolve().parents[2] / "docs" / "lecture" / "exercise"
SOLUTION = Path(__file__).parent / "exercise_solution"
STEPS = sorted(path.name for path in EXERCISE.glob("bpe_?_*.py"))


def results(tmp_path: Path, **environment: str) -> dict[str, int]:
    """How many tests of the exercise passed, failed and so on, when a learner runs them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider",
         "-o", "addopts=--import-mode=importlib", "--basetemp", str(tmp_path / "inner"), str(EXERCISE)],
        capture_output=True, text=True, env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
    )  # fmt: skip
    return {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}


def test_a_filled_in_solution_passes(tmp_path: Path) -> None:
    found = results(tmp_path, BPE_SOLUTION=str(SOLUTION))
    assert found["passed"] > 40
    assert not {"failed", "error", "errors"} & found.keys()


def test_the_gaps_fail_at_every_step(tmp_path: Path) -> None:
    found = results(tmp_path)
    assert found["failed"] + found.get("errors", 0) > 40
    assert found.get("passed", 0) < 8


@pytest.mark.parametrize("name", STEPS)
def test_the_solution_is_the_exercise_with_its_gaps_filled(name: str) -> None:
    filled = iter((SOLUTION / name).read_text("utf-8").splitlines())
    for line in (EXERCISE / name).read_text("utf-8").splitlines():
        if "..." not in line and "# remove this line" not in line:
            assert line in filled, line  # in this order: `in` goes on where it stopped
