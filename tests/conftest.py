"""What every test may ask for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# The networks of the tests are tiny: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache, and nothing reaches for the hub."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Finds a file of the data that may lie beside a checkout; a test that needs an absent one is skipped."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"needs {name}, which is not beside this checkout")
        return path

    return find


@pytest.fixture
def child_environment() -> dict[str, str]:
    """The environment for a child process."""
    return dict(os.environ)
