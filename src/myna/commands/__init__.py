"""One file a command: the only place that composes the rooms.

Each module has `main(args)`, and imports what is heavy inside it, so that `myna --help` costs nothing.
"""

from collections.abc import Sequence
from typing import TypeVar

import tyro

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
