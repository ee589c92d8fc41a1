"""What a machine must have, looked up without torch: a GPU, and the packages that Myna needs."""

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEVICES = Path("/dev")


def gpu_count() -> int:
    """How many NVIDIA GPUs the system shows; 1 where it shows none, but has their program."""
    files = [path for path in DEVICES.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return len(files) or int(shutil.which("nvidia-smi") is not None)


def is_missing(package: str) -> bool:
    """Whether a package can't be imported; it is not imported."""
    return importlib.util.find_spec(package) is None


def missing_packages() -> list[str]:
    """Those of the project's dependencies that are not here. They are imported by their names in pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["project"]["dependencies"]
    names = [re.split(r"[^A-Za-z0-9_-]", one, maxsplit=1)[0] for one in wanted]
    return [name for name in names if is_missing(name)]
