"""What torchrun says to a process in its variables: read and checked here alone, before torch is loaded."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from myna.errors import MynaError, UsageError

ADVICE = "start it with torchrun, which sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, or unset them"


@dataclass(frozen=True)
class Place:
    """A process's place among those that train together, and where they meet; alone, rank 0 of 1."""

    rank: int
    world_size: int
    local_rank: int  # among those of this machine
    host: str


def process_environment() -> Mapping[str, str]:
    """The variables torchrun sets: the one place where they are read."""
    return os.environ


def read_place(environ: Mapping[str, str]) -> Place:
    """The place that the variables describe.

    Raises:
        UsageError: one is missing, or is no number that it can be.
    """
    world_size = _number(environ, "WORLD_SIZE", "1", 1, 1 << 20)
    if world_size > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
        if missing:
            raise UsageError(f"WORLD_SIZE is {world_size} without {', '.join(missing)}; {ADVICE}")
        _number(environ, "MASTER_PORT", "", 1, 65535)
    return Place(
        _number(environ, "RANK", "0", 0, world_size - 1),
        world_size,
        _number(environ, "LOCAL_RANK", "0", 0, world_size - 1),
        environ.get("MASTER_ADDR", ""),
    )


def _number(environ: Mapping[str, str], name: str, default: str, low: int, high: int) -> int:
    text = environ.get(name, default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
        raise UsageError(
            f"the variable {name} is {text!r}, and must be a number from {low} to {high}; {ADVICE}"
        )
    return int(text)


@contextlib.contextmanager
def once_a_machine(environ: Mapping[str, str]) -> Iterator[None]:
    """For what all ranks of a machine find alike, such as a wrong flag: within the block only the first says it."""
    if "TORCHELASTIC_RUN_ID" not in environ or environ.get("LOCAL_RANK") == "0":
        yield
        return
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where the parser prints its panel
            yield
    except MynaError as error:
        error.told = True
        raise
