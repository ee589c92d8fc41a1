"""The version is known without an installed distribution: where only the sources are on the path."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import myna.version

SOURCES = Path(myna.version.__file__).parents[1]
USES = "import myna, sys; from myna.cli import main; assert main(['--version']) == 0; print(myna.__version__)"


def printed(sources: Path) -> list[str]:
    """What `--version` and `__version__` say with these sources alone: -S leaves out all that is installed."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", USES], env={"PYTHONPATH": str(sources)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_sources_alone_say_the_checkouts_version():
    said = printed(SOURCES)
    assert said == [f"myna {myna.__version__}", myna.__version__]
    assert said[1] != "unknown"


def test_copied_sources_say_that_it_is_unknown(tmp_path):
    for name in ("__init__", "cli", "errors", "signals", "version"):
        target = tmp_path / "src" / "myna" / f"{name}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / "myna" / f"{name}.py", target)
    assert printed(tmp_path / "src") == ["myna unknown", "unknown"]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    assert printed(tmp_path / "src") == ["myna unknown", "unknown"]


@pytest.mark.parametrize(
    "module", ["myna.commands.train_about", "myna.evaluate.report_page", "myna.serve.app"]
)
def test_what_records_the_version_asks_here(module, monkeypatch):
    """A run's environment, the report and the server: each would fail where nothing is installed."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert importlib.import_module(module).version() == myna.version._of_checkout()
