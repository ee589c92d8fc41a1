"""What tests of files that can't be read need: root may read all."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """A context in which a test that runs as root is nobody. What it calls must be imported before."""

    @contextlib.contextmanager
    def be_nobody() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return be_nobody


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which anybody may read and write; pytest's own is closed to everybody else."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        monkeypatch.chdir(place)
        yield Path(place)
