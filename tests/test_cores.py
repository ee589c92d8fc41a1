"""The count of processors, also on a system that keeps no list of them for each process."""

import os
from pathlib import Path

import pytest

from myna.cores import usable_cores

SOURCES = Path(__file__).resolve().parents[1] / "src" / "myna"


def test_the_systems_list_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("machine", "expected"), [(12, 12), (None, 1)])
def test_without_a_list_it_is_the_machines_count(
    machine: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    assert usable_cores() == expected


def test_no_other_file_asks_for_a_list_that_macos_lacks() -> None:
    asking = [one.name for one in SOURCES.rglob("*.py") if "sched_getaffinity" in one.read_text("utf-8")]
    assert asking == ["cores.py"]
