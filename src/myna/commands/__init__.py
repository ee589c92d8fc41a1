"""One file a command: the only place that composes the rooms.

Each module has `main(args)`, and imports what is heavy inside it, so that `myna --help` costs nothing.
"""

from collections.abc import Sequence
from typing import TypeVar

import tyro

from myna.errors import UsageError

T = TypeVar("T")


def parse(
    call: type[T],
    args: Sequence[str],
    *,
    command: str,
    default: T | None = None,
    description: str | None = None,
) -> T:
    """Reads a command's arguments into the dataclass `call`: its fields are the flags, its docstring the help.

    A wrong flag or type ends the process with exit code 2 and a panel on stderr that names the nearest right one.
    """
    prog = f"myna {command}"
    if default is None:
        return tyro.cli(call, args=list(args), prog=prog, description=description)
    return tyro.cli(call, args=list(args), prog=prog, description=description, default=default)


def refuse_empty(args: Sequence[str]) -> None:
    """For a command none of whose arguments may be empty: as a path, an empty name would be the folder we are in.

    Raises:
        UsageError: one is.
    """
    for before, arg in zip(["", *args], args, strict=False):
        if arg == "" or (arg.startswith("--") and arg.endswith("=")):
            flag = arg.rstrip("=") or (before if before.startswith("--") else "")
            raise UsageError(f"{flag or 'an argument'} is empty; give a name, or leave it out")
