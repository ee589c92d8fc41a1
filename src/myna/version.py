"""Which version this is."""

import importlib.metadata
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def version() -> str:
    """The installed package's version; the checkout's where only its sources are on the path; else "unknown"."""
    try:
        return importlib.metadata.version("myna")
    except importlib.metadata.PackageNotFoundError:
        return _of_checkout()


def _of_checkout() -> str:
    try:
        project = tomllib.loads(PYPROJECT.read_text("utf-8")).get("project", {})
    except (OSError, ValueError):
        return "unknown"
    # Sources that were copied elsewhere may lie beside another project's file.
    return project["version"] if project.get("name") == "myna" and "version" in project else "unknown"
